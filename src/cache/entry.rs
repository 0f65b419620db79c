//! What is known under one key: an answer, for how long it may be used, or a mark in its place.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use oci::media_type::ManifestType;
use tokio::time::Instant;

use crate::config::Lifetimes;
use crate::label::labels;

/// What is known under a key takes this beside the key, headers and body: its place in the store, which is a vector that grows by
/// doubling, two reference-counted values, and the allocator's share in six pieces of memory. Added up from their sizes and
/// rounded up.
const OVERHEAD: usize = 512;
/// For so long an answer that is none to keep is taken to stay so.
pub(super) const PASSES: Duration = Duration::from_secs(60);
/// A header's name and value as they lie in memory, beside the value's own bytes.
const HEADER_OVERHEAD: usize = size_of::<(HeaderName, HeaderValue)>();

/// An answer of the registry as every client may have it, in the registry's names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// 200, 307, or an error.
    pub status: StatusCode,
    /// The headers that clients get, without those that are made with each answer: `Content-Length`, `Age`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The whole body.
    pub body: Bytes,
    /// The type, if this is a manifest: who does not name it gets nothing of this.
    pub manifest: Option<ManifestType>,
    /// The digest of a manifest or a blob, checked against the body where there is one.
    pub digest: Option<Box<str>>,
}

impl Content {
    /// The bytes that it takes.
    fn weight(&self) -> usize {
        let headers = self.headers.iter().map(|(_, value)| value.len() + HEADER_OVERHEAD).sum::<usize>();
        self.body.len() + headers + self.digest.as_ref().map_or(0, |digest| digest.len())
    }

    /// It is the content of a blob.
    pub(crate) fn is_blob(&self) -> bool {
        self.manifest.is_none() && self.digest.is_some()
    }

    /// The headers, with room for more.
    pub(crate) fn header_map(&self, more: usize) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(self.headers.len() + more);
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        headers
    }

    /// The value of a header, if it is there.
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

labels! {
    /// What an entry is, which decides which lifetime it has. Its name is that of the lifetime's setting, if it has one of its own.
    Kind {
        /// The manifest that a tag stands for now.
        Tag = "tags",
        /// A manifest by its digest.
        Manifest = "manifests",
        /// A 404.
        Missing = "missing",
        /// Where a blob is.
        Redirect = "redirects",
        /// A tag list or referrers.
        List = "lists",
        /// The configuration of an image.
        Configuration = "configurations",
    }
}

/// A kept answer.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Which lifetime it has.
    pub kind: Kind,
    /// The answer. A tag and its digest share one.
    pub content: Arc<Content>,
    /// When the registry was asked that last said so: it may have changed from then on, however long the answer took.
    pub confirmed: Instant,
    /// It is fresh for no longer than this, whatever the settings say.
    pub at_most: Option<Duration>,
    /// It is not used at all from then on: the end of a redirect's signature, with a margin.
    pub until: Option<Instant>,
    /// The same by the wall clock, which goes on while the machine is suspended, as the other one does not.
    pub until_wall: Option<SystemTime>,
    /// Of a 404: in trouble it is an answer, too. Else it is none then, as what was asked for may have been pushed since.
    pub stands_in: bool,
}

/// What is known under a key.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    /// An answer.
    Answer(Arc<Entry>),
    /// The blob is a configuration, which is not here yet.
    Configuration,
    /// The registry's answer is none to keep, so until then requests do not begin with a flight for it, which would cost a read more.
    Passes(Instant),
}

impl Known {
    /// The answer, if this is one.
    pub(crate) fn answer(&self) -> Option<&Arc<Entry>> {
        if let Self::Answer(entry) = self { Some(entry) } else { None }
    }

    /// The same, of what nobody else needs: it costs no count of references.
    pub(super) fn into_answer(self) -> Option<Arc<Entry>> {
        if let Self::Answer(entry) = self { Some(entry) } else { None }
    }

    /// The bytes that it takes, without its key.
    pub(super) fn weight(&self) -> usize {
        OVERHEAD + self.answer().map_or(0, |entry| entry.content.weight())
    }
}

/// How an entry may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// It is the answer.
    Fresh,
    /// It is the answer, while the registry is asked again behind it.
    Revalidate,
    /// It is an answer only in trouble.
    Stale,
    /// It is none any more.
    Ended,
}

impl Entry {
    /// What the registry has answered to a request of `asked`, for as long as the settings say.
    pub(crate) fn new(kind: Kind, content: Content, asked: Instant) -> Self {
        let content = Arc::new(content);
        Self { kind, content, confirmed: asked, at_most: None, until: None, until_wall: None, stands_in: false }
    }

    /// The same, but it is not used from `until` on.
    pub(crate) fn ending(self, until: Instant) -> Self {
        let left = until.saturating_duration_since(Instant::now());
        Self { until: Some(until), until_wall: SystemTime::now().checked_add(left), ..self }
    }

    /// How it may be used now, by the lifetimes of the route that asks.
    pub(crate) fn freshness(&self, lifetimes: &Lifetimes, now: Instant) -> Freshness {
        let is_over = self.until.is_some_and(|until| until <= now);
        // The system's clock is read for redirects alone.
        if is_over || self.until_wall.is_some_and(|until| until <= SystemTime::now()) {
            return Freshness::Ended;
        }
        let age = self.age(now);
        let lifetime = self.lifetime(lifetimes);
        if age < lifetime {
            // Azure's redirects end, in trouble too. One that is in use is replaced early, so that an outage finds it with most
            // of its time left: with the defaults ten minutes.
            let is_early = self.kind == Kind::Redirect && age >= lifetime / 2;
            return if is_early { Freshness::Revalidate } else { Freshness::Fresh };
        }
        match self.kind {
            Kind::Tag if age < lifetime.saturating_mul(2) => Freshness::Revalidate,
            // An image that is not there may have been pushed since; no answer is better than this one.
            Kind::Missing if !self.stands_in => Freshness::Ended,
            _ if age < lifetime.saturating_add(lifetimes.stale) => Freshness::Stale,
            _ => Freshness::Ended,
        }
    }

    /// It is the answer now, by the lifetimes of the route that asks.
    pub(crate) fn is_fresh(&self, lifetimes: &Lifetimes, now: Instant) -> bool {
        self.freshness(lifetimes, now) == Freshness::Fresh
    }

    /// How long it has been since the registry was asked.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.confirmed)
    }

    /// For how long it is fresh, from the time that the registry was asked.
    pub(crate) fn lifetime(&self, lifetimes: &Lifetimes) -> Duration {
        let lifetime = match self.kind {
            Kind::Tag => lifetimes.tags,
            Kind::Manifest | Kind::Configuration => lifetimes.manifests,
            Kind::Missing => lifetimes.missing,
            Kind::Redirect => lifetimes.redirects,
            Kind::List => lifetimes.lists,
        };
        self.at_most.map_or(lifetime, |at_most| lifetime.min(at_most))
    }

    /// It is an answer for those who wait alone: by these lifetimes there is no time in which it could be one for others.
    pub(crate) fn is_only_told(&self, lifetimes: &Lifetimes) -> bool {
        self.kind == Kind::Missing && lifetimes.missing.is_zero() && !self.stands_in
    }

    /// The same answer, which the registry has confirmed when it was asked at `asked`.
    pub(crate) fn confirmed_at(&self, asked: Instant, at_most: Option<Duration>) -> Self {
        Self { confirmed: asked, at_most, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const LIFETIMES: Lifetimes =
        Lifetimes { tags: HOUR, manifests: HOUR, missing: HOUR, redirects: HOUR, lists: HOUR, stale: HOUR };

    fn redirect(until: Instant) -> Entry {
        let headers = Vec::new();
        let content = Content {
            status: StatusCode::TEMPORARY_REDIRECT,
            headers,
            body: Bytes::new(),
            manifest: None,
            digest: None,
        };
        Entry::new(Kind::Redirect, content, Instant::now()).ending(until)
    }

    #[tokio::test(start_paused = true)]
    async fn a_redirect_in_use_has_ten_minutes_left_when_an_outage_begins() {
        const MINUTE: Duration = Duration::from_secs(60);
        let lifetimes = Lifetimes { redirects: 10 * MINUTE, ..LIFETIMES };
        let now = Instant::now();
        // Azure's ends after 20 minutes, and is not used in the last five.
        let redirect = redirect(now + 15 * MINUTE);
        for (minutes, freshness) in [
            (0, Freshness::Fresh),
            (4, Freshness::Fresh),
            (5, Freshness::Revalidate),
            (9, Freshness::Revalidate),
            (10, Freshness::Stale),
            (14, Freshness::Stale),
            (15, Freshness::Ended),
        ] {
            assert_eq!(redirect.freshness(&lifetimes, now + minutes * MINUTE), freshness, "{minutes} minutes");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_redirect_does_not_outlive_its_signature_where_the_machine_was_suspended() {
        let now = Instant::now();
        let redirect = redirect(now + HOUR / 2);
        assert!(redirect.is_fresh(&LIFETIMES, now));
        // After the suspension the wall clock is ahead; this one has stood still.
        let until_wall = redirect.until_wall.and_then(|until| until.checked_sub(HOUR));
        let later = Entry { until_wall, ..redirect };
        assert_eq!(later.freshness(&LIFETIMES, now), Freshness::Ended);
    }
}
