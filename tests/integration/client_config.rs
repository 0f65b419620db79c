//! Clients' files, shown and written.

use std::process::{Command, Output};

/// The command, with the routes that are the example in `conf`.
fn client_config(arguments: &[&str]) -> Output {
    let routes = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/routes.yaml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
    command.arg("client-config").args(arguments).args(["--config", routes]).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_files_go_to_standard_output_and_the_words_about_them_do_not() {
    let output = client_config(&["docker"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let files = text(&output.stdout);
    assert!(files.starts_with("# /etc/docker/daemon.json (without this line: JSON has no comments)\n{\n"), "{files}");
    assert_eq!(files.matches("\n# /etc/docker/certs.d/").count(), 3, "one for each registry: {files}");
    assert!(text(&output.stderr).lines().all(|line| line.starts_with("acr-cache-proxy: ")), "{output:?}");
}

#[test]
fn writing_twice_changes_nothing_and_a_foreign_file_is_status_1_after_the_others() {
    let root = tempfile::tempdir().expect("a directory");
    let at = root.path().to_string_lossy().into_owned();
    let write = || client_config(&["containerd", "--write", "--root", &at]);
    let foreign = root.path().join("etc/containerd/certs.d/docker.io/hosts.toml");
    std::fs::create_dir_all(foreign.parent().expect("a parent")).expect("made");
    std::fs::write(&foreign, "# by hand\n").expect("written");

    let output = write();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(text(&output.stdout).matches("wrote ").count(), 2, "ghcr.io and registry.k8s.io: {output:?}");
    let said = text(&output.stderr);
    assert!(said.contains("docker.io/hosts.toml was not written from here and is left as it is"), "{said}");
    assert!(said.contains("  server = \"https://registry-1.docker.io\"\n"), "what to merge: {said}");
    assert!(said.ends_with("acr-cache-proxy: files that were left as they are: 1\n"), "{said}");
    assert_eq!(std::fs::read_to_string(&foreign).expect("there"), "# by hand\n");

    std::fs::remove_file(&foreign).expect("removed");
    let output = write();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output.stdout);
    assert!(said.matches("wrote ").count() == 1 && said.matches("unchanged ").count() == 2, "{said}");
}

/// It runs where an image is made, and CA file and variables are on the proxy's host.
#[test]
fn settings_may_need_what_only_the_host_of_the_proxy_has() {
    let folder = tempfile::tempdir().expect("a directory");
    let config = folder.path().join("config.yaml");
    let text = "upstream: {domain: example.azurecr.io}\nca_file: /nonexistent.pem\nidentity: {kind: client_secret}\n";
    std::fs::write(&config, text).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
    for name in ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"] {
        command.env_remove(name);
    }
    let output = command.args(["client-config", "docker", "--config"]).arg(&config).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// The registry's route is not among the example's.
const GONE: &str = "etc/containerd/certs.d/gone.example/hosts.toml";

/// A tree with the files of today, one of a route that is gone, and one that somebody else wrote.
fn tree_with_a_stale_file() -> tempfile::TempDir {
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

#[test]
fn what_cannot_be_written_is_status_1_and_wrong_words_are_status_2() {
    for (root, says) in [("/nonexistent", "No such file or directory"), ("/etc/passwd", "it is no directory")] {
        for task in [&["--write"][..], &["--write", "--prune"], &["--write", "--remove"], &["--prune"], &["--remove"]] {
            let output = client_config(&[&["podman", "--root", root], task].concat());
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            // Where something is shown, the words about the files come first.
            let said = text(&output.stderr);
            let lines: Vec<_> = said.lines().filter(|line| line.contains(root)).collect();
            assert!(lines.len() == 1, "{said}");
            assert!(lines[0].starts_with(&format!("acr-cache-proxy: --root {root}: {says}")), "{said}");
        }
    }
    for arguments in [&["oci"][..], &["docker", "--mirror", "mirror"], &["docker", "--listen-address", ":0"]] {
        let output = client_config(arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{output:?}");
        assert_eq!(text(&output.stderr).lines().count(), 1, "{output:?}");
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
