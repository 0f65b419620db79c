//! dockerd 28, which also reads `hosts.toml`, with public registries behind its back.

use std::process::Command;

use acr_emulator::{Emulator, Image, Pushed};
use serde_json::json;

use crate::docker::{Docker, Kind};
use crate::home::Home;
use crate::hub::{Site, TAG, of_repository};
use crate::program::{fail, run};
use testkit::{PATIENCE, Proxy};

/// Registries, the prefixes of their cache rules, and an image in each.
const REGISTRIES: [(&str, &str, &str); 2] = [("docker.io", "hub", "library/app"), ("ghcr.io", "ghcr", "org/app")];

/// What reads `hosts.toml`: containerd's store for pulls, BuildKit with either store.
#[derive(Clone, Copy)]
enum By {
    Pull,
    Build,
}

/// A dockerd by the files of `client-config`, with every route open or every route closed.
struct Scene {
    site: Site,
    proxy: Proxy,
    home: Home,
}

impl Scene {
    async fn new(on_failure: &str) -> Self {
        let site = Site::start().await;
        let setup = site.proxy(&REGISTRIES.map(|(registry, prefix, _)| (registry, prefix)), on_failure);
        let (config, home) = (setup.path("config.yaml"), site.home());
        let proxy = setup.start();
        home.write_client_config("docker", &config, &proxy);
        Self { site, proxy, home }
    }

    fn dockerd(&self, kind: Kind) -> Docker<'_> {
        Docker::start_by(&self.home, self.home.path(), kind)
    }

    /// What the cache has comes from there, and nobody else is asked for it.
    fn check_cached(&self, docker: impl Fn(&str) -> Command) {
        for (registry, prefix, name) in REGISTRIES {
            self.site.put(prefix, name);
            run(&mut docker(&format!("{registry}/{name}:{TAG}")));
            assert!(!of_repository(&self.site.azure.requests(), &format!("{prefix}/{name}")).is_empty(), "{registry}");
            assert!(self.site.hub.requests().is_empty(), "{registry}: {:#?}", self.site.hub.requests());
        }
    }

    /// Puts an image into the public registry only, by the architecture of this machine.
    fn put_behind(&self, name: &str) {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        self.site.hub.push(Image::small(name, TAG).with_arches(&[arch]));
    }
}

async fn check(kind: Kind, by: By) {
    for on_failure in ["fallback", "closed"] {
        let scene = Scene::new(on_failure).await;
        let daemon = scene.dockerd(kind);
        let docker = |reference: &str| match by {
            By::Pull => daemon.docker(PATIENCE, &format!("pull {reference}")),
            By::Build => daemon.build(PATIENCE, reference, ""),
        };
        scene.check_cached(docker);
        for (registry, prefix, name) in REGISTRIES {
            let name = format!("{name}-missing");
            scene.put_behind(&name);
            let mut command = docker(&format!("{registry}/{name}:{TAG}"));
            if on_failure == "fallback" {
                run(&mut command);
                assert!(!of_repository(&scene.site.hub.requests(), &name).is_empty(), "{registry}");
            } else {
                fail(&mut command);
                assert!(scene.site.hub.requests().is_empty(), "{registry}: {:#?}", scene.site.hub.requests());
            }
            assert!(!of_repository(&scene.site.azure.requests(), &format!("{prefix}/{name}")).is_empty(), "{registry}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn dockerd_28_with_containerds_store_pulls_by_hosts_toml() {
    check(Kind::Debian14ContainerdStore, By::Pull).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn dockerd_28_with_containerds_store_builds_by_hosts_toml() {
    check(Kind::Debian14ContainerdStore, By::Build).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn dockerd_28_with_its_own_store_builds_by_hosts_toml() {
    check(Kind::Debian14, By::Build).await;
}

/// dockerd 29 then asks for referrers, which no capability of older releases stands for.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn dockerd_28_and_later_asks_nobody_but_the_proxy_about_an_attested_image() {
    let scene = Scene::new("fallback").await;
    let daemon = scene.dockerd(Kind::Debian14ContainerdStore);
    for (registry, prefix, name) in REGISTRIES {
        let pushed = scene.site.put(prefix, name);
        attest(&scene.site.azure, &format!("{prefix}/{name}"), &pushed);
        attest(&scene.site.hub, name, &pushed);
        run(&mut daemon.docker(PATIENCE, &format!("pull {registry}/{name}:{TAG}")));
        assert!(scene.site.hub.requests().is_empty(), "{registry}: {:#?}", scene.site.hub.requests());
    }
}

/// Gives the tag an index as BuildKit makes it: the image, and a manifest of statements about it.
fn attest(registry: &Emulator, repository: &str, pushed: &Pushed) {
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let (architecture, image) = pushed.manifests.first().expect("one architecture");
    let statement = registry.attach(repository, image, "application/vnd.in-toto+json", "{}");
    let descriptor = |digest: &str, os: &str, architecture: &str| {
        let size = registry.manifest(repository, digest).expect("pushed").len();
        let platform = json!({"os": os, "architecture": architecture});
        json!({"mediaType": MANIFEST, "digest": digest, "size": size, "platform": platform})
    };
    let mut attestation = descriptor(&statement, "unknown", "unknown");
    attestation["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": image,
    });
    let manifests = [descriptor(image, "linux", architecture), attestation];
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    registry.put_manifest(repository, TAG, INDEX, index.to_string());
}

/// The proxy has no pushes, and comes before the registry for everything else.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn dockerd_28_pushes_to_the_registry_itself() {
    let scene = Scene::new("fallback").await;
    let daemon = scene.dockerd(Kind::Debian14ContainerdStore);
    let (registry, prefix, name) = REGISTRIES[1];
    scene.site.put(prefix, name);
    let reference = format!("{registry}/{name}:{TAG}");
    run(&mut daemon.docker(PATIENCE, &format!("pull {reference}")));
    let pushed = format!("{registry}/{name}:pushed");
    run(&mut daemon.docker(PATIENCE, &format!("tag {reference} {pushed}")));
    // Nor does the emulator take any: what counts is who was asked.
    fail(&mut daemon.docker(PATIENCE, &format!("push {pushed}")));
    let asked = of_repository(&scene.site.hub.requests(), name);
    assert!(!asked.is_empty(), "{}", scene.proxy.log());
    let log = scene.proxy.log();
    assert!(!log.contains("/manifests/pushed") && !log.contains("/blobs/uploads/"), "{log}");
}
