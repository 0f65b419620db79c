//! A thousand hosts that pull one image at once: what reaches the registry, and what each of them gets.

use std::time::Duration;

use acr_emulator::{Image, Options};
use testkit::pulls::{Named, objects, pull_by_all, raise_descriptors};

use super::cached::{Cached, REPOSITORY};

const HOSTS: usize = 1000;
const LAYERS: usize = 10;
const IMAGE: Named = Named { name: "library/busybox", tag: "latest" };
/// A round trip to the registry, so that the hosts ask while the first answers are on their way.
const ROUND_TRIP: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_simultaneous_cold_pulls_ask_the_registry_once_for_each_object() {
    raise_descriptors();
    let options = Options { latency: ROUND_TRIP, ..testkit::options() };
    // Longer than the test takes on any machine.
    let cached = Cached::with(options, |setup| setup.cache("{tags: 1h, redirects: 10m}")).await;
    let image = Image::small(REPOSITORY, "latest").with_layers(LAYERS, 1_000);
    let pushed = cached.azure.push(image);
    // A registry counts what it is asked for an image that nobody has asked for yet.
    for (arch, is_cold) in [("amd64", true), ("arm64", false)] {
        let address = cached.proxy.address();
        let pulls = pull_by_all(HOSTS, &[address], IMAGE, arch).await;
        let index = cached.azure.manifest(REPOSITORY, "latest").expect("pushed");
        assert!(pulls.iter().all(|pull| *pull == pulls[0] && pull.index == index), "all get the same");
        let mut expected = objects(&cached.azure, IMAGE, &pushed, arch);
        assert_eq!(expected.len(), 2 + 1 + LAYERS);
        if !is_cold {
            // The other platform's hosts share the tag.
            expected.remove(&format!("GET /v2/{REPOSITORY}/manifests/latest"));
        }
        // The index by its digest is what the tag was answered with, so it need not be asked for.
        let mut reads = cached.azure.reads();
        let by_digest = reads.remove(&format!("GET /v2/{REPOSITORY}/manifests/{}", pushed.index_digest));
        assert!(by_digest.is_none_or(|count| is_cold && count == 1), "{by_digest:?}");
        assert_eq!(reads, expected, "{arch}");
        cached.azure.clear_requests();
    }
    let pulls = pull_by_all(HOSTS, &[cached.proxy.address()], IMAGE, "amd64").await;
    assert_eq!(pulls.len(), HOSTS);
    assert!(cached.azure.requests().is_empty(), "warm: {:?}", cached.azure.reads());
}
