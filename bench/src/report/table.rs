//! The table, for a terminal of 110 columns.

use super::cells::{self, DIFFERENCE};
use super::{About, SHARES, Summary, answer};
use crate::digits::digits;

pub(crate) fn render(about: &About, summaries: &[Summary], interrupted: bool) -> String {
    let mut text = String::new();
    for sentence in answer::render(summaries, interrupted) {
        text += &format!("{sentence}\n");
    }
    text += "\n";
    for (name, value) in cells::facts(about) {
        text += &format!("{name:<10}{value}\n");
    }
    for summary in summaries {
        text += &format!("\n{}", level(summary));
    }
    text
}

/// One level: heading, phases, counts, errors.
fn level(summary: &Summary) -> String {
    let mut text = format!("{}, {} s\n\n", summary.heading, digits(summary.elapsed.as_secs_f64()));
    let mut header = format!("{:<20}{:<6}{:>6}", "milliseconds", "side", "n");
    for (name, _) in SHARES {
        header += &format!("{name:>9}");
    }
    if summary.sides.len() > 1 {
        header += &format!("   {DIFFERENCE}");
    }
    text += &format!("{header}\n");
    phases(&mut text, summary);
    for note in cells::notes(summary) {
        text += &format!("{note}\n");
    }
    let sides: String = summary.sides.iter().map(|side| format!("{:>12}", side.side.label())).collect();
    text += &format!("\n{:<20}{sides}\n", "");
    for (name, values) in cells::counts(summary) {
        let values: String = values.iter().map(|value| format!("{value:>12}")).collect();
        text += &format!("{name:<20}{values}\n");
    }
    for error in cells::errors(summary) {
        text += &format!("{error}\n");
    }
    text
}

fn phases(text: &mut String, summary: &Summary) {
    for (mut label, rows) in cells::phases(summary) {
        if rows.is_empty() {
            *text += &format!("{label:<20}-\n");
        }
        for row in rows {
            let values: String = row.values.iter().map(|value| format!("{value:>9}")).collect();
            *text += &format!("{label:<20}{:<6}{:>6}{values}", row.side.label(), row.count);
            if let Some([value, low, high]) = &row.difference {
                *text += &format!("   {value:>7} [{low}, {high}]");
            }
            *text += "\n";
            label = "";
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase::Phase;

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
        assert!(
            text.starts_with("1 of 101 direct pulls failed, 1 by a limit of requests. Through the proxy a pull takes 25.0 ms, a direct one 85.0 ms: 60.0 ms less"),
            "{text}"
        );
        assert!(text.contains("1 x direct: GET /v2/<a>: 429") && text.contains("Interrupted"), "{text}");
        assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
    }
}
