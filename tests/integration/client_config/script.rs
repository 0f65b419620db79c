//! The script of a node, as a node runs it.

use std::path::Path;
use std::process::{Command, Output};

use super::{client_config, text};

/// A node whose containerd reads the files, and its script.
fn node() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    std::fs::write(root.path().join("setup-node.sh"), client_config(&["kubernetes"]).stdout).expect("written");
    let certs = root.path().join("certs");
    let config = format!(
        "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"{}\"\n",
        certs.display()
    );
    std::fs::write(root.path().join("config.toml"), config).expect("written");
    root
}

fn run(root: &Path, arguments: &[&str]) -> Output {
    let mut node = Command::new("sh");
    // No program of this machine's is asked.
    node.env("PATH", "/usr/bin:/bin").arg(root.join("setup-node.sh")).args(arguments);
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
