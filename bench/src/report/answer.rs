//! The result in one sentence: how long a pull takes on each side, and the difference.

use super::{SideSummary, Summary, shown};
use crate::digits::digits;
use crate::pairs::Difference;
use crate::phase::Phase;
use crate::route::Side;

/// Added to the report of a run that was ended early.
pub(crate) const INTERRUPTED: &str = "Interrupted: the report covers the pulls until then.";

/// One sentence a level, which begins with the level if there are several, and a remark if the run was ended early.
pub(crate) fn render(summaries: &[Summary], interrupted: bool) -> Vec<String> {
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

/// Times are of pulls that succeeded, so those that failed come first.
fn sentence(summary: &Summary) -> String {
    let failed: String = summary.sides.iter().filter_map(failed).collect();
    failed + &times(summary)
}

/// How many have failed; `None` where the next sentence says that all have, or none has.
fn failed(side: &SideSummary) -> Option<String> {
    let record = &side.record;
    if record.errors == 0 || record.pulls == 0 {
        return None;
    }
    let pulls = match side.side {
        Side::Via => "pulls through the proxy",
        Side::Direct => "direct pulls",
    };
    let limited = match record.throttled {
        0 => String::new(),
        limited => format!(", {limited} by a limit of requests"),
    };
    Some(format!("{} of {} {pulls} failed{limited}. ", record.errors, record.errors + record.pulls))
}

fn times(summary: &Summary) -> String {
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

/// The interval begins with the end that is closer to zero.
fn difference(summary: &Summary) -> String {
    let Some(Difference { mean, .. }) = summary.whole else {
        return "too few pairs for a comparison".to_owned();
    };
    let (pairs, ms) = (summary.pairs, |value: f64| digits(shown(Phase::Whole, value)));
    if mean.low <= 0.0 && mean.high >= 0.0 {
        let [low, high] = [mean.low, mean.high].map(ms);
        return format!("no difference that {pairs} pairs can show (95 % interval {low} to {high} ms)");
    }
    let (word, near, far) = if mean.high < 0.0 { ("less", mean.high, mean.low) } else { ("more", mean.low, mean.high) };
    let [value, near, far] = [mean.value, near, far].map(|value| ms(value.abs()));
    format!("{value} ms {word} (95 % interval {near} to {far} ms, {pairs} pairs)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;
    use crate::meter::{Meter, Pulled};
    use crate::pairs::Estimate;

    #[test]
    fn the_answer_has_both_times_and_the_interval_of_their_difference() {
        let (_, mut summaries) = super::super::tests::summaries();
        let at = |value: f64| Estimate { value, low: value - 500.0, high: value + 500.0 };
        for (whole, expected) in [
            (Some(-60_000.0), "60.0 ms less (95 % interval 59.5 to 60.5 ms, 100 pairs)."),
            (Some(2_000.0), "2.00 ms more (95 % interval 1.50 to 2.50 ms, 100 pairs)."),
            (Some(100.0), "no difference that 100 pairs can show (95 % interval -0.40 to 0.60 ms)."),
            (None, "too few pairs for a comparison."),
        ] {
            summaries[0].whole = whole.map(|value| Difference { mean: at(value), median: at(value) });
            let said = render(&summaries, false);
            let both = "Through the proxy a pull takes 25.0 ms, a direct one 85.0 ms: ";
            let failed = "1 of 101 direct pulls failed, 1 by a limit of requests. ";
            assert_eq!(said, [format!("{failed}{both}{expected}")]);
        }
    }

    /// The headline was the mean of the nine pulls that had succeeded, and the status 0.
    #[test]
    fn failures_were_left_out_of_the_headline_and_of_the_exit_status() {
        for (errors, limited, begins, is_failure) in [
            (0, 0, "Through the proxy a pull takes 25.0 ms (mean of 100).", false),
            (
                99,
                0,
                "99 of 199 pulls through the proxy failed. Through the proxy a pull takes 25.0 ms (mean of 100).",
                false,
            ),
            (101, 31, "101 of 201 pulls through the proxy failed, 31 by a limit of requests. Through", true),
        ] {
            let (_, mut summaries) = super::super::tests::summaries();
            summaries[0].sides.pop();
            let record = &mut summaries[0].sides[0].record;
            for number in 0..errors {
                let failure = Failure { sentence: "GET /v2/: 503".to_owned(), throttled: number < limited };
                record.add(&Pulled { meter: Meter::default(), failure: Some(failure) });
            }
            assert!(render(&summaries, false)[0].starts_with(begins), "{:?}", render(&summaries, false));
            let expected = format!("{errors} of {} via pulls failed: GET /v2/: 503", errors + 100);
            assert_eq!(super::super::judge(&summaries), if is_failure { Err(expected) } else { Ok(()) });
        }
    }

    #[test]
    fn a_side_without_pulls_and_a_single_side_have_sentences_of_their_own() {
        let (_, mut summaries) = super::super::tests::summaries();
        let direct = summaries[0].sides.pop().expect("two sides");
        assert_eq!(render(&summaries, false), ["Through the proxy a pull takes 25.0 ms (mean of 100)."]);
        summaries[0].sides.push(SideSummary { record: crate::record::Record::default(), ..direct });
        assert!(render(&summaries, true)[0].ends_with("(mean of 100). No direct pull succeeded."));
        assert_eq!(render(&summaries, true)[1], INTERRUPTED);
        assert_eq!(render(&[], false), ["Nothing was measured."]);
    }
}
