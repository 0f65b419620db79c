//! The report for programs: times in microseconds, throughput in KiB a second.

use serde_json::{Map, Value, json};

use super::{About, PhaseSummary, SHARES, SideSummary, Summary, answer};
use crate::pairs::{Difference, Estimate};

pub(crate) fn render(about: &About, summaries: &[Summary], interrupted: bool) -> String {
    let sides: Map<_, _> = about.sides.iter().map(|(side, name)| (side.label().to_owned(), json!(name))).collect();
    let images: Vec<_> = about
        .images
        .iter()
        .map(|image| json!({"image": image.name, "layers": image.layers, "layer_bytes": image.bytes}))
        .collect();
    let report = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "date": about.date,
        "command": about.command,
        "variables": about.variables,
        "answer": answer::render(summaries, interrupted),
        "sides": sides,
        "images": images,
        "platform": about.platform,
        "layers": about.layers.key(),
        "emulated_rtt_us": about.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        "interrupted": interrupted,
        "units": {"times": "us", "layer_throughput": "KiB/s", "differences": "via - direct"},
        "runs": summaries.iter().map(run).collect::<Vec<_>>(),
    });
    format!("{report:#}\n")
}

fn run(summary: &Summary) -> Value {
    let phases: Map<_, _> = summary.phases.iter().map(|of| (of.phase.key().to_owned(), phase(summary, of))).collect();
    let sides: Map<_, _> = summary.sides.iter().map(|of| (of.side.label().to_owned(), side(of))).collect();
    json!({
        "connections": summary.level.connections.key(),
        "concurrency": summary.level.concurrency,
        "rate": summary.level.rate,
        "seconds": summary.elapsed.as_secs_f64(),
        "sides": sides,
        "phases": phases,
        "pairs": summary.pairs,
    })
}

fn side(side: &SideSummary) -> Value {
    let record = &side.record;
    let errors: Vec<_> =
        record.sentences().map(|(sentence, count)| json!({"sentence": sentence, "count": count})).collect();
    json!({
        "pulls": record.pulls,
        "errors": record.errors,
        "limited": record.throttled,
        "dropped": record.dropped,
        "given_up": side.unfinished,
        "bytes": record.bytes,
        "error_sentences": errors,
    })
}

fn phase(summary: &Summary, phase: &PhaseSummary) -> Value {
    let mut object = Map::new();
    for (side, row) in summary.sides.iter().zip(&phase.rows) {
        let Some((count, values)) = row else { continue };
        let mut figures = Map::from_iter([("count".to_owned(), json!(count))]);
        figures.extend(SHARES.iter().zip(values).map(|((name, _), value)| ((*name).to_owned(), json!(value))));
        object.insert(side.side.label().to_owned(), figures.into());
    }
    if let Some(Difference { mean, median }) = phase.difference {
        object.insert("difference".to_owned(), json!({"mean": estimate(mean), "median": estimate(median)}));
    }
    object.into()
}

fn estimate(Estimate { value, low, high }: Estimate) -> Value {
    json!({"value": value, "low": low, "high": high})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_parses_and_has_the_figures() {
        let (about, summaries) = super::super::tests::summaries();
        let report: Value = serde_json::from_str(&render(&about, &summaries, false)).expect("JSON");
        assert_eq!((&report["date"], &report["version"]), (&about.date.into(), &env!("CARGO_PKG_VERSION").into()));
        assert!(report["command"].as_str().is_some_and(|line| line.starts_with("acr-cache-proxy bench ")));
        let run = &report["runs"][0];
        assert_eq!(run["sides"]["direct"]["limited"], 1);
        assert_eq!(run["phases"]["whole_pull"]["via"]["count"], 100);
        assert_eq!(run["phases"]["whole_pull"]["difference"]["mean"]["value"], -60_000.0);
        assert!(run["phases"]["challenge_and_token"]["via"].is_null());
        assert!(run["phases"]["whole_pull"]["direct"]["p99.9"].is_u64());
    }
}
