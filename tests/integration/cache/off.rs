//! `cache: off`: each request goes to the registry as it is, and its answer says nothing of a cache.

use acr_emulator::{Emulator, Fault, Hop, Image, Options};

use super::cached::{ACCEPT, Cached, REPOSITORY, path};
use crate::admin::admin;
use crate::wire::{self, Client};
use testkit::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn off_each_request_is_passed_on_as_it_is() {
    let cached = Cached::start("off").await;
    for (rest, status) in cached.objects() {
        cached.azure.clear_requests();
        for method in ["GET", "HEAD", "GET"] {
            let answer = cached.ask(method, &path(&rest), ACCEPT);
            let expected = if method == "HEAD" && status == 307 { 200 } else { status };
            assert_eq!(answer.status(), expected, "{method} {rest}: {answer:?}");
            for name in ["cache-status", "age"] {
                assert!(answer.header(name).is_none(), "{method} {rest}: {answer:?}");
            }
        }
        let reads: Vec<_> = cached.azure.reads().into_iter().collect();
        let target = format!("/v2/{REPOSITORY}/{rest}");
        assert_eq!(reads, [(format!("GET {target}"), 2), (format!("HEAD {target}"), 1)]);
    }
    assert!(!cached.proxy.log().contains(" cache="), "{}", cached.proxy.log());
    // Nothing is kept, so nothing is served when the registry fails.
    cached.azure.inject(Hop::Data, Fault::Status(503));
    assert_eq!(cached.get(&path("manifests/latest")).status(), 503);
}

/// They went to 0 and came back, which Prometheus takes for a new process; and all that was kept counted as evicted.
#[tokio::test(flavor = "multi_thread")]
async fn counters_stand_still_while_the_cache_is_off_and_go_on_with_it() {
    let cached = Cached::with(testkit::options(), |setup| setup.cache("{tags: 1h}")).await;
    let config = std::fs::read_to_string(cached.proxy.config()).expect("a configuration");
    let off = config.replace("cache: {tags: 1h}", "cache: off");
    assert_ne!(config, off);
    let read = || {
        let body = wire::ask(admin(&cached.proxy), "GET /metrics", "").body;
        let is_counter = |line: &&str| line.starts_with("acr_cache_proxy_cache_") && line.contains("_total");
        body.lines().filter(is_counter).map(str::to_owned).collect::<Vec<_>>()
    };
    for _ in 0..3 {
        assert_eq!(cached.get(&path("manifests/latest")).status(), 200);
    }
    assert_eq!(cached.ask("GET", &path("manifests/latest"), "Accept: */*\r\n").status(), 404);
    let before = read();
    assert!(before.iter().any(|line| line.ends_with("{kind=\"tags\"} 2.0")), "{before:?}");
    assert!(cached.proxy.reload_with(&off).0);
    assert_eq!(cached.get(&path("manifests/latest")).status(), 200);
    assert_eq!(read(), before);
    assert!(cached.proxy.reload_with(&config).0);
    assert_eq!(read(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_route_can_be_without_it() {
    let azure = Emulator::start(Options::clone(&testkit::options())).await.expect("the emulator starts");
    for repository in ["hub/org/app", "ghcr/org/app"] {
        azure.push(Image::small(repository, "latest"));
    }
    let route = |source: &str, prefix: &str, cache: &str| {
        let port = azure.registry_addr().port();
        format!(
            "  - {{source: {source}, domain: 'example.azurecr.io:{port}', prefix: {prefix}, addresses: [127.0.0.1]{cache}}}\n"
        )
    };
    let routes = route("docker.io", "hub", ", cache: {tags: 1h}") + &route("ghcr.io", "ghcr", ", cache: off");
    let proxy = Setup::new(&azure).cache("{}").only_routes(&routes).start();
    for (source, reads) in [("docker.io", 1), ("ghcr.io", 3)] {
        azure.clear_requests();
        for _ in 0..3 {
            let path = format!("/v2/org/app/manifests/latest?ns={source}");
            let answer = Client::new(proxy.address()).ask("GET", &path, "HTTP/1.1", ACCEPT);
            assert_eq!(answer.status(), 200, "{answer:?}");
        }
        assert_eq!(azure.reads().values().sum::<usize>(), reads, "{source}");
    }
}
