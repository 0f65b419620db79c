//! A progress bar on standard error, if that is a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::phase::Phase;
use crate::plan::{Level, Plan};
use crate::tally::Ledger;

/// Between two updates.
const STEP: Duration = Duration::from_millis(250);
const WIDTH: usize = 24;

/// Draws until the future is dropped.
pub(crate) async fn show(plan: &Plan, level: Level, ledger: &Ledger) {
    if !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let begun = Instant::now();
    let _erased = EraseOnDrop;
    loop {
        tokio::time::sleep(STEP).await;
        let line = line(plan, level, ledger, begun.elapsed());
        let mut stderr = std::io::stderr().lock();
        // Back to the start of the line, and erase what is left of the previous one.
        let _ = write!(stderr, "\r{line}\x1b[K");
        let _ = stderr.flush();
    }
}

/// Erases the line before the report is printed.
struct EraseOnDrop;

impl Drop for EraseOnDrop {
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

#[cfg(test)]
mod tests {
    use oci::platform::Platform;

    use super::*;
    use crate::image::{Image, Mix};
    use crate::plan::Connections;
    use crate::pull::Layers;

    #[test]
    fn the_bar_shows_pulls_or_time_whichever_is_further() {
        let image = Image::parse("library/nginx:1.27").expect("an image");
        let mut plan = Plan {
            routes: Vec::new(),
            mix: Mix::new(vec![(image, 1)]).expect("a mix"),
            platform: Platform::parse("linux/amd64").expect("a platform"),
            layers: Layers::Full,
            pulls: None,
            duration: None,
            seed: 0,
        };
        let level = Level { connections: Connections::Cold, concurrency: 8, rate: None };
        for (pulls, seconds, filled, goal) in
            [(None, Some(20), 12, "0 pulls"), (Some(50), None, 0, "0/50 pulls"), (Some(50), Some(5), 24, "0/50 pulls")]
        {
            (plan.pulls, plan.duration) = (pulls, seconds.map(Duration::from_secs));
            let line = line(&plan, level, &Ledger::new(&plan), Duration::from_secs(10));
            let bar = format!("[{}{}] {goal} at 8", "#".repeat(filled), "-".repeat(WIDTH - filled));
            assert!(line.starts_with(&bar) && line.ends_with(", 10 s"), "{line}");
        }
    }
}
