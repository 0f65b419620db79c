//! The tables of registries in `buildkitd.toml`.

use std::collections::BTreeSet;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::super::untouched::Untouched;
use super::{Insertions, IsSame, Merged, NOT_IN_PLACE, Rank, is, masked, newline, others, rank};
use crate::client_config::quoted;

const REGISTRY: &str = "registry";
const MIRRORS: &str = "mirrors";
const HTTP: &str = "http";

/// BuildKit asks the mirrors in the order of the list; how it speaks to a mirror is in the table of the mirror's own name
/// (`docs/buildkitd.toml.md` in moby/buildkit).
pub(super) fn merge(
    old: &str,
    mirror: &str,
    http: bool,
    registries: &[String],
    is_same: IsSame<'_>,
) -> Result<Merged, Untouched> {
    let wrong = |cause: &toml::de::Error| {
        Untouched::Broken(format!("is no TOML: {}", in_line(cause.message(), old, cause.span())))
    };
    let spans = DeTable::parse(old).map_err(|cause| wrong(&cause))?;
    let spans = spans.get_ref().get(REGISTRY).and_then(|found| found.get_ref().as_table());
    let span = |name: &str| spans.and_then(|tables| tables.get(name));
    let has: Table = old.parse().map_err(|cause| wrong(&cause))?;
    let mut value = has.clone();
    let has = table(&has, REGISTRY)?;
    let mut file = File { old, insertions: Insertions::default(), appended: String::new() };
    let (mut lacks, mut beside) = (Vec::new(), Vec::new());
    // By which of its names the proxy is asked.
    let mut named = BTreeSet::new();
    for name in registries {
        let list = match has.map_or(Ok(None), |tables| table(tables, name))?.and_then(|table| table.get(MIRRORS)) {
            None => Some(Vec::new()),
            Some(list) => list.as_array().and_then(|list| list.iter().map(Value::as_str).collect()),
        };
        let list = list.ok_or_else(|| format!("has {MIRRORS} for {name}, but not as a list of texts"))?;
        for other in others(&list, mirror, is_same) {
            beside.push(format!("{other} is asked for {name} when the proxy fails"));
        }
        let rank = rank(&list, mirror, &format!("{MIRRORS} of {name}"), is_same)?;
        named.insert(match (&rank, list.first()) {
            (Rank::First, Some(first)) => first.trim_end_matches('/').to_owned(),
            _ => mirror.to_owned(),
        });
        if let Rank::Absent = rank {
            lacks.push(format!("{mirror} in {MIRRORS} of {name}"));
            file.add(span(name), name, MIRRORS, &format!("[{}]", quoted(mirror)), &quoted(mirror));
            let wanted = table_in(&mut value, name)
                .and_then(|table| table.entry(MIRRORS).or_insert_with(|| Value::Array(Vec::new())).as_array_mut());
            wanted.ok_or(NOT_IN_PLACE)?.insert(0, Value::from(mirror));
        }
    }
    for mirror in &named {
        match has.map_or(Ok(None), |tables| table(tables, mirror))?.and_then(|table| table.get(HTTP)) {
            Some(Value::Boolean(is)) if *is == http => {}
            // What it is without the key.
            None if !http => {}
            None => {
                lacks.push(format!("{HTTP} = {http} for {mirror}"));
                file.add(span(mirror), mirror, HTTP, &http.to_string(), "");
                table_in(&mut value, mirror).ok_or(NOT_IN_PLACE)?.insert(HTTP.to_owned(), Value::from(http));
            }
            Some(_) => return Err(format!("has another {HTTP} for {mirror} than {http}").into()),
        }
    }
    let leftover = has.into_iter().flatten().filter_map(|(name, entry)| {
        let mirrors = entry.get(MIRRORS).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let is_known = registries.iter().any(|known| known == name);
        (!is_known && mirrors.into_iter().any(|other| is(other, mirror, is_same))).then(|| masked(name))
    });
    let leftover: Vec<_> = leftover.collect();
    if lacks.is_empty() {
        return Ok(Merged { text: old.to_owned(), lacks, beside, leftover });
    }
    let text = file.into_text();
    if text.parse::<Table>().ok() != Some(value) {
        return Err(NOT_IN_PLACE.into());
    }
    Ok(Merged { text, lacks, beside, leftover })
}

/// The table of that name, if there is one.
fn table<'a>(tables: &'a Table, name: &str) -> Result<Option<&'a Table>, String> {
    let wrong = || format!("has {name:?}, but not as a table");
    tables.get(name).map(|found| found.as_table().ok_or_else(wrong)).transpose()
}

/// The registry's table, made if there is none.
fn table_in<'a>(file: &'a mut Table, name: &str) -> Option<&'a mut Table> {
    let made = || Value::Table(Table::new());
    let tables = file.entry(REGISTRY).or_insert_with(made).as_table_mut()?;
    tables.entry(name).or_insert_with(made).as_table_mut()
}

/// The cause with its line; the line itself stays where it is.
fn in_line(message: &str, old: &str, span: Option<std::ops::Range<usize>>) -> String {
    let message = message.lines().next().unwrap_or_default();
    match span.and_then(|span| old.get(..span.start)) {
        Some(before) => format!("line {}: {message}", before.matches('\n').count() + 1),
        None => message.to_owned(),
    }
}

struct File<'a> {
    old: &'a str,
    insertions: Insertions,
    /// Tables for the end.
    appended: String,
}

impl File<'_> {
    /// A key with its value in a registry's table; `item` is what a list that is there already gets.
    fn add(&mut self, table: Option<&Spanned<DeValue<'_>>>, name: &str, key: &str, value: &str, item: &str) {
        let newline = newline(self.old);
        let list = table.and_then(|table| table.get_ref().as_table()).and_then(|table| table.get(key));
        if let Some(list) = list {
            let (at, text) = self.first_item(list, item);
            return self.insertions.put(at, text);
        }
        match table.and_then(|table| self.header(table.span().start)) {
            Some((end, indent)) => self.insertions.put(end, format!("{newline}{indent}  {key} = {value}")),
            None => {
                self.appended += &format!("{newline}[{REGISTRY}.{}]{newline}  {key} = {value}{newline}", quoted(name));
            }
        }
    }

    /// A list's new first item. Unlike in JSON a comment may come before the old one.
    fn first_item(&self, list: &Spanned<DeValue<'_>>, item: &str) -> (usize, String) {
        let first = match list.get_ref() {
            DeValue::Array(items) => items.iter().next().map(|first| first.span().start),
            _ => None,
        };
        let Some(first) = first else { return (list.span().start + 1, item.to_owned()) };
        let line = self.old[..first].rfind('\n').map_or(0, |at| at + 1);
        let before = &self.old[line..first];
        if before.trim().is_empty() {
            (first, format!("{item},{}{before}", newline(self.old)))
        } else {
            (first, format!("{item}, "))
        }
    }

    /// The end of a table's own line `[registry."..."]`, and its indent; none if the table is written in another way.
    fn header(&self, start: usize) -> Option<(usize, &str)> {
        let text = &self.old[start..];
        if !text.starts_with('[') || text.starts_with("[[") {
            return None;
        }
        let line = text.split('\n').next().unwrap_or_default();
        let begin = self.old[..start].rfind('\n').map_or(0, |at| at + 1);
        let indent = &self.old[begin..start];
        indent.trim().is_empty().then_some((start + line.trim_end_matches('\r').len(), indent))
    }

    fn into_text(self) -> String {
        let mut text = self.insertions.into(self.old);
        if self.appended.is_empty() {
            return text;
        }
        if text.is_empty() {
            return self.appended.trim_start().to_owned();
        }
        if !text.ends_with('\n') {
            text += newline(self.old);
        }
        text + &self.appended
    }
}
