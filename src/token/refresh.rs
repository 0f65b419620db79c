//! The background task behind the store: it alone calls the issuer, renews tokens before they end, and publishes the
//! [`State`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::backoff::Backoff;
use super::report::Report;
use super::schedule::{Schedule, Scope};
use super::state::{Failing, State};
use super::{Granted, Issuer, Tokens, WILDCARD};
use crate::failure::{Failure, Hop};

mod eviction;
mod outcome;

#[cfg(test)]
pub(super) use eviction::MAX_FAILED;

/// Token calls under way at once: ACR allows some 160 a second, and a burst of new repositories must not spend that.
const MAX_CALLS: usize = 16;
/// Of these, calls for repositories that have no token yet. The rest is for renewals: a token in use does not wait for
/// invented names.
const MAX_FIRST_CALLS: usize = 12;
/// The task looks for due calls at least this often; every other event wakes it.
const IDLE: Duration = Duration::from_secs(60);

/// What a call is for.
enum Call {
    /// A sign-in, and when it started.
    Login(Instant),
    Access(Asked),
}

/// A call for an access token.
struct Asked {
    repository: Arc<str>,
    at: Instant,
    /// When the refresh token of the call was asked for.
    login: Instant,
    /// The last token of which a 401 was known then.
    refused: u64,
    is_first: bool,
}

/// What a call gives.
pub(super) type CallResult = Result<Granted, Failure>;

/// What only the background task knows.
pub(super) struct Refresher<'a> {
    tokens: &'a Tokens,
    issuer: Arc<dyn Issuer>,
    login: Schedule,
    /// Every scope whose token is renewed, and the repositories whose first call is under way or has failed.
    scopes: HashMap<Arc<str>, Scope>,
    /// How many of them are in the table.
    in_table: usize,
    /// When one of them is due.
    next_due: Instant,
    /// One that is due waits for the end of another call.
    is_blocked: bool,
    /// The pauses that the registry's limits come to.
    limits: Backoff,
    /// The calls for access tokens fail for any repository, as far as is known: the last one failed, and may succeed later.
    outage: Option<Failing>,
    calls: JoinSet<CallResult>,
    under_way: HashMap<Id, Call>,
    first_calls: usize,
    last_number: u64,
    report: Report,
}

impl<'a> Refresher<'a> {
    pub(crate) fn new(tokens: &'a Tokens, issuer: Arc<dyn Issuer>) -> Self {
        let wildcard = Scope::new(Arc::clone(&tokens.wildcard), Backoff::awaited(), false);
        Self {
            tokens,
            issuer,
            login: Schedule::new(Backoff::awaited()),
            scopes: HashMap::from([(WILDCARD.into(), wildcard)]),
            in_table: 0,
            next_due: Instant::now(),
            is_blocked: false,
            limits: Backoff::default(),
            outage: None,
            calls: JoinSet::new(),
            under_way: HashMap::new(),
            first_calls: 0,
            // A token that was there before has a number of its own.
            last_number: tokens.wildcard.bearer.load().as_ref().map_or(0, |bearer| bearer.number),
            report: Report::default(),
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let next = self.start_calls();
            tokio::select! {
                Some(done) = self.calls.join_next_with_id(), if !self.calls.is_empty() => {
                    let (id, result) = match done {
                        Ok((id, result)) => (id, result),
                        Err(crash) => {
                            let message = format!("token call ended without an answer: {crash}");
                            (crash.id(), Err(Failure::new(Hop::Token, message)))
                        }
                    };
                    match self.under_way.remove(&id) {
                        Some(Call::Login(asked)) => self.on_login(asked, result),
                        Some(Call::Access(asked)) => self.on_access(&asked, result),
                        None => {}
                    }
                }
                () = self.tokens.wake.notified() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    fn state(&self) -> Arc<State> {
        self.tokens.state.load_full()
    }

    /// Publishes, then logs: whoever reads the line and asks `/readyz` finds what the line says.
    fn publish(&mut self, state: State) {
        let state = Arc::new(state);
        self.tokens.state.store(Arc::clone(&state));
        self.report.sign_in(&state);
    }

    /// Starts the calls that are due. Returns when to look again.
    fn start_calls(&mut self) -> Instant {
        let now = Instant::now();
        let mut next = now + IDLE;
        if let Some(ends) = self.state().login().map(|login| login.ends) {
            next = next.min(ends);
            if ends <= now {
                self.sign_out();
            }
        }
        if self.login.is_due(now) {
            self.login.in_flight = true;
            let issuer = Arc::clone(&self.issuer);
            let id = self.calls.spawn(async move { issuer.login().await }).id();
            self.under_way.insert(id, Call::Login(now));
        } else if !self.login.in_flight {
            next = next.min(self.login.due);
        }
        if self.tokens.per_repository.load(Ordering::Acquire) && self.scopes.remove(WILDCARD).is_some() {
            self.access_works(now);
        }
        let state = self.state();
        // Without a refresh token, or while the registry wants fewer calls, no access token is asked for.
        match state.access().limited(now) {
            Some(limited) => next.min(limited.next),
            None if state.login().is_some() => {
                self.renew(now);
                self.start_first_calls(now);
                next.min(self.next_due)
            }
            None => next,
        }
    }

    /// Starts the renewals that are due, if any is. A repository that joins the queue does not cause a look at all scopes.
    fn renew(&mut self, now: Instant) {
        let is_refused = self.tokens.refused.swap(false, Ordering::AcqRel);
        if !is_refused && !self.is_blocked && self.next_due > now {
            return;
        }
        self.is_blocked = false;
        self.next_due = now + IDLE;
        let mut due = Vec::new();
        for (name, scope) in &mut self.scopes {
            // A 401 makes the renewal due at once, unless renewals fail: then their pause goes on.
            let is_refused = scope.slot.refused.load(Ordering::Acquire) > scope.refused;
            if is_refused && !scope.schedule.in_flight && scope.schedule.backoff.is_clear() {
                scope.schedule.due = now;
            }
            if scope.schedule.is_due(now) {
                due.push(Arc::clone(name));
            } else if !scope.schedule.in_flight {
                self.next_due = self.next_due.min(scope.schedule.due);
            }
        }
        for name in due {
            let Some(scope) = self.scopes.get(&name) else { continue };
            if *name != *WILDCARD && scope.slot.is_idle(self.tokens.clock()) {
                self.evict(&name);
            } else if !self.call(&name, now) {
                self.is_blocked = true;
            }
        }
    }

    /// Starts calls for repositories that wait for their first token, in turns of the clients that wait for them.
    fn start_first_calls(&mut self, now: Instant) {
        while self.calls.len() < MAX_CALLS && self.first_calls < MAX_FIRST_CALLS {
            let Some((name, slot)) = self.tokens.pending().next() else { return };
            self.scopes.insert(Arc::clone(&name), Scope::new(slot, Backoff::awaited(), true));
            self.call(&name, now);
        }
    }

    /// Starts the call for a scope. False if too many are under way.
    fn call(&mut self, name: &Arc<str>, now: Instant) -> bool {
        let state = self.state();
        let (Some(scope), Some(login)) = (self.scopes.get_mut(name), state.login()) else { return true };
        if self.calls.len() >= MAX_CALLS || scope.is_pending && self.first_calls >= MAX_FIRST_CALLS {
            return false;
        }
        self.first_calls += usize::from(scope.is_pending);
        scope.schedule.in_flight = true;
        scope.refused = scope.slot.refused.load(Ordering::Acquire);
        let asked = Asked {
            repository: Arc::clone(name),
            at: now,
            login: login.asked,
            refused: scope.refused,
            is_first: scope.is_pending,
        };
        let (issuer, token, name) = (Arc::clone(&self.issuer), login.token.clone(), Arc::clone(name));
        let id = self.calls.spawn(async move { issuer.access(&token, &name).await }).id();
        self.under_way.insert(id, Call::Access(asked));
        true
    }

    /// Wakes every request that waits, to look at the state again.
    fn wake_all(&self) {
        for scope in self.scopes.values() {
            scope.slot.changed.send_replace(());
        }
        for slot in self.tokens.pending().slots() {
            slot.changed.send_replace(());
        }
    }
}
