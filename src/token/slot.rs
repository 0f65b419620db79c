//! The access token of one scope: what requests read and the background task writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Failure, as_millis};

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
}

impl Bearer {
    /// The value of the `Authorization` header; a clone of it copies no token.
    pub fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// No other token would fare better where this one meets a 401.
    pub(super) fn is_last_word(&self) -> bool {
        self.forced && self.asked.elapsed() < REPLACE_MEMORY
    }
}

/// The state of one scope.
pub(super) struct Slot {
    pub bearer: ArcSwapOption<Bearer>,
    pub failure: ArcSwapOption<Failure>,
    /// A call is under way or about to start.
    pub trying: AtomicBool,
    /// The highest number of a token that met a 401; 0 is none.
    pub refused: AtomicU64,
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
            failure: ArcSwapOption::empty(),
            trying: AtomicBool::new(true),
            refused: AtomicU64::new(0),
            created: now,
            used: AtomicU64::new(now),
            changed: watch::Sender::new(()),
        }
    }

    pub fn good(&self, now: Instant) -> Option<Arc<Bearer>> {
        self.bearer.load_full().filter(|bearer| bearer.expires > now)
    }

    /// No call for it has ended yet.
    pub fn is_first_try(&self) -> bool {
        self.bearer.load().is_none() && self.failure.load().is_none()
    }

    /// Nobody asked for this token in the second half of the time since it came; or for one that never came in the second
    /// half of the time since the first asked.
    pub fn is_idle(&self, now: u64) -> bool {
        /// The tries for a first token follow each other quickly, and a client that was told to wait is still there: it
        /// waits half a minute at most.
        const NEVER_CAME: Duration = Duration::from_secs(60);
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
        self.failure.store(None);
        self.trying.store(false, Ordering::Release);
        self.changed.send_replace(());
    }

    /// None for now, for all who wait.
    pub fn failed(&self, failure: Arc<Failure>) {
        self.failure.store(Some(failure));
        self.trying.store(false, Ordering::Release);
        self.changed.send_replace(());
    }
}
