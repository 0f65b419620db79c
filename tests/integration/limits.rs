//! More connections and more requests than the proxy takes on.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use acr_emulator::{Fault, Hop};

use crate::frames;
use crate::load::{load, sent_to_registry, wait_for_load};
use crate::wire::{self, Client};
use testkit::{AT_ONCE, Setup, wait_for};

/// A pull while others hold all connections that there may be.
#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_limit_are_refused_at_once_and_readyz_still_answers() {
    const LIMIT: usize = 256;
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).flag("--admin-address", ":0").descriptors(64, LIMIT).start();
    proxy.wait_for_log(&format!("{LIMIT} file descriptors are few"));
    let max = load(&proxy)["connections"]["max"].as_u64().and_then(|max| usize::try_from(max).ok()).expect("a number");
    assert!(max > 8, "the soft limit is raised: {max}");
    let mut first = Client::new(proxy.address());
    let pull = "/v2/library/busybox/tags/list";
    assert_eq!(first.ask("GET", pull, "HTTP/1.1", "").status(), 200);
    let mut slow: Vec<_> = (1..max)
        .map(|_| {
            let mut client = wire::connect(proxy.address());
            client.write_all(b"GET /v2/ HT").expect("sent");
            client
        })
        .collect();
    // Who is idle makes room when it gets crowded.
    assert!(first.is_at_its_end());
    slow.push(wire::connect(proxy.address()));
    wait_for_load(&proxy, "a full house", |load| load["connections"]["now"] == max);
    for _ in 0..LIMIT {
        let begun = Instant::now();
        let answer = wire::ask(proxy.address(), &format!("GET {pull}"), "");
        assert_eq!((answer.status, answer.code().as_str()), (503, "UNAVAILABLE"), "{answer:?}");
        assert_eq!((answer.header("retry-after"), answer.header("connection")), (Some("1"), Some("close")));
        assert!(begun.elapsed() < AT_ONCE);
    }
    assert_eq!(load(&proxy)["connections"]["refused"], LIMIT);
    drop(slow);
    proxy.wait_for_log("connections: there is room again");
    assert_eq!(wire::ask(proxy.address(), &format!("GET {pull}"), "").status, 200);
    let log = proxy.end();
    assert_eq!(log.matches("connections: ").count(), 2, "one line when it begins, one when it ends: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_the_limit_are_refused_at_once() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).flag("--admin-address", ":0").descriptors(256, 256);
        let proxy = proxy.settings("limits: {concurrent_requests_per_client: off}").start();
        assert_eq!(wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list", "").status, 200);
        let max = load(&proxy)["requests"]["max"].as_u64().and_then(|max| usize::try_from(max).ok()).expect("a number");
        azure.inject(Hop::Data, Fault::Hang);
        let before = sent_to_registry(&azure.requests());
        let mut waiting: Vec<_> = (0..max)
            .map(|number| {
                let mut client = wire::connect(proxy.address());
                // Each asks for something else, so that none shares another's answer.
                let path = format!("/v2/library/busybox/tags/list?n={}", number + 1);
                client.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("sent");
                client
            })
            .collect();
        wait_for(&azure, "all of them", |requests| sent_to_registry(requests) - before == max).await;
        let mut kept = Client::new(proxy.address());
        for _ in 0..3 {
            let answer = kept.ask("GET", "/v2/library/busybox/tags/list", "HTTP/1.1", "");
            assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")), "{answer:?}");
        }
        assert_eq!(load(&proxy)["requests"]["refused"], 3);
        assert_eq!(sent_to_registry(&azure.requests()) - before, max, "the registry hears of none of them");
        waiting.clear();
        proxy.wait_for_log("requests under way: there is room again");
        azure.clear_faults();
        assert_eq!(kept.ask("GET", "/v2/library/busybox/tags/list", "HTTP/1.1", "").status(), 200);
    }
}

/// A connection as of this client, by the word of a balancer.
fn connect_as(client: &str, address: SocketAddr) -> TcpStream {
    let mut stream = wire::connect(address);
    stream.write_all(format!("PROXY TCP6 {client} fd00::8080 32768 80\r\n").as_bytes()).expect("sent");
    stream
}

/// Asks over HTTP/2 for so many answers of which it takes no byte.
fn ask_and_take_nothing(mut stream: &TcpStream, answers: usize) {
    let ask = |number: usize| {
        let id = u32::try_from(2 * number + 1).expect("few");
        frames::frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, id, &frames::get("/v2/"))
    };
    let asked: Vec<u8> = (0..answers).flat_map(ask).collect();
    let no_window = frames::frame(frames::SETTINGS, 0, 0, &frames::setting(frames::INITIAL_WINDOW_SIZE, 0));
    stream.write_all(&[frames::PREFACE, &no_window, &asked].concat()).expect("sent");
}

/// What a client asks for first, on a connection of its own, gets this status and body.
fn first_answer(client: &str, address: SocketAddr) -> wire::Answer {
    let mut stream = connect_as(client, address);
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer, and the end of the connection");
    wire::parse(&answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_no_answers_does_not_hold_the_places_of_all_others() {
    const STREAMS: usize = 32;
    let azure = testkit::azure().await;
    for (setting, share) in [("fair", None), ("12", Some(12))] {
        let listen = "[{address: '127.0.0.1:0', proxy_protocol: {trusted: [127.0.0.0/8]}}]";
        let setup = Setup::new(&azure).listen(listen).flag("--admin-address", ":0").descriptors(512, 512);
        let proxy = setup.settings(&format!("limits: {{concurrent_requests_per_client: {setting}}}")).start();
        let number =
            |value: &serde_json::Value| value.as_u64().and_then(|it| usize::try_from(it).ok()).expect("a number");
        let max = number(&load(&proxy)["requests"]["max"]);
        let share = share.unwrap_or(max * 3 / 4);
        // Of one host, which uses another address of its network for each connection, and asks for more than there are places.
        let slow: Vec<_> = (1..=max.div_ceil(STREAMS) + 1)
            .map(|host| {
                let stream = connect_as(&format!("fd00:0:0:1::{host}"), proxy.address());
                ask_and_take_nothing(&stream, STREAMS);
                stream
            })
            .collect();
        let asked = slow.len() * STREAMS;
        let refused = |load: &serde_json::Value| number(&load["refused"]["concurrent_requests_per_client"]);
        wait_for_load(&proxy, "all that it asks for", |load| refused(load) == asked - share);
        assert_eq!(load(&proxy)["requests"]["now"], share, "what is refused holds no place: {setting}");
        assert_eq!(first_answer("fd00:0:0:2::1", proxy.address()).status, 200, "another client: {setting}");
        let answer = first_answer("fd00:0:0:1::abcd", proxy.address());
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")), "{answer:?}");
        assert_eq!(answer.code(), "TOOMANYREQUESTS");
        let says = "fd00:0:0:1::/64 has too many requests under way: limits.concurrent_requests_per_client says";
        assert!(answer.body.contains(says), "{answer:?}");
        drop(slow);
        wait_for_load(&proxy, "room", |load| load["requests"]["now"] == 0);
        assert_eq!(first_answer("fd00:0:0:1::abcd", proxy.address()).status, 200, "{setting}");
        let log = proxy.end();
        assert_eq!(log.lines().filter(|line| line.contains(" 429 ")).count(), 1, "one line a minute: {log}");
    }
}

/// Each that waits has its memory, and there are as many as all connections have streams.
#[tokio::test(flavor = "multi_thread")]
async fn only_some_of_those_that_are_refused_wait_for_a_client_that_takes_no_answers() {
    const STREAMS: usize = 32;
    const CONNECTIONS: usize = 64;
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure).flag("--admin-address", ":0").descriptors(512, 512);
    let proxy = setup.settings("limits: {concurrent_requests_per_client: 1}").start();
    let held = wire::connect(proxy.address());
    ask_and_take_nothing(&held, 1);
    wait_for_load(&proxy, "the one that it may have", |load| load["requests"]["now"] == 1);
    let slow: Vec<_> = (0..CONNECTIONS).map(|_| wire::connect(proxy.address())).collect();
    for stream in &slow {
        ask_and_take_nothing(stream, STREAMS);
    }
    let ended = |mut stream: &TcpStream| {
        let frames = std::iter::from_fn(move || frames::read(&mut stream));
        let whole = |frame: &(u8, u8, u32, Vec<u8>)| {
            [frames::HEADERS, frames::DATA].contains(&frame.0) && frame.1 & frames::END_STREAM != 0
        };
        let ends: Vec<_> = frames.filter(|frame| whole(frame) || frame.0 == frames::RST_STREAM).take(STREAMS).collect();
        assert_eq!(ends.len(), STREAMS);
        ends.iter().filter(|frame| whole(frame)).count()
    };
    let whole: usize = slow.iter().map(ended).sum();
    assert!(whole > STREAMS * CONNECTIONS / 2, "{whole} have an answer without words at once");
    assert_eq!(load(&proxy)["refused"]["concurrent_requests_per_client"], STREAMS * CONNECTIONS);
}
