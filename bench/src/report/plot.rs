//! The plots, as SVG: a pull's time by percentile, and the phases' medians.

use std::fmt::Write as _;

use super::{Summary, digits, shown};
use crate::phase::Phase;
use crate::route::Side;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 340.0;
/// Room for the axis' numbers at the left, title, heading and legend above, the axis' labels below.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 78.0;
const BOTTOM: f64 = 44.0;
/// A bar and the space to the next pair of them.
const BAR: f64 = 11.0;
const GAP: f64 = 10.0;
/// Room for a phase's name.
const NAMES: f64 = 150.0;
/// Points of a line: enough to be smooth on any screen.
const STEPS: usize = 200;
/// Lines of the grid.
const TICKS: f64 = 5.0;
/// On light ground, and on dark where the reader's screen is. The sides are apart in hue and in lightness, so that a print
/// without colour shows both.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#222}.t{font-weight:600;font-size:15px}.m{fill:#666}.s{font-size:10px}.g{stroke:#ddd}.e{text-anchor:end}.c{text-anchor:middle}.b{fill:#fff}.via{fill:#0b62c4;stroke:#0b62c4}.direct{fill:#e08a1e;stroke:#e08a1e}@media(prefers-color-scheme:dark){text{fill:#e6e6e6}.m{fill:#9aa3ad}.g{stroke:#30363d}.b{fill:#0d1117}.via{fill:#4c9bf5;stroke:#4c9bf5}.direct{fill:#e9a94a;stroke:#e9a94a}}";

/// One drawing of all levels, one under the other.
pub fn render(summaries: &[Summary]) -> String {
    let mut body = String::new();
    let mut height = 0.0;
    for summary in summaries {
        for (plot, own) in [percentiles(summary), medians(summary)] {
            let _ = write!(body, "<g transform=\"translate(0,{height:.0})\">{plot}</g>");
            height += own;
        }
    }
    frame(&body, height)
}

/// The plots of one level, a drawing each.
pub fn of_level(summary: &Summary) -> [String; 2] {
    [percentiles(summary), medians(summary)].map(|(plot, height)| frame(&plot, height))
}

fn frame(body: &str, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\"><style>{STYLE}</style><rect class=\"b\" width=\"{WIDTH}\" height=\"{height:.0}\"/>{body}</svg>\n"
    )
}

fn name(side: Side) -> &'static str {
    match side {
        Side::Via => "via the proxy",
        Side::Direct => "direct",
    }
}

/// Title, heading and legend. A heading of its own line: that of an open loop is long.
fn above(title: &str, summary: &Summary) -> String {
    const LEGEND: f64 = 60.0;
    let mut text = format!(
        "<text class=\"t\" x=\"{LEFT}\" y=\"20\">{}</text><text class=\"m\" x=\"{LEFT}\" y=\"39\">{}</text>",
        escaped(title),
        escaped(&summary.heading)
    );
    for (index, side) in summary.sides.iter().enumerate() {
        let x = LEFT + index as f64 * 130.0;
        let _ = write!(
            text,
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\" class=\"{}\"/><text x=\"{}\" y=\"{LEGEND}\">{}</text>",
            LEGEND - 11.0,
            side.side.label(),
            x + 18.0,
            name(side.side)
        );
    }
    text
}

/// A number of the grid: as it is said, 0 and 2.5 and 40.
fn tick_label(value: f64) -> String {
    let text = digits(value);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The next number above whose fifths are short, so that the grid's lines are at round numbers.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.max(0.01).log10().floor());
    [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|top| *top >= value)
        .unwrap_or(10.0 * power)
}

fn percentiles(summary: &Summary) -> (String, f64) {
    let samples = summary.sides.iter().map(|side| side.record.histogram(Phase::Whole).len()).max().unwrap_or_default();
    // As many nines as there are samples to show them, each as wide as the others (HdrHistogram's own way of plotting).
    // Behind the last one, half a sample's share of 1 is left for the maximum. However few the samples, p99 has its tick:
    // it is in the table, too.
    let nines = (samples as f64 * 2.0).max(1.0).log10().clamp(2.0, 5.0);
    let top = summary.sides.iter().map(|side| side.record.histogram(Phase::Whole).max()).max().unwrap_or_default();
    let top = round_up(shown(Phase::Whole, top as f64));
    let x = |share: f64| LEFT + (WIDTH - LEFT - RIGHT) * (-(1.0 - share).log10()).min(nines) / nines;
    let y = |ms: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - ms / top);

    let mut text = above("A whole pull by percentile, in ms", summary);
    for tick in 0..=TICKS as u32 {
        let ms = top * f64::from(tick) / TICKS;
        let _ = write!(
            text,
            "<line class=\"g\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{1:.1}\" y2=\"{1:.1}\"/><text class=\"m e\" x=\"{2}\" y=\"{3:.1}\">{4}</text>",
            WIDTH - RIGHT,
            y(ms),
            LEFT - 8.0,
            y(ms) + 4.0,
            tick_label(ms)
        );
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
            let _ = write!(
                text,
                "<line class=\"g\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{TOP}\" y2=\"{1}\"/><text class=\"m c\" x=\"{0:.1}\" y=\"{2}\">{label}</text>",
                x(share),
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 18.0
            );
        }
    }
    for side in &summary.sides {
        if side.record.histogram(Phase::Whole).is_empty() {
            continue;
        }
        let points: Vec<_> = (0..=STEPS)
            .map(|step| {
                let share = 1.0 - 10f64.powf(-nines * step as f64 / STEPS as f64);
                let value = side.record.percentile(Phase::Whole, share).unwrap_or_default();
                format!("{:.1},{:.1}", x(share), y(shown(Phase::Whole, value as f64)))
            })
            .collect();
        let _ = write!(
            text,
            "<polyline class=\"{}\" style=\"fill:none;stroke-width:2\" points=\"{}\"/>",
            side.side.label(),
            points.join(" ")
        );
    }
    (text, HEIGHT)
}

fn medians(summary: &Summary) -> (String, f64) {
    let phases: Vec<_> = summary
        .phases
        .iter()
        .filter(|phase| !phase.phase.is_speed() && phase.rows.iter().any(Option::is_some))
        .collect();
    let step = BAR * summary.sides.len() as f64 + GAP;
    let height = TOP + step * phases.len() as f64 + 3.0 * GAP;
    let median =
        |row: &Option<(u64, [u64; super::SHARES.len()])>| row.map(|(_, values)| shown(Phase::Whole, values[0] as f64));
    let longest = phases.iter().flat_map(|phase| &phase.rows).filter_map(median).fold(0.01, f64::max);
    let width = WIDTH - NAMES - RIGHT - 60.0;
    let mut text = above("Median of each phase, in ms", summary);
    for (index, phase) in phases.iter().enumerate() {
        let y = TOP + GAP + step * index as f64;
        let middle = y + BAR * summary.sides.len() as f64 / 2.0 + 4.0;
        let _ = write!(
            text,
            "<text class=\"e\" x=\"{}\" y=\"{middle:.1}\">{}</text>",
            NAMES - 8.0,
            escaped(phase.phase.label())
        );
        for (place, (side, row)) in summary.sides.iter().zip(&phase.rows).enumerate() {
            let Some(value) = median(row) else { continue };
            let y = y + BAR * place as f64;
            let long = (width * value / longest).max(1.0);
            let _ = write!(
                text,
                "<rect x=\"{NAMES}\" y=\"{y:.1}\" width=\"{long:.1}\" height=\"{}\" class=\"{}\"/><text class=\"m s\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                BAR - 1.0,
                side.side.label(),
                NAMES + long + 5.0,
                y + BAR - 2.0,
                digits(value)
            );
        }
    }
    (text, height)
}

/// Text for XML and HTML.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Every element that is opened is closed, in its order, and attributes are quoted.
    pub(in super::super) fn assert_well_formed(text: &str) {
        let mut open = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('<') {
            assert!(!before.contains('>'), "a stray > in {before:?}");
            let (tag, after) = after.split_once('>').expect("a tag ends");
            rest = after;
            assert!(tag.matches('"').count().is_multiple_of(2), "{tag}");
            if tag.starts_with('!') || tag.starts_with("meta") {
                continue;
            }
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "{text}"),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split(' ').next().expect("a name")),
            }
        }
        assert!(open.is_empty(), "{open:?}");
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }

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
