//! Each of them by the files that `client-config` has put in place.

use std::path::PathBuf;
use std::process::Command;

use acr_emulator::{Emulator, Hop, Image};

use crate::containerd::{self, Containerd, Release};
use crate::docker::{Docker, Kind};
use crate::mirror::Mirror;
use crate::program::{self, fail, run};
use crate::tree::Tree;
use crate::{containers, namespace};
use testkit::{PATIENCE, Setup};

/// Where the files are unless they are elsewhere.
const CERTS_D: &str = "/etc/containerd/certs.d";
/// What no route's cache holds, in a registry that has a source to fall back to and in a closed one.
const MISSING_OPEN: &str = "docker.io/library/missing:1.0";
const MISSING_CLOSED: &str = "ghcr.io/org/missing:1.0";
/// In the closed registry.
const APP: &str = "ghcr.io/org/app:1.0";

/// A proxy with two routes, and a tree with a client's files.
pub(crate) struct Site {
    pub mirror: Mirror,
    pub config: PathBuf,
}

impl Site {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    /// A proxy that listens there.
    async fn start_at(listen: &str) -> Self {
        namespace::assert_isolated();
        let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
        let authority = format!("example.azurecr.io:{}", azure.registry_addr().port());
        let setup = Setup::new(&azure);
        let route = |source: &str, prefix: &str, on_failure: &str| {
            format!(
                "- {{source: {source}, prefix: {prefix}, on_failure: {on_failure}, domain: '{authority}', addresses: [127.0.0.1]}}\n"
            )
        };
        let routes = route("docker.io", "hub", "fallback") + &route("ghcr.io", "ghcr", "closed");
        let rest = format!("listen: '{listen}'\nca_file: {}\nlog: info\n", setup.path("ca.pem").display());
        let config = setup.file("routes.yaml", format!("routes:\n{routes}{rest}"));
        let proxy = setup.flag("--config", &config.to_string_lossy()).start();
        let mirror = Mirror::of(azure, proxy, &authority);
        let app = Image::small("ghcr/org/app", "1.0").with_arches(&[mirror.pulls()[0].arch]);
        mirror.azure.push(app.with_binary(program::installed("busybox")));
        Self { mirror, config }
    }

    /// The command, for this proxy.
    fn client_config(&self, client: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        command.args(["client-config", client, "--config"]).arg(&self.config);
        command.args(["--mirror", &self.mirror.proxy.url("")]);
        command
    }

    /// The tree that a client's files are written to.
    pub(crate) fn written(&self, client: &str) -> PathBuf {
        let tree = self.mirror.home.path().join("tree");
        std::fs::create_dir_all(&tree).expect("a directory");
        run(self.client_config(client).arg("--write").arg("--root").arg(&tree));
        tree
    }

    /// Whether the cache was asked for the image of the closed registry, and gave it.
    fn has_given_the_app(&self) -> bool {
        let manifest = "/v2/ghcr/org/app/manifests/";
        self.mirror
            .azure
            .requests()
            .iter()
            .any(|request| request.hop == Hop::Data && request.status == 200 && request.target.starts_with(manifest))
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn containerd_pulls_by_the_written_files() {
    let site = Site::start().await;
    let hosts = site.written("containerd").join("etc/containerd/certs.d");
    ctr_pulls(&site, &Containerd::start_by(&site.mirror.home, hosts));
}

fn ctr_pulls(site: &Site, containerd: &Containerd<'_>) {
    let ctr = |reference: &str| containerd.pull(PATIENCE, reference);
    let pull = &site.mirror.pulls()[0];
    run(&mut ctr(&pull.reference));
    site.mirror.verify(pull, "containerd/");
    run(&mut ctr(APP));
    assert!(site.has_given_the_app());
    // In this namespace nobody answers: what is asked shows in the error.
    let said = fail(&mut ctr(MISSING_OPEN));
    assert!(said.contains("https://registry-1.docker.io/"), "{said}");
    let said = fail(&mut ctr(MISSING_CLOSED));
    assert!(said.contains("not found") && !said.contains("https://ghcr.io"), "{said}");
}

/// Each lines for `config.toml` that the program prints, in a file of each version that they are said to be for, in the
/// containerd that they are said to be for. What a kubelet asks for then comes by the files.
async fn containerd_finds_the_files_by_the_printed_lines(release: Release, version: u8) {
    let site = Site::start().await;
    let hosts = site.written("containerd").join("etc/containerd/certs.d");
    let printed = run(&mut site.client_config("containerd"));
    let mut lines = printed.lines().skip_while(|line| {
        !line.contains(&format!("# version = {version} (")) && !line.contains(&format!(", version = {version} ("))
    });
    lines.next().unwrap_or_else(|| panic!("no lines for version {version}: {printed}"));
    let lines: Vec<_> = lines.take(2).map(|line| line.replace(CERTS_D, &hosts.to_string_lossy())).collect();
    let config = format!("version = {version}\n{}\n", lines.join("\n"));
    let containerd = Containerd::start_with(&site.mirror.home, hosts, release, &config);
    for reference in [&site.mirror.pulls()[0].reference, APP] {
        let answer = run(&mut containerd.cri_pull(PATIENCE, reference));
        assert!(containerd::cri_succeeded(&answer), "{reference}: {answer}");
    }
    assert!(site.has_given_the_app());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn containerd_1_finds_the_files_by_the_printed_lines() {
    containerd_finds_the_files_by_the_printed_lines(Release::Debian12, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn containerd_2_finds_the_files_by_the_printed_lines_for_itself_and_for_containerd_1() {
    for release in [Release::Debian14, Release::Newest] {
        containerd_finds_the_files_by_the_printed_lines(release, 3).await;
        containerd_finds_the_files_by_the_printed_lines(release, 2).await;
    }
    containerd_finds_the_files_by_the_printed_lines(Release::Newest, 4).await;
}

/// What the program and docs/clients.md say of IPv6 addresses: containerd 1 goes to the registry even where its route is closed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_hosts_toml_with_an_ipv6_address_is_for_containerd_2_and_no_file_for_containerd_1() {
    let site = Site::start_at("[::1]:0").await;
    let hosts = site.written("containerd").join("etc/containerd/certs.d");
    {
        let containerd = Containerd::start_by(&site.mirror.home, hosts.clone());
        let said = fail(&mut containerd.pull(PATIENCE, APP));
        assert!(said.contains("https://ghcr.io/") && !site.has_given_the_app(), "{said}");
    }
    let config = format!(
        "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"{}\"\n",
        hosts.display()
    );
    let containerd = Containerd::start_with(&site.mirror.home, hosts, Release::Debian14, &config);
    let answer = run(&mut containerd.cri_pull(PATIENCE, APP));
    assert!(containerd::cri_succeeded(&answer) && site.has_given_the_app(), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn podman_pulls_by_the_written_file() {
    podman_pulls_by_the_file(false).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn the_newest_podman_pulls_by_the_written_file() {
    podman_pulls_by_the_file(true).await;
}

async fn podman_pulls_by_the_file(newest: bool) {
    let site = Site::start().await;
    let tree = newest.then(|| Tree::newest(&site.mirror.home));
    let conf = site.written("podman").join("etc/containers/registries.conf.d/50-acr-cache-proxy.conf");
    containers::configure(&site.mirror.home, "");
    let podman = |reference: &str| {
        let mut podman =
            containers::client_by(&site.mirror.home, tree.as_ref(), PATIENCE, &format!("podman pull {reference}"));
        podman.env("CONTAINERS_REGISTRIES_CONF", &conf);
        podman
    };
    run(&mut podman(&site.mirror.pulls()[0].reference));
    run(&mut podman(APP));
    assert!(site.has_given_the_app());
    let log = site.mirror.proxy.log();
    assert!(log.contains("/v2/docker.io/library/by-tag/manifests/") && log.contains("/v2/ghcr.io/org/app/"), "{log}");
    let said = fail(&mut podman(MISSING_OPEN));
    assert!(said.contains("https://registry-1.docker.io/"), "{said}");
    let said = fail(&mut podman(MISSING_CLOSED));
    assert!(!said.contains("https://ghcr.io"), "{said}");
}

/// Before 28 dockerd has mirrors of Docker Hub only, and so has 28 where the images are in its own store.
async fn dockerd_pulls_from_docker_hub_by_the_written_files(kind: Kind) {
    let site = Site::start().await;
    let tree = site.written("docker");
    let daemon = Docker::start_by(&site.mirror.home, &tree, kind);
    let pull = &site.mirror.pulls()[0];
    run(&mut daemon.docker(PATIENCE, &format!("pull --quiet {}", pull.reference)));
    site.mirror.verify(pull, "docker/");
    let said = fail(&mut daemon.docker(PATIENCE, &format!("pull {APP}")));
    assert!(said.contains("https://ghcr.io/v2/"), "{said}");
    assert!(!site.has_given_the_app());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn dockerd_20_pulls_by_the_written_files() {
    dockerd_pulls_from_docker_hub_by_the_written_files(Kind::Debian12).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn dockerd_26_with_containerds_store_pulls_by_the_written_files() {
    dockerd_pulls_from_docker_hub_by_the_written_files(Kind::ContainerdStore).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn dockerd_28_with_its_own_store_pulls_by_the_written_files() {
    dockerd_pulls_from_docker_hub_by_the_written_files(Kind::Debian14).await;
}

/// Its mirror from before is one that nobody answers at, so that it shows who is asked first. A daemon does not start by a file
/// with a key that it does not know.
async fn dockerd_takes_a_file_that_was_merged_into_and_asks_the_proxy_first(kind: Kind) {
    let site = Site::start().await;
    let tree = site.mirror.home.path().join("tree");
    let file = tree.join("etc/docker/daemon.json");
    std::fs::create_dir_all(tree.join("etc/docker")).expect("made");
    let old = "{\n  \"labels\": [\"kept=yes\"],\n  \"registry-mirrors\": [\n    \"http://127.0.0.1:9\"\n  ]\n}\n";
    std::fs::write(&file, old).expect("written");
    run(site.client_config("docker").args(["--write", "--merge", "--root"]).arg(&tree));
    let daemon = Docker::start_by(&site.mirror.home, &tree, kind);
    let pull = &site.mirror.pulls()[0];
    run(&mut daemon.docker(PATIENCE, &format!("pull --quiet {}", pull.reference)));
    site.mirror.verify(pull, "docker/");
    let info = run(&mut daemon.docker(PATIENCE, "info"));
    assert!(info.contains("kept=yes") && info.contains("http://127.0.0.1:9/"), "{info}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn dockerd_20_takes_a_file_that_was_merged_into_and_asks_the_proxy_first() {
    dockerd_takes_a_file_that_was_merged_into_and_asks_the_proxy_first(Kind::Debian12).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn dockerd_28_takes_a_file_that_was_merged_into_and_asks_the_proxy_first() {
    dockerd_takes_a_file_that_was_merged_into_and_asks_the_proxy_first(Kind::Debian14).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_nodes_script_writes_the_files_and_looks_whether_containerd_reads_them() {
    let site = Site::start().await;
    let script = site.written("kubernetes").join("etc/acr-cache-proxy/setup-node.sh");
    let certs = site.mirror.home.path().join("node-certs");
    let node = |config: &str| {
        let config = site.mirror.home.file("node.toml", config);
        let mut node = site.mirror.home.client(PATIENCE, &format!("sh {}", script.display()));
        node.env("CERTS_D", &certs).env("CONTAINERD_CONFIG", config);
        node
    };
    let said = fail(&mut node("version = 2\n"));
    assert!(said.contains("io.containerd.cri.v1.images") && said.contains("looks for hosts.toml in \"\""), "{said}");
    let elsewhere = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/elsewhere\"\n";
    assert!(fail(&mut node(elsewhere)).contains("in \"/elsewhere\""));
    let right = elsewhere.replace("/elsewhere", &certs.to_string_lossy());
    run(&mut node(&right));

    let hub = certs.join("docker.io/hosts.toml");
    let ours = std::fs::read(&hub).expect("written");
    let in_the_tree = site.mirror.home.path().join("tree/etc/containerd/certs.d/docker.io/hosts.toml");
    assert_eq!(ours, std::fs::read(in_the_tree).expect("written"));
    std::fs::write(&hub, "# by hand\n").expect("written");
    let said = fail(&mut node(&right));
    assert!(said.contains("is left as it is") && said.contains("[host.\"http://127.0.0.1:"), "{said}");
    assert_eq!(std::fs::read_to_string(&hub).expect("there"), "# by hand\n");
    std::fs::write(&hub, &ours).expect("written");
    run(&mut node(&right));

    let mut without = node(&right);
    let said = fail(without.env("CONTAINERD_CONFIG", site.mirror.home.path().join("none.toml")));
    assert!(said.contains("there is no ") && said.contains("# version = 2 (containerd 1"), "{said}");

    let (stale, foreign) = (certs.join("gone.example/hosts.toml"), certs.join("foreign.example/hosts.toml"));
    for (file, content) in [(&stale, &ours[..]), (&foreign, b"# by hand\n")] {
        std::fs::create_dir_all(file.parent().expect("a directory")).expect("made");
        std::fs::write(file, content).expect("written");
    }
    let said = run(&mut node(&right));
    assert!(said.matches("is left from a route that is gone").count() == 1 && said.contains("gone.example"), "{said}");
    let said = run(node(&right).arg("--prune"));
    assert_eq!(said, format!("removed {}\n", stale.display()));
    let left = |of: &str| certs.join(of).exists();
    assert!(!left("gone.example") && left("foreign.example/hosts.toml") && left("docker.io/hosts.toml"));
    assert!(fail(node(&right).arg("--purge")).contains("--purge is neither --prune nor --remove"));
    run(node(&right).arg("--remove"));
    assert!(left("foreign.example/hosts.toml") && !left("docker.io") && !left("ghcr.io"));
    run(&mut node(&right));

    ctr_pulls(&site, &Containerd::start_by(&site.mirror.home, certs));
}
