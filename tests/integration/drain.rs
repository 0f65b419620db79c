//! The end of a process with requests under way.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Fault, Hop};

use crate::frames;
use crate::wire::{self, Answer, Client};
use testkit::{AT_ONCE, Proxy, Setup, wait_for};

const PULL: &str = "/v2/library/busybox/manifests/latest";
const ACCEPT: &str = "Accept: application/vnd.oci.image.index.v1+json\r\n";

/// A pull that goes on for minutes, as soon as it has reached the registry.
async fn slow_pull(azure: &Emulator, proxy: &Proxy) -> TcpStream {
    azure.inject(Hop::Data, Fault::SlowDrip.times(1));
    let mut stream = wire::connect(proxy.address());
    write!(stream, "GET {PULL} HTTP/1.1\r\nHost: x\r\n{ACCEPT}\r\n").expect("sent");
    wait_for(azure, "a pull", |requests| requests.iter().any(|request| request.target.contains("/manifests/"))).await;
    stream
}

fn rest(mut stream: TcpStream) -> Answer {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer, and the end of the connection");
    wire::parse(&answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_has_begun_before_the_signal_is_served() {
    let azure = testkit::azure().await;
    for begun in ["GET", "GET /v2/ HTTP/1.1\r\n", "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r", "\r\n"] {
        let mut proxy = Setup::new(&azure).start();
        let mut new = wire::connect(proxy.address());
        let mut kept = Client::new(proxy.address());
        assert_eq!(kept.ask("GET", "/v2/", "HTTP/1.1", "").status(), 200);
        new.write_all(begun.as_bytes()).expect("sent");
        proxy.signal("TERM");
        proxy.wait_for_log("stopping: ");
        let whole = "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
        // And so is a request on a kept connection that was on its way: at once, for such a connection ends in a second.
        let on_its_way = std::thread::scope(|scope| {
            let on_its_way = scope.spawn(|| kept.ask("GET", "/v2/", "HTTP/1.1", ""));
            new.write_all(whole.strip_prefix(begun).unwrap_or(whole).as_bytes()).expect("sent");
            on_its_way.join().expect("an answer")
        });
        let answer = rest(new);
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{begun:?}: {answer:?}");
        let answer = on_its_way;
        assert_eq!((answer.status(), answer.header("connection")), (200, Some("close")), "{begun:?}: {answer:?}");
        assert!(kept.is_at_its_end());
        assert_eq!(proxy.wait().code(), Some(0));
    }
}

/// It would bind its addresses again, and whoever asks would hear that the settings are in effect.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_takes_no_settings_and_is_not_found_any_more() {
    let azure = testkit::azure().await;
    let mut proxy = Setup::new(&azure).cache("off").start();
    let name = format!("@acr-cache-proxy/control/{}", proxy.id());
    let is_found =
        || std::fs::read_to_string("/proc/self/net/unix").expect("readable").lines().any(|l| l.ends_with(&name));
    assert!(is_found());
    let slow = slow_pull(&azure, &proxy).await;
    proxy.signal("TERM");
    proxy.wait_for_log("stopping: 1 requests under way");
    let (is_taken, said) = proxy.reload();
    assert!(!is_taken && said.contains("has no control socket here: it is ending"), "{said}");
    assert!(!is_found(), "another one is the only one that runs here");
    assert!(proxy.is_running(), "{}", proxy.log());
    drop(slow);
    assert_eq!(proxy.wait().code(), Some(0));
}

/// Clients turn to another instance while one request holds the drain up.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_end_while_a_request_is_under_way() {
    let azure = testkit::azure().await;
    let mut proxy = Setup::new(&azure).cache("off").start();
    let (mut kept, mut new) = (Client::new(proxy.address()), wire::connect(proxy.address()));
    assert_eq!(kept.ask("GET", "/v2/", "HTTP/1.1", "").status(), 200);
    let slow = slow_pull(&azure, &proxy).await;
    proxy.signal("TERM");
    proxy.wait_for_log("stopping: 1 requests under way");
    assert!(kept.is_at_its_end());
    assert_eq!(new.read(&mut [0]).expect("the end"), 0);
    assert!(proxy.is_running(), "{}", proxy.log());
    drop(slow);
    assert_eq!(proxy.wait().code(), Some(0));
}

/// Clients of HTTP/2 are told to open no more requests on the connection; those that are open are answered.
#[tokio::test(flavor = "multi_thread")]
async fn http2_connections_are_told_to_go_away() {
    let azure = testkit::azure().await;
    let mut proxy = Setup::new(&azure).cache("off").start();
    azure.inject(Hop::Data, Fault::PauseMidBody(Duration::from_secs(2)).times(1));
    let mut stream = frames::connect(proxy.address(), &[]);
    let flags = frames::END_STREAM | frames::END_HEADERS;
    let request = frames::get("/v2/library/busybox/tags/list");
    stream.write_all(&frames::frame(frames::HEADERS, flags, 1, &request)).expect("sent");
    wait_for(&azure, "a pull", |requests| requests.iter().any(|request| request.hop == Hop::Data)).await;
    proxy.signal("TERM");
    let seen: Vec<_> = std::iter::from_fn(|| {
        let frame = frames::read(&mut stream)?;
        // The second half of the going away waits for the acknowledgment of a ping.
        if frame.0 == frames::PING && frame.1 == 0 {
            stream.write_all(&frames::frame(frames::PING, frames::ACK, 0, &frame.3)).expect("sent");
        }
        Some(frame)
    })
    .collect();
    let position = |kind, flags: u8| seen.iter().position(|frame| frame.0 == kind && frame.1 & flags == flags);
    let (goaway, end) = (position(frames::GOAWAY, 0), position(frames::DATA, frames::END_STREAM));
    assert!(goaway.is_some() && goaway < end, "{seen:?}\n{}", proxy.log());
    assert_eq!(proxy.wait().code(), Some(0));
}

/// As a balancer sees it: not ready, and yet good for every client that it still sends here.
#[tokio::test(flavor = "multi_thread")]
async fn during_the_notice_all_is_served_as_ever_but_readiness_is_off() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure).flag("--admin-address", ":0").settings("drain: {notice: 5m, timeout: 1s}");
    let mut proxy = setup.start();
    let admin = crate::admin::admin(&proxy);
    assert_eq!(wire::ask(proxy.address(), &format!("GET {PULL}"), ACCEPT).status, 200);
    assert_eq!(wire::ask(admin, "GET /readyz", "").status, 200);
    proxy.signal("TERM");
    proxy.wait_for_log("stopping: not ready any more, and serving for another 300 s");
    let answer = wire::ask(admin, "GET /readyz", "");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("\"stopping\": true"), "{answer:?}");
    let mut kept = Client::new(proxy.address());
    for _ in 0..2 {
        let answer = kept.ask("GET", PULL, "HTTP/1.1", ACCEPT);
        assert_eq!((answer.status(), answer.header("connection")), (200, Some("keep-alive")), "{answer:?}");
    }
    // Longer than what counts as the same signal.
    std::thread::sleep(Duration::from_millis(1100));
    proxy.signal("TERM");
    proxy.wait_for_log("stopped by a second signal: 0 requests under way are cut off");
    assert_eq!(proxy.wait().code(), Some(0));
}

/// The admin listener was closed with the others, so that a check of liveness failed while a layer was under way.
#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_were_refused_while_a_request_was_finished() {
    let azure = testkit::azure().await;
    for is_cut_off in [false, true] {
        let setup = Setup::new(&azure).flag("--admin-address", ":0").cache("off");
        let mut proxy = setup.settings("drain: {timeout: 6s}").start();
        let admin = crate::admin::admin(&proxy);
        let mut kept = Client::new(admin);
        assert_eq!(kept.ask("GET", "/healthz", "HTTP/1.1", "").status(), 200);
        let slow = slow_pull(&azure, &proxy).await;
        proxy.signal("TERM");
        proxy.wait_for_log("stopping: 1 requests under way");
        for _ in 0..10 {
            for (path, status) in [("/healthz", 200), ("/readyz", 503), ("/metrics", 200)] {
                let answer = wire::ask(admin, &format!("GET {path}"), "");
                assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{path}: {answer:?}");
            }
            std::thread::sleep(Duration::from_millis(150));
        }
        assert!(kept.is_at_its_end(), "idle ones end as those of clients do");
        assert!(TcpStream::connect(proxy.address()).is_err(), "it takes in no more work");
        if !is_cut_off {
            drop(slow);
        }
        assert_eq!(proxy.wait().code(), Some(0));
        let log = proxy.end_of_log();
        assert_eq!(log.contains("1 requests under way are cut off"), is_cut_off, "{log}");
        assert!(!log.contains(" ERROR "), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_begins_after_the_notice() {
    let azure = testkit::azure().await;
    let mut proxy = Setup::new(&azure).settings("drain: {notice: 2s}").start();
    let begun = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    let log = proxy.end_of_log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("stop")).collect();
    assert!(lines.len() == 3 && lines[0].contains("for another 2 s"), "{log}");
    assert!(
        lines[1].contains("stopping: 0 requests under way, at most 25 s") && lines[2].ends_with("] stopped"),
        "{log}"
    );
}

/// The upkeep of tokens used to end at the signal, and who waited for a first token got a 503.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_for_the_sign_in_gets_its_token_during_the_drain() {
    for (hop, cache) in [(Hop::Entra, "off"), (Hop::Exchange, testkit::ASKING[1]), (Hop::Token, "off")] {
        let azure = testkit::azure().await;
        azure.inject(hop, Fault::PauseMidBody(Duration::from_secs(3)).times(1));
        let mut proxy = Setup::new(&azure).cache(cache).start();
        wait_for(&azure, "a sign-in", |requests| requests.iter().any(|request| request.hop == hop)).await;
        let mut stream = wire::connect(proxy.address());
        write!(stream, "GET {PULL} HTTP/1.1\r\nHost: x\r\n{ACCEPT}\r\n").expect("sent");
        proxy.signal("TERM");
        // The answer says that it is the last, although the request came before the signal.
        let answer = rest(stream);
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{hop:?}: {answer:?}");
        assert_eq!(proxy.wait().code(), Some(0));
    }
}

/// What is passed on to the client as it comes. An answer that a flight fetches comes whole or fails before the drain ends.
#[tokio::test(flavor = "multi_thread")]
async fn requests_cut_off_by_the_end_of_the_drain_are_counted_and_logged() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).cache("off").settings("drain: {timeout: 2s}").start();
    let _h1 = slow_pull(&azure, &proxy).await;
    azure.inject(Hop::Data, Fault::SlowDrip.times(1));
    let mut h2 = Command::new("curl")
        .args(["--silent", "--http2-prior-knowledge", "--noproxy", "*", "--header", ACCEPT.trim_end()])
        .arg(proxy.url(PULL))
        .stdout(Stdio::null())
        .spawn()
        .expect("curl runs");
    wait_for(&azure, "two pulls", |requests| {
        requests.iter().filter(|request| request.target.contains("/manifests/")).count() == 2
    })
    .await;
    let log = proxy.end();
    let _ = (h2.kill(), h2.wait());
    assert!(log.contains("WARN ") && log.contains("2 requests under way are cut off"), "{log}");
    let lines: Vec<_> = log.lines().filter(|line| line.contains("error=cut off")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    for line in lines {
        assert!(line.contains(&format!("GET {PULL} 200 ")) && line.contains(" client=127.0.0.1:"), "{line}");
        assert!(line.contains(" repository=hub/library/busybox ") && !line.contains(" 0B "), "{line}");
    }
}

/// As a supervisor does that signals a process and then its group.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_within_a_second_is_ignored() {
    let azure = testkit::azure().await;
    let mut proxy = Setup::new(&azure).cache("off").start();
    let _slow = slow_pull(&azure, &proxy).await;
    proxy.signal("TERM");
    proxy.wait_for_log("stopping: 1 requests under way");
    proxy.signal("TERM");
    std::thread::sleep(Duration::from_millis(1500));
    assert!(proxy.is_running(), "{}", proxy.log());
    let begun = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(begun.elapsed() < AT_ONCE);
    let log = proxy.end_of_log();
    assert!(log.contains("stopped by a second signal: 1 requests under way are cut off"), "{log}");
    assert!(log.contains(&format!("GET {PULL} ")) && log.contains("error=cut off"), "{log}");
}
