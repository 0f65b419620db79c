//! How many calls a minute a registry answers, and the 429 for the rest.
//!
//! Source: MicrosoftDocs `container-registry-skus`: calls a minute by kind, reads and referrers counted for each identity,
//! the calls for tokens for the registry; a `Retry-After` in seconds that counts down, 60 at most. That all calls of a kind
//! are given back together, at the end of a minute that begins with the first of them, is inferred from that.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;

/// Limits of a registry; `None` is without a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Reads of manifests, blobs, tag lists and the catalogue, for each identity. `HEAD` is one, and so is a 304.
    pub reads: Option<u32>,
    /// Reads of referrers, for each identity.
    pub referrers: Option<u32>,
    /// Calls of `/oauth2/exchange` and `/oauth2/token`, for the registry.
    pub tokens: Option<u32>,
    /// The time that they are for: a minute in Azure, less where a test compresses time.
    pub per: Duration,
}

impl RateLimits {
    /// No limits.
    pub const NONE: RateLimits =
        RateLimits { reads: None, referrers: None, tokens: None, per: Duration::from_secs(60) };
    /// The limits of Basic and Standard.
    pub const BASIC: RateLimits =
        RateLimits { reads: Some(5_000), referrers: Some(250), tokens: Some(10_000), ..RateLimits::NONE };
    /// The limits of Premium.
    pub const PREMIUM: RateLimits =
        RateLimits { reads: Some(10_000), referrers: Some(1_000), tokens: Some(20_000), ..RateLimits::NONE };

    fn of(&self, kind: Kind) -> Option<u32> {
        match kind {
            Kind::Read => self.reads,
            Kind::Referrers => self.referrers,
            Kind::Token => self.tokens,
        }
    }
}

impl Default for RateLimits {
    fn default() -> RateLimits {
        RateLimits::NONE
    }
}

/// What is counted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Read,
    Referrers,
    Token,
}

/// Calls of one kind and identity since the first of them.
struct Window {
    begun: Instant,
    calls: u32,
}

/// Counts calls.
#[derive(Default)]
pub(crate) struct Meter {
    windows: Mutex<HashMap<(Kind, String), Window>>,
}

impl Meter {
    /// Counts a call; `Some` is how long to wait when the limit is reached.
    pub(crate) fn refuse(&self, limits: &RateLimits, kind: Kind, identity: &str) -> Option<Duration> {
        self.refuse_at(Instant::now(), limits, kind, identity)
    }

    fn refuse_at(&self, now: Instant, limits: &RateLimits, kind: Kind, identity: &str) -> Option<Duration> {
        let limit = limits.of(kind)?;
        let mut windows = lock(&self.windows);
        let window = windows.entry((kind, identity.to_owned())).or_insert(Window { begun: now, calls: 0 });
        if now.duration_since(window.begun) >= limits.per {
            *window = Window { begun: now, calls: 0 };
        }
        if window.calls < limit {
            window.calls += 1;
            return None;
        }
        Some(limits.per - now.duration_since(window.begun))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Kind, Meter, RateLimits};

    #[test]
    fn a_limit_holds_for_its_kind_and_identity_and_counts_down_to_the_end_of_its_minute() {
        let limits = RateLimits { reads: Some(2), referrers: Some(1), ..RateLimits::NONE };
        let meter = Meter::default();
        let begin = Instant::now();
        for (second, kind, identity, left) in [
            (0, Kind::Read, "a", None),
            (10, Kind::Read, "a", None),
            (20, Kind::Read, "a", Some(40)),
            (20, Kind::Read, "b", None),
            (20, Kind::Referrers, "a", None),
            (20, Kind::Token, "a", None),
            (59, Kind::Read, "a", Some(1)),
            (59, Kind::Referrers, "a", Some(21)),
            (60, Kind::Read, "a", None),
        ] {
            let at = begin + Duration::from_secs(second);
            let left = left.map(Duration::from_secs);
            assert_eq!(meter.refuse_at(at, &limits, kind, identity), left, "{second} {kind:?} {identity}");
        }
    }
}
