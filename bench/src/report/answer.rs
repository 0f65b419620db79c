//! What everybody wants to know first: how long a pull takes on either side, and by how much they differ.

use super::{SideSummary, Summary, shown};
use crate::digits::digits;
use crate::pairs::Difference;
use crate::phase::Phase;
use crate::route::Side;

/// Of a run that was ended early.
pub const INTERRUPTED: &str = "Interrupted: this is what there was until then.";

/// One sentence a level, with the level in front if there are several; what more there is to say behind them.
pub fn render(summaries: &[Summary], interrupted: bool) -> Vec<String> {
    let mut sentences: Vec<_> = match summaries {
        [] => vec!["Nothing was measured.".to_owned()],
        [only] => vec![sentence(only)],
        levels => levels.iter().map(|level| format!("{}: {}", level.heading, sentence(level))).collect(),
    };
    if interrupted {
        sentences.push(INTERRUPTED.to_owned());
    }
    sentences
}

fn sentence(summary: &Summary) -> String {
    match &summary.sides[..] {
        [via, direct] if via.record.pulls > 0 && direct.record.pulls > 0 => {
            let [via, direct] = [via, direct].map(mean);
            let difference = difference(summary);
            format!("Through the proxy a pull takes {via} ms, a direct one {direct} ms: {difference}.")
        }
        sides => sides.iter().map(alone).collect::<Vec<_>>().join(" "),
    }
}

fn alone(side: &SideSummary) -> String {
    match (side.side, side.record.pulls) {
        (Side::Via, 0) => "No pull through the proxy succeeded.".to_owned(),
        (Side::Direct, 0) => "No direct pull succeeded.".to_owned(),
        (Side::Via, pulls) => format!("Through the proxy a pull takes {} ms (mean of {pulls}).", mean(side)),
        (Side::Direct, pulls) => format!("A direct pull takes {} ms (mean of {pulls}).", mean(side)),
    }
}

fn mean(side: &SideSummary) -> String {
    digits(shown(Phase::Whole, side.record.histogram(Phase::Whole).mean()))
}

/// The interval is said from the end that is nearer to no difference.
fn difference(summary: &Summary) -> String {
    let Some(Difference { mean, .. }) = summary.whole else {
        return "too few pairs to tell them apart".to_owned();
    };
    let (pairs, ms) = (summary.pairs, |value: f64| digits(shown(Phase::Whole, value)));
    if mean.low <= 0.0 && mean.high >= 0.0 {
        let [low, high] = [mean.low, mean.high].map(ms);
        return format!("no difference that {pairs} pairs could tell (95 % interval {low} to {high} ms)");
    }
    let (word, near, far) = if mean.high < 0.0 { ("less", mean.high, mean.low) } else { ("more", mean.low, mean.high) };
    let [value, near, far] = [mean.value, near, far].map(|value| ms(value.abs()));
    format!("{value} ms {word} (95 % interval {near} to {far} ms, {pairs} pairs)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::Estimate;

    #[test]
    fn the_answer_is_both_times_and_how_sure_their_difference_is() {
        let (_, mut summaries) = super::super::tests::summaries();
        let at = |value: f64| Estimate { value, low: value - 500.0, high: value + 500.0 };
        for (whole, expected) in [
            (Some(-60_000.0), "60.0 ms less (95 % interval 59.5 to 60.5 ms, 100 pairs)."),
            (Some(2_000.0), "2.00 ms more (95 % interval 1.50 to 2.50 ms, 100 pairs)."),
            (Some(100.0), "no difference that 100 pairs could tell (95 % interval -0.40 to 0.60 ms)."),
            (None, "too few pairs to tell them apart."),
        ] {
            summaries[0].whole = whole.map(|value| Difference { mean: at(value), median: at(value) });
            let said = render(&summaries, false);
            let both = "Through the proxy a pull takes 25.0 ms, a direct one 85.0 ms: ";
            assert_eq!(said, [format!("{both}{expected}")]);
        }
    }

    #[test]
    fn a_side_without_a_pull_and_a_side_alone_are_said_so() {
        let (_, mut summaries) = super::super::tests::summaries();
        let direct = summaries[0].sides.pop().expect("two sides");
        assert_eq!(render(&summaries, false), ["Through the proxy a pull takes 25.0 ms (mean of 100)."]);
        summaries[0].sides.push(SideSummary { record: crate::record::Record::default(), ..direct });
        assert!(render(&summaries, true)[0].ends_with("(mean of 100). No direct pull succeeded."));
        assert_eq!(render(&summaries, true)[1], INTERRUPTED);
        assert_eq!(render(&[], false), ["Nothing was measured."]);
    }
}
