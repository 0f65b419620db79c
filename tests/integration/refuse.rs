//! What is refused before anything is sent.

use std::time::Instant;

use acr_emulator::Hop;

use crate::wire;
use testkit::{AT_ONCE, Setup};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_not_pulls_are_refused() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let long = "a/".repeat(200);
    for (line, status, code) in [
        ("PUT /v2/library/busybox/manifests/latest".to_owned(), 405, "UNSUPPORTED"),
        ("POST /v2/library/busybox/blobs/uploads/".to_owned(), 405, "UNSUPPORTED"),
        ("PATCH /v2/library/busybox/blobs/uploads/1".to_owned(), 405, "UNSUPPORTED"),
        (format!("DELETE /v2/library/busybox/manifests/{DIGEST}"), 405, "UNSUPPORTED"),
        ("OPTIONS /v2/".to_owned(), 405, "UNSUPPORTED"),
        ("CONNECT mirror:443".to_owned(), 405, "UNSUPPORTED"),
        ("CONNECT /v2/library/busybox/manifests/latest".to_owned(), 405, "UNSUPPORTED"),
        ("GET /v2/_catalog".to_owned(), 404, ""),
        ("GET /oauth2/token?service=x&scope=y".to_owned(), 404, ""),
        ("GET /acr/v1/_catalog".to_owned(), 404, ""),
        ("GET /".to_owned(), 404, ""),
        ("GET /v1/search?q=x".to_owned(), 404, ""),
        ("GET /v2/../v2/library/busybox/manifests/latest".to_owned(), 400, "NAME_INVALID"),
        ("GET /v2/library/../../other/manifests/latest".to_owned(), 400, "NAME_INVALID"),
        ("GET /v2/%2e%2e/other/manifests/latest".to_owned(), 400, "NAME_INVALID"),
        ("GET /v2/library%2fbusybox/manifests/latest".to_owned(), 400, "NAME_INVALID"),
        ("GET /v2/library//busybox/manifests/latest".to_owned(), 400, "NAME_INVALID"),
        ("GET /v2/Library/busybox/manifests/latest".to_owned(), 400, "NAME_INVALID"),
        (format!("GET /v2/{long}x/manifests/latest"), 400, "NAME_INVALID"),
        ("GET /v2/library/busybox/manifests/-latest".to_owned(), 400, "TAG_INVALID"),
        ("GET /v2/library/busybox/manifests/sha256:abc".to_owned(), 400, "DIGEST_INVALID"),
        ("GET /v2/library/busybox/blobs/latest".to_owned(), 400, "DIGEST_INVALID"),
    ] {
        let answer = wire::ask(proxy.address(), &line, "");
        assert_eq!(answer.status, status, "{line}: {answer:?}");
        let found = answer.code();
        assert!(code.is_empty() || found == code, "{line}: {found}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{line}");
        assert_eq!(answer.header("allow"), (status == 405).then_some("GET, HEAD"), "{line}");
    }
    assert!(azure.requests().iter().all(|request| request.hop != Hop::Data), "nothing was sent upstream");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_request_do_not_reach_the_registry() {
    let azure = testkit::azure().await;
    let mut proxy = Setup::new(&azure).start();
    for bytes in [
        // podman's TLS ClientHello on the plain port: it goes on in plain HTTP as soon as this fails.
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET /v2/a\\b/manifests/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /v2/a\x01b/manifests/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /v2/\xff/manifests/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /v2/a/manifests/x HTTP/1.1\r\nHost: x\r\nHost: y\r\nConnection: close\r\n\r\n",
        b"GET /v2/a/manifests/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
        b"GET /v2/a/manifests/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"CONNECT example.azurecr.io:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        // Read to the end: each of them is answered or dropped at once, and the connection closed.
        let begun = Instant::now();
        let answer = wire::send(proxy.address(), bytes);
        assert!(begun.elapsed() < AT_ONCE, "{:?} after {:?}", bytes.escape_ascii().to_string(), begun.elapsed());
        let status = String::from_utf8_lossy(&answer).split(' ').nth(1).map(str::to_owned);
        assert!(matches!(status.as_deref(), None | Some("400" | "405")), "{:?} -> {status:?}", bytes.escape_ascii().to_string());
    }
    assert!(azure.requests().iter().all(|request| request.hop != Hop::Data), "nothing was sent upstream");
    assert!(proxy.is_running());
    let line = proxy.wait_for_log(" access] - - 400 ");
    assert!(
        line.contains(" tries=0 ") && line.ends_with(" error=not an HTTP request: this port speaks plain HTTP, no TLS"),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_refused_without_a_body_but_with_its_length() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let answer = wire::ask(proxy.address(), "HEAD /v2/UPPER/manifests/x", "");
    assert_eq!((answer.status, answer.body.as_str()), (400, ""));
    assert!(answer.header("content-length").is_some_and(|length| length != "0"), "{}", answer.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_behind_a_connect_is_read_as_a_request() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let head = "CONNECT mirror:443 HTTP/1.1\r\nHost: mirror:443\r\n\r\n";
    let bytes = format!("{head}GET /v2/library/busybox/tags/list HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = wire::parse(&wire::send(proxy.address(), bytes.as_bytes()));
    assert_eq!((answer.status, answer.code().as_str()), (405, "UNSUPPORTED"), "one answer: {answer:?}");
    assert!(azure.requests().iter().all(|request| request.hop != Hop::Data), "nothing was sent upstream");
}

#[tokio::test(flavor = "multi_thread")]
async fn control_characters_of_a_path_are_escaped_in_the_log() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).flag("--log", "info").start();
    let long = "x".repeat(50_000);
    for path in ["/v2/a\u{9b}31m\u{202e}/manifests/x", &format!("/v2/{long}/manifests/x")] {
        let answer = wire::ask(proxy.address(), &format!("GET {path}"), "");
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    proxy.wait_for_log("GET /v2/a\\u{9b}31m\\u{202e}/manifests/x 400 ");
    assert!(proxy.wait_for_log("GET /v2/xxx").len() < 2000);
}

/// All of them were said to be refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_url_is_taken_as_its_path_if_its_host_is_that_of_the_header() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let pull = "/v2/library/busybox/manifests/latest";
    for (target, host, status) in [
        (format!("http://mirror{pull}"), "mirror", 200),
        ("http://mirror/v2/".to_owned(), "mirror", 200),
        // The path goes through the same checks.
        ("http://mirror/v2/UPPER/manifests/x".to_owned(), "mirror", 400),
        ("http://mirror/v2/../x".to_owned(), "mirror", 400),
        (format!("http://other{pull}"), "mirror", 400),
        (format!("http://{pull}"), "", 400),
        ("file:///etc/passwd".to_owned(), "mirror", 400),
    ] {
        azure.clear_requests();
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: application/vnd.oci.image.index.v1+json\r\nConnection: close\r\n\r\n"
        );
        let answer = wire::parse(&wire::send(proxy.address(), request.as_bytes()));
        assert_eq!(answer.status, status, "{target}: {answer:?}");
        let is_asked = azure.requests().iter().any(|request| request.hop == Hop::Data);
        assert_eq!(is_asked, target.ends_with(pull) && status == 200, "{target}");
    }
}

/// The table of what a client gets said 400 for all.
#[tokio::test(flavor = "multi_thread")]
async fn what_connection_may_not_list_is_refused_where_it_would_be_sent_on() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    for (line, status) in [
        ("GET /v2/", 200),
        ("GET /v2/library/busybox/manifests/latest", 400),
        ("GET /v2/library/busybox/tags/list", 400),
        ("GET /v2/busybox", 404),
    ] {
        assert_eq!(wire::ask(proxy.address(), line, "Connection: Host\r\n").status, status, "{line}");
    }
    assert!(azure.requests().iter().all(|request| request.hop != Hop::Data));
}
