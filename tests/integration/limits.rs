//! More connections and more requests than the proxy takes on.

use std::io::Write as _;
use std::time::Instant;

use acr_emulator::{Fault, Hop};

use crate::load::{load, sent_to_registry, wait_for_load};
use crate::wire::{self, Client};
use testkit::{AT_ONCE, Setup, wait_for};

/// A pull while others hold all connections that there may be.
#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_limit_are_refused_at_once_and_readyz_still_answers() {
    const LIMIT: usize = 256;
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).flag("--admin-address", ":0").descriptors(64, LIMIT).start();
    proxy.wait_for_log(&format!("{LIMIT} file descriptors are few"));
    let max = load(&proxy)["connections"]["max"].as_u64().and_then(|max| usize::try_from(max).ok()).expect("a number");
    assert!(max > 8, "the soft limit is raised: {max}");
    let mut first = Client::new(proxy.address());
    let pull = "/v2/library/busybox/tags/list";
    assert_eq!(first.ask("GET", pull, "HTTP/1.1", "").status(), 200);
    let mut slow: Vec<_> = (1..max)
        .map(|_| {
            let mut client = wire::connect(proxy.address());
            client.write_all(b"GET /v2/ HT").expect("sent");
            client
        })
        .collect();
    // Who is idle makes room when it gets crowded.
    assert!(first.is_at_its_end());
    slow.push(wire::connect(proxy.address()));
    wait_for_load(&proxy, "a full house", |load| load["connections"]["now"] == max);
    for _ in 0..LIMIT {
        let begun = Instant::now();
        let answer = wire::ask(proxy.address(), &format!("GET {pull}"), "");
        assert_eq!((answer.status, answer.code().as_str()), (503, "UNAVAILABLE"), "{answer:?}");
        assert_eq!((answer.header("retry-after"), answer.header("connection")), (Some("1"), Some("close")));
        assert!(begun.elapsed() < AT_ONCE);
    }
    assert_eq!(load(&proxy)["connections"]["refused"], LIMIT);
    drop(slow);
    proxy.wait_for_log("connections: there is room again");
    assert_eq!(wire::ask(proxy.address(), &format!("GET {pull}"), "").status, 200);
    let log = proxy.end();
    assert_eq!(log.matches("connections: ").count(), 2, "one line when it begins, one when it ends: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_the_limit_are_refused_at_once() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).flag("--admin-address", ":0").descriptors(256, 256).start();
        assert_eq!(wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list", "").status, 200);
        let max = load(&proxy)["requests"]["max"].as_u64().and_then(|max| usize::try_from(max).ok()).expect("a number");
        azure.inject(Hop::Data, Fault::Hang);
        let before = sent_to_registry(&azure.requests());
        let mut waiting: Vec<_> = (0..max)
            .map(|number| {
                let mut client = wire::connect(proxy.address());
                // Each asks for something else, so that none shares another's answer.
                let path = format!("/v2/library/busybox/tags/list?n={}", number + 1);
                client.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("sent");
                client
            })
            .collect();
        wait_for(&azure, "all of them", |requests| sent_to_registry(requests) - before == max).await;
        let mut kept = Client::new(proxy.address());
        for _ in 0..3 {
            let answer = kept.ask("GET", "/v2/library/busybox/tags/list", "HTTP/1.1", "");
            assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")), "{answer:?}");
        }
        assert_eq!(load(&proxy)["requests"]["refused"], 3);
        assert_eq!(sent_to_registry(&azure.requests()) - before, max, "the registry hears of none of them");
        waiting.clear();
        proxy.wait_for_log("requests under way: there is room again");
        azure.clear_faults();
        assert_eq!(kept.ask("GET", "/v2/library/busybox/tags/list", "HTTP/1.1", "").status(), 200);
    }
}
