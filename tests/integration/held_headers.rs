//! What a client's header takes for as long as its request is under way.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use acr_emulator::{Fault, Hop};

use crate::frames::{self, END_HEADERS, END_STREAM, HEADERS};
use crate::load::{load, wait_for_load};
use crate::wire;
use testkit::{Proxy, Setup};

const TAGS: &str = "/v2/library/busybox/tags/list";
/// Requests that one connection of HTTP/2 may have open.
const STREAMS: u32 = 32;

/// So many fields of HPACK: three bytes of name, none of value.
fn literal(count: usize) -> Vec<u8> {
    let letter = |number: usize| b'a' + u8::try_from(number % 26).expect("a letter");
    (0..count).flat_map(|number| [0, 3, b'x', letter(number), letter(number / 26), 0]).collect()
}

/// The same by their index: 50 names are put into the table once, and named again and again.
fn indexed(count: usize) -> Vec<u8> {
    let mut table = literal(50);
    table.chunks_mut(6).for_each(|field| field[0] = 0x40);
    [table, (50..count).map(|number| 0x80 | (62 + u8::try_from(number % 50).expect("small"))).collect()].concat()
}

/// Frames of one header block.
fn block(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    let parts = block.chunks(16_000).enumerate();
    let last = block.len().div_ceil(16_000) - 1;
    let frames = parts.map(|(number, part)| {
        let end = if number == last { END_HEADERS } else { 0 };
        match number {
            0 => frames::frame(HEADERS, flags | end, stream, part),
            _ => frames::frame(frames::CONTINUATION, end, stream, part),
        }
    });
    frames.flatten().collect()
}

/// A connection whose client takes no body.
fn taking_nothing(proxy: &Proxy, bytes: &[u8]) -> TcpStream {
    let mut stream = frames::connect(proxy.address(), &frames::setting(frames::INITIAL_WINDOW_SIZE, 0));
    // The connection may end before the end of it.
    let _ = stream.write_all(bytes);
    stream
}

/// The status of the first answer, as HPACK has it in a byte.
fn status(stream: &mut TcpStream) -> Option<u8> {
    std::iter::from_fn(|| frames::read(stream)).find(|frame| frame.0 == HEADERS)?.3.first().copied()
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_had_no_bound_of_fields() {
    // HPACK's static table has these statuses.
    const OK: u8 = 0x88;
    const BAD_REQUEST: u8 = 0x8c;
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    for (count, status) in [(0, OK), (255, OK), (256, OK), (257, BAD_REQUEST), (300, BAD_REQUEST), (1800, BAD_REQUEST)]
    {
        for fields in [literal(count), if count < 50 { Vec::new() } else { indexed(count) }] {
            let request = block(1, END_STREAM, &[frames::get("/v2/"), fields].concat());
            let mut stream = taking_nothing(&proxy, &request);
            assert_eq!(self::status(&mut stream), Some(status), "{count} over HTTP/2");
            // Behind a block that is far too long nothing is read, and the connection ends.
            if count > 261 {
                let _ = stream.write_all(&block(3, END_STREAM, &frames::get("/v2/")));
                let more =
                    std::iter::from_fn(|| frames::read(&mut stream)).any(|frame| frame.2 == 3 && frame.0 == HEADERS);
                assert!(!more, "{count}: nothing behind it is served");
            }
        }
        let fields: String = (2..count).map(|number| format!("x{number}:\r\n")).collect();
        let seen = wire::ask(proxy.address(), "GET /v2/", &fields).status;
        assert_eq!(seen, if status == OK { 200 } else { 400 }, "{count} with Host and Connection over HTTP/1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_was_refused_over_http2_had_no_line_in_the_log() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).flag("--admin-address", ":0").start();
    let request = block(1, END_STREAM, &[frames::get("/v2/"), literal(257)].concat());
    let mut stream = taking_nothing(&proxy, &request);
    assert!(status(&mut stream).is_some(), "it is answered");
    let client = stream.local_addr().expect("an address");
    let line = proxy.wait_for_log("the header has too many fields");
    assert!(line.contains(&format!("INFO  access] - - 400 0B 0ms client={client} ")), "{line}");
    let load = load(&proxy);
    assert_eq!((&load["bad_headers"], &load["refused"]["malformed"]), (&1.into(), &1.into()));
}

/// What somebody sends who looks for two readings of one header was in no counter and in no line of the log.
#[tokio::test(flavor = "multi_thread")]
async fn headers_that_pingora_refuses_were_not_counted() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).flag("--admin-address", ":0").start();
    let requests = [
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a:80@b\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n",
        "GET http://b/v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    ];
    let counted = |so_far: usize, of: &serde_json::Value| {
        of["bad_headers"] == so_far && of["refused"]["malformed"] == so_far && of["requests"]["now"] == 0
    };
    for (before, request) in requests.iter().enumerate() {
        let answer = wire::send(proxy.address(), request.as_bytes());
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{request:?}: {}", String::from_utf8_lossy(&answer));
        wait_for_load(&proxy, request, |of| counted(before + 1, of));
    }
    // A request that is served, on a connection that goes on, is none of them.
    assert_eq!(wire::ask(proxy.address(), "GET /v2/", "").status, 200);
    assert!(counted(requests.len(), &load(&proxy)));
    let line = proxy.wait_for_log("the header is no valid one of HTTP");
    assert!(line.contains("INFO  access] - - 400 0B "), "{line}");
}

/// With trailers, which nobody looks at, as with a header.
#[tokio::test(flavor = "multi_thread")]
async fn http2_requests_held_180_kib_of_fields_each_for_as_long_as_their_clients_liked() {
    const CONNECTIONS: usize = 20;
    /// What a request with few fields takes, and as much again for the system's own.
    const EACH: usize = 64 << 10;
    let azure = testkit::azure().await;
    for (what, own, trailers, is_served) in [
        ("literal fields", literal(1800), None, false),
        ("indexed fields", indexed(1800), None, false),
        ("fields within the bound", literal(250), None, true),
        ("literal trailers", Vec::new(), Some(literal(1800)), false),
        ("trailers within the bound", Vec::new(), Some(literal(250)), false),
        ("trailers of no body", b"\x0f\x0d\x010".to_vec(), Some(literal(250)), false),
    ] {
        let proxy = Setup::new(&azure).flag("--admin-address", ":0").start();
        assert_eq!(wire::ask(proxy.address(), &format!("GET {TAGS}"), "").status, 200);
        let before = proxy.peak_resident_bytes();
        let request = [frames::get(TAGS), own].concat();
        let held: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let requests = (0..STREAMS).flat_map(|number| {
                    let id = 2 * number + 1;
                    match &trailers {
                        Some(fields) => [block(id, 0, &request), block(id, END_STREAM, fields)].concat(),
                        None => block(id, END_STREAM, &request),
                    }
                });
                taking_nothing(&proxy, &requests.collect::<Vec<_>>())
            })
            .collect();
        let now = if is_served { CONNECTIONS * STREAMS as usize } else { 0 };
        for mut stream in held.iter().filter(|_| !is_served) {
            // Each connection has ended, or has answered its last request.
            let last = |frame: &(u8, u8, u32, Vec<u8>)| frame.2 == 2 * STREAMS - 1 && frame.0 == HEADERS;
            std::iter::from_fn(|| frames::read(&mut stream)).find(last);
        }
        wait_for_load(&proxy, what, |load| load["requests"]["now"] == now);
        let taken = proxy.peak_resident_bytes().saturating_sub(before);
        println!("{what}: {} MiB", taken >> 20);
        assert!(taken < CONNECTIONS * STREAMS as usize * EACH, "{what}: {taken}");
        drop(held);
    }
}

/// They did until they had ended.
#[tokio::test(flavor = "multi_thread")]
async fn long_headers_of_requests_under_way_had_no_bound_together() {
    const ROOM: usize = 32 << 20;
    const LENGTH: usize = 60_000;
    const CLIENTS: usize = ROOM / LENGTH + 40;
    let azure = testkit::azure().await;
    azure.inject(Hop::Data, Fault::Hang);
    let value = "x".repeat(LENGTH);
    let http1 = format!("GET {TAGS} HTTP/1.1\r\nHost: x\r\nX: {value}\r\n\r\n").into_bytes();
    // HPACK: a literal field whose value has 60,000 bytes.
    let field = [&[0, 1, b'x', 0x7f, 0xe1, 0xd3, 0x03][..], value.as_bytes()].concat();
    let http2 = [
        frames::PREFACE,
        &frames::frame(frames::SETTINGS, 0, 0, &[]),
        &block(1, END_STREAM, &[frames::get(TAGS), field].concat()),
    ]
    .concat();
    for request in [http1, http2] {
        let proxy = Setup::new(&azure).flag("--admin-address", ":0").start();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut client = wire::connect(proxy.address());
                // The refusal may come before the end of it.
                let _ = client.write_all(&request);
                client
            })
            .collect();
        let refused = |load: &serde_json::Value| load["refused"]["header_size"].as_u64().unwrap_or_default();
        wait_for_load(&proxy, "all of them", |load| {
            load["requests"]["now"].as_u64().unwrap_or_default() + refused(load) == CLIENTS as u64
        });
        let refused = refused(&load(&proxy));
        assert!((40..80).contains(&refused), "{refused} of {CLIENTS}");
        proxy.wait_for_log("too many long headers are held at once");
        assert_eq!(wire::ask(proxy.address(), "GET /v2/", "").status, 200, "a usual header takes nothing of the room");
        drop(clients);
        wait_for_load(&proxy, "their end", |load| load["requests"]["now"] == 0);
        let mut client = wire::connect(proxy.address());
        client.write_all(&request).expect("sent");
        wait_for_load(&proxy, "another one", |load| load["requests"]["now"] == 1);
        client.shutdown(std::net::Shutdown::Both).expect("ended");
        let _ = client.read(&mut [0]);
    }
}
