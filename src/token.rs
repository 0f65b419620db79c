//! The token store: a registry token is at hand before a request asks for it.
//!
//! Requests read [`Tokens`] without a lock. One background task ([`Tokens::run`]) does all the calls: it signs
//! in, asks for access tokens and renews both by clocks of their own. A token stays in use until its
//! own end, whatever fails behind it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use http::HeaderValue;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use crate::secret::Secret;

pub mod backoff;
pub mod exchange;
mod news;
mod refresh;

use refresh::Refresher;

/// How long a request waits for a token that is on its way. dockerd gives up on a registry's first
/// answer after 15 s; a wait beyond that serves nobody.
pub const WAIT_LIMIT: Duration = Duration::from_secs(10);
/// How long a request that met a 401 waits for the next token, before it reports the 401.
const REPLACE_LIMIT: Duration = Duration::from_secs(5);
/// After a forced renewal, a further 401 within this time is an answer, not a reason to renew again.
const REPLACE_MEMORY: Duration = Duration::from_secs(30);
/// Tokens of an ABAC registry, one a repository. A host pulls from tens; 1,024 tokens are about 2 MiB.
const MAX_SCOPES: usize = 1024;
/// The scope that covers every repository, where the registry honours it.
const ALL: &str = "*";

/// Where on the way to a token something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Entra ID or the machine's identity endpoint.
    Identity,
    /// `POST /oauth2/exchange`: an Entra token for the registry's refresh token.
    Exchange,
    /// `POST /oauth2/token`: the refresh token for an access token.
    Token,
}

/// Why there is no token. Prints as one sentence: hop, what to do, cause.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The call that failed.
    pub hop: Hop,
    /// The whole sentence, hop first.
    pub message: String,
    /// Will not mend by itself: a wrong secret, a missing role. Such a call is repeated slowly.
    pub permanent: bool,
    /// The server asked for this pause.
    pub retry_after: Option<Duration>,
    /// The server refused the refresh token itself: a new sign-in may help.
    pub signed_out: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A token as the registry gave it.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The token itself.
    pub token: Secret,
    /// How long it holds, counted from the request for it and measured on the registry's own clock.
    pub lifetime: Duration,
    /// The registry gives no token for all repositories (it is in ABAC mode).
    pub per_repository: bool,
}

/// The two calls to the registry; the tests put their own in place.
#[async_trait]
pub trait Issuer: Send + Sync {
    /// Signs in: the registry's refresh token.
    async fn login(&self) -> Result<Granted, Failure>;
    /// An access token for `scope`, as `repository:<name>:pull`.
    async fn access(&self, login: &Secret, scope: &str) -> Result<Granted, Failure>;
}

/// An access token, ready to be sent.
#[derive(Debug)]
pub struct Bearer {
    header: HeaderValue,
    expires: Instant,
    /// The store's clock when it came; see [`Slot::idle`].
    issued: u64,
    number: u64,
}

impl Bearer {
    /// The value of the `Authorization` header; a clone of it copies no token.
    pub fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

/// The state of a registry's tokens.
#[derive(Debug)]
pub struct Readiness {
    /// A good token is at hand; in ABAC mode, a good sign-in, for there is no token before a repository is asked for.
    pub ready: bool,
    /// What fails, even if the last good token still holds.
    pub failure: Option<Arc<Failure>>,
    /// Since when it fails, by this host's clock.
    pub since: Option<SystemTime>,
}

/// No token within the time a request may wait.
#[derive(Debug)]
pub struct Unavailable {
    /// What failed last; `None` if the first try is still under way.
    pub failure: Option<Arc<Failure>>,
    /// When asking again makes sense.
    pub retry_after: Duration,
}

/// The access token of one scope.
struct Slot {
    bearer: ArcSwapOption<Bearer>,
    failure: ArcSwapOption<Failure>,
    /// A call is under way or about to start.
    trying: AtomicBool,
    /// A request met a 401 with the current token.
    rejected: AtomicBool,
    /// Milliseconds since the store's start: last use, last forced renewal (0: never).
    used: AtomicU64,
    replaced: AtomicU64,
    changed: watch::Sender<()>,
}

impl Slot {
    fn new() -> Self {
        Self {
            bearer: ArcSwapOption::empty(),
            failure: ArcSwapOption::empty(),
            trying: AtomicBool::new(true),
            rejected: AtomicBool::new(false),
            used: AtomicU64::new(0),
            replaced: AtomicU64::new(0),
            changed: watch::Sender::new(()),
        }
    }

    fn good(&self) -> Option<Arc<Bearer>> {
        self.bearer.load_full().filter(|bearer| bearer.expires > Instant::now())
    }

    /// No call for it has ended yet.
    fn is_first_try(&self) -> bool {
        self.bearer.load().is_none() && self.failure.load().is_none()
    }

    /// Nobody asked for this token in the second half of the time since it came.
    fn idle(&self, now: u64) -> bool {
        let used = self.used.load(Ordering::Relaxed);
        let issued = self.bearer.load().as_ref().map(|bearer| bearer.issued);
        issued.is_some_and(|issued| now.saturating_sub(used) > now.saturating_sub(issued) / 2)
    }

    fn failed(&self, failure: Arc<Failure>) {
        self.failure.store(Some(failure));
        self.trying.store(false, Ordering::Release);
        self.changed.send_replace(());
    }
}

/// The tokens of one registry. Cheap to share; reading takes no lock that a renewal holds.
pub struct Tokens {
    start: Instant,
    all: Arc<Slot>,
    per_repository: AtomicBool,
    repositories: ArcSwap<HashMap<Arc<str>, Arc<Slot>>>,
    login_failure: ArcSwapOption<Failure>,
    /// When the refresh token ends.
    login_until: ArcSwapOption<Instant>,
    /// The last failure of the calls that everything hangs on, with the time of the first of its row; for [`Readiness`].
    trouble: ArcSwapOption<(Arc<Failure>, SystemTime)>,
    login_trying: AtomicBool,
    /// Rung when a call for one of the repositories is done: a full table may have a place.
    room: watch::Sender<()>,
    wake: Notify,
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            all: Arc::new(Slot::new()),
            per_repository: AtomicBool::new(false),
            repositories: ArcSwap::default(),
            login_failure: ArcSwapOption::empty(),
            login_until: ArcSwapOption::empty(),
            trouble: ArcSwapOption::empty(),
            login_trying: AtomicBool::new(true),
            room: watch::Sender::new(()),
            wake: Notify::new(),
        }
    }
}

impl Tokens {
    /// A token that can pull `repository` (its name in the registry). At once if there is one, else
    /// after the call that is under way, [`WAIT_LIMIT`] at most. While the calls fail and pause, the answer is an
    /// immediate [`Unavailable`]: the client can turn elsewhere.
    pub async fn bearer(&self, repository: &str) -> Result<Arc<Bearer>, Unavailable> {
        match self.at_hand(repository) {
            Some(bearer) => Ok(bearer),
            None => self.awaited(repository).await,
        }
    }

    /// The token that is there: the way of almost every request. It takes no lock and allocates nothing.
    fn at_hand(&self, repository: &str) -> Option<Arc<Bearer>> {
        let repositories;
        let slot = if self.per_repository.load(Ordering::Acquire) {
            repositories = self.repositories.load();
            repositories.get(repository)?
        } else {
            &self.all
        };
        slot.used.store(self.clock(), Ordering::Relaxed);
        slot.good()
    }

    async fn awaited(&self, repository: &str) -> Result<Arc<Bearer>, Unavailable> {
        let deadline = Instant::now() + WAIT_LIMIT;
        loop {
            let mut room = self.room.subscribe();
            let Some(slot) = self.slot(repository) else {
                if timeout_at(deadline, room.changed()).await.is_err() {
                    return Err(Unavailable::after(None));
                }
                continue;
            };
            let mut changed = slot.changed.subscribe();
            slot.used.store(self.clock(), Ordering::Relaxed);
            if let Some(bearer) = slot.good() {
                return Ok(bearer);
            }
            // Without a sign-in no slot makes progress, so its failure speaks first.
            let login_failure = self.login_failure.load_full();
            let (failure, trying) = match &login_failure {
                Some(_) => (login_failure, self.login_trying.load(Ordering::Acquire)),
                None => (slot.failure.load_full(), slot.trying.load(Ordering::Acquire)),
            };
            let gave_up = failure.is_some() && !trying;
            if gave_up || timeout_at(deadline, changed.changed()).await.is_err() {
                return Err(Unavailable::after(failure));
            }
            // Asked of the slot in hand: it may have lost its place since.
            if let Some(bearer) = slot.good() {
                return Ok(bearer);
            }
        }
    }

    /// A newer token than `seen`, which the registry answered with 401. A thousand requests that meet
    /// the same 401 cause one renewal. `None` if there is none in time, or if the last forced renewal is
    /// so recent that the 401 must mean something else.
    pub async fn replace(&self, repository: &str, seen: &Bearer) -> Option<Arc<Bearer>> {
        let deadline = Instant::now() + REPLACE_LIMIT;
        let slot = self.slot(repository)?;
        let newer = || slot.good().filter(|bearer| bearer.number > seen.number);
        if let Some(bearer) = newer() {
            return Some(bearer);
        }
        let replaced = slot.replaced.load(Ordering::Acquire);
        let now = self.clock();
        let waits = slot.rejected.load(Ordering::Acquire) || slot.trying.load(Ordering::Acquire);
        if !waits {
            let recent = replaced != 0 && now.saturating_sub(replaced) < as_millis(REPLACE_MEMORY);
            // Of all who get here at once, one wins the exchange and forces the renewal; the rest wait for it.
            if recent {
                return None;
            }
            if slot.replaced.compare_exchange(replaced, now.max(1), Ordering::AcqRel, Ordering::Acquire).is_ok() {
                slot.rejected.store(true, Ordering::Release);
                self.wake.notify_one();
            }
        }
        let mut changed = slot.changed.subscribe();
        loop {
            if let Some(bearer) = newer() {
                return Some(bearer);
            }
            timeout_at(deadline, changed.changed()).await.ok()?.ok()?;
        }
    }

    /// Whether pulls can be served now, and what goes wrong behind them.
    pub fn readiness(&self) -> Readiness {
        let now = Instant::now();
        let ready = if self.per_repository.load(Ordering::Acquire) {
            self.login_until.load().as_ref().is_some_and(|until| **until > now)
        } else {
            self.all.good().is_some()
        };
        let trouble = self.trouble.load_full();
        let (failure, since) = trouble.map(|trouble| (Arc::clone(&trouble.0), trouble.1)).unzip();
        Readiness { ready, failure, since }
    }

    fn in_trouble(&self, failure: &Arc<Failure>) {
        let since = self.trouble.load().as_ref().map_or_else(SystemTime::now, |trouble| trouble.1);
        self.trouble.store(Some(Arc::new((Arc::clone(failure), since))));
    }

    /// Why the last call for a token of `repository` failed, if it did: the token in use is then an old one.
    pub fn stale(&self, repository: &str) -> Option<Unavailable> {
        let failure = self.login_failure.load_full().or_else(|| self.slot(repository)?.failure.load_full());
        failure.map(|failure| Unavailable::after(Some(failure)))
    }

    fn clock(&self) -> u64 {
        as_millis(self.start.elapsed())
    }

    /// The slot that serves a repository. `None` if the table is full of calls under way.
    fn slot(&self, repository: &str) -> Option<Arc<Slot>> {
        if !self.per_repository.load(Ordering::Acquire) {
            return Some(Arc::clone(&self.all));
        }
        if let Some(slot) = self.repositories.load().get(repository) {
            return Some(Arc::clone(slot));
        }
        let new = Arc::new(Slot::new());
        new.used.store(self.clock(), Ordering::Relaxed);
        let name: Arc<str> = repository.into();
        self.repositories.rcu(|slots| {
            let mut slots = HashMap::clone(slots);
            if slots.len() >= MAX_SCOPES && !slots.contains_key(&name) {
                // Whoever waits for a first token keeps its place.
                let settled = slots.iter().filter(|(_, slot)| !slot.is_first_try());
                let oldest = settled.min_by_key(|(_, slot)| slot.used.load(Ordering::Relaxed));
                match oldest.map(|(name, _)| Arc::clone(name)) {
                    Some(oldest) => slots.remove(&oldest),
                    None => return slots,
                };
            }
            slots.entry(Arc::clone(&name)).or_insert_with(|| Arc::clone(&new));
            slots
        });
        self.wake.notify_one();
        // Another request may have put its slot in first; that one counts.
        self.repositories.load().get(repository).map(Arc::clone)
    }

    fn let_go(&self, repository: &str) {
        self.repositories.rcu(|slots| {
            let mut slots = HashMap::clone(slots);
            slots.remove(repository);
            slots
        });
    }

    /// Keeps the store full, for ever: the only caller of the issuer.
    pub async fn run(&self, issuer: Arc<dyn Issuer>) {
        Refresher::new(self, issuer).run().await;
    }
}

impl Unavailable {
    fn after(failure: Option<Arc<Failure>>) -> Self {
        /// Tries follow each other quickly at first; a second is the smallest pause that the header can say.
        const SOON: Duration = Duration::from_secs(1);
        /// A permanent failure takes a person to mend.
        const LATER: Duration = Duration::from_secs(30);
        let retry_after = match failure.as_deref() {
            Some(failure) if failure.permanent => LATER,
            Some(failure) => failure.retry_after.unwrap_or(SOON).clamp(SOON, LATER),
            None => SOON,
        };
        Self { failure, retry_after }
    }
}

fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
