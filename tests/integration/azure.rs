//! What Azure's registries do that others do not.

use acr_emulator::{Emulator, Hop, Image, Options, Pushed};

use crate::wire::{self, Client};
use testkit::Setup;

const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A registry with dedicated data endpoints, and what it holds as `hub/library/busybox:latest`.
async fn with_data_endpoints() -> (Emulator, Pushed) {
    let options = Options { data_endpoints: true, ..testkit::options() };
    let azure = Emulator::start(options).await.expect("the emulator starts");
    let pushed = azure.push(Image::small("hub/library/busybox", "latest"));
    (azure, pushed)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_child_of_a_docker_list_passes_with_its_own_digest() {
    let azure = testkit::azure().await;
    let pushed = azure.push(Image::small("hub/library/docker", "1").with_docker_media_types());
    let proxy = Setup::new(&azure).start();
    let mut client = Client::new(proxy.address());
    let child = &pushed.manifests[0].1;
    // One after the other by the same tag: the answer depends on Accept, and no Vary says so.
    for (accept, digest) in [
        (format!("application/json, {DOCKER_MANIFEST}"), child),
        (format!("{DOCKER_MANIFEST}, {DOCKER_LIST}"), &pushed.index_digest),
        (DOCKER_MANIFEST.to_owned(), child),
    ] {
        for method in ["HEAD", "GET"] {
            let path = "/v2/library/docker/manifests/1";
            let answer = client.ask(method, path, "HTTP/1.1", &format!("Accept: {accept}\r\n"));
            assert_eq!(answer.status(), 200, "{method} {accept}: {answer:?}");
            assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()), "{method} {accept}");
            if method == "GET" {
                let bytes = azure.manifest("hub/library/docker", digest).expect("pushed");
                assert_eq!(answer.body, bytes, "{accept}: byte for byte");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_the_client_does_not_accept_gets_the_registrys_error() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    for accept in ["", "Accept: */*\r\n", "Accept: application/vnd.oci.image.*\r\n"] {
        let mut client = Client::new(proxy.address());
        let answer = client.ask("GET", "/v2/library/busybox/manifests/latest", "HTTP/1.1", accept);
        assert_eq!(answer.status(), 404, "{accept}: {answer:?}");
        let words = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"OCI index found, but accept header does not support OCI indexes"}]}"#;
        assert_eq!(answer.body.trim_ascii_end(), words.as_bytes(), "{accept}");
    }
}

/// What this proxy takes for a digest the registry's router may not.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_text_404_passes_unchanged() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        for blobs in ["redirect", "proxy"] {
            let proxy = Setup::new(&azure).cache(cache).upstream(&format!("  blobs: {blobs}\n")).start();
            for kind in ["blobs", "manifests"] {
                let path =
                    format!("/v2/library/busybox/{kind}/multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46");
                let answer = wire::ask(proxy.address(), &format!("GET {path}"), "");
                assert_eq!(answer.status, 404, "{blobs} {kind}: {answer:?}");
                assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"), "{blobs} {kind}");
                assert_eq!(answer.body, "404 page not found\n", "{blobs} {kind}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_too_large_for_the_registry_fails_one_request_only() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).cache("off").start();
    let mut client = Client::new(proxy.address());
    let accept = "Accept: application/vnd.oci.image.index.v1+json";
    for (padding, status) in [(0, 200), (9_000, 400), (0, 200)] {
        let headers = format!("{accept}, {}\r\n", "a".repeat(padding));
        let answer = client.ask("GET", "/v2/library/busybox/manifests/latest", "HTTP/1.1", &headers);
        assert_eq!(answer.status(), status, "{}", answer.head.head);
        if status == 400 {
            assert_eq!(answer.header("content-type"), Some("text/html"), "{}", answer.head.head);
            let page = String::from_utf8_lossy(&answer.body);
            assert!(page.contains("Request Header Or Cookie Too Large") && !page.contains("Bearer"), "{page}");
        }
    }
    let asked = azure.requests().into_iter().filter(|request| request.hop == Hop::Data).count();
    assert_eq!(asked, 3, "none of them twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_a_data_endpoint_passes_unchanged_and_is_not_logged() {
    let (azure, pushed) = with_data_endpoints().await;
    let proxy = Setup::new(&azure).start();
    let redirect = wire::ask(proxy.address(), &format!("GET /v2/library/busybox/blobs/{}", pushed.blobs[1]), "");
    assert_eq!(redirect.status, 307, "{redirect:?}");
    let location = redirect.header("location").expect("where to").to_owned();
    // The repository in it is the registry's name for it, and signed.
    let parts = [&*format!("https://{}?t=", azure.storage_addr()), "&r=hub/library/busybox&", "&s=", "&v=1"];
    assert!(parts.iter().all(|part| location.contains(part)), "{location}");
    let ca = reqwest::Certificate::from_pem(azure.ca_pem().as_bytes()).expect("a CA");
    // A second call finds the first one's provider, which is no error.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let storage = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().expect("a client");
    let blob = storage.get(&location).send().await.expect("an answer").bytes().await.expect("a body");
    assert_eq!(blob, azure.blob(&pushed.blobs[1]).expect("pushed"));
    let log = proxy.end();
    assert!(log.contains(" 307 ") && !log.contains("&s=") && !log.contains("&p="), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_a_data_endpoint_passes_through_the_proxy() {
    let (azure, pushed) = with_data_endpoints().await;
    let hosts = azure.storage_addr();
    let proxy = Setup::new(&azure).upstream(&format!("  blobs: proxy\n  blob_hosts: ['{hosts}']\n")).start();
    let blob = azure.blob(&pushed.blobs[1]).expect("pushed");
    let path = format!("/v2/library/busybox/blobs/{}", pushed.blobs[1]);
    let mut client = Client::new(proxy.address());
    for (method, range, status, expected) in [
        ("GET", "", 200, &blob[..]),
        ("GET", "Range: bytes=100-199\r\n", 206, &blob[100..200]),
        ("HEAD", "", 200, &[][..]),
    ] {
        let answer = client.ask(method, &path, "HTTP/1.1", range);
        assert_eq!(answer.status(), status, "{method} {range}{answer:?}");
        assert!(answer.body == expected, "{method} {range}{} bytes", answer.body.len());
        assert_eq!(answer.header("location"), None);
    }
    let seen = azure.requests();
    let asked: Vec<_> = seen.iter().filter(|request| request.hop == Hop::Storage).collect();
    assert_eq!(asked.len(), 2, "HEAD is the registry's own: {asked:?}");
    for request in asked {
        assert!(request.target.starts_with("/?t=") && request.target.len() > 1024, "{request:?}");
        assert_eq!(request.header("authorization"), None, "{request:?}");
    }
    let log = proxy.end();
    assert!(log.contains(" 206 100B ") && !log.contains("&s=") && !log.contains("&p="), "{log}");
}
