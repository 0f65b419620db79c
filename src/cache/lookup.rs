//! A request for something that may be kept: from the store, or by a flight to the registry that it shares with all others.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::Cache;
use super::counters::Reason;
use super::entry::{Content, Entry, Freshness, Known, PASSES};
use super::flights::Joined;
use super::key::{Key, KeyRef};
use crate::config::Lifetimes;
use crate::metrics::labels::How;

/// Where something stale is at hand, a client waits for the fresh answer no longer than this.
const STALE_WAIT: Duration = Duration::from_secs(1);

/// Asks a registry for one object.
pub(crate) trait Origin: Send + 'static {
    /// Why there is no answer.
    type Trouble: Clone + Send + Sync + 'static;

    /// Asks, within a time of its own: the flight lasts as long as this. `known` is what was kept, to ask whether it has
    /// changed.
    fn fetch(self, known: Option<Arc<Entry>>) -> impl Future<Output = Fetched<Self::Trouble>> + Send;
}

/// What a flight brings to all who wait for it.
#[derive(Clone, Debug)]
pub(crate) enum Fetched<T> {
    /// An answer that is kept; with it, under another key, the same by its digest.
    Kept {
        /// The answer.
        entry: Arc<Entry>,
        /// Another key under which it is known now.
        also: Option<(Key, Arc<Entry>)>,
    },
    /// An answer of the registry's that is not kept.
    Answer {
        /// The answer.
        content: Arc<Content>,
        /// It is not the client's doing, so something stale is a better answer.
        is_trouble: bool,
    },
    /// The answer is nothing to share. Each request goes to the registry by itself.
    Pass(Reason),
    /// The same of an answer that others will be like, because of what is asked for: its length, its type.
    NotKept {
        /// When the registry was asked for it.
        asked: Instant,
    },
    /// There is no answer.
    Failed {
        /// Why.
        trouble: T,
        /// It is not the client's doing, so something stale is a better answer.
        is_trouble: bool,
        /// The registry was asked. It is not while it is known to be down, or without a token.
        has_asked: bool,
    },
}

/// What a request gets.
#[derive(Debug)]
pub(crate) enum Served<T> {
    /// An answer that is kept.
    Entry(Arc<Entry>, How),
    /// Another answer of the registry's.
    Answer(Arc<Content>, How),
    /// It goes to the registry by itself.
    Pass(Reason),
    /// There is none.
    Failed(T, How),
}

impl<T: Clone + Send + Sync + 'static> Cache<T> {
    /// The fresh entry for a key. Waits for nothing and allocates nothing.
    pub(crate) fn hit(&self, key: &KeyRef<'_>, lifetimes: &Lifetimes, now: Instant) -> Option<Arc<Entry>> {
        let entry = self.answer(key).filter(|entry| entry.is_fresh(lifetimes, now))?;
        self.counters.hit(entry.kind);
        Some(entry)
    }

    /// The answer for a key. Asks `origin` only if nothing fresh is kept and no flight for the key is under way. The second
    /// value is why something stale was the answer, where the registry was asked.
    pub(crate) async fn look_up<O: Origin<Trouble = T>>(
        self: &Arc<Self>,
        key: KeyRef<'_>,
        lifetimes: &Lifetimes,
        origin: impl FnOnce() -> O,
    ) -> (Served<T>, Option<Fetched<T>>) {
        let now = Instant::now();
        let known = match self.store.get(&key) {
            Some(Known::Passes(until)) if now < until => return (self.not_kept(), None),
            known => known.and_then(Known::into_answer),
        };
        let freshness = known.as_ref().map_or(Freshness::Ended, |entry| entry.freshness(lifetimes, now));
        let (known, is_usable) = match (known, freshness) {
            (Some(entry), Freshness::Fresh) => {
                self.counters.hit(entry.kind);
                return (Served::Entry(entry, How::Hit), None);
            }
            (Some(entry), Freshness::Revalidate) => {
                // Its own flight goes on by itself, as it is dropped here.
                let flight = self.fly(key, lifetimes, Some(&entry), true, origin);
                self.counters.stale();
                if !matches!(flight, Flight::Under(Landing::Own(_), _)) {
                    self.counters.stale_unasked();
                }
                return (Served::Entry(entry, How::Revalidate), None);
            }
            (known, freshness) => (known, freshness == Freshness::Stale),
        };
        let usable = known.clone().filter(|_| is_usable);
        let (landing, how) = match self.fly(key, lifetimes, known.as_ref(), is_usable, origin) {
            Flight::Landed(entry) => {
                self.counters.hit(entry.kind);
                return (Served::Entry(entry, How::Hit), None);
            }
            Flight::Full => {
                if let Some(entry) = usable {
                    self.counters.stale();
                    self.counters.stale_unasked();
                    return (Served::Entry(entry, How::Stale), None);
                }
                self.counters.passed(Reason::Full);
                return (Served::Pass(Reason::Full), None);
            }
            Flight::Under(landing, how) => (landing, how),
        };
        let fetched = match &usable {
            Some(_) => timeout(STALE_WAIT, landing.wait()).await.ok(),
            None => Some(landing.wait().await),
        };
        self.served(fetched, how, usable)
    }

    /// What a request gets of what its flight has brought: `usable`, if that is better. Without it `fetched` is there, as the wait for
    /// the flight has no limit then.
    fn served(
        &self,
        fetched: Option<Fetched<T>>,
        how: How,
        usable: Option<Arc<Entry>>,
    ) -> (Served<T>, Option<Fetched<T>>) {
        let is_trouble = match &fetched {
            None => true,
            Some(Fetched::Answer { is_trouble, .. } | Fetched::Failed { is_trouble, .. }) => *is_trouble,
            Some(Fetched::Kept { .. } | Fetched::NotKept { .. } | Fetched::Pass(_)) => false,
        };
        if let Some(entry) = usable.filter(|_| is_trouble) {
            self.counters.stale();
            if how == How::Collapsed {
                self.counters.stale_unasked();
            }
            return (Served::Entry(entry, How::Stale), fetched);
        }
        match (how, &fetched) {
            // It goes to the registry after all.
            (How::Collapsed, Some(Fetched::NotKept { .. } | Fetched::Pass(_))) => {}
            (How::Collapsed, _) => self.counters.collapsed(),
            _ => self.counters.miss(),
        }
        let served = match fetched {
            Some(Fetched::Kept { entry, .. }) => Served::Entry(entry, how),
            Some(Fetched::Answer { content, .. }) => Served::Answer(content, how),
            Some(Fetched::Failed { trouble, .. }) => Served::Failed(trouble, how),
            Some(Fetched::NotKept { .. }) => self.not_kept(),
            Some(Fetched::Pass(reason)) => {
                self.counters.passed(reason);
                Served::Pass(reason)
            }
            None => Served::Pass(Reason::Fault),
        };
        (served, None)
    }

    fn not_kept(&self) -> Served<T> {
        self.counters.passed(Reason::Answer);
        Served::Pass(Reason::Answer)
    }

    /// Starts a flight for this key if there is none and nothing fresh is kept, and waits for nothing.
    pub(crate) fn prefetch<O: Origin<Trouble = T>>(
        self: &Arc<Self>,
        key: KeyRef<'_>,
        lifetimes: &Lifetimes,
        origin: impl FnOnce() -> O,
    ) {
        self.fly(key, lifetimes, self.answer(&key).as_ref(), false, origin);
    }

    /// Joins the flight for this key, or starts it. `is_usable`: a request that starts it is answered by what is known, unless
    /// the flight brings something better.
    fn fly<O: Origin<Trouble = T>>(
        self: &Arc<Self>,
        key: KeyRef<'_>,
        lifetimes: &Lifetimes,
        known: Option<&Arc<Entry>>,
        is_usable: bool,
        origin: impl FnOnce() -> O,
    ) -> Flight<T> {
        // A flight stores its result as it ends, so whoever finds none under way looks again.
        let landed = || self.answer(&key).filter(|entry| entry.is_fresh(lifetimes, Instant::now()));
        match self.flights.join(key, landed) {
            Err(entry) => Flight::Landed(entry),
            Ok(Joined::Full) => Flight::Full,
            Ok(Joined::Next(receiver)) => Flight::Under(Landing::Others(receiver), How::Collapsed),
            Ok(Joined::First(number, sender)) => {
                let flight = InFlight { cache: Arc::clone(self), key: key.to_key(), number, is_over: false };
                let how = if known.is_some() { How::Refresh } else { How::Miss };
                let (origin, known, lifetimes) = (origin(), known.cloned(), *lifetimes);
                let own = OwnFlight(Some(Box::pin(async move {
                    let mut fetched = origin.fetch(known).await;
                    if is_usable && let Fetched::Failed { is_trouble: true, has_asked: false, .. } = fetched {
                        flight.cache.counters.stale_unasked();
                    }
                    // Over before its result is told: who sees that and asks again is a request of its own.
                    flight.land(&mut fetched, &lifetimes);
                    // Nobody joins it any more.
                    if sender.receiver_count() > 0 {
                        sender.send_replace(Some(fetched.clone()));
                    }
                    fetched
                })));
                Flight::Under(Landing::Own(own), how)
            }
        }
    }
}

impl<T> Cache<T> {
    /// The answer under this key, however old.
    fn answer(&self, key: &KeyRef<'_>) -> Option<Arc<Entry>> {
        self.store.get(key)?.into_answer()
    }

    /// Keeps what a flight has brought. What is kept under another key goes from it: nobody who waits wants that.
    fn store_fetched(&self, key: &Key, fetched: &mut Fetched<T>, lifetimes: &Lifetimes) {
        match fetched {
            // What was kept has to go even where a 404 is not kept itself.
            Fetched::Kept { entry, .. } if entry.is_only_told(lifetimes) => {
                self.store.remove_if(&key.as_ref(), |known| {
                    known.answer().is_none_or(|kept| kept.confirmed <= entry.confirmed)
                });
            }
            Fetched::Kept { entry, also } => {
                let is_kept = self.store.insert(key.clone(), Known::Answer(Arc::clone(entry)));
                if let Some((key, entry)) = also.take() {
                    self.store.insert(key, Known::Answer(entry));
                }
                if !is_kept {
                    *fetched = Fetched::Answer { content: Arc::clone(&entry.content), is_trouble: false };
                }
            }
            // The registry has given an answer, and it is the client's: what was kept before it does not come back.
            Fetched::Answer { is_trouble: false, .. } | Fetched::Failed { is_trouble: false, .. } => {
                self.store.remove(&key.as_ref());
            }
            // It is newer than what was kept, which does not come back either; but not than what another flight has brought.
            Fetched::NotKept { asked } if !self.has_newer(key, *asked, lifetimes) => {
                self.store.insert(key.clone(), Known::Passes(Instant::now() + PASSES));
            }
            Fetched::Answer { .. } | Fetched::Failed { .. } | Fetched::NotKept { .. } | Fetched::Pass(_) => {}
        }
    }

    /// What is kept under this key was not asked for before that time, and is fresh or can stand in.
    fn has_newer(&self, key: &Key, than: Instant, lifetimes: &Lifetimes) -> bool {
        let kept = self.answer(&key.as_ref()).filter(|kept| kept.confirmed >= than);
        kept.is_some_and(|kept| kept.freshness(lifetimes, Instant::now()) != Freshness::Ended)
    }
}

/// What there is for a request that needs the registry.
enum Flight<T: Clone + Send + Sync + 'static> {
    /// A flight has just ended with this.
    Landed(Arc<Entry>),
    /// One is under way, this request's or another's.
    Under(Landing<T>, How),
    Full,
}

/// The flight of the request that asks. Its request drives it, which saves a task and waking it; if that stops waiting, the
/// rest goes on in a task of its own, for the others and for what is kept.
struct OwnFlight<T: Clone + Send + Sync + 'static>(Option<Pin<Box<dyn Future<Output = Fetched<T>> + Send>>>);

impl<T: Clone + Send + Sync + 'static> Future for OwnFlight<T> {
    type Output = Fetched<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let fetched = self.0.as_mut().map(|flight| {
            // A panic ends the flight, as it would end a task, and not the request.
            catch_unwind(AssertUnwindSafe(|| flight.as_mut().poll(context)))
        });
        let fetched = match fetched {
            Some(Ok(polled)) => ready!(polled),
            Some(Err(_)) | None => Fetched::Pass(Reason::Fault),
        };
        self.0 = None;
        Poll::Ready(fetched)
    }
}

impl<T: Clone + Send + Sync + 'static> Drop for OwnFlight<T> {
    fn drop(&mut self) {
        // Without a runtime the process ends, and nobody waits.
        if let (Some(flight), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(flight);
        }
    }
}

/// The end of a flight, to which a request waits.
enum Landing<T: Clone + Send + Sync + 'static> {
    Own(OwnFlight<T>),
    Others(watch::Receiver<Option<Fetched<T>>>),
}

impl<T: Clone + Send + Sync + 'static> Landing<T> {
    async fn wait(self) -> Fetched<T> {
        match self {
            Self::Own(flight) => flight.await,
            Self::Others(mut receiver) => {
                match receiver.wait_for(Option::is_some).await.map(|fetched| fetched.clone()) {
                    Ok(Some(fetched)) => fetched,
                    Ok(None) | Err(_) => Fetched::Pass(Reason::Fault),
                }
            }
        }
    }
}

/// Takes the flight off the table, also after a panic: then its receivers see that the sender is gone.
struct InFlight<T> {
    cache: Arc<Cache<T>>,
    key: Key,
    number: u64,
    is_over: bool,
}

impl<T> InFlight<T> {
    /// Keeps what it has brought. What was forgotten meanwhile is an answer that is not kept.
    fn land(mut self, fetched: &mut Fetched<T>, lifetimes: &Lifetimes) {
        self.is_over = true;
        let store = || self.cache.store_fetched(&self.key, fetched, lifetimes);
        let is_forgotten = !self.cache.flights.end(&self.key, self.number, store);
        if is_forgotten && let Fetched::Kept { entry, .. } = fetched {
            *fetched = Fetched::Answer { content: Arc::clone(&entry.content), is_trouble: false };
        }
    }
}

impl<T> Drop for InFlight<T> {
    fn drop(&mut self) {
        if !self.is_over {
            self.cache.flights.end(&self.key, self.number, || {});
        }
    }
}
