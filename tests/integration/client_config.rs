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
    assert!(serde_json::from_slice::<serde_json::Value>(&output.stdout).is_ok(), "{output:?}");
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

#[test]
fn what_cannot_be_written_is_status_1_and_wrong_words_are_status_2() {
    let output = client_config(&["podman", "--write", "--root", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).starts_with("acr-cache-proxy: /nonexistent: "), "{output:?}");
    for arguments in [&["crio"][..], &["docker", "--mirror", "mirror"], &["docker", "--listen-address", ":0"]] {
        let output = client_config(arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{output:?}");
        assert_eq!(text(&output.stderr).lines().count(), 1, "{output:?}");
    }
}
