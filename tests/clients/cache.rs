//! What the cache changes for real engines: whom a pull of a warm image costs something, what goes on while Azure fails, and
//! when a tag that has moved is seen.

use std::process::Command;
use std::time::Instant;

use acr_emulator::{Fault, Hop, Image, Recorded, Server};

use crate::containerd::{self, Containerd, Release};
use crate::containers;
use crate::docker::{Docker, Kind};
use crate::home::Home;
use crate::hub::{Site, TAG, of_repository};
use crate::program::run;
use crate::tree::Tree;
use testkit::{PATIENCE, Proxy, Setup};

/// Each request asks the registry whether what is kept is still right, and what is kept is served where that fails.
const ASK_EACH_TIME: &str = "{tags: 0s, manifests: 0s, redirects: 0s, stale: 1h}";
/// Engines of these tests, each with a home of its own, as on a host of its own.
const ENGINES: usize = 7;

/// An engine's way to pull.
struct Engine<'a> {
    name: &'static str,
    pull: Box<dyn Fn(&str) -> Command + 'a>,
    /// Whether what was printed, by a command that ended well, is a pull that succeeded.
    succeeded: fn(&str) -> bool,
}

impl Engine<'_> {
    fn pull(&self, name: &str) {
        let printed = run(&mut (self.pull)(&format!("docker.io/library/{name}:{TAG}")));
        assert!((self.succeeded)(&printed), "{} {name}: {printed}", self.name);
    }
}

/// A proxy with these settings of `cache`, and homes for its clients. The route is closed: who falls back fails.
struct Scene {
    site: Site,
    proxy: Proxy,
    homes: [Home; ENGINES],
}

impl Scene {
    async fn start(cache: &str) -> Self {
        let site = Site::start().await;
        let setup: Setup = site.proxy(&[("docker.io", "hub")], "closed").cache(cache);
        let config = setup.path("config.yaml");
        let homes = std::array::from_fn(|_| site.home());
        let proxy = setup.start();
        for (home, client) in homes.iter().zip(["docker", "docker", "docker", "containerd", "containerd", "podman"]) {
            home.write_client_config(client, &config, &proxy);
        }
        Self { site, proxy, homes }
    }

    fn engines(&self) -> Vec<Engine<'_>> {
        let [docker, newer_docker, newest_docker, containerd, newest_containerd, newest_podman, skopeo] = &self.homes;
        let dockers = [
            ("docker", docker, Kind::Debian12),
            ("docker 26", newer_docker, Kind::ContainerdStore),
            ("docker 28", newest_docker, Kind::Debian14ContainerdStore),
        ];
        let dockers = dockers.map(|(name, home, kind)| {
            let docker = Docker::start_by(home, home.path(), kind);
            let pull = move |reference: &str| docker.docker(PATIENCE, &format!("pull {reference}"));
            Engine { name, pull: Box::new(pull), succeeded: |_| true }
        });
        let hosts = |home: &Home| home.path().join("etc/containerd/certs.d");
        let ctr = Containerd::start_by(containerd, hosts(containerd));
        let ctr = move |reference: &str| ctr.pull(PATIENCE, reference);
        let config = format!(
            "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"{}\"\n",
            hosts(newest_containerd).display()
        );
        let cri = Containerd::start_with(newest_containerd, hosts(newest_containerd), Release::Debian14, &config);
        let cri = move |reference: &str| cri.cri_pull(PATIENCE, reference);
        containers::configure(newest_podman, "");
        let tree = Tree::mount(newest_podman, 14);
        let podman =
            move |reference: &str| containers::pull_into_new_root_by(newest_podman, Some(&tree), PATIENCE, reference);
        let location = format!("{}/docker.io", self.proxy.address());
        containers::configure(skopeo, &containers::replaced("docker.io", &location));
        let skopeo = move |reference: &str| {
            let name = reference.replace(['/', ':'], "-");
            containers::client(skopeo, PATIENCE, &format!("skopeo copy docker://{reference} oci:{name}"))
        };
        let mut engines = Vec::from(dockers);
        engines.push(Engine { name: "ctr", pull: Box::new(ctr), succeeded: |_| true });
        engines.push(Engine { name: "CRI of 2", pull: Box::new(cri), succeeded: containerd::cri_succeeded });
        engines.push(Engine { name: "podman 5", pull: Box::new(podman), succeeded: |_| true });
        engines.push(Engine { name: "skopeo", pull: Box::new(skopeo), succeeded: |_| true });
        engines
    }

    /// What the registry was asked for an image.
    fn asked(&self, name: &str) -> Vec<Recorded> {
        of_repository(&self.site.azure.requests(), &format!("hub/library/{name}"))
    }

    fn nobody_else_was_asked(&self) {
        assert!(self.site.hub.requests().is_empty(), "{:#?}", self.site.hub.requests());
    }
}

/// The first pull fetches each object once, whichever engine it is; a pull by the engine of another host then costs the
/// registry nothing.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_second_host_costs_the_registry_nothing() {
    let scene = Scene::start("{tags: 1h}").await;
    let engines = scene.engines();
    for (at, first) in engines.iter().enumerate() {
        let name = format!("first-{at}");
        scene.site.put("hub", &format!("library/{name}"));
        first.pull(&name);
        let asked = scene.asked(&name);
        let mut targets: Vec<_> = asked.iter().map(|request| &request.target).collect();
        targets.sort_unstable();
        targets.dedup();
        assert_eq!(targets.len(), asked.len(), "{}: something is asked for twice: {asked:#?}", first.name);
        for second in engines.iter().filter(|second| second.name != first.name) {
            second.pull(&name);
            assert_eq!(scene.asked(&name).len(), asked.len(), "{} after {}: {asked:#?}", second.name, first.name);
        }
    }
    scene.nobody_else_was_asked();
}

/// What is wrong in Azure, and how it begins.
type Trouble = (&'static str, fn(&Site));

/// Troubles while engines pull what is warm.
const TROUBLES: [Trouble; 4] = [
    ("Entra is down", |site| {
        site.azure.revoke_tokens();
        site.azure.inject(Hop::Entra, Fault::Status(503));
        site.azure.inject(Hop::Exchange, Fault::Status(503));
        site.azure.inject(Hop::Token, Fault::Status(503));
    }),
    ("the registry refuses connections", |site| site.azure.refuse_connections(Server::Registry, true)),
    ("the registry answers 429", |site| site.azure.inject(Hop::Data, Fault::Status(429))),
    ("the registry answers 503", |site| site.azure.inject(Hop::Data, Fault::Status(503))),
];

/// With what is kept as long as it is by default, and where each request finds it stale.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_warm_image_is_pulled_while_azure_fails() {
    for cache in ["{}", ASK_EACH_TIME] {
        let scene = Scene::start(cache).await;
        let engines = scene.engines();
        let (skopeo, others) = engines.split_last().expect("engines");
        for (number, (trouble, begin)) in TROUBLES.into_iter().enumerate() {
            let name = format!("trouble-{number}");
            scene.site.put("hub", &format!("library/{name}"));
            skopeo.pull(&name);
            begin(&scene.site);
            for engine in others {
                println!("{cache}: {trouble}: {}", engine.name);
                engine.pull(&name);
            }
            scene.site.azure.refuse_connections(Server::Registry, false);
            scene.site.azure.clear_faults();
            // It is well again when something new can be pulled.
            let next = format!("after-{number}");
            scene.site.put("hub", &format!("library/{next}"));
            let begun = Instant::now();
            while !(skopeo.pull)(&format!("docker.io/library/{next}:{TAG}"))
                .output()
                .expect("it starts")
                .status
                .success()
            {
                assert!(begun.elapsed() < PATIENCE, "{trouble}: it does not recover: {}", scene.proxy.log());
            }
        }
        scene.nobody_else_was_asked();
    }
}

/// By the architecture-dependent content of a tag before and after it moves: the digest that the engine then has.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_tag_that_has_moved_is_seen_after_its_lifetime() {
    let scene = Scene::start("{tags: 1s}").await;
    let engines = scene.engines();
    for (at, engine) in engines.iter().enumerate() {
        let name = format!("moves-{at}");
        let pushed = scene.site.put("hub", &format!("library/{name}"));
        engine.pull(&name);
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let moved = Image::small(&format!("hub/library/{name}"), TAG).with_arches(&[arch]).with_layers(2, 1_000);
        let moved = scene.site.azure.push(moved);
        assert_ne!(pushed.index_digest, moved.index_digest);
        // Kept for its lifetime and once more while the registry is asked; then the engine asks for what it leads to.
        let begun = Instant::now();
        while !scene.asked(&name).iter().any(|request| request.target.ends_with(&moved.blobs[0])) {
            assert!(begun.elapsed() < PATIENCE, "{}: {}", engine.name, scene.proxy.log());
            engine.pull(&name);
        }
    }
    scene.nobody_else_was_asked();
}

/// What docs/clients.md says of `cache: off`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn without_the_cache_a_manifest_that_breaks_off_ends_the_pull_of_containerd() {
    for (cache, succeeds) in [("{}", true), ("off", false)] {
        let site = Site::start().await;
        let proxy = site.proxy(&[("docker.io", "hub")], "fallback").cache(cache).start();
        let home = site.home();
        let hosts = containerd::mirrored(Some("registry-1.docker.io"), &proxy.address().to_string());
        let containerd = Containerd::start(&home, "docker.io", &hosts);
        site.put("hub", "library/cut");
        site.azure.inject(Hop::Data, Fault::CutBody(100).on_path("/manifests/"));
        let output = containerd.pull(PATIENCE, &format!("docker.io/library/cut:{TAG}")).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), succeeds, "{cache}: {said}");
        assert!(succeeds || said.contains("unexpected EOF"), "{cache}: {said}");
        assert_eq!(site.hub.requests().is_empty(), !succeeds, "{cache}: {:#?}", site.hub.requests());
    }
}
