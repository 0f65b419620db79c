//! The configuration file as a JSON schema, made of the rows of the settings: editors complete and check by it.

use serde_json::{Map, Value, json};

use super::kind::KindName;
use super::setting::FileTable;
use super::table::{Default, Entry, Holds, Row, Table as _};

/// A whole number, not 0, with a unit.
const TIME: &str = "^0*[1-9][0-9]*(s|m|h)$";
/// A number, also as a text, of which the program says the range.
const NUMBER: &str = "^0*[1-9][0-9]*$";
const SIZE: &str = "^[0-9]+(KiB|MiB|GiB|kB|MB|GB)$";
/// Permission bits.
const MODE: &str = "^(0o?[0-7]{3}|[1-7][0-7]{2})$";

/// The schema of the file, draft-07, which the language servers of editors know. It takes all that the proxy takes, and refuses
/// what a range or a pattern can say; what a text has to be beyond that, such as the greatest size, is said by the proxy alone.
pub(crate) fn schema() -> Value {
    let mut schema = table(FileTable::entries(), false);
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!("acr-cache-proxy: the configuration file");
    schema
}

/// A table. What a flag may give has to be in the file only where no flag can mean it: in an item of a list.
fn table(entries: Vec<Entry>, is_item: bool) -> Value {
    let is_required = |row: &Row| row.default == Default::Required && (is_item || row.flag.is_none());
    let rows = entries.iter().map(|entry| entry.row);
    let required: Vec<_> = rows.filter(|row| is_required(row)).map(|row| row.key).collect();
    let properties: Map<_, _> = entries.into_iter().map(|entry| (entry.row.key.to_owned(), setting(entry))).collect();
    let mut table = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    // Draft-04 does not know an empty list, and some editors read every schema as one.
    if !required.is_empty() {
        table["required"] = json!(required);
    }
    table
}

fn setting(Entry { row, holds }: Entry) -> Value {
    let many = |items| json!({ "type": "array", "items": items });
    let mut setting = match holds {
        Holds::Value => value(row),
        Holds::List => many(text()),
        Holds::Tables(below) => many(table(below, true)),
        Holds::Table(below) if row.value.starts_with("off|") => either(off(), table(below, false)),
        Holds::Table(below) => table(below, false),
        Holds::ValueOrTable(below) => either(value(row), table(below, false)),
        Holds::ValueOrTables(below) => either(value(row), many(table(below, true))),
    };
    setting["description"] = json!(format!("{}. {}", row.help, row.more).trim_end());
    if let Default::Text(text) | Default::Unless(text, _) = row.default
        && (setting["type"] == "string" || setting["anyOf"][0]["type"] == "string")
    {
        setting["default"] = json!(text);
    }
    setting
}

/// A value, by what its row says that has to be given: a unit, a list of words, or a text.
fn value(row: &Row) -> Value {
    match row.value {
        "KIND" => json!({ "type": "string", "enum": KindName::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>() }),
        "NUMBER" => number(row),
        "NUMBER|off" => either(number(row), off()),
        "NUMBER|fair|off" => either(number(row), json!({ "enum": ["fair", "off", false] })),
        "URL|off" => either(text(), off()),
        "FILTER" | "FILTER|TABLE" => either(pattern(row.pattern), off()),
        _ if !row.pattern.is_empty() => pattern(row.pattern),
        "TIME" => pattern(TIME),
        "SIZE" => pattern(SIZE),
        // Without quotes an editor reads a number, to which no pattern is applied.
        "MODE" => either(pattern(MODE), json!({ "type": "integer" })),
        words if words.contains('|') && words.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '|' | '_')) => {
            json!({ "type": "string", "enum": words.split('|').collect::<Vec<_>>() })
        }
        _ if row.default == Default::Text("") => json!({ "type": "string" }),
        _ => text(),
    }
}

/// A bound is for a number alone and a pattern for a text alone, so one schema has both.
fn number(row: &Row) -> Value {
    let mut number = json!({ "type": ["integer", "string"], "pattern": NUMBER });
    if let Some((least, greatest)) = row.range {
        number["minimum"] = json!(least);
        number["maximum"] = json!(greatest);
    }
    number
}

fn pattern(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

/// No setting but the prefix may be empty.
fn text() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

/// `off`, which YAML 1.1 reads as `false`.
fn off() -> Value {
    json!({ "enum": ["off", false] })
}

fn either(one: Value, other: Value) -> Value {
    json!({ "anyOf": [one, other] })
}
