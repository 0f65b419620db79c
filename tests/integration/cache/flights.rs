//! Requests that share one request to the registry: clients that leave, and what all of them get when it fails.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use acr_emulator::{Fault, Hop, Image, Options, Recorded, Server};

use super::cached::{ACCEPT, Cached, REPOSITORY, path, until};
use crate::load::{load, wait_for_load};
use crate::wire::{self, Client, Whole};
use testkit::{AT_ONCE, wait_for};

const CLIENTS: usize = 30;
const ROUND_TRIP: Duration = Duration::from_millis(300);

/// Sends a `GET` and waits for nothing.
fn begin(cached: &Cached, rest: &str) -> TcpStream {
    let mut stream = wire::connect(cached.proxy.address());
    write!(stream, "GET {} HTTP/1.1\r\nHost: mirror\r\n{ACCEPT}\r\n", path(rest)).expect("sent");
    stream
}

/// The rest of what [`begin`] began.
fn end(stream: TcpStream) -> Whole {
    let received = wire::receive(&mut std::io::BufReader::new(stream), "GET", usize::MAX).expect("an answer");
    assert!(received.broken.is_none(), "{received:?}");
    received.answer
}

/// Whether the registry has been asked for anything.
fn is_asked(requests: &[Recorded]) -> bool {
    requests.iter().any(|seen| seen.hop == Hop::Data)
}

/// An answer that cannot be kept once cost two reads each time, and one more for each client that waited.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_kept_costs_one_read_each_and_is_shared_where_it_was_read_whole() {
    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let cached = Cached::start("{}").await;
    let by_digest = format!("manifests/{EMPTY}");
    for (kind, rest, at_once, passed) in [
        ("application/vnd.cncf.notary.v1+json", by_digest.as_str(), 1, false),
        ("application/vnd.cncf.notary.v1+json", "manifests/signature", 1, false),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", "manifests/old", CLIENTS + 1, true),
    ] {
        let body = if passed { "{}" } else { "" };
        let headers = [("Content-Type", kind), ("Docker-Content-Digest", EMPTY)];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let fault = Fault::StatusWith { status: 200, headers, body: body.to_owned() };
        cached.azure.clear_faults();
        cached.azure.inject(Hop::Data, Fault::Hang.on_path(rest).times(1));
        cached.azure.inject(Hop::Data, fault.on_path(rest));
        cached.azure.clear_requests();
        let clients: Vec<_> = (0..CLIENTS).map(|_| begin(&cached, rest)).collect();
        wait_for_load(&cached.proxy, "all of them", |load| load["requests"]["now"] == CLIENTS);
        wait_for(&cached.azure, "the one that hangs", is_asked).await;
        cached.azure.close_connections(Server::Registry);
        let is_right = |answer: Whole| {
            assert_eq!((answer.status(), answer.header("content-type")), (200, Some(kind)), "{answer:?}");
            assert_eq!((answer.header("docker-content-digest"), &*answer.body), (Some(EMPTY), body.as_bytes()));
        };
        clients.into_iter().map(end).for_each(is_right);
        assert!(cached.reads_of(rest) <= at_once + 1, "{rest}: {}, one of which hung", cached.reads_of(rest));
        cached.azure.clear_requests();
        (0..10).map(|_| cached.get(&path(rest))).for_each(is_right);
        assert_eq!(cached.reads_of(rest), 10, "{rest}");
    }
}

/// It cost two reads each time: a flight's, and one in which it was passed on.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_packed_though_nobody_asked_for_that_costs_one_read() {
    let cached = Cached::start("{tags: 1h, lists: 1h}").await;
    for rest in ["manifests/latest", "tags/list"] {
        cached.azure.inject(Hop::Data, Fault::Gzip);
        cached.azure.clear_requests();
        for _ in 0..5 {
            let answer = cached.get(&path(rest));
            assert_eq!((answer.status(), answer.header("content-encoding")), (200, Some("gzip")), "{answer:?}");
        }
        // The first one was the flight's.
        assert_eq!(cached.reads_of(rest), 6, "{rest}");
        let requests = cached.azure.requests();
        let first = requests.iter().find(|request| request.hop == Hop::Data).expect("a flight");
        assert_eq!(first.header("accept-encoding"), Some("identity"), "{rest}");
        cached.azure.clear_faults();
    }
}

/// What can be asked for, cold and at the same time, whether or not it is kept afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn simultaneous_requests_are_one_whether_or_not_the_answer_is_kept() {
    for (settings, data_endpoints) in [
        ("{tags: 1h, missing: 10m, lists: 1h}", false),
        ("{tags: 0s, manifests: 0s, missing: 0s, lists: 0s, redirects: 0s}", false),
        ("{}", true),
    ] {
        let options = Options { data_endpoints, ..testkit::options() };
        let cached = Cached::with(options, |setup| setup.cache(settings)).await;
        let pushed = &cached.pushed;
        for (rest, status) in [
            ("manifests/latest", 200),
            (&*format!("manifests/{}", pushed.manifests[0].1), 200),
            ("manifests/none", 404),
            ("tags/list", 200),
            (&*format!("referrers/{}", pushed.index_digest), 200),
            (&*format!("blobs/{}", pushed.blobs[0]), 307),
        ] {
            cached.azure.clear_requests();
            // The registry takes its time, until all of them wait for it.
            // Of this alone: what hung before may still have the registry probed.
            cached.azure.inject(Hop::Data, Fault::Hang.on_path(rest).times(1));
            let clients: Vec<_> = (0..CLIENTS).map(|_| begin(&cached, rest)).collect();
            wait_for_load(&cached.proxy, "all of them", |load| load["requests"]["now"] == CLIENTS);
            let hangs = |seen: &Recorded| seen.hop == Hop::Data && seen.target.contains(rest);
            wait_for(&cached.azure, "the one that hangs", |requests| requests.iter().any(hangs)).await;
            cached.azure.close_connections(Server::Registry);
            for client in clients {
                let answer = end(client);
                assert_eq!(answer.status(), status, "{settings} {rest}: {answer:?}");
            }
            // The one that hung, and the one that was sent in its place.
            assert_eq!(cached.reads_of(rest), 2, "{settings} {rest}: {:?}", cached.azure.reads());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_cancels_nothing_for_the_others() {
    let options = Options { latency: ROUND_TRIP, ..testkit::options() };
    let cached = Cached::with(options, |setup| setup.cache("{tags: 1h}")).await;
    let first = begin(&cached, "manifests/latest");
    wait_for(&cached.azure, "the request", is_asked).await;
    let second = begin(&cached, "manifests/latest");
    drop(first);
    assert_eq!(end(second).status(), 200);
    assert_eq!(cached.reads(), 1, "{:?}", cached.azure.reads());
    // Also for those who come when nobody waits any more.
    cached.azure.clear_requests();
    let alone = begin(&cached, "tags/list");
    wait_for(&cached.azure, "the request", is_asked).await;
    drop(alone);
    wait_for_load(&cached.proxy, "nobody", |load| load["requests"]["now"] == 0);
    assert_eq!(cached.get(&path("tags/list")).status(), 200);
    assert_eq!(cached.reads(), 1, "{:?}", cached.azure.reads());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_that_leaves_is_let_go_while_the_registry_is_silent() {
    let cached = Cached::start("{}").await;
    cached.azure.inject(Hop::Data, Fault::Hang);
    let begun = Instant::now();
    let mut clients: Vec<_> = (0..5).map(|_| begin(&cached, "manifests/latest")).collect();
    wait_for_load(&cached.proxy, "all of them", |load| load["requests"]["now"] == 5);
    wait_for(&cached.azure, "the one that hangs", is_asked).await;
    while let Some(client) = clients.pop() {
        drop(client);
        let left = clients.len();
        wait_for_load(&cached.proxy, "one less", |load| load["requests"]["now"] == left);
    }
    // The registry's own time is longer.
    assert!(begun.elapsed() < AT_ONCE, "{:?}: {}", begun.elapsed(), load(&cached.proxy));
    assert_eq!(cached.reads(), 1, "{:?}", cached.azure.reads());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_one_fails_for_all_who_wait_and_is_not_asked_for_by_each() {
    const CLIENTS: usize = 50;
    let cached = Cached::start("{}").await;
    for (number, (fault, status)) in
        [(Fault::Status(500), 500), (Fault::Status(403), 403), (Fault::CutBody(10), 502), (Fault::GarbageJson, 502)]
            .into_iter()
            .enumerate()
    {
        let rest = match fault {
            // No JSON is no list.
            Fault::GarbageJson => format!("tags/list?n={}", number + 1),
            _ => format!("manifests/{}", cached.azure.push(Image::small(REPOSITORY, &number.to_string())).index_digest),
        };
        cached.azure.clear_requests();
        cached.azure.inject(Hop::Data, Fault::Hang.times(1));
        cached.azure.inject(Hop::Data, fault.clone());
        let clients: Vec<_> = (0..CLIENTS).map(|_| begin(&cached, &rest)).collect();
        wait_for_load(&cached.proxy, "all of them", |load| load["requests"]["now"] == CLIENTS);
        wait_for(&cached.azure, "the one that hangs", is_asked).await;
        cached.azure.close_connections(Server::Registry);
        for client in clients {
            let answer = end(client);
            assert_eq!(answer.status(), status, "{fault:?}: {answer:?}");
        }
        // The one that hung, the one after it, and one more for an answer that is not whole.
        assert!((2..=3).contains(&cached.reads()), "{fault:?}: {:?}", cached.azure.reads());
        cached.azure.clear_faults();
        until("the registry", || (cached.get(&path(&rest)).status() == 200).then_some(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_silent_registry_is_answered_as_soon_as_it_is_known_to_be_down() {
    const CLIENTS: usize = 3;
    let cached = Cached::start("{}").await;
    cached.azure.inject(Hop::Data, Fault::Hang.on_path("/manifests/cold"));
    let clients: Vec<_> = (0..CLIENTS).map(|_| begin(&cached, "manifests/cold")).collect();
    wait_for_load(&cached.proxy, "all of them", |load| load["requests"]["now"] == CLIENTS);
    wait_for(&cached.azure, "the one that hangs", is_asked).await;
    // Another request and two probes tell that it is down, long before the silence would.
    cached.azure.inject(Hop::Data, Fault::Status(500));
    assert_eq!(cached.get(&path("manifests/other")).status(), 500);
    cached.proxy.wait_for_log("it is down, and probed until it answers");
    for client in clients {
        let answer = end(client);
        // After the time for an answer it would be 504, and without `Retry-After`.
        assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")), "{answer:?}");
    }
}

/// One that reads its answer slowly holds up nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_up_nobody() {
    let cached = Cached::start("{tags: 1h}").await;
    let slow = begin(&cached, "manifests/latest");
    for _ in 0..10 {
        assert_eq!(
            Client::new(cached.proxy.address()).ask("GET", &path("manifests/latest"), "HTTP/1.1", ACCEPT).status(),
            200
        );
    }
    assert_eq!(end(slow).status(), 200);
    assert_eq!(cached.reads(), 1);
}
