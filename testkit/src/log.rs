//! The log of a running proxy.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::PATIENCE;

#[derive(Default)]
pub(crate) struct Log {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    text: String,
    ended: bool,
}

impl Log {
    /// Reads lines in a thread until the end of the stream.
    pub(crate) fn read(stream: impl Read + Send + 'static) -> Arc<Self> {
        let log = Arc::new(Self::default());
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let mut state = writer.lock();
                state.text.push_str(&line);
                state.text.push('\n');
                writer.changed.notify_all();
            }
            writer.lock().ended = true;
            writer.changed.notify_all();
        });
        log
    }

    /// A poisoned lock is used all the same, so that a failed test still shows the log.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything so far.
    pub(crate) fn text(&self) -> String {
        self.lock().text.clone()
    }

    /// Waits until `look` returns `Some` for the log so far; the panic names `what` if it never does.
    pub(crate) fn wait_until<T>(&self, what: &str, look: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&state.text) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!state.ended && !left.is_zero(), "no {what:?} in the log:\n{}", state.text);
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The whole log, after the process has ended.
    pub(crate) fn wait_for_end(&self) -> String {
        let waited = self.changed.wait_timeout_while(self.lock(), PATIENCE, |state| !state.ended);
        let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "the log has no end:\n{}", state.text);
        state.text.clone()
    }
}
