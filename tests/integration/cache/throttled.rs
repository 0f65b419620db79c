//! The registry limits reads: nobody asks it again before it allows that, and what is kept goes on.

use std::io::Write as _;
use std::time::Duration;

use acr_emulator::{Fault, Hop, Image, Options, RateLimits};
use serde_json::{Value, json};

use super::cached::{ACCEPT, Cached, REPOSITORY, path, until};
use crate::admin::admin;
use crate::wire::{self, Whole};

/// Longer than a test takes.
const LONG: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn after_a_429_with_a_time_the_registry_is_left_alone_and_what_is_kept_goes_on() {
    for fault in [Fault::Throttled(LONG), with_status(503), with_status(429)] {
        let cached = Cached::start("{tags: 0s, missing: 0s}").await;
        let tag = path("manifests/latest");
        assert_eq!(cached.get(&tag).status(), 200);
        cached.azure.inject(Hop::Data, fault.clone());
        cached.azure.clear_requests();
        // The first one of each kind learns of it.
        for rest in ["manifests/other", &*format!("blobs/{}", cached.pushed.blobs[2])] {
            let first = cached.get(&path(rest));
            assert!([429, 503].contains(&first.status()), "{fault:?}: {first:?}");
            assert!((1..=60).contains(&pause(&first)), "as long as for those who come later: {fault:?}: {first:?}");
        }
        let asked = cached.reads();
        assert_eq!(asked, 2, "{fault:?}: {:?}", cached.azure.reads());
        for number in 0..10 {
            let kept = cached.get(&tag);
            assert_eq!(kept.status(), 200, "{fault:?}: {kept:?}");
            for (rest, headers) in [
                (format!("manifests/other-{number}"), ACCEPT),
                (format!("blobs/{}", cached.pushed.blobs[number % 2]), ""),
                // What is passed on is a read as well.
                (format!("manifests/other-{number}"), "Accept: */*\r\n"),
            ] {
                let refused = cached.ask("GET", &path(&rest), headers);
                assert!([429, 503].contains(&refused.status()), "{fault:?} {rest} {headers}: {refused:?}");
                assert!((1..=60).contains(&pause(&refused)), "{fault:?}: {refused:?}");
            }
        }
        assert_eq!(cached.reads(), asked, "{fault:?}: {:?}", cached.azure.reads());
    }
}

/// `Retry-After`, in seconds.
fn pause(answer: &Whole) -> u64 {
    let pause = answer.header("retry-after").and_then(|seconds| seconds.parse().ok());
    pause.unwrap_or_else(|| panic!("no time: {answer:?}"))
}

/// The first client was told no time, and the next one 5 s.
#[tokio::test(flavor = "multi_thread")]
async fn the_client_that_began_a_pause_without_a_time_was_not_told_it() {
    for (status, said) in [(429, None), (429, Some("soon")), (503, Some("7"))] {
        let cached = Cached::start("{tags: 0s, missing: 0s}").await;
        let mut limited = with_status(status);
        if let Fault::StatusWith { headers, .. } = &mut limited {
            *headers = said.map(|said| ("Retry-After".to_owned(), said.to_owned())).into_iter().collect();
        }
        cached.azure.inject(Hop::Data, limited);
        let (first, next) = (cached.get(&path("manifests/other")), cached.get(&path("manifests/another")));
        let began = if status == 429 { 5 } else { 7 };
        assert_eq!(pause(&first), began, "{status} {said:?}: {first:?}");
        assert!((began - 1..=began).contains(&pause(&next)), "{status} {said:?}: {next:?}");
        assert_eq!(cached.reads(), 1, "{status} {said:?}: {:?}", cached.azure.reads());
    }
}

/// It was asked again at once, and by each client that came.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_whose_body_was_not_whole_began_no_pause() {
    // One that breaks off, and one that is too large to be read.
    for (status, length) in [(429, 100), (503, 100), (429, 1_000_000)] {
        let cached = Cached::start("{tags: 0s, missing: 0s}").await;
        let head = format!("HTTP/1.1 {status} Busy\r\nRetry-After: 600\r\nContent-Length: {length}\r\n\r\n{{");
        cached.azure.inject(Hop::Data, Fault::Raw(head).on_path("/manifests/"));
        for number in 0..3 {
            let limited = cached.get(&path(&format!("manifests/other-{number}")));
            assert!([429, 503].contains(&limited.status()), "{status} {length}: {limited:?}");
            assert!((1..=60).contains(&pause(&limited)), "{length}: {limited:?}");
        }
        assert_eq!(cached.reads(), 1, "{status} {length}: {:?}", cached.azure.reads());
    }
}

/// What is passed on meets the limit by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_passes_the_cache_is_told_no_longer_pause_than_others() {
    let cached = Cached::start("{}").await;
    cached.azure.inject(Hop::Data, with_status(429));
    let first = cached.ask("GET", &path("manifests/other"), "Accept: */*\r\n");
    assert_eq!((pause(&first), cached.reads()), (60, 1), "{first:?}");
}

/// The rule's words and Docker Hub's own.
#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_a_rules_source_is_not_the_registrys() {
    for words in [
        "too many requests to source registry for cache rule 'hub'",
        "You have reached your pull rate limit. You may increase the limit by authenticating and upgrading",
    ] {
        let cached = Cached::start("{tags: 0s, missing: 0s}").await;
        let limited = Fault::StatusWith {
            status: 429,
            headers: Vec::new(),
            body: format!(r#"{{"errors":[{{"code":"TOOMANYREQUESTS","message":"{words}"}}]}}"#),
        };
        cached.azure.inject(Hop::Data, limited.on_path("/other"));
        let refused = cached.get(&path("manifests/other"));
        assert!([429, 503].contains(&refused.status()), "{words}: {refused:?}");
        assert_eq!(cached.get(&path("manifests/latest")).status(), 200, "{words}");
    }
}

fn with_status(status: u16) -> Fault {
    Fault::StatusWith {
        status,
        headers: vec![("Retry-After".to_owned(), "600".to_owned())],
        body: r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_referrers_is_none_of_manifests_and_the_other_way_round() {
    for (throttled, free) in [("referrers", "manifests"), ("manifests", "referrers")] {
        let cached = Cached::start("{tags: 0s, manifests: 0s, lists: 0s}").await;
        let of = |kind: &str, number: usize| path(&format!("{kind}/{}", cached.pushed.manifests[number].1));
        cached.azure.inject(Hop::Data, Fault::Throttled(LONG).on_path(format!("/{throttled}/")));
        for number in [0, 1, 0] {
            assert!([429, 503].contains(&cached.get(&of(throttled, number)).status()), "{throttled}");
            let answer = cached.get(&of(free, number));
            assert_eq!(answer.status(), 200, "{free} while {throttled} are throttled: {answer:?}");
        }
        assert_eq!(cached.reads_of(&of(throttled, 0)["/v2/library/busybox".len()..]), 1, "{throttled}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_told_of_one_pause_where_several_lasted() {
    let cached = Cached::start("{tags: 0s, missing: 0s}").await;
    let status = || wire::ask(admin(&cached.proxy), "GET /status", "").body;
    let paused = || serde_json::from_str::<Value>(&status()).expect("JSON")["registries"][0]["paused"].clone();
    assert_eq!(paused(), json!([]));
    cached.azure.inject(Hop::Data, Fault::Throttled(LONG));
    for rest in ["manifests/other".to_owned(), format!("blobs/{}", cached.pushed.blobs[2])] {
        assert!([429, 503].contains(&cached.get(&path(&rest)).status()), "{rest}");
    }
    let told = paused();
    let calls: Vec<_> = told.as_array().expect("pauses").iter().map(|one| one["call"].as_str()).collect();
    assert_eq!(calls, [Some("manifests"), Some("blobs")], "{told}");
    let left = |one: &Value| one["left_seconds"].as_u64().is_some_and(|left| (1..=60).contains(&left));
    assert!(told.as_array().expect("pauses").iter().all(left), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_asked_again_when_the_time_is_over() {
    let cached = Cached::start("{tags: 0s}").await;
    cached.azure.inject(Hop::Data, Fault::Throttled(Duration::from_secs(2)));
    let tag = path("manifests/latest");
    until("an answer", || (cached.get(&tag).status() == 200).then_some(()));
    assert!(cached.reads() <= 4, "not asked by every request: {:?}", cached.azure.reads());
}

/// Within the limit by itself, the registry has no reason to refuse anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_budget_keeps_below_the_registrys_limit() {
    const READS: u32 = 120;
    let rate_limits = RateLimits { reads: Some(READS), ..RateLimits::NONE };
    let options = Options { rate_limits, ..testkit::options() };
    let cached = Cached::with(options, |setup| {
        setup.cache("{missing: 0s}").settings(&format!("limits:\n  registry_reads_per_minute: {}", READS / 2))
    })
    .await;
    for number in 0..2 * READS {
        cached.azure.push(Image::small(REPOSITORY, &format!("tag-{number}")).with_layers(1, 10));
    }
    let address = cached.proxy.address();
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let ask = |number| {
            let path = path(&format!("manifests/tag-{number}"));
            move || wire::Client::new(address).ask("GET", &path, "HTTP/1.1", ACCEPT).status()
        };
        let clients: Vec<_> = (0..2 * READS).map(|number| scope.spawn(ask(number))).collect();
        clients.into_iter().map(|client| client.join().expect("an answer")).collect()
    });
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert!(served >= 1 && statuses.iter().all(|status| [200, 429, 503].contains(status)), "{statuses:?}");
    let refused = cached.azure.with_requests(|requests| requests.iter().filter(|seen| seen.status == 429).count());
    assert_eq!(refused, 0, "the registry never had to say no: {:?}", cached.azure.reads());
}

/// Prefetches once took the turns of the clients that came after them, which waited or had 503.
#[tokio::test(flavor = "multi_thread")]
async fn a_prefetch_takes_no_turn_that_a_client_needs() {
    // Six at once: two of them for the prefetches of the first image.
    let cached = Cached::with(testkit::options(), |setup| {
        setup.cache("{prefetch: [linux/amd64, linux/arm64]}").settings("limits:\n  registry_reads_per_minute: 60")
    })
    .await;
    for number in 0..4 {
        cached.azure.push(Image::small(&format!("hub/library/app{number}"), "latest"));
    }
    for number in 0..4 {
        assert_eq!(cached.get(&format!("/v2/library/app{number}/manifests/latest")).status(), 200);
        until("its prefetches", || {
            let state = wire::ask(admin(&cached.proxy), "GET /cache", "").body;
            state.contains("\"under_way\": 0").then_some(())
        });
    }
    let reads = cached.azure.reads();
    let log = cached.proxy.log();
    assert!(!log.contains("requests wait for their turn"), "{reads:?} {log}");
    assert!(
        cached.azure.requests().iter().any(|seen| seen.target.contains("app0/manifests/sha256:")),
        "the spare ones are used"
    );
}

/// What can have no turn within its time is told so when it comes, and not after it has waited for a place among those who
/// have theirs.
#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_budget_a_request_is_refused_before_it_waits_for_anything() {
    const READS: u32 = 1600;
    // More than have a turn: 160 at once, and 120 in the five seconds that one may wait.
    const REQUESTS: usize = 450;
    let cached = Cached::with(testkit::options(), |setup| {
        setup.cache("{}").settings(&format!("limits:\n  registry_reads_per_minute: {READS}"))
    })
    .await;
    cached.azure.inject(Hop::Data, Fault::Hang);
    let clients: Vec<_> = (0..REQUESTS)
        .map(|number| {
            let mut client = wire::connect(cached.proxy.address());
            let path = path(&format!("manifests/tag-{number}"));
            write!(client, "GET {path} HTTP/1.1\r\nHost: mirror\r\n{ACCEPT}\r\n").expect("sent");
            client
        })
        .collect();
    let refused = cached.proxy.wait_for_log("error=limits.registry_reads_per_minute is used up");
    assert!(refused.contains(" 503 "), "{refused}");
    let log = cached.proxy.log();
    assert!(!log.contains("too many requests to the registry"), "nobody has waited for a place in vain: {log}");
    assert_eq!(log.matches("is used up: requests wait for their turn").count(), 1, "{log}");
    drop(clients);
}
