//! Requests of HTTP/1 as bytes: headers within bounds, requests in sequence, bodies, and what is refused before it is parsed.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use acr_emulator::Hop;

use crate::load::{load, sent_to_registry, wait_for_load};
use crate::wire::{self, Answer, Client};
use testkit::{AT_ONCE, PATIENCE, Setup};

const PING: &str = "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
const TAGS: &str = "GET /v2/library/busybox/tags/list HTTP/1.1\r\nHost: x\r\n\r\n";
/// The proxy's own limit for a header.
pub(crate) const HEADER_LIMIT: Duration = Duration::from_secs(20);

/// All answers that come until the connection ends.
fn answers(mut stream: TcpStream) -> Vec<Answer> {
    let mut bytes = Vec::new();
    // Who sends more after `Connection: close` may get a reset behind the answers (RFC 9112 section 9.6).
    if let Err(cause) = stream.read_to_end(&mut bytes) {
        assert_eq!(cause.kind(), ErrorKind::ConnectionReset, "answers, and the end of the connection");
    }
    let text = String::from_utf8(bytes).expect("text");
    text.split_inclusive("HTTP/1.1 ").collect::<Vec<_>>()[1..]
        .iter()
        .map(|answer| wire::parse(format!("HTTP/1.1 {}", answer.trim_end_matches("HTTP/1.1 ")).as_bytes()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_header_is_refused_after_its_time_limit() {
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
        // A client may keep such a connection for a later request.
        assert_eq!(silent.join().expect("an end"), b"", "nothing is said to who has said nothing");
    });
    assert_eq!(wire::ask(proxy.address(), "GET /v2/", "").status, 200);
    let log = proxy.end();
    assert_eq!(log.matches(" access] - - 408 ").count(), 4, "a line for each refusal, and none for silence: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_over_64_kib_is_refused() {
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
    let log = proxy.end();
    let lines = log.lines().filter(|line| {
        line.contains(" access] - - 431 ")
            && line.contains(" client=127.0.0.1:")
            && line.contains(" tries=0 ")
            && line.contains(" error=the header is larger")
    });
    assert_eq!(lines.count(), 2, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_headers_take_little_memory() {
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

/// Each within its own limit; without a common bound they took as much as there are connections.
#[tokio::test(flavor = "multi_thread")]
async fn unfinished_headers_of_all_clients_have_a_bound_together() {
    const ROOM: usize = 32 << 20;
    const LENGTH: usize = 60_000;
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let header = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(LENGTH));
    // HPACK: a literal field whose value would have 60,127 bytes.
    let mut block = [&[0, 1, b'x', 0x7f, 0xe0, 0xd4, 0x03][..], &[b'x'; LENGTH]].concat();
    block.truncate(LENGTH);
    let mut frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for (number, part) in block.chunks(15_000).enumerate() {
        let kind = if number == 0 { 1 } else { 9 };
        let length = u16::try_from(part.len()).expect("short").to_be_bytes();
        frames.extend([&[0, length[0], length[1], kind, 0, 0, 0, 0, 1][..], part].concat());
    }
    for bytes in [header.as_bytes(), &frames] {
        let mut clients: Vec<_> = (0..ROOM / LENGTH + 40)
            .map(|_| {
                let mut client = wire::connect(proxy.address());
                // The refusal may come before the end of it.
                let _ = client.write_all(bytes);
                client
            })
            .collect();
        assert_eq!(wire::ask(proxy.address(), "GET /v2/", "").status, 200, "a usual header takes nothing of the room");
        let refused = clients.iter_mut().filter_map(|client| is_refused(client).then_some(())).count();
        assert!((40..80).contains(&refused), "{refused} of {}", clients.len());
    }
}

/// By HTTP/1 with an answer, by HTTP/2 with the connection's end.
fn is_refused(client: &mut TcpStream) -> bool {
    client.set_nonblocking(true).expect("a socket");
    let mut bytes = [0; 1024];
    loop {
        match client.read(&mut bytes) {
            Ok(1..) if bytes.starts_with(b"HTTP/1.1 503 ") => return true,
            Ok(1..) => {}
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => return false,
            Ok(0) | Err(_) => return true,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
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
async fn a_repeated_content_length_of_zero_is_no_body() {
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
async fn no_request_behind_a_body_is_served() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).start();
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
        let mut client = Client::new(proxy.address());
        for _ in 0..2 {
            let answer = client.ask("GET", "/v2/", "HTTP/1.1", "Content-Length: 0\r\n");
            assert_eq!((answer.status(), answer.header("connection")), (200, Some("keep-alive")));
        }
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
    assert_eq!(sent_to_registry(&azure.requests()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_a_browser_gets_no_manifest() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).start();
        for (headers, status) in [
            ("Origin: http://evil.example\r\n", 403),
            ("Origin: null\r\nSec-Fetch-Site: none\r\n", 403),
            ("Sec-Fetch-Site: cross-site\r\n", 403),
            ("Sec-Fetch-Site: same-site\r\n", 403),
            // By a name that was led here a browser says neither.
            ("Accept-Language: en\r\nUser-Agent: Mozilla/5.0\r\n", 403),
            ("Sec-Fetch-Site: none\r\nAccept-Language: en\r\n", 403),
            ("Sec-Fetch-Site: same-origin\r\n", 403),
            ("User-Agent: containerd/2.4\r\n", 200),
        ] {
            let answer = wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list", headers);
            assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
            assert!(status == 200 || answer.code() == "DENIED", "{headers:?}: {answer:?}");
        }
        assert_eq!(sent_to_registry(&azure.requests()), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_after_client_keepalive() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).settings("client_keepalive: 2s").start();
    let mut client = Client::new(proxy.address());
    assert_eq!(client.ask("GET", "/v2/", "HTTP/1.1", "").status(), 200);
    let begun = Instant::now();
    assert!(client.is_at_its_end());
    assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}
