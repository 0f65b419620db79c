//! Nodes of k3s and RKE2, whose file of mirrors may be another one.

use super::{client_config, text};

/// The usual file was written, which nobody read, and it stood.
#[test]
fn the_file_that_private_registry_names_is_written_checked_and_removed() {
    let unit = |flags: &str| format!("[Service]\nExecStart=/usr/local/bin/k3s server {flags}\n");
    const UNIT: &str = "etc/systemd/system/k3s.service";
    const CONFIG: &str = "etc/rancher/k3s/config.yaml";
    const USUAL: &str = "etc/rancher/k3s/registries.yaml";
    for (files, expected) in [
        (vec![], USUAL),
        (
            vec![
                (UNIT, unit("--private-registry=/srv/a.yaml")),
                (CONFIG, "private-registry: /srv/b.yaml\n".to_owned()),
            ],
            "srv/a.yaml",
        ),
        (vec![(CONFIG, "private-registry: /srv/b.yaml\n".to_owned())], "srv/b.yaml"),
        (vec![(CONFIG, "\n# nothing\n".to_owned())], USUAL),
        (
            vec![(UNIT, unit("--config /srv/c.yaml")), ("srv/c.yaml", "private-registry: [/srv/d.yaml]\n".to_owned())],
            "srv/d.yaml",
        ),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        let at = root.path().to_string_lossy().into_owned();
        for (path, content) in &files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, content).expect("written");
        }
        let run = |task: &[&str]| {
            let output = client_config(&[&["k3s", "--root", &at], task].concat());
            (output.status.code(), text(&output.stdout), text(&output.stderr))
        };
        let (status, said, about) = run(&["--write"]);
        assert!(status == Some(0) && root.path().join(expected).is_file(), "{files:?}: {said}{about}");
        assert!(about.contains(&format!("k3s reads /{expected} at its start")), "{about}");
        assert!(expected == USUAL || !root.path().join(USUAL).exists(), "{files:?}");
        let (status, said, _) = run(&["--check"]);
        assert!(
            status == Some(0) && said.starts_with("stands ") && said.ends_with(&format!("/{expected}\n")),
            "{said}"
        );
        let mut remove = std::process::Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        let output =
            remove.args(["client-config", "k3s", "--remove", "--write", "--root", &at]).output().expect("it runs");
        assert!(output.status.success() && !root.path().join(expected).exists(), "{output:?}");
    }
}

#[test]
fn where_nobody_can_say_which_file_a_node_reads_none_is_written_or_judged() {
    for (path, content, says) in [
        ("etc/rancher/rke2/config.yaml", "private-registry: [", "/etc/rancher/rke2/config.yaml: it is not YAML"),
        (
            "etc/rancher/rke2/config.yaml.d/a.yml",
            "- a\n",
            "/etc/rancher/rke2/config.yaml.d/a.yml: it is not a table of YAML",
        ),
        (
            "etc/systemd/system/rke2-server.service",
            "[Service]\nExecStart=/bin/sh -c rke2\n",
            "runs a shell, whose commands are not followed",
        ),
        // Its program goes to the directory of its data first; it was taken for a file of the root.
        (
            "etc/rancher/rke2/config.yaml",
            "private-registry: [a]\n",
            "/etc/rancher/rke2/config.yaml: private-registry is \"a\", and not an absolute path",
        ),
        (
            "etc/systemd/system/rke2-server.service",
            "[Service]\nExecStart=/usr/local/bin/rke2 server --private-registry=a.yaml\n",
            "/etc/systemd/system/rke2-server.service: private-registry is \"a.yaml\", and not an absolute path",
        ),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        let at = root.path().to_string_lossy().into_owned();
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, content).expect("written");
        for task in ["--write", "--check"] {
            let output = client_config(&["rke2", "--root", &at, task]);
            let said = text(&output.stderr);
            assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
            assert!(said.contains("which file of mirrors rke2 reads is not known: ") && said.contains(says), "{said}");
        }
        assert!(!root.path().join("etc/rancher/rke2/registries.yaml").exists());
    }
}

/// The usual file was told of twice.
#[test]
fn a_removal_tells_of_a_nodes_file_of_somebody_else_once() {
    let root = tempfile::tempdir().expect("a directory");
    for client in ["k3s", "rke2"] {
        let file = root.path().join(format!("etc/rancher/{client}/registries.yaml"));
        std::fs::create_dir_all(file.parent().expect("a parent")).expect("made");
        std::fs::write(&file, "mirrors:\n  docker.io:\n    endpoint: ['https://mirror.corp']\n").expect("written");
        let output = client_config(&[client, "--remove", "--root", &root.path().to_string_lossy()]);
        assert_eq!(text(&output.stderr).matches("is left as it is").count(), 1, "{output:?}");
    }
}

/// Of one closed registry it said that the source is asked all the same, and that nothing without a route can be pulled; and both of a node
/// that has the switch.
#[test]
fn what_becomes_of_a_closed_route_is_told_as_the_node_has_it() {
    const ASKED: &str = "quay.io is closed, but RKE2 asks it last all the same, unless /etc/rancher/rke2/config.yaml says disable-default-registry-endpoint: true on every node";
    const THEN: &str = "; then it cannot pull what no route is for, so add a route for all of quay.io, too\n";
    const CLOSED: &str = "quay.io is closed: RKE2 asks nobody else for it, since /etc/rancher/rke2/config.yaml has disable-default-registry-endpoint";
    const MISSING: &str = "quay.io: RKE2 cannot pull what no route is for";
    for (config, source, says, says_not) in [
        ("", "quay.io", &[ASKED][..], &[CLOSED, MISSING, THEN][..]),
        ("", "quay.io/org", &[ASKED, THEN], &[CLOSED, MISSING]),
        ("disable-default-registry-endpoint: false\n", "quay.io/org", &[ASKED, THEN], &[CLOSED, MISSING]),
        ("disable-default-registry-endpoint: true\n", "quay.io/org", &[CLOSED, MISSING], &[ASKED, THEN]),
        ("disable-default-registry-endpoint: true\n", "quay.io", &[CLOSED], &[ASKED, THEN, MISSING]),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("etc/rancher/rke2/config.yaml");
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(&path, config).expect("written");
        let routes = root.path().join("routes.yaml");
        let route = format!("{{source: {source}, domain: a.azurecr.io, prefix: p, on_failure: closed}}");
        std::fs::write(&routes, format!("routes: [{route}]\n")).expect("written");
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        command.args(["client-config", "rke2", "--write", "--root"]).arg(root.path()).arg("--config").arg(&routes);
        let said = text(&command.output().expect("it runs").stderr);
        assert!(says.iter().all(|says| said.contains(says)), "{config}{source}: {said}");
        assert!(!says_not.iter().any(|says| said.contains(says)), "{config}{source}: {said}");
    }
}
