//! The access token of one scope: requests read it, the background task writes it.

use std::cell::OnceCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memmem::find;
use oci::quote::{Sent, Sieve};
use tokio::sync::watch;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::state::Failing;
use super::{Granted, as_millis};
use crate::secret::SCHEME;

/// A token that was asked for because of a 401, and is younger than this, is not renewed for another 401: no other token
/// would help.
pub(super) const REPLACE_MEMORY: Duration = Duration::from_secs(30);

/// Of a token that is looked for in an answer. ACR's have more than a thousand characters; a few could be there by chance.
const MIN_LOOKED_FOR: usize = 32;

/// An access token, ready to be sent.
#[derive(Debug)]
pub(crate) struct Bearer {
    pub(super) header: HeaderValue,
    pub(super) expires: Instant,
    /// When it was asked for.
    pub(super) asked: Instant,
    /// The store's clock when it came; see [`Slot::is_idle`].
    pub(super) issued: u64,
    /// The tokens of a registry are numbered from 1.
    pub(super) number: u64,
    /// The highest number of a token of which a 401 was known when this one was asked for; 0 is none.
    pub(super) replaces: u64,
    /// It was asked for because of that 401.
    pub(super) forced: bool,
    /// It is for one repository, not for all.
    pub(super) own: bool,
    /// The registry has accepted it, or the token before it.
    pub(super) accepted: AtomicBool,
    /// It was sent because the registry had refused the token for all repositories, and the registry refused it as well.
    pub(super) rejected: AtomicBool,
    /// Made when the registry answers an error for the first time.
    pub(super) sieve: OnceLock<Sieve>,
}

impl Bearer {
    /// Of a token that is used at once, and by nobody else: for a check of the way to the registry. `None` if no header may
    /// carry it.
    pub(crate) fn of(granted: &Granted, own: bool) -> Option<Self> {
        let now = Instant::now();
        Some(Self {
            header: granted.token.to_bearer()?,
            expires: now + granted.lifetime,
            asked: now,
            issued: 0,
            number: 0,
            replaces: 0,
            forced: false,
            own,
            accepted: AtomicBool::new(false),
            rejected: AtomicBool::new(false),
            sieve: OnceLock::new(),
        })
    }

    /// The value of the `Authorization` header. Cloning it does not copy the token.
    pub(crate) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// For what is quoted of an answer.
    pub(crate) fn sent(&self) -> Sent<'_> {
        let token = self.token();
        Sent::often(token, self.sieve.get_or_init(|| Sieve::of(token)))
    }

    fn token(&self) -> &str {
        // What was made of a text is one.
        self.header.to_str().unwrap_or_default().strip_prefix(SCHEME).unwrap_or_default()
    }

    /// Whether one of an answer's headers has the whole token in it, as a server writes it that echoes a request: as it is in a value, where
    /// it needs no encoding, or in any letter case in a name. Hardly any of both is as long. Other spellings are not looked for: a server
    /// that means to give the token away has more of them than a search.
    pub(crate) fn is_in(&self, headers: &HeaderMap) -> bool {
        let token = self.token().as_bytes();
        // A search takes as long as both of them together. It is made of the token each time, because one that is kept has a copy of the
        // token, which nothing wipes.
        let has_it = |value: &HeaderValue| value.len() >= token.len() && find(value.as_bytes(), token).is_some();
        let lower = OnceCell::new();
        let is_named = |name: &HeaderName| {
            let name = name.as_str().as_bytes();
            // Names are in lower case.
            let lower = || lower.get_or_init(|| Zeroizing::new(token.to_ascii_lowercase()));
            name.len() >= token.len() && find(name, lower()).is_some()
        };
        token.len() >= MIN_LOOKED_FOR && (headers.values().any(has_it) || headers.keys().any(is_named))
    }

    /// It is for one repository, not for all.
    pub(crate) fn is_own(&self) -> bool {
        self.own
    }

    /// Where this token meets a 401, another one would meet it as well.
    pub(super) fn is_last_word(&self) -> bool {
        self.forced && self.is_fresh()
    }

    /// Younger than [`REPLACE_MEMORY`].
    pub(super) fn is_fresh(&self) -> bool {
        self.asked.elapsed() < REPLACE_MEMORY
    }
}

/// One scope's token, and why there is no new one.
pub(super) struct Slot {
    pub bearer: ArcSwapOption<Bearer>,
    /// The failing call for a new token.
    pub failing: ArcSwapOption<Failing>,
    /// The highest number of a token that met a 401; 0 is none.
    pub refused: AtomicU64,
    /// No call is made for it any more: a waiting request asks the store for the repository's slot again.
    evicted: AtomicBool,
    /// Milliseconds since the store's start: when the slot was made, when a request asked for its token last.
    created: u64,
    pub used: AtomicU64,
    pub changed: watch::Sender<()>,
}

impl Slot {
    /// `now` by the store's clock.
    pub(crate) fn new(now: u64) -> Self {
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

    pub(crate) fn good(&self, now: Instant) -> Option<Arc<Bearer>> {
        self.bearer.load_full().filter(|bearer| bearer.expires > now)
    }

    /// No request waits for this token, or asked for it in the second half of the time since it came. Without a token, the
    /// time since the slot was made counts.
    pub(crate) fn is_idle(&self, now: u64) -> bool {
        /// Calls for a first token follow each other quickly, and a client that was told to wait half a minute comes back.
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

    /// Stores a new token and wakes the waiting requests.
    pub(crate) fn granted(&self, bearer: Bearer) {
        self.bearer.store(Some(Arc::new(bearer)));
        self.failing.store(None);
        self.changed.send_replace(());
    }

    /// Stores the failure and wakes the waiting requests.
    pub(crate) fn failed(&self, failing: Failing) {
        self.failing.store(Some(Arc::new(failing)));
        self.changed.send_replace(());
    }

    /// From now on no call is made for it.
    pub(crate) fn evict(&self) {
        self.evicted.store(true, Ordering::Release);
        self.changed.send_replace(());
    }

    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::secret::Secret;

    fn bearing(token: &str) -> Bearer {
        let token = Secret::new(token.to_owned());
        let granted = Granted { token, lifetime: Duration::from_secs(60), per_repository: false };
        Bearer::of(&granted, false).expect("a header may carry it")
    }

    fn value(text: &str) -> HeaderValue {
        text.parse().expect("a value")
    }

    /// docs/security.md says the same.
    #[test]
    fn in_a_header_the_whole_token_is_found_as_it_is_and_in_no_other_spelling() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzZWNyZXQifQ.c2lnbmF0dXJl-_c";
        let bearer = bearing(token);
        let (half, rest) = token.split_at(30);
        for (name, value, expected) in [
            ("etag", token.to_owned(), true),
            ("etag", format!("\"x{token}y\""), true),
            ("link", format!("</v2/a/tags/list?t=Bearer+{token}>"), true),
            (token, "x".to_owned(), true),
            ("etag", token.to_ascii_uppercase(), false),
            ("etag", rest.to_owned(), false),
            ("etag", format!("{half} {rest}"), false),
            ("etag", token.chars().rev().collect(), false),
            ("etag", STANDARD.encode(token), false),
            ("etag", token.bytes().map(|byte| format!("{byte:02x}")).collect(), false),
            ("location", token.bytes().map(|byte| format!("%{byte:02x}")).collect(), false),
        ] {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            let headers = HeaderMap::from_iter([(name.clone(), value.parse().expect("a value"))]);
            assert_eq!(bearer.is_in(&headers), expected, "{name}: {value}");
        }
        // A few letters may be there by chance.
        assert!(!bearing("abc").is_in(&HeaderMap::from_iter([(http::header::ETAG, value("abc"))])));
    }

    /// At each byte it began to compare anew, and the only thread did nothing else for a second. So it would go on here for minutes.
    #[test]
    fn a_token_and_headers_that_agree_for_long_stopped_the_thread_that_compared_them() {
        let (same, last) = ("a".repeat(2 << 20), "B");
        let headers = HeaderMap::from_iter([(http::header::ETAG, value(&same.repeat(2)))]);
        assert!(!bearing(&[&same, last].concat()).is_in(&headers));
        let (same, longest) = ("a".repeat(30_000), "a".repeat(60_000));
        let names = (0..40).map(|number| HeaderName::try_from(format!("{longest}{number}")).expect("a name"));
        let headers: HeaderMap = names.map(|name| (name, value("x"))).collect();
        assert!(!bearing(&[&same, last].concat()).is_in(&headers));
        assert!(bearing(&[&same, "A39"].concat()).is_in(&headers));
    }
}
