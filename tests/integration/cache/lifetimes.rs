//! How long things are kept, and what ends them. The clock is real, so lifetimes are short here; what takes minutes is seen
//! by the `ttl` that answers state.

use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Fault, Hop, Image, Options};

use super::cached::{ACCEPT, Cached, OCI_INDEX, REPOSITORY, cache_status, is_hit, path, ttl, until};
use crate::wire::{Client, Whole};
use testkit::Setup;

/// A repository whose name goes on where the other one's ends.
const OTHER: &str = "hub/library/busybox/extra";

fn digest(answer: &Whole) -> &str {
    answer.header("docker-content-digest").unwrap_or_else(|| panic!("no digest: {answer:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_is_seen_when_its_lifetime_is_over() {
    let lifetime = Duration::from_secs(1);
    // Without trouble nothing is served after twice the lifetime; `stale` would allow more to a registry that is slow.
    let cached = Cached::start("{tags: 1s, stale: 0s}").await;
    let tag = path("manifests/latest");
    for number in 0..3 {
        let before = digest(&cached.get(&tag)).to_owned();
        let moved = cached.azure.push(Image::small(REPOSITORY, &format!("next-{number}"))).index_digest;
        cached.azure.tag(REPOSITORY, &moved, "latest");
        let since = Instant::now();
        until("the new image", || {
            let asked = since.elapsed();
            let answer = cached.get(&tag);
            assert_eq!(answer.status(), 200, "{answer:?}");
            assert!(
                digest(&answer) == moved || digest(&answer) == before && asked <= 2 * lifetime,
                "{asked:?}: {answer:?}"
            );
            (digest(&answer) == moved).then_some(())
        });
        // It is the registry that moves back in time, not the cache.
        for _ in 0..5 {
            assert_eq!(digest(&cached.get(&tag)), moved);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_past_its_lifetime_is_served_while_one_request_asks_whether_it_has_moved() {
    let options = Options { latency: Duration::from_millis(20), ..testkit::options() };
    let cached = Cached::with(options, |setup| setup.cache("{tags: 1s}")).await;
    let tag = path("manifests/latest");
    assert_eq!(cached.get(&tag).status(), 200);
    cached.azure.clear_requests();
    let revalidated = until("a revalidation", || {
        assert_eq!(cached.get(&tag).status(), 200);
        cached.azure.with_requests(|requests| {
            let of_tag = requests.iter().find(|request| request.target.ends_with("/latest"))?;
            Some((of_tag.header("if-none-match").map(str::to_owned), of_tag.status))
        })
    });
    assert_eq!(revalidated, (Some(format!("\"{}\"", cached.pushed.index_digest)), 304), "it asks for no bytes it has");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifetime_of_zero_asks_each_time() {
    let cached = Cached::start("{tags: 0s, missing: 0s, lists: 0s, redirects: 0s, manifests: 0s}").await;
    for (rest, status) in cached.objects() {
        cached.azure.clear_requests();
        for number in 1..=3 {
            let answer = cached.get(&path(&rest));
            assert_eq!(answer.status(), status, "{rest}");
            assert_eq!(cached.reads_of(&rest), number, "{rest}");
            // All else is kept for trouble.
            let is_stored = cache_status(&answer).iter().any(|parameter| parameter == "stored");
            assert_eq!(is_stored, status != 404, "{rest}: {answer:?}");
        }
    }
    // A tag that moves is seen at once.
    let moved = cached.azure.push(Image::small(REPOSITORY, "next")).index_digest;
    cached.azure.tag(REPOSITORY, &moved, "latest");
    assert_eq!(digest(&cached.get(&path("manifests/latest"))), moved);
}

/// Where people push and expect what they pushed at once: no cache rule, so no prefix.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_prefix_a_tag_is_asked_for_each_time_unless_the_route_says_otherwise() {
    for (route, reads) in [("", 3), ("cache: {tags: 1h, missing: 10m, lists: 1h}", 1)] {
        let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
        azure.push(Image::small("library/busybox", "latest"));
        let routes = format!(
            "  - source: docker.io\n    domain: 'example.azurecr.io:{}'\n    prefix: ''\n    addresses: [127.0.0.1]\n    {route}\n",
            azure.registry_addr().port()
        );
        let proxy = Setup::new(&azure).cache("{}").only_routes(&routes).start();
        for (rest, status) in [("manifests/latest", 200), ("manifests/none", 404), ("tags/list", 200)] {
            azure.clear_requests();
            for _ in 0..3 {
                let answer = Client::new(proxy.address()).ask("GET", &path(rest), "HTTP/1.1", ACCEPT);
                assert_eq!(answer.status(), status, "{route} {rest}: {answer:?}");
            }
            assert_eq!(azure.reads().values().sum::<usize>(), reads, "{route} {rest}");
        }
        // What cannot change is kept all the same.
        let by_digest = path(&format!("manifests/{}", azure.push(Image::small("library/busybox", "2")).index_digest));
        azure.clear_requests();
        for _ in 0..3 {
            assert_eq!(Client::new(proxy.address()).ask("GET", &by_digest, "HTTP/1.1", ACCEPT).status(), 200);
        }
        assert_eq!(azure.reads().values().sum::<usize>(), 1, "{route}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_found_soon_after_it_is_pushed() {
    let cached = Cached::start("{missing: 1s}").await;
    let tag = path("manifests/new");
    assert_eq!(cached.get(&tag).status(), 404);
    let pushed = cached.azure.push(Image::small(REPOSITORY, "new"));
    until("the new tag", || (cached.get(&tag).status() == 200).then_some(()));
    assert_eq!(digest(&cached.get(&tag)), pushed.index_digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_ends_and_does_not_come_back_when_the_registry_fails() {
    let cached = Cached::start("{tags: 1s, manifests: 1s, missing: 10m, stale: 1h}").await;
    let other = cached.azure.push(Image::small(REPOSITORY, "other"));
    let paths = [
        path("manifests/latest"),
        path(&format!("manifests/{}", other.index_digest)),
        path(&format!("manifests/{}", other.manifests[0].1)),
    ];
    for kept in &paths {
        assert_eq!(cached.get(kept).status(), 200);
    }
    assert!(cached.azure.delete_tag(REPOSITORY, "latest"));
    for digest in [&other.index_digest, &other.manifests[0].1] {
        assert!(cached.azure.delete_manifest(REPOSITORY, digest));
    }
    for gone in &paths {
        until("the 404", || (cached.get(gone).status() == 404).then_some(()));
    }
    cached.azure.inject(Hop::Data, Fault::Status(503));
    for gone in &paths {
        assert_eq!(cached.get(gone).status(), 404, "{gone}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_revoked_ends_when_it_is_asked_for_again() {
    for abac in [false, true] {
        let options = Options { abac, ..testkit::options() };
        let cached = Cached::with(options, |setup| {
            setup.cache("{tags: 1s, manifests: 1s, lists: 1s, redirects: 1s, stale: 1h}")
        })
        .await;
        let paths = [
            path("manifests/latest"),
            path(&format!("manifests/{}", cached.pushed.index_digest)),
            path("tags/list"),
            path(&format!("blobs/{}", cached.pushed.blobs[0])),
        ];
        for kept in &paths {
            assert!(cached.get(kept).status() < 400, "{kept}");
        }
        cached.azure.revoke_repository(REPOSITORY);
        for kept in &paths {
            let refused = until("the refusal", || Some(cached.get(kept)).filter(|answer| answer.status() >= 400));
            // A 401 would need a challenge that the client cannot solve.
            assert_eq!(refused.status(), 403, "{kept} abac={abac}: {refused:?}");
        }
        for kept in &paths {
            assert_eq!(cached.get(kept).status(), 403, "{kept} abac={abac}: it does not come back");
        }
        cached.azure.restore_repository(REPOSITORY);
        for kept in &paths {
            until("the restored right", || (cached.get(kept).status() < 400).then_some(()));
        }
    }
}

/// A tag is asked for again within seconds, what it leads to within an hour: the right is one, to the whole repository.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_revoked_ends_for_all_of_a_repository_as_soon_as_one_request_finds_out() {
    for abac in [false, true] {
        let options = Options { abac, ..testkit::options() };
        let cached = Cached::with(options, |setup| {
            setup.cache("{tags: 1s, manifests: 1h, lists: 1h, redirects: 10m, stale: 1h}")
        })
        .await;
        let other = cached.azure.push(Image::small(OTHER, "latest"));
        let by_digest = path(&format!("manifests/{}", cached.pushed.manifests[0].1));
        let blob = path(&format!("blobs/{}", cached.pushed.blobs[0]));
        let kept = [&by_digest, &path("tags/list"), &blob];
        let elsewhere = format!("/v2/library/busybox/extra/manifests/{}", other.index_digest);
        let tag = path("manifests/latest");
        for path in kept.into_iter().chain([&elsewhere, &tag]) {
            for _ in 0..2 {
                assert!(cached.get(path).status() < 400, "{path} abac={abac}");
            }
        }
        assert!(kept.iter().all(|path| is_hit(&cached.get(path))), "abac={abac}");
        cached.azure.revoke_repository(REPOSITORY);
        until("the refusal", || (cached.get(&tag).status() == 403).then_some(()));
        for path in kept {
            let refused = cached.get(path);
            assert_eq!(refused.status(), 403, "{path} abac={abac}: {refused:?}");
        }
        assert!(is_hit(&cached.get(&elsewhere)), "abac={abac}: another repository's right is another one");
        let says = "may not pull hub/library/busybox any more";
        cached.proxy.wait_for_log(says);
        let log = cached.proxy.end();
        assert_eq!(log.matches(says).count(), 1, "abac={abac}: {log}");
    }
}

/// Only what was kept itself and refused when it was asked for again took the rest away.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_has_ended_takes_what_is_kept_away_whatever_is_asked_for() {
    const BODY: &str = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    for (rest, accept, is_forgotten) in [
        ("manifests/other", ACCEPT, true),
        ("manifests/other", "Accept: */*\r\n", true),
        (&*format!("blobs/sha256:{}", "ab".repeat(32)), "", true),
        // An identity that may pull may not have to list.
        ("tags/list", "", false),
    ] {
        let cached = Cached::start("{tags: 1h, redirects: 10m}").await;
        let (tag, blob) = (path("manifests/latest"), path(&format!("blobs/{}", cached.pushed.blobs[0])));
        assert!([&tag, &blob].iter().all(|path| cached.get(path).status() < 400), "{rest}");
        cached.azure.inject(Hop::Data, Fault::StatusWith { status: 403, headers: Vec::new(), body: BODY.to_owned() });
        assert_eq!(cached.ask("GET", &path(rest), accept).status(), 403, "{rest} {accept}");
        if is_forgotten {
            cached.proxy.wait_for_log("may not pull hub/library/busybox any more");
        }
        for path in [&tag, &blob] {
            assert_eq!(cached.get(path).status() == 403, is_forgotten, "{path} after {rest} {accept}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_imported_yet_is_kept_for_a_minute_at_most() {
    let cached = Cached::start("{tags: 1h, manifests: 1h, redirects: 10m}").await;
    let foreign = cached.azure.push(Image::small(REPOSITORY, "foreign"));
    cached.azure.mark_not_imported(REPOSITORY, Some("foreign"));
    for (rest, range) in [
        ("manifests/foreign".to_owned(), 1..=60),
        (format!("manifests/{}", foreign.manifests[0].1), 1..=60),
        (format!("blobs/{}", foreign.blobs[0]), 1..=60),
        ("manifests/latest".to_owned(), 600..=3600),
        (format!("manifests/{}", cached.pushed.manifests[0].1), 600..=3600),
        (format!("blobs/{}", cached.pushed.blobs[0]), 300..=600),
    ] {
        let path = path(&rest);
        assert!(cached.get(&path).status() < 400, "{rest}");
        let kept = cached.get(&path);
        assert!(is_hit(&kept) && range.contains(&ttl(&kept)), "{rest}: {kept:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_ends_five_minutes_before_its_signature() {
    for (lifetime, at_most) in [(20 * 60, Some(600)), (12 * 60, Some(420)), (303, Some(3)), (299, None), (10, None)] {
        let options = Options { redirect_lifetime: Duration::from_secs(lifetime), ..testkit::options() };
        let cached = Cached::with(options, |setup| setup.cache("{redirects: 10m}")).await;
        let path = path(&format!("blobs/{}", cached.pushed.blobs[0]));
        let begun = Instant::now();
        let first = cached.get(&path);
        assert_eq!(first.status(), 307, "{first:?}");
        let second = cached.get(&path);
        match at_most {
            // On a machine that needs all of its three seconds, it is over.
            Some(at_most) if begun.elapsed() < Duration::from_secs(at_most - 1) => {
                assert!(is_hit(&second) && ttl(&second) <= at_most as i64, "{lifetime}: {second:?}");
                assert_eq!(second.header("location"), first.header("location"), "{lifetime}");
                assert_eq!(cached.reads(), 1, "{lifetime}");
            }
            Some(_) => {}
            None => {
                assert!(!is_hit(&second), "{lifetime}: {second:?}");
                assert_eq!(cached.reads(), 2, "{lifetime}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_whose_end_is_not_known_is_not_kept() {
    let options = Options { data_endpoints: true, ..testkit::options() };
    let cached = Cached::with(options, |setup| setup.cache("{redirects: 10m}")).await;
    let path = path(&format!("blobs/{}", cached.pushed.blobs[0]));
    for number in 1..=3 {
        let redirect = cached.get(&path);
        assert_eq!(redirect.status(), 307);
        assert!(redirect.header("location").is_some_and(|location| location.contains("&p=")), "{redirect:?}");
        assert!(!is_hit(&redirect), "{redirect:?}");
        assert_eq!(cached.reads(), number);
    }
}

/// A list in which one of the kept tags is gone is not made of what is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_kept_for_its_own_time_and_for_each_query() {
    let cached = Cached::start("{tags: 1h, lists: 1s}").await;
    let tags = |answer: &Whole| String::from_utf8_lossy(&answer.body).into_owned();
    let list = path("tags/list");
    assert!(tags(&cached.get(&list)).contains("latest"));
    assert!(tags(&cached.get(&path("tags/list?last=latest"))).contains("[]"), "another query is another list");
    cached.azure.tag(REPOSITORY, &cached.pushed.index_digest, "v2");
    until("the new tag", || tags(&cached.get(&list)).contains("v2").then_some(()));
    let referrers = path(&format!("referrers/{}", cached.pushed.index_digest));
    let accept = format!("Accept: {OCI_INDEX}\r\n");
    assert!(tags(&cached.ask("GET", &referrers, &accept)).contains("\"manifests\":[]"));
    let signature = cached.azure.attach(REPOSITORY, &cached.pushed.index_digest, "application/x.signature", "s");
    until("the signature", || tags(&cached.ask("GET", &referrers, &accept)).contains(&signature).then_some(()));
}
