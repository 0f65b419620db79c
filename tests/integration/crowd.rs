//! One client that takes all that it can get, and another one that wants little.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use acr_emulator::{Fault, Hop};

use crate::admin::admin;
use crate::load::wait_for_load;
use crate::tls::{BOTH, Secret, ask, secured, settings};
use crate::wire;
use testkit::certificates::Authority;
use testkit::pulls::raise_descriptors;
use testkit::{PATIENCE, Setup, wait_for};

/// How a balancer begins a connection of the client that takes all, and of the other one.
const GREEDY: &str = "PROXY TCP4 192.0.2.7 192.0.2.1 32768 80\r\n";
const MODEST: &str = "PROXY TCP4 192.0.2.8 192.0.2.1 32768 80\r\n";

fn connect_as(client: &str, address: SocketAddr, first: &[u8]) -> TcpStream {
    let mut stream = wire::connect(address);
    stream.write_all(&[client.as_bytes(), first].concat()).expect("sent");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_one_client_never_ends_do_not_keep_the_others_out() {
    /// Three quarters of the 1,024 that may be under way.
    const PART: usize = 768;
    /// More than may be.
    const ASKED: usize = 1100;
    raise_descriptors();
    let azure = testkit::azure().await;
    let ca = Authority::new("mirror CA");
    let secret = Secret::new(&ca.server(&["mirror.internal"]), &[]);
    let (tls, trusted) = (secret.tls(""), "{trusted: [127.0.0.0/8]}");
    let listen = format!("[{{address: '127.0.0.1:0', tls: {tls}, proxy_protocol: {trusted}}}]");
    let proxy = Setup::new(&azure).listen(&listen).flag("--admin-address", ":0").start();
    // The begin of a hello that never ends.
    let held: Vec<_> =
        (0..ASKED).map(|_| connect_as(GREEDY, proxy.address(), b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03")).collect();
    let refused = format!("acr_cache_proxy_tls_handshakes_total{{result=\"too_many\"}} {}", ASKED - PART);
    let begun = Instant::now();
    while !wire::ask(admin(&proxy), "GET /metrics", "").body.contains(&refused) {
        assert!(begun.elapsed() < PATIENCE, "what is over its part is refused");
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut other = secured(&settings(&ca, None, &BOTH), connect_as(MODEST, proxy.address(), b""));
    assert_eq!(ask(&mut other).expect("an answer"), 200);
    drop(held);
    assert!(proxy.end().contains("error=TLS handshake: this client has too many under way"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_one_client_makes_wait_for_each_other_and_not_everybody_for_them() {
    /// Four times the places of requests to a registry: the last of them would wait for longer than a request may.
    const ASKED: usize = 4 * 128;
    /// After which a request that takes longer gives its place to another one.
    const PLACE_LIMIT: Duration = Duration::from_secs(2);
    raise_descriptors();
    let azure = testkit::azure().await;
    let listen = "[{address: '127.0.0.1:0', proxy_protocol: {trusted: [127.0.0.0/8]}}]";
    let proxy = Setup::new(&azure).listen(listen).flag("--admin-address", ":0").start();
    // Slow, and not silent: a registry that is silent counts as down, if this machine is slow as well.
    azure.inject(Hop::Data, Fault::SlowDrip.on_path("n="));
    let slow: Vec<_> = (1..=ASKED)
        .map(|number| {
            let ask = format!("GET /v2/library/busybox/tags/list?n={number} HTTP/1.1\r\nHost: x\r\n\r\n");
            connect_as(GREEDY, proxy.address(), ask.as_bytes())
        })
        .collect();
    wait_for_load(&proxy, "all that it asks for", |load| load["requests"]["now"] == ASKED);
    wait_for(&azure, "what finds a place", |requests| requests.iter().filter(|it| it.hop == Hop::Data).count() >= 128)
        .await;
    let begun = Instant::now();
    let mut other = std::io::BufReader::new(connect_as(
        MODEST,
        proxy.address(),
        b"GET /v2/library/busybox/tags/list HTTP/1.1\r\nHost: x\r\n\r\n",
    ));
    let answer = wire::receive(&mut other, "GET", usize::MAX).expect("an answer").answer;
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert!(begun.elapsed() < PLACE_LIMIT + testkit::AT_ONCE, "{:?}", begun.elapsed());
    drop(slow);
}
