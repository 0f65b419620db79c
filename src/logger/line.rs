//! How a log line looks: `[2026-11-25T14:18:00.123Z INFO  access] ...`, in UTC.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use log::{Level, Record};
use time::OffsetDateTime;

thread_local! {
    static LINE: RefCell<Line> = RefCell::default();
}

/// A line in the making; its memory is used again, and its date is written once a second.
#[derive(Default)]
struct Line {
    text: String,
    /// Since 1970; what `stamp` says.
    second: Option<u64>,
    stamp: String,
}

/// `env_logger`'s format.
pub fn write(out: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
    // What a line shows might want to say something as well; the inner line then has a buffer of its own.
    let mut line = LINE.with(RefCell::take);
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let outcome = out.write_all(line.format(since_1970, record).as_bytes());
    LINE.set(line);
    outcome
}

impl Line {
    fn format(&mut self, since_1970: Duration, record: &Record<'_>) -> &str {
        let second = since_1970.as_secs();
        if self.second != Some(second) {
            self.second = Some(second);
            self.stamp = stamp(second);
        }
        self.text.clear();
        self.text.push('[');
        self.text.push_str(&self.stamp);
        self.text.push('.');
        let millis = since_1970.subsec_millis();
        self.text.extend([millis / 100, millis / 10 % 10, millis % 10].map(digit));
        self.text.push_str(match record.level() {
            Level::Error => "Z ERROR ",
            Level::Warn => "Z WARN  ",
            Level::Info => "Z INFO  ",
            Level::Debug => "Z DEBUG ",
            Level::Trace => "Z TRACE ",
        });
        self.text.push_str(record.target());
        self.text.push_str("] ");
        let start = self.text.len();
        // A `String` takes everything; only what is shown may fail, and then the line ends there.
        let _ = self.text.write_fmt(*record.args());
        if self.text.get(start..).is_some_and(|message| message.contains('\n')) {
            // One record is one line and what is indented below it.
            let message = self.text.split_off(start).replace('\n', "\n    ");
            self.text.push_str(&message);
        }
        self.text.push('\n');
        &self.text
    }
}

/// One of 0 to 9.
fn digit(value: u32) -> char {
    char::from_digit(value, 10).unwrap_or('?')
}

/// Empty for a time that has no date.
/// A second since 1970 as `2026-11-25T14:18:00`, in UTC.
pub fn stamp(second: u64) -> String {
    let date = i64::try_from(second).ok().and_then(|second| OffsetDateTime::from_unix_timestamp(second).ok());
    date.map_or_else(String::new, |at| {
        let (month, day) = (u8::from(at.month()), at.day());
        format!("{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", at.year(), at.hour(), at.minute(), at.second())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_date_level_and_target_and_further_ones_are_indented() {
        let mut line = Line::default();
        for (millis, level, target, message, expected) in [
            (0, Level::Info, "access", "a", "[1970-01-01T00:00:00.000Z INFO  access] a\n"),
            (951_782_399_999, Level::Warn, "x::y", "b", "[2000-02-28T23:59:59.999Z WARN  x::y] b\n"),
            (951_782_400_001, Level::Error, "x", "c\nd", "[2000-02-29T00:00:00.001Z ERROR x] c\n    d\n"),
            (951_782_400_020, Level::Info, "x", "e", "[2000-02-29T00:00:00.020Z INFO  x] e\n"),
            (1_795_616_280_123, Level::Info, "x", "", "[2026-11-25T14:18:00.123Z INFO  x] \n"),
        ] {
            let args = format_args!("{message}");
            let record = Record::builder().level(level).target(target).args(args).build();
            assert_eq!(line.format(Duration::from_millis(millis), &record), expected);
        }
    }
}
