//! Configurations of images, fetched from storage by the proxy and kept.

use std::time::Duration;

use acr_emulator::{Emulator, Fault, Hop, Image, Server};
use oci::manifest::{Descriptor, Document};

use crate::admin::admin;
use crate::wire::{self, Client, Whole};
use testkit::{PATIENCE, Proxy, Setup};

const ACCEPT: &str = "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json\r\n";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const REPOSITORY: &str = "hub/library/busybox";

/// A registry with one image, and a proxy that serves its configurations.
struct Fixture {
    azure: Emulator,
    proxy: Proxy,
    /// Of the image for amd64, and of the one for arm64.
    manifests: Vec<String>,
    configurations: Vec<Descriptor>,
    layer: String,
}

impl Fixture {
    async fn start(blobs: &str, cache: &str) -> Self {
        let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
        azure.push(Image::small(REPOSITORY, "latest"));
        let document = |reference: &str| {
            let body = azure.manifest(REPOSITORY, reference).expect("pushed");
            Document::parse(&body).expect("a document")
        };
        let Document::Index(entries) = document("latest") else { panic!("an index") };
        let manifests: Vec<_> = entries.into_iter().map(|entry| entry.digest).collect();
        let mut layer = String::new();
        let configurations = manifests.iter().map(|digest| {
            let Document::Manifest(manifest) = document(digest) else { panic!("a manifest") };
            layer.clone_from(&manifest.layers[0].digest);
            manifest.config
        });
        let configurations = configurations.collect();
        let lines = format!("  blobs: {blobs}\n  blob_hosts: ['{}']\n", azure.storage_addr());
        let proxy = Setup::new(&azure).upstream(&lines).cache(cache).flag("--admin-address", ":0").start();
        Self { azure, proxy, manifests, configurations, layer }
    }

    fn ask(&self, method: &str, path: &str, headers: &str) -> Whole {
        let path = format!("/v2/library/busybox/{path}");
        Client::new(self.proxy.address()).ask(method, &path, "HTTP/1.1", &format!("{ACCEPT}{headers}"))
    }

    fn get(&self, path: &str) -> Whole {
        self.ask("GET", path, "")
    }

    fn blob(&self, digest: &str) -> Whole {
        self.get(&format!("blobs/{digest}"))
    }

    /// The configuration for amd64.
    fn configuration(&self) -> Whole {
        self.blob(&self.configurations[0].digest)
    }

    /// Forgets this image; returns what the answer says.
    fn purge(&self, image: &str) -> String {
        let admin = admin(&self.proxy);
        let answer = wire::ask(admin, &format!("POST /cache/purge?image={image}"), "");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    /// What clients do before they ask for the configuration.
    fn pull_manifest(&self) {
        assert_eq!(self.get("manifests/latest").status(), 200);
        assert_eq!(self.get(&format!("manifests/{}", self.manifests[0])).status(), 200);
    }

    /// The requests to the registry and to storage.
    fn counts(&self) -> (usize, usize) {
        self.azure.with_requests(|seen| {
            let count = |hop| seen.iter().filter(|request| request.hop == hop).count();
            (count(Hop::Data), count(Hop::Storage))
        })
    }

    /// Whether this is the whole configuration, byte for byte.
    fn is_whole(&self, answer: &Whole) -> bool {
        let pushed = self.azure.blob(&self.configurations[0].digest).expect("pushed");
        answer.status() == 200 && answer.body == pushed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_of_a_pull_comes_from_here_and_layers_from_storage() {
    const PULLS: usize = 30;
    let fixture = Fixture::start("proxy_config", "{memory: 64MiB}").await;
    assert_eq!(fixture.configuration().status(), 307, "what no manifest has named is a layer");
    fixture.pull_manifest();
    fixture.azure.clear_requests();
    for _ in 0..2 {
        std::thread::scope(|scope| {
            for _ in 0..PULLS {
                scope.spawn(|| assert!(fixture.is_whole(&fixture.configuration())));
            }
        });
        assert_eq!(fixture.counts(), (1, 1));
    }
    let storage = fixture.azure.requests().into_iter().find(|request| request.hop == Hop::Storage).expect("asked");
    assert_eq!(storage.header("authorization"), None, "{storage:?}");
    let layer = fixture.blob(&fixture.layer);
    assert!(layer.status() == 307 && layer.header("location").is_some_and(|to| to.contains("sig=")), "{layer:?}");
    assert_eq!(fixture.counts(), (2, 1));
    let log = fixture.proxy.end();
    for parts in [[" tries=1 ", " cache=miss storage=127.0.0.1"], [" tries=0 ", " cache=hit"]] {
        assert!(testkit::line(&log, &parts).is_some(), "{parts:?}: {log}");
    }
    assert!(!log.contains("sig="), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_configuration_is_served_as_a_registry_serves_a_blob() {
    let fixture = Fixture::start("proxy_config", "{memory: 64MiB}").await;
    fixture.pull_manifest();
    let digest = &fixture.configurations[0].digest;
    let path = format!("blobs/{digest}");
    let pushed = fixture.azure.blob(digest).expect("pushed");
    let length = pushed.len().to_string();
    fixture.azure.clear_requests();
    let head = fixture.ask("HEAD", &path, "");
    assert_eq!((head.status(), head.header("content-length")), (200, Some(length.as_str())), "{head:?}");
    assert_eq!(fixture.counts(), (1, 0), "what is not kept passes");
    assert!(fixture.is_whole(&fixture.configuration()));
    let counts = fixture.counts();
    let (beyond, if_known) = (format!("Range: bytes={length}-\r\n"), format!("If-None-Match: \"{digest}\"\r\n"));
    let unsatisfied = format!("bytes */{length}");
    for (method, headers, status, body, range) in [
        ("GET", "", 200, &pushed[..], None),
        ("HEAD", "", 200, &[], None),
        ("GET", "Range: bytes=2-5\r\n", 206, &pushed[2..6], Some(format!("bytes 2-5/{length}"))),
        ("GET", &beyond, 416, &[], Some(unsatisfied)),
        ("GET", &if_known, 304, &[], None),
    ] {
        let answer = fixture.ask(method, &path, headers);
        assert!((answer.status(), answer.body.as_slice()) == (status, body), "{method} {headers}: {answer:?}");
        assert_eq!(answer.header("content-range").map(str::to_owned), range, "{method} {headers}");
        assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()), "{method} {headers}");
        assert_eq!(answer.header("location"), None, "{method} {headers}");
        let status_of_cache = answer.header("cache-status").unwrap_or_default();
        assert!(status_of_cache.starts_with("acr-cache-proxy; hit; ttl="), "{answer:?}");
        assert!(answer.header("age").is_some() && answer.header("etag").is_some(), "{answer:?}");
        if status == 200 {
            assert_eq!(answer.header("content-length"), Some(length.as_str()), "{answer:?}");
            assert_eq!(answer.header("content-type"), Some("application/octet-stream"), "{answer:?}");
        }
    }
    assert_eq!(fixture.counts(), counts);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_to_a_configuration_is_proved_again_and_its_body_is_not_fetched_again() {
    let fixture = Fixture::start("proxy_config", "{manifests: 1ms, stale: 0s}").await;
    fixture.pull_manifest();
    fixture.azure.clear_requests();
    for round in 1..=3 {
        assert!(fixture.is_whole(&fixture.configuration()));
        assert_eq!(fixture.counts(), (round, 1));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fixture.azure.revoke_repository(REPOSITORY);
    let answer = fixture.configuration();
    assert_eq!(answer.status(), 403, "{answer:?}");
    assert_eq!(fixture.counts().1, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_outlives_the_registry_and_storage() {
    let fixture = Fixture::start("proxy_config", "{manifests: 1ms}").await;
    fixture.pull_manifest();
    assert!(fixture.is_whole(&fixture.configuration()));
    for server in [Server::Registry, Server::Storage] {
        fixture.azure.refuse_connections(server, true);
        fixture.azure.close_connections(server);
    }
    assert!(fixture.is_whole(&fixture.configuration()));
    let head = fixture.ask("HEAD", &format!("blobs/{}", fixture.configurations[0].digest), "");
    assert_eq!(head.status(), 200, "as GET, it once got the failure: {head:?}");
}

/// Each request once waited for a storage that is silent, where its redirect is not kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_is_silent_is_left_alone_also_where_no_redirect_is_kept() {
    let fixture = Fixture::start("proxy_config", "{redirects: 0s}").await;
    fixture.pull_manifest();
    assert_eq!(fixture.get(&format!("manifests/{}", fixture.manifests[1])).status(), 200);
    fixture.azure.clear_requests();
    fixture.azure.inject(Hop::Storage, Fault::Hang);
    for configuration in [0, 0, 1, 0] {
        assert_eq!(fixture.blob(&fixture.configurations[configuration].digest).status(), 307);
    }
    assert_eq!(fixture.counts(), (4, 1), "{:?}", fixture.azure.requests());
    assert_eq!(fixture.proxy.end().matches("does not answer in time").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_storage_gives_no_configuration_clients_are_redirected_to_it() {
    let other = || Fault::StatusWith { status: 200, headers: Vec::new(), body: "{}".to_owned() };
    for (fault, storage, says) in [
        (other(), 2, "what it sends does not have the blob's digest"),
        (Fault::CutBody(10), 2, "what it sends breaks off"),
        (Fault::HugeBody, 1, "what it sends is larger than a configuration"),
        (Fault::Status(403), 1, "403 to the registry's redirect"),
        (Fault::Hang, 1, "does not answer in time"),
    ] {
        let fixture = Fixture::start("proxy_config", "{memory: 64MiB}").await;
        fixture.pull_manifest();
        fixture.azure.clear_requests();
        fixture.azure.inject(Hop::Storage, fault.clone());
        for _ in 0..2 {
            let answer = fixture.configuration();
            let location = answer.header("location").unwrap_or_default();
            assert!(answer.status() == 307 && location.contains("sig="), "{fault:?}: {answer:?}");
            assert_eq!(fixture.counts(), (1, storage), "{fault:?}: neither is asked again at once");
        }
        fixture.proxy.wait_for_log(says);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_configuration_to_keep_is_a_layer() {
    let fixture = Fixture::start("proxy_config", "{memory: 64MiB}").await;
    let Fixture { azure, configurations, layer, .. } = &fixture;
    let manifest = |config: &str, size: u64| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"digest":"{config}","size":{size}}},"layers":[]}}"#
        )
    };
    // By its own word it is of 100 MiB.
    azure.put_manifest(REPOSITORY, "large", MANIFEST, manifest(layer, 100 << 20));
    // Of another repository, which names what this one has as well.
    azure.put_manifest("hub/library/other", "latest", MANIFEST, manifest(&configurations[0].digest, 2));
    assert_eq!(fixture.get("manifests/large").status(), 200);
    let other =
        Client::new(fixture.proxy.address()).ask("GET", "/v2/library/other/manifests/latest", "HTTP/1.1", ACCEPT);
    assert_eq!(other.status(), 200, "{other:?}");
    for digest in [layer, &configurations[0].digest] {
        let answer = fixture.blob(digest);
        assert_eq!(answer.status(), 307, "{answer:?}");
    }
    assert_eq!(fixture.counts().1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_configuration_is_fetched_from_a_host_that_is_not_storage() {
    for (blobs, status) in [("proxy_config", 307), ("proxy", 502)] {
        let fixture = Fixture::start(blobs, "{memory: 64MiB}").await;
        fixture.pull_manifest();
        let location = format!("https://localhost:{}/x?sig=s", fixture.azure.storage_addr().port());
        let headers = vec![("Location".to_owned(), location.clone())];
        fixture.azure.inject(Hop::Data, Fault::StatusWith { status: 307, headers, body: String::new() });
        let answer = fixture.configuration();
        assert_eq!(answer.status(), status, "{blobs}: {answer:?}");
        if status == 307 {
            assert_eq!(answer.header("location"), Some(location.as_str()), "{answer:?}");
            let line = fixture.proxy.wait_for_log("clients are redirected to storage");
            assert!(line.contains("is not a known storage host: blob_hosts can add it"), "{line}");
        }
        assert_eq!(fixture.counts().1, 0, "{blobs}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_proxy_keeps_configurations_and_no_layers() {
    let fixture = Fixture::start("proxy", "{memory: 64MiB}").await;
    fixture.pull_manifest();
    fixture.azure.clear_requests();
    for round in 1..=2 {
        assert!(fixture.is_whole(&fixture.configuration()));
        let layer = fixture.blob(&fixture.layer);
        assert!(layer.status() == 200 && layer.body == fixture.azure.blob(&fixture.layer).expect("pushed"));
        assert_eq!(fixture.counts(), (2, 1 + round));
    }
    // Where storage fails once, the client's own request there may do better.
    fixture.get(&format!("manifests/{}", fixture.manifests[1]));
    fixture.azure.inject(Hop::Storage, Fault::Status(500).times(1));
    let answer = fixture.blob(&fixture.configurations[1].digest);
    assert_eq!(answer.status(), 200, "{answer:?}");
}

/// The log once said of it that clients are redirected to storage.
#[tokio::test(flavor = "multi_thread")]
async fn where_blobs_come_through_here_no_client_is_said_to_be_redirected() {
    let fixture = Fixture::start("proxy", "{memory: 64MiB}").await;
    fixture.pull_manifest();
    fixture.azure.inject(Hop::Storage, Fault::Status(403));
    assert_eq!(fixture.configuration().header("location"), None);
    let line = fixture.proxy.wait_for_log(" is not kept, each request for it goes on to storage, as for a layer: ");
    assert!(!line.contains("redirected to storage"), "{line}");
}

/// A configuration that was purged by its digest was a layer until its manifest was fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_purged_by_its_digest_is_still_one() {
    let fixture = Fixture::start("proxy_config", "{memory: 64MiB}").await;
    fixture.pull_manifest();
    assert!(fixture.is_whole(&fixture.configuration()));
    fixture.azure.clear_requests();
    fixture.purge(&format!("busybox@{}", fixture.configurations[0].digest));
    assert!(fixture.is_whole(&fixture.configuration()));
    assert_eq!(fixture.counts(), (1, 1), "it was forgotten");
    // What was none before is none afterwards.
    fixture.purge(&format!("busybox@{}", fixture.layer));
    assert_eq!(fixture.blob(&fixture.layer).status(), 307);
}

/// A prefetch that was forgotten once went on to the configurations, and kept them.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_amid_a_prefetch_leaves_nothing_of_the_image() {
    let fixture = Fixture::start("proxy_config", "{prefetch: [linux/amd64, linux/arm64]}").await;
    let slow = Fault::PauseMidBody(Duration::from_secs(2));
    for digest in &fixture.manifests {
        fixture.azure.inject(Hop::Data, slow.clone().on_path(digest));
    }
    assert_eq!(fixture.get("manifests/latest").status(), 200);
    assert!(fixture.purge("busybox").contains("\"under_way\": 2"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let seen = fixture.azure.requests();
    assert!(!seen.iter().any(|request| request.target.contains("/blobs/")), "{seen:?}");
    assert!(fixture.purge("busybox").contains("\"entries\": 0"), "nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_platform_needs_of_an_image_is_fetched_once_behind_its_index() {
    let fixture = Fixture::start("proxy_config", "{prefetch: [linux/amd64]}").await;
    assert_eq!(fixture.get("manifests/latest").status(), 200);
    let until = tokio::time::Instant::now() + PATIENCE;
    while fixture.counts() != (3, 1) {
        assert!(tokio::time::Instant::now() < until, "{:?}", fixture.azure.requests());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let seen: Vec<_> = fixture.azure.requests().into_iter().map(|request| request.target).collect();
    assert!(!seen.iter().any(|target| target.contains(&fixture.manifests[1])), "another platform's: {seen:?}");
    // Both may have been answered a moment before they are kept: a flight is shared then.
    fixture.pull_manifest();
    assert!(fixture.is_whole(&fixture.configuration()));
    assert_eq!(fixture.counts(), (3, 1), "{:?}", fixture.azure.requests());
}
