//! A registry that limits requests, and a proxy that keeps below a limit by itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Fault, Hop, Options, RateLimits};
use testkit::{Proxy, Setup};

use crate::client::{Client, Seen};

const WARM: &str = "/v2/library/busybox/manifests/latest";
const LIST: &str = "/v2/library/busybox/tags/list";

fn start(azure: &Emulator, settings: &str) -> (Proxy, Client) {
    let proxy = Setup::new(azure).cache("{tags: 1s}").settings(settings).start();
    let mut client = Client::new(proxy.address());
    assert_eq!(client.get(WARM).expect("an answer").status, 200);
    (proxy, client)
}

fn cold(number: usize) -> String {
    format!("/v2/library/busybox/manifests/cold{number}")
}

/// 429 or 503, as the registry says it, or as the proxy does in its place.
fn limited(status: u16, headers: &[(&str, &str)]) -> Fault {
    let code = if status == 429 { "TOOMANYREQUESTS" } else { "UNAVAILABLE" };
    Fault::StatusWith {
        status,
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: format!(r#"{{"errors":[{{"code":"{code}","message":"slow down"}}]}}"#),
    }
}

fn asked(azure: &Emulator) -> usize {
    azure.with_requests(|all| all.iter().filter(|one| one.hop == Hop::Data).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_one_kind_of_call_is_answered_here_and_all_else_goes_on() {
    const JSON: (&str, &str) = ("Content-Type", "application/json");
    for (status, headers, told, code) in [
        (429, &[JSON, ("Retry-After", "300")][..], 503, "TOOMANYREQUESTS"),
        (429, &[JSON][..], 503, "TOOMANYREQUESTS"),
        (503, &[JSON, ("Retry-After", "3")][..], 503, "UNAVAILABLE"),
    ] {
        let azure = testkit::azure().await;
        let (proxy, mut client) = start(&azure, "");
        std::thread::sleep(Duration::from_secs(2));
        azure.inject(Hop::Data, limited(status, headers).on_path("/manifests/"));
        azure.clear_requests();
        let first = client.get(&cold(0)).expect("an answer");
        assert_eq!((first.status, first.code.as_deref()), (told, Some(code)), "the registry's: {first:?}");
        assert_eq!(asked(&azure), 1);
        let begun = Instant::now();
        let next = client.get(&cold(1)).expect("an answer");
        assert_eq!((next.status, next.code.as_deref()), (told, Some(code)), "{next:?}");
        assert!(next.retry_after.is_some_and(|left| (1..=60).contains(&left)), "{next:?}");
        assert_eq!(client.get(WARM).expect("an answer").status, 200, "stale");
        let other = client.get(LIST).expect("an answer");
        assert_eq!(other.status, 200, "{other:?}");
        // On a machine that stands still for seconds the pause may be over.
        if begun.elapsed() < Duration::from_secs(2) {
            assert_eq!(asked(&azure), 2, "the first one and the list:\n{}", proxy.log());
        }
        if headers.contains(&("Retry-After", "3")) || headers.len() == 1 {
            azure.clear_faults();
            let over = std::iter::repeat_with(|| {
                std::thread::sleep(Duration::from_millis(200));
                client.get(&cold(2)).expect("an answer").status
            });
            assert!(over.take(100).any(|status| status == 404));
        }
        let lines = |words: &str| proxy.log().lines().filter(|line| line.contains(words)).count();
        let begins = format!("{status}: it limits requests, and is asked for no manifests for ");
        proxy.wait_for_log(&begins);
        assert_eq!(lines(&begins), 1);
        assert_eq!(lines("it is down"), 0, "{}", proxy.log());
    }
}

/// Its other rules are served, and so is what is pushed.
#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_a_rules_source_is_not_the_registrys() {
    let azure = testkit::azure().await;
    let (proxy, mut client) = start(&azure, "");
    azure.inject(Hop::Data, Fault::CacheRule(429).on_path("/manifests/cold"));
    azure.clear_requests();
    for number in 0..3 {
        assert_eq!(client.get(&cold(number)).expect("an answer").status, 503);
    }
    assert_eq!(asked(&azure), 3, "{}", proxy.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_keeps_below_the_registrys_limit_in_order_of_arrival() {
    const READS: usize = 60;
    const CLIENTS: usize = 24;
    let rate_limits = RateLimits { reads: Some(READS as u32), ..RateLimits::NONE };
    let azure = Emulator::start(Options { rate_limits, ..testkit::options() }).await.expect("the emulator starts");
    azure.push(acr_emulator::Image::small("hub/library/busybox", "latest"));
    let (proxy, _) = start(&azure, &format!("limits: {{registry_reads_per_minute: {READS}}}"));
    azure.clear_requests();
    // Each for something else, more than the burst and what comes in five seconds.
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let ask = |number| Client::new(proxy.address()).get(&cold(number)).expect("an answer");
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || ask(number))).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    });
    let mut by_status = BTreeMap::new();
    for one in &seen {
        *by_status.entry(one.status).or_insert(0) += 1;
    }
    let served = by_status.remove(&404).unwrap_or(0);
    let refused = by_status.remove(&503).unwrap_or(0);
    assert!(by_status.is_empty(), "{seen:?}");
    assert!(served >= READS / 10, "the burst at least: {seen:?}");
    assert!(refused > 0, "{seen:?}");
    assert_eq!(asked(&azure), served, "a refused one costs nothing");
    for one in seen.iter().filter(|one| one.status == 503) {
        assert_eq!(one.code.as_deref(), Some("TOOMANYREQUESTS"), "{one:?}");
        assert!(one.retry_after.is_some_and(|left| left >= 1), "{one:?}");
    }
    assert!(azure.with_requests(|all| all.iter().all(|one| one.status != 429)));
}
