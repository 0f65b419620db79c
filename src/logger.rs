//! Log lines on standard error: `filter` decides which records are logged, `format` turns each into a line, `writer`
//! writes the lines from a thread of its own.

use std::io::Write as _;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use env_logger::{Logger, Target};
use log::Level;
use nix::sys::stat::fstat;

mod directives;
mod field;
mod filter;
mod format;
mod writer;

use filter::Filter;
use format::Reader;
use writer::Writer;

pub(crate) use directives::{doubt, parse_filter, parse_shared_filter};
pub(crate) use field::{Rest, Word};
#[cfg(feature = "bench")]
pub(crate) use format::stamp;

/// Starts logging with an `env_logger` filter such as `info` or `warn,access=info`. A second call changes nothing.
pub(crate) fn start(filter: &str) {
    let reader = reader();
    // If the system gives no thread, each record is written to standard error by the thread that logs it.
    let writer = Writer::start(std::io::stderr(), reader.priority(Level::Warn)).ok();
    let logger = logger(filter, writer.clone());
    let level = logger.filter();
    let logger = Arc::new(ArcSwap::from_pointee(logger));
    if log::set_boxed_logger(Box::new(Filter::new(Arc::clone(&logger), writer.clone()))).is_ok() {
        log::set_max_level(level);
        let _ = RUNNING.set((logger, writer));
    }
}

/// What [`start`] has started.
static RUNNING: OnceLock<(Arc<ArcSwap<Logger>>, Option<Writer>)> = OnceLock::new();

/// Replaces the filter, for the records to come.
pub(crate) fn set_filter(filter: &str) {
    if let Some((running, writer)) = RUNNING.get() {
        let logger = logger(filter, writer.clone());
        let level = logger.filter();
        running.store(Arc::new(logger));
        log::set_max_level(level);
    }
}

/// Its level is that before `Filter` lowers it: what is logged at info may have been warned of.
fn logger(filter: &str, writer: Option<Writer>) -> Logger {
    let reader = reader();
    let target = writer.map_or(Target::Stderr, |writer| Target::Pipe(Box::new(writer)));
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(filter).format(move |out, record| format::write(reader, out, record)).target(target).build()
}

/// Writes to standard error, whatever the filter is, why the program ends: one line for each line of `message`.
pub(crate) fn complain(message: &str) {
    let priority = reader().priority(Level::Error);
    let text: String = message.lines().map(|line| format!("{priority}acr-cache-proxy: {line}\n")).collect();
    // If standard error is closed, there is nobody left to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
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
