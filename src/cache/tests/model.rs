//! Runs a sequence of acts against a cache and checks every answer, on one thread and in paused time, so that the same acts
//! always come to the same.
//!
//! Acts happen at even milliseconds and flights end at odd ones, so the order of two events is never left to chance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::routes;
use super::world::{Asking, Known, Object, Shared, Weather};
use crate::cache::entry::{Freshness, PASSES};
use crate::cache::{Cache, Content, Entry, Fetched, How, Kind, Reason, Served};
use crate::config::Lifetimes;

/// No flight of the model takes as long.
const ALL_IS_OVER: Duration = Duration::from_secs(60);
/// As long as a client waits where something stale is at hand.
const STALE_WAIT: Duration = Duration::from_secs(1);
/// All that a sequence of acts brings is less.
const KEEPS_ALL: u64 = 1 << 20;

/// What happens.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// A client asks by one of the routes, and leaves after so many milliseconds.
    Request {
        route: usize,
        object: Object,
        patience: Option<u64>,
    },
    /// So many milliseconds pass.
    Wait(u64),
    /// An object has another content from now on.
    Change {
        registry: u64,
        object: Object,
    },
    Remove {
        registry: u64,
        object: Object,
    },
    /// A registry answers in another way from now on, so many milliseconds late.
    Turn {
        registry: u64,
        weather: Weather,
        delay: u64,
    },
    Purge {
        registry: u64,
        repository: &'static str,
    },
}

impl Act {
    /// The same, with clients that never leave.
    pub(super) fn patient(&self) -> Self {
        match self {
            Self::Request { route, object, .. } => Self::Request { route: *route, object: *object, patience: None },
            act => act.clone(),
        }
    }
}

/// What came of it.
pub(super) struct Outcome {
    /// What each client got that has not left, by its number.
    pub answers: BTreeMap<usize, String>,
    /// How often the registries were asked, for what.
    pub reads: Vec<(u64, String)>,
}

/// Runs them. Panics where an answer is not allowed.
pub(super) fn run(acts: &[Act], memory: usize) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(run_in(acts, memory))
}

async fn run_in(acts: &[Act], memory: usize) -> Outcome {
    let cache = Arc::new(Cache::<&'static str>::new(memory));
    let world = Shared::default();
    let mut clients = JoinSet::new();
    for (number, act) in acts.iter().enumerate() {
        sleep(Duration::from_millis(2)).await;
        match act.clone() {
            Act::Wait(time) => sleep(Duration::from_millis(time)).await,
            Act::Change { registry, object } => world.lock().change(registry, object, true),
            Act::Remove { registry, object } => world.lock().change(registry, object, false),
            Act::Turn { registry, weather, delay } => world.lock().turn(registry, weather, delay),
            Act::Purge { registry, repository } => {
                let start = format!("/v2/{repository}/");
                cache.purge(registry, |path, _| path.starts_with(&start));
                world.lock().purge(registry, repository);
            }
            Act::Request { route, object, patience } => {
                let client = ask(Arc::clone(&cache), world.clone(), route, object);
                clients.spawn(async move {
                    match patience {
                        None => (number, Some(client.await)),
                        Some(patience) => (number, timeout(Duration::from_millis(patience), client).await.ok()),
                    }
                });
                // The client has asked before anything else happens.
                tokio::task::yield_now().await;
            }
        }
        assert!(cache.size().1 <= memory as u64, "more is kept than may be");
    }
    sleep(ALL_IS_OVER).await;
    let mut answers = BTreeMap::new();
    while let Some(answered) = clients.try_join_next() {
        let (number, answer) = answered.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        answers.extend(answer.map(|answer| (number, answer)));
    }
    assert!(clients.is_empty(), "a client waits for ever");
    assert_eq!(cache.flights(), 0, "a flight is left");
    assert_eq!(world.lock().violation, None);
    assert!(cache.size().1 <= memory as u64, "more is kept than may be");
    let reads = world.lock().reads.iter().map(|(registry, path, _)| (*registry, path.clone())).collect();
    Outcome { answers, reads }
}

/// One request, checked.
async fn ask(cache: Arc<Cache<&'static str>>, world: Shared, route: usize, object: Object) -> String {
    let (registry, lifetimes) = routes()[route];
    let begun = Instant::now();
    let path = world.lock().path(registry, object);
    let asking = || Asking { world: world.clone(), registry, object, path: path.clone(), lifetimes };
    let key = asking().key();
    let expected = world.lock().known.get(&(registry, path.clone())).cloned();
    let reads = world.lock().reads.len();
    let panics = world.lock().panics;
    let purges = world.lock().purges;
    let hit = cache.hit(&key.as_ref(), &lifetimes, begun);
    let (served, why) = match hit {
        Some(entry) => (Served::Entry(entry, How::Hit), None),
        None => cache.look_up(key.as_ref(), &lifetimes, asking).await,
    };
    let keeps_all = cache.memory() >= KEEPS_ALL;
    let request = Request { world: &world, asking: asking(), lifetimes, begun, panics, purges, keeps_all };
    let found = request.check(&served, why.as_ref());
    if keeps_all {
        assert_eq!(cache.evicted().0, 0);
        let is = expected.as_ref().map_or(Freshness::Ended, |known| freshness(known, &lifetimes, begun));
        match (is, how(&served)) {
            (Freshness::Fresh, Some(How::Hit)) => {
                assert!(begun.elapsed().is_zero(), "a hit takes time");
                assert_eq!(world.lock().reads.len(), reads, "the registry is asked though the answer is fresh");
            }
            (Freshness::Revalidate, Some(How::Revalidate)) => assert!(begun.elapsed().is_zero(), "it waits"),
            (Freshness::Stale, Some(How::Hit | How::Revalidate | How::Miss))
            | (Freshness::Ended, Some(How::Hit | How::Revalidate | How::Stale))
            | (Freshness::Fresh | Freshness::Revalidate, _) => {
                panic!("{is:?} by {expected:?}, and the answer is {found}")
            }
            (Freshness::Stale | Freshness::Ended, _) => {}
        }
    }
    found
}

/// What a request may be answered with.
struct Request<'a> {
    world: &'a Shared,
    asking: Asking,
    lifetimes: Lifetimes,
    begun: Instant,
    /// How many flights had panicked before.
    panics: usize,
    /// How often anything had been purged before.
    purges: usize,
    /// There is memory for all that is brought: else it may not be kept, as if the registry had said so.
    keeps_all: bool,
}

impl Request<'_> {
    /// Panics if that is not allowed. What it was, in words.
    fn check(&self, served: &Served<&'static str>, why: Option<&Fetched<&'static str>>) -> String {
        let waited = self.begun.elapsed();
        match served {
            Served::Entry(entry, how) => {
                let said = self.says_what_was_true(entry, *how);
                if *how == How::Stale {
                    assert!(waited <= STALE_WAIT, "it waits {waited:?} though something stale is at hand");
                    let is_trouble = match why {
                        None => waited == STALE_WAIT,
                        Some(Fetched::Failed { is_trouble, .. } | Fetched::Answer { is_trouble, .. }) => *is_trouble,
                        Some(_) => false,
                    };
                    assert!(is_trouble, "stale without trouble: {why:?} after {waited:?}");
                }
                format!("{how:?}: {said}")
            }
            Served::Answer(content, how) => {
                let said = self.is_of_this_object(content);
                let is_purged = self.world.lock().purges > self.purges;
                let may_be_unkept = is_purged || !self.keeps_all;
                assert!(may_be_unkept || matches!(content.status.as_u16(), 403 | 503), "{content:?}");
                format!("{how:?}: {said}")
            }
            Served::Failed(trouble, how) => format!("{how:?}: {trouble}"),
            Served::Pass(Reason::Answer) => {
                let key = (self.asking.registry, self.asking.path.clone());
                let passed = self.world.lock().passed.get(&key).copied();
                let ago = passed.map(|passed| passed.elapsed());
                assert!(ago.is_some_and(|ago| ago < PASSES), "it passes, and a flight has found why {ago:?} ago");
                "pass".to_owned()
            }
            Served::Pass(Reason::Fault) => {
                assert!(self.world.lock().panics > self.panics, "a fault, and no flight has panicked");
                "fault".to_owned()
            }
            Served::Pass(reason) => panic!("passes for {reason:?}"),
        }
    }

    /// It is of this registry, repository and object; of which version it says.
    fn is_of_this_object(&self, content: &Content) -> String {
        let body = String::from_utf8_lossy(&content.body).trim().to_owned();
        let (object, version) = body.rsplit_once('|').expect("a body of the model");
        assert_eq!(self.asking.says(version), body, "{} is asked for, and it is of {object}", self.asking.path);
        if let (Object::Newest(_), 200) = (self.asking.object, content.status.as_u16()) {
            assert!(self.asking.path.ends_with(&format!("sha:{body}")), "it does not have its digest");
        }
        version.to_owned()
    }

    /// It was true when the registry was asked, and that is no longer ago than it may be.
    fn says_what_was_true(&self, entry: &Entry, how: How) -> String {
        let version = self.is_of_this_object(&entry.content);
        let known = Known { asked: entry.confirmed, kind: entry.kind, at_most: entry.at_most, until: entry.until };
        let fresh = lifetime(&known, &self.lifetimes);
        let oldest = match how {
            How::Hit => fresh,
            How::Revalidate => fresh * 2,
            How::Stale => fresh + self.lifetimes.stale,
            // The registry was asked by a flight that this request has started or joined.
            How::Miss | How::Refresh | How::Collapsed => ALL_IS_OVER,
        };
        let since = self.begun.checked_sub(oldest).unwrap_or(self.begun);
        let tagged = match self.asking.object {
            Object::Newest(repository) => Object::Tag(repository, 0),
            object => object,
        };
        // What a digest stands for is the same for ever; it is the right to it that ends.
        if entry.kind != Kind::Manifest && !matches!(self.asking.object, Object::Newest(_)) {
            let world = self.world.lock();
            let was_true = world.was_true_since(self.asking.registry, tagged, &version, since);
            assert!(was_true, "{how:?}: {version} is older than {oldest:?}");
        }
        if matches!(how, How::Hit | How::Revalidate | How::Stale) {
            assert!(self.begun.duration_since(entry.confirmed) < oldest, "{how:?}: confirmed too long ago");
            assert!(entry.until.is_none_or(|until| self.begun < until), "a redirect beyond its time");
        }
        version
    }
}

fn how(served: &Served<&'static str>) -> Option<How> {
    match served {
        Served::Entry(_, how) | Served::Answer(_, how) | Served::Failed(_, how) => Some(*how),
        Served::Pass(_) => None,
    }
}

/// The lifetimes as the settings tell them, for the reference.
fn lifetime(known: &Known, lifetimes: &Lifetimes) -> Duration {
    let set = match known.kind {
        Kind::Tag => lifetimes.tags,
        Kind::Manifest | Kind::Configuration => lifetimes.manifests,
        Kind::Missing => lifetimes.missing,
        Kind::Redirect => lifetimes.redirects,
        Kind::List => lifetimes.lists,
    };
    known.at_most.map_or(set, |at_most| set.min(at_most))
}

pub(super) fn freshness(known: &Known, lifetimes: &Lifetimes, now: Instant) -> Freshness {
    let (age, fresh) = (now - known.asked, lifetime(known, lifetimes));
    let is_over = known.until.is_some_and(|until| now >= until);
    match known.kind {
        _ if is_over => Freshness::Ended,
        _ if age < fresh => Freshness::Fresh,
        Kind::Tag if age < fresh * 2 => Freshness::Revalidate,
        Kind::Missing => Freshness::Ended,
        _ if age < fresh + lifetimes.stale => Freshness::Stale,
        _ => Freshness::Ended,
    }
}
