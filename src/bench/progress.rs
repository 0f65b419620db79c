//! One line on standard error that says how far a run is, where that is a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::load::{Ledger, Level, Plan};
use super::phase::Phase;

/// Often enough to look alive.
const STEP: Duration = Duration::from_millis(250);
const WIDTH: usize = 24;

/// Draws until it is dropped.
pub async fn show(plan: &Plan, level: Level, ledger: &Ledger) {
    if !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let begun = Instant::now();
    let _wiped = Wiped;
    loop {
        tokio::time::sleep(STEP).await;
        let line = line(plan, level, ledger, begun.elapsed());
        let mut stderr = std::io::stderr().lock();
        // To the line's start, the line, and nothing behind it.
        let _ = write!(stderr, "\r{line}\x1b[K");
        let _ = stderr.flush();
    }
}

/// The line is gone when the report comes.
struct Wiped;

impl Drop for Wiped {
    fn drop(&mut self) {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
}

fn line(plan: &Plan, level: Level, ledger: &Ledger, elapsed: Duration) -> String {
    let tally = ledger.lock();
    let done = tally.records.iter().map(|(_, record)| record.pulls + record.errors + record.dropped).min();
    let done = done.unwrap_or_default();
    let by_pulls = plan.pulls.map_or(0.0, |pulls| done as f64 / pulls as f64);
    let by_time = plan.duration.map_or(0.0, |duration| elapsed.as_secs_f64() / duration.as_secs_f64());
    let filled = ((by_pulls.max(by_time).min(1.0) * WIDTH as f64) as usize).min(WIDTH);
    let bar = format!("{}{}", "#".repeat(filled), "-".repeat(WIDTH - filled));
    let goal = plan.pulls.map(|pulls| format!("/{pulls}")).unwrap_or_default();
    let mut line = format!("[{bar}] {done}{goal} pulls at {}", level.concurrency);
    for (side, record) in &tally.records {
        if let Some(median) = record.percentile(Phase::Whole, 0.5) {
            line += &format!(", {} {} ms", side.label(), median / 1_000);
        }
        if record.errors > 0 {
            line += &format!(", {} errors", record.errors);
        }
    }
    format!("{line}, {} s", elapsed.as_secs())
}
