//! A progress bar on standard error, if that is a terminal.

use std::time::{Duration, Instant};

use progress::{Line, STEP, bar};

use crate::phase::Phase;
use crate::plan::{Level, Plan};
use crate::tally::Ledger;

/// Draws until the future is dropped.
pub(crate) async fn show(plan: &Plan, level: Level, ledger: &Ledger) {
    let Some(shown) = Line::on_terminal() else {
        return std::future::pending().await;
    };
    let begun = Instant::now();
    loop {
        tokio::time::sleep(STEP).await;
        shown.draw(&line(plan, level, ledger, begun.elapsed()));
    }
}

fn line(plan: &Plan, level: Level, ledger: &Ledger, elapsed: Duration) -> String {
    let tally = ledger.lock();
    let done = tally.records.iter().map(|(_, record)| record.pulls + record.errors + record.dropped).min();
    let done = done.unwrap_or_default();
    let by_pulls = plan.pulls.map_or(0.0, |pulls| done as f64 / pulls as f64);
    let by_time = plan.duration.map_or(0.0, |duration| elapsed.as_secs_f64() / duration.as_secs_f64());
    let bar = bar(by_pulls.max(by_time));
    let goal = plan.pulls.map(|pulls| format!("/{pulls}")).unwrap_or_default();
    let mut line = format!("{bar} {done}{goal} pulls at {}", level.concurrency);
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
        for (pulls, seconds, done, goal) in [
            (None, Some(20), 0.5, "0 pulls"),
            (Some(50), None, 0.0, "0/50 pulls"),
            (Some(50), Some(5), 1.0, "0/50 pulls"),
        ] {
            (plan.pulls, plan.duration) = (pulls, seconds.map(Duration::from_secs));
            let line = line(&plan, level, &Ledger::new(&plan), Duration::from_secs(10));
            let bar = format!("{} {goal} at 8", bar(done));
            assert!(line.starts_with(&bar) && line.ends_with(", 10 s"), "{line}");
        }
    }
}
