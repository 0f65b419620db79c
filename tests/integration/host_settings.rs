//! The settings of the host, which `check`, `client-config` and `doctor` read without flags of their own.

use std::process::Command;

use crate::client_config::text;

/// A command without flags looked nowhere for the settings that doctor found.
#[test]
fn without_flags_of_settings_those_of_the_host_are_read() {
    let root = tempfile::tempdir().expect("a directory");
    let config = root.path().join("etc/acr-cache-proxy/config.yaml");
    std::fs::create_dir_all(config.parent().expect("a parent")).expect("made");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        let output = command.env_clear().args(arguments).arg("--root").arg(root.path()).output().expect("it runs");
        (output.status.code(), text(&[output.stdout, output.stderr].concat()))
    };
    let hosts = "listen: 127.0.0.1:8099\nupstream: {domain: of-the-host.azurecr.io}\n";
    let wrong = "upstraem: {domain: a.azurecr.io}\n";
    let sample = include_str!("../../conf/minimal.yaml");
    let flags = ["--upstream-domain", "example.azurecr.io", "--upstream-prefix", "hub"];
    let other = root.path().join("other.yaml");
    std::fs::write(&other, "listen: 127.0.0.1:8098\nupstream: {domain: example.azurecr.io}\n").expect("written");
    let file = ["--config", other.to_str().expect("text")];
    for (content, given, status, says) in [
        (Some(hosts), &[][..], 1, "lacks http://127.0.0.1:8099 in registry-mirrors"),
        // Who names settings gets these and no others.
        (Some(hosts), &flags, 1, "lacks http://127.0.0.1:8080 in registry-mirrors"),
        (Some(hosts), &file, 1, "lacks http://127.0.0.1:8098 in registry-mirrors"),
        (Some(wrong), &flags, 1, "lacks http://127.0.0.1:8080 in registry-mirrors"),
        (Some(wrong), &[], 2, "etc/acr-cache-proxy/config.yaml:1: upstraem: unknown setting"),
        (Some(sample), &[], 2, "it is the package's example, whose registry nobody has: acr-cache-proxy init"),
        (None, &[], 2, "upstream"),
        // With a flag that names no registry it was said that no registry is named.
        (Some(hosts), &["--log", "debug"], 1, "lacks http://127.0.0.1:8099 in registry-mirrors"),
        (Some(hosts), &["--threads", "2"], 1, "lacks http://127.0.0.1:8099 in registry-mirrors"),
        (Some(hosts), &["--listen-address", "127.0.0.1:8097"], 1, "lacks http://127.0.0.1:8097 in registry-mirrors"),
        (Some(wrong), &["--log", "debug"], 2, "etc/acr-cache-proxy/config.yaml:1: upstraem: unknown setting"),
        (None, &["--log", "debug"], 2, "upstream"),
    ] {
        match content {
            Some(content) => std::fs::write(&config, content).expect("written"),
            None => drop(std::fs::remove_file(&config)),
        }
        let json = root.path().join("etc/docker/daemon.json");
        std::fs::create_dir_all(json.parent().expect("a parent")).expect("made");
        std::fs::write(&json, "{}").expect("written");
        let (code, said) = run(&[&["client-config", "docker", "--check"][..], given].concat());
        assert!(code == Some(status) && said.contains(says), "{content:?} {given:?} {code:?} {said}");
        if content != Some(sample) {
            let (code, said) = run(&[&["check"][..], given].concat());
            let status = if status == 2 { 2 } else { 0 };
            assert!(code == Some(status) && (status == 0 || said.contains("upstr")), "{content:?} {given:?} {said}");
        }
    }
}

/// The file behind the link was read, and its lines were printed as mistakes.
#[test]
fn settings_behind_a_link_out_of_the_root_or_to_nowhere_are_not_read() {
    let (root, outside) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let config = root.path().join("etc/acr-cache-proxy/config.yaml");
    std::fs::create_dir_all(config.parent().expect("a parent")).expect("made");
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "hunter2: hunter2\n").expect("written");
    for (target, says) in
        [(secret, "is a symbolic link out of"), ("nowhere".into(), "is a symbolic link that leads nowhere")]
    {
        std::os::unix::fs::symlink(target, &config).expect("linked");
        for command in [&["client-config", "docker", "--check"][..], &["check"], &["doctor"]] {
            let mut program = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
            let output = program.env_clear().args(command).arg("--root").arg(root.path()).output().expect("it runs");
            let said = text(&[output.stdout, output.stderr].concat());
            assert!(output.status.code() == Some(2) && said.contains(says), "{command:?} {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        std::fs::remove_file(&config).expect("it was there");
    }
}

/// init named a flag that it does not have, and doctor a command that was refused.
#[test]
fn podman_beside_a_proxy_on_ipv6_alone_is_told_what_works() {
    let root = tempfile::tempdir().expect("a directory");
    let config = root.path().join("etc/acr-cache-proxy/config.yaml");
    for path in [&config, &root.path().join("usr/bin/podman")] {
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, "").expect("written");
    }
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        let output = command.env_clear().args(arguments).arg("--root").arg(root.path()).output().expect("it runs");
        (output.status.code(), text(&[output.stdout, output.stderr].concat()))
    };
    let listen = "listen: [{address: '[::1]:8080'}, {address: '127.0.0.1:8080'}]";
    let upstream = "upstream: {domain: example.azurecr.io, prefix: hub}\n";
    std::fs::write(&config, format!("listen: '[::1]:8080'\n{upstream}")).expect("written");
    let (at, own) = (config.display(), "/etc/acr-cache-proxy/config.yaml");
    for (command, status, says) in [
        (&["client-config", "podman", "--write"][..], 2, "or give client-config a name of it with --mirror".to_owned()),
        (
            &["init", "--yes", "--skip", "try"],
            1,
            // Nothing of the host that the tree is of can be reloaded from here.
            format!("after a change of {at}: run init again"),
        ),
        (&["doctor"], 1, format!("${{EDITOR:-vi}} {own} && acr-cache-proxy reload  # podman takes no IPv6 address: ")),
        (&["doctor", "--fix"], 1, format!("${{EDITOR:-vi}} {own} && ")),
    ] {
        let (code, said) = run(command);
        assert!(code == Some(status) && said.contains(&says) && said.contains(listen), "{command:?} {code:?} {said}");
        assert!(!root.path().join("etc/containers").exists(), "{said}");
    }
    let (_, said) = run(&["doctor", "--mirror", "http://[fd00::5]:8080"]);
    assert!(said.contains("getent hosts fd00::5  # ") && said.contains("as http://NAME:8080"), "{said}");

    std::fs::write(&config, format!("{listen}\n{upstream}")).expect("written");
    let (code, said) = run(&["client-config", "podman", "--write"]);
    assert_eq!(code, Some(0), "{said}");
    let written = root.path().join("etc/containers/registries.conf.d/50-acr-cache-proxy.conf");
    let written = std::fs::read_to_string(written).expect("written");
    assert!(written.contains("location = \"127.0.0.1:8080/docker.io\""), "{written}");
}
