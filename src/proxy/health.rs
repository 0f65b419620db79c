//! How a registry does, as the requests to it tell: what is asked of it, and what the log says while stale answers stand in.
//!
//! One for each registry and identity, because ACR meters and refuses by identity. A hit looks at none of it.

use std::fmt::{self, Display, Formatter};
use std::future::Future;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::{HeaderMap, StatusCode};
use log::{info, warn};
use tokio::time::{Instant, sleep};

use super::fail::{HeldBy, Trouble};
use super::refused::Refused;
use super::registry_error::RegistryError;
use super::target::Target;
use crate::access::Client;
use crate::answer::retry_after;
use crate::cache::Fetched;
use crate::config::Domain;
use crate::token::Bearer;

mod aside;
mod breaker;
mod held;
mod limited;
mod pause;
mod place;
mod stale;
mod turn;

use aside::Aside;
use breaker::Breaker;
use held::HeldBack;
use limited::Limited;
use pause::Pauses;
use place::Places;
use stale::{Object, Stale};
use turn::{Budget, MAX_WAIT};

pub(crate) use pause::Call;

/// Clients can cause as many refusals as they like. To look through a full cache takes a few milliseconds.
const LOOKS: Duration = Duration::from_millis(100);

/// The state of one registry.
pub(crate) struct Health {
    /// The registry's name in the log.
    name: String,
    since: Instant,
    /// Milliseconds from then to the last answer of the registry's that was one; 0 before the first.
    success: AtomicU64,
    reads: AtomicU64,
    pause_count: AtomicU64,
    /// As `success`: when what is kept was last looked through because a client's request was refused.
    looked: AtomicU64,
    breaker: Breaker,
    pauses: Pauses,
    limited: Limited,
    places: Places,
    /// Replaced when settings are read again.
    budget: ArcSwapOption<Budget>,
    held: HeldBack,
    stale: Stale,
    /// Of its storage.
    aside: Aside,
}

impl Health {
    /// Of a registry of which nothing is known, and which may be asked so much.
    pub(crate) fn new(domain: &Domain, reads_per_minute: Option<NonZeroU32>) -> Self {
        Self {
            name: domain.authority().to_owned(),
            since: Instant::now(),
            success: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            pause_count: AtomicU64::new(0),
            looked: AtomicU64::new(0),
            breaker: Breaker::default(),
            pauses: Pauses::default(),
            limited: Limited::default(),
            places: Places::default(),
            budget: ArcSwapOption::new(reads_per_minute.map(Budget::new).map(Arc::new)),
            held: HeldBack::default(),
            stale: Stale::default(),
            aside: Aside::default(),
        }
    }

    /// Of a registry that is reached in another way than `before`: what was counted goes on, and how it does is found out anew.
    pub(crate) fn in_place_of(before: &Self, domain: &Domain, reads_per_minute: Option<NonZeroU32>) -> Self {
        let count = |counter: &AtomicU64| AtomicU64::new(counter.load(Ordering::Relaxed));
        Self {
            since: before.since,
            success: count(&before.success),
            reads: count(&before.reads),
            pause_count: count(&before.pause_count),
            stale: Stale::after(&before.stale),
            ..Self::new(domain, reads_per_minute)
        }
    }

    /// From now on the registry may be asked so much. What has gone out lately does not count.
    pub(crate) fn set_reads(&self, reads_per_minute: Option<NonZeroU32>) {
        self.budget.store(reads_per_minute.map(Budget::new).map(Arc::new));
    }

    /// Requests that have gone out to the registry, each try counted. Token calls are not among them: ACR counts those apart.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// The registry has given an answer that is one: what was asked for, or that it is not there.
    pub(crate) fn succeeded(&self) {
        self.success.store(self.millis(), Ordering::Relaxed);
        self.limited.works();
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Whether all that is kept may be looked through because of one answer to a client: not more often than [`LOOKS`].
    pub(crate) fn may_look_through(&self) -> bool {
        let (last, now) = (self.looked.load(Ordering::Relaxed), self.millis());
        let is_due = last == 0 || u128::from(now.saturating_sub(last)) >= LOOKS.as_millis();
        is_due && self.looked.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// How long ago it last did.
    pub(crate) fn last_success(&self) -> Option<Duration> {
        let millis = self.success.load(Ordering::Relaxed);
        (millis > 0).then(|| self.since.elapsed().saturating_sub(Duration::from_millis(millis)))
    }

    /// Whether it is known to be down.
    pub(crate) fn is_down(&self) -> bool {
        self.breaker.down().is_some()
    }

    /// Why it is known to be down, if it is.
    pub(crate) fn why_down(&self) -> Option<Arc<Trouble>> {
        self.breaker.down()
    }

    /// How often the registry has asked for a pause.
    pub(crate) fn pauses(&self) -> u64 {
        self.pause_count.load(Ordering::Relaxed)
    }

    /// What is left of the pause of these calls.
    pub(crate) fn pause_left(&self, call: Call) -> Duration {
        self.pauses.of(call).map_or(Duration::ZERO, |pause| pause.until.saturating_duration_since(Instant::now()))
    }

    /// The reads a minute that the settings allow, and how long one that came now would wait for its turn.
    pub(crate) fn budget(&self) -> Option<(NonZeroU32, Duration)> {
        self.budget.load().as_deref().map(Budget::state)
    }

    /// How many answers have been stale because of trouble.
    pub(crate) fn stale_answers(&self) -> u64 {
        self.stale.answers()
    }

    /// A request goes out to the registry, in its turn or, as one that is sent again, without.
    pub(crate) fn read(&self, in_turn: bool) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if !in_turn && let Some(budget) = &*self.budget.load() {
            budget.overdraw();
        }
    }

    /// Waits until the budget has room for a request; `Err` if that would take too long.
    pub(crate) async fn turn(&self) -> Result<(), Trouble> {
        let Some(budget) = self.budget.load_full() else { return Ok(()) };
        let turn = budget.take();
        if turn == Ok(Duration::ZERO) {
            return Ok(());
        }
        if self.held.one() {
            warn!("acr {}: limits.registry_reads_per_minute is used up: requests wait for their turn", self.name);
        }
        match turn {
            Ok(wait) => {
                sleep(wait).await;
                Ok(())
            }
            Err(left) => Err(Trouble::Held(HeldBy::Budget, left)),
        }
    }

    /// Takes a turn for a read that no client waits for, if one is spare.
    pub(crate) fn spare_turn(&self) -> bool {
        self.budget.load().as_deref().is_none_or(Budget::take_spare)
    }

    /// Runs a flight that this client has begun as soon as there is a place for it; `Err` if that takes too long.
    pub(crate) async fn in_place<T>(
        &self,
        client: Option<Client>,
        flight: impl Future<Output = T>,
    ) -> Result<T, Trouble> {
        self.places.run(client, flight).await.ok_or(Trouble::Held(HeldBy::Queue, MAX_WAIT))
    }

    /// The registry has answered a call with 429, or with 503 and `Retry-After`: nothing of its kind is asked for a while.
    /// `body` is `None` where it is not read, or not whole. Returns the pause that the answer asks for, with which a client that gets it
    /// comes back when those may who are refused meanwhile.
    ///
    /// The limit of a cache rule's source is not the registry's, and other rules are served. Its 429 names the rule, and has no
    /// `Retry-After`; without the body nothing else tells.
    pub(crate) fn limited(
        &self,
        call: Call,
        status: StatusCode,
        headers: &HeaderMap,
        body: Option<&[u8]>,
    ) -> Option<Duration> {
        if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            return None;
        }
        let pause = retry_after(headers);
        let is_others = body.map_or(pause.is_none(), Refused::is_about_rule);
        if is_others {
            return None;
        }
        if let Some((pause, is_new)) = self.pauses.answered(call, status, pause) {
            self.pause_count.fetch_add(1, Ordering::Relaxed);
            self.tell_over(self.limited.pause_begins(call, pause, is_new));
            if is_new {
                let (status, calls, seconds) = (status.as_u16(), call.plural(), pause.as_secs());
                warn!("acr {}: {status}: it limits requests, and is asked for no {calls} for {seconds} s", self.name);
            }
        }
        Pauses::wanted(status, pause)
    }

    fn tell_over(&self, over: impl IntoIterator<Item = limited::Over>) {
        for over in over {
            info!("acr {}: {over}", self.name);
        }
    }

    /// Tells the log what has ended by itself: a limit, and a time of waits for the budget. No request ends these, for none may come.
    /// Called every few seconds.
    pub(crate) fn look(&self) {
        self.tell_over(self.limited.over());
        if let Some(over) = self.held.over() {
            info!("acr {}: its reads a minute suffice again: {over}", self.name);
        }
    }

    /// Something begun is left for [`Self::look`] to end.
    #[cfg(test)]
    pub(crate) fn is_watched(&self) -> bool {
        self.limited.is_active() || self.held.is_active()
    }

    /// This host of its storage, or the blob of this path, has failed there, and is not asked for by this proxy for so long.
    pub(crate) fn put_aside(&self, name: &str, pause: Duration) {
        self.aside.put(name, pause);
    }

    /// Whether that is so now.
    pub(crate) fn is_aside(&self, name: &str) -> bool {
        self.aside.has(name)
    }

    /// Waits for something of the registry's, until that is known to be down: then nobody waits for it any longer.
    pub(crate) async fn unless_down<T>(&self, wait: impl Future<Output = T>) -> Result<T, Trouble> {
        tokio::select! {
            biased;
            output = wait => Ok(output),
            cause = self.breaker.opens() => Err(Trouble::Down(cause)),
        }
    }

    /// Waits until the registry is known to be down; returns why.
    pub(crate) async fn until_down(&self) -> Arc<Trouble> {
        self.breaker.opens().await
    }

    /// Whether the registry may be asked; if not, why not.
    pub(crate) fn may_ask(&self, call: Call) -> Result<(), Trouble> {
        if let Some(cause) = self.breaker.down() {
            return Err(Trouble::Down(cause));
        }
        match self.pauses.of(call) {
            Some(pause) => Err(Trouble::Limited(pause.status, pause.until)),
            None => Ok(()),
        }
    }

    /// A request has failed for want of the registry, or takes long. True if a probe is to be started, see [`super::probe`].
    pub(crate) fn suspected(&self, has_failed: bool) -> bool {
        self.breaker.suspected(has_failed)
    }

    /// Something has failed since the last good answer.
    pub(crate) fn is_suspected(&self) -> bool {
        self.breaker.is_suspected()
    }

    /// What it is not asked for during a pause, if there is one; a clause about it.
    pub(crate) fn paused(&self) -> Option<String> {
        let (left, call) =
            Call::ALL.into_iter().map(|call| (self.pause_left(call), call)).max_by_key(|(left, _)| *left)?;
        let (calls, seconds) = (call.plural(), left.as_secs() + 1);
        (!left.is_zero()).then(|| format!("it limits requests, and is asked for no {calls} for another {seconds} s"))
    }

    /// Why clients may get what is kept, and nothing of the registry's, with no pause and without its being known to be down; a clause
    /// about it.
    pub(crate) fn trouble(&self) -> Option<String> {
        if self.limited.is_open() {
            return Some("it has limited requests, and has given no good answer since".to_owned());
        }
        self.stale
            .lasts()
            .then(|| "it has failed to answer within the last minute, and what is kept stood in".to_owned())
    }

    /// The registry has answered something, whatever it is.
    pub(crate) fn works(&self) {
        if let Some(lasted) = self.breaker.works() {
            info!("acr {}: it answers again, after {}", self.name, Lasted(lasted));
        }
    }

    /// What a probe has found.
    pub(crate) fn probed(&self, found: Result<(), Trouble>) {
        let cause = match found {
            Ok(()) => return self.works(),
            // This process has no descriptors left, or the like.
            Err(Trouble::Internal(_)) => return,
            Err(trouble) => trouble,
        };
        if self.breaker.probe_failed(&cause) {
            warn!("acr {}: it is down, and probed until it answers: {cause}", self.name);
        }
    }

    /// Nobody probes any more.
    pub(crate) fn probes_end(&self) {
        self.breaker.probes_end();
    }

    /// Something stale was the answer to this request, for this reason; `None` if the registry may still answer.
    pub(crate) fn answered_stale(&self, target: &Target, bearer: Option<Arc<Bearer>>, why: Option<&Fetched<Trouble>>) {
        let object = Object::of(target);
        match why.map(|why| Cause::of(why, bearer)) {
            None => self.stale_begins(self.stale.answered_meanwhile(object), target, &Cause::Slow),
            Some(Some(cause)) => self.stale_begins(self.stale.answered(object, cause.is_registrys()), target, &cause),
            Some(None) => {}
        }
    }

    /// The registry has failed to answer this request, and something stale stands in.
    pub(crate) fn stands_in(&self, target: &Target, bearer: Option<Arc<Bearer>>, why: &Fetched<Trouble>) {
        if let Fetched::Answer { is_trouble: true, .. } | Fetched::Failed { is_trouble: true, .. } = why
            && let Some(cause) = Cause::of(why, bearer)
        {
            self.stale_begins(self.stale.stands_in(Object::of(target), cause.is_registrys(), 0), target, &cause);
        }
    }

    fn stale_begins(&self, is_first: bool, target: &Target, cause: &Cause<'_>) {
        if is_first {
            let path = target.path();
            warn!("acr {}: answers are stale from now on, the first of them {path}: {cause}", self.name);
        }
    }

    /// The registry has given an answer to this request.
    pub(crate) fn answered_fresh(&self, target: &Target) {
        for over in self.stale.answered_fresh(Object::of(target)) {
            info!("acr {}: answers are fresh again: {over}", self.name);
        }
    }
}

/// A time, for people.
struct Lasted(Duration);

impl Display for Lasted {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds / 60 {
            0 => write!(f, "{seconds} s"),
            minutes => write!(f, "{minutes} min {} s", seconds % 60),
        }
    }
}

/// Why something stale is a better answer.
enum Cause<'a> {
    Trouble(&'a Trouble),
    Answer(RegistryError),
    /// It may still answer.
    Slow,
}

impl<'a> Cause<'a> {
    /// `bearer` is what the registry was asked with.
    fn of(why: &'a Fetched<Trouble>, bearer: Option<Arc<Bearer>>) -> Option<Self> {
        match why {
            Fetched::Failed { trouble, .. } => Some(Self::Trouble(trouble)),
            Fetched::Answer { content, .. } => {
                Some(Self::Answer(RegistryError::of(content.status, &content.body, bearer)))
            }
            Fetched::Kept { .. } | Fetched::NotKept { .. } | Fetched::Pass(_) => None,
        }
    }

    /// It concerns all of the registry. Any other may be one repository's, while others are served.
    fn is_registrys(&self) -> bool {
        match self {
            Self::Trouble(trouble) => trouble.is_registrys(),
            Self::Answer(_) | Self::Slow => false,
        }
    }
}

impl Display for Cause<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trouble(trouble) => trouble.fmt(f),
            Self::Answer(error) => error.fmt(f),
            Self::Slow => f.write_str("the registry has not answered within a second"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method, header};
    use oci::name::Repository;
    use oci::request::Request;

    use super::*;

    /// `acr_cache_proxy_stale_answers_total` fell to 0 when the egress was changed.
    #[test]
    fn a_counter_began_anew_when_a_registry_was_reached_in_another_way() {
        let Ok(Request::Pull(pull)) = Request::parse(&Method::GET, "/v2/a/manifests/1", None) else { panic!("a pull") };
        let target = Target::new(&pull, &Repository::new("hub", false, pull.name.as_str()));
        let domain = Domain::parse("example.azurecr.io").expect("a domain");
        let limit = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static("5"))]);
        let before = Health::new(&domain, None);
        before.read(true);
        before.limited(Call::Manifest, StatusCode::TOO_MANY_REQUESTS, &limit, None);
        before.answered_stale(&target, None, None);
        let after = Health::in_place_of(&before, &domain, None);
        assert_eq!((after.reads(), after.pauses(), after.stale_answers()), (1, 1, 1));
        assert_eq!((after.pause_left(Call::Manifest), after.trouble()), (Duration::ZERO, None));
    }
}
