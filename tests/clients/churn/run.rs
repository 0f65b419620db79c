//! Many threads that work until the time is over or the first of them has failed, and what they count.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

const DAY: u64 = 24 * 60 * 60;

/// What one of them has failed at.
pub(super) struct Failure {
    /// The second of the day in UTC, by which its lines in logs are found.
    pub second: u64,
    pub cause: String,
}

/// A run.
#[derive(Default)]
pub(super) struct Run {
    is_over: AtomicBool,
    failures: Mutex<Vec<Failure>>,
    counts: Mutex<BTreeMap<String, usize>>,
    /// One instance at a time is away, as in a rolling restart.
    pub away: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run {
    pub(super) fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::SeqCst)
    }

    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    pub(super) fn count(&self, what: &str, how_often: usize) {
        *lock(&self.counts).entry(what.to_owned()).or_default() += how_often;
    }

    pub(super) fn counted(&self, what: &str) -> usize {
        lock(&self.counts).get(what).copied().unwrap_or_default()
    }

    /// The counts whose names begin so, together.
    pub(super) fn counted_all(&self, begin: &str) -> usize {
        lock(&self.counts).iter().filter(|(what, _)| what.starts_with(begin)).map(|(_, count)| count).sum()
    }

    /// A line for each count.
    pub(super) fn table(&self) -> String {
        lock(&self.counts).iter().map(|(what, count)| format!("{count:>8}  {what}\n")).collect()
    }

    /// Does it again and again while the run goes on. The first failure of anybody ends the run.
    pub(super) fn repeat(&self, name: &str, mut work: impl FnMut() -> Result<(), String>) {
        while self.goes_on() {
            let outcome = catch_unwind(AssertUnwindSafe(&mut work)).unwrap_or_else(|panic| {
                let words = panic.downcast_ref::<String>().cloned();
                Err(words.or_else(|| panic.downcast_ref::<&str>().map(|&words| words.to_owned())).unwrap_or_default())
            });
            if let Err(cause) = outcome {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970");
                self.count(&format!("failures: {name}"), 1);
                lock(&self.failures).push(Failure { second: now.as_secs() % DAY, cause: format!("{name}: {cause}") });
                self.end();
            }
        }
    }

    /// Waits, unless the run ends before.
    pub(super) fn rest(&self, time: Duration) {
        const STEP: Duration = Duration::from_millis(20);
        let end = Instant::now() + time;
        while self.goes_on() && Instant::now() < end {
            std::thread::sleep(STEP.min(end.saturating_duration_since(Instant::now())));
        }
    }

    pub(super) fn failures(&self) -> Vec<Failure> {
        std::mem::take(&mut lock(&self.failures))
    }
}
