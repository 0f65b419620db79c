//! Where a blob is: kept and shared, for blobs that the client fetches from storage and for those that come through the proxy.

use acr_emulator::{Emulator, Fault, Hop, Image, Pushed, Server};

use crate::wire::{self, Answer};
use testkit::{Proxy, Setup};

/// An emulator with one image, and a proxy that keeps redirects and serves blobs itself.
async fn proxied() -> (Emulator, Pushed, Proxy) {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let pushed = azure.push(Image::small("hub/library/busybox", "latest"));
    let hosts = format!("  blobs: proxy\n  blob_hosts: ['{}']\n", azure.storage_addr());
    let proxy = Setup::new(&azure).upstream(&hosts).cache("{memory: 64MiB}").start();
    (azure, pushed, proxy)
}

fn ask(proxy: &Proxy, pushed: &Pushed, headers: &str) -> Answer {
    wire::ask(proxy.address(), &format!("GET /v2/library/busybox/blobs/{}", pushed.blobs[1]), headers)
}

fn requests(azure: &Emulator, hop: Hop) -> usize {
    azure.with_requests(|seen| seen.iter().filter(|request| request.hop == hop).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pulls_of_a_layer_through_here_are_one_read_of_the_registry() {
    const PULLS: usize = 50;
    let (azure, pushed, proxy) = proxied().await;
    let length = azure.blob(&pushed.blobs[1]).expect("pushed").len();
    for round in 1..=2 {
        std::thread::scope(|scope| {
            for _ in 0..PULLS {
                scope.spawn(|| {
                    let answer = ask(&proxy, &pushed, "");
                    assert_eq!(answer.status, 200, "{answer:.300?}");
                    assert_eq!(answer.header("content-length"), Some(length.to_string().as_str()));
                    assert_eq!(answer.header("location"), None, "{}", answer.head);
                });
            }
        });
        assert_eq!((requests(&azure, Hop::Data), requests(&azure, Hop::Storage)), (1, round * PULLS));
    }
    let part = ask(&proxy, &pushed, "Range: bytes=100-199\r\n");
    assert_eq!((part.status, part.header("content-length")), (206, Some("100")), "{part:.300?}");
    assert_eq!(requests(&azure, Hop::Data), 1);
    let log = proxy.end();
    for parts in [[" tries=1 ", " cache=miss storage=127.0.0.1 "], [" tries=0 ", " cache=hit storage=127.0.0.1"]] {
        assert!(testkit::line(&log, &parts).is_some(), "{parts:?}: {log}");
    }
    assert!(!log.contains("sig="), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_whose_redirect_is_kept_comes_while_the_registry_is_down() {
    let (azure, pushed, proxy) = proxied().await;
    assert_eq!(ask(&proxy, &pushed, "").status, 200);
    azure.refuse_connections(Server::Registry, true);
    azure.close_connections(Server::Registry);
    assert_eq!(ask(&proxy, &pushed, "").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_redirect_that_storage_refuses_is_asked_for_again_once() {
    for status in [403, 404] {
        let (azure, pushed, proxy) = proxied().await;
        let refused = |times| azure.inject(Hop::Storage, Fault::Status(status).times(times));
        let counts = || (requests(&azure, Hop::Data), requests(&azure, Hop::Storage));
        // Asked for a moment ago: another one would be no better.
        refused(1);
        assert_eq!(ask(&proxy, &pushed, "").status, 502, "{status}");
        assert_eq!(counts(), (1, 1), "{status}");
        refused(1);
        let answer = ask(&proxy, &pushed, "");
        assert_eq!(answer.status, 200, "{status}: {answer:.300?}");
        assert_eq!(counts(), (2, 3), "{status}");
        refused(9);
        let answer = ask(&proxy, &pushed, "");
        assert_eq!((answer.status, answer.code().as_str()), (502, "UNAVAILABLE"), "{status}: {answer:?}");
        assert!(answer.body.contains(&format!("{status} to the registry's redirect")), "{answer:?}");
        assert_eq!(counts(), (3, 5), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_layer_is_told_as_the_registry_tells_it_and_kept() {
    let (azure, _, proxy) = proxied().await;
    let absent = format!("GET /v2/library/busybox/blobs/sha256:{}", "0".repeat(64));
    for expected in ["fwd=miss", "hit"] {
        let answer = wire::ask(proxy.address(), &absent, "");
        assert_eq!((answer.status, answer.code().as_str()), (404, "BLOB_UNKNOWN"), "{answer:?}");
        let status = answer.header("cache-status").expect("it is said");
        assert!(status.starts_with(&format!("acr-cache-proxy; {expected}")), "{status}");
    }
    assert_eq!((requests(&azure, Hop::Data), requests(&azure, Hop::Storage)), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_redirect_that_leads_elsewhere_is_refused_each_time() {
    let (azure, pushed, proxy) = proxied().await;
    let location = "https://169.254.169.254/metadata?se=2999-01-01T00%3A00%3A00Z&sig=s".to_owned();
    azure.inject(
        Hop::Data,
        Fault::StatusWith { status: 307, headers: vec![("Location".to_owned(), location)], body: String::new() },
    );
    for _ in 0..2 {
        let answer = ask(&proxy, &pushed, "");
        assert_eq!((answer.status, answer.code().as_str()), (502, "UNAVAILABLE"), "{answer:?}");
        assert!(answer.body.contains("not a known storage host"), "{answer:?}");
        assert!(!answer.body.contains("sig="), "{answer:?}");
    }
    assert_eq!((requests(&azure, Hop::Data), requests(&azure, Hop::Storage)), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_to_one_registry_share_what_is_kept_whoever_follows_the_redirect() {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let pushed = azure.push(Image::small("hub/library/busybox", "latest"));
    let (registry, storage) = (azure.registry_addr().port(), azure.storage_addr());
    let route = |source: &str, blobs: &str| {
        format!(
            "  - {{source: {source}, domain: 'example.azurecr.io:{registry}', prefix: hub, addresses: [127.0.0.1], \
             blobs: {blobs}, blob_hosts: ['{storage}']}}\n"
        )
    };
    let routes = route("docker.io", "proxy") + &route("ghcr.io", "proxy_config");
    let proxy = Setup::new(&azure).only_routes(&routes).cache("{memory: 64MiB}").start();
    for (name, status) in [("library/busybox", 200), ("ghcr.io/library/busybox", 307)] {
        let answer = wire::ask(proxy.address(), &format!("GET /v2/{name}/blobs/{}", pushed.blobs[1]), "");
        assert_eq!(answer.status, status, "{name}: {answer:.300?}");
    }
    assert_eq!((requests(&azure, Hop::Data), requests(&azure, Hop::Storage)), (1, 1));
}
