//! Answers before the answer.

use acr_emulator::{Emulator, Fault, Hop, Image, Pushed, Recorded};

use crate::wire;
use testkit::{Proxy, Setup};

const MANIFEST: &str = "/v2/library/busybox/manifests/latest";
const VERSIONS: [&str; 2] = ["HTTP/1.0", "HTTP/1.1"];

/// An emulator with one image, and a proxy that serves its blobs itself: each answer has two hops that can fail.
async fn proxied(cache: &str) -> (Emulator, Pushed, Proxy) {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let pushed = azure.push(Image::small("hub/library/busybox", "latest"));
    let hosts = format!("  blobs: proxy\n  blob_hosts: ['{}']\n", azure.storage_addr());
    let proxy = Setup::new(&azure).cache(cache).upstream(&hosts).start();
    (azure, pushed, proxy)
}

/// A manifest, and a blob by each of its hops.
fn legs(pushed: &Pushed) -> [(Hop, String); 3] {
    let blob = format!("/v2/library/busybox/blobs/{}", pushed.blobs[1]);
    [(Hop::Data, MANIFEST.to_owned()), (Hop::Data, blob.clone()), (Hop::Storage, blob)]
}

/// Everything that the proxy sends for one request, up to the end of the connection.
fn answer(proxy: &Proxy, path: &str, version: &str) -> String {
    let accept = "Accept: application/vnd.oci.image.index.v1+json";
    let request = format!("GET {path} {version}\r\nHost: mirror\r\nConnection: close\r\n{accept}\r\n\r\n");
    String::from_utf8_lossy(&wire::send(proxy.address(), request.as_bytes())).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interim_answer_reaches_no_client_and_the_final_one_does() {
    for cache in testkit::ASKING {
        let (azure, pushed, proxy) = proxied(cache).await;
        for (hop, path) in legs(&pushed) {
            for interim in [100, 102, 103] {
                for version in VERSIONS {
                    azure.inject(hop, Fault::Interim(interim).times(1));
                    let seen = answer(&proxy, &path, version);
                    assert!(seen.starts_with("HTTP/1.1 200 "), "{hop:?} {path} {interim} {version}: {seen:.200}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_after_an_interim_answer_is_replayed_once_or_502() {
    for cache in testkit::ASKING {
        let (azure, pushed, proxy) = proxied(cache).await;
        for (hop, path) in legs(&pushed) {
            // Not for a probe.
            let part = if path.contains("/blobs/") { "/blobs/" } else { "/manifests/" };
            for (deaths, status) in [(1, "200"), (2, "502")] {
                azure.clear_requests();
                azure.inject(hop, Fault::InterimThenClose(103).times(deaths).on_path(part));
                let seen = answer(&proxy, &path, "HTTP/1.1");
                assert!(seen.starts_with(&format!("HTTP/1.1 {status} ")), "{hop:?} {path} {deaths}: {seen:.200}");
                // Not those by which the proxy looks whether the registry is back.
                let is_asked = |request: &Recorded| request.hop == hop && request.target != "/v2/";
                let requests = azure.requests().into_iter().filter(is_asked).count();
                assert_eq!(requests, 2, "{hop:?} {path} {deaths}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_of_protocols_that_nobody_asked_for_is_502_and_opens_no_tunnel() {
    for cache in testkit::ASKING {
        let (azure, pushed, proxy) = proxied(cache).await;
        for (hop, path) in legs(&pushed) {
            for version in VERSIONS {
                azure.inject(hop, Fault::SwitchProtocols);
                let seen = answer(&proxy, &path, version);
                azure.clear_faults();
                assert!(
                    seen.starts_with("HTTP/1.1 502 ") && seen.contains("\"UNAVAILABLE\""),
                    "{hop:?} {path}: {seen}"
                );
                assert!(
                    seen.contains("its answer is not valid HTTP") && !seen.contains("tunnel"),
                    "{hop:?} {path}: {seen}"
                );
            }
        }
    }
}
