//! Since when the budget holds requests back, and when that is over: two lines in the log, however many requests.

use std::fmt::{self, Display, Formatter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Lasted;

/// So long without a wait, and it is over: a budget that is short is short in some seconds of each minute.
const QUIET: Duration = Duration::from_secs(60);

/// Whether requests are held back.
#[derive(Default)]
pub(super) struct HeldBack {
    /// While none waits, nothing else is looked at.
    is_active: AtomicBool,
    times: Mutex<Option<Times>>,
}

/// One time of waits.
struct Times {
    since: Instant,
    last: Instant,
    requests: u64,
}

/// A time of waits that is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Over {
    requests: u64,
    lasted: Duration,
}

impl HeldBack {
    /// A request waits for its turn, or is refused because that would take too long. True for the first one.
    pub(super) fn one(&self) -> bool {
        let now = Instant::now();
        let mut times = self.times();
        let is_first = times.is_none();
        let times = times.get_or_insert(Times { since: now, last: now, requests: 0 });
        times.last = now;
        times.requests += 1;
        self.is_active.store(true, Ordering::Release);
        is_first
    }

    /// What is over by now, once. Whether anybody asks makes no difference.
    pub(super) fn over(&self) -> Option<Over> {
        if !self.is_active() {
            return None;
        }
        let mut times = self.times();
        let over = times.take_if(|times| times.last.elapsed() >= QUIET)?;
        self.is_active.store(false, Ordering::Release);
        Some(Over { requests: over.requests, lasted: over.last - over.since })
    }

    /// Some time of waits is not over, as far as anybody has looked.
    pub(super) fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Acquire)
    }

    /// A time cannot be half changed.
    fn times(&self) -> MutexGuard<'_, Option<Times>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Display for Over {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.requests {
            1 => f.write_str("1 request waited or was refused"),
            requests => write!(f, "{requests} requests waited or were refused, over {}", Lasted(self.lasted)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_waits_are_one_time_that_ends_when_none_has_waited_for_a_minute() {
        let held = HeldBack::default();
        assert_eq!(held.over(), None);
        assert!(held.one());
        for _ in 0..3 {
            advance(QUIET - Duration::from_secs(1)).await;
            assert_eq!(held.over(), None);
            assert!(!held.one());
        }
        advance(QUIET).await;
        let over = held.over().expect("over");
        assert_eq!(over, Over { requests: 4, lasted: 3 * (QUIET - Duration::from_secs(1)) });
        assert_eq!(over.to_string(), "4 requests waited or were refused, over 2 min 57 s");
        assert_eq!(held.over(), None);
        assert!(held.one());
        advance(QUIET).await;
        assert_eq!(held.over().expect("over").to_string(), "1 request waited or was refused");
    }
}
