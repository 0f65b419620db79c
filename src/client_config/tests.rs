//! Each client's files for the same routes.

use super::task::shown;
use super::*;
use crate::config::Flags;

mod certificates;
mod platforms;

/// Settings with these routes; a route is `source`, or `source: closed`, and perhaps names of the mirror.
fn config(default: Option<&str>, routes: &[(&str, bool, &[&str])]) -> Config {
    let mut text = default.map(|registry| format!("default: {registry}\n")).unwrap_or_default();
    text += "routes:\n";
    for (source, closed, hosts) in routes {
        let on_failure = if *closed { "closed" } else { "fallback" };
        text += &format!(
            "- {{source: '{source}', domain: a.azurecr.io, prefix: p, on_failure: {on_failure}, hosts: {hosts:?}}}\n"
        );
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config.yaml");
    std::fs::write(&path, text).expect("written");
    Config::load(&Flags::default().with_file(Some(path))).expect("valid settings")
}

fn mirror(url: &str) -> Mirror {
    Mirror::parse(url).expect("an address")
}

fn local() -> Mirror {
    mirror("http://127.0.0.1:8080")
}

fn made(client: Client, config: &Config, mirror: &Mirror) -> Setup {
    setup(client, config, mirror, Path::new("/")).expect("a client of these routes")
}

/// A file's content without its first line, which is the same in all of them.
fn content<'a>(setup: &'a Setup, path: &str) -> &'a str {
    let file = setup.files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("{path}: {setup:?}"));
    let (first, rest) = file.content.split_once('\n').expect("two lines");
    assert_eq!(first, format!("{MARKER}{MARKER_REST}"));
    rest
}

fn paths(setup: &Setup) -> Vec<&str> {
    setup.files.iter().map(File::path).collect()
}

/// Whether one of the notes has these words.
fn says(setup: &Setup, words: &str) -> bool {
    setup.notes.iter().any(|note| note.contains(words))
}

#[test]
fn a_mirror_is_a_scheme_and_a_host() {
    for (text, expected) in [
        ("http://127.0.0.1:8080", Some("http://127.0.0.1:8080")),
        // doctor said of the file for podman, which has no scheme in it, that its port differs.
        ("http://mirror.internal", Some("http://mirror.internal:80")),
        ("https://Mirror.internal/", Some("https://mirror.internal")),
        ("https://mirror.internal:443", Some("https://mirror.internal:443")),
        ("http://[fd00::5]:8080", Some("http://[fd00::5]:8080")),
        ("https://[fd00::5]", Some("https://[fd00::5]")),
        // As a first part of an image's name it would be no host without a port.
        ("http://mirror", Some("http://mirror:80")),
        ("https://mirror", Some("https://mirror:443")),
        ("http://mirror:8080", Some("http://mirror:8080")),
        ("mirror.internal:8080", None),
        ("HTTP://mirror.internal", None),
        ("http://", None),
        ("http://mirror.internal:0", None),
        ("http://mirror.internal/v2", None),
        ("http://user@mirror.internal", None),
        ("http://mirror.internal\"", None),
        ("", None),
    ] {
        assert_eq!(Mirror::parse(text).ok().map(|mirror| mirror.url()).as_deref(), expected, "{text}");
    }
}

#[test]
fn a_listen_address_is_where_clients_of_the_same_host_find_the_proxy() {
    for (listen, expected) in [
        ("127.0.0.1:8080", Some("http://127.0.0.1:8080")),
        ("0.0.0.0:80", Some("http://127.0.0.1:80")),
        ("[::]:8080", Some("http://127.0.0.1:8080")),
        ("[::1]:8080", Some("http://[::1]:8080")),
        ("10.0.0.5:8080", Some("http://10.0.0.5:8080")),
        ("127.0.0.1:0", None),
    ] {
        let at = Mirror::at(listen.parse().expect("an address"));
        assert_eq!(at.ok().map(|mirror| mirror.url()).as_deref(), expected, "{listen}");
    }
}

#[test]
fn containerd_has_one_file_for_each_registry() {
    let config = config(
        None,
        &[
            ("docker.io", false, &[]),
            ("docker.io/bitnami", false, &[]),
            ("registry.example:5000", false, &[]),
            ("registry.k8s.io", true, &[]),
        ],
    );
    let setup = made(Client::Containerd, &config, &local());
    let at = |registry: &str| format!("/etc/containerd/certs.d/{registry}/hosts.toml");
    assert_eq!(paths(&setup), [at("docker.io"), at("registry.example_5000_"), at("registry.k8s.io")]);
    for (registry, server) in [
        ("docker.io", "server = \"https://registry-1.docker.io\"\n"),
        ("registry.example_5000_", "server = \"https://registry.example:5000\"\n"),
        ("registry.k8s.io", "# Closed: there is nobody else to ask.\nserver = \"http://127.0.0.1:8080\"\n"),
    ] {
        let host = "\n[host.\"http://127.0.0.1:8080\"]\n  capabilities = [\"pull\", \"resolve\"]\n";
        assert_eq!(content(&setup, &at(registry)), format!("{server}{host}"));
    }
    assert!(says(&setup, "[plugins.\"io.containerd.cri.v1.images\".registry]"), "{setup:?}");
    assert!(says(&setup, "[plugins.\"io.containerd.grpc.v1.cri\".registry]"), "{setup:?}");
    assert!(says(&setup, "registry.k8s.io is closed") && !says(&setup, "cannot pull"), "{setup:?}");
}

#[test]
fn a_closed_path_closes_its_registry_for_containerd_and_that_is_said() {
    let part = config(None, &[("docker.io/bitnami", true, &[])]);
    let setup = made(Client::Containerd, &part, &local());
    assert!(
        content(&setup, "/etc/containerd/certs.d/docker.io/hosts.toml").contains("server = \"http://127.0.0.1:8080\"")
    );
    assert!(says(&setup, "docker.io: containerd cannot pull what no route is for"), "{setup:?}");
    let mixed = config(None, &[("docker.io", false, &[]), ("docker.io/bitnami", true, &[])]);
    let setup = made(Client::Containerd, &mixed, &local());
    assert!(says(&setup, "closes all of them for containerd") && !says(&setup, "cannot pull"), "{setup:?}");
    let open = made(Client::Containerd, &config(None, &[("docker.io/bitnami", false, &[])]), &local());
    assert_eq!(open.notes.len(), 1, "nothing is closed: {open:?}");
}

/// The file of podman's registries for routes and a mirror, where a policy requires signatures of all images.
fn podman(config: &Config, mirror: &Mirror) -> (String, Setup) {
    let setup = podman::setup(config.routes(), mirror, true).expect("a client of these routes");
    let text = content(&setup, "/etc/containers/registries.conf.d/50-acr-cache-proxy.conf").to_owned();
    (text, setup)
}

#[test]
fn podman_names_the_registry_in_the_mirrors_path() {
    let routes = config(None, &[("ghcr.io", true, &[]), ("docker.io", false, &[])]);
    let (text, setup) = podman(&routes, &local());
    let expected = "\
[[registry]]
prefix = \"docker.io\"
location = \"docker.io\"

[[registry.mirror]]
location = \"127.0.0.1:8080/docker.io\"
insecure = true

# Closed: there is nobody else to ask.
[[registry]]
prefix = \"ghcr.io\"
location = \"127.0.0.1:8080/ghcr.io\"
insecure = true
";
    assert_eq!(text, expected);
    assert!(says(&setup, "ghcr.io is closed") && !says(&setup, "docker.io is closed"), "{setup:?}");
    let signatures = "docker:\n  \"127.0.0.1:8080\":\n    use-sigstore-attachments: true\n";
    assert_eq!(content(&setup, "/etc/containers/registries.d/50-acr-cache-proxy.yaml"), signatures);
    let (text, _) = podman(&routes, &mirror("https://mirror.internal"));
    assert!(text.contains("location = \"mirror.internal/docker.io\"") && !text.contains("insecure"), "{text}");
}

#[test]
fn podman_gets_no_mirror_that_an_image_reference_cannot_name() {
    let routes = config(None, &[("docker.io", false, &[])]);
    let said = setup(Client::Podman, &routes, &mirror("http://[::1]:8080"), Path::new("/")).expect_err("no reference");
    assert!(said.starts_with("podman takes no IPv6 address for a mirror, as [::1]:8080 is"), "{said}");
}

#[test]
fn who_gives_containerd_an_ipv6_address_is_told_that_containerd_1_cannot_read_it() {
    let routes = config(None, &[("docker.io", false, &[])]);
    for client in [Client::Containerd, Client::Kubernetes] {
        for (address, is_told) in [("http://[::1]:8080", true), ("http://localhost:8080", false)] {
            let setup = made(client, &routes, &mirror(address));
            assert_eq!(
                says(&setup, "containerd 1 cannot read a hosts.toml with an IPv6 address"),
                is_told,
                "{setup:?}"
            );
        }
    }
}

#[test]
fn podman_has_an_entry_for_a_path_where_it_says_something_else_than_the_one_above_it() {
    for (routes, prefixes) in [
        (&[("docker.io", false), ("docker.io/bitnami", false)][..], &["docker.io"][..]),
        (&[("docker.io", false), ("docker.io/bitnami", true)], &["docker.io", "docker.io/bitnami"]),
        (&[("docker.io/bitnami", false)], &["docker.io/bitnami"]),
        (&[("quay.io/a", true), ("quay.io/a/b", true), ("quay.io/ab", true)], &["quay.io/a", "quay.io/ab"]),
        (&[("quay.io", false), ("quay.io/a", true), ("quay.io/a/b", false)], &["quay.io", "quay.io/a", "quay.io/a/b"]),
    ] {
        let routes: Vec<_> = routes.iter().map(|(source, closed)| (*source, *closed, &[][..])).collect();
        let (text, _) = podman(&config(None, &routes), &local());
        let found: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("prefix = ")).collect();
        assert_eq!(found, prefixes.iter().map(|prefix| format!("\"{prefix}\"")).collect::<Vec<_>>(), "{routes:?}");
    }
}

#[test]
fn podman_reaches_a_registry_with_a_port_by_the_mirrors_name() {
    for (default, hosts, location) in [
        (None, &["own.mirror.internal"][..], Some("own.mirror.internal:8080/team")),
        (None, &["own.mirror.internal:9090"], Some("own.mirror.internal:9090/team")),
        (Some("registry.example:5000"), &[], Some("127.0.0.1:8080/team")),
        (None, &[], None),
    ] {
        let routes = config(default, &[("registry.example:5000/team", false, hosts)]);
        match location {
            Some(location) => {
                let (text, setup) = podman(&routes, &local());
                assert!(text.contains(&format!("location = \"{location}\"\n")), "{text}");
                // Where signatures are looked for goes by the name that is asked.
                let address = location.split('/').next().expect("a host");
                let signatures = content(&setup, "/etc/containers/registries.d/50-acr-cache-proxy.yaml");
                assert!(signatures.contains(&format!("\n  \"{address}\":\n")), "{signatures}");
            }
            None => {
                let setup = made(Client::Podman, &routes, &local());
                assert!(setup.files.is_empty() && says(&setup, "registry.example:5000/team is left out"), "{setup:?}");
            }
        }
    }
}

#[test]
fn buildkit_has_one_mirror_for_all_registries() {
    let routes = config(None, &[("docker.io", false, &[]), ("ghcr.io", true, &[])]);
    let setup = made(Client::Buildkit, &routes, &local());
    let expected = "\
[registry.\"docker.io\"]
  mirrors = [\"127.0.0.1:8080\"]

[registry.\"ghcr.io\"]
  mirrors = [\"127.0.0.1:8080\"]

[registry.\"127.0.0.1:8080\"]
  http = true
";
    assert_eq!(content(&setup, "/etc/buildkit/buildkitd.toml"), expected);
    assert!(says(&setup, "BuildKit always asks the registry itself") && says(&setup, "ghcr.io is closed"), "{setup:?}");
    let tls = made(Client::Buildkit, &routes, &mirror("https://mirror.internal"));
    let text = content(&tls, "/etc/buildkit/buildkitd.toml");
    assert!(text.ends_with("[registry.\"mirror.internal\"]\n  http = false\n"), "{text}");
}

#[test]
fn dockerd_has_its_mirror_of_docker_hub_and_a_hosts_toml_for_each_registry() {
    let routes = [("docker.io", false, &[][..]), ("ghcr.io", true, &[]), ("registry.example:5000", false, &[])];
    let setup = made(Client::Docker, &config(None, &routes), &local());
    let at = |registry: &str| format!("/etc/docker/certs.d/{registry}/hosts.toml");
    let daemon = "/etc/docker/daemon.json".to_owned();
    assert_eq!(paths(&setup), [daemon, at("docker.io"), at("ghcr.io"), at("registry.example:5000")]);
    assert_eq!(setup.files[0].content, "{\n  \"registry-mirrors\": [\n    \"http://127.0.0.1:8080\"\n  ]\n}\n");
    for (registry, source) in
        [("docker.io", "https://registry-1.docker.io"), ("registry.example:5000", "https://registry.example:5000")]
    {
        let expected = format!(
            "\
# Asked last, and for what is not named below: dockerd 29 looks for referrers.
server = \"http://127.0.0.1:8080\"

[host.\"http://127.0.0.1:8080\"]
  capabilities = [\"pull\", \"resolve\"]

[host.\"{source}\"]
  capabilities = [\"pull\", \"resolve\", \"push\"]
"
        );
        assert_eq!(content(&setup, &at(registry)), expected);
    }
    let containerd = made(Client::Containerd, &config(None, &routes), &local());
    let closed = content(&containerd, "/etc/containerd/certs.d/ghcr.io/hosts.toml");
    assert_eq!(content(&setup, &at("ghcr.io")), closed, "a closed registry has the same for both");
    assert!(says(&setup, "since release 28") && says(&setup, "ghcr.io is closed"), "{setup:?}");
    assert!(says(&setup, "reject that name in the firewall"), "{setup:?}");
}

/// dockerd 28 and every containerd before 2.2 ignore a file with a capability that they do not know, and ask the source.
/// Nothing was said of it, and every pull went past a proxy with a certificate of a company's own CA.
#[test]
fn dockerd_is_told_where_the_ca_of_a_mirror_with_tls_goes() {
    let routes = config(Some("ghcr.io"), &[("docker.io", false, &["hub.internal"]), ("ghcr.io", false, &[])]);
    for (url, files) in [
        ("http://mirror.internal:8443", None),
        (
            "https://mirror.internal:8443",
            Some("mirror.internal:8443/ca.crt and /etc/docker/certs.d/hub.internal:8443/ca.crt"),
        ),
        ("https://hub.internal", Some("hub.internal/ca.crt")),
    ] {
        let setup = made(Client::Docker, &routes, &mirror(url));
        let told =
            files.map(|files| format!("its certificate goes into /etc/docker/certs.d/{files}, which dockerd reads"));
        assert!(told.as_deref().is_none_or(|told| says(&setup, told)), "{url}: {setup:?}");
        assert_eq!(says(&setup, "/ca.crt"), files.is_some(), "{url}");
    }
}

/// dockerd 28 with the containerd image store read it for `daemon.json` alone, and went past the proxy.
#[test]
fn a_ca_in_dockerds_directory_of_the_mirror_is_named_in_each_hosts_toml() {
    const AT: &str = "etc/docker/certs.d/mirror.internal:8443";
    let routes = config(None, &[("docker.io", false, &[]), ("ghcr.io", true, &[])]);
    let ca = format!("ca = \"/{AT}/ca.crt\"");
    let client = format!("client = [[\"/{AT}/client.cert\", \"/{AT}/client.key\"]]");
    for (url, there, named) in [
        ("https://mirror.internal:8443", &[][..], &[][..]),
        ("https://mirror.internal:8443", &["ca.crt"], &[&ca]),
        ("https://mirror.internal:8443", &["ca.crt", "client.cert", "client.key"], &[&ca, &client]),
        ("https://mirror.internal:8443", &["client.cert"], &[]),
        ("https://other.internal:8443", &["ca.crt"], &[]),
        ("http://mirror.internal:8443", &["ca.crt"], &[]),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(root.path().join(AT)).expect("made");
        there.iter().for_each(|name| std::fs::write(root.path().join(AT).join(name), "").expect("written"));
        let made = setup(Client::Docker, &routes, &mirror(url), root.path()).expect("files");
        for name in ["docker.io", "ghcr.io"] {
            let text = content(&made, &format!("/etc/docker/certs.d/{name}/hosts.toml"));
            let table: toml::Table = toml::from_str(text).expect("TOML");
            // The proxy is the server as well.
            for settings in [&table, table["host"][url].as_table().expect("a table")] {
                let mut found = settings.clone();
                found.retain(|key, _| ["ca", "client"].contains(&key));
                let named: toml::Table =
                    named.iter().map(|line| format!("{line}\n")).collect::<String>().parse().expect("TOML");
                assert_eq!(found, named, "{url} {there:?}: {text}");
            }
        }
    }
}

#[test]
fn no_hosts_toml_names_a_capability_that_older_releases_do_not_know() {
    let routes = config(None, &[("docker.io", false, &[]), ("ghcr.io", true, &[])]);
    for client in [Client::Docker, Client::Containerd] {
        for file in made(client, &routes, &local()).files {
            let lines = file.content.lines().filter(|line| line.trim_start().starts_with("capabilities"));
            assert!(lines.clone().all(|line| !line.contains("referrers")), "{client:?}: {}", file.content);
        }
    }
}

#[test]
fn dockerd_has_no_daemon_json_where_it_would_mean_another_registry() {
    let hub_and_other = [("docker.io", false, &[][..]), ("ghcr.io", false, &[])];
    for (default, routes, why) in [
        (None, &[("ghcr.io", false, &[][..])][..], "no route is for docker.io"),
        (Some("ghcr.io"), &hub_and_other, "\"default\" is another registry"),
    ] {
        let setup = made(Client::Docker, &config(default, routes), &local());
        assert!(setup.files.iter().all(|file| file.path.ends_with("/hosts.toml")), "{setup:?}");
        assert_eq!(setup.files.len(), routes.len());
        assert!(says(&setup, why), "{setup:?}");
    }
    let named = config(Some("ghcr.io"), &[("docker.io", false, &["hub.mirror.internal"]), ("ghcr.io", false, &[])]);
    let setup = made(Client::Docker, &named, &local());
    assert!(setup.files[0].content.contains("\"http://hub.mirror.internal:8080\""), "{setup:?}");
}

#[test]
fn a_nodes_script_holds_containerds_files() {
    let routes = config(None, &[("docker.io", false, &[]), ("registry.example:5000", true, &[])]);
    let setup = made(Client::Kubernetes, &routes, &local());
    let containerd = made(Client::Containerd, &routes, &local());
    let (script, files) = setup.files.split_last().expect("some");
    assert_eq!(script.path, "/etc/acr-cache-proxy/setup-node.sh");
    assert!(script.content.starts_with(&format!("#!/bin/sh\n{MARKER}")), "{}", script.content);
    assert!(!script.content.contains('@'), "{}", script.content);
    for (file, same) in files.iter().zip(&containerd.files) {
        assert_eq!((&file.path, &file.content), (&same.path, &same.content));
        let directory = file.path.rsplit('/').nth(1).expect("a directory");
        assert!(script.content.contains(&format!("\nplace '{directory}' <<'END'\n{}END\n", file.content)));
    }
    assert_eq!(files.len(), containerd.files.len());
    let (out, about) = shown(&setup);
    assert_eq!(out, script.content, "nothing but the script");
    assert!(about.starts_with("acr-cache-proxy: this is /etc/acr-cache-proxy/setup-node.sh\n"), "{about}");
}

/// What is added to a file of somebody else is what the whole file says.
#[test]
fn a_file_from_here_lacks_nothing() {
    let routes = config(None, &[("docker.io", false, &[]), ("registry.example:5000", true, &["own.mirror.internal"])]);
    for client in [Client::Docker, Client::Buildkit, Client::K3s, Client::Rke2] {
        for address in ["http://127.0.0.1:8080", "https://mirror.internal", "http://[::1]:8080"] {
            let files = made(client, &routes, &mirror(address)).files;
            let (file, addition) =
                files.iter().find_map(|file| Some((file, file.addition.as_ref()?))).expect("one that can be added to");
            let merged = addition.merge(&file.content, &|_, _| false).expect("a file from here");
            assert_eq!((merged.text.as_str(), merged.lacks.len()), (file.content.as_str(), 0), "{merged:?}");
            let made = addition.merge("", &|_, _| false).expect("an empty file");
            let content = file.content.strip_prefix(&format!("{MARKER}{MARKER_REST}\n")).unwrap_or(&file.content);
            // What is so without a word is not added.
            assert_eq!(made.text, content.trim_end_matches("\n[registry.\"mirror.internal\"]\n  http = false\n"));
        }
    }
}

#[test]
fn what_is_shown_can_be_pasted() {
    let routes = config(None, &[("docker.io", false, &[]), ("ghcr.io", false, &[])]);
    let (out, _) = shown(&made(Client::Docker, &routes, &local()));
    let (first, rest) = out.split_once('\n').expect("two lines");
    assert_eq!(first, "# /etc/docker/daemon.json (without this line: JSON has no comments)");
    let (json, rest) = rest.split_once("\n\n").expect("another file");
    assert!(serde_json::from_str::<serde_json::Value>(json).is_ok(), "{out}");
    assert!(rest.starts_with("# /etc/docker/certs.d/docker.io/hosts.toml\n# Written by"), "{out}");
    let (out, about) = shown(&made(Client::Containerd, &routes, &local()));
    let begin = "# /etc/containerd/certs.d/docker.io/hosts.toml\n# Written by acr-cache-proxy client-config";
    assert!(out.starts_with(begin) && out.contains("\n\n# /etc/containerd/certs.d/ghcr.io/hosts.toml\n"), "{out}");
    assert!(about.lines().all(|line| !line.contains("hosts.toml\n")), "{about}");
}

/// What the files are found by again, once their routes are gone.
#[test]
fn every_file_is_at_a_path_where_it_is_looked_for_later() {
    let routes = config(None, &[("docker.io", false, &[]), ("registry.example:5000", true, &["own.mirror.internal"])]);
    for client in [
        Client::Docker,
        Client::Containerd,
        Client::Nerdctl,
        Client::Podman,
        Client::Buildkit,
        Client::Kubernetes,
        Client::K3s,
        Client::Rke2,
    ] {
        for file in made(client, &routes, &local()).files.iter().filter(|file| file.language != Language::Json) {
            let fits = |pattern: &&str| match pattern.split_once('*') {
                Some((before, after)) => file
                    .path
                    .strip_prefix(before)
                    .and_then(|rest| rest.strip_suffix(after))
                    .is_some_and(|directory| !directory.contains('/')),
                None => file.path == *pattern,
            };
            assert!(client.paths().iter().any(fits), "{client:?}: {}", file.path);
        }
    }
}

#[test]
fn every_client_has_its_name() {
    for name in Client::NAMES.split([',', ' ']).filter(|word| !["", "or"].contains(word)) {
        assert!(Client::parse(name).is_ok(), "{name}");
    }
    assert!(Client::parse("oci").is_err());
}
