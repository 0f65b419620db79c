//! The background task behind the store: it alone calls the issuer, and renews what is there before it ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderValue;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::backoff::Backoff;
use super::report::News;
use super::schedule::{Pause, Plan, Scope};
use super::slot::{Failing, Slot};
use super::{ALL, Bearer, Granted, Issuer, MAX_SCOPES, Tokens, as_millis};
use crate::failure::{Failure, Hop};
use crate::secret::Secret;

/// Token calls under way at once: ACR allows some 160 a second, and a burst of new repositories must not spend that.
const MAX_CALLS: usize = 16;
/// Of these, calls for repositories that have no token yet. The rest is for renewals: a token that is in use does not wait
/// for names that somebody invents.
const MAX_NEWCOMER_CALLS: usize = 12;
/// Repositories whose last call failed and that never had a token. Whoever asks again finds the pause that their failures
/// have come to; of more, the one that was asked for longest ago is forgotten. Each may be called once a second at first,
/// of the 160 calls that ACR allows.
pub(super) const MAX_FAILED: usize = 128;
/// A token that the registry has accepted and that was used within this time is not given up for a new one: the requests
/// of a pull follow each other more quickly.
const IN_USE: Duration = Duration::from_secs(5 * 60);
/// Look at least this often; every other event wakes the task by itself.
const IDLE: Duration = Duration::from_secs(60);

/// The refresh token.
struct Login {
    token: Secret,
    asked: Instant,
    ends: Instant,
}

/// What a finished call was for.
enum Call {
    Login,
    Access(Asked),
}

/// A call for an access token: when, with which sign-in's refresh token, and the last token of which a 401 was known.
struct Asked {
    repository: Arc<str>,
    at: Instant,
    login: Instant,
    refused: u64,
    is_newcomer: bool,
}

/// What a call gives.
pub type Answer = Result<Granted, Failure>;

/// The state of the background task; nobody else touches it.
pub struct Refresher<'a> {
    tokens: &'a Tokens,
    issuer: Arc<dyn Issuer>,
    login: Option<Login>,
    login_asked: Instant,
    login_plan: Plan,
    /// All that is kept fresh, and the repositories whose first call is under way or has failed.
    scopes: HashMap<Arc<str>, Scope>,
    /// How many of them are in the table.
    in_table: usize,
    /// When one of them is due.
    next_due: Instant,
    /// One that is due waits for the end of another call.
    blocked: bool,
    pause: Pause,
    /// Since when no call for an access token has succeeded, if the last one failed and may succeed by itself.
    access_failing: Option<Failing>,
    calls: JoinSet<Answer>,
    newcomer_calls: usize,
    kinds: HashMap<Id, Call>,
    numbers: u64,
    news: News,
}

impl<'a> Refresher<'a> {
    pub fn new(tokens: &'a Tokens, issuer: Arc<dyn Issuer>) -> Self {
        let all = Scope::new(Arc::clone(&tokens.all), Backoff::awaited(), false);
        Self {
            tokens,
            issuer,
            login: None,
            login_asked: Instant::now(),
            login_plan: Plan::new(Backoff::awaited()),
            scopes: HashMap::from([(ALL.into(), all)]),
            in_table: 0,
            next_due: Instant::now(),
            blocked: false,
            pause: Pause::default(),
            access_failing: None,
            calls: JoinSet::new(),
            newcomer_calls: 0,
            kinds: HashMap::new(),
            numbers: 0,
            news: News::default(),
        }
    }

    pub async fn run(mut self) {
        loop {
            let next = self.start_calls();
            tokio::select! {
                Some(done) = self.calls.join_next_with_id(), if !self.calls.is_empty() => {
                    let (id, answer) = match done {
                        Ok((id, answer)) => (id, answer),
                        Err(crash) => {
                            let message = format!("token call ended without an answer: {crash}");
                            (crash.id(), Err(Failure::new(Hop::Token, message)))
                        }
                    };
                    match self.kinds.remove(&id) {
                        Some(Call::Login) => self.on_login(answer),
                        Some(Call::Access(asked)) => self.on_access(&asked, answer),
                        None => {}
                    }
                }
                () = self.tokens.wake.notified() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    /// Starts what is due and says when to look again.
    fn start_calls(&mut self) -> Instant {
        let now = Instant::now();
        let mut next = now + IDLE;
        if let Some(login) = &self.login {
            next = next.min(login.ends);
            if login.ends <= now {
                self.sign_out();
            }
        }
        if self.login_plan.is_due(now) {
            self.login_plan.in_flight = true;
            self.login_asked = now;
            let issuer = Arc::clone(&self.issuer);
            let id = self.calls.spawn(async move { issuer.login().await }).id();
            self.kinds.insert(id, Call::Login);
        } else if !self.login_plan.in_flight {
            next = next.min(self.login_plan.due);
        }
        if self.tokens.per_repository.load(Ordering::Acquire) {
            self.scopes.remove(ALL);
        }
        // Nothing is done for an access token before there is a sign-in, nor while the registry wants fewer calls.
        match self.pause.until(now) {
            Some(until) => next.min(until),
            None if self.login.is_some() => {
                self.renew(now);
                self.start_first_calls(now);
                next.min(self.next_due)
            }
            None => next,
        }
    }

    /// Calls for what is due, if anything is. A name that joins the queue costs no look at all of them.
    fn renew(&mut self, now: Instant) {
        let is_refused = self.tokens.refused.swap(false, Ordering::AcqRel);
        if !is_refused && !self.blocked && self.next_due > now {
            return;
        }
        self.blocked = false;
        self.next_due = now + IDLE;
        let mut due = Vec::new();
        for (name, scope) in &mut self.scopes {
            // A 401 is a reason to renew at once, but not to forget that renewals fail.
            let is_refused = scope.slot.refused.load(Ordering::Acquire) > scope.refused;
            if is_refused && !scope.plan.in_flight && scope.plan.backoff.is_clear() {
                scope.plan.due = now;
            }
            if scope.plan.is_due(now) {
                due.push(Arc::clone(name));
            } else if !scope.plan.in_flight {
                self.next_due = self.next_due.min(scope.plan.due);
            }
        }
        for name in due {
            let Some(scope) = self.scopes.get(&name) else { continue };
            if *name != *ALL && scope.slot.is_idle(self.tokens.clock()) {
                self.evict(&name);
            } else if !self.call(&name, now) {
                self.blocked = true;
            }
        }
    }

    /// Calls for repositories that wait for their first token, in the order in which they came.
    fn start_first_calls(&mut self, now: Instant) {
        while self.calls.len() < MAX_CALLS && self.newcomer_calls < MAX_NEWCOMER_CALLS {
            let Some((name, slot)) = self.tokens.newcomers().next() else { return };
            self.scopes.insert(Arc::clone(&name), Scope::new(slot, Backoff::awaited(), true));
            self.call(&name, now);
        }
    }

    /// Starts the call for a scope. False if there are too many.
    fn call(&mut self, name: &Arc<str>, now: Instant) -> bool {
        let (Some(scope), Some(login)) = (self.scopes.get_mut(name), &self.login) else { return true };
        let newcomers_left = MAX_NEWCOMER_CALLS - self.newcomer_calls;
        if self.calls.len() >= MAX_CALLS || scope.is_newcomer && newcomers_left == 0 {
            return false;
        }
        self.newcomer_calls += usize::from(scope.is_newcomer);
        scope.plan.in_flight = true;
        scope.refused = scope.slot.refused.load(Ordering::Acquire);
        let asked = Asked {
            repository: Arc::clone(name),
            at: now,
            login: login.asked,
            refused: scope.refused,
            is_newcomer: scope.is_newcomer,
        };
        let (issuer, token, scope) = (Arc::clone(&self.issuer), login.token.clone(), format!("repository:{name}:pull"));
        let id = self.calls.spawn(async move { issuer.access(&token, &scope).await }).id();
        self.kinds.insert(id, Call::Access(asked));
        true
    }

    fn on_login(&mut self, answer: Answer) {
        self.login_plan.in_flight = false;
        match answer {
            Ok(granted) => {
                if granted.per_repository {
                    self.tokens.go_per_repository("the registry is in ABAC mode");
                }
                let (asked, ends) = (self.login_asked, self.login_asked + granted.lifetime);
                self.login = Some(Login { token: granted.token, asked, ends });
                self.login_plan.renew(granted.lifetime);
                self.tokens.login_until.store(Some(Arc::new(ends)));
                self.tokens.signed_out.store(None);
                self.tokens.login_failing.store(None);
                self.news.signed_in();
            }
            Err(failure) => {
                self.login_plan.repeat(&failure);
                let failure = Arc::new(failure);
                let earlier = self.tokens.login_failing.load_full();
                let failing = Arc::new(Failing::again(earlier.as_deref(), &failure, self.login_plan.due));
                self.tokens.login_failing.store(Some(Arc::clone(&failing)));
                // While the refresh token holds, its renewal's failure is no business of the requests.
                if self.login.is_none() {
                    self.tokens.signed_out.store(Some(failing));
                }
                // Last: whoever reads the line and then asks finds what it says.
                self.news.not_signed_in(&failure);
            }
        }
        self.tell_all();
    }

    /// The refresh token is no more: what its renewal said speaks to requests from now on.
    fn sign_out(&mut self) {
        self.login = None;
        self.tokens.signed_out.store(self.tokens.login_failing.load_full());
        self.tokens.login_until.store(None);
        self.tell_all();
    }

    fn tell_all(&self) {
        for scope in self.scopes.values() {
            scope.slot.changed.send_replace(());
        }
        for slot in self.tokens.newcomers().slots() {
            slot.changed.send_replace(());
        }
    }

    fn on_access(&mut self, asked: &Asked, answer: Answer) {
        self.newcomer_calls -= usize::from(asked.is_newcomer);
        let repository = &asked.repository;
        // A repository that was evicted meanwhile needs no token.
        let Some(scope) = self.scopes.get_mut(repository) else { return };
        scope.plan.in_flight = false;
        let answer = answer.and_then(|granted| match granted.token.to_bearer() {
            Some(header) => Ok((granted, header)),
            None => {
                let message = "registry token holds a character that no header may carry";
                Err(Failure::new(Hop::Token, message.to_owned()))
            }
        });
        match answer {
            Ok((granted, _)) if granted.per_repository && **repository == *ALL => {
                self.tokens.go_per_repository("the registry is in ABAC mode");
            }
            Ok((granted, header)) => self.granted(asked, granted.lifetime, header),
            Err(failure) => self.not_granted(asked, failure),
        }
    }

    fn granted(&mut self, asked: &Asked, lifetime: Duration, header: HeaderValue) {
        /// `iat`, `exp` and `Date` are whole seconds: of the first one some may have passed. And a request that
        /// goes out with a token has to arrive before its end.
        const MARGIN: Duration = Duration::from_millis(1500);
        let repository = &asked.repository;
        self.numbers += 1;
        self.pause.succeeded(Instant::now());
        self.access_failing = None;
        self.tokens.access_failing.store(None);
        if asked.is_newcomer {
            self.admit(repository);
        }
        let Some(scope) = self.scopes.get_mut(repository) else { return };
        scope.plan.renew(lifetime);
        if scope.slot.refused.load(Ordering::Acquire) > asked.refused {
            // A 401 that became known while this one was on its way.
            scope.plan.due = Instant::now();
        }
        self.next_due = self.next_due.min(scope.plan.due);
        let earlier = scope.slot.bearer.load_full();
        let slot = Arc::clone(&scope.slot);
        slot.granted(Bearer {
            header,
            expires: asked.at + lifetime.saturating_sub(MARGIN),
            asked: asked.at,
            issued: self.tokens.clock(),
            number: self.numbers,
            replaces: asked.refused,
            forced: asked.refused > earlier.as_ref().map_or(0, |bearer| bearer.replaces),
            own: **repository != *ALL,
            accepted: AtomicBool::new(earlier.is_some_and(|bearer| bearer.accepted.load(Ordering::Relaxed))),
            in_vain: AtomicBool::new(false),
        });
        self.news.granted(repository);
        if scope.is_newcomer {
            // All the others are in use: its requests have their token, and the next ones ask anew.
            self.evict(repository);
        }
    }

    fn not_granted(&mut self, asked: &Asked, failure: Failure) {
        /// A sign-in that is younger than this is not to blame for a refused refresh token.
        const FRESH_LOGIN: Duration = Duration::from_secs(30);
        let (now, repository) = (Instant::now(), &asked.repository);
        let Some(scope) = self.scopes.get_mut(repository) else { return };
        scope.plan.repeat(&failure);
        let signed_out = failure.token_refused && asked.at.duration_since(asked.login) > FRESH_LOGIN;
        if signed_out {
            // What is missing is a sign-in, and whoever waits for the token waits for that.
            scope.plan.due = now;
        }
        let due = scope.plan.due;
        self.next_due = self.next_due.min(due);
        let failure = Arc::new(failure);
        if !failure.permanent {
            // A failure that was not followed by another call is the end of its row.
            let row = self.access_failing.take().filter(|row| row.next + IDLE > now);
            self.access_failing = Some(Failing::again(row.as_ref(), &failure, due));
        }
        if failure.limited
            && let Some(limited) = self.pause.begin(now, &failure)
        {
            self.tokens.limited.store(Some(limited));
            self.tell_all();
        }
        // One repository that is refused is that repository's trouble.
        if **repository == *ALL || failure.limited {
            let earlier = self.tokens.access_failing.load_full();
            self.tokens.access_failing.store(Some(Arc::new(Failing::again(earlier.as_deref(), &failure, due))));
        }
        let Some(scope) = self.scopes.get(repository) else { return };
        if signed_out {
            scope.slot.failing.store(None);
            // Of several calls that were refused together the first ends the sign-in.
            if self.login.as_ref().is_some_and(|login| login.asked == asked.login) {
                if self.login_plan.backoff.is_clear() {
                    self.login_plan.due = now;
                }
                self.sign_out();
            }
        } else {
            // A repository that is new to an outage does not begin it anew.
            let own = scope.slot.failing.load_full();
            let earlier = own.as_deref().or(self.access_failing.as_ref().filter(|_| !failure.permanent));
            scope.slot.failed(Failing::again(earlier, &failure, due));
        }
        self.news.not_granted(repository, &failure);
        if asked.is_newcomer {
            self.forget_one_of_too_many();
        }
    }

    /// Finds a place in the table for a repository whose first token has come. If there is none it stays a newcomer.
    fn admit(&mut self, repository: &Arc<str>) {
        if self.in_table >= MAX_SCOPES {
            // What has no good token goes first, then what the registry has never accepted: a name that somebody
            // invented, or one that has just come. Of equals the one that was used longest ago goes.
            let now = Instant::now();
            let rank = |slot: &Slot| match slot.good(now) {
                None => 0,
                Some(bearer) if !bearer.accepted.load(Ordering::Relaxed) => 1,
                Some(_) => 2,
            };
            let used = |slot: &Slot| slot.used.load(Ordering::Relaxed);
            let candidates = self
                .scopes
                .iter()
                .filter(|(name, scope)| !scope.is_newcomer && !scope.plan.in_flight && ***name != *ALL);
            let worst = candidates.map(|(name, scope)| (rank(&scope.slot), used(&scope.slot), Arc::clone(name))).min();
            match worst {
                Some((2, used, _)) if self.tokens.clock().saturating_sub(used) < as_millis(IN_USE) => return,
                Some((_, _, name)) => self.evict(&name),
                None => return,
            }
        }
        let Some(scope) = self.scopes.get_mut(repository) else { return };
        scope.is_newcomer = false;
        scope.plan.backoff = Backoff::default();
        self.in_table += 1;
        self.tokens.table.insert(repository, &scope.slot);
        self.tokens.newcomers().remove(repository);
    }

    /// Of the repositories that never had a token and whose calls fail, only so many are remembered.
    fn forget_one_of_too_many(&mut self) {
        let failed = self.scopes.iter().filter(|(_, scope)| scope.is_newcomer && !scope.plan.in_flight);
        if failed.clone().count() > MAX_FAILED {
            let oldest = failed.min_by_key(|(_, scope)| scope.slot.used.load(Ordering::Relaxed));
            if let Some(name) = oldest.map(|(name, _)| Arc::clone(name)) {
                self.evict(&name);
            }
        }
    }

    /// Nobody asks for this repository any more, or others need its place.
    fn evict(&mut self, name: &str) {
        let Some(scope) = self.scopes.remove(name) else { return };
        if scope.is_newcomer {
            self.tokens.newcomers().remove(name);
        } else {
            self.in_table -= 1;
            self.tokens.table.remove(name);
        }
        self.news.forget(name);
        scope.slot.evict();
    }
}
