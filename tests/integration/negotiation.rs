//! Headers with which a client says what it takes: Accept, Accept-Encoding, Range, If-None-Match.

use std::io::{Read as _, Write as _};
use std::time::Instant;

use acr_emulator::{Emulator, Image};

use crate::fixture::{ACCEPT, CLIENT_FRAMINGS, Fixture, INDEX};
use crate::wire::{self, Client};
use testkit::{AT_ONCE, Setup};

#[tokio::test(flavor = "multi_thread")]
async fn six_accept_lines_reach_the_registry_unchanged_in_any_order() {
    let fixture = Fixture::start("off").await;
    let mut types = [
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        INDEX,
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/json",
    ];
    for _ in 0..types.len() {
        types.rotate_left(1);
        let lines: String = types.iter().map(|kind| format!("Accept: {kind}\r\n")).collect();
        let answer = fixture.ask("GET", "/v2/library/busybox/manifests/latest", &lines);
        assert_eq!((answer.status(), answer.header("content-type")), (200, Some(INDEX)), "{answer:?}");
        let seen = fixture.last();
        let accepted: Vec<_> =
            seen.headers.iter().filter(|(name, _)| name == "accept").map(|(_, value)| value).collect();
        assert_eq!(accepted, types);
    }
    let one = format!("Accept: {}, */*\r\n", types.join(", "));
    assert_eq!(fixture.ask("GET", "/v2/library/busybox/manifests/latest", &one).status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn accept_encoding_reaches_the_registry_except_for_bodies_that_are_rewritten() {
    let fixture = Fixture::start("off").await;
    let takes = "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5";
    let headers = format!("{ACCEPT}Accept-Encoding: {takes}\r\n");
    let index = fixture.azure.manifest("hub/library/busybox", "latest").expect("pushed");
    let answer = fixture.ask("GET", "/v2/library/busybox/manifests/latest", &headers);
    assert_eq!((answer.status(), answer.header("content-encoding")), (200, None), "{answer:?}");
    assert!(answer.body == index, "byte for byte");
    assert_eq!(fixture.last().header("accept-encoding"), Some(takes));
    let answer = fixture.ask("GET", &format!("/v2/library/busybox/blobs/{}", fixture.layer), &headers);
    assert_eq!((answer.status(), fixture.last().header("accept-encoding")), (307, Some(takes)), "{answer:?}");
    // What is read here is not asked for in a form that cannot be.
    let answer = fixture.ask("GET", "/v2/library/busybox/tags/list", &headers);
    assert_eq!((answer.status(), fixture.last().header("accept-encoding")), (200, Some("identity")), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_reaches_the_registry_unchanged() {
    let fixture = Fixture::start("off").await;
    for (path, status) in [("manifests/latest", 200), (&format!("blobs/{}", fixture.layer), 307)] {
        let headers = format!("{ACCEPT}Range: bytes=0-\r\nIf-Range: \"x\"\r\n");
        let answer = fixture.ask("GET", &format!("/v2/library/busybox/{path}"), &headers);
        assert_eq!(answer.status(), status, "{answer:?}");
        let seen = fixture.last();
        assert_eq!((seen.header("range"), seen.header("if-range")), (Some("bytes=0-"), Some("\"x\"")), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_range_is_asked_of_a_body_that_is_rewritten() {
    let fixture = Fixture::start("{}").await;
    for path in ["tags/list", &format!("referrers/{}", fixture.index)] {
        let headers = "Range: bytes=3-9\r\nIf-Range: \"x\"\r\n";
        let answer = fixture.ask("GET", &format!("/v2/library/busybox/{path}"), headers);
        assert_eq!((answer.status(), answer.header("content-range")), (200, None), "{answer:?}");
        let seen = fixture.last();
        assert_eq!((seen.header("range"), seen.header("if-range")), (None, None), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_etag_is_answered_304_without_a_body() {
    let fixture = Fixture::start("{}").await;
    let path = "/v2/library/busybox/manifests/latest";
    for (version, headers, keeps) in CLIENT_FRAMINGS {
        let mut client = Client::new(fixture.proxy.address());
        // The one form that the registry knows; its 304 has no `ETag`.
        let known = format!("{ACCEPT}{headers}If-None-Match: \"{}\"\r\n", fixture.index);
        for method in ["GET", "HEAD"] {
            let answer = client.ask(method, path, version, &known);
            assert_eq!((answer.status(), answer.header("transfer-encoding")), (304, None), "{version} {answer:?}");
            assert!(answer.body.is_empty(), "{version} {answer:?}");
            if !keeps {
                client = Client::new(fixture.proxy.address());
            }
        }
        // A body that came all the same would be taken for the next answer.
        assert_eq!(client.ask("GET", path, version, &format!("{ACCEPT}{headers}")).status(), 200);
    }
    let other = format!("{ACCEPT}If-None-Match: \"x\"\r\n");
    assert_eq!(fixture.ask("GET", path, &other).status(), 200);
}

/// As containerd's parallel fetch does, which asks for the rest of a layer from many places and reads a part of each.
#[tokio::test(flavor = "multi_thread")]
async fn parallel_ranges_that_are_cut_short_leave_no_request_running() {
    const PARTS: usize = 8;
    const READ: usize = 64 << 10;
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let pushed =
        azure.push(Image::small("hub/library/busybox", "latest").with_layers(1, 16 << 20).with_arches(&["amd64"]));
    let layer = azure.blob(&pushed.blobs[0]).expect("pushed");
    let path = format!("/v2/library/busybox/blobs/{}?ns=docker.io", pushed.blobs[0]);
    let setup = Setup::new(&azure).flag("--log", "info");
    let mut proxy = setup.upstream(&format!("  blobs: proxy\n  blob_hosts: ['{}']\n", azure.storage_addr())).start();
    let address = proxy.address();
    std::thread::scope(|scope| {
        let whole = scope.spawn(|| Client::new(address).ask("GET", &path, "HTTP/1.1", ""));
        for part in 0..PARTS {
            let (path, layer, first) = (&path, &layer, part * layer.len() / PARTS);
            scope.spawn(move || {
                let mut stream = wire::connect(address);
                write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes={first}-\r\n\r\n").expect("sent");
                let mut answer = vec![0; READ];
                stream.read_exact(&mut answer).expect("more than this");
                assert!(answer.starts_with(b"HTTP/1.1 206 "), "{}", String::from_utf8_lossy(&answer[..100]));
                let body = answer.windows(4).position(|at| at == b"\r\n\r\n").expect("a head") + 4;
                assert!(layer[first..].starts_with(&answer[body..]), "part {part}");
            });
        }
        let whole = whole.join().expect("an answer");
        assert!(whole.status() == 200 && whole.body == layer, "{:?}", whole.head);
    });
    // Whatever is under way would hold this up.
    let begun = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(begun.elapsed() < AT_ONCE, "{:?}:\n{}", begun.elapsed(), proxy.log());
}
