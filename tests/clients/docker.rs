//! dockerd, which also runs what it has pulled.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::{DAEMON_LIMIT, Daemon};
use crate::home::Home;
use crate::mirror::{CACHES, Mirror};
use crate::program::run;
use crate::tree::Tree;
use testkit::PATIENCE;

/// Which dockerd, and where it has its images: that decides who asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Debian 12's, with a store of its own.
    Debian12,
    /// Debian 13's, with a store of its own.
    Debian13,
    /// Debian 13's, with containerd's store.
    ContainerdStore,
    /// Debian 14's, with a store of its own.
    Debian14,
    /// Debian 14's, with containerd's store.
    Debian14ContainerdStore,
}

impl Kind {
    /// The release whose tree it is in, if it is not this machine's.
    fn release(self) -> Option<u8> {
        match self {
            Self::Debian12 => None,
            Self::Debian13 | Self::ContainerdStore => Some(13),
            Self::Debian14 | Self::Debian14ContainerdStore => Some(14),
        }
    }

    fn has_containerds_store(self) -> bool {
        matches!(self, Self::ContainerdStore | Self::Debian14ContainerdStore)
    }
}

/// A running dockerd.
pub(crate) struct Docker<'a> {
    home: &'a Home,
    /// Where its programs are, if they are not this machine's.
    tree: Option<Tree<'a>>,
    listen: String,
    _daemon: Daemon,
}

impl<'a> Docker<'a> {
    /// dockerd with a mirror of Docker Hub.
    pub(crate) fn start(home: &'a Home, mirror: &str, kind: Kind) -> Self {
        Self::start_with(home, kind, json!({"registry-mirrors": [format!("http://{mirror}")]}), None)
    }

    /// dockerd by what is written below `tree` for it.
    pub(crate) fn start_by(home: &'a Home, tree: &Path, kind: Kind) -> Self {
        let directory = tree.join("etc/docker");
        let settings = match std::fs::read(directory.join("daemon.json")) {
            Ok(content) => serde_json::from_slice(&content).expect("JSON"),
            Err(_) => json!({}),
        };
        Self::start_with(home, kind, settings, Some(&directory.join("certs.d")))
    }

    fn start_with(home: &'a Home, kind: Kind, mut settings: Value, certs: Option<&Path>) -> Self {
        let tree = kind.release().map(|release| Tree::mount(home, release));
        if let (Some(tree), Some(certs)) = (&tree, certs) {
            tree.bind(certs, "/etc/docker/certs.d");
        }
        let containerd_store = kind.has_containerds_store();
        let path = home.path().display();
        let own = json!({
            "data-root": format!("{path}/root"),
            "exec-root": format!("{path}/exec"),
            "pidfile": format!("{path}/dockerd.pid"),
            // Both work on every filesystem, an overlay too.
            "storage-driver": if containerd_store { "native" } else { "vfs" },
            "features": {"containerd-snapshotter": containerd_store},
            "bridge": "none",
            "iptables": false,
            "ip6tables": false,
            // So that one pull does not wait for another one's layers.
            "max-concurrent-downloads": 100,
            // Five by default, with a longer pause after each.
            "max-download-attempts": 1,
        });
        let (Value::Object(all), Value::Object(own)) = (&mut settings, own) else { panic!("objects") };
        all.extend(own);
        let settings = home.file("daemon.json", &settings.to_string());
        let socket = home.path().join("docker.sock");
        let listen = format!("unix://{}", socket.display());
        let words = format!("dockerd --config-file {} --host {listen}", settings.display());
        let command = command(home, tree.as_ref(), DAEMON_LIMIT, &words);
        let daemon = Daemon::start("dockerd", command, home, || UnixStream::connect(&socket).is_ok());
        Self { home, tree, listen, _daemon: daemon }
    }

    /// The `docker` command, with words behind its options.
    pub(crate) fn docker(&self, limit: Duration, words: &str) -> Command {
        command(self.home, self.tree.as_ref(), limit, &format!("docker --host {} {words}", self.listen))
    }

    /// `docker build` by BuildKit of an image on top of another one, by the name `built`.
    pub(crate) fn build(&self, limit: Duration, from: &str, options: &str) -> Command {
        let name = from.replace(['/', ':', '@'], "-");
        let file = self.home.file(&format!("{name}/Dockerfile"), &format!("FROM {from}\nCOPY Dockerfile /\n"));
        let context = file.parent().expect("a context").display();
        let mut command = self.docker(limit, &format!("build --progress plain --tag {name} {options} {context}"));
        command.env("DOCKER_BUILDKIT", "1");
        command
    }
}

fn command(home: &Home, tree: Option<&Tree<'_>>, limit: Duration, words: &str) -> Command {
    match tree {
        Some(tree) => tree.program(limit, words),
        None => home.client(limit, words),
    }
}

/// Every pull of the table, by this dockerd, which then runs what it has.
async fn pulls_and_runs(kind: Kind, agent: &str) {
    for cache in CACHES {
        let mirror = Mirror::start(cache).await;
        let daemon = Docker::start(&mirror.home, &mirror.address(), kind);
        let docker = |words: &str| run(&mut daemon.docker(PATIENCE, words));
        for pull in mirror.pulls() {
            let platform = pull.platform.map(|arch| format!("--platform linux/{arch}")).unwrap_or_default();
            docker(&format!("pull --quiet {platform} {}", pull.reference));
            mirror.verify(pull, agent);
            // containerd's store has the index under the name, and answers for this machine's architecture.
            if pull.platform.is_none() || !kind.has_containerds_store() {
                let arch = docker(&format!("image inspect --format {{{{.Architecture}}}} {}", pull.reference));
                assert_eq!(arch.trim(), pull.arch, "{}", pull.reference);
            }
            if pull.platform.is_none() {
                let printed = docker(&format!("run --rm --network none {} /bin/sh -c pwd", pull.reference));
                assert_eq!(printed.trim(), "/", "{}", pull.reference);
            }
        }
    }
}

/// Every pull of the table, as the base of a build. With containerd's store it is containerd that fetches the layers.
async fn builds_on_images_of_the_mirror(kind: Kind, agent: &str) {
    for cache in CACHES {
        let mirror = Mirror::start(cache).await;
        let daemon = Docker::start(&mirror.home, &mirror.address(), kind);
        for pull in mirror.pulls() {
            let platform = pull.platform.map(|arch| format!("--platform linux/{arch}")).unwrap_or_default();
            run(&mut daemon.build(PATIENCE, &pull.reference, &platform));
            mirror.verify(pull, agent);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn dockerd_pulls_and_runs() {
    pulls_and_runs(Kind::Debian12, "docker/20").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_newer_dockerd_pulls_and_runs() {
    pulls_and_runs(Kind::Debian13, "docker/26").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn dockerd_with_containerds_store_pulls_and_runs() {
    pulls_and_runs(Kind::ContainerdStore, "docker/26").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn the_dockerd_of_debian_14_pulls_and_runs() {
    pulls_and_runs(Kind::Debian14, "docker/").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn the_dockerd_of_debian_14_with_containerds_store_pulls_and_runs() {
    pulls_and_runs(Kind::Debian14ContainerdStore, "docker/ containerd/").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn buildkit_builds() {
    builds_on_images_of_the_mirror(Kind::Debian13, "buildkit/").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn buildkit_builds_with_containerds_store() {
    builds_on_images_of_the_mirror(Kind::ContainerdStore, "buildkit/ containerd/").await;
}
