use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use acr_emulator::{Fault, Hop, Recorded};
use serde_json::Value;

use crate::admin::admin;
use crate::wire::{self, Answer, Kept};
use testkit::{AT_ONCE, PATIENCE, Proxy, Setup, wait_for};

const PING: &str = "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
const TAGS: &str = "GET /v2/library/busybox/tags/list HTTP/1.1\r\nHost: x\r\n\r\n";
/// The proxy's own limit for a header.
const HEADER_LIMIT: Duration = Duration::from_secs(20);

/// All answers that come until the connection ends.
fn answers(mut stream: TcpStream) -> Vec<Answer> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("answers, and the end of the connection");
    let text = String::from_utf8(bytes).expect("text");
    text.split_inclusive("HTTP/1.1 ").collect::<Vec<_>>()[1..]
        .iter()
        .map(|answer| wire::parse(format!("HTTP/1.1 {}", answer.trim_end_matches("HTTP/1.1 ")).as_bytes()))
        .collect()
}

/// `load` of `/readyz`, asked on a connection of its own.
fn load(proxy: &Proxy) -> Value {
    let answer = wire::ask(admin(proxy), "GET /readyz", "");
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    body["load"].clone()
}

/// Waits until the proxy has counted what it is to count.
fn wait_for_load(proxy: &Proxy, what: &str, condition: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = load(proxy);
        if condition(&seen) {
            return;
        }
        assert!(Instant::now() < deadline, "{what} never came: {seen}");
        // Nothing depends on the step.
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn data(requests: &[Recorded]) -> usize {
    requests.iter().filter(|request| request.hop == Hop::Data).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_drips_is_refused_when_its_time_is_over() {
    /// So often a byte comes.
    const STEP: Duration = Duration::from_millis(500);
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let drip = |before: &str| {
        let mut stream = wire::connect(proxy.address());
        stream.write_all(before.as_bytes()).expect("sent");
        let begun = Instant::now();
        let mut taker = stream.try_clone().expect("a second handle");
        std::thread::scope(|scope| {
            let all = scope.spawn(move || {
                let mut all = Vec::new();
                // Bytes that come behind the refusal may reset the connection.
                let _ = taker.read_to_end(&mut all);
                (String::from_utf8_lossy(&all).into_owned(), begun.elapsed())
            });
            for byte in "GET /v2/ HTTP/1.1\r\nX: ".bytes().chain(std::iter::repeat(b'x')) {
                if all.is_finished() || stream.write_all(&[byte]).is_err() {
                    break;
                }
                std::thread::sleep(STEP);
            }
            all.join().expect("an end")
        })
    };
    std::thread::scope(|scope| {
        // On a new connection, on a kept one, and behind a request that is answered.
        let dripped = ["", PING, TAGS, "\r\n\r\n"].map(|before| (before, scope.spawn(move || drip(before))));
        let silent = scope.spawn(|| {
            let mut all = Vec::new();
            wire::connect(proxy.address()).read_to_end(&mut all).expect("an end");
            all
        });
        for (before, dripped) in dripped {
            let (all, elapsed) = dripped.join().expect("an end");
            let answers = all.matches("HTTP/1.1 ").count();
            assert_eq!(answers, 1 + usize::from(before.starts_with("GET")), "{before:?}: {all}");
            let last = all.rfind("HTTP/1.1 ").map(|at| &all[at..]).expect("an answer");
            assert!(last.starts_with("HTTP/1.1 408 ") && last.contains("Connection: close\r\n"), "{before:?}: {all}");
            assert!(elapsed >= HEADER_LIMIT - Duration::from_secs(1) && elapsed < PATIENCE, "{before:?}: {elapsed:?}");
        }
        // A client may have the connection in stock.
        assert_eq!(silent.join().expect("an end"), b"", "nothing is said to who has said nothing");
    });
    assert_eq!(wire::ask(proxy.address(), "GET /v2/", "").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_has_64_kib_of_room_and_no_more() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).flag("--admin-address", ":0").start();
    for (length, status) in [(2000, 200), (5000, 200), (60 << 10, 200), (64 << 10, 431), (1 << 20, 431)] {
        let request = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: {}\r\n\r\n", "x".repeat(length));
        let mut stream = wire::connect(proxy.address());
        // The refusal comes before the end of it.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(wire::parse(&answer).status, status, "{length}");
    }
    assert_eq!(load(&proxy)["bad_headers"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_unfinished_take_little_memory() {
    const CLIENTS: usize = 300;
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).flag("--admin-address", ":0").start();
    assert_eq!(wire::ask(proxy.address(), "GET /v2/", "").status, 200);
    // Twice as much as is sent, and what a connection takes by itself.
    for (length, most) in [(100, 10 << 20), (60_000, 50 << 20)] {
        let before = proxy.resident_bytes();
        let header = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(length));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut client = wire::connect(proxy.address());
                client.write_all(header.as_bytes()).expect("sent");
                client
            })
            .collect();
        wait_for_load(&proxy, "all of them", |load| load["connections"]["now"] == CLIENTS);
        // It has read all of them when it has read one that came later.
        assert_eq!(wire::ask(proxy.address(), "GET /v2/", "").status, 200);
        let taken = proxy.resident_bytes().saturating_sub(before);
        assert!(taken < most, "{CLIENTS} headers of {length} bytes: {taken}");
        drop(clients);
        wait_for_load(&proxy, "their end", |load| load["connections"]["now"] == 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_do_not_wait_for_answers_are_served_in_order() {
    const MANY: usize = 50;
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let last = "GET /v2/none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let whole = format!("{TAGS}{PING}\r\n{TAGS}{last}{PING}");
    // In one piece, and broken at each place.
    for at in 0..whole.len() {
        if at > 0 && at % 7 != 0 {
            continue;
        }
        let mut stream = wire::connect(proxy.address());
        stream.set_nodelay(true).expect("a socket");
        let (first, rest) = whole.split_at(at);
        stream.write_all(first.as_bytes()).expect("sent");
        stream.write_all(rest.as_bytes()).expect("sent");
        let answers = answers(stream);
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 200, 404], "{at}");
        let connection = |answer: &Answer| answer.header("connection").map(str::to_owned);
        assert_eq!(
            answers.iter().map(connection).collect::<Option<Vec<_>>>().expect("said")[2..],
            ["keep-alive", "close"]
        );
        assert!(answers[0].body.contains("library/busybox") && answers[1].body == "{}", "{answers:?}");
    }
    let mut stream = wire::connect(proxy.address());
    stream.write_all((TAGS.repeat(MANY) + last).as_bytes()).expect("sent");
    assert_eq!(answers(stream).len(), MANY + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_of_zero_that_is_given_twice_is_no_body_and_the_next_request_is_served() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    for lengths in ["Content-Length: 0, 0\r\n", "Content-Length: 0\r\nContent-Length: 0\r\n"] {
        let next = "GET /v2/none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let mut stream = wire::connect(proxy.address());
        stream.write_all(format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{lengths}\r\n{next}").as_bytes()).expect("sent");
        let answers = answers(stream);
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 404], "{lengths}");
    }
}

/// A request that is never answered as one: where a body ends is what requests are smuggled by.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_served_behind_a_body() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    for (line, headers, body, status) in [
        ("GET /v2/", "Content-Length: 5\r\n", "abcde", 400),
        ("GET /v2/", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n", 400),
        ("GET /v2/", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n", 200),
        ("GET /v2/library/busybox/tags/list", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n", 200),
        ("GET /v2/library/busybox/tags/list", "Transfer-Encoding: chunked\r\n", "000;x=y\r\nA: b\r\n\r\n", 200),
        ("POST /v2/", "Content-Length: 5\r\n", "abcde", 405),
        ("GET /v2/", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", 200),
        ("GET /v2/", "Content-Length: 0\r\nContent-Length: 5\r\n", "abcde", 400),
    ] {
        let mut stream = wire::connect(proxy.address());
        let request = format!("{line} HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}{TAGS}");
        stream.write_all(request.as_bytes()).expect("sent");
        let answers = answers(stream);
        assert_eq!(
            answers.iter().map(|answer| answer.status).collect::<Vec<_>>(),
            [status],
            "{line} {headers:?} {body:?}"
        );
    }
    let asked = azure.requests();
    let asked: Vec<_> = asked.iter().filter(|request| request.hop == Hop::Data).collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    for request in asked {
        assert_eq!(
            (request.header("transfer-encoding"), request.header("content-length")),
            (None, None),
            "{request:?}"
        );
    }
    // No body at all: the connection is kept.
    let mut client = Kept::new(proxy.address());
    for _ in 0..2 {
        let answer = client.ask("GET", "/v2/", "HTTP/1.1", "Content-Length: 0\r\n");
        assert_eq!((answer.status(), answer.header("connection")), (200, Some("keep-alive")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_1_without_a_host_is_refused() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    for (line, status) in [
        ("GET /v2/ HTTP/1.1", 400),
        ("GET /v2/library/busybox/tags/list HTTP/1.1", 400),
        ("GET http://mirror/v2/ HTTP/1.1", 400),
        ("GET /v2/ HTTP/1.0", 200),
    ] {
        let answer =
            wire::parse(&wire::send(proxy.address(), format!("{line}\r\nConnection: close\r\n\r\n").as_bytes()));
        assert_eq!(answer.status, status, "{line}: {answer:?}");
        assert!(status == 200 || answer.code() == "UNSUPPORTED", "{line}: {answer:?}");
    }
    assert_eq!(data(&azure.requests()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_a_browser_gets_no_manifest() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    for (headers, status) in [
        ("Origin: http://evil.example\r\n", 403),
        ("Origin: null\r\nSec-Fetch-Site: none\r\n", 403),
        ("Sec-Fetch-Site: cross-site\r\n", 403),
        ("Sec-Fetch-Site: same-site\r\n", 403),
        // By a name that was led here a browser says neither.
        ("Accept-Language: en\r\nUser-Agent: Mozilla/5.0\r\n", 403),
        ("Sec-Fetch-Site: none\r\nAccept-Language: en\r\n", 200),
        ("Sec-Fetch-Site: same-origin\r\n", 200),
        ("User-Agent: containerd/2.4\r\n", 200),
    ] {
        let answer = wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list", headers);
        assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
        assert!(status == 200 || answer.code() == "DENIED", "{headers:?}: {answer:?}");
    }
    assert_eq!(data(&azure.requests()), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_kept_for_as_long_as_is_set() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).settings("client_keepalive: 2s").start();
    let mut client = Kept::new(proxy.address());
    assert_eq!(client.ask("GET", "/v2/", "HTTP/1.1", "").status(), 200);
    let begun = Instant::now();
    assert!(client.is_at_its_end());
    assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

/// A pull while others hold all connections that there may be.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_house_refuses_at_once_and_leaves_the_rest_to_registries_and_readyz() {
    const LIMIT: usize = 256;
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).flag("--admin-address", ":0").descriptors(64, LIMIT).start();
    proxy.wait_for_log(&format!("{LIMIT} file descriptors are few"));
    let max = load(&proxy)["connections"]["max"].as_u64().and_then(|max| usize::try_from(max).ok()).expect("a number");
    assert!(max > 8, "the soft limit is raised: {max}");
    let mut first = Kept::new(proxy.address());
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
async fn more_requests_than_there_may_be_are_refused_at_once() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).flag("--admin-address", ":0").descriptors(256, 256).start();
    assert_eq!(wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list", "").status, 200);
    let max = load(&proxy)["requests"]["max"].as_u64().and_then(|max| usize::try_from(max).ok()).expect("a number");
    azure.inject(Hop::Data, Fault::Hang);
    let before = data(&azure.requests());
    let mut waiting: Vec<_> = (0..max)
        .map(|_| {
            let mut client = wire::connect(proxy.address());
            client.write_all(TAGS.as_bytes()).expect("sent");
            client
        })
        .collect();
    wait_for(&azure, "all of them", |requests| data(requests) - before == max).await;
    let mut kept = Kept::new(proxy.address());
    for _ in 0..3 {
        let answer = kept.ask("GET", "/v2/library/busybox/tags/list", "HTTP/1.1", "");
        assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")), "{answer:?}");
    }
    assert_eq!(load(&proxy)["requests"]["refused"], 3);
    assert_eq!(data(&azure.requests()) - before, max, "the registry hears of none of them");
    waiting.clear();
    proxy.wait_for_log("requests under way: there is room again");
    azure.clear_faults();
    assert_eq!(kept.ask("GET", "/v2/library/busybox/tags/list", "HTTP/1.1", "").status(), 200);
}

/// The client's side of HTTP/2, as far as no client would go.
mod h2 {
    use super::*;

    pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const CONTINUATION: u8 = 9;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;

    pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    pub fn setting(name: u16, value: u32) -> Vec<u8> {
        [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
    }

    /// `GET path` in HPACK without a table (RFC 7541 section 6): GET, http, `:path`, `:authority`.
    pub fn get(path: &str) -> Vec<u8> {
        let text = |name: u8, text: &str| [&[name, u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
        [vec![0x82, 0x86], text(0x04, path), text(0x01, "mirror")].concat()
    }

    /// The next frame: kind, flags, stream, payload.
    pub fn read(stream: &mut TcpStream) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let [a, b, c, kind, flags, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).ok()?;
        Some((kind, flags, u32::from_be_bytes(id), payload))
    }

    pub fn connect(address: SocketAddr, settings: &[u8]) -> TcpStream {
        let mut stream = wire::connect(address);
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()).expect("sent");
        stream
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_connection_has_few_streams_and_small_headers() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let mut stream = h2::connect(proxy.address(), &[]);
    let settings = std::iter::from_fn(|| h2::read(&mut stream)).find(|frame| frame.0 == h2::SETTINGS && frame.1 == 0);
    let settings = settings.expect("settings").3;
    let value = |name: u16| {
        let pair = settings.chunks(6).find(|pair| pair[..2] == name.to_be_bytes());
        pair.map(|pair| u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]))
    };
    assert_eq!((value(3), value(6)), (Some(32), Some(64 << 10)), "streams at once, header list");
    // Who does not care is refused stream by stream.
    azure.inject(Hop::Data, Fault::Hang);
    let request = h2::get("/v2/library/busybox/tags/list");
    for id in 0..40 {
        let flags = h2::END_STREAM | h2::END_HEADERS;
        stream.write_all(&h2::frame(h2::HEADERS, flags, 2 * id + 1, &request)).expect("sent");
    }
    let refused = std::iter::from_fn(|| h2::read(&mut stream)).filter(|frame| frame.0 == h2::RST_STREAM).take(8);
    assert_eq!(refused.map(|frame| frame.2).collect::<Vec<_>>(), (32..40).map(|id| 2 * id + 1).collect::<Vec<_>>());
    assert!(data(&azure.requests()) <= 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_that_drips_ends_when_the_time_of_a_header_is_over() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let unfinished = [
        // Half the preface, half a frame, and a header block that goes on for ever.
        (h2::PREFACE[..14].to_vec(), Vec::new()),
        ([h2::PREFACE, &h2::frame(h2::SETTINGS, 0, 0, &[])[..5]].concat(), Vec::new()),
        (
            [h2::PREFACE, &h2::frame(h2::SETTINGS, 0, 0, &[]), &h2::frame(h2::HEADERS, h2::END_STREAM, 1, &[0x82])]
                .concat(),
            // A field without a table: a: b.
            h2::frame(h2::CONTINUATION, 0, 1, &[0, 1, b'a', 1, b'b']),
        ),
    ];
    std::thread::scope(|scope| {
        for (begin, drop) in unfinished {
            let address = proxy.address();
            scope.spawn(move || {
                let mut stream = wire::connect(address);
                stream.write_all(&begin).expect("sent");
                let begun = Instant::now();
                let mut taker = stream.try_clone().expect("a second handle");
                let ended = scope.spawn(move || {
                    let _ = taker.read_to_end(&mut Vec::new());
                    begun.elapsed()
                });
                while !ended.is_finished() && stream.write_all(&drop).is_ok() {
                    // The library behind this takes five of them.
                    std::thread::sleep(Duration::from_secs(6));
                }
                let elapsed = ended.join().expect("an end");
                assert!(
                    elapsed >= HEADER_LIMIT - Duration::from_secs(1) && elapsed < PATIENCE,
                    "{begin:?}: {elapsed:?}"
                );
            });
        }
    });
}

/// Clients that ask for much and take nothing.
#[tokio::test(flavor = "multi_thread")]
async fn closed_windows_do_not_hold_all_of_the_registry() {
    const CONNECTIONS: u32 = 20;
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).flag("--admin-address", ":0").descriptors(512, 512).start();
    let max = load(&proxy)["requests"]["max"].as_u64().expect("a number");
    let request = h2::get("/v2/library/busybox/tags/list");
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = h2::connect(proxy.address(), &h2::setting(h2::INITIAL_WINDOW_SIZE, 0));
        let asked =
            (0..32).flat_map(|id| h2::frame(h2::HEADERS, h2::END_STREAM | h2::END_HEADERS, 2 * id + 1, &request));
        stream.write_all(&asked.collect::<Vec<_>>()).expect("sent");
        held.push(stream);
    }
    proxy.wait_for_log("requests under way: ");
    let seen = load(&proxy);
    assert!(seen["requests"]["refused"].as_u64() > Some(0), "{seen}");
    assert!(data(&azure.requests()) as u64 <= max, "{max}: {}", data(&azure.requests()));
    drop(held);
    proxy.wait_for_log("requests under way: there is room again");
    assert_eq!(wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list", "").status, 200);
}

/// A refusal waits for its client, too, and nothing bounds how many do.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_refused_do_not_wait_for_closed_windows() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).flag("--admin-address", ":0").descriptors(256, 256).start();
    let max = load(&proxy)["requests"]["max"].as_u64().expect("a number");
    let request = h2::get("/v2/library/busybox/tags/list");
    let mut stream = h2::connect(proxy.address(), &h2::setting(h2::INITIAL_WINDOW_SIZE, 0));
    let asked = (0..32).flat_map(|id| h2::frame(h2::HEADERS, h2::END_STREAM | h2::END_HEADERS, 2 * id + 1, &request));
    stream.write_all(&asked.collect::<Vec<_>>()).expect("sent");
    let refused = usize::try_from(32 - max).expect("fewer are served than one connection may ask");
    let begun = Instant::now();
    let ended = std::iter::from_fn(|| h2::read(&mut stream)).filter(|frame| frame.0 == h2::RST_STREAM).take(refused);
    assert_eq!(ended.count(), refused);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(load(&proxy)["requests"]["refused"], refused);
}
