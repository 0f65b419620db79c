//! A record as one JSON object on one line: `{"time":"...","level":"info","target":"access","method":"GET",...}`.
//!
//! What a record has of keys and values are the object's keys; a record without any has its `message`. Texts are bounded and
//! escaped here, so none ends its string or its line.

use std::fmt::{Display, Write as _};

use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use log::{Level, Record};

use oci::printable::is_harmless;

use super::field::{Form, escape};

/// Of one value. The longest is an error: a sentence of ours, which may quote two of a server's.
const MAX_VALUE: usize = 1024;

/// What stands between the quotes of a string.
const STRING: Form = Form {
    is_plain: |text| text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')),
    passes: |c| !matches!(c, '"' | '\\') && is_harmless(c),
    escaped: |c| match c {
        '"' | '\\' => format!("\\{c}"),
        // As UTF-16 (RFC 8259 section 7).
        c => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
    },
};

/// Appends the object, without the end of its line. `time` is RFC 3339.
pub(super) fn write(out: &mut String, time: &str, record: &Record<'_>, max_message: usize) {
    let mut object = object(out, time, record.level(), record.target());
    let source = record.key_values();
    // Writing to a `String` cannot fail. A `Display` of a value can; its string then ends there.
    let _ = source.visit(&mut object);
    if source.count() == 0 {
        text(out, "message", record.args(), max_message);
    }
    out.push('}');
}

/// The same for a line of the logger's own.
pub(super) fn notice(out: &mut String, time: &str, level: Level, message: &str, max_message: usize) {
    object(out, time, level, env!("CARGO_CRATE_NAME"));
    text(out, "message", &message, max_message);
    out.push('}');
}

/// The begin of every object.
fn object<'a>(out: &'a mut String, time: &str, level: Level, target: &str) -> Object<'a> {
    let level = match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let _ = write!(out, r#"{{"time":"{time}","level":"{level}""#);
    text(out, "target", &target, MAX_VALUE);
    Object(out)
}

/// `,"key":"value"`
fn text(out: &mut String, key: &str, value: &dyn Display, max: usize) {
    let _ = write!(out, r#","{key}":""#);
    let _ = escape(out, max, value, &STRING);
    out.push('"');
}

struct Object<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Object<'_> {
    /// The keys are our own words. Numbers and truths are what they are; all else is a string.
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        value.visit(Pair { out: self.0, key: key.as_str() })
    }
}

struct Pair<'a> {
    out: &'a mut String,
    key: &'a str,
}

impl Pair<'_> {
    fn plain(&mut self, value: impl Display) -> Result<(), Error> {
        write!(self.out, r#","{}":{value}"#, self.key).map_err(Error::from)
    }
}

impl<'v> VisitValue<'v> for Pair<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        text(self.out, self.key, &value, MAX_VALUE);
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        self.plain(value)
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        self.plain(value)
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        if value.is_finite() { self.plain(value) } else { Ok(()) }
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        self.plain(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIME: &str = "2026-11-25T14:18:00.123Z";

    fn line(record: &Record<'_>) -> String {
        let mut out = String::new();
        write(&mut out, TIME, record, 8 << 10);
        out
    }

    #[test]
    fn a_record_without_keys_has_its_message() {
        let record = Record::builder()
            .level(Level::Warn)
            .target("acr_cache_proxy::token")
            .args(format_args!("a \"b\"\n"))
            .build();
        let expected = r#"{"time":"2026-11-25T14:18:00.123Z","level":"warn","target":"acr_cache_proxy::token","message":"a \"b\"\u000a"}"#;
        assert_eq!(line(&record), expected);
    }

    #[test]
    fn keys_have_the_types_of_their_values() {
        let address = std::net::SocketAddr::from(([192, 0, 2, 1], 443));
        let pairs = [
            ("method", Value::from("GET")),
            ("status", Value::from(200_u16)),
            ("elapsed_ms", Value::from(1.5)),
            ("lost", Value::from(f64::NAN)),
            ("negative", Value::from(-1_i32)),
            ("sampled", Value::from(true)),
            ("client", Value::from_display(&address)),
        ];
        let source: &[(&str, Value<'_>)] = &pairs;
        let record = Record::builder()
            .level(Level::Info)
            .target("access")
            .args(format_args!("not there"))
            .key_values(&source)
            .build();
        let expected = r#"{"time":"2026-11-25T14:18:00.123Z","level":"info","target":"access","method":"GET","status":200,"elapsed_ms":1.5,"negative":-1,"sampled":true,"client":"192.0.2.1:443"}"#;
        assert_eq!(line(&record), expected);
    }

    proptest! {
        /// Whatever a value is, a reader finds one object with these keys and, up to its bound, this value.
        #[test]
        fn no_value_makes_a_second_key_or_line(
            value in prop_oneof![any::<String>(), Just("\",\"status\":200,\"x\":\"\u{2028}\\".to_owned())],
            filler in 0_usize..2000,
        ) {
            let value = value + &"x".repeat(filler);
            let pairs = [("path", Value::from(value.as_str()))];
            let source: &[(&str, Value<'_>)] = &pairs;
            let text = line(&Record::builder().target("access").key_values(&source).build());
            prop_assert_eq!(text.lines().count(), 1);
            prop_assert!(text.chars().all(is_harmless), "{}", text);
            let read: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let keys: Vec<_> = read.as_object().expect("an object").keys().cloned().collect();
            prop_assert_eq!(keys, ["level", "path", "target", "time"]);
            let path = read["path"].as_str().expect("a string");
            let is_cut = path.strip_suffix("...").is_some_and(|part| value.starts_with(part) && text.len() > MAX_VALUE - 12);
            prop_assert!(path == value || is_cut, "{}", text);
            prop_assert!(text.len() < MAX_VALUE + 200);
        }
    }
}
