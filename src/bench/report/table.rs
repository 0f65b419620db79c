//! The table, for a terminal of 110 columns.

use super::super::pairs::Difference;
use super::super::pull::Side;
use super::{About, PhaseSummary, SHARES, SideSummary, Summary, digits, mebibytes, shown, verdict};

/// Errors' sentences are long; the rest of a line this long would only repeat its beginning.
const MAX_LINE: usize = 200;
/// Of a run that was ended early.
pub const INTERRUPTED: &str = "Interrupted: this is what there was until then.";

pub fn render(about: &About, summaries: &[Summary], interrupted: bool) -> String {
    let mut text = head(about);
    for summary in summaries {
        text += &format!("\n{}\n", level(summary));
    }
    // The last table ends the text.
    text.truncate(text.trim_end().len());
    text += "\n";
    if interrupted {
        text += &format!("\n{INTERRUPTED}\n");
    }
    text
}

/// What was measured, in a few lines.
pub fn head(about: &About) -> String {
    let mut text = format!("{}\n", about.text());
    for (side, name) in &about.sides {
        text += &match side {
            Side::Via => format!("via     the proxy {name}\n"),
            Side::Direct => format!("direct  {name}, as an engine pulls: challenge, token, redirect\n"),
        };
    }
    if let Some(rtt) = about.rtt {
        text += &format!(
            "Emulated: registry and storage are a stand-in in this process, made to be {} ms away.\n",
            digits(rtt.as_secs_f64() * 1000.0)
        );
    }
    text
}

/// One level: its heading, its phases, what came of its pulls.
pub fn level(summary: &Summary) -> String {
    let mut text = format!("{}, {} s\n\n", summary.heading, digits(summary.elapsed.as_secs_f64()));
    let mut header = format!("{:<20}{:<6}{:>6}", "milliseconds", "side", "n");
    for (name, _) in SHARES {
        header += &format!("{name:>9}");
    }
    if summary.sides.len() > 1 {
        header += "   via - direct, 95 % interval";
    }
    text += &header;
    text += "\n";
    for phase in &summary.phases {
        rows(&mut text, summary, phase);
    }
    if summary.pairs > 1 {
        text +=
            "A difference is the mean over pairs of a pull's whole time in the phase; layers come three at a time.\n";
    }
    text.push('\n');
    counts(&mut text, summary);
    if let Some(verdict) = verdict(summary) {
        text += &format!("\n{verdict}\n");
    }
    text
}

fn rows(text: &mut String, summary: &Summary, phase: &PhaseSummary) {
    let mut label = phase.phase.label();
    if phase.rows.iter().all(Option::is_none) {
        *text += &format!("{label:<20}-\n");
        return;
    }
    // Whose row comes last has the difference.
    let last = phase.rows.iter().rposition(Option::is_some);
    for (index, (side, row)) in summary.sides.iter().zip(&phase.rows).enumerate() {
        let Some((count, values)) = row else { continue };
        let mut line = format!("{label:<20}{:<6}{count:>6}", side.side.label());
        for value in values {
            // Microseconds and KiB a second are far below 2^53.
            line += &format!("{:>9}", digits(shown(phase.phase, *value as f64)));
        }
        if let Some(Difference { mean, .. }) = phase.difference.filter(|_| Some(index) == last) {
            let [value, low, high] = [mean.value, mean.low, mean.high].map(|value| digits(shown(phase.phase, value)));
            line += &format!("   {value:>7} [{low}, {high}]");
        }
        *text += line.trim_end();
        *text += "\n";
        label = "";
    }
}

fn counts(text: &mut String, summary: &Summary) {
    let mut header = " ".repeat(20);
    for side in &summary.sides {
        header += &format!("{:>12}", side.side.label());
    }
    *text += &format!("{header}\n");
    let is_open = summary.level.rate.is_some();
    let any_unfinished = summary.sides.iter().any(|side| side.unfinished > 0);
    let mut line = |name: &str, value: fn(&SideSummary) -> String| {
        let cells: String = summary.sides.iter().map(|side| format!("{:>12}", value(side))).collect();
        *text += &format!("{name:<20}{cells}\n");
    };
    line("pulls", |side| side.record.pulls.to_string());
    line("errors", |side| side.record.errors.to_string());
    line("of them 429", |side| side.record.throttled.to_string());
    if is_open {
        line("never begun", |side| side.record.dropped.to_string());
    }
    if any_unfinished {
        line("given up", |side| side.unfinished.to_string());
    }
    line("content, MiB", |side| format!("{:.1}", mebibytes(side.record.bytes)));
    for side in &summary.sides {
        for (sentence, count) in side.record.sentences() {
            let sentence: String = sentence.chars().take(MAX_LINE).collect();
            *text += &format!("{count} x {}: {sentence}\n", side.side.label());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::phase::Phase;
    use super::*;

    #[test]
    fn every_phase_is_named_and_no_line_of_numbers_is_too_wide() {
        let (about, summaries) = super::super::tests::summaries();
        let text = render(&about, &summaries, true);
        for phase in Phase::ALL {
            let label = phase.label();
            assert!(text.lines().any(|line| line.starts_with(label)), "{label}: {text}");
        }
        let numbers = text.lines().skip_while(|line| !line.starts_with("milliseconds"));
        for line in numbers.take_while(|line| !line.is_empty()) {
            assert!((20..=110).contains(&line.len()) || line.ends_with('-'), "{line}");
        }
        assert!(text.contains("1 x direct: GET /v2/<a>: 429") && text.contains("Interrupted"), "{text}");
        assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
    }
}
