//! The plots, as SVG: a pull's time by percentile, and the phases' medians.

use crate::digits::digits;
use crate::phase::Phase;
use crate::route::Side;
use crate::svg::{Colour, Drawing};

use super::{SHARES, Summary, shown};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 340.0;
/// Room for the axis' numbers at the left, title, heading and legend above, the axis' labels below.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 78.0;
const BOTTOM: f64 = 44.0;
/// A bar, and the space between pairs of bars.
const BAR: f64 = 11.0;
const GAP: f64 = 10.0;
/// Room for a phase's name.
const NAMES: f64 = 150.0;
/// Points of a line: enough to look smooth on any screen.
const STEPS: usize = 200;
/// Lines of the grid.
const TICKS: f64 = 5.0;
/// The sides differ in hue and in lightness, so that a print without colour shows both.
const COLOURS: [Colour; 2] = [
    Colour { class: "via", light: "#0b62c4", dark: "#4c9bf5" },
    Colour { class: "direct", light: "#e08a1e", dark: "#e9a94a" },
];

/// One drawing of all levels, one below the other.
pub(crate) fn render(summaries: &[Summary]) -> String {
    let mut drawing = Drawing::new(WIDTH, &COLOURS);
    for summary in summaries {
        percentiles(&mut drawing, summary);
        medians(&mut drawing, summary);
    }
    drawing.render()
}

/// The plots of one level, a drawing each.
pub(crate) fn of_level(summary: &Summary) -> [String; 2] {
    [percentiles, medians].map(|plot| {
        let mut drawing = Drawing::new(WIDTH, &COLOURS);
        plot(&mut drawing, summary);
        drawing.render()
    })
}

fn name(side: Side) -> &'static str {
    match side {
        Side::Via => "via the proxy",
        Side::Direct => "direct",
    }
}

/// Title, heading and legend. The heading has a line of its own, because that of an open loop is long.
fn above(drawing: &mut Drawing, title: &str, summary: &Summary) {
    let top = drawing.height;
    drawing.text(LEFT, top + 20.0, "t", title);
    drawing.text(LEFT, top + 39.0, "m", &summary.heading);
    for (index, side) in summary.sides.iter().enumerate() {
        drawing.legend(LEFT + index as f64 * 130.0, top + 60.0, side.side.label(), name(side.side));
    }
}

/// A number of the grid, without trailing zeros: 0, 2.5, 40.
fn tick_label(value: f64) -> String {
    let text = digits(value);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The next larger number whose fifths are short, so that the lines of the grid are at round numbers.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.max(0.01).log10().floor());
    [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|top| *top >= value)
        .unwrap_or(10.0 * power)
}

fn percentiles(drawing: &mut Drawing, summary: &Summary) {
    let samples = summary.sides.iter().map(|side| side.record.histogram(Phase::Whole).len()).max().unwrap_or_default();
    // As many nines as there are samples to show them, each as wide as the others, as HdrHistogram plots them. Behind the
    // last one, half a sample's share of 1 is left for the maximum. p99 always has its tick, because the table has it.
    let nines = (samples as f64 * 2.0).max(1.0).log10().clamp(2.0, 5.0);
    let longest = summary.sides.iter().map(|side| side.record.histogram(Phase::Whole).max()).max().unwrap_or_default();
    let longest = round_up(shown(Phase::Whole, longest as f64));
    let (top, bottom) = (drawing.height + TOP, drawing.height + HEIGHT - BOTTOM);
    let x = |share: f64| LEFT + (WIDTH - LEFT - RIGHT) * (-(1.0 - share).log10()).min(nines) / nines;
    let y = |ms: f64| top + (bottom - top) * (1.0 - ms / longest);

    above(drawing, "A whole pull by percentile, in ms", summary);
    for tick in 0..=TICKS as u32 {
        let ms = longest * f64::from(tick) / TICKS;
        drawing.line((LEFT, y(ms)), (WIDTH - RIGHT, y(ms)), "g");
        drawing.text(LEFT - 8.0, y(ms) + 4.0, "m e", &tick_label(ms));
    }
    for (share, label) in [
        (0.0, "0 %"),
        (0.5, "50 %"),
        (0.9, "90 %"),
        (0.99, "99 %"),
        (0.999, "99.9 %"),
        (0.9999, "99.99 %"),
        (0.99999, "99.999 %"),
    ] {
        if -(1.0f64 - share).log10() <= nines + 1e-9 {
            drawing.line((x(share), top), (x(share), bottom), "g");
            drawing.text(x(share), bottom + 18.0, "m c", label);
        }
    }
    for side in summary.sides.iter().filter(|side| !side.record.histogram(Phase::Whole).is_empty()) {
        let points = (0..=STEPS).map(|step| {
            let share = 1.0 - 10f64.powf(-nines * step as f64 / STEPS as f64);
            let value = side.record.percentile(Phase::Whole, share).unwrap_or_default();
            (x(share), y(shown(Phase::Whole, value as f64)))
        });
        drawing.polyline(points, side.side.label());
    }
    drawing.height += HEIGHT;
}

fn medians(drawing: &mut Drawing, summary: &Summary) {
    let phases: Vec<_> = summary
        .phases
        .iter()
        .filter(|phase| !phase.phase.is_speed() && phase.rows.iter().any(Option::is_some))
        .collect();
    let step = BAR * summary.sides.len() as f64 + GAP;
    let median =
        |row: &Option<(u64, [u64; SHARES.len()])>| row.map(|(_, values)| shown(Phase::Whole, values[0] as f64));
    let longest = phases.iter().flat_map(|phase| &phase.rows).filter_map(median).fold(0.01, f64::max);
    let width = WIDTH - NAMES - RIGHT - 60.0;
    let top = drawing.height + TOP;
    above(drawing, "Median of each phase, in ms", summary);
    for (index, phase) in phases.iter().enumerate() {
        let y = top + GAP + step * index as f64;
        let middle = y + BAR * summary.sides.len() as f64 / 2.0 + 4.0;
        drawing.text(NAMES - 8.0, middle, "e", phase.phase.label());
        for (place, (side, row)) in summary.sides.iter().zip(&phase.rows).enumerate() {
            let Some(value) = median(row) else { continue };
            let y = y + BAR * place as f64;
            let long = (width * value / longest).max(1.0);
            drawing.rect(NAMES, y, long, BAR - 1.0, side.side.label());
            drawing.text(NAMES + long + 5.0, y + BAR - 2.0, "m s", &digits(value));
        }
    }
    drawing.height += TOP + step * phases.len() as f64 + 3.0 * GAP;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::svg::tests::assert_well_formed;

    #[test]
    fn the_drawing_is_well_formed_and_shows_both_sides() {
        let (_, summaries) = super::super::tests::summaries();
        let text = render(&summaries);
        assert_well_formed(&text);
        assert_eq!(text.matches("<polyline").count(), 2);
        assert!(text.contains("challenge and token") && text.contains("99 %"), "{text}");
    }

    #[test]
    fn p99_has_a_tick_however_few_the_pulls() {
        let (_, mut summaries) = super::super::tests::summaries();
        for side in &mut summaries[0].sides {
            side.record = crate::record::Record::default();
        }
        assert!(render(&summaries).contains(">99 %</text>"));
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, top) in [(0.31, 0.4), (1.0, 1.0), (17.0, 20.0), (22.0, 25.0), (93.0, 100.0), (101.0, 150.0)] {
            assert!((round_up(value) - top).abs() < 1e-9, "{value}: {}", round_up(value));
        }
    }
}
