//! The cells of the tables as text, which the terminal's table and the HTML page share.

use super::{About, SHARES, SideSummary, Summary, mebibytes, shown};
use crate::digits::digits;
use crate::pairs::{Difference, Estimate};
use crate::phase::Phase;
use crate::pull::Layers;
use crate::route::Side;

/// Longer error sentences are cut.
const MAX_SENTENCE: usize = 200;
/// The heading of the column of differences.
pub(crate) const DIFFERENCE: &str = "via - direct, 95 % interval";

/// The row of one side in a phase.
pub(crate) struct Row {
    pub side: Side,
    pub count: String,
    /// One for each of [`SHARES`].
    pub values: [String; SHARES.len()],
    /// Value, low and high, in the last row of a phase.
    pub difference: Option<[String; 3]>,
}

/// What was measured: names and values.
pub(crate) fn facts(about: &About) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("date", format!("{}, version {}", about.date, env!("CARGO_PKG_VERSION"))),
        ("command", about.command.clone()),
    ];
    facts.extend(about.variables.iter().map(|sentence| ("variables", sentence.clone())));
    facts.extend(about.images.iter().map(|image| {
        ("image", format!("{} ({} layers, {:.1} MiB)", image.name, image.layers, mebibytes(image.bytes)))
    }));
    let layers = match about.layers {
        Layers::None => "none",
        Layers::Head => "head: where they are, and HEAD there",
        Layers::Full => "full",
    };
    facts.extend([("platform", about.platform.clone()), ("layers", layers.to_owned())]);
    facts.extend(about.sides.iter().map(|(side, name)| match side {
        Side::Via => ("via", format!("the proxy {name}")),
        Side::Direct => ("direct", format!("{name}, as an engine pulls: challenge, token, redirect")),
    }));
    if let Some(rtt) = about.rtt {
        let rtt = digits(rtt.as_secs_f64() * 1000.0);
        let stand_in = format!("registry and storage are an emulator in this process, {rtt} ms away");
        facts.push(("emulated", stand_in));
    }
    facts
}

/// The phases by name. A phase without samples has no rows.
pub(crate) fn phases(summary: &Summary) -> Vec<(&'static str, Vec<Row>)> {
    let rows = summary.phases.iter().map(|phase| {
        // Microseconds and KiB a second are far below 2^53.
        let text = |value: u64| digits(shown(phase.phase, value as f64));
        let mut rows: Vec<_> = summary
            .sides
            .iter()
            .zip(&phase.rows)
            .filter_map(|(side, row)| {
                let (count, values) = (*row)?;
                Some(Row { side: side.side, count: count.to_string(), values: values.map(text), difference: None })
            })
            .collect();
        if let (Some(last), Some(Difference { mean, .. })) = (rows.last_mut(), phase.difference) {
            last.difference = Some(estimate(phase.phase, mean));
        }
        (phase.phase.label(), rows)
    });
    rows.collect()
}

fn estimate(phase: Phase, Estimate { value, low, high }: Estimate) -> [String; 3] {
    [value, low, high].map(|value| digits(shown(phase, value)))
}

/// How to read the differences, if there are any.
pub(crate) fn notes(summary: &Summary) -> Vec<String> {
    let Some(Difference { median, .. }) = summary.whole else {
        return Vec::new();
    };
    let [value, low, high] = estimate(Phase::Whole, median);
    vec![
        "A difference is the mean over pairs of a pull's whole time in the phase; layers come three at a time."
            .to_owned(),
        format!("The median difference of the whole pull is {value} ms [{low}, {high}]."),
    ]
}

/// Counts of pulls and errors: a name, and a number for each side.
pub(crate) fn counts(summary: &Summary) -> Vec<(&'static str, Vec<String>)> {
    let is_open = summary.level.rate.is_some();
    let any_unfinished = summary.sides.iter().any(|side| side.unfinished > 0);
    let mut lines = Vec::new();
    let mut line = |name, value: fn(&SideSummary) -> String| {
        lines.push((name, summary.sides.iter().map(value).collect()));
    };
    line("pulls", |side| side.record.pulls.to_string());
    line("errors", |side| side.record.errors.to_string());
    line("of them limited", |side| side.record.throttled.to_string());
    if is_open {
        line("never begun", |side| side.record.dropped.to_string());
    }
    if any_unfinished {
        line("given up", |side| side.unfinished.to_string());
    }
    line("content, MiB", |side| format!("{:.1}", mebibytes(side.record.bytes)));
    lines
}

/// The errors, and how often each occurred.
pub(crate) fn errors(summary: &Summary) -> Vec<String> {
    let of = |side: &SideSummary| {
        let label = side.side.label();
        let sentences = side.record.sentences().map(move |(sentence, count)| {
            let sentence: String = sentence.chars().take(MAX_SENTENCE).collect();
            format!("{count} x {label}: {sentence}")
        });
        sentences.collect::<Vec<_>>()
    };
    summary.sides.iter().flat_map(of).collect()
}
