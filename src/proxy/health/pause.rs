//! The pauses that a registry has asked for: until one is over nothing of its kind is asked, because each further request would
//! be refused as well, and counted.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::answer::MAX_PAUSE;
use crate::proxy::endpoint::Endpoint;

/// After a 429 that names no time. ACR's buckets fill again every second.
const DEFAULT_PAUSE: Duration = Duration::from_secs(5);
/// A pause that follows another one within this is the same limit in the log.
pub(super) const QUIET: Duration = Duration::from_secs(60);

/// Which calls a registry counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Manifests, by tag and by digest.
    Manifest,
    /// Blobs, and where they are.
    Blob,
    /// Tag lists and referrers.
    List,
}

impl Call {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Manifest, Self::Blob, Self::List];

    /// What the registry counts a request as.
    pub(crate) fn of(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Manifest => Self::Manifest,
            Endpoint::Blob => Self::Blob,
            Endpoint::Tags | Endpoint::Referrers => Self::List,
        }
    }

    /// What is asked for, in the log and in metrics.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Manifest => "manifests",
            Self::Blob => "blobs",
            Self::List => "lists",
        }
    }
}

/// The pauses of one registry.
#[derive(Default)]
pub(super) struct Pauses {
    of_calls: Mutex<[Option<Pause>; 3]>,
}

/// A pause, which may be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    /// 429 or 503.
    pub status: StatusCode,
    pub until: Instant,
}

impl Pauses {
    /// The pause of these calls, while it lasts.
    pub(super) fn of(&self, call: Call) -> Option<Pause> {
        self.of_calls()[call as usize].filter(|pause| pause.until > Instant::now())
    }

    /// How long nothing is asked after an answer of this status with this `Retry-After`, which whoever gets the answer is told too.
    pub(super) fn wanted(status: StatusCode, retry_after: Option<Duration>) -> Option<Duration> {
        let wanted = match (status, retry_after) {
            (StatusCode::TOO_MANY_REQUESTS, wanted) => wanted.unwrap_or(DEFAULT_PAUSE),
            (StatusCode::SERVICE_UNAVAILABLE, Some(wanted)) => wanted,
            _ => return None,
        };
        Some(wanted.min(MAX_PAUSE))
    }

    /// The registry has answered such a call so, with this `Retry-After`. Returns the pause that this begins, and whether it is to be
    /// told: one that follows another within [`QUIET`] is not.
    pub(super) fn answered(
        &self,
        call: Call,
        status: StatusCode,
        retry_after: Option<Duration>,
    ) -> Option<(Duration, bool)> {
        let wanted = Self::wanted(status, retry_after).filter(|wanted| !wanted.is_zero())?;
        let now = Instant::now();
        let pause = &mut self.of_calls()[call as usize];
        let is_new = pause.is_none_or(|pause| pause.until + QUIET <= now);
        // Answers to requests that went out together differ by less than a second.
        let until = pause.map_or(now, |pause| pause.until).max(now + wanted);
        let was_over = pause.is_none_or(|pause| pause.until <= now);
        *pause = Some(Pause { status, until });
        was_over.then_some((wanted, is_new))
    }

    /// Two calls of a path that is not the hot one, and the array is never half changed.
    fn of_calls(&self) -> MutexGuard<'_, [Option<Pause>; 3]> {
        self.of_calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const LIMITED: StatusCode = StatusCode::TOO_MANY_REQUESTS;
    const BUSY: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_as_long_as_the_registry_says_within_a_bound() {
        let seconds = Duration::from_secs;
        for (status, retry_after, expected) in [
            (LIMITED, Some(17), Some(17)),
            (LIMITED, Some(86_400), Some(60)),
            (LIMITED, Some(u64::MAX), Some(60)),
            (LIMITED, None, Some(5)),
            (LIMITED, Some(0), None),
            (BUSY, Some(3), Some(3)),
            // An outage like any other.
            (BUSY, None, None),
            (StatusCode::NOT_FOUND, Some(3), None),
            (StatusCode::INTERNAL_SERVER_ERROR, Some(3), None),
        ] {
            let pauses = Pauses::default();
            let begun = pauses.answered(Call::Manifest, status, retry_after.map(seconds));
            assert_eq!(begun, expected.map(|pause| (seconds(pause), true)), "{status} {retry_after:?}");
            let pause = pauses.of(Call::Manifest);
            assert_eq!(pause.map(|pause| (pause.until - Instant::now()).as_secs()), expected, "{status}");
            assert_eq!((pauses.of(Call::Blob), pauses.of(Call::List)), (None, None));
            advance(seconds(expected.unwrap_or_default())).await;
            assert_eq!(pauses.of(Call::Manifest), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_come_late_make_a_pause_no_shorter_and_no_second_line() {
        let seconds = Duration::from_secs;
        let pauses = Pauses::default();
        assert_eq!(pauses.answered(Call::List, LIMITED, Some(seconds(10))), Some((seconds(10), true)));
        assert_eq!(pauses.answered(Call::List, LIMITED, Some(seconds(2))), None);
        advance(seconds(9)).await;
        assert!(pauses.of(Call::List).is_some());
        advance(seconds(1)).await;
        assert_eq!(pauses.of(Call::List), None);
        assert_eq!(pauses.answered(Call::List, LIMITED, Some(seconds(10))), Some((seconds(10), false)));
        advance(seconds(10) + QUIET).await;
        assert_eq!(pauses.answered(Call::List, BUSY, Some(seconds(1))), Some((seconds(1), true)));
    }
}
