//! containerd, by `ctr` and as a kubelet's container runtime.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::daemon::{DAEMON_LIMIT, Daemon};
use crate::home::Home;
use crate::mirror::{CACHES, Mirror};
use crate::program::run;
use crate::tree::Tree;
use testkit::PATIENCE;

const AGENT: &str = "containerd/";

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// This machine's.
    Debian12,
    Debian14,
    /// What `scripts/install test` has built.
    Newest,
}

impl Release {
    /// Where a program of the newest is.
    pub(crate) fn newest(program: &str) -> String {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("containerd").join(program);
        assert!(path.exists(), "{} is missing: run scripts/install test", path.display());
        path.to_string_lossy().into_owned()
    }
}

/// A running containerd.
pub(crate) struct Containerd<'a> {
    home: &'a Home,
    release: Release,
    hosts: PathBuf,
    socket: PathBuf,
    _daemon: Daemon,
}

/// A `hosts.toml` with the proxy as a mirror of `server`; without one, of whatever registry the file is for.
pub(crate) fn mirrored(server: Option<&str>, mirror: &str) -> String {
    let server = server.map(|server| format!("server = \"https://{server}\"\n")).unwrap_or_default();
    format!("{server}[host.\"http://{mirror}\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
}

/// A `hosts.toml` with the proxy and nobody else. `server` alone says so, too, but containerd 1.6 takes no file without
/// a `host`, and asks the registry.
pub(crate) fn closed(proxy: &str) -> String {
    format!("server = \"http://{proxy}\"\n[host.\"http://{proxy}\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
}

impl<'a> Containerd<'a> {
    /// containerd with this `hosts.toml` for a registry, or for `_default`.
    pub(crate) fn start(home: &'a Home, registry: &str, hosts: &str) -> Self {
        home.file(&format!("certs/{registry}/hosts.toml"), hosts);
        Self::start_by(home, home.path().join("certs"))
    }

    /// That of a release, with a directory of registries that CRI finds, too.
    pub(crate) fn start_release(home: &'a Home, release: Release, hosts: PathBuf) -> Self {
        if release == Release::Debian12 {
            return Self::start_by(home, hosts);
        }
        let version = if release == Release::Newest { 4 } else { 3 };
        let table = "[plugins.\"io.containerd.cri.v1.images\".registry]";
        let config = format!("version = {version}\n{table}\n  config_path = \"{}\"\n", hosts.display());
        Self::start_with(home, hosts, release, &config)
    }

    /// containerd with a directory of registries.
    pub(crate) fn start_by(home: &'a Home, hosts: PathBuf) -> Self {
        let config = format!(
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"{}\"\n",
            hosts.display()
        );
        Self::start_with(home, hosts, Release::Debian12, &config)
    }

    /// That of a release, with the lines that say where CRI finds `hosts`; the first is the version.
    pub(crate) fn start_with(home: &'a Home, hosts: PathBuf, release: Release, lines: &str) -> Self {
        let path = home.path().display();
        let socket = home.path().join("containerd.sock");
        let (version, lines) = lines.split_once('\n').expect("a version");
        // The native snapshotter copies: it works on every filesystem, an overlay too.
        let snapshotter = if version.ends_with(" 2") {
            "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"native\"\n"
        } else {
            "[plugins.\"io.containerd.cri.v1.images\"]\n  snapshotter = \"native\"\n\
             [[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\n  platform = \"linux\"\n  snapshotter = \"native\"\n"
        };
        let grpc = if version.ends_with(" 4") { "plugins.\"io.containerd.server.v1.grpc\"" } else { "grpc" };
        let config = home.file(
            "containerd.toml",
            &format!(
                "{version}\nroot = \"{path}/root\"\nstate = \"{path}/state\"\n[{grpc}]\n  address = \"{}\"\n{snapshotter}{lines}",
                socket.display(),
            ),
        );
        let config = config.display();
        let words = format!("containerd --config {config}");
        let command = match release {
            Release::Debian12 => home.client(DAEMON_LIMIT, &words),
            Release::Debian14 => Tree::mount(home, 14).program(DAEMON_LIMIT, &words),
            Release::Newest => {
                home.client(DAEMON_LIMIT, &format!("{} --config {config}", Release::newest("containerd")))
            }
        };
        let daemon = Daemon::start("containerd", command, home, || UnixStream::connect(&socket).is_ok());
        Self { home, release, hosts, socket, _daemon: daemon }
    }

    /// `ctr`, with words behind its options.
    pub(crate) fn ctr(&self, limit: Duration, words: &str) -> Command {
        let ctr = if self.release == Release::Newest { Release::newest("ctr") } else { "ctr".to_owned() };
        self.home.client(limit, &format!("{ctr} --address {} {words}", self.socket.display()))
    }

    /// `ctr images pull`.
    pub(crate) fn pull(&self, limit: Duration, words: &str) -> Command {
        let hosts = self.hosts.display();
        self.ctr(limit, &format!("images pull --snapshotter native --hosts-dir {hosts} {words}"))
    }

    /// What a kubelet asks of its container runtime for a pull. The answer has `grpc-status: 0` if it succeeds.
    pub(crate) fn cri_pull(&self, limit: Duration, reference: &str) -> Command {
        // PullImageRequest { image: ImageSpec { image: reference } }
        let message = field(&field(reference.as_bytes()));
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        let request = self.home.path().join(format!("request-{}", reference.replace('/', "-")));
        std::fs::write(&request, [&[0][..], &length, &message].concat()).expect("a file is written");
        // gRPC is a POST in HTTP/2 whose outcome is in the trailers, which curl prints among the headers.
        let mut curl =
            self.home.client(limit, "curl --silent --show-error --http2-prior-knowledge --include --output -");
        curl.arg("--unix-socket").arg(&self.socket).arg("--data-binary").arg(format!("@{}", request.display()));
        curl.args(["--header", "Content-Type: application/grpc", "--header", "TE: trailers"]);
        curl.arg("http://localhost/runtime.v1.ImageService/PullImage");
        curl
    }
}

/// Whether what curl printed is a pull that succeeded.
pub(crate) fn cri_succeeded(answer: &str) -> bool {
    answer.contains("grpc-status: 0\r\n")
}

async fn ctr_pulls(release: Release) {
    for cache in CACHES {
        let mirror = Mirror::start(cache).await;
        let hosts = mirrored(Some("registry-1.docker.io"), &mirror.address());
        mirror.home.file("certs/docker.io/hosts.toml", &hosts);
        let containerd = Containerd::start_release(&mirror.home, release, mirror.home.path().join("certs"));
        for pull in mirror.pulls() {
            let platform = pull.platform.map(|arch| format!("--platform linux/{arch}")).unwrap_or_default();
            run(&mut containerd.pull(PATIENCE, &format!("{platform} {}", pull.reference)));
            mirror.verify(pull, AGENT);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn ctr_pulls_by_hosts_toml() {
    ctr_pulls(Release::Debian12).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn the_newest_ctr_pulls_by_hosts_toml() {
    ctr_pulls(Release::Newest).await;
}

/// What a kubelet asks of its container runtime. It has no words for another architecture than the node's.
async fn cri_pulls(release: Release) {
    for cache in CACHES {
        let mirror = Mirror::start(cache).await;
        let hosts = mirrored(Some("registry-1.docker.io"), &mirror.address());
        mirror.home.file("certs/docker.io/hosts.toml", &hosts);
        let containerd = Containerd::start_release(&mirror.home, release, mirror.home.path().join("certs"));
        for pull in mirror.pulls().iter().filter(|pull| pull.platform.is_none()) {
            let answer = run(&mut containerd.cri_pull(PATIENCE, &pull.reference));
            assert!(cri_succeeded(&answer), "{answer}");
            assert!(answer.contains(&mirror.config(pull)), "the image's id: {answer}");
            mirror.verify(pull, AGENT);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn cri_pulls_as_for_a_kubelet() {
    cri_pulls(Release::Debian12).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn the_newest_cri_pulls_as_for_a_kubelet() {
    cri_pulls(Release::Newest).await;
}

/// The first field of a protobuf message, of bytes: key, length, content.
fn field(content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("short");
    assert!(length < 0x80, "longer ones take more than one byte");
    [&[1 << 3 | 2, length], content].concat()
}
