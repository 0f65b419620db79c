//! The report: one summary as table, HTML page, JSON and plots. Each begins with the result in one sentence.

use std::time::Duration;

use crate::output::{Output, Outputs, print};
use crate::pairs::Difference;
use crate::phase::Phase;
use crate::plan::Level;
use crate::pull::Layers;
use crate::record::Record;
use crate::route::Side;
use crate::tally::Tally;

mod answer;
mod cells;
mod json;
mod page;
mod plot;
mod table;

/// The percentiles of every table, by their share; the last is the maximum.
pub(crate) const SHARES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// What was measured, for all levels.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// When the run began, in UTC (RFC 3339).
    pub date: String,
    /// The command line that repeats the run.
    pub command: String,
    /// Whose variables sign in, a sentence each.
    pub variables: Vec<String>,
    /// The images, as the preflight found them.
    pub images: Vec<Sized>,
    /// Which manifest of an index.
    pub platform: String,
    /// How much of the layers.
    pub layers: Layers,
    /// The hosts.
    pub sides: Vec<(Side, String)>,
    /// The round-trip time to the emulator, if it was one.
    pub rtt: Option<Duration>,
}

/// An image and its size.
#[derive(Clone, Debug)]
pub(crate) struct Sized {
    /// The name in the command.
    pub name: String,
    /// The number of layers.
    pub layers: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// The results of one level.
#[derive(Debug)]
pub(crate) struct Run {
    /// The load.
    pub level: Level,
    /// How long it ran.
    pub elapsed: Duration,
    /// The measurements.
    pub tally: Tally,
}

/// The whole report.
#[derive(Debug)]
pub(crate) struct Report {
    /// What was measured.
    pub about: About,
    /// The levels, in the order of the run.
    pub runs: Vec<Run>,
    /// Ctrl-C or SIGTERM ended it early.
    pub interrupted: bool,
}

/// A level with percentiles and differences in place of histograms and pairs.
struct Summary {
    /// `concurrency 8, cold connections`
    heading: String,
    level: Level,
    elapsed: Duration,
    sides: Vec<SideSummary>,
    phases: Vec<PhaseSummary>,
    pairs: u64,
    /// How much longer the whole pull takes through the proxy, in microseconds.
    whole: Option<Difference>,
}

struct SideSummary {
    side: Side,
    record: Record,
    /// Pulls that Ctrl-C or SIGTERM ended, or that still waited.
    unfinished: u64,
}

struct PhaseSummary {
    phase: Phase,
    /// By side: the number of samples and the values of [`SHARES`].
    rows: Vec<Option<(u64, [u64; SHARES.len()])>>,
    difference: Option<Difference>,
}

impl Summary {
    fn new(run: Run) -> Self {
        let Run { level, elapsed, tally } = run;
        let load = match level.rate {
            Some(rate) => format!("open loop, {rate} pulls a second a side, {} at once at most", level.concurrency),
            None => format!("closed loop, concurrency {}", level.concurrency),
        };
        let mut phases = Vec::new();
        for phase in Phase::ALL {
            let row = |record: &Record| {
                let values = SHARES.map(|(_, share)| record.percentile(phase, share));
                let count = record.histogram(phase).len();
                (count > 0).then(|| (count, values.map(Option::unwrap_or_default)))
            };
            let rows: Vec<_> = tally.records.iter().map(|(_, record)| row(record)).collect();
            let (any, all) = (rows.iter().any(Option::is_some), rows.iter().all(Option::is_some));
            let comparable = if phase.is_speed() { all } else { any };
            let difference = if comparable { tally.pairs.difference(phase) } else { None };
            phases.push(PhaseSummary { phase, rows, difference });
        }
        let whole = tally.pairs.difference(Phase::Whole);
        let sides = tally.records.into_iter().zip(&tally.begun).map(|((side, record), begun)| {
            let unfinished = begun.saturating_sub(record.pulls + record.errors + record.dropped);
            SideSummary { side, record, unfinished }
        });
        Self {
            heading: format!("{load}; {}", level.connections.label()),
            level,
            elapsed,
            sides: sides.collect(),
            phases,
            pairs: tally.pairs.seen(),
            whole,
        }
    }
}

impl Report {
    /// Prints the table, unless another part goes to standard output. Fails if a part cannot be written, after the others are,
    /// or if more pulls of a side failed than succeeded.
    pub(crate) fn write(self, outputs: &Outputs) -> Result<(), String> {
        let Self { about, runs, interrupted } = self;
        let summaries: Vec<_> = runs.into_iter().map(Summary::new).collect();
        let put = |output: &Option<Output>, render: &dyn Fn() -> String| match output {
            Some(output) => output.write(&render()),
            None => Ok(()),
        };
        let mut written = Ok(());
        if !outputs.take_stdout() {
            written = print(&table::render(&about, &summaries, interrupted));
        }
        for part in [
            put(&outputs.json, &|| json::render(&about, &summaries, interrupted)),
            put(&outputs.svg, &|| plot::render(&summaries)),
            put(&outputs.html, &|| page::render(&about, &summaries, interrupted)),
        ] {
            written = written.and(part);
        }
        written?;
        judge(&summaries)
    }
}

/// What was measured says little where more pulls of a side fail than succeed.
fn judge(summaries: &[Summary]) -> Result<(), String> {
    for SideSummary { side, record, .. } in summaries.iter().flat_map(|summary| &summary.sides) {
        let most = record.most_frequent().unwrap_or_default();
        let label = side.label();
        if record.pulls == 0 && record.errors > 0 {
            return Err(format!("no {label} pull succeeded: {most}"));
        }
        if record.errors > record.pulls {
            return Err(format!("{} of {} {label} pulls failed: {most}", record.errors, record.errors + record.pulls));
        }
    }
    Ok(())
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A measured value in the unit that is shown: milliseconds, or MiB a second.
fn shown(phase: Phase, value: f64) -> f64 {
    value / if phase.is_speed() { 1024.0 } else { 1000.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;
    use crate::meter::{Meter, Pulled};
    use crate::pairs::Pairs;
    use crate::plan::Connections;

    /// A report of 100 pulls, of which the direct ones take 60 ms more, and one that failed.
    pub(super) fn summaries() -> (About, Vec<Summary>) {
        let mut records = [Record::default(), Record::default()];
        let mut pairs = Pairs::new(1);
        for number in 0..100 {
            let totals = [20, 80].map(|base| {
                let mut meter = Meter::default();
                meter.time(Phase::Ping, Duration::from_micros(300 + number));
                if base == 80 {
                    meter.time(Phase::Token, Duration::from_millis(40));
                }
                meter.throughput(5 << 20, Duration::from_millis(10 + number));
                meter.time(Phase::Whole, Duration::from_micros(base * 1000 + number * 100));
                meter
            });
            pairs.add(&totals[0].totals(), &totals[1].totals());
            for (record, meter) in records.iter_mut().zip(totals) {
                record.add(&Pulled { meter, failure: None });
            }
        }
        let failure = Failure { sentence: "GET /v2/<a>: 429 \"TOO&MANY\"".to_owned(), throttled: true };
        records[1].add(&Pulled { meter: Meter::default(), failure: Some(failure) });
        let [via, direct] = records;
        let tally = Tally::of(vec![(Side::Via, via), (Side::Direct, direct)], pairs, vec![100, 101]);
        let level = Level { connections: Connections::Cold, concurrency: 8, rate: None };
        let about = About {
            date: "2026-11-25T14:18:00Z".to_owned(),
            command: "acr-cache-proxy bench --image 'a & b'".to_owned(),
            variables: Vec::new(),
            images: vec![Sized { name: "library/nginx:1.27".to_owned(), layers: 7, bytes: 70 << 20 }],
            platform: "linux/amd64".to_owned(),
            layers: Layers::Full,
            sides: vec![
                (Side::Via, "http://127.0.0.1:8080".to_owned()),
                (Side::Direct, "example.azurecr.io/hub".to_owned()),
            ],
            rtt: Some(Duration::from_millis(20)),
        };
        (about, vec![Summary::new(Run { level, elapsed: Duration::from_secs(12), tally })])
    }
}
