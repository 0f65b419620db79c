//! The format of a log line: `[2026-11-25T14:18:00.123Z INFO  access] ...`, in UTC. The journal records the time of each
//! line itself, so there it is `<6>[INFO  access] ...`. With `log.format: json` each line is an object, see [`json`].

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use log::{Level, Record};
use time::OffsetDateTime;

use super::{field, json};

/// Longer than our longest line, an access log line with every field at its limit.
const MAX_MESSAGE: usize = 8 << 10;

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people, and for tools that split at blanks.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Who reads standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A person, a file, a container engine.
    Other,
    /// The systemd journal, which takes the priority from the start of each line (`sd-daemon(3)`).
    Journal,
}

impl Reader {
    /// The prefix of a line of this level.
    pub(crate) fn priority(self, level: Level) -> &'static str {
        match (self, level) {
            (Self::Other, _) => "",
            (Self::Journal, Level::Error) => "<3>",
            (Self::Journal, Level::Warn) => "<4>",
            (Self::Journal, Level::Info) => "<6>",
            (Self::Journal, Level::Debug | Level::Trace) => "<7>",
        }
    }
}

thread_local! {
    static LINE: RefCell<Line> = RefCell::default();
}

/// A buffer for one line. It is reused, and so is its date until the second changes.
#[derive(Default)]
struct Line {
    text: String,
    /// Seconds since 1970 that `stamp` is for.
    second: Option<u64>,
    stamp: String,
}

/// Writes one record, as `env_logger`'s formatter.
pub(crate) fn write(reader: Reader, form: Format, out: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
    // A `Display` of the record may log as well; that inner line then gets a fresh buffer.
    let mut line = LINE.with(RefCell::take);
    let outcome = out.write_all(line.format(reader, form, since_1970(), record).as_bytes());
    LINE.set(line);
    outcome
}

/// A line of the logger's own, about itself or about the end of the process. Text has no time here, and begins with `text`.
pub(crate) fn notice(reader: Reader, form: Format, level: Level, text: &str, message: &str) -> String {
    let mut line = reader.priority(level).to_owned();
    match form {
        Format::Text => line.extend([text, message]),
        Format::Json => {
            let mut time = Line::default();
            time.push_time(since_1970());
            json::notice(&mut line, &time.text, level, message, MAX_MESSAGE);
        }
    }
    line.push('\n');
    line
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

impl Line {
    /// Makes exactly one line of a record, whatever its message contains.
    fn format(&mut self, reader: Reader, form: Format, since_1970: Duration, record: &Record<'_>) -> &str {
        self.text.clear();
        if form == Format::Json {
            self.push_time(since_1970);
            let time = std::mem::take(&mut self.text);
            self.text.push_str(reader.priority(record.level()));
            json::write(&mut self.text, &time, record, MAX_MESSAGE);
            self.text.push('\n');
            return &self.text;
        }
        self.text.push_str(reader.priority(record.level()));
        self.text.push('[');
        if reader == Reader::Other {
            self.push_time(since_1970);
            self.text.push(' ');
        }
        self.text.push_str(match record.level() {
            Level::Error => "ERROR ",
            Level::Warn => "WARN  ",
            Level::Info => "INFO  ",
            Level::Debug => "DEBUG ",
            Level::Trace => "TRACE ",
        });
        self.text.push_str(record.target());
        self.text.push_str("] ");
        let start = self.text.len();
        // Writing to a `String` cannot fail. A `Display` of the message can; the line then ends there.
        let _ = self.text.write_fmt(*record.args());
        let message = self.text.get(start..).unwrap_or_default();
        if message.len() > MAX_MESSAGE || !message.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            let message = self.text.split_off(start);
            let _ = field::escape(&mut self.text, MAX_MESSAGE, &message, &field::TEXT);
        }
        self.text.push('\n');
        &self.text
    }

    fn push_time(&mut self, since_1970: Duration) {
        let second = since_1970.as_secs();
        if self.second != Some(second) {
            self.second = Some(second);
            self.stamp = stamp(second);
        }
        self.text.push_str(&self.stamp);
        self.text.push('.');
        let millis = since_1970.subsec_millis();
        self.text.extend([millis / 100, millis / 10 % 10, millis % 10].map(digit));
        self.text.push('Z');
    }
}

fn digit(value: u32) -> char {
    char::from_digit(value, 10).unwrap_or('?')
}

/// Seconds since 1970 as `2026-11-25T14:18:00`, in UTC; empty if they are beyond the last date that can be written.
pub(crate) fn stamp(second: u64) -> String {
    let date = i64::try_from(second).ok().and_then(|second| OffsetDateTime::from_unix_timestamp(second).ok());
    date.map_or_else(String::new, |at| {
        let (month, day) = (u8::from(at.month()), at.day());
        format!("{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", at.year(), at.hour(), at.minute(), at.second())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(reader: Reader, millis: u64, level: Level, target: &str, message: &str) -> String {
        let args = format_args!("{message}");
        let record = Record::builder().level(level).target(target).args(args).build();
        Line::default().format(reader, Format::Text, Duration::from_millis(millis), &record).to_owned()
    }

    #[test]
    fn a_line_begins_with_date_level_and_target() {
        for (millis, level, target, message, expected) in [
            (0, Level::Info, "access", "a", "[1970-01-01T00:00:00.000Z INFO  access] a\n"),
            (951_782_399_999, Level::Warn, "x::y", "b", "[2000-02-28T23:59:59.999Z WARN  x::y] b\n"),
            (951_782_400_001, Level::Error, "x", "c", "[2000-02-29T00:00:00.001Z ERROR x] c\n"),
            (951_782_400_020, Level::Info, "x", "e", "[2000-02-29T00:00:00.020Z INFO  x] e\n"),
            (1_795_616_280_123, Level::Info, "x", "", "[2026-11-25T14:18:00.123Z INFO  x] \n"),
        ] {
            assert_eq!(format(Reader::Other, millis, level, target, message), expected);
        }
    }

    #[test]
    fn the_journal_gets_a_priority_and_no_second_time_stamp() {
        for (level, expected) in [
            (Level::Error, "<3>[ERROR x] a\n"),
            (Level::Warn, "<4>[WARN  x] a\n"),
            (Level::Info, "<6>[INFO  x] a\n"),
            (Level::Debug, "<7>[DEBUG x] a\n"),
        ] {
            assert_eq!(format(Reader::Journal, 951_782_399_999, level, "x", "a"), expected);
        }
    }

    #[test]
    fn the_journal_finds_the_priority_in_front_of_an_object_too() {
        let args = format_args!("a");
        let record = Record::builder().level(Level::Warn).target("x").args(args).build();
        for (reader, priority) in [(Reader::Journal, "<4>"), (Reader::Other, "")] {
            let object = r#"{"time":"1970-01-01T00:00:00.000Z","level":"warn","target":"x","message":"a"}"#;
            let mut line = Line::default();
            assert_eq!(line.format(reader, Format::Json, Duration::ZERO, &record), format!("{priority}{object}\n"));
        }
    }

    #[test]
    fn one_record_is_one_bounded_line() {
        for (message, expected) in [
            ("c\nd", "<6>[INFO  x] c\\u{a}d\n"),
            ("c\r\x1b[2K", "<6>[INFO  x] c\\u{d}\\u{1b}[2K\n"),
            ("caf\u{e9} \u{202e}", "<6>[INFO  x] caf\u{e9} \\u{202e}\n"),
        ] {
            assert_eq!(format(Reader::Journal, 0, Level::Info, "x", message), expected);
        }
        let line = format(Reader::Journal, 0, Level::Info, "x", &"y".repeat(1 << 20));
        assert!(line.len() < MAX_MESSAGE + 30 && line.ends_with("y...\n"), "{}", line.len());
    }
}
