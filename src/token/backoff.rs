//! The pause before a failed call is repeated.

use std::time::Duration;

use tokio::time::Instant;

use crate::failure::Failure;

/// Requests wait while a failure that may pass by itself has lasted for less than this. When a machine starts, its identity
/// endpoint answers 404, 410 or 500 for some seconds; after half a minute an engine does better with its next endpoint.
pub(crate) const WAITED_OUT: Duration = Duration::from_secs(30);

/// The first pause is at most this.
const BASE: Duration = Duration::from_millis(500);
/// The longest pause after a failure that may pass by itself.
const CEILING: Duration = Duration::from_secs(30);
/// The longest pause while requests wait for the end of the failure, so that several calls fit into a wait of 10 s. The
/// metadata service allows 20 calls a second and wants one second between two after an error.
const EARLY_CEILING: Duration = Duration::from_secs(2);
/// The longest pause after a permanent failure: somebody has to assign a role or replace a secret first.
const PERMANENT: Duration = Duration::from_secs(60);
/// A server's `Retry-After` is honoured up to here; ACR counts down from 60 s.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(300);
/// No pause is shorter, so that a failing call never becomes a busy loop.
const FLOOR: Duration = Duration::from_millis(100);

/// Exponential back-off with full jitter: a random pause up to a bound that doubles to a ceiling.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    first: Option<Instant>,
    /// Requests wait for this call: see [`EARLY_CEILING`].
    awaited: bool,
}

impl Backoff {
    /// For a call that requests wait for: the sign-in, or a first token. The renewals of a thousand tokens that are still
    /// valid give the server more time.
    pub(crate) fn awaited() -> Self {
        Self { awaited: true, ..Self::default() }
    }

    /// The call has succeeded.
    pub(crate) fn reset(&mut self) {
        (self.failures, self.first) = (0, None);
    }

    /// Nothing has failed since the last success.
    pub(crate) fn is_clear(&self) -> bool {
        self.failures == 0
    }

    /// The pause after one more failure; never shorter than what the server asked for.
    pub(crate) fn next(&mut self, failure: &Failure) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let is_early = self.first.get_or_insert_with(Instant::now).elapsed() < WAITED_OUT;
        let asked = failure.retry_after.unwrap_or_default().min(RETRY_AFTER_LIMIT);
        let bound = if failure.permanent {
            PERMANENT
        } else {
            // 2^6 half-seconds are past the ceiling; a larger exponent would only overflow.
            let ceiling = if self.awaited && is_early { EARLY_CEILING } else { CEILING };
            ceiling.min(BASE * 2u32.pow((self.failures - 1).min(6)))
        };
        let jittered = bound.mul_f64(rand::random::<f64>());
        let pause = if failure.permanent { bound / 2 + jittered / 2 } else { jittered };
        // The server's own pause is kept exactly, plus a spread so that not all clients return in one moment.
        if asked > pause { asked + FLOOR.mul_f64(rand::random::<f64>()) } else { pause.max(FLOOR) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Hop;

    fn failure(permanent: bool, retry_after: Option<u64>) -> Failure {
        let retry_after = retry_after.map(Duration::from_secs);
        Failure { permanent, retry_after, ..Failure::new(Hop::Exchange, String::new()) }
    }

    #[test]
    fn pauses_stay_within_their_bounds() {
        for (permanent, retry_after, at_least, at_most) in [
            (false, None, FLOOR, CEILING),
            (true, None, PERMANENT / 2, PERMANENT),
            (false, Some(60), Duration::from_secs(60), Duration::from_secs(61)),
            (false, Some(86_400), RETRY_AFTER_LIMIT, RETRY_AFTER_LIMIT + FLOOR),
            (false, Some(0), FLOOR, CEILING),
        ] {
            let mut backoff = Backoff::default();
            for _ in 0..200 {
                let pause = backoff.next(&failure(permanent, retry_after));
                assert!(pause >= at_least && pause <= at_most, "{permanent} {retry_after:?}: {pause:?}");
            }
        }
    }

    #[test]
    fn the_first_pause_is_short() {
        for _ in 0..200 {
            assert!(Backoff::default().next(&failure(false, None)) <= BASE);
        }
    }
}
