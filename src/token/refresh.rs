//! The background task behind the store: it alone calls the issuer, and renews what is there before it ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use log::info;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::backoff::Backoff;
use super::news::News;
use super::{ALL, Bearer, Failure, Granted, Hop, Issuer, Slot, Tokens, in_trouble};
use crate::secret::Secret;

/// Token calls under way at once: ACR allows some 160 a second, and a burst of new repositories must not spend that.
const MAX_CALLS: usize = 16;

/// When the next call for something is due, and how its last ones went.
struct Plan {
    due: Instant,
    backoff: Backoff,
    in_flight: bool,
    /// The last token of which a 401 was known when its last call started.
    refused: u64,
}

impl Plan {
    fn now() -> Self {
        Self { due: Instant::now(), backoff: Backoff::default(), in_flight: false, refused: 0 }
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.in_flight && self.due <= now
    }

    /// Renew between half and two thirds of the lifetime: early enough to outlast a long outage, and
    /// spread, so that many hosts that started together do not call together.
    fn renew(&mut self, lifetime: Duration) {
        self.backoff = Backoff::default();
        self.due = Instant::now() + lifetime.mul_f64(0.5 + rand::random::<f64>() / 6.0);
    }
}

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
}

/// What a call gives.
pub type Answer = Result<Granted, Failure>;

/// The registry wants fewer token calls, of whatever scope: none is made until this ends.
#[derive(Default)]
struct Pause {
    until: Option<(Instant, Arc<Failure>)>,
    backoff: Backoff,
}

impl Pause {
    /// Its end, and what the registry said.
    fn at(&self, now: Instant) -> Option<(Instant, Arc<Failure>)> {
        self.until.clone().filter(|(until, _)| *until > now)
    }

    /// Calls that were under way together are refused together, and are one refusal.
    fn begin(&mut self, now: Instant, failure: &Arc<Failure>) {
        if self.at(now).is_none() {
            self.until = Some((now + self.backoff.next(failure), Arc::clone(failure)));
        }
    }
}

/// The state of the background task; nobody else touches it.
pub struct Refresher<'a> {
    tokens: &'a Tokens,
    issuer: Arc<dyn Issuer>,
    login: Option<Login>,
    /// Why its renewal fails, if it does. It matters to requests from the end of the refresh token on.
    login_failure: Option<Arc<Failure>>,
    login_asked: Instant,
    login_plan: Plan,
    plans: HashMap<Arc<str>, Plan>,
    pause: Pause,
    calls: JoinSet<Answer>,
    kinds: HashMap<Id, Call>,
    /// The one scope of a registry that honours the wildcard.
    all: Arc<HashMap<Arc<str>, Arc<Slot>>>,
    numbers: u64,
    news: News,
}

impl<'a> Refresher<'a> {
    pub fn new(tokens: &'a Tokens, issuer: Arc<dyn Issuer>) -> Self {
        Self {
            tokens,
            issuer,
            login: None,
            login_failure: None,
            login_asked: Instant::now(),
            login_plan: Plan::now(),
            plans: HashMap::new(),
            pause: Pause::default(),
            calls: JoinSet::new(),
            kinds: HashMap::new(),
            all: Arc::new(HashMap::from([(ALL.into(), Arc::clone(&tokens.all))])),
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
                        Some(Call::Access(asked)) => {
                            self.on_access(&asked, answer);
                            self.tokens.room.send_replace(());
                        }
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
        /// Look at least this often; every other event wakes the task by itself.
        const IDLE: Duration = Duration::from_secs(60);
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
            self.tokens.login_trying.store(true, Ordering::Release);
            let issuer = Arc::clone(&self.issuer);
            let id = self.calls.spawn(async move { issuer.login().await }).id();
            self.kinds.insert(id, Call::Login);
        } else if !self.login_plan.in_flight {
            next = next.min(self.login_plan.due);
        }
        let slots = self.slots();
        let pause = self.pause.at(now);
        let news = &mut self.news;
        self.plans.retain(|name, plan| {
            let kept = plan.in_flight || slots.contains_key(name);
            if !kept {
                news.forget(name);
            }
            kept
        });
        for (name, slot) in slots.iter() {
            let plan = self.plans.entry(Arc::clone(name)).or_insert_with(Plan::now);
            let refused = slot.refused.load(Ordering::Acquire);
            // A 401 is a reason to renew at once, but not to forget that renewals fail.
            if refused > plan.refused && !plan.in_flight && plan.backoff.is_clear() {
                plan.due = now;
            }
            if !plan.is_due(now) {
                if !plan.in_flight {
                    next = next.min(plan.due);
                }
                continue;
            }
            if slot.is_idle(self.tokens.clock()) && **name != *ALL {
                self.tokens.let_go(name);
                continue;
            }
            let Some(login) = &self.login else {
                continue;
            };
            if let Some((until, failure)) = &pause {
                next = next.min(*until);
                if slot.trying.load(Ordering::Acquire) {
                    slot.failed(Arc::clone(failure));
                }
                continue;
            }
            if self.calls.len() >= MAX_CALLS {
                continue;
            }
            plan.in_flight = true;
            plan.refused = refused;
            slot.trying.store(true, Ordering::Release);
            let asked = Asked { repository: Arc::clone(name), at: now, login: login.asked, refused };
            let (issuer, token, scope) =
                (Arc::clone(&self.issuer), login.token.clone(), format!("repository:{name}:pull"));
            let id = self.calls.spawn(async move { issuer.access(&token, &scope).await }).id();
            self.kinds.insert(id, Call::Access(asked));
        }
        next
    }

    /// The scopes to keep fresh: one for all, or those of the repositories in use.
    fn slots(&self) -> Arc<HashMap<Arc<str>, Arc<Slot>>> {
        if self.tokens.per_repository.load(Ordering::Acquire) {
            self.tokens.repositories.load_full()
        } else {
            Arc::clone(&self.all)
        }
    }

    fn on_login(&mut self, answer: Answer) {
        self.login_plan.in_flight = false;
        match answer {
            Ok(granted) => {
                if granted.per_repository {
                    self.go_per_repository();
                }
                let (asked, ends) = (self.login_asked, self.login_asked + granted.lifetime);
                self.login = Some(Login { token: granted.token, asked, ends });
                self.login_plan.renew(granted.lifetime);
                self.tokens.login_until.store(Some(Arc::new(ends)));
                self.login_failure = None;
                self.tokens.login_failure.store(None);
                self.tokens.login_trouble.store(None);
                self.news.signed_in();
            }
            Err(failure) => {
                self.login_plan.due = Instant::now() + self.login_plan.backoff.next(&failure);
                let failure = Arc::new(failure);
                in_trouble(&self.tokens.login_trouble, &failure);
                self.login_failure = Some(Arc::clone(&failure));
                // While the refresh token holds, its renewal's failure is no business of the requests.
                if self.login.is_none() {
                    self.tokens.login_failure.store(Some(Arc::clone(&failure)));
                }
                // Last: whoever reads the line and then asks finds what it says.
                self.news.not_signed_in(&failure);
            }
        }
        self.tokens.login_trying.store(false, Ordering::Release);
        self.tell_all();
    }

    /// The refresh token is no more: what its renewal said speaks to requests from now on.
    fn sign_out(&mut self) {
        self.login = None;
        self.tokens.login_failure.store(self.login_failure.clone());
        self.tell_all();
    }

    fn tell_all(&self) {
        self.tokens.all.changed.send_replace(());
        for slot in self.tokens.repositories.load().values() {
            slot.changed.send_replace(());
        }
    }

    fn on_access(&mut self, asked: &Asked, answer: Answer) {
        let (now, repository) = (Instant::now(), &asked.repository);
        let slot = self.slots().get(repository).map(Arc::clone);
        let Some(plan) = self.plans.get_mut(repository) else {
            return;
        };
        plan.in_flight = false;
        // A repository that was let go meanwhile needs no token.
        let Some(slot) = slot else { return };
        let answer = answer.and_then(|granted| match granted.token.to_bearer() {
            Some(header) => Ok((granted, header)),
            None => {
                let message = "registry token holds a character that no header may carry";
                Err(Failure::new(Hop::Token, message.to_owned()))
            }
        });
        match answer {
            Ok((granted, _)) if granted.per_repository && **repository == *ALL => self.go_per_repository(),
            Ok((granted, header)) => {
                plan.renew(granted.lifetime);
                self.pause.backoff = Backoff::default();
                self.numbers += 1;
                /// `iat`, `exp` and `Date` are whole seconds: of the first one some may have passed. And a request that
                /// goes out with a token has to arrive before its end.
                const MARGIN: Duration = Duration::from_millis(1500);
                let replaced = slot.bearer.load().as_ref().map_or(0, |bearer| bearer.replaces);
                slot.granted(Bearer {
                    header,
                    expires: asked.at + granted.lifetime.saturating_sub(MARGIN),
                    asked: asked.at,
                    issued: self.tokens.clock(),
                    number: self.numbers,
                    replaces: asked.refused,
                    forced: asked.refused > replaced,
                });
                self.tokens.access_trouble.store(None);
                self.news.granted(repository);
            }
            Err(failure) => {
                /// A sign-in that is younger than this is not to blame for a refused refresh token.
                const FRESH_LOGIN: Duration = Duration::from_secs(30);
                plan.due = now + plan.backoff.next(&failure);
                let signed_out = failure.token_refused && asked.at.duration_since(asked.login) > FRESH_LOGIN;
                let failure = Arc::new(failure);
                if failure.limited {
                    self.pause.begin(now, &failure);
                }
                // One repository that is refused is that repository's trouble.
                if **repository == *ALL || failure.limited {
                    in_trouble(&self.tokens.access_trouble, &failure);
                }
                if signed_out {
                    // What is missing is a sign-in, and whoever waits for the token waits for that.
                    plan.due = now;
                    slot.failure.store(None);
                    slot.trying.store(true, Ordering::Release);
                    // Of several calls that were refused together the first ends the sign-in.
                    if self.login.as_ref().is_some_and(|login| login.asked == asked.login) {
                        if self.login_plan.backoff.is_clear() {
                            self.login_plan.due = now;
                            self.tokens.login_trying.store(true, Ordering::Release);
                        }
                        self.sign_out();
                    }
                } else {
                    slot.failed(Arc::clone(&failure));
                }
                self.news.not_granted(repository, &failure);
            }
        }
    }

    fn go_per_repository(&mut self) {
        if !self.tokens.per_repository.swap(true, Ordering::AcqRel) {
            info!("registry token: the registry is in ABAC mode, one token a repository");
            self.tokens.access_trouble.store(None);
            self.tokens.all.trying.store(false, Ordering::Release);
            self.tokens.all.changed.send_replace(());
        }
    }
}
