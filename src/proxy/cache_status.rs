//! `Cache-Status`: what the cache did for an answer (RFC 9211).

use std::fmt::{self, Display, Formatter};

use http::{HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::cache::{Entry, Fetched, How, Reason};
use crate::config::Lifetimes;
use crate::proxy::fail::Trouble;

/// The header's name.
pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What is said of one answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CacheStatus {
    how: Option<How>,
    /// It is kept from now on.
    is_stored: bool,
    /// Seconds since the registry said so; only of what is kept.
    age: Option<u64>,
    /// Seconds that it stays fresh; below zero, since when it is stale.
    ttl: Option<i64>,
    /// What the registry answered instead, where something stale is the answer.
    forwarded: Option<u16>,
    /// Why it gave no answer, in a word.
    detail: Option<&'static str>,
}

impl CacheStatus {
    /// Of an entry.
    pub(crate) fn of_entry(entry: &Entry, lifetimes: &Lifetimes, how: How, now: Instant) -> Self {
        let age = entry.age(now).as_secs();
        let left = signed(entry.lifetime(lifetimes).as_secs()) - signed(age);
        // Of what is stale by less than a second, 0 would say that it is not yet.
        let is_over = left == 0 && matches!(how, How::Revalidate | How::Stale);
        let left = if is_over { -1 } else { left };
        // What ends by itself may do so before its lifetime is over.
        let ends = entry.until.map(|until| signed(until.saturating_duration_since(now).as_secs()));
        let ttl = Some(ends.map_or(left, |ends| ends.min(left)));
        // A 404 that is good for no time is not kept at all; anything else is, for trouble.
        let is_stored = !entry.is_only_told(lifetimes);
        Self { how: Some(how), is_stored, age: Some(age), ttl, ..Self::default() }
    }

    /// Of an answer that is not kept.
    pub(crate) fn of_answer(how: How) -> Self {
        Self { how: Some(how), ..Self::default() }
    }

    /// The same, with what the registry answered instead, or why it did not.
    pub(crate) fn because(self, fetched: Option<&Fetched<Trouble>>) -> Self {
        let (forwarded, detail) = match fetched {
            Some(Fetched::Answer { content, .. }) => (Some(content.status.as_u16()), None),
            Some(Fetched::Failed { trouble: Trouble::Unauthorized(_), .. }) => (Some(401), None),
            Some(Fetched::Failed { trouble, .. }) => (None, Some(trouble.word())),
            // Nobody has waited for the end of it.
            None if self.how == Some(How::Stale) => (None, Some("slow")),
            _ => (None, None),
        };
        Self { forwarded, detail, ..self }
    }

    /// Seconds since the registry said so, for `Age`.
    pub(crate) fn age(&self) -> Option<u64> {
        self.age
    }
}

impl Display for CacheStatus {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("acr-cache-proxy")?;
        match self.how {
            Some(How::Hit | How::Revalidate) => f.write_str("; hit")?,
            Some(How::Miss) => f.write_str("; fwd=miss")?,
            Some(How::Collapsed) => f.write_str("; fwd=miss; collapsed")?,
            Some(How::Refresh | How::Stale) => f.write_str("; fwd=stale")?,
            None => {}
        }
        // Tells the fresh answer in place of a stale one from the stale one itself.
        if self.is_stored && matches!(self.how, Some(How::Miss | How::Refresh)) {
            f.write_str("; stored")?;
        }
        if let Some(status) = self.forwarded {
            write!(f, "; fwd-status={status}")?;
        }
        if let Some(ttl) = self.ttl {
            write!(f, "; ttl={ttl}")?;
        }
        if let Some(detail) = self.detail {
            write!(f, "; detail={detail}")?;
        }
        Ok(())
    }
}

/// The value for a request that goes to the registry by itself.
pub(crate) fn passed(reason: Reason) -> HeaderValue {
    HeaderValue::from_static(match reason {
        Reason::Kind => "acr-cache-proxy; fwd=bypass; detail=kind",
        Reason::Accept => "acr-cache-proxy; fwd=bypass; detail=accept",
        Reason::Full => "acr-cache-proxy; fwd=bypass; detail=full",
        Reason::Answer => "acr-cache-proxy; fwd=bypass; detail=answer",
        Reason::Fault => "acr-cache-proxy; fwd=bypass; detail=fault",
    })
}

/// No lifetime and no age of a process comes near the end of its range.
fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
