//! An upgrade while clients live on what the running proxy keeps: the new process would have nothing for them.

use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Fault, Hop, Image, Options};
use serde_json::{Value, json};

use super::Successor;
use crate::admin::admin;
use crate::under_load::{ACCEPT, PULL};
use crate::wire;
use testkit::forward::ForwardProxy;
use testkit::{PATIENCE, Proxy, Setup};

/// It took over with no token and an empty cache, because the old one had no token either, and clients got nothing any more.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_in_an_outage_of_the_sign_in_threw_away_what_was_kept() {
    let life = Duration::from_secs(4);
    let options = Options { access_lifetime: life, refresh_lifetime: life, entra_lifetime: life, ..testkit::options() };
    let azure = Emulator::start(options).await.expect("the emulator starts");
    azure.push(Image::small("hub/library/busybox", "latest"));
    let mut proxy = Setup::new(&azure).cache("{tags: 1s, manifests: 1s}").settings("admin: 127.0.0.1:0").start();
    let admin = admin(&proxy);
    let pull = || wire::ask(proxy.address(), &format!("GET {PULL}"), ACCEPT).status;
    assert_eq!(pull(), 200);
    azure.inject(Hop::Entra, Fault::Status(503));
    let serves_kept = || wire::ask(admin, "GET /readyz", "").body.contains("\"serves\": \"kept\"");
    let deadline = Instant::now() + PATIENCE;
    while !serves_kept() {
        assert!(Instant::now() < deadline, "{}", proxy.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    proxy.signal("USR2");
    let says = "this process goes on: process";
    let deadline = Instant::now() + 2 * PATIENCE;
    while !proxy.log().contains(says) {
        assert!(Instant::now() < deadline, "{}", proxy.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let failed = proxy.wait_for_log(says);
    assert!(failed.contains(" could not take over within 30 s: it has no token for example.azurecr.io:"), "{failed}");
    assert!(failed.contains(", and clients still get what this process keeps of example.azurecr.io:"), "{failed}");
    assert_eq!(pull(), 200, "{}", proxy.log());
    // With the sign-in back, it is an upgrade like any other.
    azure.clear_faults();
    proxy.signal("USR2");
    let successor = Successor::of(&proxy, 0);
    assert_eq!(proxy.wait().code(), Some(0));
    assert_eq!(wire::ask(proxy.address(), &format!("GET {PULL}"), ACCEPT).status, 200);
    drop(successor);
}

/// The registry gave tokens all the time, so the new process took over, asked it again within its pause, and had nothing for clients.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_while_the_registry_is_down_or_wants_a_pause_threw_away_what_was_kept() {
    let upgrade = |what: &'static str, fault: Fault, says: &'static str| async move {
        let azure = testkit::azure().await;
        let mut proxy = Setup::new(&azure).cache("{tags: 1s}").settings("admin: 127.0.0.1:0").start();
        let admin = admin(&proxy);
        let pull = |proxy: &Proxy| wire::ask(proxy.address(), &format!("GET {PULL}"), ACCEPT).status;
        assert_eq!(pull(&proxy), 200, "{what}");
        azure.inject(Hop::Data, fault);
        let told = |name: &str| {
            let counters: Value = serde_json::from_str(&wire::ask(admin, "GET /cache", "").body).expect("JSON");
            counters["registries"][0][name].clone()
        };
        let deadline = Instant::now() + PATIENCE;
        // As engines do: what is kept, and what is not.
        while told("stale") == json!(0) || says.starts_with("it is down") && told("down") != json!(true) {
            assert!(Instant::now() < deadline, "{what}: {}", proxy.log());
            assert_eq!(pull(&proxy), 200, "{what}");
            wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list", "");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        proxy.signal("USR2");
        let ends = "this process goes on: process";
        let deadline = Instant::now() + 2 * PATIENCE;
        while !proxy.log().contains(ends) {
            assert!(Instant::now() < deadline && proxy.is_running(), "{what}: {}", proxy.log());
            assert_eq!(pull(&proxy), 200, "{what}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let line = proxy.wait_for_log(ends);
        assert!(
            line.contains(" could not take over within 30 s: it keeps nothing yet, while clients live on"),
            "{line}"
        );
        assert!(line.contains("example.azurecr.io:") && line.contains(says), "{what}: {line}");
        let remedy = "upgrade when the registry answers again, or restart, which applies a change at once and loses what is kept";
        assert!(line.contains(remedy), "{line}");
        assert_eq!(line.contains("which it does not reach either"), says.starts_with("it is down"), "{line}");
        azure.clear_faults();
        // With the registry back, it is an upgrade like any other.
        let deadline = Instant::now() + PATIENCE;
        let successor = loop {
            assert_eq!(pull(&proxy), 200, "{what}");
            proxy.signal("USR2");
            if proxy.log().contains("serves from now on") {
                break Successor::of(&proxy, 0);
            }
            assert!(Instant::now() < deadline, "{what}: {}", proxy.log());
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        assert_eq!(proxy.wait().code(), Some(0));
        assert_eq!(pull(&proxy), 200, "{what}");
        drop(successor);
    };
    let pause = Fault::StatusWith {
        status: 429,
        headers: vec![("Retry-After".to_owned(), "10".to_owned())],
        body: String::new(),
    };
    tokio::join!(
        upgrade("an outage", Fault::Status(503), "it is down: the registry answers 503"),
        upgrade("a pause", pause, "it limits requests, and is asked for no manifests for another "),
        upgrade("the source of a cache rule", Fault::CacheRule(424), "it has failed to answer within the last minute"),
    );
}

/// The one that went another way was ended, because the old one lived on what it kept: there was no end to that.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_would_have_ended_an_outage_was_refused() {
    let azure = testkit::azure().await;
    let forward = ForwardProxy::start().await;
    let egress = format!("egress: {{proxy: 'http://{}'}}", forward.address());
    let setup = Setup::new(&azure).cache("{tags: 1s}").settings("admin: 127.0.0.1:0").settings(&egress).by_name();
    let mut proxy = setup.start();
    let admin = admin(&proxy);
    let pull = || wire::ask(proxy.address(), &format!("GET {PULL}"), ACCEPT).status;
    assert_eq!(pull(), 200, "{}", proxy.log());
    forward.stop();
    let is_down = || wire::ask(admin, "GET /cache", "").body.contains("\"down\": true");
    let deadline = Instant::now() + PATIENCE;
    while !is_down() {
        assert!(Instant::now() < deadline, "{}", proxy.log());
        assert_eq!(pull(), 200);
        wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list", "");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let config = std::fs::read_to_string(proxy.config()).expect("a configuration");
    let direct = config.replace(&egress, "").replace("  prefix: hub\n", "  prefix: hub\n  addresses: [127.0.0.1]\n");
    std::fs::write(proxy.config(), direct).expect("written");
    proxy.signal("USR2");
    let successor = Successor::of(&proxy, 0);
    assert_eq!(proxy.wait().code(), Some(0));
    assert_eq!(wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list", "").status, 200, "{}", proxy.log());
    drop(successor);
}

/// It asked at once, and was refused once more, which counts.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_forgot_the_pause_of_a_registry_of_which_nothing_was_kept() {
    let azure = testkit::azure().await;
    let mut proxy = Setup::new(&azure).start();
    let headers = vec![("Retry-After".to_owned(), "60".to_owned())];
    azure.inject(Hop::Data, Fault::StatusWith { status: 429, headers, body: String::new() });
    assert_ne!(wire::ask(proxy.address(), &format!("GET {PULL}"), ACCEPT).status, 200);
    proxy.signal("USR2");
    let says = "this process goes on: process";
    let deadline = Instant::now() + 2 * PATIENCE;
    while !proxy.log().contains(says) {
        assert!(Instant::now() < deadline && proxy.is_running(), "{}", proxy.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let line = proxy.wait_for_log(says);
    assert!(
        line.contains("could not take over within 30 s: it would ask in a pause that it does not know of, of "),
        "{line}"
    );
    assert!(line.contains(" (it limits requests, and is asked for no manifests for another "), "{line}");
}
