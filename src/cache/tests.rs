//! The cache against a simple reference, in random interleavings, and from many threads at once.
//!
//! `MODEL_CASES` is how many sequences are tried, 400 by default.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use proptest::prelude::*;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::*;
use crate::config::Lifetimes;

mod model;
mod world;

use model::Act;
use world::{Object, Weather};

const MINUTE: Duration = Duration::from_secs(60);

fn lifetimes(tags: u64) -> Lifetimes {
    let seconds = Duration::from_secs;
    Lifetimes {
        tags: seconds(tags),
        manifests: MINUTE * 60,
        missing: seconds(tags.min(5)),
        redirects: MINUTE * 10,
        lists: seconds(tags.min(10)),
        stale: MINUTE * 60,
    }
}

/// Routes to two registries; two of them share one, with different lifetimes.
fn routes() -> [(u64, Lifetimes); 3] {
    [(1, lifetimes(30)), (1, lifetimes(0)), (2, Lifetimes { stale: Duration::ZERO, ..lifetimes(30) })]
}

fn object() -> impl Strategy<Value = Object> {
    let repository = prop::sample::select(&["a", "b"][..]);
    (repository, 0..5_u8).prop_map(|(repository, what)| match what {
        0 => Object::Tag(repository, 0),
        1 => Object::Tag(repository, 1),
        2 => Object::List(repository),
        3 => Object::Blob(repository),
        _ => Object::Newest(repository),
    })
}

fn act() -> impl Strategy<Value = Act> {
    let delay = prop::sample::select(&[0, 21, 501, 1501, 20_001][..]);
    let weather = prop_oneof![
        4 => Just(Weather::Fair),
        2 => Just(Weather::Failing),
        1 => Just(Weather::Answering503),
        1 => Just(Weather::Refusing),
        1 => Just(Weather::Panicking),
        1 => Just(Weather::Passing),
    ];
    prop_oneof![
        12 => (0..3_usize, object(), prop::option::weighted(0.2, prop::sample::select(&[1_u64, 301, 3001][..])))
            .prop_map(|(route, object, patience)| Act::Request { route, object, patience }),
        3 => prop::sample::select(&[2_u64, 1000, 6000, 31_000, 70_000, 700_000, 3_700_000][..]).prop_map(Act::Wait),
        3 => (1..3_u64, object()).prop_map(|(registry, object)| Act::Change { registry, object }),
        1 => (1..3_u64, object()).prop_map(|(registry, object)| Act::Remove { registry, object }),
        2 => (1..3_u64, weather, delay).prop_map(|(registry, weather, delay)| Act::Turn { registry, weather, delay }),
        1 => (1..3_u64, prop::sample::select(&["a", "b"][..]))
            .prop_map(|(registry, repository)| Act::Purge { registry, repository }),
    ]
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400);
    ProptestConfig { cases, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn every_answer_is_one_that_the_reference_allows(acts in prop::collection::vec(act(), 1..60)) {
        model::run(&acts, 64 << 20);
    }

    #[test]
    fn the_same_holds_where_most_of_it_is_evicted(acts in prop::collection::vec(act(), 1..60)) {
        model::run(&acts, 8 << 10);
    }

    #[test]
    fn a_client_that_leaves_changes_nothing_for_the_others(acts in prop::collection::vec(act(), 1..40)) {
        let without = model::run(&acts, 64 << 20);
        let patient: Vec<_> = acts.iter().map(Act::patient).collect();
        let with = model::run(&patient, 64 << 20);
        prop_assert_eq!(without.reads, with.reads);
        let others: BTreeMap<_, _> =
            with.answers.into_iter().filter(|(number, _)| without.answers.contains_key(number)).collect();
        prop_assert_eq!(without.answers, others);
    }
}

/// A tag brings its manifest by digest, and a flight for that digest, which overlaps with the tag's, ends with what is not kept.
#[test]
fn what_another_flight_brings_gives_way_to_no_mark() {
    let turn = |weather, delay| Act::Turn { registry: 1, weather, delay };
    let request = |object| Act::Request { route: 0, object, patience: None };
    let by_digest = |delay| [turn(Weather::Passing, delay), request(Object::Newest("a"))];
    let by_tag = |delay| [turn(Weather::Fair, delay), request(Object::Tag("a", 0))];
    for flights in [[by_digest(21), by_tag(0)], [by_digest(21), by_tag(21)], [by_tag(21), by_digest(0)]] {
        let acts = [&flights.concat()[..], &[Act::Wait(1000), request(Object::Newest("a"))]].concat();
        assert_eq!(model::run(&acts, 64 << 20).answers[&5], "Hit: v0", "{flights:?}");
    }
}

/// Counts how often it is asked, and answers with a manifest that is kept.
struct Counting(Arc<AtomicUsize>);

impl Origin for Counting {
    type Trouble = ();

    async fn fetch(self, _: Option<Arc<Entry>>) -> Fetched<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        let content = Content {
            status: StatusCode::OK,
            headers: Vec::new(),
            body: Bytes::from_static(b"x"),
            manifest: None,
            digest: None,
        };
        let entry = Entry::new(Kind::Tag, content, Instant::now());
        Fetched::Kept { entry: Arc::new(entry), also: None }
    }
}

/// A manifest that is kept, once `opened`; or none for want of a registry, which was asked or was not.
struct Gated {
    opened: oneshot::Receiver<()>,
    failed: Option<bool>,
}

impl Origin for Gated {
    type Trouble = ();

    async fn fetch(self, known: Option<Arc<Entry>>) -> Fetched<()> {
        let _ = self.opened.await;
        match self.failed {
            Some(has_asked) => Fetched::Failed { trouble: (), is_trouble: true, has_asked },
            None => Counting(Arc::default()).fetch(known).await,
        }
    }
}

const TAG: KeyRef<'static> = KeyRef { registry: 1, part: Part::Manifest, path: "/v2/a/manifests/latest" };

#[tokio::test(start_paused = true)]
async fn what_is_purged_while_it_is_fetched_is_counted_and_is_no_answer_that_is_kept() {
    let cache = Arc::new(Cache::<()>::new(1 << 20));
    let (open, opened) = oneshot::channel();
    let waiting = tokio::spawn({
        let cache = Arc::clone(&cache);
        async move { cache.look_up(TAG, &lifetimes(30), || Gated { opened, failed: None }).await.0 }
    });
    tokio::task::yield_now().await;
    let all = |_: &str, _: Option<&Content>| true;
    assert_eq!(cache.purge(2, all), Purged::default(), "another registry's");
    assert_eq!(cache.purge(1, all), Purged { entries: 0, flights: 1 });
    assert_eq!(cache.purge(1, all), Purged::default());
    open.send(()).expect("it waits");
    let served = waiting.await.expect("no panic");
    assert!(matches!(&served, Served::Answer(content, How::Miss) if content.status == 200), "{served:?}");
    assert_eq!(cache.size().0, 0);
}

/// While the registry is known to be down a flight ends at once, and without a token when the wait for one is over: nobody was
/// asked.
#[tokio::test(start_paused = true)]
async fn a_stale_answer_saves_a_read_unless_one_was_spent_for_it() {
    for (age, slow, has_asked, saved) in [
        // A tag that is asked for behind its answer.
        (31, false, false, 1),
        (31, true, false, 1),
        (31, false, true, 0),
        (31, true, true, 0),
        // One that only stands in.
        (100, false, false, 1),
        (100, true, false, 1),
        (100, false, true, 0),
        (100, true, true, 0),
    ] {
        let cache = Arc::new(Cache::<()>::new(1 << 20));
        cache.look_up(TAG, &lifetimes(30), || Counting(Arc::default())).await;
        sleep(Duration::from_secs(age)).await;
        let (open, opened) = oneshot::channel();
        let mut open = Some(open);
        if !slow {
            open.take();
        }
        let (served, _) = cache.look_up(TAG, &lifetimes(30), || Gated { opened, failed: Some(has_asked) }).await;
        assert!(matches!(served, Served::Entry(_, How::Stale | How::Revalidate)), "{served:?}");
        drop(open);
        sleep(Duration::from_millis(1)).await;
        let what = format!("{age} s, slow: {slow}, asked: {has_asked}");
        assert_eq!((cache.counters().rest(), cache.counters().saved()), ([1, 0, 1], saved), "{what}");
    }
}

/// An answer that is none to keep, which is counted.
struct Passing(Arc<AtomicUsize>);

impl Origin for Passing {
    type Trouble = ();

    async fn fetch(self, _: Option<Arc<Entry>>) -> Fetched<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        // Another request can join.
        tokio::task::yield_now().await;
        Fetched::NotKept { asked: Instant::now() }
    }
}

/// Those who waited for another's answer and went to the registry after all were counted as reads that were saved.
#[tokio::test]
async fn who_waits_for_what_cannot_be_shared_saves_no_read() {
    let cache = Arc::new(Cache::<()>::new(1 << 20));
    let asked = Arc::new(AtomicUsize::new(0));
    let lifetimes = lifetimes(30);
    let look_up = || cache.look_up(TAG, &lifetimes, || Passing(Arc::clone(&asked)));
    let served = tokio::join!(look_up(), look_up());
    assert!(matches!(served, ((Served::Pass(_), _), (Served::Pass(_), _))), "{served:?}");
    let counters = cache.counters();
    assert_eq!((asked.load(Ordering::Relaxed), counters.passes(Reason::Answer)), (1, 2));
    assert_eq!((counters.saved(), counters.rest()), (0, [1, 0, 0]));
}

/// Each request for it once began with a flight, and cost the registry two reads.
#[tokio::test(start_paused = true)]
async fn what_is_not_kept_costs_no_flight_for_a_minute() {
    let cache = Arc::new(Cache::<()>::new(1 << 20));
    let asked = Arc::new(AtomicUsize::new(0));
    let passes = || async {
        let (served, _) = cache.look_up(TAG, &lifetimes(30), || Passing(Arc::clone(&asked))).await;
        assert!(matches!(served, Served::Pass(Reason::Answer)), "{served:?}");
        asked.load(Ordering::Relaxed)
    };
    assert_eq!((passes().await, passes().await, passes().await), (1, 1, 1));
    assert_eq!(cache.counters().passes(Reason::Answer), 3);
    sleep(MINUTE).await;
    assert_eq!((passes().await, passes().await), (2, 2));
    cache.purge(1, |_, _| true);
    assert_eq!((passes().await, passes().await), (3, 3));
}

/// Clients got the new image of a tag, which is too large to keep, and with the next failure of the registry the earlier one again.
#[tokio::test(start_paused = true)]
async fn what_is_not_kept_took_nothing_older_away_so_a_tag_went_back_in_time() {
    let cache = Arc::new(Cache::<()>::new(1 << 20));
    cache.look_up(TAG, &lifetimes(30), || Counting(Arc::default())).await;
    sleep(MINUTE * 2).await;
    let failing = || Gated { opened: oneshot::channel().1, failed: Some(true) };
    let (served, _) = cache.look_up(TAG, &lifetimes(30), failing).await;
    assert!(matches!(served, Served::Entry(_, How::Stale)), "{served:?}");
    let asked = Arc::new(AtomicUsize::new(0));
    for _ in 0..2 {
        let (served, _) = cache.look_up(TAG, &lifetimes(30), || Passing(Arc::clone(&asked))).await;
        assert!(matches!(served, Served::Pass(Reason::Answer)), "{served:?}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    sleep(MINUTE).await;
    let (served, _) = cache.look_up(TAG, &lifetimes(30), failing).await;
    assert!(matches!(served, Served::Failed(..)), "{served:?}");
}

/// The threads are real, and so is the time: what is kept is fresh for as long as the test lasts.
#[test]
fn a_thousand_requests_at_once_are_one_flight_for_each_object() {
    const THREADS: usize = 8;
    const OBJECTS: usize = 11;
    const REQUESTS: usize = 1000;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().expect("a runtime");
    let cache = Arc::new(Cache::<()>::new(64 << 20));
    let asked = Arc::new(AtomicUsize::new(0));
    let barrier = Barrier::new(THREADS);
    let lifetimes = Lifetimes { tags: MINUTE * 60, ..lifetimes(0) };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (cache, asked, barrier, runtime) = (&cache, &asked, &barrier, &runtime);
            scope.spawn(move || {
                let mut answers = Vec::new();
                barrier.wait();
                for number in 0..REQUESTS * OBJECTS / THREADS {
                    let (cache, asked) = (Arc::clone(cache), Arc::clone(asked));
                    let path = format!("/v2/a/manifests/{}", (number + thread) % OBJECTS);
                    answers.push(runtime.spawn(async move {
                        let key = KeyRef { registry: 1, part: Part::Manifest, path: &path };
                        cache.look_up(key, &lifetimes, || Counting(asked)).await.0
                    }));
                }
                for answer in answers {
                    let answer = runtime.block_on(answer).expect("no panic");
                    assert!(matches!(answer, Served::Entry(..)), "{answer:?}");
                }
            });
        }
    });
    assert_eq!(asked.load(Ordering::Relaxed), OBJECTS);
    assert_eq!(cache.flights(), 0);
}
