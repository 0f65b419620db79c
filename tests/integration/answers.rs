//! What of a registry's or a storage's answer goes to clients that is not as theirs are: its status line, its addresses, its length.

use std::io::{BufReader, Write as _};

use acr_emulator::{Emulator, Fault, Hop, Image};

use crate::wire::{self, Answer, Received};
use testkit::{Proxy, Setup};

const MANIFEST: &str = "manifests/latest";
const LIST: &str = "tags/list";
const ACCEPT: &str = "Accept: application/vnd.oci.image.index.v1+json\r\n";
/// Which manifest this is about only the registry knows.
const ANY: &str = "Accept: */*\r\n";

/// A proxy with these settings, and the path of a blob behind the name of its repository.
struct Stage {
    azure: Emulator,
    proxy: Proxy,
    blob: String,
}

impl Stage {
    async fn start(cache: &str, blobs: &str) -> Self {
        let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
        let pushed = azure.push(Image::small("hub/library/busybox", "latest"));
        let hosts = match blobs {
            "redirect" => String::new(),
            _ => format!("  blobs: {blobs}\n  blob_hosts: ['{}']\n", azure.storage_addr()),
        };
        let proxy = Setup::new(&azure).cache(cache).upstream(&hosts).start();
        Self { azure, proxy, blob: format!("blobs/{}", pushed.blobs[1]) }
    }

    /// What a client gets that asks so, where this hop answers with these bytes.
    fn ask(&self, hop: Hop, bytes: &str, (method, rest): (&str, &str), headers: &str) -> Answer {
        self.azure.inject(hop, Fault::Raw(bytes.to_owned()));
        let answer = wire::ask(self.proxy.address(), &format!("{method} /v2/library/busybox/{rest}"), headers);
        self.azure.clear_faults();
        answer
    }

    /// The same of an answer that may break off.
    fn receive(&self, hop: Hop, fault: Fault, rest: &str, headers: &str) -> Received {
        self.azure.inject(hop, fault);
        let mut stream = BufReader::new(wire::connect(self.proxy.address()));
        let request = format!("GET /v2/library/busybox/{rest} HTTP/1.1\r\nHost: mirror\r\n{headers}\r\n");
        stream.get_mut().write_all(request.as_bytes()).expect("sent");
        let received = wire::receive(&mut stream, "GET", usize::MAX).expect("a header");
        self.azure.clear_faults();
        received
    }
}

/// The ways of an answer that no flight reads: the settings, what is asked, and with which headers.
fn passed(blob: &str) -> [(&'static str, &'static str, (&'static str, &str), &'static str); 7] {
    [
        ("{}", "redirect", ("GET", MANIFEST), ANY),
        ("{}", "redirect", ("HEAD", blob), ""),
        ("off", "redirect", ("GET", MANIFEST), ACCEPT),
        ("off", "redirect", ("HEAD", MANIFEST), ACCEPT),
        ("off", "redirect", ("GET", blob), ""),
        ("off", "redirect", ("HEAD", blob), ""),
        ("off", "proxy", ("GET", blob), ""),
    ]
}

/// All places of which answers pass without a flight: cache and blobs, each once.
const STAGES: [(&str, &str); 3] = [("{}", "redirect"), ("off", "redirect"), ("off", "proxy")];

/// The whole token stood in the status line, or whatever else the registry wrote there.
#[tokio::test(flavor = "multi_thread")]
async fn the_registrys_reason_phrase_went_to_clients_with_the_token_in_it() {
    for (cache, blobs) in STAGES {
        let stage = Stage::start(cache, blobs).await;
        for (_, _, asked, headers) in passed(&stage.blob).into_iter().filter(|way| (way.0, way.1) == (cache, blobs)) {
            for (status, reason, expected) in [
                (200, "{token}", "HTTP/1.1 200 OK"),
                (200, &*"r".repeat(3000), "HTTP/1.1 200 OK"),
                (404, "{token}", "HTTP/1.1 404 Not Found"),
                (499, "{token}", "HTTP/1.1 499"),
            ] {
                let body = if asked.0 == "HEAD" { "" } else { "{}" };
                let bytes =
                    format!("HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{body}");
                let answer = stage.ask(Hop::Data, &bytes, asked, headers);
                let line = answer.head.lines().next().map(str::trim_end);
                assert_eq!(line, Some(expected), "{cache} {blobs} {asked:?} {status}: {answer:.300?}");
                assert!(!format!("{answer:?}").contains("eyJ"), "{cache} {blobs} {asked:?} {status}");
            }
        }
    }
}

/// Elsewhere only what has the form of an id was passed on.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_token_went_to_clients_as_the_registrys_id_of_the_request() {
    const ID: &str = "0f6a1b2c-0000-4000-8000-000000000000";
    for (cache, blobs) in STAGES {
        let stage = Stage::start(cache, blobs).await;
        for (_, _, asked, headers) in passed(&stage.blob).into_iter().filter(|way| (way.0, way.1) == (cache, blobs)) {
            for (id, expected) in [(ID, Some(ID)), ("eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9", None)] {
                let body = if asked.0 == "HEAD" { "" } else { "{}" };
                let bytes = format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\nX-Ms-Correlation-Request-Id: {id}\r\n\r\n{body}"
                );
                let answer = stage.ask(Hop::Data, &bytes, asked, headers);
                assert_eq!(answer.status, 200, "{cache} {blobs} {asked:?}: {answer:?}");
                let said = answer.header("x-ms-correlation-request-id");
                assert_eq!(said, expected, "{cache} {blobs} {asked:?}");
            }
        }
    }
}

/// Only the first was looked at, and the client got both.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_location_went_to_clients_that_nothing_had_checked() {
    for (cache, blobs) in [("{}", "redirect"), ("{}", "proxy"), ("off", "redirect"), ("off", "proxy")] {
        let stage = Stage::start(cache, blobs).await;
        let storage = format!("https://{}/a?sig=s", stage.azure.storage_addr());
        let (elsewhere, blob) = ("http://169.254.169.254/evil", &*stage.blob);
        for (status, first, second, asked, headers) in [
            (307, &*storage, elsewhere, ("GET", blob), ""),
            (307, elsewhere, &storage, ("GET", blob), ""),
            (307, &storage, elsewhere, ("HEAD", blob), ""),
            (200, "/v2/hub/library/busybox/manifests/latest", elsewhere, ("GET", MANIFEST), ANY),
        ] {
            let bytes = format!(
                "HTTP/1.1 {status} X\r\nConnection: close\r\nLocation: {first}\r\nLocation: {second}\r\nContent-Length: 0\r\n\r\n"
            );
            let answer = stage.ask(Hop::Data, &bytes, asked, headers);
            let what = format!("{cache} {blobs} {asked:?} {status}: {answer:?}");
            assert_eq!((answer.status, answer.header("location")), (502, None), "{what}");
            assert!(asked.0 == "HEAD" || answer.body.contains("it has more than one Location"), "{what}");
        }
    }
}

/// One field of 900 KB went on to clients, of which many take no header like that, and of two digests each client chose its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_header_without_a_bound_and_a_second_digest_went_to_clients() {
    let large = format!("X-Large: {}\r\n", "x".repeat(64 << 10));
    let two = format!(
        "Docker-Content-Digest: sha256:{}\r\nDocker-Content-Digest: sha256:{}\r\n",
        "0".repeat(64),
        "1".repeat(64)
    );
    for (cache, blobs) in STAGES {
        let stage = Stage::start(cache, blobs).await;
        let ways = passed(&stage.blob).into_iter().filter(|way| (way.0, way.1) == (cache, blobs));
        let flight = (cache, blobs, ("GET", MANIFEST), ACCEPT);
        for (_, _, asked, headers) in ways.chain([flight]) {
            for (header, why) in [(&large, "its header is larger than 64 KiB"), (&two, "it says two digests")] {
                let body = if asked.0 == "HEAD" { "" } else { "{}" };
                let bytes = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n{header}\r\n{body}");
                let answer = stage.ask(Hop::Data, &bytes, asked, headers);
                assert_eq!(answer.status, 502, "{cache} {blobs} {asked:?}: {why}: {answer:?}");
                assert!(asked.0 == "HEAD" || answer.body.contains(why), "{cache} {blobs} {asked:?}: {answer:?}");
            }
        }
        if blobs == "proxy" {
            let bytes = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n{large}\r\n{{}}");
            let answer = stage.ask(Hop::Storage, &bytes, ("GET", &stage.blob), "");
            assert_eq!(answer.status, 502, "{answer:?}");
        }
    }
}

/// What a flight refuses passed where there was none: another part, nothing, and what would have a client send the password of its proxy.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_registry_to_another_request_passed_without_a_flight() {
    const RANGE: &str = "Range: bytes=0-9\r\n";
    const KNOWN: &str = "If-None-Match: \"x\"\r\n";
    const PART: &str = "Content-Range: bytes 0-9/100\r\n";
    for (cache, blobs) in STAGES {
        let stage = Stage::start(cache, blobs).await;
        let ways = passed(&stage.blob).into_iter().filter(|way| (way.0, way.1) == (cache, blobs));
        for (_, _, asked, accept) in ways.filter(|way| way.2.0 == "GET") {
            for (headers, status, place, expected, says) in [
                ("", 206, PART, 502, "it is about a part, and the whole was asked for"),
                (RANGE, 206, "Content-Range: bytes 5-14/100\r\n", 502, "it is another part than was asked for"),
                (RANGE, 206, "", 502, "it is a part and does not say which"),
                (RANGE, 206, PART, 206, "0123456789"),
                (RANGE, 416, "Content-Range: bytes */100\r\n", 502, "it refuses a part that there is"),
                ("", 304, "", 502, "it says that nothing has changed, and that was not asked"),
                (KNOWN, 304, "", 304, ""),
                ("", 201, "", 502, "its status is a success other than 200"),
                ("", 204, "", 502, "its status is a success other than 200"),
                ("", 407, "Proxy-Authenticate: Basic realm=x\r\n", 502, "it is a 407, which is no registry's"),
            ] {
                let (length, body) =
                    if matches!(status, 204 | 304) { ("", "") } else { ("Content-Length: 10\r\n", "0123456789") };
                let bytes = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n{place}{length}\r\n{body}");
                let answer = stage.ask(Hop::Data, &bytes, asked, &format!("{accept}{headers}"));
                let what = format!("{cache} {blobs} {asked:?} {headers} {status}: {answer:?}");
                assert!(answer.status == expected && answer.body.contains(says), "{what}");
            }
        }
        let part = format!("HTTP/1.1 206 X\r\nConnection: close\r\n{PART}Content-Length: 10\r\n\r\n0123456789");
        let list = stage.ask(Hop::Data, &part, ("GET", LIST), RANGE);
        assert_eq!(list.status, 502, "the registry is not asked for a part of a list: {list:?}");
    }
}

/// Another reader of the same header may see the end of the body elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_is_no_plain_number_went_to_clients_as_it_came() {
    for (cache, blobs) in [("{}", "redirect"), ("{}", "proxy"), ("off", "redirect"), ("off", "proxy")] {
        let stage = Stage::start(cache, blobs).await;
        let mut ways = vec![(Hop::Data, MANIFEST, ANY), (Hop::Data, &*stage.blob, "")];
        if blobs == "proxy" {
            ways.push((Hop::Storage, &stage.blob, ""));
        }
        for (hop, rest, headers) in ways {
            for length in ["10, 10", "010", "10\r\nContent-Length: 10"] {
                let bytes =
                    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n0123456789");
                let answer = stage.ask(hop, &bytes, ("GET", rest), headers);
                let what = format!("{cache} {blobs} {hop:?} {rest} {length}: {answer:?}");
                assert_eq!((answer.status, answer.code().as_str()), (502, "UNAVAILABLE"), "{what}");
                assert!(answer.body.contains("its Content-Length is not one plain number"), "{what}");
            }
        }
    }
}

/// A client that trusts the end of the answer had another length than it was told.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_in_chunks_of_another_length_than_its_place_says_ended_as_if_it_were_whole() {
    const RANGE: &str = "Range: bytes=0-9\r\n";
    for (cache, blobs, hop) in [
        ("off", "proxy", Hop::Storage),
        ("{}", "proxy", Hop::Storage),
        ("off", "proxy", Hop::Data),
        ("off", "redirect", Hop::Data),
    ] {
        let stage = Stage::start(cache, blobs).await;
        for (chunks, is_whole) in [
            ("a\r\n0123456789\r\n0\r\n\r\n", true),
            ("5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n", true),
            ("5\r\n01234\r\n0\r\n\r\n", false),
            ("14\r\n01234567890123456789\r\n0\r\n\r\n", false),
        ] {
            let bytes = format!(
                "HTTP/1.1 206 X\r\nConnection: close\r\nContent-Range: bytes 0-9/100\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
            );
            let received = stage.receive(hop, Fault::Raw(bytes), &stage.blob, RANGE);
            let what = format!("{cache} {blobs} {hop:?} {chunks:?}: {received:?}");
            let (status, body) = (received.answer.status(), &received.answer.body);
            if is_whole {
                assert!(status == 206 && received.broken.is_none() && body == b"0123456789", "{what}");
                continue;
            }
            // What comes at once is known to be wrong before the client has its header.
            let is_refused =
                status == 502 && String::from_utf8_lossy(body).contains("its length is not that of the part");
            assert!(is_refused || (received.broken.is_some() && body.len() <= 10), "{what}");
        }
    }
}

/// Of 256 MiB, all went to the client.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_or_a_manifest_without_end_passed_without_end() {
    const MOST: usize = 16 << 20;
    let stage = Stage::start("off", "redirect").await;
    for rest in [LIST, MANIFEST] {
        let received = stage.receive(Hop::Data, Fault::HugeBody, rest, ACCEPT);
        let seen = (received.answer.status(), received.broken.is_some(), received.answer.body.len() <= MOST);
        assert_eq!(seen, (200, true, true), "{rest}: {} bytes", received.answer.body.len());
    }
    let announced = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", MOST + 1);
    let answer = stage.ask(Hop::Data, &announced, ("GET", MANIFEST), ACCEPT);
    let says = "the registry's answer cannot be used: it is longer than a manifest, a list or an error may be";
    assert!(answer.status == 502 && answer.body.contains(says), "{answer:?}");
}
