//! The token store: a registry token is at hand before a request asks for it.
//!
//! Requests read [`Tokens`] without a lock. One background task ([`Tokens::run`]) does all the calls: it signs
//! in, asks for access tokens and renews both by clocks of their own. A token stays in use until its
//! own end, whatever fails behind it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use http::HeaderValue;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use crate::config::DEFAULT_TOKEN_WAIT;
use crate::secret::Secret;

pub mod backoff;
pub mod exchange;
mod news;
mod refresh;
mod slot;

use refresh::Refresher;
use slot::Slot;

pub use slot::Bearer;

/// How long a request that met a 401 waits for the next token: less than for a first one, for it has been on its way.
const REPLACE_LIMIT: Duration = Duration::from_secs(5);
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
    /// The server refused the token that the call was made with: a new sign-in may help.
    pub token_refused: bool,
    /// The server wants fewer calls of this kind, whatever they are for: a 429, or a pause that it names.
    pub limited: bool,
    /// The registry's name for the call (`X-Ms-Correlation-Request-Id`), if it had an answer.
    pub correlation: Option<HeaderValue>,
}

impl Failure {
    /// One that may pass by itself, soon.
    pub fn new(hop: Hop, message: String) -> Self {
        Self {
            hop,
            message,
            permanent: false,
            retry_after: None,
            token_refused: false,
            limited: false,
            correlation: None,
        }
    }
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

/// What fails now, and the time of the first failure of its row.
type Trouble = ArcSwapOption<(Arc<Failure>, SystemTime)>;

/// The tokens of one registry. Cheap to share; reading takes no lock that a renewal holds.
pub struct Tokens {
    start: Instant,
    wait: Duration,
    all: Arc<Slot>,
    per_repository: AtomicBool,
    repositories: ArcSwap<HashMap<Arc<str>, Arc<Slot>>>,
    login_failure: ArcSwapOption<Failure>,
    /// When the refresh token ends.
    login_until: ArcSwapOption<Instant>,
    /// For [`Readiness`]: the sign-in, and the calls for access tokens. Either may fail while the other works.
    login_trouble: Trouble,
    access_trouble: Trouble,
    login_trying: AtomicBool,
    /// Rung when a call for one of the repositories is done: a full table may have a place.
    room: watch::Sender<()>,
    wake: Notify,
}

impl Default for Tokens {
    fn default() -> Self {
        Self::new(DEFAULT_TOKEN_WAIT)
    }
}

impl Tokens {
    /// No tokens yet; requests wait for one as long as `wait`.
    pub fn new(wait: Duration) -> Self {
        Self {
            start: Instant::now(),
            wait,
            all: Arc::new(Slot::new(0)),
            per_repository: AtomicBool::new(false),
            repositories: ArcSwap::default(),
            login_failure: ArcSwapOption::empty(),
            login_until: ArcSwapOption::empty(),
            login_trouble: Trouble::empty(),
            access_trouble: Trouble::empty(),
            login_trying: AtomicBool::new(true),
            room: watch::Sender::new(()),
            wake: Notify::new(),
        }
    }

    /// A token that can pull `repository` (its name in the registry). At once if there is one, else
    /// after the call that is under way, within the store's limit. While the calls fail and pause, the answer is an
    /// immediate [`Unavailable`]: the client can turn elsewhere.
    pub async fn bearer(&self, repository: &str) -> Result<Arc<Bearer>, Unavailable> {
        match self.at_hand(repository) {
            Some(bearer) => Ok(bearer),
            // In a box: it is rare, and a request has room for the token that is there.
            None => Box::pin(self.awaited(repository)).await,
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
        let now = Instant::now();
        slot.used.store(as_millis(now - self.start), Ordering::Relaxed);
        slot.good(now)
    }

    async fn awaited(&self, repository: &str) -> Result<Arc<Bearer>, Unavailable> {
        let deadline = Instant::now() + self.wait;
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
            if let Some(verdict) = self.verdict(&slot) {
                return verdict;
            }
            if timeout_at(deadline, changed.changed()).await.is_err() {
                return Err(Unavailable::after(self.failure(&slot).0));
            }
            // Asked of the slot in hand: it may have lost its place since.
            if let Some(verdict) = self.verdict(&slot) {
                return verdict;
            }
        }
    }

    /// What a request gets now; `None` if it is worth its while to wait.
    fn verdict(&self, slot: &Slot) -> Option<Result<Arc<Bearer>, Unavailable>> {
        if let Some(bearer) = slot.good(Instant::now()) {
            return Some(Ok(bearer));
        }
        match self.failure(slot) {
            (failure @ Some(_), false) => Some(Err(Unavailable::after(failure))),
            _ => None,
        }
    }

    /// Why there is no token, and whether a call for it is under way. Without a sign-in no slot makes progress, so its
    /// failure speaks first.
    fn failure(&self, slot: &Slot) -> (Option<Arc<Failure>>, bool) {
        match self.login_failure.load_full() {
            failure @ Some(_) => (failure, self.login_trying.load(Ordering::Acquire)),
            None => (slot.failure.load_full(), slot.trying.load(Ordering::Acquire)),
        }
    }

    /// What to send in place of `seen`, which the registry answered with 401: a token that was asked for since. A
    /// thousand requests that meet the same 401 cause one renewal. `Ok(None)` if `seen` is itself so fresh an answer to
    /// a 401 that this one must mean something else. `Err` if there is none in time: 5 s, or `left` if
    /// that is less: without any, no token helps.
    pub async fn replace(
        &self,
        repository: &str,
        seen: &Bearer,
        left: Duration,
    ) -> Result<Option<Arc<Bearer>>, Unavailable> {
        let deadline = Instant::now() + REPLACE_LIMIT.min(self.wait).min(left);
        let slot = self.slot(repository).ok_or_else(|| Unavailable::after(None))?;
        let mut changed = slot.changed.subscribe();
        slot.used.store(self.clock(), Ordering::Relaxed);
        if slot.refused.load(Ordering::Acquire) < seen.number {
            if seen.is_last_word() {
                return Ok(None);
            }
            slot.refused.fetch_max(seen.number, Ordering::AcqRel);
            self.wake.notify_one();
        }
        loop {
            // A token that is merely newer may have been asked for before the registry took back both.
            if let Some(bearer) =
                slot.good(Instant::now()).filter(|bearer| bearer.replaces >= seen.number && !left.is_zero())
            {
                return Ok(Some(bearer));
            }
            if timeout_at(deadline, changed.changed()).await.is_err() {
                let under_way = || {
                    let message = "the registry refused one, and a new one did not come in time";
                    Arc::new(Failure::new(Hop::Token, message.to_owned()))
                };
                return Err(Unavailable::after(Some(self.failure(&slot).0.unwrap_or_else(under_way))));
            }
        }
    }

    /// Whether pulls can be served now, and what goes wrong behind them.
    pub fn readiness(&self) -> Readiness {
        let now = Instant::now();
        let ready = if self.per_repository.load(Ordering::Acquire) {
            self.login_until.load().as_ref().is_some_and(|until| **until > now)
        } else {
            self.all.good(Instant::now()).is_some()
        };
        // Nothing mends before the sign-in does.
        let trouble = self.login_trouble.load_full().or_else(|| self.access_trouble.load_full());
        let (failure, since) = trouble.map(|trouble| (Arc::clone(&trouble.0), trouble.1)).unzip();
        Readiness { ready, failure, since }
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
        let new = Arc::new(Slot::new(self.clock()));
        let name: Arc<str> = repository.into();
        self.repositories.rcu(|slots| {
            let mut slots = HashMap::clone(slots);
            if slots.len() >= MAX_SCOPES && !slots.contains_key(&name) {
                // Whoever waits for a first token keeps its place, and what has none goes before what has one: names that
                // somebody invents are to push out no others.
                let settled = slots.iter().filter(|(_, slot)| !slot.is_first_try());
                let oldest =
                    settled.min_by_key(|(_, slot)| (slot.bearer.load().is_some(), slot.used.load(Ordering::Relaxed)));
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

/// Remembers since when it fails.
fn in_trouble(trouble: &Trouble, failure: &Arc<Failure>) {
    let since = trouble.load().as_ref().map_or_else(SystemTime::now, |trouble| trouble.1);
    trouble.store(Some(Arc::new((Arc::clone(failure), since))));
}

fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
