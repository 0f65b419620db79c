//! `mirrors` of `registries.yaml`, which k3s and RKE2 read.

use serde_yaml::{Mapping, Value};

use super::super::untouched::Untouched;
use super::daemon_json::first_item;
use super::{Insertions, IsSame, Merged, NOT_IN_PLACE, Rank, is, masked, newline, others, rank};
use crate::client_config::quoted;
use crate::config::takes_too_long;

const MIRRORS: &str = "mirrors";
const ENDPOINT: &str = "endpoint";
/// Where every registry is below its address.
const API: &str = "/v2";
/// What is written for a level of its own.
const STEP: &str = "  ";

/// The endpoints of a registry are asked in their order, then the registry itself; `rewrite` changes the names that each of
/// them is asked for, and `*` is for registries without an entry (docs.k3s.io/installation/private-registry, and
/// `pkg/agent/containerd/config.go` in k3s).
pub(super) fn merge(old: &str, url: &str, registries: &[String], is_same: IsSame<'_>) -> Result<Merged, Untouched> {
    // They take it for the address alone (`normalizeEndpointAddress` in that file).
    let is_same: IsSame<'_> = &|other, ours| {
        let bare = other.strip_suffix(API).unwrap_or(other);
        bare == ours || is_same(bare, ours)
    };
    if let Some(why) = takes_too_long(old) {
        return Err(Untouched::Broken(format!("is no YAML: {why}")));
    }
    let has: Value = serde_yaml::from_str(old).map_err(|cause| Untouched::Broken(format!("is no YAML: {cause}")))?;
    let mut value = has.clone();
    if !(has.is_mapping() || has.is_null()) {
        return Err(Untouched::Broken("is no YAML table".to_owned()));
    }
    let has = has.get(MIRRORS);
    let has_mirrors = has.is_some();
    let has = table(has, MIRRORS)?;
    let text = Text::of(old);
    let top = text.lines.iter().position(|line| line.is_key_at(0, MIRRORS));
    let indent = top.and_then(|top| text.below(top)).unwrap_or(STEP);
    let newline = newline(old);
    let (mut insertions, mut lacks, mut beside) = (Insertions::default(), Vec::new(), Vec::new());
    let mut entries = String::new();
    for name in registries {
        let found = has.and_then(|mirrors| mirrors.get(name.as_str()));
        let entry = table(found, name)?;
        let rules = entry.and_then(|entry| entry.get("rewrite")).filter(|rules| !rules.is_null());
        if rules.is_some_and(|rules| rules.as_mapping().is_none_or(|rules| !rules.is_empty())) {
            return Err(format!(
                "has a rewrite for {name}, which would also change the names that this proxy is asked for: take it out"
            )
            .into());
        }
        let list = entry.and_then(|entry| entry.get(ENDPOINT));
        let texts = match list {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(list) => list.as_sequence().and_then(|list| list.iter().map(Value::as_str).collect()),
        };
        let texts = texts.ok_or_else(|| format!("has the endpoints of {name}, but not as a list of texts"))?;
        for other in others(&texts, url, is_same) {
            beside.push(format!("{other} is asked for {name} when the proxy fails"));
        }
        if let Rank::First = rank(&texts, url, &format!("the endpoints of {name}"), is_same)? {
            continue;
        }
        lacks.push(format!("{url} in the endpoints of {name}"));
        wanted(&mut value, name).ok_or(NOT_IN_PLACE)?.insert(0, url.into());
        let item = quoted(url);
        if found.is_some() {
            let place = top.and_then(|top| text.key_below(top, indent, name)).ok_or(NOT_IN_PLACE)?;
            let (at, line) = text.endpoint(place, indent, list.is_some(), &item).ok_or(NOT_IN_PLACE)?;
            insertions.put(at, line);
            continue;
        }
        let (name_line, deeper) = (format!("{indent}{}:{newline}", quoted(name)), format!("{indent}{STEP}"));
        entries += &format!("{name_line}{deeper}{ENDPOINT}:{newline}{deeper}{STEP}- {item}{newline}");
        if has.is_some_and(|mirrors| mirrors.contains_key("*")) {
            beside.push(format!("what stands for \"*\" does not count for {name}, which gets an entry of its own"));
        }
    }
    let leftover = has.into_iter().flatten().filter_map(|(name, entry)| {
        let endpoints =
            entry.get(ENDPOINT).and_then(Value::as_sequence).into_iter().flatten().filter_map(Value::as_str);
        let name = name.as_str().filter(|name| *name != "*" && !registries.iter().any(|known| known == name))?;
        endpoints.into_iter().any(|other| is(other, url, is_same)).then(|| masked(name))
    });
    let leftover: Vec<_> = leftover.collect();
    if lacks.is_empty() {
        return Ok(Merged { text: old.to_owned(), lacks, beside, leftover });
    }
    if !entries.is_empty() {
        let (at, text) = match top {
            Some(top) => text.after(top, entries),
            None if has_mirrors => return Err(NOT_IN_PLACE.into()),
            None => text.before_first_key(format!("{MIRRORS}:{newline}{entries}")),
        };
        insertions.put(at, text);
    }
    let text = insertions.into(old);
    if serde_yaml::from_str::<Value>(&text).ok() != Some(value) {
        return Err(NOT_IN_PLACE.into());
    }
    Ok(Merged { text, lacks, beside, leftover })
}

/// A table, if there is one; a key with nothing behind it has none.
fn table<'a>(value: Option<&'a Value>, name: &str) -> Result<Option<&'a Mapping>, String> {
    let value = value.filter(|value| !value.is_null());
    value.map(|value| value.as_mapping().ok_or_else(|| format!("has {name}, but not as a table"))).transpose()
}

/// The registry's endpoints, made with all above them.
fn wanted<'a>(file: &'a mut Value, name: &str) -> Option<&'a mut Vec<Value>> {
    let mut table = file;
    for key in [MIRRORS, name] {
        if table.is_null() {
            *table = Value::Mapping(Mapping::new());
        }
        table = table.as_mapping_mut()?.entry(key.into()).or_insert(Value::Null);
    }
    if table.is_null() {
        *table = Value::Mapping(Mapping::new());
    }
    let list = table.as_mapping_mut()?.entry(ENDPOINT.into()).or_insert(Value::Null);
    if list.is_null() {
        *list = Value::Sequence(Vec::new());
    }
    list.as_sequence_mut()
}

/// A file by its lines. A line that only looks like a key is found out when the result is parsed.
struct Text<'a> {
    old: &'a str,
    lines: Vec<Line<'a>>,
}

struct Line<'a> {
    start: usize,
    /// Without its end.
    text: &'a str,
    /// Where the next one begins.
    end: usize,
}

impl<'a> Line<'a> {
    /// The blanks before the first word; `None` of a line without one.
    fn indent(&self) -> Option<&'a str> {
        let word = self.text.trim_start_matches(' ');
        let is_blank = word.trim().is_empty() || word.starts_with('#');
        (!is_blank).then(|| &self.text[..self.text.len() - word.len()])
    }

    /// What stands behind `key:`, if the line begins with this key after so many blanks.
    fn behind(&self, indent: usize, key: &str) -> Option<&'a str> {
        if self.indent()?.len() != indent {
            return None;
        }
        let word = &self.text[indent..];
        let bare = word.strip_prefix(key);
        let in_quotes = |quote: char| word.strip_prefix(quote)?.strip_prefix(key)?.strip_prefix(quote);
        let rest = bare.or_else(|| in_quotes('"')).or_else(|| in_quotes('\''))?;
        let rest = rest.trim_start().strip_prefix(':')?;
        (rest.is_empty() || rest.starts_with([' ', '\t'])).then_some(rest)
    }

    /// Whether the line has this key and nothing behind it, so that what it stands for is below.
    fn is_key_at(&self, indent: usize, key: &str) -> bool {
        self.behind(indent, key).is_some_and(is_nothing)
    }
}

/// A comment is nothing, too.
fn is_nothing(rest: &str) -> bool {
    rest.trim().is_empty() || (rest.starts_with([' ', '\t']) && rest.trim_start().starts_with('#'))
}

impl<'a> Text<'a> {
    fn of(old: &'a str) -> Self {
        let mut start = 0;
        let lines = old.split_inclusive('\n').map(|line| {
            let (from, end) = (start, start + line.len());
            start = end;
            Line { start: from, text: line.trim_end_matches(['\n', '\r']), end }
        });
        Self { old, lines: lines.collect() }
    }

    /// The lines that are deeper than this one, which they follow.
    fn region(&self, at: usize) -> impl Iterator<Item = (usize, &Line<'a>)> {
        let indent = self.lines[at].indent().map_or(0, str::len);
        let below = self.lines.iter().enumerate().skip(at + 1);
        below.take_while(move |(_, line)| line.indent().is_none_or(|other| other.len() > indent))
    }

    /// How far the keys below this line are indented.
    fn below(&self, at: usize) -> Option<&'a str> {
        self.region(at).find_map(|(_, line)| line.indent())
    }

    fn key_below(&self, at: usize, indent: &str, key: &str) -> Option<usize> {
        self.region(at).find(|(_, line)| line.is_key_at(indent.len(), key)).map(|(at, _)| at)
    }

    /// The item as the first endpoint of the registry whose line this is.
    fn endpoint(&self, registry: usize, indent: &str, has_list: bool, item: &str) -> Option<(usize, String)> {
        let newline = newline(self.old);
        let deeper = self.below(registry).map_or_else(|| format!("{indent}{STEP}"), str::to_owned);
        if !has_list {
            let lines = format!("{deeper}{ENDPOINT}:{newline}{deeper}{STEP}- {item}{newline}");
            return Some(self.after(registry, lines));
        }
        let (at, rest) =
            self.region(registry).find_map(|(at, line)| line.behind(deeper.len(), ENDPOINT).map(|rest| (at, rest)))?;
        let line = &self.lines[at];
        if is_nothing(rest) {
            // A list may be as far to the left as its key.
            let next = self.lines[at + 1..].iter().find_map(|line| line.indent().map(|indent| (line, indent)));
            let is_item = |(line, indent): &(&Line<'_>, &str)| {
                indent.len() >= deeper.len() && line.text[indent.len()..].starts_with('-')
            };
            return Some(match next.filter(is_item) {
                Some((first, indent)) => (first.start, format!("{indent}- {item}{newline}")),
                None => self.after(at, format!("{deeper}{STEP}- {item}{newline}")),
            });
        }
        let list = line.start + line.text.len() - rest.trim_start().len();
        rest.trim_start().starts_with('[').then(|| first_item(self.old, list, item))
    }

    /// Lines below this one, whose end the file's last line may lack.
    fn after(&self, at: usize, lines: String) -> (usize, String) {
        let end = self.lines[at].end;
        let newline = newline(self.old);
        if self.old[..end].ends_with('\n') {
            (end, lines)
        } else {
            (end, format!("{newline}{}", lines.strip_suffix(newline).unwrap_or(&lines)))
        }
    }

    /// Lines above the first key, or at the end of a file that has none.
    fn before_first_key(&self, lines: String) -> (usize, String) {
        let is_marker = |line: &Line<'_>| line.text.starts_with("---") || line.text.starts_with('%');
        let first = self.lines.iter().find(|line| line.indent().is_some() && !is_marker(line));
        match first {
            Some(first) => (first.start, lines),
            None if self.lines.is_empty() => (0, lines),
            None => self.after(self.lines.len() - 1, lines),
        }
    }
}
