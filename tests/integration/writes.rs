//! How often a request has the proxy write.

use acr_emulator::Image;

use crate::fixture::ACCEPT;
use testkit::wire::Client;
use testkit::{Proxy, Setup};

/// Calls of `write` and `writev` of a process so far.
fn writes(proxy: &Proxy) -> usize {
    let counts = std::fs::read_to_string(format!("/proc/{}/io", proxy.id())).expect("it runs");
    let count = counts.lines().find_map(|line| line.strip_prefix("syscw: ")).expect("proc(5)");
    count.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_writes_to_its_registry_and_not_to_the_runtime_for_its_timers() {
    const REQUESTS: usize = 200;
    let azure = testkit::azure().await;
    azure.push(Image::small("hub/library/busybox", "latest"));
    let proxy = Setup::new(&azure).cache("off").log("warn").settings("threads: 1").start();
    let mut client = Client::new(proxy.address());
    let mut ask = |times| {
        for _ in 0..times {
            let answer = client.ask("GET", "/v2/library/busybox/manifests/latest", "HTTP/1.1", ACCEPT);
            assert_eq!(answer.head.status, 200);
        }
    };
    ask(10);
    let before = writes(&proxy);
    ask(REQUESTS);
    let made = writes(&proxy) - before;
    // To the client it sends by another call. Something else may write now and then.
    assert!((REQUESTS..REQUESTS * 5 / 4).contains(&made), "{made} writes for {REQUESTS} requests");
}
