//! The PROXY protocol: whose word counts, whose does not, and what the log says then.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::listeners::{Wire, connect_unix, is_served};
use crate::tls::Secret;
use crate::wire;
use testkit::certificates::Authority;
use testkit::{AT_ONCE, PATIENCE, Proxy, Setup};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.1 32768 80\r\n";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
/// The proxy's own limit for all that comes before the first request.
const OPENING_LIMIT: Duration = Duration::from_secs(10);

/// Version 2 with a TCP connection over IPv6, and an extension.
fn v2() -> Vec<u8> {
    let addresses =
        ["2001:db8::7", "2001:db8::1"].map(|text| text.parse::<std::net::Ipv6Addr>().expect("one").octets());
    let rest = [&addresses.concat()[..], &[0x80, 0, 0, 80], b"\x04\0\x03abc"].concat();
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x21", &length[..], &rest].concat()
}

/// One that trusts this network; the Unix socket trusts its peers.
async fn trusting(network: &str) -> (acr_emulator::Emulator, Proxy) {
    let azure = testkit::azure().await;
    let listen = format!(
        "[{{address: '127.0.0.1:0', proxy_protocol: {{trusted: ['{network}']}}}}, \
         {{unix: '{{}}/socket', proxy_protocol: {{trusted: []}}}}]"
    );
    let proxy = Setup::new(&azure).listen(&listen).start();
    (azure, proxy)
}

fn all(mut connection: impl Wire) -> String {
    let mut all = Vec::new();
    // Bytes that were not read may reset the connection.
    let _ = connection.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_the_address_that_a_trusted_balancer_tells() {
    let (_azure, proxy) = trusting("127.0.0.0/8").await;
    for (header, client) in [
        (V1.to_vec(), "192.0.2.7:32768"),
        (v2(), "[2001:db8::7]:32768"),
        (LOCAL.to_vec(), "127.0.0.1:"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1:"),
    ] {
        for is_unix in [false, true] {
            for step in [1, 1000] {
                let mut connection: Box<dyn Wire> = if is_unix {
                    Box::new(connect_unix(&proxy.path("socket")))
                } else {
                    let stream = wire::connect(proxy.address());
                    stream.set_nodelay(true).expect("a socket");
                    Box::new(stream)
                };
                for piece in header.chunks(step) {
                    connection.write_all(piece).expect("sent");
                }
                let before = proxy.log().matches(" access] ").count();
                is_served(connection);
                let log = proxy.wait_until("three lines", |log| {
                    let lines: Vec<_> = log.lines().filter(|line| line.contains(" access] ")).skip(before).collect();
                    (lines.len() == 3).then(|| lines.join("\n"))
                });
                let client = if is_unix && client.starts_with("127") { "- " } else { client };
                assert_eq!(log.matches(&format!(" client={client}")).count(), 3, "{client}: {log}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_of_nobody_trusted_is_refused_and_named() {
    let azure = testkit::azure().await;
    for listen in [
        "[{address: '127.0.0.1:0', proxy_protocol: {trusted: [192.0.2.0/24, '2001:db8::/32']}}]",
        "[{address: '127.0.0.1:0'}]",
    ] {
        let proxy = Setup::new(&azure).listen(listen).start();
        for header in [V1.to_vec(), v2(), LOCAL.to_vec()] {
            let mut connection = wire::connect(proxy.address());
            connection.write_all(&[&header[..], b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"].concat()).expect("sent");
            let answer = all(connection);
            assert!(
                answer.starts_with("HTTP/1.1 400 ") && answer.contains("does not take from this sender"),
                "{answer}"
            );
        }
        is_served(wire::connect(proxy.address()));
        let log = proxy.end();
        let refused = log.lines().filter(|line| {
            line.contains(" access] - - 400 ")
                && line.contains(" client=127.0.0.1:")
                && line.contains("error=a PROXY protocol header that this listener does not take from this sender")
        });
        assert_eq!(refused.count(), 3, "{log}");
        assert!(!log.contains("client=192.0.2.7") && !log.contains("client=[2001:db8::7]"), "{log}");
    }
    // A Unix socket has no address that could be in a list.
    let proxy = Setup::new(&azure).listen("[{unix: '{}/socket'}]").start();
    let mut connection = connect_unix(&proxy.path("socket"));
    connection.write_all(&[V1, b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"].concat()).expect("sent");
    let answer = all(connection);
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("does not take from this sender"), "{answer}");
}

/// The line said `400 148B`, and the client had got nothing.
#[tokio::test(flavor = "multi_thread")]
async fn behind_tls_the_log_claimed_an_answer_that_was_never_sent() {
    let azure = testkit::azure().await;
    let secret = Secret::new(&Authority::new("mirror CA").server(&["mirror.internal"]), &[]);
    let tls = secret.tls("");
    let listen = format!("[{{address: '127.0.0.1:0', tls: {tls}, proxy_protocol: {{trusted: [127.0.0.1]}}}}]");
    let proxy = Setup::new(&azure).listen(&listen).start();
    for (bytes, error) in [
        (&b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"[..], "no PROXY protocol header, which every connection"),
        (b"PROXY TCP4 1.2.3.4\r\n", "the PROXY protocol header cannot be read"),
        // A second one.
        (&[V1, V1].concat(), "a PROXY protocol header that this listener does not take from this sender"),
    ] {
        assert_eq!(wire::send(proxy.address(), bytes), b"", "{error}");
        let line = proxy.wait_for_log(&format!(" error={error}"));
        assert!(line.contains(" access] - - 0 0B "), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_peer_without_a_good_header_is_refused_in_time() {
    let (_azure, proxy) = trusting("127.0.0.1").await;
    let request = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
    for (bytes, status, error) in [
        (request.to_vec(), 400, "no PROXY protocol header, which every connection"),
        (b"\x16\x03\x01\x02\0".to_vec(), 400, "no PROXY protocol header"),
        (
            [b"PROXY TCP4 evil 192.0.2.1 1 2\r\n", &request[..]].concat(),
            400,
            "the PROXY protocol header cannot be read",
        ),
        (format!("PROXY UNKNOWN {}", "x".repeat(2000)).into_bytes(), 400, "the PROXY protocol header is larger"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec(), 400, "the PROXY protocol header is larger"),
    ] {
        for unix in [false, true] {
            let mut connection: Box<dyn Wire> = if unix {
                Box::new(connect_unix(&proxy.path("socket")))
            } else {
                Box::new(wire::connect(proxy.address()))
            };
            connection.write_all(&bytes).expect("sent");
            let begun = Instant::now();
            let answer = all(connection);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(error), "{error}: {answer}");
            assert!(begun.elapsed() < AT_ONCE, "{error}");
        }
    }
    // One byte after the other does not hold a connection, and silence has no line.
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let (mut connection, begun) = (wire::connect(proxy.address()), Instant::now());
            let mut taker = connection.try_clone().expect("a second handle");
            let taken = scope.spawn(move || (all(&mut taker), begun.elapsed()));
            for byte in V1.iter().chain(std::iter::repeat(&b'x')).take(30) {
                if taken.is_finished() || connection.write_all(&[*byte]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(500));
            }
            taken.join().expect("an end")
        });
        let silent = scope.spawn(|| all(wire::connect(proxy.address())));
        let (answer, elapsed) = slow.join().expect("an end");
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("has not ended in time"), "{answer}");
        assert!(elapsed >= OPENING_LIMIT - Duration::from_secs(1) && elapsed < PATIENCE, "{elapsed:?}");
        assert_eq!(silent.join().expect("an end"), "");
    });
    // A balancer's check of the port, and one that leaves amid a header.
    drop(wire::connect(proxy.address()));
    let mut leaver = wire::connect(proxy.address());
    leaver.write_all(&V1[..20]).expect("sent");
    drop(leaver);
    proxy.wait_until("a line for each refusal and none for silence", |log| {
        let lines = log.matches(" access] - - 4").count();
        assert!(lines <= 12, "{log}");
        (lines == 12).then_some(())
    });
}
