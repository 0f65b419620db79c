//! HTTP/2 clients that break off, stall or ask for too much.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use acr_emulator::{Fault, Hop};

use crate::admin::admin;
use crate::downstream::HEADER_LIMIT;
use crate::frames;
use crate::load::{load, sent_to_registry};
use crate::wire;
use testkit::{AT_ONCE, PATIENCE, Setup};

#[tokio::test(flavor = "multi_thread")]
async fn http2_streams_and_header_lists_are_limited() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let mut stream = frames::connect(proxy.address(), &[]);
    let settings =
        std::iter::from_fn(|| frames::read(&mut stream)).find(|frame| frame.0 == frames::SETTINGS && frame.1 == 0);
    let settings = settings.expect("settings").3;
    let value = |name: u16| {
        let pair = settings.chunks(6).find(|pair| pair[..2] == name.to_be_bytes());
        pair.map(|pair| u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]))
    };
    assert_eq!((value(3), value(6)), (Some(32), Some(64 << 10)), "streams at once, header list");
    // Who does not care is refused stream by stream.
    azure.inject(Hop::Data, Fault::Hang);
    let request = frames::get("/v2/library/busybox/tags/list");
    for id in 0..40 {
        let flags = frames::END_STREAM | frames::END_HEADERS;
        stream.write_all(&frames::frame(frames::HEADERS, flags, 2 * id + 1, &request)).expect("sent");
    }
    let refused =
        std::iter::from_fn(|| frames::read(&mut stream)).filter(|frame| frame.0 == frames::RST_STREAM).take(8);
    assert_eq!(refused.map(|frame| frame.2).collect::<Vec<_>>(), (32..40).map(|id| 2 * id + 1).collect::<Vec<_>>());
    assert!(sent_to_registry(&azure.requests()) <= 32);
}

/// In small groups, of which each is below what the library behind this takes for an attack.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_reset_at_once_reach_no_registry() {
    const GROUPS: u32 = 20;
    const IN_GROUP: u32 = 16;
    const ACCEPT: &[u8] = b"application/vnd.oci.image.index.v1+json";
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).settings("admin: 127.0.0.1:0").start();
        let mut stream = frames::connect(proxy.address(), &[]);
        // `accept` is field 19 of HPACK's static table.
        let accept = [&[0x0f, 0x04, u8::try_from(ACCEPT.len()).expect("short")], ACCEPT].concat();
        let request = |id| [frames::get(&format!("/v2/library/busybox/manifests/none-{id}")), accept.clone()].concat();
        let flags = frames::END_STREAM | frames::END_HEADERS;
        for group in 0..GROUPS {
            let ids = (group * IN_GROUP..(group + 1) * IN_GROUP).map(|number| 2 * number + 1);
            let reset = ids.flat_map(|id| {
                let headers = frames::frame(frames::HEADERS, flags, id, &request(id));
                [headers, frames::frame(frames::RST_STREAM, 0, id, &8_u32.to_be_bytes())].concat()
            });
            let ping = frames::frame(frames::PING, 0, 0, &[0; 8]);
            stream.write_all(&reset.chain(ping).collect::<Vec<_>>()).expect("sent");
            let answered = std::iter::from_fn(|| frames::read(&mut stream)).any(|frame| frame.0 == frames::PING);
            assert!(answered, "{cache}: the connection goes on");
        }
        // The connection is a good one still.
        let last = 2 * GROUPS * IN_GROUP + 1;
        stream.write_all(&frames::frame(frames::HEADERS, flags, last, &request(last))).expect("sent");
        assert!(std::iter::from_fn(|| frames::read(&mut stream)).any(|frame| frame.2 == last), "{cache}: answered");
        assert_eq!(sent_to_registry(&azure.requests()), 1, "{cache}");
        let counted = format!("acr_cache_proxy_refusals_total{{reason=\"reset\"}} {}", GROUPS * IN_GROUP);
        let metrics = wire::ask(admin(&proxy), "GET /metrics", "");
        assert!(metrics.body.contains(&counted), "{cache}: {}", metrics.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_http2_is_closed_after_the_time_limit_of_a_header() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let unfinished = [
        // Half the preface, half a frame, and a header block that goes on for ever.
        (frames::PREFACE[..14].to_vec(), Vec::new()),
        ([frames::PREFACE, &frames::frame(frames::SETTINGS, 0, 0, &[])[..5]].concat(), Vec::new()),
        (
            [
                frames::PREFACE,
                &frames::frame(frames::SETTINGS, 0, 0, &[]),
                &frames::frame(frames::HEADERS, frames::END_STREAM, 1, &[0x82]),
            ]
            .concat(),
            // A field without a table: a: b.
            frames::frame(frames::CONTINUATION, 0, 1, &[0, 1, b'a', 1, b'b']),
        ),
    ];
    std::thread::scope(|scope| {
        for (begin, drop) in unfinished {
            let address = proxy.address();
            scope.spawn(move || {
                let mut stream = wire::connect(address);
                stream.write_all(&begin).expect("sent");
                let begun = Instant::now();
                let mut taker = stream.try_clone().expect("a second handle");
                let ended = scope.spawn(move || {
                    let _ = taker.read_to_end(&mut Vec::new());
                    begun.elapsed()
                });
                while !ended.is_finished() && stream.write_all(&drop).is_ok() {
                    // The library behind this takes five of them.
                    std::thread::sleep(Duration::from_secs(6));
                }
                let elapsed = ended.join().expect("an end");
                assert!(
                    elapsed >= HEADER_LIMIT - Duration::from_secs(1) && elapsed < PATIENCE,
                    "{begin:?}: {elapsed:?}"
                );
            });
        }
    });
}

/// Clients that ask for much and take nothing.
#[tokio::test(flavor = "multi_thread")]
async fn http2_clients_that_read_nothing_do_not_exhaust_the_registry() {
    const CONNECTIONS: u32 = 20;
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure).settings("limits: {concurrent_requests_per_client: off}");
    let proxy = setup.flag("--admin-address", ":0").descriptors(512, 512).start();
    let max = load(&proxy)["requests"]["max"].as_u64().expect("a number");
    let request = frames::get("/v2/library/busybox/tags/list");
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = frames::connect(proxy.address(), &frames::setting(frames::INITIAL_WINDOW_SIZE, 0));
        let asked = (0..32).flat_map(|id| {
            frames::frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, 2 * id + 1, &request)
        });
        stream.write_all(&asked.collect::<Vec<_>>()).expect("sent");
        held.push(stream);
    }
    proxy.wait_for_log("requests under way: ");
    let seen = load(&proxy);
    assert!(seen["requests"]["refused"].as_u64() > Some(0), "{seen}");
    assert!(sent_to_registry(&azure.requests()) as u64 <= max, "{max}: {}", sent_to_registry(&azure.requests()));
    drop(held);
    proxy.wait_for_log("requests under way: there is room again");
    assert_eq!(wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list", "").status, 200);
}

/// A refusal waits for its client, too.
#[tokio::test(flavor = "multi_thread")]
async fn refused_http2_requests_do_not_wait_for_the_clients_window() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure).settings("limits: {concurrent_requests_per_client: off}");
    let proxy = setup.flag("--admin-address", ":0").descriptors(256, 256).start();
    let max = load(&proxy)["requests"]["max"].as_u64().expect("a number");
    let request = frames::get("/v2/library/busybox/tags/list");
    let mut stream = frames::connect(proxy.address(), &frames::setting(frames::INITIAL_WINDOW_SIZE, 0));
    let asked = (0..32)
        .flat_map(|id| frames::frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, 2 * id + 1, &request));
    stream.write_all(&asked.collect::<Vec<_>>()).expect("sent");
    let refused = usize::try_from(32 - max).expect("fewer are served than one connection may ask");
    let begun = Instant::now();
    let ended =
        std::iter::from_fn(|| frames::read(&mut stream)).filter(|frame| frame.0 == frames::RST_STREAM).take(refused);
    assert_eq!(ended.count(), refused);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(load(&proxy)["requests"]["refused"], refused);
}
