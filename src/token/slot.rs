//! The access token of one scope: what requests read and the background task writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use tokio::sync::watch;
use tokio::time::Instant;

use super::as_millis;
use super::backoff::WAITED_OUT;
use crate::failure::Failure;

/// A 401 to a token that is itself the answer to one, and younger than this, is an answer and no reason to renew again.
pub(super) const REPLACE_MEMORY: Duration = Duration::from_secs(30);

/// An access token, ready to be sent.
#[derive(Debug)]
pub struct Bearer {
    pub(super) header: HeaderValue,
    pub(super) expires: Instant,
    /// When it was asked for.
    pub(super) asked: Instant,
    /// The store's clock when it came; see [`Slot::is_idle`].
    pub(super) issued: u64,
    /// Tokens of a store are counted from 1.
    pub(super) number: u64,
    /// The last token of which a 401 was known when this one was asked for; 0 is none.
    pub(super) replaces: u64,
    /// It was asked for because of that 401.
    pub(super) forced: bool,
    /// It is for one repository, not for all of them.
    pub(super) own: bool,
    /// The registry has served something for it, or for the one that it renews.
    pub(super) accepted: AtomicBool,
    /// The registry answered it with 401 where it was sent because one for all repositories had been refused.
    pub(super) in_vain: AtomicBool,
}

impl Bearer {
    /// The value of the `Authorization` header; a clone of it copies no token.
    pub fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// It is for one repository, not for all of them.
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// No other token would fare better where this one meets a 401.
    pub(super) fn is_last_word(&self) -> bool {
        self.forced && self.is_fresh()
    }

    /// Younger than [`REPLACE_MEMORY`].
    pub(super) fn is_fresh(&self) -> bool {
        self.asked.elapsed() < REPLACE_MEMORY
    }
}

/// A call that fails: what it said last, since when it fails, and when it is repeated.
#[derive(Debug)]
pub(super) struct Failing {
    pub failure: Arc<Failure>,
    pub since: Instant,
    /// The same by this host's clock, for people.
    pub since_time: SystemTime,
    pub next: Instant,
}

impl Failing {
    /// One more failure in a row, of which `earlier` was the last one.
    pub fn again(earlier: Option<&Self>, failure: &Arc<Failure>, next: Instant) -> Self {
        let (since, since_time) =
            earlier.map_or_else(|| (Instant::now(), SystemTime::now()), |earlier| (earlier.since, earlier.since_time));
        Self { failure: Arc::clone(failure), since, since_time, next }
    }

    /// Whether a request that can wait until `deadline` waits for the next call: what may pass by itself, as when a
    /// machine starts, is waited out; what somebody has to mend, or what has lasted, is answered at once.
    pub fn is_worth_a_wait(&self, deadline: Instant) -> bool {
        !self.failure.permanent && self.since.elapsed() < WAITED_OUT && self.next < deadline
    }
}

/// The state of one scope.
pub(super) struct Slot {
    pub bearer: ArcSwapOption<Bearer>,
    /// Why there is no new token.
    pub failing: ArcSwapOption<Failing>,
    /// The highest number of a token that met a 401; 0 is none.
    pub refused: AtomicU64,
    /// No call is made for it any more: whoever waits asks the store for the repository's slot again.
    evicted: AtomicBool,
    /// Milliseconds since the store's start: when it was made, when it was asked for last.
    created: u64,
    pub used: AtomicU64,
    pub changed: watch::Sender<()>,
}

impl Slot {
    /// `now` by the store's clock.
    pub fn new(now: u64) -> Self {
        Self {
            bearer: ArcSwapOption::empty(),
            failing: ArcSwapOption::empty(),
            refused: AtomicU64::new(0),
            evicted: AtomicBool::new(false),
            created: now,
            used: AtomicU64::new(now),
            changed: watch::Sender::new(()),
        }
    }

    pub fn good(&self, now: Instant) -> Option<Arc<Bearer>> {
        self.bearer.load_full().filter(|bearer| bearer.expires > now)
    }

    /// Nobody waits for news of this token or asked for it in the second half of the time since it came; or for one that
    /// never came in the second half of the time since the first asked.
    pub fn is_idle(&self, now: u64) -> bool {
        /// The tries for a first token follow each other quickly, and a client that was told to wait is still there: it
        /// waits half a minute at most.
        const NEVER_CAME: Duration = Duration::from_secs(60);
        if self.changed.receiver_count() > 0 {
            return false;
        }
        let unused = now.saturating_sub(self.used.load(Ordering::Relaxed));
        let (since, at_least) = match self.bearer.load().as_ref() {
            Some(bearer) => (bearer.issued, 0),
            None => (self.created, as_millis(NEVER_CAME)),
        };
        unused > at_least.max(now.saturating_sub(since) / 2)
    }

    /// A new token, for all who wait.
    pub fn granted(&self, bearer: Bearer) {
        self.bearer.store(Some(Arc::new(bearer)));
        self.failing.store(None);
        self.changed.send_replace(());
    }

    /// None for now, for all who wait.
    pub fn failed(&self, failing: Failing) {
        self.failing.store(Some(Arc::new(failing)));
        self.changed.send_replace(());
    }

    /// No call is made for it from now on.
    pub fn evict(&self) {
        self.evicted.store(true, Ordering::Release);
        self.changed.send_replace(());
    }

    pub fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Acquire)
    }
}
