//! `doctor` of this machine, on which dockerd, containerd and podman run: as they should be, and with what goes wrong most.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use acr_emulator::Hop;
use serde_json::Value;

use crate::client_config::Site;
use crate::containerd::Containerd;
use crate::containers;
use crate::docker::{Docker, Kind};
use crate::namespace::Bound;
use crate::program::run;
use crate::tree::Tree;
use testkit::PATIENCE;

const PODMAN: &str = "/etc/containers/registries.conf.d";
/// Below a user's home.
const USERS: &str = ".config/containers/registries.conf";
const CONTAINERD: &str = "/etc/containerd";

/// A proxy, and the files of all three engines where they look for them.
struct Scene {
    /// Goes before the tree does.
    _bound: [Bound; 2],
    site: Site,
    tree: PathBuf,
    config: PathBuf,
}

impl Scene {
    async fn new() -> Self {
        let site = Site::start().await;
        let [tree, ..] = ["docker", "containerd", "podman"].map(|client| site.written(client));
        let home = &site.mirror.home;
        // The address that the proxy has got.
        let settings = std::fs::read_to_string(&site.config).expect("written");
        let settings = settings.replace("127.0.0.1:0", &site.mirror.address());
        let config = home.file("doctor.yaml", &settings);
        containers::configure(home, "");
        std::fs::remove_file(home.path().join(USERS)).expect("written");
        std::fs::write(tree.join("etc/containerd/config.toml"), "").expect("written");
        let bound = [PODMAN, CONTAINERD].map(|directory| Bound::directory(tree.join(&directory[1..]), directory));
        Self { _bound: bound, site, tree, config }
    }

    fn doctor(&self, flags: &[&str]) -> Value {
        let home = &self.site.mirror.home;
        let mut command = home.client(PATIENCE, env!("CARGO_BIN_EXE_acr-cache-proxy"));
        command.args(["doctor", "--json", "--config"]).arg(&self.config).args(flags);
        // Both work on every filesystem.
        command.env("CONTAINERD_SNAPSHOTTER", "native");
        command.env("CONTAINERS_STORAGE_CONF", home.path().join(".config/containers/storage.conf"));
        let output = command.output().expect("it runs");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|wrong| panic!("{wrong}: {output:?}"))
    }

    /// The codes of each part's findings, of the parts that have some.
    fn found(&self) -> BTreeMap<String, Vec<String>> {
        let report = self.doctor(&[]);
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let parts = report["parts"].as_array().expect("parts").iter().map(|part| {
            let findings = part["findings"].as_array().expect("findings").iter();
            (text(&part["name"]), findings.map(|finding| text(&finding["code"])).collect::<Vec<_>>())
        });
        parts.filter(|(_, codes)| !codes.is_empty()).collect()
    }

    fn expect(&self, found: &[(&str, &str)]) {
        let expected: BTreeMap<_, _> =
            found.iter().map(|(part, code)| ((*part).to_owned(), vec![(*code).to_owned()])).collect();
        assert_eq!(self.found(), expected, "{:#}", self.doctor(&[]));
    }
}

/// Puts a socket where `doctor` looks for it; another test may have put its own there.
fn link(socket: &Path, to: &str) {
    let _ = std::fs::remove_file(to);
    symlink(socket, to).expect("linked");
}

/// Who pulls where no crictl is.
const CTR: &str = "ctr, by the files that containerd reads,";

fn change(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).expect("there");
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replacen(from, to, 1)).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn what_runs_is_judged_by_what_it_has_loaded() {
    let scene = Scene::new().await;
    let (home, at) = (&scene.site.mirror.home, scene.site.mirror.address());
    let docker = Docker::start_by(home, &scene.tree, Kind::Debian12);
    // After dockerd, which takes a containerd that it finds there for its own.
    let containerd = Containerd::start_by(home, PathBuf::from("/etc/containerd/certs.d"));
    std::fs::create_dir_all("/run/containerd").expect("made");
    link(&home.path().join("docker.sock"), "/run/docker.sock");
    link(&home.path().join("containerd.sock"), "/run/containerd/containerd.sock");
    scene.expect(&[]);

    let report = scene.doctor(&[]);
    let of = |name: &str| {
        let parts = report["parts"].as_array().expect("parts");
        parts.iter().find(|part| part["name"] == name).unwrap_or_else(|| panic!("no {name}: {report:#}")).clone()
    };
    for name in ["dockerd", "containerd", "podman"] {
        assert!(of(name)["version"].is_string() && of(name)["pulls"]["docker.io"] == "proxy", "{:#}", of(name));
    }
    assert_eq!([&of("dockerd")["runs"], &of("containerd")["runs"]], [true, true]);

    // Each really pulls through the proxy, which has no admin listener here, so that its log tells.
    let image = &scene.site.mirror.pulls()[0];
    let report = scene.doctor(&["--pull", &image.reference]);
    assert_eq!(report["findings"], 0, "{report:#}");
    for name in ["dockerd", CTR, "podman"] {
        assert!(report.to_string().contains(&format!("{name} has pulled {}", image.reference)), "{report:#}");
    }
    let requests = scene.site.mirror.azure.requests();
    for agent in ["docker/", "containerd/", "containers/"] {
        let is_its = |request: &acr_emulator::Recorded| {
            request.hop == Hop::Storage && request.header("user-agent").is_some_and(|name| name.starts_with(agent))
        };
        assert!(requests.iter().any(is_its), "{agent}: {requests:#?}");
    }

    // dockerd goes by what it has loaded until it is told.
    let json = home.path().join("daemon.json");
    change(&json, &at, "127.0.0.1:1");
    scene.expect(&[("dockerd", "address")]);
    run(Command::new("pkill").args(["-HUP", "--pidfile"]).arg(home.path().join("dockerd.pid")));
    let info = || run(&mut docker.docker(PATIENCE, "info --format {{.RegistryConfig.Mirrors}}"));
    let until = |has: &str| {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !info().contains(has) {
            assert!(std::time::Instant::now() < deadline, "dockerd does not read its file: {}", info());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    until("127.0.0.1:1");
    change(&json, "127.0.0.1:1", &at);
    scene.expect(&[("dockerd", "not-loaded")]);
    run(Command::new("pkill").args(["-HUP", "--pidfile"]).arg(home.path().join("dockerd.pid")));
    until(&at);
    scene.expect(&[]);

    // containerd reads hosts.toml at each pull, and its own file at its start.
    let hosts = scene.tree.join("etc/containerd/certs.d/docker.io/hosts.toml");
    change(&hosts, &at, "127.0.0.1:1");
    scene.expect(&[("containerd", "address")]);
    change(&hosts, "127.0.0.1:1", &at);
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    let settings = std::fs::File::options().append(true).open(home.path().join("containerd.toml")).expect("there");
    settings.set_modified(later).expect("a time");
    scene.expect(&[("containerd", "not-loaded")]);
    drop(containerd);
    std::fs::remove_file("/run/containerd/containerd.sock").expect("there");

    let other = scene.tree.join("etc/containers/registries.conf.d/99-other.conf");
    std::fs::write(&other, "[[registry]]\nlocation = \"docker.io\"\n").expect("written");
    let found = scene.found();
    assert_eq!(found.get("podman"), Some(&vec!["hidden".to_owned()]), "{found:?}");
    std::fs::remove_file(&other).expect("there");
    assert_eq!(scene.found().get("podman"), None);
    home.file(USERS, "unqualified-search-registries = [\"docker.io\"]\n");
    let found = scene.found();
    assert_eq!(found.get("podman"), Some(&vec!["hidden".to_owned()]), "{found:?}");
    let pulled = scene.doctor(&["--pull", &image.reference]).to_string();
    assert!(pulled.contains(&format!("a pull of {} fails", image.reference)), "{pulled}");
}

/// Release 28 and later say null where they have loaded no mirror.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_dockerd_28_that_was_not_told_of_its_file_is_found() {
    let scene = Scene::new().await;
    let home = &scene.site.mirror.home;
    std::fs::remove_file(scene.tree.join("etc/docker/daemon.json")).expect("written");
    let docker = Docker::start_by(home, &scene.tree, Kind::Debian14);
    link(&home.path().join("docker.sock"), "/run/docker.sock");
    assert!(!run(&mut docker.docker(PATIENCE, "info")).contains("Registry Mirrors"));
    // The second is for builds, which need a hosts.toml for ghcr.io.
    let both = |first: &str| Some(vec![first.to_owned(), "no-mirror".to_owned()]);
    assert_eq!(scene.found().remove("dockerd"), both("no-mirror"), "{:#}", scene.doctor(&[]));

    let mirrors = format!("{{\"registry-mirrors\":[\"http://{}\"],", scene.site.mirror.address());
    change(&home.path().join("daemon.json"), "{", &mirrors);
    assert_eq!(scene.found().remove("dockerd"), both("not-loaded"), "{:#}", scene.doctor(&[]));
}

/// ctr reads no `config.toml`, so it is told by flags what counts for a kubelet.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_pull_by_ctr_goes_where_those_of_a_kubelet_go() {
    let scene = Scene::new().await;
    let home = &scene.site.mirror.home;
    let elsewhere = home.path().join("elsewhere");
    std::fs::rename(scene.tree.join("etc/containerd/certs.d"), &elsewhere).expect("moved");
    let containerd = Containerd::start_by(home, elsewhere);
    std::fs::create_dir_all("/run/containerd").expect("made");
    link(&home.path().join("containerd.sock"), "/run/containerd/containerd.sock");
    let image = &scene.site.mirror.pulls()[0].reference;
    let report = scene.doctor(&["--pull", image]).to_string();
    assert!(report.contains(&format!("{CTR} has pulled {image}")), "{report}");

    // In no directory that is read.
    change(&home.path().join("containerd.toml"), "  config_path", "  #config_path");
    let report = scene.doctor(&["--pull", image]).to_string();
    assert!(!report.contains(&format!("{CTR} has pulled {image}")), "{report}");
    drop(containerd);
}

/// Of a closed route nobody else is asked, so a pull that worked before would fail. And podman makes its store at the first question that is
/// more than its version.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn nothing_is_written_for_a_proxy_that_does_not_run() {
    let site = Site::start().await;
    let home = &site.mirror.home;
    let etc = home.path().join("containers");
    std::fs::create_dir(&etc).expect("made");
    let _bound = Bound::directory(etc.clone(), "/etc/containers");
    let settings = std::fs::read_to_string(&site.config).expect("written");
    let config = home.file("down.yaml", &settings.replace("127.0.0.1:0", "127.0.0.1:1"));
    let mut command = home.client(PATIENCE, env!("CARGO_BIN_EXE_acr-cache-proxy"));
    let output = command.args(["doctor", "--fix", "--config"]).arg(&config).output().expect("it runs");
    let [said, complaint] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        complaint.contains("no file is written") && complaint.contains("nothing answers at 127.0.0.1:1"),
        "{complaint}"
    );
    assert!(said.contains("podman      4") || said.contains("podman      5"), "its version: {said}");
    assert_eq!(std::fs::read_dir(&etc).expect("there").count(), 0, "{said}");
    for store in [Path::new("/var/lib/containers"), &home.path().join(".local"), &home.path().join(".rpmdb")] {
        assert!(!store.exists(), "{store:?}");
    }
}

/// dockerd itself says which keys and which types it does not start with. It is inside of the tree that doctor runs, as on a host.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_daemon_json_that_dockerd_refuses_is_found() {
    const WHERE: &str = "/opt/acr-cache-proxy";
    let site = Site::start().await;
    let (home, at) = (&site.mirror.home, site.mirror.address());
    let tree = Tree::mount(home, 14);
    let program = Path::new(env!("CARGO_BIN_EXE_acr-cache-proxy")).parent().expect("a directory");
    tree.bind(program, WHERE);
    let etc = home.path().join("etc-docker");
    std::fs::create_dir(&etc).expect("made");
    tree.bind(&etc, "/etc/docker");
    for (more, wrong) in [
        (
            r#""blocked-registries": ["a"]"#,
            "dockerd --validate says: the following directives don't match any configuration option: blocked-registries",
        ),
        (
            r#""bip": 7"#,
            "dockerd --validate says: invalid JSON: json: cannot unmarshal number into Go struct field Config.bip of type string",
        ),
        (r#""debug": true"#, ""),
    ] {
        let json = format!("{{\"registry-mirrors\": [\"http://{at}\"], {more}}}");
        std::fs::write(etc.join("daemon.json"), json).expect("written");
        let words = format!(
            "{WHERE}/acr-cache-proxy doctor --json --upstream-domain example.azurecr.io --upstream-prefix hub --listen-address {at}"
        );
        let output = tree.program(PATIENCE, &words).output().expect("it runs");
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|wrong| panic!("{wrong}: {output:?}"));
        let parts = report["parts"].as_array().expect("parts");
        let dockerd = parts.iter().find(|part| part["name"] == "dockerd").unwrap_or_else(|| panic!("{report:#}"));
        let texts: Vec<_> = dockerd["findings"].as_array().expect("findings").iter().map(|one| &one["text"]).collect();
        let expected: Vec<_> = [wrong].into_iter().filter(|wrong| !wrong.is_empty()).collect();
        assert_eq!(texts, expected, "{dockerd:#}");
        assert_eq!(dockerd["pulls"]["docker.io"], if expected.is_empty() { "proxy" } else { "nowhere" }, "{dockerd:#}");
        assert!(dockerd["version"].as_str().is_some_and(|version| version.starts_with("28.")), "{dockerd:#}");
    }
}
