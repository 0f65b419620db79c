//! What the settings become: flags, file, defaults.

use std::path::PathBuf;

use super::identity::{Assigned, Kind};
use super::*;
use oci::route::{Blobs, OnFailure, Route};

mod cache;
mod doubts;
mod mistakes;
mod reference;

fn domain_flag() -> Flags {
    Flags::default().with(&ROUTE.domain.row, "example.azurecr.io")
}

/// The routes, each as `source -> domain/prefix`.
fn lines(config: &Config) -> Vec<String> {
    let line = |route: &Route<Destination>| {
        let domain = route.destination.upstream.domain().authority();
        format!("{} -> {domain}/{}", route.source, route.prefix.as_str())
    };
    config.routes().iter().map(line).collect()
}

/// Loads a file with this text; mistakes as lines, the file's folder cut off.
fn load(text: &str, flags: Flags) -> Result<Config, Vec<String>> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, text).expect("written");
    let prefix = format!("{}/", folder.path().display());
    Config::load(&flags.with_file(Some(path)))
        .map_err(|mistakes| mistakes.to_string().lines().map(|line| line.replace(&prefix, "")).collect())
}

fn shipped() -> Vec<(PathBuf, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conf");
    let files: Vec<_> = std::fs::read_dir(folder)
        .expect("conf")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        // Samples for other programs.
        .filter(|path| {
            !["compose.yaml", "alerts.yaml", "alerts-test.yaml", "prometheus.yaml"]
                .iter()
                .any(|name| path.ends_with(name))
        })
        .map(|path| (path.clone(), std::fs::read_to_string(path).expect("a file")))
        .collect();
    assert!(files.len() >= 2);
    files
}

#[test]
fn the_shipped_files_load_and_the_full_one_holds_the_defaults() {
    for (path, text) in shipped() {
        let config = load(&text, Flags::default()).unwrap_or_else(|mistakes| panic!("{path:?}: {mistakes:?}"));
        assert_eq!(config.listeners()[0].endpoint.to_string(), "127.0.0.1:8080", "{path:?}");
        assert_eq!(config.log().filter.as_str(), "info", "{path:?}");
        assert!(lines(&config).contains(&"docker.io -> example.azurecr.io/hub".to_owned()), "{path:?}");
        assert_eq!(config.routes().default_registry(), Some("docker.io"), "{path:?}");
        assert_eq!((config.ca_file(), config.admin()), (None, None), "{path:?}");
        assert_eq!(config.token_wait(), DEFAULT_TOKEN_WAIT, "{path:?}");
        if path.ends_with("full.yaml") {
            assert_eq!(config.threads(), DEFAULT_THREADS);
            let defaults = CacheSettings { memory: 64 << 20, prefetch: Vec::new() };
            assert_eq!(config.cache(), Some(&defaults));
            assert_eq!(config.registry_reads_per_minute(), None);
            let upstream = &config.upstreams()[0];
            assert!(upstream.addresses().is_empty());
            assert_eq!(upstream.identity(), &Identity::default());
            let route = config.routes().iter().next().expect("a route");
            assert_eq!(
                (route.destination.on_failure, route.destination.blobs),
                (OnFailure::default(), Blobs::default())
            );
        }
    }
}

#[test]
fn an_unknown_key_in_any_table_of_a_shipped_file_is_an_error_at_its_line() {
    let mut tables = 0;
    for (path, text) in shipped() {
        let lines: Vec<&str> = text.lines().collect();
        // A table begins at the top, behind every key that has no value on its line, and in every item of a list.
        let starts = std::iter::once((0, String::new())).chain(lines.iter().enumerate().filter_map(|(at, line)| {
            let depth = line.len() - line.trim_start().len();
            let begins = line.ends_with(':') && !line.trim_start().starts_with('#') && *line != "routes:";
            let item = line.trim_start().starts_with("- ");
            (begins || item).then(|| (at + 1, " ".repeat(depth + 2)))
        }));
        for (at, indent) in starts {
            tables += 1;
            let mut mutated = lines.clone();
            let unknown = format!("{indent}mutation: 1");
            mutated.insert(at, &unknown);
            let mistakes = load(&mutated.join("\n"), Flags::default()).expect_err("an unknown key");
            let place = format!("config.yaml:{}: ", at + 1);
            assert!(
                mistakes.len() == 1 && mistakes[0].starts_with(&place) && mistakes[0].contains("mutation"),
                "{path:?}: {mistakes:?}"
            );
        }
    }
    assert!(tables >= 11, "{tables}");
}

#[test]
fn all_mistakes_are_reported_at_once_each_with_its_line() {
    let text = "listen: nowhere\nupstream:\n  domain: https://example.azurecr.io/\n  prefx: hub\n  prefix: /hub\n  addresses:\n    - 10.0.0.1\n    - ten\n5: x\nidentity: {kind: guess}\nca_file: [7]\nlog: loud\n";
    let mistakes = load(text, Flags::default()).expect_err("wrong");
    for expected in [
        "config.yaml:1: listen: \"nowhere\" is not an address",
        "config.yaml:3: upstream.domain: \"https://example.azurecr.io/\" has a scheme",
        "config.yaml:4: upstream.prefx: unknown setting: did you mean prefix?",
        "config.yaml:5: upstream.prefix: \"/hub\" is not a repository path",
        "config.yaml:8: upstream.addresses[1]: \"ten\" is not an IP address",
        "config.yaml:9: 5: unknown setting",
        "config.yaml:10: identity.kind: unknown value \"guess\": use one of default",
        "config.yaml:11: ca_file: must be a text",
        "config.yaml:12: log: \"loud\" is not a log filter",
    ] {
        assert!(mistakes.iter().any(|mistake| mistake.starts_with(expected)), "{expected}\n{mistakes:#?}");
    }
    assert_eq!(mistakes.len(), 9, "{mistakes:#?}");
}

#[test]
fn a_file_of_another_kind_is_one_clear_error() {
    let huge = "#".repeat((1 << 20) + 1);
    for (text, says) in [
        ("[1, 2]", "the file: must be a table of listen"),
        ("upstream: [", "config.yaml:2: not YAML: "),
        ("upstream: x", "config.yaml:1: upstream: must be a table of domain, prefix"),
        ("listen: :1\nlisten: :2\n", "config.yaml:2: listen: is set twice, first in line 1: remove one of the two"),
        (&huge, "which no configuration needs"),
        ("", "the registry is not named"),
    ] {
        let mistakes = load(text, Flags::default()).expect_err(says);
        assert!(mistakes.len() == 1 && mistakes[0].contains(says), "{says}: {mistakes:?}");
    }
    let flags = domain_flag().with_file(Some("/nonexistent.yaml".into()));
    let mistakes = Config::load(&flags).expect_err("no file").to_string();
    assert!(mistakes.starts_with("--config /nonexistent.yaml: No such file"), "{mistakes}");
}

#[test]
fn flags_win_over_the_variable_and_the_file() {
    let text = "listen: 127.0.0.1:1\nupstream: {domain: a.azurecr.io, prefix: x}\nlog: warn\n";
    let config = load(text, Flags::default()).expect("valid");
    assert_eq!(
        (config.listeners()[0].endpoint.to_string().as_str(), config.log().filter.as_str()),
        ("127.0.0.1:1", "warn")
    );
    let config = load(text, Flags::default().with_rust_log(Some("error".to_owned()))).expect("valid");
    assert_eq!(config.log().filter, "error");
    let flags = Flags::default()
        .with(&FILE.listen.row, ":2")
        .with_upstream("b.azurecr.io", "")
        .with(&FILE.log.row, "debug")
        .with_rust_log(Some("error".to_owned()));
    let config = load(text, flags).expect("valid");
    assert_eq!(
        (config.listeners()[0].endpoint.to_string().as_str(), config.log().filter.as_str()),
        ("[::]:2", "debug")
    );
    assert_eq!(lines(&config), ["docker.io -> b.azurecr.io/"]);
}

#[test]
fn the_drain_has_its_bounds() {
    let drain = |lines: &str| load(lines, domain_flag()).map(|config| config.drain());
    let times = |notice, timeout| Drain { notice: Duration::from_secs(notice), timeout: Duration::from_secs(timeout) };
    assert_eq!(drain(""), Ok(times(0, 25)));
    assert_eq!(drain("drain: {notice: 5s}"), Ok(times(5, 25)));
    assert_eq!(drain("drain: {notice: 5m, timeout: 1h}"), Ok(times(300, 3600)));
    for (lines, wrong) in [
        (
            "drain: {notice: 6m}",
            "config.yaml:1: drain.notice: \"6m\" is not a time from 0s to 5m: use a whole number of s, m or h, such as 5m",
        ),
        (
            "drain: {timeout: 0s}",
            "config.yaml:1: drain.timeout: \"0s\" is not a time from 1s to 1h: use a whole number of s, m or h, such as 1h",
        ),
    ] {
        assert_eq!(drain(lines), Err(vec![wrong.to_owned()]));
    }
}

#[test]
fn the_wait_for_a_token_is_1_to_20_seconds() {
    let config = load("upstream: {domain: a.azurecr.io}", Flags::default()).expect("valid");
    assert_eq!(config.token_wait(), DEFAULT_TOKEN_WAIT, "the row's default and the constant are one time");
    for (text, expected) in
        [("1s", Some(1)), ("20s", Some(20)), ("0s", None), ("21s", None), ("10", None), ("-1s", None), ("1m", None)]
    {
        let config = load(&format!("token_wait: '{text}'\nupstream: {{domain: a.azurecr.io}}"), Flags::default());
        match (config, expected) {
            (Ok(config), Some(seconds)) => assert_eq!(config.token_wait().as_secs(), seconds),
            (Err(mistakes), None) => {
                assert!(mistakes[0].starts_with("config.yaml:1: token_wait: ") && mistakes[0].contains("1s to 20s"));
            }
            (other, _) => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn an_idle_connection_is_kept_for_a_second_to_an_hour() {
    let keepalive = |text: &str| {
        let text = format!("client_keepalive: '{text}'\nupstream: {{domain: a.azurecr.io}}");
        load(&text, Flags::default()).map(|config| config.client_keepalive().as_secs())
    };
    for (text, expected) in [("1s", 1), ("75s", 75), ("3600s", 3600), ("5m", 300), ("1h", 3600)] {
        assert_eq!(keepalive(text).expect("valid"), expected);
    }
    for text in ["0s", "3601s", "75", "-1s", "2h", "61m", "1.5m", ""] {
        let mistakes = keepalive(text).expect_err(text);
        assert!(mistakes[0].starts_with("config.yaml:1: client_keepalive: ") && mistakes[0].contains("1s to 1h"));
    }
    let config = load("upstream: {domain: a.azurecr.io}", Flags::default()).expect("valid");
    assert_eq!(config.client_keepalive().as_secs(), 75);
}

#[test]
fn a_domain_is_a_host_and_perhaps_a_port() {
    for (text, host, port, authority, server_name) in [
        ("example.azurecr.io", "example.azurecr.io", 443, "example.azurecr.io", "example.azurecr.io"),
        ("Example.AzureCR.io:443", "example.azurecr.io", 443, "example.azurecr.io", "example.azurecr.io"),
        ("a-b.geo.azurecr.io:5000", "a-b.geo.azurecr.io", 5000, "a-b.geo.azurecr.io:5000", "a-b.geo.azurecr.io"),
        ("10.0.0.5:5000", "10.0.0.5", 5000, "10.0.0.5:5000", "10.0.0.5"),
        ("[fd00::5]:5000", "[fd00::5]", 5000, "[fd00::5]:5000", "fd00::5"),
        ("[fd00::5]", "[fd00::5]", 443, "[fd00::5]", "fd00::5"),
    ] {
        let domain = Domain::parse(text).expect(text);
        assert_eq!(
            (domain.host(), domain.port(), domain.authority(), domain.server_name()),
            (host, port, authority, server_name)
        );
    }
    for (text, says) in [
        ("https://example.azurecr.io", "without https://"),
        ("example.azurecr.io/hub", "goes into the prefix"),
        ("user@example.azurecr.io", "more than a host"),
        ("example.azurecr.io:0", "port"),
        ("example.azurecr.io:https", "port"),
        ("fd00::5", "not a host name"),
        ("10.0.0.256", "not a host name"),
        ("-a.azurecr.io", "not a host name"),
        ("a..io", "not a host name"),
        ("a b", "not a host name"),
        ("", "not a host name"),
    ] {
        assert!(Domain::parse(text).expect_err(text).contains(says), "{text}");
    }
}

const ID: &str = "11111111-2222-4333-8444-55555555555A";

#[test]
fn an_identity_takes_the_keys_of_its_kind() {
    let identity = |text: &str| {
        load(&format!("upstream: {{domain: a.azurecr.io}}\nidentity: {text}"), Flags::default())
            .map(|config| config.upstreams()[0].identity().clone())
    };
    let kind = |text: &str| identity(text).map(|identity| identity.kind().clone()).expect(text);
    assert_eq!(kind("{}"), Kind::Default);
    assert_eq!(kind("{kind: anonymous}"), Kind::Anonymous);
    assert_eq!(
        kind(&format!("{{kind: managed_identity, object_id: {ID}}}")),
        Kind::ManagedIdentity(Assigned::ObjectId(ID.to_owned()))
    );
    assert_eq!(
        kind("{kind: client_secret, tenant_id: t, client_secret_file: /f}"),
        Kind::ClientSecret { tenant_id: Some("t".to_owned()), client_id: None, secret_file: Some("/f".into()) }
    );
    for (text, authority, scope) in [
        ("{}", None, "https://containerregistry.azure.net/.default"),
        (
            "{cloud: usgovernment}",
            Some("https://login.microsoftonline.us"),
            "https://containerregistry.azure.net/.default",
        ),
        (
            "{cloud: china, audience: arm}",
            Some("https://login.chinacloudapi.cn"),
            "https://management.chinacloudapi.cn/.default",
        ),
        ("{audience: arm}", None, "https://management.azure.com/.default"),
        (
            "{authority: 'https://Login.Example:8443/', audience: 'https://own.example/'}",
            Some("https://login.example:8443"),
            "https://own.example/.default",
        ),
    ] {
        let identity = identity(text).expect(text);
        assert_eq!((identity.authority(), identity.scope()), (authority, scope), "{text}");
    }
    for (text, says) in [
        ("{kind: guess}", "unknown value \"guess\": use one of default, client_secret"),
        (
            "{kind: azure_cli, client_id: c}",
            "identity.client_id: does not apply to kind azure_cli: remove it; azure_cli takes cloud",
        ),
        ("{kind: anonymous, cloud: china}", "identity.cloud: does not apply to kind anonymous"),
        ("{client_id: c}", "identity.client_id: does not apply to kind default"),
        ("{cloud: mars}", "unknown value \"mars\": use one of public"),
        ("{authority: 'http://login.example'}", "is not an address of Entra ID"),
        ("{audience: graph}", "unknown value \"graph\": use registry, arm or"),
        (
            &format!("{{kind: managed_identity, client_id: {ID}, object_id: {ID}}}"),
            "client_id, object_id and resource_id exclude each other: keep one",
        ),
        // A name or an address in their place showed at the sign-in alone.
        ("{kind: managed_identity, client_id: pull-identity}", "identity.client_id: it is not a GUID: use the id"),
        ("{kind: managed_identity, object_id: pull-identity}", "identity.object_id: it is not a GUID: use the id"),
        (
            "{kind: workload_identity, client_id: 11111111-2222-4333-8444-55555555555g}",
            "identity.client_id: it is not a GUID: use the id",
        ),
        ("{kind: client_secret, tenant_id: ''}", "identity.tenant_id: is empty: set a value"),
        ("{kind: client_secret, client_secret: x}", "identity.client_secret: unknown setting"),
    ] {
        let mistakes = identity(text).expect_err(text);
        assert!(
            mistakes.len() == 1 && mistakes[0].starts_with("config.yaml:2: ") && mistakes[0].contains(says),
            "{text}: {mistakes:?}"
        );
    }
}

#[test]
fn an_admin_port_alone_is_on_loopback() {
    for (text, expected) in [(":8081", "127.0.0.1:8081"), ("0.0.0.0:8081", "0.0.0.0:8081"), ("[::1]:0", "[::1]:0")] {
        let flags = domain_flag().with(&FILE.admin.row, text);
        let admin = Config::load(&flags).expect("valid").admin();
        assert_eq!(admin.map(|address| address.to_string()).as_deref(), Some(expected));
    }
}

#[test]
fn threads_are_counted_by_whether_blobs_come_through_here() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for (settings, expected) in [
        ("upstream: {domain: example.azurecr.io}", Some(1)),
        ("upstream: {domain: example.azurecr.io, blobs: proxy}", Some(cores.min(DEFAULT_THREADS_FOR_BLOBS))),
        ("upstream: {domain: example.azurecr.io, blobs: proxy}\nthreads: 1", Some(1)),
        ("upstream: {domain: example.azurecr.io}\nthreads: 8", Some(8)),
        ("upstream: {domain: example.azurecr.io}\nthreads: '8'", Some(8)),
        ("upstream: {domain: example.azurecr.io}\nthreads: 0", None),
        ("upstream: {domain: example.azurecr.io}\nthreads: 513", None),
        ("upstream: {domain: example.azurecr.io}\nthreads: many", None),
    ] {
        let threads = load(settings, Flags::default()).map(|config| config.threads());
        match (threads, expected) {
            (Ok(threads), Some(expected)) => assert_eq!(threads, expected, "{settings}"),
            (Err(mistakes), None) => {
                let sentence = format!("{mistakes:?}");
                assert!(
                    sentence.contains("config.yaml:2: threads: ") && sentence.contains("from 1 to 512"),
                    "{sentence}"
                );
            }
            (threads, _) => panic!("{settings}: {threads:?}"),
        }
    }
}

#[test]
fn routes_are_a_table_of_sources() {
    let text = "\
identity: {kind: anonymous}
default: ghcr.io
routes:
  - {source: docker.io, domain: a.azurecr.io, prefix: hub}
  - {source: docker.io/library, domain: a.azurecr.io, prefix: official, on_failure: closed}
  - {source: ghcr.io, domain: b.azurecr.io, hosts: [Ghcr.Internal:8080], blobs: proxy, blob_hosts: [.blob.internal]}
  - {source: quay.io, domain: b.azurecr.io, prefix: quay, identity: {kind: azure_cli}}
";
    let config = load(text, Flags::default()).expect("valid");
    assert_eq!(
        lines(&config),
        [
            "docker.io/library -> a.azurecr.io/official",
            "docker.io -> a.azurecr.io/hub",
            "ghcr.io -> b.azurecr.io/",
            "quay.io -> b.azurecr.io/quay",
        ]
    );
    // One for a, and two for b: who signs in is another.
    let kinds: Vec<_> = config.upstreams().iter().map(|upstream| upstream.identity().kind().clone()).collect();
    assert_eq!(kinds, [Kind::Anonymous, Kind::Anonymous, Kind::AzureCli]);
    assert_eq!(config.routes().default_registry(), Some("ghcr.io"));
    let route = config.routes().iter().nth(2).expect("ghcr.io");
    assert_eq!(
        (route.hosts.as_slice(), route.destination.blobs),
        (&["ghcr.internal:8080".to_owned()][..], Blobs::Proxy)
    );
    assert_eq!(route.destination.blob_hosts, [".blob.internal"]);
}

#[test]
fn routes_that_differ_in_anything_but_the_registry_and_who_signs_in_share_both() {
    let text = "\
identity: {kind: anonymous}
routes:
  - {source: docker.io, domain: a.azurecr.io, prefix: hub, addresses: [10.0.0.1], blobs: proxy, blob_hosts: [x.internal]}
  - {source: ghcr.io, domain: a.azurecr.io, prefix: ghcr, addresses: [10.0.0.1], blobs: proxy, cache: off, hosts: [m.io]}
  - {source: quay.io, domain: a.azurecr.io, prefix: quay, addresses: [10.0.0.1], on_failure: closed, cache: {tags: 0s}}
  - {source: gcr.io, domain: a.azurecr.io, addresses: [10.0.0.2], identity: {kind: azure_cli}}
";
    let config = load(text, Flags::default()).expect("valid");
    let kinds: Vec<_> = config.upstreams().iter().map(|upstream| upstream.identity().kind().clone()).collect();
    assert_eq!(kinds, [Kind::Anonymous, Kind::AzureCli]);
}

#[test]
fn a_wrong_route_is_named_by_its_line() {
    for (text, says) in [
        ("routes:\n  - {domain: a.azurecr.io}", "config.yaml:2: routes[0]: has no source"),
        ("routes:\n  - {source: docker.io}", "config.yaml:2: routes[0]: has no domain"),
        (
            "routes:\n  - {source: hub, domain: a.azurecr.io}",
            "config.yaml:2: routes[0].source: \"hub\" is not a source",
        ),
        ("routes: {source: docker.io}", "config.yaml:1: routes: must be a list: each item begins with a dash"),
        (
            "routes:\n  - {source: docker.io, domain: a.io}\n  - {source: index.docker.io, domain: b.io}",
            "config.yaml:3: routes[1].source: docker.io has a route already: remove one of the two",
        ),
        (
            "routes:\n  - {source: ghcr.io, domain: a.io}\ndefault: quay.io",
            "config.yaml:3: default: quay.io has no route",
        ),
        ("routes:\n  - {source: ghcr.io, domain: a.io}\ndefault: docker.io/library", "is not a registry"),
        (
            "upstream: {domain: a.io}\nroutes:\n  - {source: ghcr.io, domain: a.io}",
            "config.yaml:1: upstream.domain: cannot be set beside routes",
        ),
        (
            "upstream: {prefix: hub}\nroutes:\n  - {source: ghcr.io, domain: a.io}",
            "config.yaml:1: upstream: cannot be set beside routes",
        ),
        (
            "routes:\n  - {source: ghcr.io, domain: a.io, hosts: [x, m.io]}\n  - {source: quay.io, domain: a.io, hosts: [M.io]}",
            "config.yaml:3: routes[1].hosts[0]: m.io already stands for ghcr.io, by config.yaml:2: routes[0].hosts[1]",
        ),
        (
            "upstream: {domain: a.io, on_failure: open}",
            "upstream.on_failure: unknown value \"open\": use fallback or closed",
        ),
        (
            "upstream: {domain: a.io, blobs: stream}",
            "upstream.blobs: unknown value \"stream\": use redirect, proxy_config or proxy",
        ),
        (
            "upstream: {domain: a.io, blob_hosts: [.x]}",
            "upstream.blob_hosts[0]: has no effect with blobs: redirect: set blobs: proxy_config or blobs: proxy, or remove blob_hosts",
        ),
        (
            "routes:\n  - {source: ghcr.io, domain: a.io, blobs: redirect, blob_hosts: [x.io, y.io]}",
            "config.yaml:2: routes[0].blob_hosts[0]: has no effect with blobs: redirect",
        ),
        (
            "routes:\n  - {source: ghcr.io, domain: a.io, addresses: [10.0.0.1]}\n  - {source: quay.io, domain: a.io, addresses: [10.0.0.2]}",
            "config.yaml:3: routes[1].addresses[0]: a.io has other addresses in an earlier route",
        ),
        (
            "routes:\n  - {source: ghcr.io, domain: a.io, addresses: [10.0.0.1]}\n  - {source: quay.io, domain: 'A.io:443'}",
            "config.yaml:3: routes[1]: a.io has other addresses in an earlier route",
        ),
        ("upstream: {domain: a.io, hosts: ['a b']}", "upstream.hosts[0]: \"a b\" is not a host"),
        ("upstream: {domain: a.io, blob_hosts: ['*.x']}", "upstream.blob_hosts[0]: \"*.x\" is not a host of blobs"),
    ] {
        let mistakes = load(text, Flags::default()).expect_err(text);
        assert!(mistakes.len() == 1 && mistakes[0].contains(says), "{text}: {mistakes:?}");
    }
    // Of one registry's routes, each may be reached by the same name, and a port makes it another.
    let text = "routes:\n  - {source: ghcr.io, domain: a.io, hosts: [m.io]}\n  - {source: ghcr.io/x, domain: a.io, prefix: x, hosts: [m.io]}\n  - {source: quay.io, domain: a.io, hosts: ['m.io:81']}";
    assert!(load(text, Flags::default()).is_ok());
    let flags = domain_flag();
    let mistakes = load("routes:\n  - {source: ghcr.io, domain: a.io}", flags).expect_err("two ways");
    assert!(mistakes[0].starts_with("--upstream-domain: cannot be set beside routes"), "{mistakes:?}");
}

#[test]
fn settings_from_a_pipe_are_not_waited_for_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    std::fs::write(path("sample"), SAMPLE).expect("written");
    std::fs::write(path("edited"), format!("{SAMPLE}#")).expect("written");
    for (file, expected) in [("sample", true), ("edited", false), ("pipe", false), ("nothing", false)] {
        assert_eq!(is_sample(&path(file)), expected, "{file}");
    }
}
