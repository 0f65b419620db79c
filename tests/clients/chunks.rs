//! A layer in chunks, as containerd 2 fetches it where it is told to.

use std::time::Duration;

use acr_emulator::{Fault, Hop, Image, Pushed};

use crate::containerd::{self, Containerd, Release};
use crate::hub::{Site, TAG, of_repository};
use crate::mirror::CACHES;
use crate::program::run;
use testkit::PATIENCE;

/// The smallest that containerd takes; a layer has several of them.
const CHUNK_BYTES: usize = 1 << 20;
const LAYER_BYTES: usize = 8 * CHUNK_BYTES;

/// Puts an image with one large layer into the cache and into the public registry.
fn put(site: &Site, name: &str) -> Pushed {
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let public = Image::small(name, TAG).with_arches(&[arch]).with_layers(1, LAYER_BYTES);
    site.hub.push(public.clone());
    site.azure.push(Image { repository: format!("hub/{name}"), ..public }.copy_of(name))
}

/// With `concurrent_layer_fetch_buffer` containerd asks for a layer in chunks. The first one chooses the host, and the
/// others have no other one to turn to; docs/clients.md warns of it. Where the proxy keeps the layer's redirect, the registry is
/// asked once for all of them and can fail afterwards.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_chunk_after_the_first_does_not_fall_back() {
    for cache in CACHES {
        let is_kept = cache != "off";
        let site = Site::start().await;
        let proxy = site.proxy(&[("docker.io", "hub")], "fallback").cache(cache).start();
        let home = site.home();
        let hosts = containerd::mirrored(Some("registry-1.docker.io"), &proxy.address().to_string());
        home.file("certs/docker.io/hosts.toml", &hosts);
        let hosts = home.path().join("certs");
        let config = format!(
            "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"{}\"\n\
             [plugins.\"io.containerd.transfer.v1.local\"]\n  max_concurrent_downloads = 3\n  concurrent_layer_fetch_buffer = {CHUNK_BYTES}\n",
            hosts.display()
        );
        let containerd = Containerd::start_with(&home, hosts, Release::Debian14, &config);
        let pull = |name: &str| run(&mut containerd.cri_pull(PATIENCE, &format!("docker.io/library/{name}:{TAG}")));

        let layer = put(&site, "library/good").blobs[0].clone();
        let answer = pull("good");
        assert!(containerd::cri_succeeded(&answer), "{answer}");
        let log = proxy.log();
        assert!(log.lines().filter(|line| line.contains(&layer)).count() > 1, "one request for the layer: {log}");
        let asked = of_repository(&site.azure.requests(), "hub/library/good");
        let chunks = asked.iter().filter(|request| request.method == "GET" && request.target.ends_with(&layer)).count();
        assert_eq!(chunks == 1, is_kept, "{asked:#?}");

        // The first answer is as it should be. For a part that fails once the proxy asks again; what fails for longer fails.
        for (name, failure, succeeds) in
            [("short", Fault::Status(503).times(1), true), ("lasting", Fault::Status(503).into(), is_kept)]
        {
            let layer = put(&site, &format!("library/{name}")).blobs[0].clone();
            site.azure.inject(Hop::Data, Fault::PauseMidBody(Duration::ZERO).times(1).on_path(&layer));
            site.azure.inject(Hop::Data, failure.on_path(&layer));
            let answer = pull(name);
            assert_eq!(containerd::cri_succeeded(&answer), succeeds, "{name}: {answer}");
            assert!(site.hub.requests().is_empty(), "{name}: {:#?}", site.hub.requests());
        }

        // The whole pull once more, as a kubelet does it.
        site.azure.clear_faults();
        let answer = pull("lasting");
        assert!(containerd::cri_succeeded(&answer), "{answer}");
        assert!(site.hub.requests().is_empty(), "{:#?}", site.hub.requests());
    }
}
