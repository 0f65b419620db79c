//! When the next call for something is due.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::slot::{Failing, Slot};
use crate::failure::Failure;

/// When the next call for something is due, and how its last ones went.
#[derive(Debug)]
pub(super) struct Plan {
    pub due: Instant,
    pub backoff: Backoff,
    pub in_flight: bool,
}

impl Plan {
    /// Due at once.
    pub fn new(backoff: Backoff) -> Self {
        Self { due: Instant::now(), backoff, in_flight: false }
    }

    pub fn is_due(&self, now: Instant) -> bool {
        !self.in_flight && self.due <= now
    }

    /// Renew between half and two thirds of the lifetime: early enough to outlast a long outage, and
    /// spread, so that many hosts that started together do not call together.
    pub fn renew(&mut self, lifetime: Duration) {
        self.backoff.reset();
        self.due = Instant::now() + lifetime.mul_f64(0.5 + rand::random::<f64>() / 6.0);
    }

    /// Once more after a pause.
    pub fn repeat(&mut self, failure: &Failure) {
        self.due = Instant::now() + self.backoff.next(failure);
    }
}

/// One scope that is kept fresh.
pub(super) struct Scope {
    pub slot: Arc<Slot>,
    pub plan: Plan,
    /// The last token of which a 401 was known when its last call started.
    pub refused: u64,
    /// It has no token yet: see [`super::pending`].
    pub is_newcomer: bool,
}

impl Scope {
    /// One whose first call is due.
    pub fn new(slot: Arc<Slot>, backoff: Backoff, is_newcomer: bool) -> Self {
        Self { slot, plan: Plan::new(backoff), refused: 0, is_newcomer }
    }
}

/// The registry wants fewer token calls, of whatever scope: none is made until this ends.
#[derive(Default)]
pub(super) struct Pause {
    limited: Option<Arc<Failing>>,
    backoff: Backoff,
}

impl Pause {
    /// Its end.
    pub fn until(&self, now: Instant) -> Option<Instant> {
        self.limited.as_ref().map(|limited| limited.next).filter(|until| *until > now)
    }

    /// What requests are told meanwhile. Calls that were under way together are refused together, and are one refusal:
    /// `None` for all but the first.
    pub fn begin(&mut self, now: Instant, failure: &Arc<Failure>) -> Option<Arc<Failing>> {
        if self.until(now).is_some() {
            return None;
        }
        let until = now + self.backoff.next(failure);
        self.limited = Some(Arc::new(Failing::again(self.limited.as_deref(), failure, until)));
        self.limited.clone()
    }

    /// A call has succeeded. One that was under way before does not end the pause.
    pub fn succeeded(&mut self, now: Instant) {
        self.backoff.reset();
        if self.until(now).is_none() {
            self.limited = None;
        }
    }
}
