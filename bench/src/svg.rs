//! SVG, drawn element by element from the top down. Dark on light ground, or light on dark where the reader's screen is.

use std::fmt::Write as _;

/// The style of all drawings: titles, muted and small text, text alignment, the grid, lines, the ground.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#222}.t{font-weight:600;font-size:15px}.m{fill:#666}.s{font-size:10px}.e{text-anchor:end}.c{text-anchor:middle}.g{stroke:#ddd}.l{fill:none!important;stroke-width:2}.d{stroke-dasharray:6 4}.b{fill:#fff}";
const DARK: &str = "text{fill:#e6e6e6}.m{fill:#9aa3ad}.g{stroke:#30363d}.b{fill:#0d1117}";
/// The side of a legend's square.
const SWATCH: f64 = 12.0;

/// The colour of a class of elements, on light and on dark ground.
#[derive(Clone, Copy, Debug)]
pub struct Colour {
    /// The class.
    pub class: &'static str,
    /// On light ground, as `#0b62c4`.
    pub light: &'static str,
    /// On dark ground.
    pub dark: &'static str,
}

/// A drawing. Classes are separated by blanks: `t` title, `m` muted, `s` small, `e` ends at x, `c` centred at x, `g` grid,
/// `l` line, `d` dashed, and those of the colours.
pub struct Drawing {
    width: f64,
    /// Where the next part begins; whoever draws a part adds its height.
    pub height: f64,
    colours: &'static [Colour],
    body: String,
}

impl Drawing {
    /// An empty one.
    pub fn new(width: f64, colours: &'static [Colour]) -> Self {
        Self { width, height: 0.0, colours, body: String::new() }
    }

    /// Text whose base line is at `y`.
    pub fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        self.add(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escaped(text)));
    }

    /// A filled rectangle.
    pub fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, class: &str) {
        self.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" class=\"{class}\"/>"
        ));
    }

    /// A straight line.
    pub fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        self.add(format_args!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>"));
    }

    /// A line through these points.
    pub fn polyline(&mut self, points: impl IntoIterator<Item = (f64, f64)>, class: &str) {
        let points: Vec<_> = points.into_iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.add(format_args!("<polyline class=\"{class} l\" points=\"{}\"/>", points.join(" ")));
    }

    /// A dot.
    pub fn circle(&mut self, (x, y): (f64, f64), radius: f64, class: &str) {
        self.add(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" class=\"{class}\"/>"));
    }

    /// A square in the colour of a class, and what it stands for.
    pub fn legend(&mut self, x: f64, y: f64, class: &str, name: &str) {
        self.rect(x, y - SWATCH + 1.0, SWATCH, SWATCH, class);
        self.text(x + SWATCH + 6.0, y, "", name);
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = self.body.write_fmt(element);
    }

    /// The document.
    pub fn render(&self) -> String {
        let (width, height, body) = (self.width, self.height, &self.body);
        let colours = |of: fn(&Colour) -> &'static str| -> String {
            self.colours.iter().map(|it| format!(".{}{{fill:{1};stroke:{1}}}", it.class, of(it))).collect()
        };
        let (light, dark) = (colours(|colour| colour.light), colours(|colour| colour.dark));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height:.0}\" width=\"{width}\" height=\"{height:.0}\" role=\"img\"><style>{STYLE}{light}@media(prefers-color-scheme:dark){{{DARK}{dark}}}</style><rect class=\"b\" width=\"{width}\" height=\"{height:.0}\"/>{body}</svg>\n"
        )
    }
}

/// Text for XML and HTML.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Every element that is opened is closed, in its order, and attributes are quoted.
    pub(crate) fn assert_well_formed(text: &str) {
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
    fn every_element_is_well_formed_and_text_is_escaped() {
        const COLOURS: [Colour; 1] = [Colour { class: "via", light: "#000", dark: "#fff" }];
        let mut drawing = Drawing::new(100.0, &COLOURS);
        drawing.text(1.0, 2.0, "t", "a < b & \"c\"");
        drawing.rect(1.0, 2.0, 3.0, 4.0, "via");
        drawing.line((0.0, 0.0), (1.0, 1.0), "g");
        drawing.polyline([(0.0, 0.0), (1.0, 1.0)], "via");
        drawing.circle((1.0, 1.0), 3.5, "via");
        drawing.legend(0.0, 10.0, "via", "via the proxy");
        drawing.height = 50.0;
        let text = drawing.render();
        assert_well_formed(&text);
        assert!(text.contains("a &lt; b &amp; &quot;c&quot;") && text.contains("viewBox=\"0 0 100 50\""), "{text}");
    }
}
