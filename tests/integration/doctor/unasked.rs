//! Engines that could not be asked, because they hang or this user may not: nothing is known of what they have loaded.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use serde_json::Value;

use super::Do::{Install, Put, Write};
use super::{POLICY, Site};

/// Who asks, root or not, and why that is in vain.
const BOTH: [(bool, &str); 2] = [(true, "timed out"), (false, "permission denied")];

/// "ok: nothing is wrong on this host", for programs too.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_nobody_has_heard_is_not_right() {
    let (site, _azure) = Site::start().await;
    for (made, part, socket, begin, asked) in [
        (
            &[Install(&["dockerd"]), Write(&["docker"])][..],
            "dockerd",
            "/run/docker.sock",
            "dockerd does not tell what it has loaded: ",
            &BOTH[..],
        ),
        // Nothing was said of it.
        (
            &[
                Install(&["crio"]),
                Write(&["podman"]),
                Put(POLICY, "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}\n"),
            ],
            "cri-o",
            "/run/crio/crio.sock",
            "CRI-O was not asked (",
            &BOTH,
        ),
        // It was not said why. Root need not ask more than whether it listens.
        (
            &[Install(&["buildkitd"]), Write(&["buildkit"])],
            "buildkitd",
            "/run/buildkit/buildkitd.sock",
            "buildkitd was not asked (",
            &BOTH[1..],
        ),
    ] {
        let host = site.host(made);
        let at = host.path(socket);
        fs::create_dir_all(at.parent().expect("a directory")).expect("made");
        // It is stopped: the kernel takes connections for it.
        let _hangs = UnixListener::bind(&at).expect("a socket");
        fs::set_permissions(host.root.path(), Permissions::from_mode(0o755)).expect("set");
        fs::set_permissions(&at, Permissions::from_mode(0o600)).expect("set");
        for (is_root, says) in asked.iter().copied() {
            let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
            command.args(["doctor", "--json", "--root"]).arg(host.root.path());
            match (nix::unistd::geteuid().is_root(), is_root) {
                (true, true) | (false, false) => {}
                // nobody
                (true, false) => {
                    command.uid(65_534);
                }
                (false, true) => continue,
            }
            let output = command.output().expect("it runs");
            let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            let status = (report["status"].as_str(), report["findings"].as_u64());
            assert_eq!(status, (Some("unknown"), Some(0)), "{report:#}");
            let mut parts = report["parts"].as_array().expect("a list").iter();
            let engine = parts.find(|one| one["name"] == part).expect("it is there");
            let note = engine["notes"][0].as_str().unwrap_or_default();
            assert!(note.starts_with(begin) && note.contains(says), "{report:#}");
        }
    }
}
