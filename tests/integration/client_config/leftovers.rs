//! Files that an earlier run has written: what `--prune` and `--remove` list, and what they remove.

use std::process::Command;

use super::{client_config, text};

/// The registry's route is not among the example's.
const GONE: &str = "etc/containerd/certs.d/gone.example/hosts.toml";

/// A tree with the files of today, one of a route that is gone, and one that somebody else wrote.
pub(super) fn tree_with_a_stale_file() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    let output = client_config(&["containerd", "--write", "--root", &root.path().to_string_lossy()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let today = root.path().join("etc/containerd/certs.d/ghcr.io/hosts.toml");
    for path in [GONE, "etc/containerd/certs.d/foreign.example/hosts.toml"] {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::copy(&today, &path).expect("copied");
    }
    let foreign = root.path().join("etc/containerd/certs.d/foreign.example/hosts.toml");
    std::fs::write(foreign, "# by hand\n").expect("written");
    root
}

#[test]
fn a_file_of_a_route_that_is_gone_is_told_and_only_prune_removes_it() {
    let root = tree_with_a_stale_file();
    let at = root.path().to_string_lossy().into_owned();
    let told = format!("{GONE} is left from a route that is gone, and the proxy refuses the pulls that it sends here");
    for arguments in [&["--write"][..], &["--prune"]] {
        let output = client_config(&[&["containerd", "--root", &at], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(text(&output.stderr).matches("is left from a route").count(), 1, "{output:?}");
        assert!(text(&output.stderr).contains(&told), "{output:?}");
        assert!(root.path().join(GONE).exists(), "{arguments:?}");
    }
    let output = client_config(&["containerd", "--root", &at, "--write", "--prune"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output.stdout);
    assert!(said.matches("removed ").count() == 1 && said.contains(&format!("{GONE}\n")), "{said}");
    assert!(said.matches("unchanged ").count() == 3, "{said}");
    let certs = root.path().join("etc/containerd/certs.d");
    assert!(!certs.join("gone.example").exists() && certs.join("foreign.example/hosts.toml").exists());
    let output = client_config(&["containerd", "--root", &at, "--write"]);
    assert!(!text(&output.stderr).contains("is left from"), "{output:?}");
}

/// It printed the files that are to be written, and never said that there was nothing to list.
#[test]
fn prune_without_write_only_lists() {
    let root = tree_with_a_stale_file();
    let at = root.path().to_string_lossy().into_owned();
    let list = |client: &str| client_config(&[client, "--root", &at, "--prune"]);
    let output = list("containerd");
    assert_eq!(text(&output.stdout), format!("would remove {at}/{GONE}\n"), "{output:?}");
    assert_eq!(text(&output.stderr).lines().count(), 1, "{output:?}");
    client_config(&["containerd", "--root", &at, "--write", "--prune"]);
    for client in ["containerd", "k3s"] {
        let output = list(client);
        let said = format!(
            "acr-cache-proxy: nothing to prune: below {at} no file of {client} is left from a route that is gone\n"
        );
        assert_eq!((output.status.code(), output.stdout.len(), text(&output.stderr)), (Some(0), 0, said));
    }
    let yaml = root.path().join("etc/rancher/k3s/registries.yaml");
    std::fs::create_dir_all(yaml.parent().expect("a parent")).expect("made");
    std::fs::write(&yaml, "mirrors:\n  gone.example:\n    endpoint:\n      - \"http://127.0.0.1:8080\"\n")
        .expect("written");
    let output = list("k3s");
    assert!(text(&output.stderr).contains("sends gone.example to the proxy, which has no route for it"), "{output:?}");
    assert_eq!((output.stdout.len(), text(&output.stderr).lines().count()), (0, 1), "{output:?}");
}

/// The settings may be gone before the files are.
#[test]
fn remove_needs_no_settings_and_takes_what_carries_the_comment_and_nothing_else() {
    let root = tree_with_a_stale_file();
    let remove = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        command.args(["client-config", "containerd", "--remove", "--root"]).arg(root.path()).args(more);
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        (text(&output.stdout), text(&output.stderr))
    };
    let certs = root.path().join("etc/containerd/certs.d");
    let all = |word: &str| {
        let lines = ["docker.io", "gone.example", "ghcr.io", "registry.k8s.io"].map(|registry| {
            let file = certs.canonicalize().expect("there").join(registry).join("hosts.toml");
            format!("{word} {}\n", file.display())
        });
        let mut lines = lines.to_vec();
        lines.sort_unstable();
        lines.concat()
    };
    assert_eq!(remove(&[]).0, all("would remove"));
    assert!(certs.join("ghcr.io/hosts.toml").exists(), "nothing is removed without --write");
    assert_eq!(remove(&["--write"]).0, all("removed"));
    let left: Vec<_> = std::fs::read_dir(&certs).expect("there").map(|entry| entry.expect("one").file_name()).collect();
    assert_eq!(left, ["foreign.example"]);
    let (out, about) = remove(&["--write"]);
    assert!(out.is_empty() && about.contains("no file of this command is below"), "{out}{about}");
}

/// It ended with 0, and of a file without its first line it said that there was no file.
#[test]
fn remove_ends_with_1_and_a_word_where_the_proxy_may_be_in_what_stays() {
    const MIRRORS: &str = r#"{"registry-mirrors": ["http://127.0.0.1:8080"], "debug": true}"#;
    const FLAG: &str = "[Service]\nExecStart=/usr/bin/dockerd --registry-mirror=http://127.0.0.1:8080\n";
    const PODMAN: &str = "etc/containers/registries.conf.d/50-acr-cache-proxy.conf";
    const MARKED: &str = "# Written by acr-cache-proxy client-config\n[[registry]]\n";
    for (client, file, content, says) in [
        (
            "docker",
            "etc/docker/daemon.json",
            MIRRORS,
            Some("if the proxy is in registry-mirrors there, take it out, then: "),
        ),
        ("docker", "etc/docker/daemon.json", "no JSON", Some("it cannot be read as JSON: ")),
        ("docker", "etc/docker/daemon.json", "{\"debug\": true, \"registry-mirrors\": []}", None),
        (
            "docker",
            "usr/lib/systemd/system/docker.service",
            FLAG,
            Some("gives dockerd --registry-mirror: if the proxy is there, "),
        ),
        (
            "buildkit",
            "etc/buildkit/buildkitd.toml",
            "[registry.\"docker.io\"]\nmirrors = [\"a\"]\n",
            Some("somebody else has written it"),
        ),
        ("buildkit", "etc/buildkit/buildkitd.toml", "debug = true\n", None),
        ("k3s", "etc/rancher/k3s/registries.yaml", "mirrors: {docker.io: {}}\n", Some("somebody else has written it")),
        ("podman", PODMAN, "[[registry]]\n", Some("lacks the first line by which files of client-config are known")),
        ("podman", PODMAN, MARKED, None),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join(file);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(&path, content).expect("written");
        for more in [&[][..], &["--write"]] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
            command.args(["client-config", client, "--remove", "--root"]).arg(root.path()).args(more);
            let output = command.output().expect("it runs");
            let about = text(&output.stderr);
            assert_eq!(output.status.code(), Some(i32::from(says.is_some())), "{client} {content}: {about}");
            let path = if client == "docker" && content == FLAG { String::new() } else { path.display().to_string() };
            assert!(says.is_none_or(|says| about.contains(says) && about.contains(&path)), "{client}: {about}");
        }
        assert_eq!(path.exists(), content != MARKED, "{client}");
    }
}

/// `--check` said that it was not written from here, and `--write` that it is to be merged.
#[test]
fn a_file_of_ours_without_its_first_line_is_known_by_its_name_and_is_not_to_be_merged() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("etc/containers/registries.conf.d/50-acr-cache-proxy.conf");
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    std::fs::write(&path, "[[registry]]\nprefix = \"quay.io\"\n").expect("written");
    for task in ["--check", "--write"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        command.args([
            "client-config",
            "podman",
            "--upstream-domain",
            "example.azurecr.io",
            "--upstream-prefix",
            "hub",
        ]);
        let output = command.arg(task).arg("--root").arg(root.path()).output().expect("it runs");
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.code() == Some(1) && !said.contains("merge this"), "{said}");
        for says in [
            "lacks the first line by which files of client-config are known",
            "if it is nobody else's, remove it by hand",
        ] {
            assert!(said.contains(says), "{said}");
        }
    }
}

/// Its exit status was 0, with the mirror in the file.
#[test]
fn after_a_removal_docker_desktops_file_with_the_mirror_is_named() {
    let home = tempfile::tempdir().expect("a directory");
    let json = home.path().join(".docker/daemon.json");
    std::fs::create_dir_all(home.path().join(".docker")).expect("made");
    for (content, status) in
        [(r#"{"registry-mirrors": ["http://host.docker.internal:8080"]}"#, 1), (r#"{"debug": true}"#, 0)]
    {
        std::fs::write(&json, content).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        command.args(["client-config", "docker-desktop", "--remove", "--write"]).env("HOME", home.path());
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        assert_eq!(
            text(&output.stderr).contains(&format!("{} is left as it is", json.display())),
            status == 1,
            "{output:?}"
        );
    }
}
