//! Clients that reach several registries through one port.

use std::process::Command;

use acr_emulator::{Hop, Recorded};

use crate::containerd::{self, Containerd};
use crate::containers;
use crate::home::Home;
use crate::hub::{Site, TAG, of_repository, was_sent};
use crate::program::run;
use testkit::{PATIENCE, Proxy};

/// A registry, the prefix that its cache rule has, and an image in it.
const REGISTRIES: [(&str, &str, &str); 3] =
    [("docker.io", "hub", "library/app"), ("ghcr.io", "ghcr", "org/app"), ("quay.io", "quay", "org/team/app")];

/// A cache of all three, and clients that are told to ask it for any of them.
async fn site() -> (Site, Proxy, Home) {
    let site = Site::start().await;
    let proxy = site.proxy(&REGISTRIES.map(|(registry, prefix, _)| (registry, prefix)), "fallback").start();
    let home = site.home();
    (site, proxy, home)
}

/// Pulls from each registry. All of it comes from the cache, from below the right prefix, and nobody else is asked.
fn check(site: &Site, agent: &str, succeeds: impl Fn(&str) -> bool, mut pull: impl FnMut(&str) -> Command) {
    for (registry, prefix, name) in REGISTRIES {
        let pushed = site.put(prefix, name);
        site.azure.clear_requests();
        let reference = format!("{registry}/{name}:{TAG}");
        let printed = run(&mut pull(&reference));
        assert!(succeeds(&printed), "{reference}: {printed}");
        let seen = site.azure.requests();
        let asked: Vec<&Recorded> = seen.iter().filter(|request| request.hop == Hop::Data).collect();
        assert_eq!(of_repository(&seen, &format!("{prefix}/{name}")).len(), asked.len(), "{reference}: {asked:#?}");
        // What the proxy keeps it has asked for itself.
        let agents = asked.iter().map(|request| request.header("user-agent").unwrap_or_default());
        let is_known = |name: &str| name.starts_with(agent) || name.starts_with("acr-cache-proxy/");
        assert!(agents.clone().all(is_known), "{reference}: {:?}", agents.collect::<Vec<_>>());
        assert!(asked.iter().all(|request| !request.target.contains("ns=")), "{reference}: {asked:#?}");
        assert!(pushed.blobs.iter().all(|digest| was_sent(&seen, digest)), "{reference}: {seen:#?}");
        assert!(site.hub.requests().is_empty(), "{reference}: {:#?}", site.hub.requests());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn ctr_pulls_from_three_registries_by_one_default_hosts_toml() {
    let (site, proxy, home) = site().await;
    let hosts = containerd::mirrored(None, &proxy.address().to_string());
    let containerd = Containerd::start(&home, "_default", &hosts);
    check(&site, "containerd/", |_| true, |reference| containerd.pull(PATIENCE, reference));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn cri_pulls_from_three_registries_by_one_default_hosts_toml() {
    let (site, proxy, home) = site().await;
    let hosts = containerd::mirrored(None, &proxy.address().to_string());
    let containerd = Containerd::start(&home, "_default", &hosts);
    check(&site, "containerd/", containerd::cri_succeeded, |reference| containerd.cri_pull(PATIENCE, reference));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn podman_pulls_from_three_registries_by_the_path_in_its_mirror() {
    let (site, proxy, home) = site().await;
    let registries = REGISTRIES
        .map(|(registry, ..)| containers::mirrored_registry(registry, &format!("{}/{registry}", proxy.address())));
    containers::configure(&home, &registries.concat());
    let pull = |reference: &str| containers::client(&home, PATIENCE, &format!("podman pull {reference}"));
    check(&site, "containers/", |_| true, pull);
}
