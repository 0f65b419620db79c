//! The keys of a `registries.conf` and their types, as BurntSushi/toml reads them into the structures of containers/image.

use toml::{Table, Value};

use crate::client_config::text;

/// What a key has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Boolean,
    Texts,
    Table,
    /// An array of tables.
    Tables,
}

impl Kind {
    fn is(self, value: &Value) -> bool {
        let all = |is: fn(&Value) -> bool| value.as_array().is_some_and(|list| list.iter().all(is));
        match self {
            Self::Text => value.is_str(),
            Self::Boolean => value.is_bool(),
            Self::Texts => all(Value::is_str),
            Self::Table => value.is_table(),
            Self::Tables => all(Value::is_table),
        }
    }

    /// For a sentence.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "a text in quotes",
            Self::Boolean => "true or false, without quotes",
            Self::Texts => "a list of texts in brackets",
            Self::Table => "a table",
            Self::Tables => "a list of tables, each below its name in double brackets",
        }
    }
}

/// `short-name-mode` is told with its values.
const FILE: [(&str, Kind); 4] = [
    ("registry", Kind::Tables),
    ("unqualified-search-registries", Kind::Texts),
    ("credential-helpers", Kind::Texts),
    ("aliases", Kind::Table),
];
const REGISTRY: [(&str, Kind); 7] = [
    ("prefix", Kind::Text),
    ("location", Kind::Text),
    ("insecure", Kind::Boolean),
    ("blocked", Kind::Boolean),
    ("mirror-by-digest-only", Kind::Boolean),
    ("pull-from-mirror", Kind::Text),
    ("mirror", Kind::Tables),
];
const MIRROR: [(&str, Kind); 3] =
    [("location", Kind::Text), ("insecure", Kind::Boolean), ("pull-from-mirror", Kind::Text)];

/// A file, its keys in small letters: they are taken without regard to case. Names of aliases are not.
pub(super) fn parse(content: &str) -> Result<Table, String> {
    text::toml(content).map(in_small_letters)
}

fn in_small_letters(table: Table) -> Table {
    let mut small = Table::new();
    for (key, value) in table {
        let name = key.to_ascii_lowercase();
        let value = if name == "aliases" { value } else { all_in_small_letters(value) };
        // One that is written in small letters counts before others.
        if key == name || !small.contains_key(&name) {
            small.insert(name, value);
        }
    }
    small
}

fn all_in_small_letters(value: Value) -> Value {
    match value {
        Value::Table(table) => Value::Table(in_small_letters(table)),
        Value::Array(list) => Value::Array(list.into_iter().map(all_in_small_letters).collect()),
        value => value,
    }
}

/// The first key of another type than it has to be.
pub(super) fn misfit(table: &Table) -> Option<(&'static str, Kind)> {
    let registries = text::tables(table, "registry");
    let mirrors = registries.iter().flat_map(|registry| text::tables(registry, "mirror"));
    first(table, &FILE)
        .or_else(|| registries.iter().find_map(|registry| first(registry, &REGISTRY)))
        .or_else(|| mirrors.into_iter().find_map(|mirror| first(mirror, &MIRROR)))
}

fn first(table: &Table, keys: &[(&'static str, Kind)]) -> Option<(&'static str, Kind)> {
    keys.iter().find(|(key, kind)| table.get(*key).is_some_and(|value| !kind.is(value))).copied()
}
