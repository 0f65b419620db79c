//! Clients that bring an engine of their own, and those that have no files.

use super::{config, content, local, made, mirror, paths, says, shown};
use crate::client_config::Client;

#[test]
fn k3s_and_rke2_have_the_proxy_as_the_first_endpoint() {
    let routes =
        config(None, &[("docker.io", false, &[]), ("ghcr.io", true, &[]), ("registry.example:5000", false, &[])]);
    for (client, path, says_of) in [
        (Client::K3s, "/etc/rancher/k3s/registries.yaml", "ghcr.io is closed, but k3s asks it last all the same"),
        (
            Client::Rke2,
            "/etc/rancher/rke2/registries.yaml",
            "unless /etc/rancher/rke2/config.yaml says disable-default",
        ),
    ] {
        let setup = made(client, &routes, &local());
        let entry = |name: &str| format!("  \"{name}\":\n    endpoint:\n      - \"http://127.0.0.1:8080\"\n");
        let expected =
            format!("mirrors:\n{}{}{}", entry("docker.io"), entry("ghcr.io"), entry("registry.example:5000"));
        assert_eq!(content(&setup, path), expected);
        assert!(says(&setup, says_of) && setup.files.len() == 1, "{setup:?}");
    }
}

#[test]
fn nerdctl_has_containerds_files_and_no_word_about_config_path() {
    let routes = config(None, &[("docker.io", false, &[]), ("ghcr.io", true, &[])]);
    let (setup, containerd) = (made(Client::Nerdctl, &routes, &local()), made(Client::Containerd, &routes, &local()));
    assert_eq!(setup.files, containerd.files);
    assert!(
        says(&containerd, "[plugins.") && !says(&setup, "[plugins.") && says(&setup, "ghcr.io is closed"),
        "{setup:?}"
    );
}

#[test]
fn talos_gets_a_patch() {
    let routes = config(None, &[("docker.io", false, &[]), ("ghcr.io", true, &[])]);
    let (out, about) = shown(&made(Client::Talos, &routes, &mirror("http://10.0.0.5:8080")));
    let expected = "\
machine:
  registries:
    mirrors:
      \"docker.io\":
        endpoints:
          - \"http://10.0.0.5:8080\"
      \"ghcr.io\":
        endpoints:
          - \"http://10.0.0.5:8080\"
        skipFallback: true
";
    assert_eq!(out, expected);
    assert!(about.contains("talosctl patch machineconfig --patch @patch.yaml") && !about.contains("the node's own"));
    assert!(says(&made(Client::Talos, &routes, &local()), "127.0.0.1:8080 is the node's own"));
}

#[test]
fn kaniko_gets_flags() {
    let open = [("docker.io", false, &[][..]), ("ghcr.io", false, &[])];
    let closed = [("docker.io", true, &[][..]), ("registry.example:5000", true, &["own.mirror.internal"])];
    let mixed = [("docker.io", false, &[][..]), ("ghcr.io", true, &[]), ("registry.example:5000", false, &[])];
    let hub = "--registry-mirror=m.internal/docker.io\n";
    for (default, routes, url, flags) in [
        (Some("ghcr.io"), &open[..], "https://m.internal", format!("{hub}--registry-map=ghcr.io=m.internal/ghcr.io\n")),
        (
            Some("docker.io"),
            &open,
            "http://10.0.0.5:8080",
            "--registry-mirror=10.0.0.5:8080\n--registry-map=ghcr.io=10.0.0.5:8080/ghcr.io\n--insecure-registry=10.0.0.5:8080\n".to_owned(),
        ),
        (
            None,
            &closed,
            "https://m.internal",
            "--registry-mirror=m.internal\n--registry-map=registry.example:5000=own.mirror.internal\n--skip-default-registry-fallback\n".to_owned(),
        ),
        (Some("ghcr.io"), &mixed, "https://m.internal", format!("{hub}--registry-map=ghcr.io=m.internal/ghcr.io\n")),
    ] {
        let setup = made(Client::Kaniko, &config(default, routes), &mirror(url));
        assert_eq!(shown(&setup).0, flags);
        let is_mixed = routes.len() == mixed.len();
        assert_eq!(says(&setup, "ghcr.io is closed, but kaniko can only be told for all"), is_mixed, "{setup:?}");
        assert_eq!(says(&setup, "registry.example:5000 is left out"), is_mixed, "{setup:?}");
    }
}

#[test]
fn docker_desktop_has_its_users_daemon_json_and_no_address_that_is_its_own() {
    use crate::client_config::docker_desktop::setup;
    let home = Some(std::path::Path::new("/home/me"));
    let hub = config(None, &[("docker.io", false, &[])]);
    let address = mirror("http://host.docker.internal:8080");
    let made = setup(hub.routes(), &address, home).expect("an address that it reaches");
    assert_eq!(paths(&made), ["/home/me/.docker/daemon.json"]);
    assert!(made.files[0].content.contains("\"http://host.docker.internal:8080\""), "{made:?}");
    for url in ["http://127.0.0.1:8080", "http://[::1]:8080", "http://localhost:8080"] {
        let said = setup(hub.routes(), &mirror(url), home).expect_err("its own");
        assert!(said.ends_with("--mirror, such as http://host.docker.internal:8080"), "{said}");
    }
    assert!(setup(hub.routes(), &address, None).is_err_and(|said| said.starts_with("HOME is not set")));
    let made = setup(config(None, &[("ghcr.io", false, &[])]).routes(), &address, home).expect("nothing to write");
    assert!(made.files.is_empty() && says(&made, "no route is for docker.io"), "{made:?}");
}
