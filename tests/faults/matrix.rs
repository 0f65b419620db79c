//! Hop by fault by moment, as the table in `matrix.md` has it.

use std::time::Duration;

use acr_emulator::Hop;
use tokio::sync::Semaphore;

use crate::cell::{Moment, Outcome, Retry, cells, rows};
use crate::run_cell;

/// Cells run at once, over all moments; most of their time they wait.
static PLACES: Semaphore = Semaphore::const_new(16);

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
async fn at_start_a_client_gets_its_error_in_time_and_the_proxy_recovers() {
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
    let unseen = Outcome { status: 200, code: None, retry_after: Retry::No, cut: false, within: Duration::ZERO };
    for cell in cells() {
        assert!(cell.moment == Moment::Start || cell.hop == Hop::Data || cell.expected == unseen, "{cell:?}");
    }
    // Faults that the emulator cannot inject would be cells in name only.
    for fault in faults {
        assert!(run_cell::fault(fault).is_some(), "{fault}");
    }
}
