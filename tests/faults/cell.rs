//! The cells of the table in `matrix.md`: a fault, a moment and a hop, and what a client sees then.

use std::time::Duration;

use acr_emulator::Hop;

use crate::client::Seen;

/// The page with the tables.
const PAGE: &str = include_str!("matrix.md");
/// The second one, of the cells in `kept`, comes below this.
const WITH_CACHE: &str = "\n## With answers that are kept\n";
/// What a machine under load may add to any bound; less than there is between two of them, at once and 10 s.
const SLACK: Duration = Duration::from_secs(9);

/// When the fault comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Start,
    FirstRefresh,
    Load,
}

/// What a cell of the table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub status: u16,
    pub code: Option<String>,
    pub retry_after: Retry,
    pub cut: bool,
    pub within: Duration,
}

/// What a cell says of `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    No,
    After(u64),
    /// What is left of a pause of a minute at most.
    Left,
    /// A second if the registry is known to be down by then, and none before.
    IfDown,
}

impl Retry {
    fn is(self, seen: Option<u64>) -> bool {
        match self {
            Self::No => seen.is_none(),
            Self::After(seconds) => seen == Some(seconds),
            Self::IfDown => seen.is_none_or(|seconds| seconds == 1),
            Self::Left => seen.is_some_and(|left| (1..=60).contains(&left)),
        }
    }
}

/// A cell with its place in the table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub fault: String,
    pub moment: Moment,
    pub hop: Hop,
    pub expected: Outcome,
    /// What the same fault does at start: how soon the hop is asked again follows from it.
    pub at_start: Outcome,
}

impl Outcome {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ').peekable();
        let status = words.next()?.parse().ok()?;
        let mut outcome = Self { status, code: None, retry_after: Retry::No, cut: false, within: Duration::ZERO };
        while let Some(word) = words.next() {
            match word {
                "retry" => {
                    let seconds = words.peek().and_then(|word| word.parse().ok());
                    outcome.retry_after = seconds.map_or(Retry::Left, Retry::After);
                    words.next_if(|_| seconds.is_some());
                }
                "retry?" => outcome.retry_after = Retry::IfDown,
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
    pub(crate) fn differs(&self, seen: &Seen) -> Option<String> {
        let same = (self.status, self.code.as_deref(), self.cut) == (seen.status, seen.code.as_deref(), seen.cut);
        (!same || !self.retry_after.is(seen.retry_after) || seen.took > self.within + SLACK)
            .then(|| format!("{seen:?}"))
    }
}

/// The rows of the table, taken apart.
pub(crate) fn rows() -> impl Iterator<Item = Vec<&'static str>> {
    rows_in(PAGE.split(WITH_CACHE).next())
}

/// The rows of the table with answers that are kept.
pub(crate) fn rows_with_cache() -> impl Iterator<Item = Vec<&'static str>> {
    rows_in(PAGE.split(WITH_CACHE).nth(1))
}

fn rows_in(part: Option<&'static str>) -> impl Iterator<Item = Vec<&'static str>> {
    let lines = part.unwrap_or_default().lines().filter(|line| line.starts_with('|')).skip(2);
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

/// All cells that make sense.
pub(crate) fn cells() -> Vec<Cell> {
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
