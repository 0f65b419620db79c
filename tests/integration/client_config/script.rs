//! The script of a node, as a node runs it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use super::{client_config, text};

/// A node whose containerd reads the files, and its script.
fn node() -> tempfile::TempDir {
    node_with(&[])
}

fn node_with(flags: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    let script = client_config(&[&["kubernetes"], flags].concat()).stdout;
    std::fs::write(root.path().join("setup-node.sh"), script).expect("written");
    let certs = root.path().join("certs");
    let config = format!(
        "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"{}\"\n",
        certs.display()
    );
    std::fs::write(root.path().join("config.toml"), config).expect("written");
    // In place of this machine's, which may be of a release that does not know the file.
    let containerd = root.path().join("bin/containerd");
    std::fs::create_dir(root.path().join("bin")).expect("made");
    std::fs::write(&containerd, "#!/bin/sh\ncat \"$2\"\n").expect("written");
    std::fs::set_permissions(&containerd, std::fs::Permissions::from_mode(0o755)).expect("ours");
    root
}

fn run(root: &Path, arguments: &[&str]) -> Output {
    let mut node = Command::new("sh");
    node.env("PATH", format!("{}:/usr/bin:/bin", root.join("bin").display()))
        .arg(root.join("setup-node.sh"))
        .args(arguments);
    node.env("CERTS_D", root.join("certs")).env("CONTAINERD_CONFIG", root.join("config.toml"));
    node.output().expect("it runs")
}

/// Whoever pasted it as it was told had a file that the script then took for its own, and wrote anew.
#[test]
fn what_the_script_has_merged_has_no_mark_of_a_file_from_here() {
    let root = node();
    let hub = root.path().join("certs/docker.io/hosts.toml");
    std::fs::create_dir_all(hub.parent().expect("a directory")).expect("made");
    std::fs::write(&hub, "# by hand\n").expect("written");
    let output = run(root.path(), &[]);
    let said = text(&output.stderr);
    assert!(
        said.contains(
            "is left as it is; merge this into it, each key once:\nserver = \"https://registry-1.docker.io\"\n"
        ),
        "{said}"
    );
    assert!(!said.contains("Written by"), "{said}");
}

/// `--help` was told to be neither `--prune` nor `--remove`, and a run said nothing of what it had done.
#[test]
fn the_script_tells_how_it_is_used_and_what_it_has_done() {
    let root = node();
    for flag in ["--help", "-h"] {
        let output = run(root.path(), &[flag]);
        assert!(output.status.success() && text(&output.stdout).contains("sh setup-node.sh --prune"), "{output:?}");
        assert!(!root.path().join("certs").exists());
    }
    let wrong = run(root.path(), &["--merge"]);
    let said = text(&wrong.stderr);
    assert!(
        wrong.status.code() == Some(2) && said.contains("--merge is neither --prune nor --remove; --help"),
        "{said}"
    );
    for (arguments, word, count) in [(&[][..], "wrote ", 3), (&[], "unchanged ", 3), (&["--prune"], "unchanged ", 0)] {
        let said = text(&run(root.path(), arguments).stdout);
        let lines = said.lines().filter(|line| line.starts_with(word) && line.ends_with("/hosts.toml")).count();
        assert_eq!((lines, said.lines().count()), (count, count), "{said}");
    }
}

/// The script wrote a `hosts.toml` anew without the CA that it named, and left one alone, with status 1, that lacked the first comment only.
#[test]
fn the_script_keeps_certificates_that_are_named_and_lets_a_file_stand_that_says_the_same() {
    const HOST: &str = "[host.\"https://mirror.internal:8443\"]\n";
    const SKIP: &str = "  skip_verify = true\n";
    let root = node_with(&["--mirror", "https://mirror.internal:8443"]);
    let path = |name: &str| root.path().join("certs").join(name);
    let read = |name: &str| std::fs::read_to_string(path(name)).expect("written");
    let hub = "docker.io/hosts.toml";
    assert!(run(root.path(), &[]).status.success());
    let written = read(hub);
    assert!(!written.contains("ca =") && written.contains(HOST) && !written.contains("certificates"), "{written}");
    std::fs::write(root.path().join("ca.crt"), "").expect("written");
    let ca = |file: &Path| format!("  ca = \"{}\"\n", file.display());
    let own = ca(&root.path().join("ca.crt"));
    let with = |lines: &str| written.replace(HOST, &format!("{HOST}{lines}"));
    let without_mark = |text: &str| text.split_once('\n').expect("lines").1.to_owned();
    let in_directory = path("mirror.internal:8443/ca.crt");
    for (content, expected, word, in_place) in [
        (with(&own), written.clone() + &own, "wrote ", false),
        (written.clone() + &own, written.clone() + &own, "unchanged ", true),
        (with(&ca(Path::new("/nonexistent"))), written.clone(), "wrote ", false),
        (with("  ca = \"/nonexistent\"\n"), written.clone() + &ca(&in_directory), "wrote ", true),
        (with(SKIP), written.clone(), "wrote ", false),
        (without_mark(&with(&own)), without_mark(&with(&own)), "unchanged ", true),
        (without_mark(&with(SKIP)), without_mark(&with(SKIP)), "", true),
    ] {
        std::fs::write(path(hub), &content).expect("written");
        let _ = std::fs::remove_dir_all(path("mirror.internal:8443"));
        if in_place {
            std::fs::create_dir(path("mirror.internal:8443")).expect("made");
            std::fs::write(&in_directory, "").expect("written");
        }
        let output = run(root.path(), &[]);
        let said = text(&output.stdout);
        assert_eq!((read(hub), output.status.success()), (expected, !word.is_empty()), "{content}: {output:?}");
        assert!(word.is_empty() || said.contains(&format!("{word}{}\n", path(hub).display())), "{said}");
    }
}

/// The lines to merge had containerd's usual directory in them, whatever the node's was.
#[test]
fn the_script_of_a_node_with_a_directory_of_its_own_names_that_one() {
    let script = client_config(&["kubernetes"]).stdout;
    let root = tempfile::tempdir().expect("a directory");
    let (certs, path) = (root.path().join("certs"), root.path().join("setup-node.sh"));
    std::fs::write(&path, script).expect("written");
    for content in [None, Some("version = 3\n")] {
        let config = root.path().join("config.toml");
        if let Some(content) = content {
            std::fs::write(&config, content).expect("written");
        }
        let mut node = Command::new("sh");
        node.arg(&path).env("CERTS_D", &certs).env("CONTAINERD_CONFIG", &config);
        let output = node.output().expect("it runs");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(said.matches(&format!("config_path = \"{}\"\n", certs.display())).count(), 2, "{said}");
    }
}
