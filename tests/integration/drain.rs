//! The end of a process with requests under way.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Fault, Hop};

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
        new.write_all(whole.strip_prefix(begun).unwrap_or(whole).as_bytes()).expect("sent");
        let answer = rest(new);
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{begun:?}: {answer:?}");
        // And so is a request on a kept connection that was on its way.
        let answer = kept.ask("GET", "/v2/", "HTTP/1.1", "");
        assert_eq!((answer.status(), answer.header("connection")), (200, Some("close")), "{begun:?}: {answer:?}");
        assert!(kept.is_at_its_end());
        assert_eq!(proxy.wait().code(), Some(0));
    }
}

/// A layer that comes in parts over kept connections goes on while another request holds the drain up.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_is_served_during_the_drain() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let mut proxy = Setup::new(&azure).cache(cache).start();
        let mut kept = Client::new(proxy.address());
        assert_eq!(kept.ask("GET", "/v2/", "HTTP/1.1", "").status(), 200);
        let slow = slow_pull(&azure, &proxy).await;
        proxy.signal("TERM");
        proxy.wait_for_log("stopping: 1 requests under way");
        // Longer than what a first request may take.
        std::thread::sleep(Duration::from_secs(3));
        let answer = kept.ask("GET", PULL, "HTTP/1.1", ACCEPT);
        assert_eq!((answer.status(), answer.header("connection")), (200, Some("close")), "{answer:?}");
        drop(slow);
        assert_eq!(proxy.wait().code(), Some(0));
    }
}

/// What is passed on to the client as it comes. An answer that a flight fetches comes whole or fails before the drain ends.
#[tokio::test(flavor = "multi_thread")]
async fn requests_cut_off_by_the_end_of_the_drain_are_counted_and_logged() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).cache("off").start();
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
    let mut proxy = Setup::new(&azure).start();
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
    proxy.wait_for_log("stopped by a second signal");
}
