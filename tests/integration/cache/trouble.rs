//! The registry, its sign-in or the network fails: what is kept is served, what is not is an error, and both end with it.

use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Fault, Hop, Server};

use super::cached::{Cached, cache_status, path, until};
use crate::wire::Whole;
use testkit::AT_ONCE;

/// Asked each time, and kept only for trouble.
const FOR_TROUBLE: &str = "{tags: 0s, manifests: 0s, lists: 0s, redirects: 0s, missing: 0s, stale: 1h}";

/// One kind of trouble: its name, how it begins, what is said of something that is not kept, and whether it is an outage.
type Row = (&'static str, fn(&Emulator), &'static [u16], bool);

/// Every token that the proxy has is refused, so that it has to sign in again.
fn sign_in_again(azure: &Emulator) {
    azure.revoke_tokens();
    azure.inject(Hop::Token, Fault::Status(401));
    azure.revoke_entra_tokens();
}

fn data(azure: &Emulator, fault: Fault) {
    azure.inject(Hop::Data, fault);
}

const ROWS: &[Row] = &[
    (
        "Entra ID is down",
        |azure| {
            sign_in_again(azure);
            azure.inject(Hop::Entra, Fault::Status(503));
        },
        &[503],
        true,
    ),
    (
        "the exchange is down",
        |azure| {
            sign_in_again(azure);
            azure.inject(Hop::Exchange, Fault::Status(503));
        },
        &[503],
        true,
    ),
    (
        "the exchange is denied",
        |azure| {
            sign_in_again(azure);
            azure.inject(Hop::Exchange, Fault::Status(403));
        },
        &[503],
        true,
    ),
    (
        "the token is refused",
        |azure| {
            azure.revoke_tokens();
            azure.inject(Hop::Token, Fault::Status(401));
        },
        &[503],
        true,
    ),
    ("every token is answered 401", |azure| data(azure, Fault::Challenge401), &[403], false),
    ("a firewall denies this host", |azure| data(azure, Fault::Status(403)), &[403], false),
    ("429", |azure| data(azure, Fault::Throttled(Duration::from_secs(3600))), &[429, 503], false),
    ("500", |azure| data(azure, Fault::Status(500)), &[500, 502, 503], true),
    ("503", |azure| data(azure, Fault::Status(503)), &[502, 503], true),
    ("the rule's source fails", |azure| data(azure, Fault::CacheRule(424)), &[424], false),
    ("the rule's credentials are refused by 401", |azure| data(azure, Fault::CacheRule(401)), &[403], false),
    ("the rule's credentials are refused by 403", |azure| data(azure, Fault::CacheRule(403)), &[403], false),
    ("the rule's source throttles", |azure| data(azure, Fault::CacheRule(429)), &[429, 503], false),
    ("no connection", |azure| azure.refuse_connections(Server::Registry, true), &[502, 503], true),
    ("every connection breaks", |azure| data(azure, Fault::DieBeforeResponse), &[502, 503], true),
    ("no answer comes", |azure| data(azure, Fault::Hang), &[502, 503, 504], true),
];

/// It was kept, and stands in for an answer of the registry's.
fn is_stale(answer: &Whole) -> bool {
    let parameters = cache_status(answer);
    let has = |wanted: &str| parameters.iter().any(|parameter| parameter == wanted);
    has("fwd=stale") && !has("stored")
}

/// Lines of the log about the cache, without those of requests.
fn told(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("stale") && !line.contains(" access] ")).collect()
}

/// Each with a registry and a proxy of its own, all at the same time: most of it is waiting.
#[test]
fn what_is_kept_is_served_through_every_trouble_and_the_rest_is_an_error() {
    std::thread::scope(|scope| {
        for row in ROWS {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            scope.spawn(move || runtime.block_on(is_survived(row)));
        }
    });
}

/// A tag, a digest, a list, a blob, and the signature that the image has not, in this order.
fn one_of_each(cached: &Cached) -> [String; 5] {
    [
        path("manifests/latest"),
        path(&format!("manifests/{}", cached.pushed.index_digest)),
        path("tags/list"),
        path(&format!("blobs/{}", cached.pushed.blobs[0])),
        path(&format!("manifests/{}{SIGNATURE}", cached.pushed.index_digest.replace(':', "-"))),
    ]
}

/// By this tag podman and skopeo ask for a signature at each pull, where they are told to look for one.
const SIGNATURE: &str = ".sig";

/// All but the last are there.
fn is_as_expected(path: &str, answer: &Whole) -> bool {
    if path.contains(SIGNATURE) { answer.status() == 404 } else { answer.status() < 400 }
}

async fn is_survived((name, begin, cold, is_outage): &Row) {
    let cached = Cached::start(FOR_TROUBLE).await;
    let warm = one_of_each(&cached);
    let before = warm.each_ref().map(|path| cached.get(path));
    assert!(warm.iter().zip(&before).all(|(path, answer)| is_as_expected(path, answer)), "{name}: {before:?}");
    assert_eq!(cached.get(&path(&format!("manifests/{}", cached.pushed.manifests[0].1))).status(), 200, "{name}");
    begin(&cached.azure);
    for _ in 0..2 {
        for (path, before) in warm.iter().zip(&before) {
            let begun = Instant::now();
            let answer = cached.get(path);
            assert!(begun.elapsed() < AT_ONCE, "{name}: {path} took {:?}", begun.elapsed());
            assert_eq!(answer.status(), before.status(), "{name}: {path}: {answer:?}");
            assert!(answer.body == before.body, "{name}: {path}: {answer:?}");
            for header in ["docker-content-digest", "location", "content-type"] {
                assert_eq!(answer.header(header), before.header(header), "{name}: {path}");
            }
            assert!(is_stale(&answer), "{name}: {path}: {answer:?}");
            assert!(answer.header("age").is_some(), "{name}: {path}: {answer:?}");
            // Each answer may take a second, and after half a minute without a token the registry has a line of another cause.
            if path.contains("manifests") && !path.contains(SIGNATURE) {
                let head = cached.ask("HEAD", path, super::cached::ACCEPT);
                assert_eq!(head.status(), before.status(), "{name}: HEAD {path}: {head:?}");
            }
        }
    }
    cached.proxy.wait_for_log(" cache=stale");
    let missing = cached.get(&path(&format!("manifests/{}", cached.pushed.manifests[1].1)));
    assert!(cold.contains(&missing.status()), "{name}: {missing:?}");
    assert!(missing.header("www-authenticate").is_none(), "{name}: {missing:?}");
    is_unsigned_only_in_an_outage_and_if_it_is_kept(&cached, name, *is_outage);
    until("a line when it begins", || {
        assert!(is_stale(&cached.get(&warm[0])), "{name}");
        (!told(&cached.proxy.log()).is_empty()).then_some(())
    });
    assert_eq!(told(&cached.proxy.log()).len(), 1, "{name}: {}", cached.proxy.log());

    cached.azure.clear_faults();
    for path in &warm {
        until("the registry", || {
            let answer = cached.get(path);
            assert!(is_as_expected(path, &answer), "{name}: {path}: {answer:?}");
            (!is_stale(&answer)).then_some(())
        });
    }
    // It is over when the registry has been well for some seconds.
    until("a line when it ends", || {
        assert!(cached.get(&warm[0]).status() == 200);
        (told(&cached.proxy.log()).len() == 2).then_some(())
    });
}

/// The image was kept by a pull that asked for no signature, as containerd's does. podman asked for it, got 503, and gave its pull up.
/// While the registry limits requests or refuses this one, a copy made meanwhile lost the image's signature.
fn is_unsigned_only_in_an_outage_and_if_it_is_kept(cached: &Cached, name: &str, is_outage: bool) {
    let signature = |digest: &str| cached.get(&path(&format!("manifests/{}{SIGNATURE}", digest.replace(':', "-"))));
    let answer = signature(&cached.pushed.manifests[0].1);
    assert_eq!(answer.status() == 404, is_outage, "{name}: {answer:?}");
    let body = String::from_utf8_lossy(&answer.body);
    let says = "no signature of this image is known, and the registry cannot be asked for one: ";
    assert_eq!(body.contains("\"MANIFEST_UNKNOWN\"") && body.contains(says), is_outage, "{name}: {body}");
    // Whoever asks for it has the image from elsewhere.
    let answer = signature(&cached.pushed.manifests[1].1);
    assert!(answer.status() != 404 && answer.status() >= 400, "{name}: {answer:?}");
}

/// What a client is to blame for is said at once, whatever is kept.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_the_clients_doing_is_not_hidden_by_what_is_kept() {
    let denied = Fault::StatusWith {
        status: 403,
        headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
        body: r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#.to_owned(),
    };
    for (fault, status) in [(Fault::Status(404), 404), (denied, 403)] {
        let cached = Cached::start(FOR_TROUBLE).await;
        let tag = path("manifests/latest");
        assert_eq!(cached.get(&tag).status(), 200);
        cached.azure.inject(Hop::Data, fault.clone());
        for _ in 0..2 {
            assert_eq!(cached.get(&tag).status(), status, "{fault:?}");
        }
        // And not brought back by trouble that follows.
        cached.azure.clear_faults();
        cached.azure.refuse_connections(Server::Registry, true);
        let answer = cached.get(&tag);
        assert!(answer.status() >= 500, "{fault:?}: {answer:?}");
    }
}

/// An answer that is not what the registry would say.
fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Fault {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Fault::StatusWith { status, headers, body: body.to_owned() }
}

/// A portal's redirect, or a gateway's page or error, once went to the client, and what was kept was forgotten for it: the request is
/// this proxy's own, so no answer but the registry's 404 or the end of a right is the client's doing.
#[tokio::test(flavor = "multi_thread")]
async fn what_something_in_between_answers_takes_nothing_away_and_sends_no_client_elsewhere() {
    const PAGE: &str = "<html>sign in</html>";
    const HTML: &[(&str, &str)] = &[("Content-Type", "text/html")];
    const PORTAL: &[(&str, &str)] = &[("Location", "https://login.example/")];
    const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];
    let error = |code: &str, words: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"{words}"}}]}}"#);
    let unhealthy = error("DENIED", "The credential set is unhealthy");
    let sign_in = error("UNAUTHORIZED", "authentication required");
    let cached = Cached::start(FOR_TROUBLE).await;
    let warm = one_of_each(&cached);
    let before = warm.each_ref().map(|path| cached.get(path));
    for (fault, cold) in [
        (answer(301, PORTAL, ""), 502),
        (answer(302, PORTAL, PAGE), 502),
        (answer(307, PORTAL, ""), 502),
        (answer(400, HTML, PAGE), 400),
        (answer(404, HTML, PAGE), 404),
        (answer(404, &[("Content-Type", "text/plain")], "404 page not found"), 404),
        (answer(404, &[], ""), 404),
        (answer(404, JSON, r#"{"statusCode":404,"message":"Resource not found"}"#), 404),
        (answer(404, &[("Content-Encoding", "gzip")], PAGE), 404),
        (answer(405, HTML, PAGE), 405),
        (answer(406, HTML, PAGE), 406),
        (answer(407, HTML, PAGE), 502),
        (answer(410, HTML, PAGE), 410),
        (answer(418, &[], ""), 418),
        (answer(451, HTML, PAGE), 451),
        (answer(400, &[("Content-Encoding", "gzip")], PAGE), 400),
        (answer(403, &[], ""), 403),
        (answer(403, HTML, PAGE), 403),
        (answer(403, JSON, &sign_in), 403),
        (answer(403, JSON, &unhealthy), 403),
    ] {
        let is_redirect = (300..400).contains(&match &fault {
            Fault::StatusWith { status, .. } => *status,
            _ => 0,
        });
        cached.azure.inject(Hop::Data, fault.clone());
        for (path, before) in warm.iter().zip(&before).take(if is_redirect { 3 } else { 4 }) {
            let answer = cached.get(path);
            assert_eq!(answer.status(), before.status(), "{fault:?}: {path}: {answer:?}");
            assert!(answer.body == before.body && is_stale(&answer), "{fault:?}: {path}: {answer:?}");
        }
        for accept in [super::cached::ACCEPT, "Accept: */*\r\n"] {
            let missing = cached.ask("GET", &path("manifests/none"), accept);
            assert_eq!((missing.status(), missing.header("location")), (cold, None), "{fault:?}: {missing:?}");
        }
        cached.azure.clear_faults();
    }
    cached.azure.refuse_connections(Server::Registry, true);
    for (path, before) in warm.iter().zip(&before).take(3) {
        let answer = cached.get(path);
        assert!(answer.status() == before.status() && is_stale(&answer), "{path}: {answer:?}");
    }
    assert!(!cached.proxy.log().contains("any more"), "{}", cached.proxy.log());
}

/// A 307 that leads nowhere once went to the client in place of the good address that was kept, and took that away.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_without_an_address_takes_no_kept_one_away_and_reaches_no_client() {
    let cached = Cached::start(FOR_TROUBLE).await;
    let [first, second] = [0, 1].map(|at| path(&format!("blobs/{}", cached.pushed.blobs[at])));
    let before = cached.get(&first);
    assert_eq!(before.status(), 307, "{before:?}");
    for location in [
        None,
        Some("not a url"),
        Some("javascript:alert(1)"),
        Some("https://"),
        Some("https:///x"),
        Some("ftp://x.example/"),
    ] {
        let headers: Vec<_> = location.map(|location| ("Location", location)).into_iter().collect();
        cached.azure.inject(Hop::Data, answer(307, &headers, ""));
        let kept = cached.get(&first);
        assert!(kept.header("location") == before.header("location") && is_stale(&kept), "{location:?}: {kept:?}");
        let cold = cached.get(&second);
        assert_eq!((cold.status(), cold.header("location")), (502, None), "{location:?}: {cold:?}");
        cached.azure.clear_faults();
    }
    // Where it leads to some host is for the client to see.
    cached.azure.inject(Hop::Data, answer(307, &[("Location", "https://x.example/y")], ""));
    let elsewhere = cached.get(&first);
    assert_eq!((elsewhere.status(), elsewhere.header("location")), (307, Some("https://x.example/y")), "{elsewhere:?}");
}

/// A tag that one client asked for once, and that got a 500, once kept a repository in trouble for ten minutes in the log, and
/// what another repository was stale for meanwhile was told by no line.
#[tokio::test(flavor = "multi_thread")]
async fn one_failure_of_one_tag_hides_no_trouble_of_others_and_ends_with_its_repositorys_next_good_answer() {
    let cached = Cached::start(FOR_TROUBLE).await;
    cached.azure.push(acr_emulator::Image::small("hub/library/busybox", "other"));
    cached.azure.push(acr_emulator::Image::small("hub/library/second", "latest"));
    let (tag, other, second) =
        (path("manifests/latest"), path("manifests/other"), "/v2/library/second/manifests/latest");
    for path in [&*tag, &*other, second] {
        assert_eq!(cached.get(path).status(), 200, "{path}");
    }
    cached.azure.inject(Hop::Data, Fault::Status(500).on_path("busybox"));
    assert!(is_stale(&cached.get(&tag)));
    cached.azure.clear_faults();
    cached.azure.inject(Hop::Data, Fault::CacheRule(403).on_path("second"));
    assert!(is_stale(&cached.get(second)));
    cached.proxy.wait_for_log("the first of them /v2/hub/library/busybox/manifests/latest");
    cached.proxy.wait_for_log("the first of them /v2/hub/library/second/manifests/latest");
    until("the end of busybox's trouble", || {
        assert!(!is_stale(&cached.get(&other)));
        let log = cached.proxy.log();
        let mut ends = log.lines().filter(|line| line.contains(" fresh again: 1 were stale in "));
        ends.any(|line| line.contains(", of hub/library/busybox")).then_some(())
    });
    assert!(!cached.proxy.log().contains(", of hub/library/second"), "{}", cached.proxy.log());
}

/// A page that is answered by 200, or a portal's JSON, once reached clients as the manifest that they had asked for.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_manifest_or_another_one_than_its_digest_says_reaches_no_client() {
    let kind = |kind: &'static str| ("Content-Type", kind);
    let notary = kind("application/vnd.cncf.notary.v1+json");
    let cached = Cached::start(FOR_TROUBLE).await;
    let digest = format!("manifests/{}", cached.pushed.index_digest);
    let warm = [path("manifests/latest"), path(&digest)];
    let before = warm.each_ref().map(|path| cached.get(path));
    let cold = [path("manifests/none"), path(&format!("manifests/sha256:{}", "1".repeat(64)))];
    for (fault, is_wrong_tag) in [
        (answer(200, &[kind("text/html")], "<html>sign in</html>"), true),
        (answer(200, &[kind("text/html"), ("Content-Encoding", "gzip")], "<html>sign in</html>"), true),
        (answer(200, &[], ""), true),
        (answer(200, &[kind("application/json")], "{\"state\":\"captive\"}"), true),
        // By its digest it is another manifest; what a tag stands for is not known.
        (answer(200, &[notary], "{}"), false),
        (answer(200, &[notary, ("Docker-Content-Digest", &cached.pushed.index_digest)], "{}"), true),
    ] {
        cached.azure.inject(Hop::Data, fault.clone());
        for (number, path) in warm.iter().enumerate().filter(|(number, _)| *number > 0 || is_wrong_tag) {
            let answer = cached.get(path);
            assert!(answer.body == before[number].body && is_stale(&answer), "{fault:?}: {path}: {answer:?}");
            let cold = cached.get(&cold[number]);
            assert_eq!(cold.status(), 502, "{fault:?}: {cold:?}");
        }
        cached.azure.clear_faults();
    }
}

/// Nobody waits for a registry that is known to be down: neither who shares a flight, nor who asks by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_passes_the_cache_ends_when_the_registry_is_known_to_be_down() {
    let cached = Cached::start("{}").await;
    cached.azure.inject(Hop::Data, Fault::Hang.on_path("/manifests/hanging"));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| cached.ask("GET", &path("manifests/hanging"), "Accept: */*\r\n"));
        until("the request", || (cached.reads_of("/manifests/hanging") > 0).then_some(()));
        cached.azure.inject(Hop::Data, Fault::Status(500));
        until("that it is down", || {
            cached.get(&path("tags/list"));
            cached.proxy.log().contains("it is down, and probed").then_some(())
        });
        let answer = waiting.join().expect("an answer");
        assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")), "{answer:?}");
    });
    let line = cached.proxy.wait_for_log("/manifests/hanging ");
    assert!(line.contains(" error=the registry is known to be down"), "{line}");
    assert_eq!(cached.reads_of("/manifests/hanging"), 1, "it was not sent again");
}

/// A registry that has gone silent is found out within seconds, also where nothing but requests that pass are under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_silent_to_a_request_that_passes_the_cache_is_probed_before_it_gives_up() {
    let cached = Cached::start("{}").await;
    assert_eq!(cached.get(&path("manifests/latest")).status(), 200);
    cached.azure.inject(Hop::Data, Fault::Hang);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| cached.ask("GET", &path("manifests/hanging"), "Accept: */*\r\n"));
        let down = cached.proxy.wait_for_log("it is down, and probed until it answers");
        assert!(down.contains("does not answer in time"), "{down}");
        // It waited for 20 s, and ends because of what the probes have found.
        let answer = waiting.join().expect("an answer");
        assert_eq!((answer.status(), answer.header("retry-after")), (504, Some("1")), "{answer:?}");
    });
    let line = cached.proxy.wait_for_log("/manifests/hanging ");
    assert!(line.contains(" error=the registry is known to be down"), "{line}");
    cached.azure.clear_faults();
    cached.proxy.wait_for_log("it answers again");
}

/// While the registry is slow, a client waits a second for the fresh answer, and not for as long as the registry likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_registry_costs_a_second_and_its_answer_is_kept_for_the_next() {
    let cached = Cached::start("{tags: 0s, stale: 1h}").await;
    let tag = path("manifests/latest");
    assert_eq!(cached.get(&tag).status(), 200);
    let moved = cached.azure.push(acr_emulator::Image::small(super::cached::REPOSITORY, "next")).index_digest;
    cached.azure.tag(super::cached::REPOSITORY, &moved, "latest");
    // Four seconds for the whole of it, longer than a client waits and shorter than a flight may last.
    cached.azure.inject(Hop::Data, Fault::PauseMidBody(Duration::from_secs(4)).times(1));
    let first = cached.get(&tag);
    assert!(is_stale(&first), "{first:?}");
    assert_eq!(first.header("docker-content-digest"), Some(cached.pushed.index_digest.as_str()), "{first:?}");
    // The fetch has gone on, and who comes meanwhile waits for the same one.
    until("the fresh answer", || {
        let next = cached.get(&tag);
        let is_fresh = next.header("docker-content-digest") == Some(moved.as_str());
        assert!(is_fresh || is_stale(&next), "{next:?}");
        is_fresh.then_some(())
    });
    let reads = cached.reads_of("/manifests/latest");
    assert!(reads <= 3, "the first, the slow one, and perhaps one after it has landed: {reads}");
}

/// Nothing is served for longer than `stale` allows, and nothing but what was kept.
#[tokio::test(flavor = "multi_thread")]
async fn stale_answers_end_when_their_time_is_over() {
    let cached = Cached::start("{tags: 0s, stale: 2s}").await;
    let tag = path("manifests/latest");
    assert_eq!(cached.get(&tag).status(), 200);
    let kept = Instant::now();
    cached.azure.inject(Hop::Data, Fault::Status(503));
    until("the end", || {
        let asked = kept.elapsed();
        let answer = cached.get(&tag);
        assert!(asked <= Duration::from_secs(2) || answer.status() >= 500, "{asked:?}: {answer:?}");
        (answer.status() >= 500).then_some(())
    });
}
