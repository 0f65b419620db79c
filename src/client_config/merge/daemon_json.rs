//! `registry-mirrors` of `daemon.json`.

use oci::members::Members;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::untouched::Untouched;
use super::{Insertions, IsSame, Merged, NOT_IN_PLACE, Rank, newline, others, rank};

const KEY: &str = "registry-mirrors";

/// What JSON takes for nothing (RFC 8259, section 2), and less than `str::trim` does.
const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// dockerd asks the mirrors in the order of the list, and takes an empty file for no settings (`daemon/config` in moby).
pub(super) fn merge(old: &str, url: &str, is_same: IsSame<'_>) -> Result<Merged, Untouched> {
    if old.trim_matches(BLANKS).is_empty() {
        let text = old.to_owned() + &format!("{:#}\n", json!({ KEY: [url] })).replace('\n', newline(old));
        return Ok(Merged { text, lacks: vec![lack(url)], beside: Vec::new(), leftover: Vec::new() });
    }
    let broken = |cause: serde_json::Error| Untouched::Broken(format!("is no JSON: {cause}"));
    let mut value: Value = serde_json::from_str(old).map_err(broken)?;
    let Some(object) = value.as_object_mut() else {
        return Err(Untouched::Broken("is no JSON object".to_owned()));
    };
    let Members(members) = serde_json::from_str(old).map_err(broken)?;
    let mut found = members.iter().filter(|(key, _)| key == KEY);
    let place = found.next().map(|(_, raw)| *raw);
    if found.next().is_some() {
        return Err(format!("has {KEY:?} twice, of which dockerd takes the last: take one out").into());
    }
    let list = match object.get(KEY) {
        None => Vec::new(),
        Some(Value::Array(list)) => list.iter().map(Value::as_str).collect::<Option<_>>().ok_or_else(wrong_kind)?,
        Some(_) => return Err(wrong_kind().into()),
    };
    let beside =
        others(&list, url, is_same).iter().map(|other| format!("{other} is asked when the proxy fails")).collect();
    if let Rank::First = rank(&list, url, KEY, is_same)? {
        return Ok(Merged { text: old.to_owned(), lacks: Vec::new(), beside, leftover: Vec::new() });
    }
    let mut insertions = Insertions::default();
    let quoted = Value::from(url).to_string();
    match place {
        Some(place) => {
            let (at, text) = first_item(old, start(old, place), &quoted);
            insertions.put(at, text);
        }
        None => {
            let (at, text) = first_member(old, &quoted, object.is_empty()).ok_or(NOT_IN_PLACE)?;
            insertions.put(at, text);
        }
    }
    match object.entry(KEY).or_insert_with(|| json!([])) {
        Value::Array(list) => list.insert(0, json!(url)),
        _ => return Err(wrong_kind().into()),
    }
    let text = insertions.into(old);
    if serde_json::from_str::<Value>(&text).ok() != Some(value) {
        return Err(NOT_IN_PLACE.into());
    }
    Ok(Merged { text, lacks: vec![lack(url)], beside, leftover: Vec::new() })
}

fn lack(url: &str) -> String {
    format!("{url} in {KEY}")
}

fn wrong_kind() -> String {
    format!("has {KEY:?}, but not as a list of texts")
}

/// A list's new first item, at the place of the old one, on a line of its own if that was. `list` is where its bracket is.
pub(super) fn first_item(old: &str, list: usize, quoted: &str) -> (usize, String) {
    let inside = list + 1;
    let blank = old[inside..].len() - old[inside..].trim_start().len();
    let first = inside + blank;
    if old[first..].starts_with(']') {
        return (inside, quoted.to_owned());
    }
    match old[inside..first].rfind('\n') {
        Some(at) => (first, format!("{quoted},{}{}", newline(old), &old[inside + at + 1..first])),
        None => (first, format!("{quoted}, ")),
    }
}

/// The object's new first member, before the one that was, on lines of its own if that was.
fn first_member(old: &str, quoted: &str, is_empty: bool) -> Option<(usize, String)> {
    let inside = old.find('{')? + 1;
    let first = inside + (old[inside..].len() - old[inside..].trim_start().len());
    let blank = &old[inside..first];
    let newline = newline(old);
    let lines =
        |indent: &str| format!("{newline}{indent}\"{KEY}\": [{newline}{indent}{indent}{quoted}{newline}{indent}]");
    Some(match blank.rfind('\n') {
        _ if is_empty && blank.is_empty() => (inside, lines("  ") + newline),
        None if is_empty => (inside, format!(" \"{KEY}\": [{quoted}]")),
        Some(_) if is_empty => (inside, lines("  ")),
        Some(at) => (inside, lines(&blank[at + 1..]) + ","),
        None => (first, format!("\"{KEY}\": [{quoted}], ")),
    })
}

/// Where a value is in the text that it was read from.
fn start(text: &str, value: &RawValue) -> usize {
    value.get().as_ptr().addr() - text.as_ptr().addr()
}
