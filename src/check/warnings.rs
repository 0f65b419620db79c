//! What is logged as a warning while the configuration is read, for the report: the proxy warns of the same at its start.

use std::sync::{Mutex, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

static HEARD: Mutex<Option<Vec<String>>> = Mutex::new(None);
static LISTENER: Listener = Listener;

struct Listener;

impl Log for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn && metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
    }

    fn log(&self, record: &Record<'_>) {
        let mut heard = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(heard) = heard.as_mut().filter(|_| self.enabled(record.metadata())) {
            heard.push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// What `work` returns, and what it has warned of. Later warnings are nobody's: a hop that fails says so itself.
pub(super) fn during<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    // This command has no other logger.
    let _ = log::set_logger(&LISTENER);
    log::set_max_level(LevelFilter::Warn);
    *HEARD.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
    let result = work();
    let heard = HEARD.lock().unwrap_or_else(PoisonError::into_inner).take();
    (result, heard.unwrap_or_default())
}
