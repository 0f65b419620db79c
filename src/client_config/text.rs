//! TOML and JSON of engines, looked into by keys.

use std::collections::BTreeSet;
use std::fmt::{self, Formatter};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use toml::{Table, Value};

/// By which some editors mark a file as Unicode.
pub(crate) const MARK: char = '\u{feff}';
/// A parser's complaint is quoted up to here.
const MAX_WRONG: usize = 160;

/// A TOML file, whose tables have the order of the file. The error says what is wrong and where, and quotes nothing of it, for
/// the line that is wrong may have a password.
pub(crate) fn toml(text: &str) -> Result<Table, String> {
    text.parse::<Table>().map_err(|wrong| {
        let line = wrong.span().map(|span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        let at = line.map(|line| format!(", line {line}")).unwrap_or_default();
        // What the parser says may quote a key.
        let what: String = wrong.message().lines().next().unwrap_or_default().chars().take(MAX_WRONG).collect();
        format!("it is not TOML{at}: {what}")
    })
}

/// A JSON object. The error quotes nothing of it.
pub(crate) fn json(text: &str) -> Result<Json, String> {
    match serde_json::from_str::<Json>(text) {
        Ok(value) if value.is_object() => Ok(value),
        Ok(_) => Err("it is not a JSON object".to_owned()),
        Err(wrong) => Err(format!("it is not JSON, line {}, column {}", wrong.line(), wrong.column())),
    }
}

/// Whether no object of a JSON text has a key twice, for those who refuse that. The error quotes nothing of it.
pub(crate) fn once(text: &str) -> Result<(), String> {
    let wrong = |wrong: serde_json::Error| format!("it has a key twice, line {}", wrong.line());
    serde_json::from_str::<Once>(text).map(|_| ()).map_err(wrong)
}

/// What no object of has a key twice.
struct Once;

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = Self;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut known = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !known.insert(key) {
                return Err(A::Error::custom("a key is there twice"));
            }
            map.next_value::<Self>()?;
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
}

/// The table at the end of a way of keys.
pub(crate) fn table<'a>(from: &'a Table, way: &[&str]) -> Option<&'a Table> {
    way.iter().try_fold(from, |table, key| table.get(*key)?.as_table())
}

/// A text.
pub(crate) fn text<'a>(from: &'a Table, key: &str) -> Option<&'a str> {
    from.get(key)?.as_str()
}

/// A boolean; what is not there is false.
pub(crate) fn is_set(from: &Table, key: &str) -> bool {
    from.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// The texts of an array; others in it are left out.
pub(crate) fn texts(from: &Table, key: &str) -> Option<Vec<String>> {
    let array = from.get(key)?.as_array()?;
    Some(array.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect())
}

/// The tables of a table, with their names, in the order of the file.
pub(crate) fn entries<'a>(from: &'a Table, key: &str) -> Vec<(&'a str, &'a Table)> {
    let entries = from.get(key).and_then(Value::as_table).into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.as_str(), value.as_table()?))).collect()
}

/// The tables of an array of tables.
pub(crate) fn tables<'a>(from: &'a Table, key: &str) -> Vec<&'a Table> {
    from.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_the_order_of_the_file() {
        let parsed = toml("[host.\"z\"]\n[host.\"a\"]\nx = 1\n[host.\"m\"]\n").expect("TOML");
        let names: Vec<_> = entries(&parsed, "host").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["z", "a", "m"]);
    }

    #[test]
    fn what_is_wrong_is_told_without_the_line_that_may_have_a_password() {
        let wrong = toml("a = 1\npassword = \"hunter2\nb = 2\n").expect_err("no end of the text");
        assert!(wrong.starts_with("it is not TOML, line 2: ") && !wrong.contains("hunter2"), "{wrong}");
        let wrong = json("{\"a\": 1,\n \"password\": hunter2}").expect_err("no text");
        assert!(wrong.starts_with("it is not JSON, line 2, column ") && !wrong.contains("hunter2"), "{wrong}");
    }
}
