//! Blobs that come through the proxy.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use acr_emulator::{Emulator, Fault, Hop, Image, Pushed};

use crate::wire;
use testkit::{PATIENCE, Proxy, Setup};

/// An emulator with one image, and a proxy that serves its blobs itself, from storage that it is told of or not.
async fn proxied(storage_is_known: bool) -> (Emulator, Pushed, Proxy) {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let pushed = azure.push(Image::small("hub/library/busybox", "latest"));
    let hosts = if storage_is_known { azure.storage_addr().to_string() } else { "storage.example".to_owned() };
    let hosts = format!("  blobs: proxy\n  blob_hosts: ['{hosts}']\n");
    let proxy = Setup::new(&azure).cache("off").upstream(&hosts).start();
    (azure, pushed, proxy)
}

fn path(pushed: &Pushed) -> String {
    format!("/v2/library/busybox/blobs/{}", pushed.blobs[1])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxied_blob_passes_whole_and_in_ranges_and_no_token_goes_to_storage() {
    let (azure, pushed, proxy) = proxied(true).await;
    let whole = azure.blob(&pushed.blobs[1]).expect("pushed");
    let length = whole.len().to_string();
    for (method, range, status, expected) in [
        ("GET", "", 200, &whole[..]),
        ("GET", "Range: bytes=100-199\r\n", 206, &whole[100..200]),
        ("GET", "Range: bytes=20000-\r\n", 206, &whole[20000..]),
        ("HEAD", "", 200, &[][..]),
    ] {
        let headers = format!("{range}Authorization: Basic aHVidXNlcjpodWJwYXNzd29yZA==\r\nCookie: clients=own\r\n");
        let request = format!("{method} {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n", path(&pushed));
        let answer = wire::send(proxy.address(), request.as_bytes());
        let end = answer.windows(4).position(|at| at == b"\r\n\r\n").expect("a head") + 4;
        let head = wire::parse(&answer[..end]);
        assert_eq!(head.status, status, "{method} {range}{}", head.head);
        assert!(answer[end..] == *expected, "{method} {range}{} bytes", answer.len() - end);
        let promised = if method == "HEAD" { &length } else { &expected.len().to_string() };
        assert_eq!(head.header("content-length"), Some(promised.as_str()), "{}", head.head);
        assert_eq!(head.header("docker-content-digest"), Some(pushed.blobs[1].as_str()), "{}", head.head);
        let storages = if method == "HEAD" { &[][..] } else { &["server", "x-ms-request-id"] };
        for absent in ["location", "set-cookie"].iter().chain(storages) {
            assert_eq!(head.header(absent), None, "{}", head.head);
        }
    }
    let seen = azure.requests();
    let storage: Vec<_> = seen.iter().filter(|request| request.hop == Hop::Storage).collect();
    assert_eq!(storage.len(), 3, "HEAD is the registry's own: {storage:?}");
    for hop in [Hop::Data, Hop::Storage] {
        let gets = seen.iter().filter(|request| request.hop == hop && request.method == "GET");
        let mut connections: Vec<_> = gets.map(|request| request.connection).collect();
        assert_eq!(connections.len(), 3, "one question a blob: {seen:?}");
        connections.dedup();
        assert_eq!(connections.len(), 1, "a redirect that is followed ended the connection to {hop:?}");
    }
    for request in storage {
        assert!(request.status < 300 && request.target.contains("sig="), "{request:?}");
        for absent in ["authorization", "cookie", "x-forwarded-for"] {
            assert_eq!(request.header(absent), None, "{request:?}");
        }
    }
    let log = proxy.end();
    assert!(log.contains(" 206 100B ") && !log.contains("sig="), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_a_host_that_is_not_storage_is_refused() {
    let (azure, pushed, proxy) = proxied(false).await;
    let answer = wire::ask(proxy.address(), &format!("GET {}", path(&pushed)), "");
    assert_eq!((answer.status, answer.code().as_str()), (502, "UNAVAILABLE"), "{answer:?}");
    assert!(answer.body.contains("which is not a known storage host: blob_hosts can add it"), "{answer:?}");
    let seen = azure.requests();
    assert!(seen.iter().all(|request| request.hop != Hop::Storage), "{seen:?}");
    assert_eq!(seen.iter().filter(|request| request.hop == Hop::Data).count(), 1, "asked once");
    let log = proxy.end();
    assert!(log.contains(" 502 ") && !log.contains("sig="), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_errors_of_storage_are_not_passed_as_the_registrys() {
    let (azure, pushed, proxy) = proxied(true).await;
    for (fault, status, says) in [
        (Fault::Status(403), 502, "blob storage 127.0.0.1: 403 to the registry's redirect"),
        (Fault::Status(500), 502, "blob storage 127.0.0.1: 500"),
        (Fault::RefuseConnections, 502, "storage 127.0.0.1 is not reachable"),
        (Fault::Hang, 504, "storage 127.0.0.1 does not answer in time"),
    ] {
        azure.inject(Hop::Storage, fault.clone());
        let answer = wire::ask(proxy.address(), &format!("GET {}", path(&pushed)), "");
        assert_eq!((answer.status, answer.code().as_str()), (status, "UNAVAILABLE"), "{fault:?}: {answer:?}");
        assert!(answer.body.contains(says), "{fault:?}: {answer:?}");
        azure.clear_faults();
    }
    assert_eq!(wire::ask(proxy.address(), &format!("HEAD {}", path(&pushed)), "").status, 200);
}

/// What storage says in Azure's words, with headers and a body that are not the client's.
fn said(status: u16, headers: &[(&str, &str)]) -> Fault {
    let headers = [("x-ms-request-id", "its-own"), ("Content-Type", "application/xml")].iter().chain(headers);
    Fault::StatusWith {
        status,
        headers: headers.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: "<Error><Code>ServerBusy</Code><Message>account wusmanaged91</Message></Error>".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_storage_that_clients_act_on_keep_status_and_retry_after() {
    const SEVERAL: &str = "Range: bytes=0-1,4-5\r\n";
    let (azure, pushed, proxy) = proxied(true).await;
    for (status, retry_after, headers, told, code, promised) in [
        (503, "7", "", 503, "UNAVAILABLE", Some("7")),
        (429, "7", "", 429, "TOOMANYREQUESTS", Some("7")),
        (503, "soon", "", 503, "UNAVAILABLE", None),
        (400, "", SEVERAL, 400, "UNSUPPORTED", None),
        (501, "", SEVERAL, 501, "UNSUPPORTED", None),
        (400, "", "Range: bytes=0-1\r\n", 502, "UNAVAILABLE", None),
        (501, "", "", 502, "UNAVAILABLE", None),
    ] {
        azure.inject(Hop::Storage, said(status, &[("Retry-After", retry_after)]));
        let answer = wire::ask(proxy.address(), &format!("GET {}", path(&pushed)), headers);
        assert_eq!((answer.status, answer.code().as_str()), (told, code), "{status} {headers}: {answer:?}");
        assert_eq!(answer.header("retry-after"), promised, "{status} {headers}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
        assert!(!answer.body.contains("wusmanaged91") && answer.header("x-ms-request-id").is_none(), "{answer:?}");
        azure.clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsatisfiable_range_is_answered_without_the_body_of_storage() {
    let (azure, pushed, proxy) = proxied(true).await;
    azure.inject(Hop::Storage, said(416, &[("Content-Range", "bytes */9")]).times(2));
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\nRange: bytes=99-\r\n", path(&pushed));
    let answer = wire::send(proxy.address(), format!("{request}\r\n{request}Connection: close\r\n\r\n").as_bytes());
    let answers = String::from_utf8(answer).expect("text");
    assert_eq!(answers.matches("HTTP/1.1 416 ").count(), 2, "{answers}");
    assert_eq!(answers.to_ascii_lowercase().matches("content-range: bytes */9\r\n").count(), 2, "{answers}");
    assert!(!answers.contains("wusmanaged91") && !answers.contains("its-own"), "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_ranges_of_a_blob_keep_the_boundary_between_them() {
    let (azure, pushed, proxy) = proxied(true).await;
    let kind = "multipart/byteranges; boundary=3d6b6a416f9b5";
    let parts = "--3d6b6a416f9b5\r\nContent-Range: bytes 0-1/9\r\n\r\nab\r\n--3d6b6a416f9b5--\r\n";
    for (status, sent, place, body, expected) in [
        (206, kind, None, parts, kind),
        (206, "text/html", Some("bytes 0-1/9"), "ab", "application/octet-stream"),
        (200, kind, None, parts, "application/octet-stream"),
    ] {
        let mut headers = vec![("Content-Type".to_owned(), sent.to_owned())];
        headers.extend(place.map(|place| ("Content-Range".to_owned(), place.to_owned())));
        azure.inject(Hop::Storage, Fault::StatusWith { status, headers, body: body.to_owned() }.times(1));
        let answer = wire::ask(proxy.address(), &format!("GET {}", path(&pushed)), "Range: bytes=0-1,4-5\r\n");
        assert_eq!((answer.status, answer.header("content-type")), (status, Some(expected)), "{answer:?}");
        assert_eq!(answer.body, body);
    }
}

/// The client had its bytes for those of the blob.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_storage_packs_was_not_said_to_be_packed() {
    let (azure, pushed, proxy) = proxied(true).await;
    for (fault, encoding) in [(None, None), (Some(Fault::Gzip), Some("gzip"))] {
        fault.into_iter().for_each(|fault| azure.inject(Hop::Storage, fault));
        let request = format!("GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path(&pushed));
        let answer = wire::send(proxy.address(), request.as_bytes());
        let end = answer.windows(4).position(|at| at == b"\r\n\r\n").expect("a head") + 4;
        let head = wire::parse(&answer[..end]);
        assert_eq!((head.status, head.header("content-encoding")), (200, encoding), "{}", head.head);
    }
}

/// It waited behind the proxy until storage went on, and whoever waits for a header gave up.
#[tokio::test(flavor = "multi_thread")]
async fn a_header_and_the_first_bytes_of_a_layer_waited_for_as_long_as_storage_paused() {
    let (azure, pushed, proxy) = proxied(true).await;
    azure.inject(Hop::Storage, Fault::PauseMidBody(2 * PATIENCE));
    let mut stream = std::net::TcpStream::connect(proxy.address()).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    write!(stream, "GET {} HTTP/1.1\r\nHost: x\r\n\r\n", path(&pushed)).expect("sent");
    let mut seen = Vec::new();
    while !seen.windows(4).any(|at| at == b"\r\n\r\n") {
        let mut part = [0; 4096];
        let length = stream.read(&mut part).expect("the header comes before the rest");
        assert_ne!(length, 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&part[..length]);
    }
    assert!(seen.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&seen));
}

/// The client had an empty layer, or a text, as the layer.
#[tokio::test(flavor = "multi_thread")]
async fn a_success_of_storage_that_brings_no_blob_was_passed_on_as_one() {
    let (azure, pushed, proxy) = proxied(true).await;
    for status in [201, 202, 203, 204, 205, 207, 226, 299] {
        for range in ["", "Range: bytes=0-9\r\n"] {
            azure.inject(Hop::Storage, said(status, &[]));
            let answer = wire::ask(proxy.address(), &format!("GET {}", path(&pushed)), range);
            assert_eq!((answer.status, answer.code().as_str()), (502, "UNAVAILABLE"), "{status} {range}: {answer:?}");
            let says = format!("blob storage 127.0.0.1: {status} to the registry's redirect");
            assert!(answer.body.contains(&says), "{status} {range}: {answer:?}");
            azure.clear_faults();
        }
    }
    let log = proxy.end();
    assert_eq!(log.matches(" to the registry's redirect").count(), 16, "one line each: {log}");
}

/// The client, which takes a 206 for the part that it asked for, got another one, or a part in place of the whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_blob_that_nobody_asked_for_was_passed_on() {
    let (azure, pushed, proxy) = proxied(true).await;
    for (range, status, place, says) in [
        ("", 206, None, "it is about a part, and the whole was asked for"),
        ("", 206, Some("bytes 0-9/10"), "it is about a part"),
        ("", 416, Some("bytes */5"), "it is about a part"),
        ("Range: bytes=0-9\r\n", 206, None, "it is a part and does not say which"),
        ("Range: bytes=0-9\r\n", 206, Some("bytes 100-109/999"), "it is another part"),
        ("Range: bytes=0-9\r\n", 206, Some("bytes 0-4/999"), "it is another part"),
        ("Range: bytes=0-9\r\n", 416, Some("bytes */999"), "it refuses a part that there is"),
    ] {
        let headers: Vec<_> = place.map(|place| ("Content-Range", place)).into_iter().collect();
        azure.inject(Hop::Storage, said(status, &headers));
        let answer = wire::ask(proxy.address(), &format!("GET {}", path(&pushed)), range);
        assert_eq!((answer.status, answer.code().as_str()), (502, "UNAVAILABLE"), "{range} {status}: {answer:?}");
        let says = format!("blob storage 127.0.0.1: its answer cannot be used: {says}");
        assert!(answer.body.contains(&says), "{range} {status}: {answer:?}");
        azure.clear_faults();
    }
}

/// A range of it was asked for five times, with pauses.
#[tokio::test(flavor = "multi_thread")]
async fn storage_that_does_not_speak_http_is_asked_twice_with_and_without_a_range() {
    let (azure, pushed, proxy) = proxied(true).await;
    for (fault, headers, asked) in [
        (Fault::NotHttp, "", 2),
        (Fault::NotHttp, "Range: bytes=0-9\r\n", 2),
        (Fault::DieBeforeResponse, "Range: bytes=0-9\r\n", 5),
    ] {
        azure.inject(Hop::Storage, fault.clone());
        azure.clear_requests();
        let answer = wire::ask(proxy.address(), &format!("GET {}", path(&pushed)), headers);
        assert!(answer.status == 502 && answer.body.contains("blob storage 127.0.0.1 is not"), "{fault:?}: {answer:?}");
        let requests = azure.requests();
        let tries = requests.iter().filter(|request| request.hop == Hop::Storage).count();
        assert_eq!(tries, asked, "{fault:?} {headers}");
        azure.clear_faults();
    }
}

/// How many pulls at once, and how long the layer is in MiB; `scripts/soak` makes it 1 GiB.
fn size(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_many_pulls_does_not_grow_with_the_layer() {
    const LIMIT: usize = 100 << 20;
    let (pulls, bytes) = (size("BLOB_PULLS", 64), size("BLOB_MIB", 16) << 20);
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let image = Image::small("hub/library/busybox", "latest").with_layers(1, bytes).with_arches(&["amd64"]);
    let pushed = azure.push(image);
    let layer = pushed.blobs.iter().max_by_key(|digest| azure.blob(digest).map_or(0, |blob| blob.len()));
    let layer = layer.expect("a layer").clone();
    let proxy = Setup::new(&azure)
        .flag("--log", "info")
        .upstream(&format!("  blobs: proxy\n  blob_hosts: ['{}']\n", azure.storage_addr()))
        .start();
    let (address, length) = (proxy.address(), azure.blob(&layer).expect("pushed").len());
    let start = Start { missing: Mutex::new(pulls), all: Condvar::new() };
    let mut peak = 0;
    std::thread::scope(|scope| {
        let pull = || read(address, &layer, length, &start);
        let clients: Vec<_> = (0..pulls).map(|_| scope.spawn(pull)).collect();
        while !clients.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            peak = peak.max(proxy.resident_bytes());
            std::thread::sleep(Duration::from_millis(20));
        }
        for client in clients {
            client.join().expect("a whole layer");
        }
    });
    let all = proxy.peak_resident_bytes();
    let of = format!("{pulls} pulls of {} MiB", bytes >> 20);
    println!("{of}: {} MiB resident at most, {} MiB without the program's own pages", all >> 20, peak >> 20);
    // The program's own pages are counted where it is built as for users.
    let counted = if cfg!(debug_assertions) { peak } else { all };
    assert!(peak > 0 && counted < LIMIT, "{of}: {counted} bytes");
}

/// All clients are answered before the first one reads on: what storage sends meanwhile must stay there.
struct Start {
    missing: Mutex<usize>,
    all: Condvar,
}

impl Start {
    /// One more is answered; waits for the others, which fails here if it fails there.
    fn wait(&self) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        *missing -= 1;
        self.all.notify_all();
        let waited = self.all.wait_timeout_while(missing, PATIENCE, |missing| *missing > 0);
        let timed_out = waited.unwrap_or_else(PoisonError::into_inner).1.timed_out();
        assert!(!timed_out, "not every pull is answered");
    }
}

/// Reads a blob to its end, keeping nothing of it, and no faster than lets 64 of them have their share of two cores.
fn read(address: SocketAddr, digest: &str, length: usize, start: &Start) {
    const PAUSE: Duration = Duration::from_millis(40);
    let mut stream = wire::connect(address);
    let request = format!("GET /v2/library/busybox/blobs/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut buffer = vec![0; 256 << 10];
    let mut read = stream.read(&mut buffer).expect("an answer");
    start.wait();
    let head = buffer[..read].windows(4).position(|at| at == b"\r\n\r\n").expect("a head") + 4;
    assert!(buffer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&buffer[..head]));
    let mut since_pause = 0;
    loop {
        match stream.read(&mut buffer).expect("the body goes on") {
            0 => break,
            count => {
                read += count;
                since_pause += count;
            }
        }
        if since_pause >= buffer.len() {
            since_pause = 0;
            std::thread::sleep(PAUSE);
        }
    }
    assert_eq!(read - head, length);
}
