//! The token store: a registry token is there before a request asks for it.
//!
//! Requests read [`Tokens`] without a lock. One background task ([`Tokens::run`]) makes all the calls: it signs in, asks
//! for access tokens, and renews the refresh token and each access token by their own lifetimes. It publishes how that
//! goes as one value (`token::state`). A token stays in use until its own end, whatever fails meanwhile.
//!
//! There is one token for all repositories, or one for each: in ABAC mode, and where the registry refuses the one for all
//! and accepts one for the repository. Repositories that have a token are in a table (`token::table`); those that have none
//! yet wait for their first call, in turns of their clients (`token::pending`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use log::info;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::access::Client;
use crate::config::DEFAULT_TOKEN_WAIT;
use crate::failure::{Failure, Hop};
use crate::secret::Secret;

pub(crate) mod acr;
mod backoff;
mod pending;
mod refresh;
mod report;
mod schedule;
mod slot;
mod state;
mod table;

use pending::{Joined, Pending};
use refresh::Refresher;
use slot::Slot;
use state::{Failing, State};
use table::SlotTable;

pub(crate) use slot::Bearer;

/// How long a request that met a 401 waits for the next token. It is less than for a first one, because part of the
/// request's time is spent.
const REPLACE_LIMIT: Duration = Duration::from_secs(5);
/// Tokens of an ABAC registry, one a repository. A host pulls from tens; 1,024 tokens are about 2 MiB.
const MAX_SCOPES: usize = 1024;
/// The name in a scope that stands for every repository, where the registry honours it.
pub(crate) const WILDCARD: &str = "*";

/// A token as the registry gave it.
#[derive(Clone, Debug)]
pub(crate) struct Granted {
    /// The token itself.
    pub token: Secret,
    /// How long it is valid, counted from the request for it and measured on the registry's own clock.
    pub lifetime: Duration,
    /// The registry gives no token for all repositories (it is in ABAC mode).
    pub per_repository: bool,
}

/// The two calls to a registry. The tests have an issuer of their own.
#[async_trait]
pub(crate) trait Issuer: Send + Sync {
    /// Signs in: the registry's refresh token.
    async fn login(&self) -> Result<Granted, Failure>;
    /// An access token that can pull this repository, or all of them with the [`WILDCARD`].
    async fn access(&self, login: &Secret, repository: &str) -> Result<Granted, Failure>;
}

/// Whether a registry's tokens serve pulls.
#[derive(Debug)]
pub(crate) struct Readiness {
    /// There is a valid token for all repositories; in ABAC mode, where a token comes with the first request for its
    /// repository, a valid refresh token.
    pub ready: bool,
    /// What fails, even if the last token is still valid.
    pub failure: Option<Arc<Failure>>,
    /// Since when it fails, by this host's clock.
    pub since: Option<SystemTime>,
}

/// The tokens of a registry, as people and metrics are told of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenReport {
    /// The refresh token; `None` without a sign-in.
    pub refresh: Option<Life>,
    /// The access token for all repositories, if there is one.
    pub access: Option<Life>,
    /// Repositories that have a token of their own.
    pub repositories: usize,
    /// How long the sign-in or the renewal has been failing.
    pub failing: Option<Duration>,
}

/// How old a token is, and how long it is still valid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    /// Since it was asked for.
    pub age: Duration,
    /// To its end; zero if that is over.
    pub left: Duration,
}

/// No token within the time a request may wait.
#[derive(Clone, Debug)]
pub(crate) struct Unavailable {
    /// The last failure; `None` if the first call is still under way.
    pub failure: Option<Arc<Failure>>,
    /// When asking again makes sense.
    pub retry_after: Duration,
    /// The registry refuses a token of this repository's own, for a reason that somebody has to act on.
    pub is_repositorys: bool,
}

/// The tokens of one registry. Reading a token takes no lock that a renewal holds.
pub(crate) struct Tokens {
    start: Instant,
    /// In milliseconds. Settings may be read again.
    wait: AtomicU64,
    /// The one token of a registry that honours the wildcard.
    wildcard: Arc<Slot>,
    per_repository: AtomicBool,
    /// Repositories that have a token of their own.
    table: SlotTable,
    /// Repositories that have none yet.
    pending: Mutex<Pending>,
    /// The sign-in and the calls for access tokens; the background task alone writes it.
    state: ArcSwap<State>,
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
    pub(crate) fn new(wait: Duration) -> Self {
        Self {
            start: Instant::now(),
            wait: AtomicU64::new(as_millis(wait)),
            wildcard: Arc::new(Slot::new(0)),
            per_repository: AtomicBool::new(false),
            table: SlotTable::default(),
            pending: Mutex::default(),
            state: ArcSwap::default(),
            refused: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// Of a registry that is reached in another way than `before`: what was granted for all repositories is as good there, until
    /// it is renewed, which is due at once. A repository's own token is asked for again.
    pub(crate) fn in_place_of(before: &Self, wait: Duration) -> Self {
        let tokens = Self::new(wait);
        tokens.wildcard.bearer.store(before.wildcard.bearer.load_full());
        tokens.per_repository.store(before.per_repository.load(Ordering::Acquire), Ordering::Release);
        if let Some(login) = before.state.load().login() {
            tokens.state.store(Arc::new(State::of_login(login)));
        }
        tokens
    }

    /// From now on a request waits for a token as long as `wait`.
    pub(crate) fn set_wait(&self, wait: Duration) {
        self.wait.store(as_millis(wait), Ordering::Relaxed);
    }

    /// A token that can pull `repository` (its name in the registry): at once if there is one, else after the calls that
    /// are under way, within the store's limit, in which the client takes its turn. If these have failed for half a minute, or for a reason that somebody has
    /// to act on, the answer is [`Unavailable`] at once, so that the client can use its next endpoint.
    pub(crate) async fn token_for(&self, repository: &str, client: Option<Client>) -> Result<Arc<Bearer>, Unavailable> {
        match self.cached(repository) {
            Some(bearer) => Ok(bearer),
            // Boxed, because it is rare and its future would make every request's larger.
            None => Box::pin(self.awaited(repository, client)).await,
        }
    }

    /// The token that is there, for who does not want to use it.
    pub(crate) fn current(&self, repository: &str) -> Option<Arc<Bearer>> {
        let bearer = |slot: &Arc<Slot>| slot.bearer.load_full();
        if self.per_repository.load(Ordering::Acquire) {
            self.table.read(repository, bearer)?
        } else {
            bearer(&self.wildcard)
        }
    }

    /// The token that is there, which serves almost every request. Takes no lock and allocates nothing.
    fn cached(&self, repository: &str) -> Option<Arc<Bearer>> {
        let now = Instant::now();
        let used = as_millis(now - self.start);
        let good = |slot: &Arc<Slot>| {
            slot.used.store(used, Ordering::Relaxed);
            slot.good(now)
        };
        if self.per_repository.load(Ordering::Acquire) {
            self.table.read(repository, good)?
        } else {
            good(&self.wildcard)
        }
    }

    fn wait(&self) -> Duration {
        Duration::from_millis(self.wait.load(Ordering::Relaxed))
    }

    async fn awaited(&self, repository: &str, client: Option<Client>) -> Result<Arc<Bearer>, Unavailable> {
        let deadline = Instant::now() + self.wait();
        // The last subscription lives until the next one is made: a repository without one loses its place in the queue.
        let mut joined;
        loop {
            joined = self.join(repository, client)?;
            let (slot, changed) = &mut joined;
            slot.used.store(self.clock(), Ordering::Relaxed);
            if let Some(verdict) = self.verdict(slot, deadline) {
                return verdict;
            }
            if slot.is_evicted() {
                continue;
            }
            if timeout_at(deadline, changed.changed()).await.is_err() {
                return Err(self.unavailable(slot, self.last_failure(slot)));
            }
            // The slot may have been evicted after it got its token, so it is read before the repository is looked up again.
            if let Some(verdict) = self.verdict(slot, deadline) {
                return verdict;
            }
        }
    }

    /// What a request gets now; `None` if it is to wait.
    fn verdict(&self, slot: &Slot, deadline: Instant) -> Option<Result<Arc<Bearer>, Unavailable>> {
        if let Some(bearer) = slot.good(Instant::now()) {
            return Some(Ok(bearer));
        }
        let failing = self.failing(slot).filter(|failing| !failing.is_worth_a_wait(deadline))?;
        Some(Err(self.unavailable(slot, Some(Arc::clone(&failing.failure)))))
    }

    fn unavailable(&self, slot: &Slot, failure: Option<Arc<Failure>>) -> Unavailable {
        let is_own = !std::ptr::eq(slot, Arc::as_ptr(&self.wildcard));
        let is_refused = failure.as_ref().is_some_and(|failure| failure.hop == Hop::Token && failure.permanent);
        Unavailable { is_repositorys: is_own && is_refused, ..Unavailable::after(failure) }
    }

    /// Why there is no token. What stops the calls of every scope goes before the slot's own failure.
    fn failing(&self, slot: &Slot) -> Option<Arc<Failing>> {
        self.state.load().obstacle(Instant::now()).cloned().or_else(|| slot.failing.load_full())
    }

    /// What a request is told that has waited in vain; `None` while the first sign-in is under way.
    fn last_failure(&self, slot: &Slot) -> Option<Arc<Failure>> {
        if let Some(failing) = self.failing(slot) {
            return Some(Arc::clone(&failing.failure));
        }
        let under_way = "access token: the call for this repository has not ended in time";
        self.is_signed_in().then(|| Arc::new(Failure::new(Hop::Token, under_way.to_owned())))
    }

    /// The token to send in place of `seen`, which the registry answered with 401: one that was asked for since. However
    /// many requests meet the same 401, they cause one renewal. `Ok(None)` if `seen` was itself asked for because of a 401
    /// a moment ago, so that this one has another reason. `Err` if no token comes within 5 s, or within `left` if that is
    /// less; without any time left no token helps.
    pub(crate) async fn replace(
        &self,
        repository: &str,
        client: Option<Client>,
        seen: &Bearer,
        left: Duration,
    ) -> Result<Option<Arc<Bearer>>, Unavailable> {
        if !seen.own && self.per_repository.load(Ordering::Acquire) {
            return self.repository_token(repository, client, left).await;
        }
        // Subscribed before the background task hears of the 401: it evicts an idle slot that no request waits for.
        let (slot, _waits) = match seen.own {
            true => self.join_own(repository, client)?,
            false => (Arc::clone(&self.wildcard), self.wildcard.changed.subscribe()),
        };
        if slot.refused.load(Ordering::Acquire) < seen.number {
            if seen.is_last_word() {
                return Ok(None);
            }
            self.refuse(&slot, seen);
        }
        // A token that is merely newer may have been asked for before the registry took back both.
        self.token_in(&slot, left, |bearer| bearer.replaces >= seen.number).await.map(Some)
    }

    /// A token for this repository alone, after a 401 to a token for all to which [`Self::replace`] has no answer, where
    /// the challenge asks for this repository's scope. `Ok(None)` if the registry has refused such a token within half a
    /// minute. The caller reports what the registry makes of it: [`Self::accepted`] or [`Self::rejected`]. Only an accepted
    /// one shows that the registry wants a token for each repository: a cache rule with an unhealthy credential set answers
    /// 401 to both kinds, and then nothing changes for other repositories.
    pub(crate) async fn repository_token(
        &self,
        repository: &str,
        client: Option<Client>,
        left: Duration,
    ) -> Result<Option<Arc<Bearer>>, Unavailable> {
        let (slot, _waits) = self.join_own(repository, client)?;
        slot.used.store(self.clock(), Ordering::Relaxed);
        let refused = slot.good(Instant::now()).filter(|bearer| bearer.rejected.load(Ordering::Acquire));
        let mut after = 0;
        if let Some(refused) = refused {
            if refused.is_fresh() {
                return Ok(None);
            }
            self.refuse(&slot, &refused);
            after = refused.number;
        }
        self.token_in(&slot, left, |bearer| bearer.replaces >= after).await.map(Some)
    }

    /// The registry has accepted this token.
    pub(crate) fn accepted(&self, bearer: &Bearer) {
        if !bearer.accepted.load(Ordering::Relaxed) {
            bearer.accepted.store(true, Ordering::Relaxed);
            if bearer.own {
                self.go_per_repository("the registry refuses tokens for all repositories");
            }
        }
    }

    /// The registry has answered 401 to a token from [`Self::repository_token`].
    pub(crate) fn rejected(&self, bearer: &Bearer) {
        bearer.rejected.store(true, Ordering::Release);
    }

    /// Tells the background task to renew a slot's token, because of a 401.
    fn refuse(&self, slot: &Slot, seen: &Bearer) {
        slot.refused.fetch_max(seen.number, Ordering::AcqRel);
        self.refused.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// A suitable token of this slot, in time for a request that met a 401.
    async fn token_in(
        &self,
        slot: &Slot,
        left: Duration,
        is_suitable: impl Fn(&Bearer) -> bool,
    ) -> Result<Arc<Bearer>, Unavailable> {
        let deadline = Instant::now() + REPLACE_LIMIT.min(self.wait()).min(left);
        let mut changed = slot.changed.subscribe();
        slot.used.store(self.clock(), Ordering::Relaxed);
        loop {
            if let Some(bearer) = slot.good(Instant::now()).filter(|bearer| is_suitable(bearer) && !left.is_zero()) {
                return Ok(bearer);
            }
            let failing = self.failing(slot).is_some_and(|failing| !failing.is_worth_a_wait(deadline));
            if failing || slot.is_evicted() || timeout_at(deadline, changed.changed()).await.is_err() {
                let under_way = || {
                    let message = "the registry refused one, and a new one did not come in time";
                    Arc::new(Failure::new(Hop::Token, message.to_owned()))
                };
                let failure = self.failing(slot).map_or_else(under_way, |failing| Arc::clone(&failing.failure));
                return Err(self.unavailable(slot, Some(failure)));
            }
        }
    }

    /// Whether pulls can be served now, and what fails meanwhile.
    pub(crate) fn readiness(&self) -> Readiness {
        let ready = if self.per_repository.load(Ordering::Acquire) {
            self.is_signed_in()
        } else {
            self.wildcard.good(Instant::now()).is_some()
        };
        let state = self.state.load();
        let failing = state.failing(Instant::now());
        let (failure, since) = failing.map(|failing| (Arc::clone(&failing.failure), failing.since_time)).unzip();
        Readiness { ready, failure, since }
    }

    /// How old the tokens are and how long they last.
    pub(crate) fn report(&self) -> TokenReport {
        let (now, state) = (Instant::now(), self.state.load());
        let life = |asked: Instant, ends: Instant| Life {
            age: now.saturating_duration_since(asked),
            left: ends.saturating_duration_since(now),
        };
        let access = self.wildcard.bearer.load();
        let access = access.as_ref().filter(|_| !self.per_repository.load(Ordering::Acquire));
        TokenReport {
            refresh: state.login().map(|login| life(login.asked, login.ends)),
            access: access.map(|bearer| life(bearer.asked, bearer.expires)),
            repositories: self.table.len(),
            failing: state.failing(now).map(|failing| failing.since.elapsed()),
        }
    }

    fn is_signed_in(&self) -> bool {
        self.state.load().login().is_some_and(|login| login.ends > Instant::now())
    }

    fn clock(&self) -> u64 {
        as_millis(self.start.elapsed())
    }

    /// The slot that serves a repository, and its changes from now on.
    fn join(&self, repository: &str, client: Option<Client>) -> Result<Joined, Unavailable> {
        if self.per_repository.load(Ordering::Acquire) {
            return self.join_own(repository, client);
        }
        Ok((Arc::clone(&self.wildcard), self.wildcard.changed.subscribe()))
    }

    /// The same for the repository's own slot. If it has none it joins the queue.
    fn join_own(&self, repository: &str, client: Option<Client>) -> Result<Joined, Unavailable> {
        let joined = |slot: &Arc<Slot>| (Arc::clone(slot), slot.changed.subscribe());
        if let Some(joined) = self.table.read(repository, joined) {
            return Ok(joined);
        }
        let mut pending = self.pending();
        // Looked up again, under the lock: a repository enters the table before it leaves the pending ones.
        if let Some(joined) = self.table.read(repository, joined) {
            return Ok(joined);
        }
        let Some((joined, is_new)) = pending.join(repository, client, self.clock()) else {
            let message = "access token: too many repositories wait for their first one";
            return Err(Unavailable::after(Some(Arc::new(Failure::new(Hop::Token, message.to_owned())))));
        };
        drop(pending);
        if is_new {
            self.wake.notify_one();
        }
        Ok(joined)
    }

    /// No panic can leave the map and the queue half changed, so a poisoned lock is used as it is.
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on each repository has a token of its own, until the next start. The price is one call a repository.
    fn go_per_repository(&self, reason: &str) {
        if !self.per_repository.swap(true, Ordering::AcqRel) {
            info!("registry token: {reason}, one token a repository");
            self.wildcard.changed.send_replace(());
            self.wake.notify_one();
        }
    }

    /// Signs in and renews tokens; never returns. The only caller of the issuer.
    pub(crate) async fn run(&self, issuer: Arc<dyn Issuer>) {
        Refresher::new(self, issuer).run().await;
    }
}

impl Unavailable {
    fn after(failure: Option<Arc<Failure>>) -> Self {
        /// Calls are repeated quickly at first; a second is the shortest pause that the header can name.
        const SOON: Duration = Duration::from_secs(1);
        /// Somebody has to act on a permanent failure.
        const LATER: Duration = Duration::from_secs(30);
        let retry_after = match failure.as_deref() {
            Some(failure) if failure.permanent => LATER,
            Some(failure) => failure.retry_after.unwrap_or(SOON).clamp(SOON, LATER),
            None => SOON,
        };
        Self { failure, retry_after, is_repositorys: false }
    }
}

fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
