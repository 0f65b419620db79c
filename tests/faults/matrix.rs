use std::time::Duration;

use acr_emulator::Hop;
use tokio::sync::Semaphore;

use crate::kept::Seen;
use crate::run_cell;

/// The table itself.
const TABLE: &str = include_str!("matrix.md");
/// Cells run at once, over all moments; most of their time they wait.
static PLACES: Semaphore = Semaphore::const_new(16);
/// What a machine under load may add to any bound; less than there is between two of them, at once and 10 s.
const SLACK: Duration = Duration::from_secs(9);

/// When the fault comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Start,
    FirstRefresh,
    Load,
}

/// What a cell of the table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub status: u16,
    pub code: Option<String>,
    pub retry_after: Option<u64>,
    pub cut: bool,
    pub within: Duration,
}

/// A cell with its place in the table.
#[derive(Clone, Debug)]
pub struct Cell {
    pub fault: String,
    pub moment: Moment,
    pub hop: Hop,
    pub expected: Outcome,
    /// What the same fault does at start: how soon the hop is asked again follows from it.
    pub at_start: Outcome,
}

impl Outcome {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ').peekable();
        let status = words.next()?.parse().ok()?;
        let mut outcome = Self { status, code: None, retry_after: None, cut: false, within: Duration::ZERO };
        while let Some(word) = words.next() {
            match word {
                "retry" => outcome.retry_after = Some(words.next()?.parse().ok()?),
                "cut" => outcome.cut = true,
                "in" => outcome.within = Duration::from_secs(words.next()?.parse().ok()?),
                "at" | "once" | "s" => {}
                code if code.chars().all(|c| c.is_ascii_uppercase() || c == '_') => {
                    outcome.code = Some(code.to_owned());
                }
                _ => return None,
            }
        }
        Some(outcome)
    }

    /// What is wrong with an answer, if something is.
    pub fn differs(&self, seen: &Seen) -> Option<String> {
        let same = (self.status, self.code.as_deref(), self.retry_after, self.cut)
            == (seen.status, seen.code.as_deref(), seen.retry_after, seen.cut);
        (!same || seen.took > self.within + SLACK).then(|| format!("{seen:?}"))
    }
}

/// The rows of the table, taken apart.
fn rows() -> impl Iterator<Item = Vec<&'static str>> {
    let lines = TABLE.lines().filter(|line| line.starts_with('|')).skip(2);
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

/// All cells that make sense.
fn cells() -> Vec<Cell> {
    const HOPS: [Hop; 5] = [Hop::Imds, Hop::Entra, Hop::Exchange, Hop::Token, Hop::Data];
    let outcome = |text: &str| Outcome::parse(text).unwrap_or_else(|| panic!("no outcome: {text:?}"));
    let mut cells: Vec<Cell> = Vec::new();
    for row in rows() {
        let [fault, moment, outcomes @ ..] = row.as_slice() else { panic!("no row: {row:?}") };
        assert_eq!(outcomes.len(), HOPS.len(), "{row:?}");
        let moment = match *moment {
            "at start" => Moment::Start,
            "at first refresh" => Moment::FirstRefresh,
            "under load" => Moment::Load,
            other => panic!("no moment: {other:?}"),
        };
        for (hop, text) in HOPS.into_iter().zip(outcomes).filter(|(_, text)| **text != "-") {
            let expected = outcome(text);
            // In the chain an absent command line tool keeps a failure from being permanent; once the endpoint has given
            // a token it alone is asked, and judged as Entra is.
            let judged = if hop == Hop::Imds && moment != Moment::Start { Hop::Entra } else { hop };
            let same = |cell: &&Cell| cell.fault == *fault && cell.hop == judged && cell.moment == Moment::Start;
            let at_start = cells.iter().find(same).map_or_else(|| expected.clone(), |cell| cell.expected.clone());
            cells.push(Cell { fault: (*fault).to_owned(), moment, hop, expected, at_start });
        }
    }
    cells
}

/// Runs all cells of one moment and reports those that saw something else.
async fn run_all(moment: Moment) {
    let mut running = tokio::task::JoinSet::new();
    let azure = tokio::runtime::Handle::current();
    for cell in cells().into_iter().filter(|cell| cell.moment == moment) {
        let azure = azure.clone();
        running.spawn(async move {
            let _place = PLACES.acquire().await.expect("never closed");
            let name = format!("{:?} × {} × {moment:?}", cell.hop, cell.fault);
            let outcome = tokio::task::spawn_blocking(move || run_cell::cell(&azure, &cell)).await;
            let wrong = match outcome {
                Ok(Ok(())) => return None,
                Ok(Err(wrong)) => wrong,
                Err(crash) => crash.to_string(),
            };
            Some(format!("{name}: {wrong}"))
        });
    }
    let cells = running.len();
    let mut wrong: Vec<_> = running.join_all().await.into_iter().flatten().collect();
    wrong.sort();
    assert!(wrong.is_empty(), "{} of {cells} cells:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_start_a_client_is_told_in_time_and_the_proxy_recovers() {
    run_all(Moment::Start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_first_refresh_no_client_sees_the_failure_of_a_renewal() {
    run_all(Moment::FirstRefresh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_no_pull_fails_while_a_token_is_good() {
    run_all(Moment::Load).await;
}

#[test]
fn the_table_has_a_cell_for_each_hop_fault_and_moment() {
    let faults: std::collections::BTreeSet<_> = rows().map(|row| row[0]).collect();
    assert_eq!(faults.len(), 16);
    assert_eq!(rows().count(), 16 * 3);
    assert_eq!(cells().len(), 16 * 3 * 5 - 2 * 3, "two faults are of tokens, and the data hop has none");
    // With a good token nothing that fails behind it is seen.
    let unseen = Outcome { status: 200, code: None, retry_after: None, cut: false, within: Duration::ZERO };
    for cell in cells() {
        assert!(cell.moment == Moment::Start || cell.hop == Hop::Data || cell.expected == unseen, "{cell:?}");
    }
    // Faults that the stand-in cannot inject would be cells in name only.
    for fault in faults {
        assert!(run_cell::fault(fault).is_some(), "{fault}");
    }
}
