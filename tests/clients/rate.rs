//! What engines do with the 429 of a client that asks more often than it may, as docs/shared.md has it.

use acr_emulator::Image;

use crate::containerd::{self, Containerd};
use crate::containers;
use crate::docker::{Docker, Kind};
use crate::hub::{Site, TAG};
use crate::program::{fail, run};
use testkit::{PATIENCE, Proxy};

/// A pull asks at once for more than three.
const LIMITS: &str = "limits: {requests_per_second_per_client: 2, request_burst_per_client: 3}";
const LAYERS: usize = 8;

/// Puts an image into the cache and into the public registry, of which nobody has asked for anything yet.
fn put(site: &Site, name: &str) -> String {
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let name = format!("library/{name}");
    let public = Image::small(&name, TAG).with_arches(&[arch]).with_layers(LAYERS, 1_000);
    site.hub.push(public.clone());
    site.azure.push(Image { repository: format!("hub/{name}"), ..public }.copy_of(&name));
    site.hub.clear_requests();
    format!("docker.io/{name}:{TAG}")
}

/// A proxy with the limits.
fn proxy(site: &Site, on_failure: &str) -> Proxy {
    site.proxy(&[("docker.io", "hub")], on_failure).settings(LIMITS).start()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn podman_and_skopeo_wait_when_they_ask_too_often() {
    let site = Site::start().await;
    let words: [fn(&str) -> String; 2] = [
        |reference| format!("podman pull {reference}"),
        |reference| format!("skopeo copy docker://{reference} oci:layout:{TAG}"),
    ];
    for (at, words) in words.into_iter().enumerate() {
        let proxy = proxy(&site, "fallback");
        let home = site.home();
        containers::configure(&home, &containers::mirrored(&format!("{}/docker.io", proxy.address())));
        let reference = put(&site, &format!("waits-{at}"));
        run(&mut containers::client(&home, PATIENCE, &words(&reference)));
        assert!(site.hub.requests().is_empty(), "{reference}: {:#?}", site.hub.requests());
        proxy.wait_for_log("requests_per_second_per_client");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn dockerd_goes_to_docker_hub_when_it_asks_too_often() {
    let site = Site::start().await;
    for kind in [Kind::Debian12, Kind::ContainerdStore, Kind::Debian14ContainerdStore] {
        let proxy = proxy(&site, "fallback");
        let home = site.home();
        let docker = Docker::start(&home, &proxy.address().to_string(), kind);
        let reference = put(&site, &format!("leaves-{kind:?}").to_lowercase());
        run(&mut docker.docker(PATIENCE, &format!("pull {reference}")));
        assert!(!site.hub.requests().is_empty(), "{kind:?} waits: {}", proxy.log());
        proxy.wait_for_log("requests_per_second_per_client");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn containerd_goes_to_the_source_or_fails_when_it_asks_too_often() {
    let site = Site::start().await;
    for on_failure in ["fallback", "closed"] {
        let proxy = proxy(&site, on_failure);
        let home = site.home();
        let address = proxy.address().to_string();
        let hosts = match on_failure {
            "closed" => containerd::closed(&address),
            _ => containerd::mirrored(Some("registry-1.docker.io"), &address),
        };
        let containerd = Containerd::start(&home, "docker.io", &hosts);
        let reference = put(&site, on_failure);
        let mut pull = containerd.pull(PATIENCE, &reference);
        if on_failure == "closed" {
            let said = fail(&mut pull);
            assert!(said.contains("429 Too Many Requests"), "{said}");
        } else {
            run(&mut pull);
        }
        assert_eq!(site.hub.requests().is_empty(), on_failure == "closed", "{:#?}", site.hub.requests());
        proxy.wait_for_log("requests_per_second_per_client");
    }
}
