use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::harness::PATIENCE;
use crate::home::Home;
use crate::mirror::Mirror;
use crate::program::{Daemon, run};

/// A running dockerd.
pub struct Docker<'a> {
    home: &'a Home,
    listen: String,
    _daemon: Daemon,
}

impl<'a> Docker<'a> {
    /// dockerd with a mirror of Docker Hub.
    pub fn start(home: &'a Home, mirror: &str) -> Self {
        let path = home.path().display();
        let settings = json!({
            "registry-mirrors": [format!("http://{mirror}")],
            "data-root": format!("{path}/root"),
            "exec-root": format!("{path}/exec"),
            "pidfile": format!("{path}/dockerd.pid"),
            // Works on every filesystem, an overlay too.
            "storage-driver": "vfs",
            "bridge": "none",
            "iptables": false,
            "ip6tables": false,
            // So that one pull does not wait for another one's layers.
            "max-concurrent-downloads": 100,
            // Five by default, with pauses of 5, 10, 15, 20 and 25 s.
            "max-download-attempts": 2,
        });
        let settings = home.file("daemon.json", &settings.to_string());
        let socket = home.path().join("docker.sock");
        let listen = format!("unix://{}", socket.display());
        let words = format!("dockerd --config-file {} --host {listen}", settings.display());
        let daemon = Daemon::start(home, &words, &[], || UnixStream::connect(&socket).is_ok());
        Self { home, listen, _daemon: daemon }
    }

    /// The `docker` command, with words behind its options.
    pub fn docker(&self, limit: Duration, words: &str) -> Command {
        self.home.client(limit, &format!("docker --host {} {words}", self.listen))
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn dockerd_pulls_and_runs() {
    let mirror = Mirror::start().await;
    let daemon = Docker::start(&mirror.home, &mirror.address());
    let docker = |words: &str| run(&mut daemon.docker(PATIENCE, words));

    for pull in mirror.pulls() {
        let platform = pull.platform.map(|arch| format!("--platform linux/{arch}")).unwrap_or_default();
        docker(&format!("pull --quiet {platform} {}", pull.reference));
        mirror.verify(pull, "docker/");
        let arch = docker(&format!("image inspect --format {{{{.Architecture}}}} {}", pull.reference));
        assert_eq!(arch.trim(), pull.arch, "{}", pull.reference);
        if pull.platform.is_none() {
            let printed = docker(&format!("run --rm --network none {} /bin/sh -c pwd", pull.reference));
            assert_eq!(printed.trim(), "/", "{}", pull.reference);
        }
    }
}
