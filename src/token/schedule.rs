//! When the next call for a token is due.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::slot::Slot;
use crate::failure::Failure;

/// When the next call for a token is due, and how the last ones went.
#[derive(Debug)]
pub(super) struct Schedule {
    pub due: Instant,
    pub backoff: Backoff,
    pub in_flight: bool,
}

impl Schedule {
    /// Due at once.
    pub(crate) fn new(backoff: Backoff) -> Self {
        Self { due: Instant::now(), backoff, in_flight: false }
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        !self.in_flight && self.due <= now
    }

    /// The call has succeeded. It is due again between half and two thirds of the token's lifetime: early enough to
    /// outlast a long outage, and spread, so that hosts that started together do not call together.
    pub(crate) fn renew(&mut self, lifetime: Duration) {
        self.backoff.reset();
        self.due = Instant::now() + lifetime.mul_f64(0.5 + rand::random::<f64>() / 6.0);
    }

    /// The call has failed. It is due again after a pause.
    pub(crate) fn repeat(&mut self, failure: &Failure) {
        self.due = Instant::now() + self.backoff.next(failure);
    }
}

/// One scope whose token is renewed.
pub(super) struct Scope {
    pub slot: Arc<Slot>,
    pub schedule: Schedule,
    /// The last token of which a 401 was known when its last call started.
    pub refused: u64,
    /// It has had no token yet: see [`super::pending`].
    pub is_pending: bool,
}

impl Scope {
    /// One whose first call is due.
    pub(crate) fn new(slot: Arc<Slot>, backoff: Backoff, is_pending: bool) -> Self {
        Self { slot, schedule: Schedule::new(backoff), refused: 0, is_pending }
    }
}
