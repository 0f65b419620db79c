//! Clients that are refused far more often than anybody reads a log.

use std::io::{Read as _, Write as _};
use std::time::Instant;

use crate::load::load;
use crate::tls::Secret;
use crate::wire;
use testkit::Setup;
use testkit::certificates::Authority;

/// The most lines a second of what is no request.
const MAX_LINES: usize = 20;

/// Lines of refusals, and how many more the log says there were.
fn told(log: &str) -> (usize, usize) {
    let lines = log.lines().filter(|line| line.contains(" access] - - ")).count();
    let more = log.lines().filter_map(|line| line.split_once(" more refusals have no line")?.0.rsplit_once(' '));
    (lines, more.map(|(_, number)| number.parse::<usize>().expect("a number")).sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_what_is_no_request_has_few_lines_and_the_log_says_how_many_have_none() {
    const FLOOD: usize = 400;
    let azure = testkit::azure().await;
    let secret = Secret::new(&Authority::new("mirror CA").server(&["mirror.internal"]), &[]);
    let tls = secret.tls("");
    let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(8 << 10));
    for (listener, bytes, counter) in [
        ("", &b"\x16\x03\x01 no request"[..], Some("malformed")),
        ("", long.as_bytes(), Some("header_size")),
        ("", b"PROXY TCP4 192.0.2.7 192.0.2.1 1 80\r\n", None),
        (", proxy_protocol: {trusted: [127.0.0.1]}", b"GET / HTTP/1.1\r\n\r\n", None),
        (&format!(", tls: {tls}"), b"GET / HTTP/1.1\r\n\r\n", None),
        (&format!(", tls: {tls}"), b"\x16\x03\x01\x00\x04\x09\x00\x00\x00", None),
    ] {
        let setup = Setup::new(&azure).listen(&format!("[{{address: '127.0.0.1:0'{listener}}}]"));
        let proxy = setup.settings("limits: {header_size: 4KiB}").flag("--admin-address", ":0").start();
        let begun = Instant::now();
        for _ in 0..FLOOD {
            let mut stream = wire::connect(proxy.address());
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
        let log = proxy.wait_until("each refusal", |log| {
            let (lines, more) = told(log);
            (lines + more == FLOOD).then(|| log.to_owned())
        });
        let (lines, more) = told(&log);
        let seconds = begun.elapsed().as_secs() as usize + 1;
        assert!(lines <= MAX_LINES * seconds, "{lines} lines and {more} more in {seconds} s");
        // A machine that refuses fewer in a second shows nothing here.
        assert!(more > 0 || seconds * MAX_LINES >= FLOOD, "{lines} lines in {seconds} s");
        if let Some(counter) = counter {
            assert_eq!(load(&proxy)["refused"][counter], FLOOD, "the counters go on");
        }
    }
}
