//! Draws what `benches/results` has the figures of, `peers.svg` and `load.svg` from `pass-through.json`, `cache.svg` from
//! `cache.json`, `fleet.svg` from `fleet.json`: `figures DIRECTORY`.

mod fleet;

use std::error::Error;
use std::io::ErrorKind;
use std::path::PathBuf;

use acr_bench::{Colour, Drawing, digits};
use serde_json::Value;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 235.0;
const RIGHT: f64 = 60.0;
const MARGIN: f64 = 16.0;
/// A bar, and the space between groups of bars.
const ROW: f64 = 15.0;
const GAP: f64 = 12.0;
const COLOURS: [Colour; 7] = [
    Colour { class: "nginx", light: "#7a8288", dark: "#9aa3ad" },
    Colour { class: "haproxy", light: "#c98a1b", dark: "#e3a53a" },
    Colour { class: "proxy", light: "#0b62c4", dark: "#4c9bf5" },
    Colour { class: "other", light: "#7a4fc9", dark: "#a98af0" },
    Colour { class: "nginx-cache", light: "#a9b1b7", dark: "#6c7680" },
    Colour { class: "proxy-cache", light: "#0f8f7a", dark: "#35c4ab" },
    Colour { class: "other-cache", light: "#b06ab3", dark: "#d49ad6" },
];
/// Without and with `Connection: close`.
const WAYS: [(bool, &str); 2] = [(false, "kept connections"), (true, "connection a request")];

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A group of rows: its label, and for each peer its values.
type Group = (String, Vec<(String, Vec<f64>)>);

fn main() -> Result<()> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("give the directory of the figures")?);
    let read = |name: &str| -> Result<Option<Value>> {
        match std::fs::read(directory.join(name)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    let mut drawings = Vec::new();
    if let Some(found) = read("pass-through.json")? {
        drawings.push(("peers.svg", peers(&found)?));
        if found["growth"].is_array() {
            drawings.push(("load.svg", load(&found)?));
        }
    }
    if let Some(found) = read("cache.json")? {
        drawings.push(("cache.svg", cache(&found)?));
    }
    if let Some(found) = read("fleet.json")? {
        drawings.push(("fleet.svg", fleet::draw(&found)?));
    }
    if drawings.is_empty() {
        return Err(format!("no figures are in {}", directory.display()).into());
    }
    for (name, drawing) in drawings {
        std::fs::write(directory.join(name), drawing)?;
    }
    Ok(())
}

/// The measurements of a list.
fn rows<'a>(found: &'a Value, list: &str) -> Result<&'a Vec<Value>> {
    found[list].as_array().ok_or_else(|| format!("pass-through.json has no list {list:?}").into())
}

fn number(row: &Value, key: &str) -> Result<f64> {
    row[key].as_f64().ok_or_else(|| format!("no number {key:?} in {row}").into())
}

/// Of all rounds of a peer.
fn median(rows: &[Value], peer: &str, close: bool, key: &str) -> Result<f64> {
    let of_peer = rows.iter().filter(|row| row["peer"] == peer && row["close"] == close);
    let mut values = of_peer.map(|row| number(row, key)).collect::<Result<Vec<_>>>()?;
    values.sort_unstable_by(f64::total_cmp);
    let (below, above) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    match (values.get(below), values.get(above)) {
        (Some(below), Some(above)) => Ok((below + above) / 2.0),
        _ => Err(format!("no measurement of {peer}").into()),
    }
}

fn title(drawing: &mut Drawing, title: &str, note: &str) {
    drawing.text(MARGIN, drawing.height + 26.0, "t", title);
    drawing.text(MARGIN, drawing.height + 45.0, "m", note);
    drawing.height += 58.0;
}

fn peer_name(peer: &str) -> &str {
    match peer {
        "haproxy" => "HAProxy",
        "nginx-cache" => "nginx, proxy_cache",
        "proxy" => "acr-cache-proxy",
        "proxy-cache" => "acr-cache-proxy, cache",
        "other" => "other build",
        "other-cache" => "other build, cache",
        peer => peer,
    }
}

fn legend(drawing: &mut Drawing, peers: &[String]) {
    let mut x = MARGIN;
    for peer in peers {
        let name = peer_name(peer);
        drawing.legend(x, drawing.height + 13.0, peer, name);
        x += 34.0 + 6.5 * name.len() as f64;
    }
    drawing.height += 24.0;
}

/// The peers of a list, in its order.
fn names(rows: &[Value]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in rows.iter().filter_map(|row| row["peer"].as_str()) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// The medians of these keys, each multiplied by its factor.
fn group(label: String, rows: &[Value], names: &[String], close: bool, keys: &[(&str, f64)]) -> Result<Group> {
    let values = |name: &String| -> Result<(String, Vec<f64>)> {
        let values = keys.iter().map(|(key, factor)| Ok(median(rows, name, close, key)? * factor));
        Ok((name.clone(), values.collect::<Result<_>>()?))
    };
    Ok((label, names.iter().map(values).collect::<Result<_>>()?))
}

fn cache(found: &Value) -> Result<String> {
    let mut drawing = Drawing::new(WIDTH, &COLOURS);
    let note = "a manifest of 2 KB; nginx and HAProxy without a cache pass each request on, over TLS";
    title(&mut drawing, "CPU a request, in µs: hits, and misses that are stored", note);
    legend(&mut drawing, &names(rows(found, "hit")?));
    let mut groups = Vec::new();
    for (kind, what) in [("hit", "hit"), ("miss", "stored miss")] {
        for (close, way) in WAYS {
            let rows = rows(found, kind)?;
            groups.push(group(format!("{what}, {way}"), rows, &names(rows), close, &[("cpu_us", 1.0)])?);
        }
    }
    bars(&mut drawing, &groups);
    Ok(drawing.render())
}

fn peers(found: &Value) -> Result<String> {
    let (full, fixed) = (rows(found, "pass_through")?, rows(found, "fixed_rate")?);
    let names = names(full);
    let group = |label, rows, close, keys: &[_]| group(label, rows, &names, close, keys);

    let mut drawing = Drawing::new(WIDTH, &COLOURS);
    let note = "a manifest of 2 KB over TLS from the registry; the process's own time, user and system";
    title(&mut drawing, "CPU a request, in µs", note);
    legend(&mut drawing, &names);
    let mut groups = Vec::new();
    for (close, way) in WAYS {
        for (rows, load) in [(full, "full load"), (fixed, "fixed rate")] {
            groups.push(group(format!("{way}, {load}"), rows, close, &[("cpu_us", 1.0)])?);
        }
    }
    bars(&mut drawing, &groups);

    let rate = |close: bool| {
        let row = fixed.iter().find(|row| row["close"] == close).ok_or("no measurement at a fixed rate")?;
        number(row, "offered_rate")
    };
    let note = format!(
        "open loop: {} requests a second on kept connections, {} with a connection a request",
        rate(false)?,
        rate(true)?
    );
    title(&mut drawing, "Latency at a fixed rate, in ms: p50, p90, p99, p99.9", &note);
    let shares = ["p50", "p90", "p99", "p99.9"].map(|share| (share, 1e-3));
    let groups = WAYS.map(|(close, way)| group(way.to_owned(), fixed, close, &shares));
    ranges(&mut drawing, &groups.into_iter().collect::<Result<Vec<_>>>()?);
    Ok(drawing.render())
}

fn label(drawing: &mut Drawing, group: &Group) {
    drawing.text(LEFT - 10.0, drawing.height + group.1.len() as f64 * ROW / 2.0 + 4.0, "e", &group.0);
}

/// A bar for the one value of each peer.
fn bars(drawing: &mut Drawing, groups: &[Group]) {
    let values = groups.iter().flat_map(|(_, rows)| rows).flat_map(|(_, values)| values);
    let longest = values.copied().fold(f64::MIN_POSITIVE, f64::max);
    for group in groups {
        label(drawing, group);
        for (peer, values) in &group.1 {
            let value = values[0];
            let length = (WIDTH - LEFT - RIGHT) * value / longest;
            drawing.rect(LEFT, drawing.height, length, ROW - 3.0, peer);
            drawing.text(LEFT + length + 6.0, drawing.height + 10.0, "m s", &digits(value));
            drawing.height += ROW;
        }
        drawing.height += GAP;
    }
}

/// A line from the first value to the last one, with a dot at each, on a logarithmic axis.
fn ranges(drawing: &mut Drawing, groups: &[Group]) {
    let values = || groups.iter().flat_map(|(_, rows)| rows).flat_map(|(_, values)| values).copied();
    let low = 10f64.powf(values().fold(f64::MAX, f64::min).log10().floor());
    let high = values().fold(f64::MIN_POSITIVE, f64::max) * 1.2;
    let x = |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * (value / low).ln() / (high / low).ln();
    let top = drawing.height;
    let bottom = top + groups.iter().map(|(_, rows)| rows.len() as f64 * ROW + GAP).sum::<f64>();
    let ticks = (-3..5).flat_map(|power| [1.0, 2.0, 5.0].map(|factor| factor * 10f64.powi(power)));
    for tick in ticks.filter(|tick| (low..=high).contains(tick)) {
        drawing.line((x(tick), top), (x(tick), bottom), "g");
        // 0.2 as 0.2, not as 0.2000000004.
        let text = format!("{tick:.3}");
        drawing.text(x(tick), bottom + 14.0, "m c s", text.trim_end_matches('0').trim_end_matches('.'));
    }
    for group in groups {
        label(drawing, group);
        for (peer, values) in &group.1 {
            let y = drawing.height + ROW / 2.0;
            if let [first, .., last] = values[..] {
                drawing.polyline([(x(first), y), (x(last), y)], peer);
                drawing.text(x(last) + 8.0, y + 4.0, "m s", &digits(last));
            }
            for value in values {
                drawing.circle((x(*value), y), 3.5, peer);
            }
            drawing.height += ROW;
        }
        drawing.height += GAP;
    }
    drawing.height += 24.0;
}

fn load(found: &Value) -> Result<String> {
    let mut drawing = Drawing::new(WIDTH, &COLOURS);
    let note = "line: kept connections; broken line: a connection a request; both axes are logarithmic";
    title(&mut drawing, "The proxy by the number of connections", note);
    let rows = rows(found, "growth")?;
    growth(&mut drawing, "Throughput", "thousand requests a second", rows, ("rate", 1e-3))?;
    growth(&mut drawing, "p99", "ms", rows, ("p99_ms", 1.0))?;
    growth(&mut drawing, "Memory (RSS)", "MiB", rows, ("rss_kib", 1.0 / 1024.0))?;
    Ok(drawing.render())
}

/// One value by the number of connections, for both ways.
fn growth(drawing: &mut Drawing, name: &str, unit: &str, rows: &[Value], (key, factor): (&str, f64)) -> Result<()> {
    const HEIGHT: f64 = 130.0;
    drawing.text(MARGIN, drawing.height + 16.0, "", name);
    drawing.text(MARGIN, drawing.height + 32.0, "m", unit);
    let mut points = Vec::new();
    for row in rows {
        let value = number(row, key)? * factor;
        if value > 0.0 {
            points.push((number(row, "connections")?, row["close"] == true, value));
        }
    }
    let mut levels: Vec<f64> = points.iter().map(|(connections, _, _)| *connections).collect();
    levels.sort_unstable_by(f64::total_cmp);
    levels.dedup();
    let top = drawing.height + 18.0;
    let low = points.iter().map(|(_, _, value)| *value).fold(f64::MAX, f64::min) / 2.5;
    let high = points.iter().map(|(_, _, value)| *value).fold(f64::MIN_POSITIVE, f64::max) * 1.4;
    let x = |level: f64| {
        let index = levels.iter().position(|known| *known == level).unwrap_or_default();
        LEFT + (WIDTH - LEFT - RIGHT) * index as f64 / (levels.len().max(2) - 1) as f64
    };
    let y = |value: f64| top + HEIGHT * (1.0 - (value / low).ln() / (high / low).ln());
    for level in &levels {
        drawing.line((x(*level), top), (x(*level), top + HEIGHT), "g");
        drawing.text(x(*level), top + HEIGHT + 16.0, "m c s", &level.to_string());
    }
    for (close, _) in WAYS {
        let of_way = || points.iter().filter(move |(_, way, _)| *way == close);
        let class = if close { "proxy d" } else { "proxy" };
        drawing.polyline(of_way().map(|(connections, _, value)| (x(*connections), y(*value))), class);
        for (connections, _, value) in of_way() {
            drawing.circle((x(*connections), y(*value)), 3.0, "proxy");
            // The number of the upper point is above it, that of the lower one below.
            let other = points.iter().find(|(level, way, _)| level == connections && *way != close);
            let below = other.is_some_and(|(_, _, other)| value < other || (value == other && close));
            drawing.text(x(*connections), y(*value) + if below { 16.0 } else { -8.0 }, "m c s", &digits(*value));
        }
    }
    drawing.height = top + HEIGHT + 34.0;
    Ok(())
}
