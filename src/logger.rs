//! Log lines on standard error: `filter` decides which records are logged, `format` turns each into a line, `writer`
//! writes the lines from a thread of its own.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write as _;
use std::num::NonZeroU32;
use std::panic::Location;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use env_logger::{Logger, Target};
use log::Level;
use nix::sys::stat::fstat;
use oci::printable;

mod directives;
mod field;
mod filter;
mod flood;
mod format;
mod json;
mod writer;

use filter::Filter;
use format::Reader;
use writer::Writer;

pub(crate) use directives::{LEVELS, parse_filter, parse_levels, parse_shared_filter};
pub(crate) use field::{Rest, Word};
pub(crate) use flood::has_room;
pub(crate) use format::Format;
#[cfg(feature = "bench")]
pub(crate) use format::stamp;
pub(crate) use writer::dropped;

/// Of the message of a panic, which may quote what it could not deal with.
const MAX_PANIC: usize = 1024;

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// An `env_logger` filter such as `info` or `warn,access=info`.
    pub filter: String,
    /// How a line is written.
    pub format: Format,
    /// Of so many requests that succeed one has its line.
    pub sample: NonZeroU32,
}

/// The logger of the process; none before [`start`].
static FILTER: OnceLock<Filter> = OnceLock::new();
/// Of [`Settings`], for what has to know it on its way.
static IS_JSON: AtomicBool = AtomicBool::new(false);
static SAMPLE: AtomicU32 = AtomicU32::new(1);

/// Starts logging by these settings.
pub(crate) fn start(settings: &Settings) {
    let filter = FILTER.get_or_init(|| {
        // If the system gives no thread, each record is written to standard error by the thread that logs it.
        let writer = Writer::start(std::io::stderr(), |sentence| own_line(Level::Warn, "", sentence)).ok();
        Filter::new(logger(settings, writer.as_ref()), writer)
    });
    // A second logger is none: the first one goes on, by the new settings.
    let _ = log::set_logger(filter);
    replace(settings);
}

/// Goes on by other settings. Before [`start`] it does nothing.
pub(crate) fn replace(settings: &Settings) {
    let Some(filter) = FILTER.get() else { return };
    let logger = logger(settings, filter.writer());
    IS_JSON.store(settings.format == Format::Json, Ordering::Relaxed);
    SAMPLE.store(settings.sample.get(), Ordering::Relaxed);
    // The level before `Filter` lowers it: what is logged at info may have been warned of.
    log::set_max_level(logger.filter());
    filter.replace(logger);
}

fn logger(settings: &Settings, writer: Option<&Writer>) -> Logger {
    let (reader, form) = (reader(), settings.format);
    let target = writer.map_or(Target::Stderr, |writer| Target::Pipe(Box::new(writer.clone())));
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(&settings.filter).format(move |out, record| format::write(reader, form, out, record));
    builder.target(target).build()
}

/// Whether this success is one that has its line, and how many it stands for.
pub(crate) fn sample() -> (bool, u32) {
    static SUCCESSES: AtomicU32 = AtomicU32::new(0);
    match SAMPLE.load(Ordering::Relaxed) {
        0 | 1 => (true, 1),
        // Where the counter begins anew, one sample may be nearer to the next than the others.
        of => (SUCCESSES.fetch_add(1, Ordering::Relaxed).is_multiple_of(of), of),
    }
}

/// Writes to standard error, whatever the filter is, why the program ends: one line for each line of `message`.
pub(crate) fn complain(message: &str) {
    let lines = message.lines().map(printable::line);
    let text: String = lines.map(|line| own_line(Level::Error, "acr-cache-proxy: ", &line)).collect();
    // If standard error is closed, there is nobody left to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// From now on a panic has one line, as [`complain`] writes it. It never goes through the logger, in which it may have been.
pub(crate) fn tell_of_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        let backtrace = match backtrace.status() {
            BacktraceStatus::Captured => format!("\n{backtrace}"),
            _ => String::new(),
        };
        complain(&(panicked(panic.location(), panic.payload_as_str()) + &backtrace));
    }));
}

/// A defect in one line, whatever its message is.
fn panicked(location: Option<&Location<'_>>, message: Option<&str>) -> String {
    let at = location.map(|location| format!(" at {location}")).unwrap_or_default();
    let message = printable::bounded(message.unwrap_or("no message"), MAX_PANIC);
    format!("a defect of this program, please report it: it panicked{at}: {message}")
}

fn own_line(level: Level, text: &str, message: &str) -> String {
    let form = if IS_JSON.load(Ordering::Relaxed) { Format::Json } else { Format::Text };
    format::notice(reader(), form, level, text, message)
}

/// Who reads standard error. systemd sets `JOURNAL_STREAM` to the `device:inode` of the stream that it connected to the
/// journal (`systemd.exec(5)`). Children inherit the variable, so it counts only if standard error is still that stream.
fn reader() -> Reader {
    let journal = std::env::var("JOURNAL_STREAM").ok();
    let is_journal = journal.is_some_and(|journal| {
        fstat(std::io::stderr()).is_ok_and(|stream| journal == format!("{}:{}", stream.st_dev, stream.st_ino))
    });
    if is_journal { Reader::Journal } else { Reader::Other }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It had several, and none of them began as a line of the log does.
    #[test]
    fn a_panic_is_told_in_one_bounded_line() {
        let here = Location::caller();
        let said = panicked(Some(here), Some("overflow\nfix: \u{1b}[8m"));
        let expected = format!("it panicked at {here}: overflow\\u{{a}}fix: \\u{{1b}}[8m");
        assert!(said.ends_with(&expected), "{said}");
        assert!(panicked(None, None).ends_with(": it panicked: no message"));
        assert!(panicked(None, Some(&"x".repeat(1 << 20))).len() < 2 * MAX_PANIC);
    }
}
