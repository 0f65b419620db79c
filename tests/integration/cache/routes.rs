//! Several routes to one registry, which counts what it is asked by its identity and not by the route.

use std::net::SocketAddr;
use std::time::Instant;

use acr_emulator::{Emulator, Fault, Hop, Image};
use serde_json::{Value, json};

use super::cached::{ACCEPT, until};
use crate::admin::admin;
use crate::wire;
use testkit::{Proxy, Setup};

/// Two routes that differ in all but the registry, and a third one to the repositories of the first.
async fn start(settings: &str) -> (Emulator, Proxy, SocketAddr) {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    for repository in ["hub/org/app", "ghcr/org/app"] {
        azure.push(Image::small(repository, "latest"));
    }
    let (port, storage) = (azure.registry_addr().port(), azure.storage_addr());
    let route = |rest: &str| format!("  - {{domain: 'example.azurecr.io:{port}', addresses: [127.0.0.1], {rest}}}\n");
    let routes = [
        route(&format!("source: docker.io, prefix: hub, blobs: proxy, blob_hosts: ['{storage}']")),
        route("source: ghcr.io, prefix: ghcr, blobs: proxy_config, blob_hosts: [.internal], cache: {tags: 0s}"),
        route("source: quay.io, prefix: hub, on_failure: closed"),
    ];
    let setup = Setup::new(&azure).settings(settings).only_routes(&routes.concat());
    let proxy = setup.flag("--log", "info").flag("--admin-address", ":0").start();
    let admin = admin(&proxy);
    (azure, proxy, admin)
}

fn get(proxy: &Proxy, source: &str, rest: &str) -> wire::Answer {
    wire::ask(proxy.address(), &format!("GET /v2/org/app/{rest}?ns={source}"), ACCEPT)
}

fn registries(admin: SocketAddr) -> Vec<Value> {
    let counters: Value = serde_json::from_str(&wire::ask(admin, "GET /cache", "").body).expect("JSON");
    counters["registries"].as_array().expect("a list").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_to_one_registry_have_one_budget() {
    const REQUESTS: usize = 30;
    let (azure, proxy, admin) = start("limits: {registry_reads_per_minute: 60}").await;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..REQUESTS {
            let (proxy, source) = (&proxy, ["docker.io", "ghcr.io", "quay.io"][number % 3]);
            scope.spawn(move || get(proxy, source, &format!("manifests/tag-{number}")));
        }
    });
    // A tenth at once, the rest evenly; with one more for the begin of a second.
    let allowed = 6 + begun.elapsed().as_secs() as usize + 1;
    let reads: usize = azure.reads().values().sum();
    assert!(reads <= allowed, "{reads} of {allowed}: {:?}", azure.reads());
    let registries = registries(admin);
    assert_eq!((registries.len(), &registries[0]["reads"]), (1, &json!(reads)), "{registries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_to_one_registry_have_one_breaker() {
    let (azure, proxy, admin) = start("").await;
    azure.inject(Hop::Data, Fault::Status(500));
    until("that it is down", || {
        get(&proxy, "docker.io", "tags/list");
        (registries(admin)[0]["down"] == json!(true)).then_some(())
    });
    let reads = registries(admin)[0]["reads"].clone();
    for source in ["ghcr.io", "quay.io"] {
        let answer = get(&proxy, source, "manifests/latest");
        assert!(answer.status == 503 && answer.body.contains("known to be down"), "{source}: {answer:?}");
    }
    assert_eq!(registries(admin)[0]["reads"], reads, "nobody has found out for itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_to_one_repository_have_one_purge() {
    let (azure, proxy, admin) = start("cache: {tags: 1h}").await;
    for source in ["docker.io", "quay.io"] {
        assert_eq!(get(&proxy, source, "manifests/latest").status, 200);
    }
    assert_eq!(azure.reads().values().sum::<usize>(), 1, "they share what is kept");
    let purged = wire::ask(admin, "POST /cache/purge?image=docker.io/org/app:latest", "");
    assert!(purged.status == 200 && purged.body.contains("\"entries\": 1,"), "{purged:?}");
    assert_eq!(get(&proxy, "quay.io", "manifests/latest").status, 200);
    assert_eq!(azure.reads().values().sum::<usize>(), 2);
}

/// Who signs in to it is metered apart, but the image that is forgotten is the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_is_for_every_identity() {
    let options = acr_emulator::Options { anonymous_pull: true, ..testkit::options() };
    let azure = Emulator::start(options).await.expect("the emulator starts");
    azure.push(Image::small("hub/org/app", "latest"));
    let domain = format!("example.azurecr.io:{}", azure.registry_addr().port());
    let route = |rest: &str| format!("  - {{domain: '{domain}', addresses: [127.0.0.1], prefix: hub, {rest}}}\n");
    let routes = route("source: docker.io") + &route("source: quay.io, identity: {kind: anonymous}");
    let setup = Setup::new(&azure).cache("{tags: 1h}").only_routes(&routes);
    let proxy = setup.flag("--log", "info").flag("--admin-address", ":0").start();
    let admin = admin(&proxy);
    let ask_both = || ["docker.io", "quay.io"].map(|source| get(&proxy, source, "manifests/latest").status);
    assert_eq!((ask_both(), ask_both()), ([200, 200], [200, 200]));
    assert_eq!((azure.reads().values().sum::<usize>(), registries(admin).len()), (2, 2));
    // Both have the same domain: who signs in tells them apart, also where one of them fails.
    let ready: Value = serde_json::from_str(&wire::ask(admin, "GET /readyz", "").body).expect("JSON");
    for told in [registries(admin), ready["upstreams"].as_array().expect("a list").clone()] {
        let kinds: Vec<_> = told.iter().map(|registry| registry["identity"]["kind"].as_str()).collect();
        assert_eq!(kinds, [Some("default chain"), Some("anonymous")], "{told:?}");
    }
    wire::ask(admin, "POST /cache/purge?image=docker.io/org/app:latest", "");
    assert_eq!(ask_both(), [200, 200]);
    assert_eq!(azure.reads().values().sum::<usize>(), 4);
}
