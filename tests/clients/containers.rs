//! podman, buildah and skopeo, which share one library.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::home::Home;
use crate::mirror::{CACHES, Mirror, Pull};
use crate::program::run;
use crate::tree::Tree;
use testkit::{AT_ONCE, PATIENCE};

/// Docker Hub with a mirror before it, for podman, buildah and skopeo.
pub(crate) fn mirrored(mirror: &str) -> String {
    mirrored_registry("docker.io", mirror)
}

/// A registry with a mirror before it; the mirror may have a path.
pub(crate) fn mirrored_registry(registry: &str, mirror: &str) -> String {
    let mirror = format!("[[registry.mirror]]\nlocation = \"{mirror}\"\ninsecure = true\n");
    format!("[[registry]]\nprefix = \"{registry}\"\nlocation = \"{registry}\"\n{mirror}")
}

/// A registry in whose place another address is asked, and nobody else.
pub(crate) fn replaced(registry: &str, location: &str) -> String {
    format!("[[registry]]\nprefix = \"{registry}\"\nlocation = \"{location}\"\ninsecure = true\n")
}

/// Writes the settings of the three.
pub(crate) fn configure(home: &Home, registries: &str) {
    home.file(".config/containers/registries.conf", registries);
    let policy = json!({"default": [{"type": "insecureAcceptAnything"}]});
    home.file(".config/containers/policy.json", &policy.to_string());
    let path = home.path().display();
    // vfs works on every filesystem, an overlay too.
    home.file(
        ".config/containers/storage.conf",
        &format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{path}/graph\"\nrunroot = \"{path}/run\"\n"),
    );
}

/// One of the three; root's settings would be those of the machine, so that they are named one by one.
pub(crate) fn client(home: &Home, limit: Duration, words: &str) -> Command {
    client_by(home, None, limit, words)
}

/// The same of a tree, if there is one.
pub(crate) fn client_by(home: &Home, tree: Option<&Tree<'_>>, limit: Duration, words: &str) -> Command {
    let mut command = match tree {
        Some(tree) => tree.program(limit, words),
        None => home.client(limit, words),
    };
    let settings = home.path().join(".config/containers");
    command.env("CONTAINERS_REGISTRIES_CONF", settings.join("registries.conf"));
    command.env("CONTAINERS_STORAGE_CONF", settings.join("storage.conf"));
    command
}

/// `podman pull` into a store that nothing else uses.
pub(crate) fn pull_into_new_root(home: &Home, limit: Duration, reference: &str) -> Command {
    pull_into_new_root_by(home, None, limit, reference)
}

/// The same by the podman of a tree, with the file that `client-config` has written below the home.
pub(crate) fn pull_into_new_root_by(home: &Home, tree: Option<&Tree<'_>>, limit: Duration, reference: &str) -> Command {
    // podman takes no runroot of more than 50 characters.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let root = format!("{}/{}", home.path().display(), NEXT.fetch_add(1, Ordering::Relaxed));
    let words = format!("podman --root {root}/graph --runroot {root}/run --storage-driver vfs pull {reference}");
    let Some(tree) = tree else { return client(home, limit, &words) };
    let mut command = tree.program(limit, &words);
    let conf = home.path().join("etc/containers/registries.conf.d/50-acr-cache-proxy.conf");
    command.env("CONTAINERS_REGISTRIES_CONF", conf);
    command.env("CONTAINERS_STORAGE_CONF", home.path().join(".config/containers/storage.conf"));
    command
}

/// A client, how its User-Agent begins, and its words for a pull and for the architecture of what was pulled.
pub(crate) struct Client {
    agent: &'static str,
    pull: fn(&Pull) -> String,
    arch: fn(&Pull) -> String,
}

const PODMAN: Client = Client {
    agent: "containers/",
    pull: |pull| format!("podman pull {} {}", arch_flag("--arch", pull), pull.reference),
    arch: |pull| format!("podman image inspect --format {{{{.Architecture}}}} {}", pull.reference),
};
const BUILDAH: Client = Client {
    agent: "Buildah/",
    pull: |pull| format!("buildah pull {} {}", arch_flag("--arch", pull), pull.reference),
    arch: |pull| format!("buildah inspect --type image --format {{{{.OCIv1.Architecture}}}} {}", pull.reference),
};
pub(crate) const SKOPEO: Client = Client {
    agent: "skopeo/",
    pull: |pull| {
        let flag = arch_flag("--override-arch", pull);
        format!("skopeo {flag} copy docker://{} oci:layout:{}", pull.reference, pull.name)
    },
    arch: |pull| {
        let flag = arch_flag("--override-arch", pull);
        format!("skopeo {flag} inspect --config --format {{{{.Architecture}}}} oci:layout:{}", pull.name)
    },
};

fn arch_flag(name: &str, pull: &Pull) -> String {
    pull.platform.map(|arch| format!("{name} {arch}")).unwrap_or_default()
}

impl Client {
    /// Every pull of the table.
    async fn check(&self) {
        self.check_by(false).await;
    }

    /// The same, by the newest there is.
    async fn check_by(&self, newest: bool) {
        for cache in CACHES {
            let mirror = Mirror::start(cache).await;
            let tree = newest.then(|| Tree::newest(&mirror.home));
            configure(&mirror.home, &mirrored(&mirror.address()));
            for pull in mirror.pulls() {
                self.pull_by(tree.as_ref(), &mirror, pull);
            }
        }
    }

    /// One pull, by what was seen of it and by what the client says that it has.
    pub(crate) fn pull_and_verify(&self, mirror: &Mirror, pull: &Pull) {
        self.pull_by(None, mirror, pull);
    }

    fn pull_by(&self, tree: Option<&Tree<'_>>, mirror: &Mirror, pull: &Pull) {
        let by = |words: String| client_by(&mirror.home, tree, PATIENCE, &words);
        run(&mut by((self.pull)(pull)));
        mirror.verify(pull, self.agent);
        let arch = run(&mut by((self.arch)(pull)));
        assert_eq!(arch.trim(), pull.arch, "{}", pull.reference);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn podman_pulls() {
    PODMAN.check().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn the_newest_podman_pulls() {
    PODMAN.check_by(true).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn buildah_pulls() {
    BUILDAH.check().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn skopeo_pulls() {
    SKOPEO.check().await;
}

/// `insecure = true` is first TLS and then, if that fails, plain HTTP: the wait for the failure is podman's whole
/// delay, and CRI-O's.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_tls_client_hello_on_the_plain_port_is_dropped_at_once() {
    let mirror = Mirror::start("{}").await;
    configure(&mirror.home, &mirrored(&mirror.address()));
    let pull = &mirror.pulls()[0];
    let words = format!("podman --log-level debug pull {}", pull.reference);
    let mut podman = client(&mirror.home, PATIENCE, &words).stderr(Stdio::piped()).spawn().expect("podman starts");
    let printed = BufReader::new(podman.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let printed: Vec<_> = printed.map(|line| (Instant::now(), line)).collect();
    assert!(podman.wait().expect("it ends").success(), "{printed:#?}");
    let asked = |scheme: &str| {
        let asks = format!("GET {scheme}://{}/v2/", mirror.address());
        let line = printed.iter().find(|(_, line)| line.contains(&asks));
        line.unwrap_or_else(|| panic!("no {asks}: {printed:#?}")).0
    };
    let took = asked("http").duration_since(asked("https"));
    assert!(took < AT_ONCE, "{took:?}: {printed:#?}");
    mirror.verify(pull, PODMAN.agent);
}
