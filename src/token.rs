//! The token store: a registry token is there before a request asks for it.
//!
//! Requests read [`Tokens`] without a lock. One background task ([`Tokens::run`]) does all the calls: it signs
//! in, asks for access tokens and renews both by clocks of their own. A token stays in use until its
//! own end, whatever fails behind it.
//!
//! There is one token for all repositories, or one for each: in ABAC mode, and where the registry refuses the one for all
//! and accepts one for the repository. Tokens are in a table (`token::table`), whose places are for names that the registry
//! knows; requests for a repository without one wait in a queue (`token::pending`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use log::info;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::config::DEFAULT_TOKEN_WAIT;
use crate::failure::{Failure, Hop};
use crate::secret::Secret;

pub mod acr;
pub mod backoff;
mod pending;
mod refresh;
mod report;
mod schedule;
mod slot;
mod table;

use pending::{Joined, Newcomers};
use refresh::Refresher;
use slot::{Failing, Slot};
use table::Table;

pub use slot::Bearer;

/// How long a request that met a 401 waits for the next token: less than for a first one, for it has been on its way.
const REPLACE_LIMIT: Duration = Duration::from_secs(5);
/// Tokens of an ABAC registry, one a repository. A host pulls from tens; 1,024 tokens are about 2 MiB.
const MAX_SCOPES: usize = 1024;
/// The scope that covers every repository, where the registry honours it.
const ALL: &str = "*";

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

/// The tokens of one registry. Cheap to share; reading takes no lock that a renewal holds.
pub struct Tokens {
    start: Instant,
    wait: Duration,
    /// The one token of a registry that honours the wildcard.
    all: Arc<Slot>,
    per_repository: AtomicBool,
    /// Repositories that have a token of their own.
    table: Table,
    /// Those that have none yet.
    newcomers: Mutex<Newcomers>,
    /// Why no call for a token can be made: there is no sign-in, or the registry wants fewer calls for now.
    signed_out: ArcSwapOption<Failing>,
    limited: ArcSwapOption<Failing>,
    /// When the refresh token ends.
    login_until: ArcSwapOption<Instant>,
    /// For [`Readiness`]: the sign-in, and the calls for access tokens. Either may fail while the other works.
    login_failing: ArcSwapOption<Failing>,
    access_failing: ArcSwapOption<Failing>,
    /// A token met a 401 since the background task last looked.
    refused: AtomicBool,
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
            table: Table::default(),
            newcomers: Mutex::default(),
            signed_out: ArcSwapOption::empty(),
            limited: ArcSwapOption::empty(),
            login_until: ArcSwapOption::empty(),
            login_failing: ArcSwapOption::empty(),
            access_failing: ArcSwapOption::empty(),
            refused: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// A token that can pull `repository` (its name in the registry). At once if there is one, else after the calls that
    /// are under way, within the store's limit. While they fail for longer than half a minute, or for a reason that
    /// somebody has to mend, the answer is an immediate [`Unavailable`]: the client can turn elsewhere.
    pub async fn bearer(&self, repository: &str) -> Result<Arc<Bearer>, Unavailable> {
        match self.cached(repository) {
            Some(bearer) => Ok(bearer),
            // In a box: it is rare, and a request has room for the token that is there.
            None => Box::pin(self.awaited(repository)).await,
        }
    }

    /// The token that is there: the way of almost every request. It takes no lock and allocates nothing.
    fn cached(&self, repository: &str) -> Option<Arc<Bearer>> {
        let now = Instant::now();
        let used = as_millis(now - self.start);
        let good = |slot: &Arc<Slot>| {
            slot.used.store(used, Ordering::Relaxed);
            slot.good(now)
        };
        if self.per_repository.load(Ordering::Acquire) { self.table.read(repository, good)? } else { good(&self.all) }
    }

    async fn awaited(&self, repository: &str) -> Result<Arc<Bearer>, Unavailable> {
        let deadline = Instant::now() + self.wait;
        // Kept while the next one is looked up: a name that nobody waits for loses its place in the queue.
        let mut joined;
        loop {
            joined = self.join(repository)?;
            let (slot, changed) = &mut joined;
            slot.used.store(self.clock(), Ordering::Relaxed);
            if let Some(verdict) = self.verdict(slot, deadline) {
                return verdict;
            }
            if slot.is_evicted() {
                continue;
            }
            if timeout_at(deadline, changed.changed()).await.is_err() {
                return Err(Unavailable::after(self.last_failure(slot)));
            }
            // Asked of the slot in hand: it may have lost its place since.
            if let Some(verdict) = self.verdict(slot, deadline) {
                return verdict;
            }
        }
    }

    /// What a request gets now; `None` if it is worth its while to wait.
    fn verdict(&self, slot: &Slot, deadline: Instant) -> Option<Result<Arc<Bearer>, Unavailable>> {
        if let Some(bearer) = slot.good(Instant::now()) {
            return Some(Ok(bearer));
        }
        let failing = self.failing(slot).filter(|failing| !failing.is_worth_a_wait(deadline))?;
        Some(Err(Unavailable::after(Some(Arc::clone(&failing.failure)))))
    }

    /// Why there is no token. Without a sign-in no slot makes progress, nor while the registry limits the calls, so these
    /// failures speak first.
    fn failing(&self, slot: &Slot) -> Option<Arc<Failing>> {
        let limited = || self.limited.load_full().filter(|limited| limited.next > Instant::now());
        self.signed_out.load_full().or_else(limited).or_else(|| slot.failing.load_full())
    }

    /// What a request is told whose time is up; `None` while the first sign-in is under way.
    fn last_failure(&self, slot: &Slot) -> Option<Arc<Failure>> {
        if let Some(failing) = self.failing(slot) {
            return Some(Arc::clone(&failing.failure));
        }
        let under_way = "access token: the call for this repository has not ended in time";
        self.is_signed_in().then(|| Arc::new(Failure::new(Hop::Token, under_way.to_owned())))
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
        if !seen.own && self.per_repository.load(Ordering::Acquire) {
            return self.narrow(repository, left).await;
        }
        // Whoever waits is known before the background task is told of the 401: a slot that nobody waits for may be idle.
        let (slot, _waits) = match seen.own {
            true => self.join_own(repository)?,
            false => (Arc::clone(&self.all), self.all.changed.subscribe()),
        };
        if slot.refused.load(Ordering::Acquire) < seen.number {
            if seen.is_last_word() {
                return Ok(None);
            }
            self.refuse(&slot, seen);
        }
        // A token that is merely newer may have been asked for before the registry took back both.
        self.token_of(&slot, left, |bearer| bearer.replaces >= seen.number).await.map(Some)
    }

    /// After a 401 to a token for all repositories to which [`Self::replace`] knows no answer, where the challenge asks
    /// for a token of this repository: one of that scope. `Ok(None)` if such a one has been refused within half a minute.
    /// What the registry makes of it has to be told: [`Self::accepted`] or [`Self::in_vain`]. Only a token that is
    /// accepted shows that the registry wants one a repository; a cache rule with an unhealthy credential set answers 401
    /// to both, and nothing is to change for the other repositories then.
    pub async fn narrow(&self, repository: &str, left: Duration) -> Result<Option<Arc<Bearer>>, Unavailable> {
        let (slot, _waits) = self.join_own(repository)?;
        slot.used.store(self.clock(), Ordering::Relaxed);
        let refused = slot.good(Instant::now()).filter(|bearer| bearer.in_vain.load(Ordering::Acquire));
        let mut after = 0;
        if let Some(refused) = refused {
            if refused.is_fresh() {
                return Ok(None);
            }
            self.refuse(&slot, &refused);
            after = refused.number;
        }
        self.token_of(&slot, left, |bearer| bearer.replaces >= after).await.map(Some)
    }

    /// The registry served something for this token.
    pub fn accepted(&self, bearer: &Bearer) {
        if !bearer.accepted.load(Ordering::Relaxed) {
            bearer.accepted.store(true, Ordering::Relaxed);
            if bearer.own {
                self.go_per_repository("the registry refuses tokens for all repositories");
            }
        }
    }

    /// The registry answered 401 to a token that [`Self::narrow`] gave.
    pub fn in_vain(&self, bearer: &Bearer) {
        bearer.in_vain.store(true, Ordering::Release);
    }

    /// Has the token of a slot renewed, because of a 401.
    fn refuse(&self, slot: &Slot, seen: &Bearer) {
        slot.refused.fetch_max(seen.number, Ordering::AcqRel);
        self.refused.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// A token of this slot that will do, in time for a request that met a 401.
    async fn token_of(
        &self,
        slot: &Slot,
        left: Duration,
        will_do: impl Fn(&Bearer) -> bool,
    ) -> Result<Arc<Bearer>, Unavailable> {
        let deadline = Instant::now() + REPLACE_LIMIT.min(self.wait).min(left);
        let mut changed = slot.changed.subscribe();
        slot.used.store(self.clock(), Ordering::Relaxed);
        loop {
            if let Some(bearer) = slot.good(Instant::now()).filter(|bearer| will_do(bearer) && !left.is_zero()) {
                return Ok(bearer);
            }
            let failing = self.failing(slot).is_some_and(|failing| !failing.is_worth_a_wait(deadline));
            if failing || slot.is_evicted() || timeout_at(deadline, changed.changed()).await.is_err() {
                let under_way = || {
                    let message = "the registry refused one, and a new one did not come in time";
                    Arc::new(Failure::new(Hop::Token, message.to_owned()))
                };
                let failure = self.failing(slot).map_or_else(under_way, |failing| Arc::clone(&failing.failure));
                return Err(Unavailable::after(Some(failure)));
            }
        }
    }

    /// Whether pulls can be served now, and what goes wrong behind them.
    pub fn readiness(&self) -> Readiness {
        let ready = if self.per_repository.load(Ordering::Acquire) {
            self.is_signed_in()
        } else {
            self.all.good(Instant::now()).is_some()
        };
        // Nothing mends before the sign-in does.
        let failing = self.login_failing.load_full().or_else(|| self.access_failing.load_full());
        let (failure, since) = failing.map(|failing| (Arc::clone(&failing.failure), failing.since_time)).unzip();
        Readiness { ready, failure, since }
    }

    fn is_signed_in(&self) -> bool {
        self.login_until.load().as_ref().is_some_and(|until| **until > Instant::now())
    }

    fn clock(&self) -> u64 {
        as_millis(self.start.elapsed())
    }

    /// The slot that serves a repository, and its changes from now on.
    fn join(&self, repository: &str) -> Result<Joined, Unavailable> {
        if self.per_repository.load(Ordering::Acquire) {
            return self.join_own(repository);
        }
        Ok((Arc::clone(&self.all), self.all.changed.subscribe()))
    }

    /// The same for a slot of the repository's own. One that has none waits for its turn from now on.
    fn join_own(&self, repository: &str) -> Result<Joined, Unavailable> {
        let joined = |slot: &Arc<Slot>| (Arc::clone(slot), slot.changed.subscribe());
        if let Some(joined) = self.table.read(repository, joined) {
            return Ok(joined);
        }
        let mut newcomers = self.newcomers();
        // Looked up again: a repository enters the table before it leaves the newcomers.
        if let Some(joined) = self.table.read(repository, joined) {
            return Ok(joined);
        }
        let Some((joined, is_new)) = newcomers.join(repository, self.clock()) else {
            let message = "access token: too many repositories wait for their first one";
            return Err(Unavailable::after(Some(Arc::new(Failure::new(Hop::Token, message.to_owned())))));
        };
        drop(newcomers);
        if is_new {
            self.wake.notify_one();
        }
        Ok(joined)
    }

    /// A poisoned lock guards plain values here, so what is in it is whole.
    fn newcomers(&self) -> MutexGuard<'_, Newcomers> {
        self.newcomers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on each repository has a token of its own. Nothing leads back before the next start: the price is one
    /// call for each repository.
    fn go_per_repository(&self, reason: &str) {
        if !self.per_repository.swap(true, Ordering::AcqRel) {
            info!("registry token: {reason}, one token a repository");
            self.access_failing.store(None);
            self.all.changed.send_replace(());
            self.wake.notify_one();
        }
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
