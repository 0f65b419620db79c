//! Who may pull, and how much one client may have.

use serde_json::Value;

use crate::load::{load, sent_to_registry, wait_for_load};
use crate::wire::{self, Client};
use testkit::Setup;

const PULL: &str = "/v2/library/busybox/tags/list";

fn access_lines(log: &str) -> usize {
    log.lines().filter(|line| line.contains("access] ")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_pull_is_told_so_and_nothing_of_it_reaches_the_registry() {
    for (listen, rules, seen) in [
        ("127.0.0.1:0", "{allow: [10.0.0.0/8]}", "127.0.0.1"),
        ("127.0.0.1:0", "{allow: [127.0.0.0/8], deny: [127.0.0.1]}", "127.0.0.1"),
        // An IPv4 client of a listener for both is one of IPv4.
        ("[::]:0", "{deny: [127.0.0.0/8]}", "127.0.0.1"),
        ("[::1]:0", "{allow: [127.0.0.0/8]}", "::1"),
    ] {
        let azure = testkit::azure().await;
        let setup = Setup::new(&azure).settings(&format!("access: {rules}"));
        let proxy = setup.flag("--listen-address", listen).flag("--admin-address", ":0").start();
        let port = proxy.address().port();
        let address = if seen == "::1" { proxy.address() } else { ([127, 0, 0, 1], port).into() };
        for _ in 0..3 {
            let answer = wire::ask(address, &format!("GET {PULL}"), "");
            assert_eq!((answer.status, answer.code().as_str()), (403, "DENIED"), "{rules}: {answer:?}");
            let says = format!("{seen} may not pull here: whoever runs this proxy decides that");
            assert!(answer.body.contains(&says), "{answer:?}");
            assert_eq!(answer.header("connection"), Some("close"));
        }
        wait_for_load(&proxy, "no connection", |load| load["connections"]["now"] == 0);
        assert_eq!(load(&proxy)["refused"]["network"], 3);
        assert_eq!(sent_to_registry(&azure.requests()), 0, "{rules}");
        let line = proxy.wait_for_log(" error=");
        assert!(line.contains("INFO  access] - - 403 ") && line.contains(&format!(" error={seen} may not")), "{line}");
        assert_eq!(access_lines(&proxy.end()), 1, "one line a minute");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_pull_does() {
    for rules in ["{}", "{allow: [127.0.0.1]}", "{allow: ['::/0', 127.0.0.0/8], deny: [127.0.0.2, 10.0.0.0/8]}"] {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).settings(&format!("access: {rules}")).start();
        assert_eq!(wire::ask(proxy.address(), &format!("GET {PULL}"), "").status, 200, "{rules}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_a_clients_rate_are_refused_and_the_registry_hears_of_none() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let limits = "limits: {requests_per_second_per_client: 1, request_burst_per_client: 4}";
        let proxy = Setup::new(&azure).cache(cache).settings(limits).flag("--admin-address", ":0").start();
        let mut client = Client::new(proxy.address());
        // Within the burst, however slow this machine is: each second adds one.
        for _ in 0..4 {
            assert_eq!(client.ask("GET", PULL, "HTTP/1.1", "").status(), 200);
        }
        let refused = (0..100).map(|_| client.ask("GET", PULL, "HTTP/1.1", "")).find(|answer| answer.status() != 200);
        let refused = refused.expect("a hundred requests take less than a hundred seconds");
        assert_eq!((refused.status(), refused.header("retry-after")), (429, Some("1")), "{refused:?}");
        let body: Value = serde_json::from_slice(&refused.body).expect("JSON");
        assert_eq!(body["errors"][0]["code"], "TOOMANYREQUESTS");
        let message = body["errors"][0]["message"].as_str().expect("a message");
        assert!(message.starts_with("127.0.0.1 asks too often: limits.requests_per_second_per_client"), "{message}");
        let line = proxy.wait_for_log(" 429 ");
        assert!(line.contains("INFO  access] GET ") && line.ends_with(&format!(" error={message}")), "{line}");
        // The connection is kept, and what was refused did not count.
        let again = (0..).map(|_| client.ask("GET", PULL, "HTTP/1.1", "").status()).find(|status| *status == 200);
        assert_eq!(again, Some(200));
        let refused = load(&proxy)["refused"]["request_rate"].as_u64().expect("a number");
        assert!(refused >= 1, "{refused}");
        let log = proxy.end();
        assert_eq!(log.lines().filter(|line| line.contains(" 429 ")).count(), 1, "one line a minute: {log}");
        let passed = log.lines().filter(|line| line.contains("access] GET ") && line.contains(" 200 ")).count();
        assert_eq!(sent_to_registry(&azure.requests()), passed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_a_clients_limit_are_refused_and_make_room_when_they_end() {
    let azure = testkit::azure().await;
    let limits = "limits: {connections_per_client: 3}";
    let proxy = Setup::new(&azure).settings(limits).flag("--admin-address", ":0").start();
    let mut open: Vec<_> = (0..3).map(|_| Client::new(proxy.address())).collect();
    for client in &mut open {
        assert_eq!(client.ask("GET", PULL, "HTTP/1.1", "").status(), 200);
    }
    for _ in 0..3 {
        let answer = wire::ask(proxy.address(), &format!("GET {PULL}"), "");
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
        assert!(answer.body.contains("127.0.0.1 has too many connections open"), "{answer:?}");
    }
    assert_eq!(load(&proxy)["refused"]["connections_per_client"], 3);
    open.pop();
    wait_for_load(&proxy, "room", |load| load["connections"]["now"] == 2);
    assert_eq!(wire::ask(proxy.address(), &format!("GET {PULL}"), "").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connections_of_all_clients_are_bounded_by_the_setting() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).settings("limits: {connections: 16}").flag("--admin-address", ":0").start();
    assert_eq!(load(&proxy)["connections"]["max"], 16);
    let open: Vec<_> = (0..16).map(|_| wire::connect(proxy.address())).collect();
    wait_for_load(&proxy, "a full house", |load| load["connections"]["now"] == 16);
    let answer = wire::ask(proxy.address(), &format!("GET {PULL}"), "");
    assert_eq!((answer.status, answer.code().as_str()), (503, "UNAVAILABLE"), "{answer:?}");
    drop(open);
}
