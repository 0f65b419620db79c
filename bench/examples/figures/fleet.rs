//! Reads a minute at the registry, of a fleet with and without the cache: lines are the model, dots the run.

use acr_bench::{Colour, Drawing};
use serde_json::Value;

use crate::{MARGIN, Result, WIDTH, number, title};

const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const HEIGHT: f64 = 220.0;
/// Of the logarithmic axis, in reads a minute.
const LOW: f64 = 30.0;
const HIGH: f64 = 20_000.0;
const TICKS: [f64; 3] = [100.0, 1_000.0, 10_000.0];
/// As many points as can be told apart; more minutes are averaged.
const POINTS: usize = 150;
const COLOURS: [Colour; 5] = [
    Colour { class: "off-model", light: "#bcc2c7", dark: "#56606a" },
    Colour { class: "off", light: "#50585f", dark: "#c3cad1" },
    Colour { class: "on-model", light: "#9cc4f0", dark: "#24588f" },
    Colour { class: "on", light: "#0b62c4", dark: "#4c9bf5" },
    Colour { class: "limit", light: "#c2402c", dark: "#f0806f" },
];
/// The way's name in `fleet.json`, the classes of its model and of its run, and its name in the drawing.
const WAYS: [(&str, &str, &str, &str); 2] =
    [("off", "off-model", "off", "cache: off"), ("on", "on-model", "on", "default cache")];

/// A panel for each scene.
pub(crate) fn draw(found: &Value) -> Result<String> {
    let mut drawing = Drawing::new(WIDTH, &COLOURS);
    let fleet = &found["fleet"];
    let note = format!(
        "{} hosts, {} images, one proxy; line: model, dots: run, compressed in time; the axis is logarithmic",
        thousands(number(fleet, "hosts")?),
        number(fleet, "images")?
    );
    title(&mut drawing, "Reads a minute at the registry", &note);
    let mut x = MARGIN;
    for (_, _, class, name) in WAYS {
        drawing.legend(x, drawing.height + 13.0, class, name);
        x += 130.0;
    }
    drawing.legend(x, drawing.height + 13.0, "limit", "what ACR serves, by SKU");
    drawing.height += 30.0;
    let limits = found["limits"].as_object().ok_or("fleet.json has no limits")?;
    for scene in found["scenes"].as_array().ok_or("fleet.json has no scenes")? {
        panel(&mut drawing, scene, limits)?;
    }
    Ok(drawing.render())
}

fn panel(drawing: &mut Drawing, scene: &Value, limits: &serde_json::Map<String, Value>) -> Result<()> {
    let (begin, minutes) = (number(scene, "begin")? / 60.0, number(scene, "minutes")?);
    let together = (minutes / POINTS as f64).ceil().max(1.0) as usize;
    let each = if together == 1 { "by minute".to_owned() } else { format!("means of {together} minutes") };
    let name = scene["name"].as_str().ok_or("a scene has no name")?;
    drawing.text(MARGIN, drawing.height + 14.0, "", &format!("{}, {each}", label(name)));
    let top = drawing.height + 24.0;
    let right = WIDTH - RIGHT;
    let x = |minute: f64| LEFT + (right - LEFT) * minute / minutes;
    let y = |reads: f64| top + HEIGHT * (HIGH / reads.max(LOW)).ln() / (HIGH / LOW).ln();
    for tick in TICKS {
        drawing.line((LEFT, y(tick)), (right, y(tick)), "g");
        drawing.text(LEFT - 8.0, y(tick) + 4.0, "m e s", &thousands(tick));
    }
    // Six or so: every five minutes of half an hour, every three hours of a day.
    let step = if minutes > 120.0 { 180.0 } else { 5.0 };
    for number in 0..=(minutes / step) as u32 {
        let minute = f64::from(number) * step;
        drawing.line((x(minute), top), (x(minute), top + HEIGHT), "g");
        let at = (begin + minute) as u32;
        drawing.text(x(minute), top + HEIGHT + 16.0, "m c s", &format!("{:02}:{:02}", at / 60, at % 60));
    }
    for (sku, limit) in limits {
        let limit = limit.as_f64().ok_or("a limit is a number")?;
        drawing.line((LEFT, y(limit)), (right, y(limit)), "limit d");
        drawing.text(right, y(limit) - 4.0, "m e s", &format!("{sku}: {}", thousands(limit)));
    }
    for (way, line, dots, _) in WAYS {
        let points = |reads: &Value| -> Result<Vec<(f64, f64)>> {
            let reads = reads.as_array().ok_or("a scene has no reads")?;
            let mean = |(number, some): (usize, &[Value])| {
                let sum: f64 = some.iter().filter_map(Value::as_f64).sum();
                let middle = (number * together) as f64 + some.len() as f64 / 2.0;
                (x(middle), y(sum / some.len() as f64))
            };
            // What came after the last minute of a scene is in the figures, not in the drawing.
            Ok(reads.chunks(together).take((minutes as usize).div_ceil(together)).enumerate().map(mean).collect())
        };
        drawing.polyline(points(&scene["model"][way])?, line);
        for point in points(&scene["run"][way]["reads"])? {
            drawing.circle(point, 2.0, dots);
        }
    }
    drawing.height = top + HEIGHT + 36.0;
    Ok(())
}

/// 10,000 as 10,000.
fn thousands(number: f64) -> String {
    if number < 1000.0 { number.to_string() } else { format!("{},{:03}", (number / 1000.0).floor(), number % 1000.0) }
}

fn label(scene: &str) -> &str {
    match scene {
        "roll-out" => "A roll-out at 10:00: all hosts start the same new image within a minute",
        "day" => "A day of churn: containers start, hosts are replaced, images are built anew",
        scene => scene,
    }
}
