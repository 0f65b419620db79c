//! `check` of configurations and of ways to the registry that are broken at each hop: it finds what is broken, and claims
//! nothing else.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use acr_emulator::{Emulator, Hop, Image, Options};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use testkit::certificates::{Authority, Pair};
use testkit::forward::{Does, ForwardProxy};
use testkit::{SECRET, Setup};
use tokio::net::{TcpListener, TcpSocket};
use tokio_rustls::TlsAcceptor;

mod credentials;
mod pulls;
mod variables;
mod ways;

/// The password of the forward proxy.
const PASSWORD: &str = "p@ss:w#rd";

/// What else there is on the network.
struct Others {
    /// Nobody listens at this port, and nobody else gets it.
    _reserved: TcpSocket,
    closed: SocketAddr,
    authority: Authority,
    expired: SocketAddr,
    misnamed: SocketAddr,
    forward: ForwardProxy,
}

impl Others {
    async fn start() -> Self {
        let reserved = TcpSocket::new_v4().expect("a socket");
        reserved.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        let closed = reserved.local_addr().expect("bound");
        let authority = Authority::new("Corp TLS inspection");
        // 2024-02-03 04:05:06.
        let end = UNIX_EPOCH + Duration::from_secs(1_706_933_106);
        Self {
            _reserved: reserved,
            closed,
            expired: serve_tls(authority.server_until(&["example.azurecr.io"], end)).await,
            misnamed: serve_tls(authority.server(&["intranet.corp"])).await,
            authority,
            forward: ForwardProxy::start().await,
        }
    }

    /// In place of the registry: a server with a certificate of the company's CA, which is trusted.
    fn trusted(&self, azure: &Emulator, server: SocketAddr) -> Setup {
        let setup = Setup::registry(azure, server).switch("--online").switch("--json");
        self.trust_both(azure, &setup);
        setup
    }

    fn trust_both(&self, azure: &Emulator, setup: &Setup) {
        setup.file("ca.pem", azure.ca_pem().to_owned() + self.authority.pem());
    }
}

/// A server that shakes hands with this certificate, and says nothing.
pub(crate) async fn serve_tls(Pair { certificate, key }: Pair) -> SocketAddr {
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.expect("versions").with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move { acceptor.accept(stream).await });
        }
    });
    address
}

/// A way that is broken at one hop.
struct Broken {
    /// What is broken.
    what: &'static str,
    options: fn() -> Options,
    breaks: fn(&Emulator, &Others, Setup) -> Setup,
    /// The findings: hop, status, and the words, in which `*` stands for what differs from run to run.
    found: &'static [(&'static str, &'static str, &'static str)],
    /// The hops that are not tried: from this one on, but for those.
    skipped: &'static [&'static str],
}

fn plain() -> Options {
    testkit::options()
}

fn hello(azure: &Emulator) {
    azure.push(Image::small("hub/library/hello-world", "latest"));
}

fn setup(azure: &Emulator) -> Setup {
    Setup::new(azure).switch("--online")
}

/// The hops that are not tried where the way ends before: from this one on.
const FROM_TCP: &[&str] = &[
    "tcp",
    "tls",
    "registry",
    "exchange",
    "token",
    "manifest",
    "blob",
    "storage-dns",
    "storage-tcp",
    "storage-tls",
    "storage",
];
const FROM_TLS: &[&str] = FROM_TCP.split_at(1).1;
const FROM_REGISTRY: &[&str] = FROM_TCP.split_at(2).1;
const FROM_EXCHANGE: &[&str] = FROM_TCP.split_at(3).1;
const FROM_TOKEN: &[&str] = FROM_TCP.split_at(4).1;
const FROM_MANIFEST: &[&str] = FROM_TCP.split_at(5).1;
const FROM_BLOB: &[&str] = FROM_TCP.split_at(6).1;
const FROM_STORAGE: &[&str] = FROM_TCP.split_at(7).1;

/// Runs `check` off the runtime's thread, on which the emulator runs.
async fn check(setup: Setup) -> Output {
    let output = tokio::task::spawn_blocking(move || setup.run("check")).await.expect("no panic");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for secret in [SECRET, PASSWORD, "p%40ss", "eyJ", "sig=", "panicked"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    output
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("no signal")
}

/// The lines of a report as JSON: hop, status, text.
fn lines(output: &Output) -> Vec<(String, String, String)> {
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&text)
        .unwrap_or_else(|wrong| panic!("{wrong}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let text = |line: &Value, name: &str| line[name].as_str().expect("text").to_owned();
    let groups = report["groups"].as_array().expect("groups").iter();
    let lines = groups.flat_map(|group| group["lines"].as_array().expect("lines"));
    lines.map(|line| (text(line, "hop"), text(line, "status"), text(line, "text"))).collect()
}

/// Whether a text is that of a pattern, in which `*` stands for anything.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<_> = parts.collect();
    for (index, part) in parts.iter().enumerate() {
        if index + 1 == parts.len() {
            return rest.ends_with(part);
        }
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_hop_is_found_and_nothing_else_is_claimed() {
    let others = Others::start().await;
    for Broken { what, options, breaks, found, skipped } in ways::BROKEN.iter().chain(pulls::BROKEN) {
        let azure = Emulator::start(options()).await.expect("the emulator starts");
        hello(&azure);
        others.forward.set(Does::Tunnel);
        let output = check(breaks(&azure, &others, setup(&azure).switch("--json"))).await;
        let lines = lines(&output);
        let findings = lines.iter().filter(|(_, status, _)| status != "ok" && status != "skipped");
        let findings: Vec<_> = findings.collect();
        let is_found = findings.len() == found.len()
            && findings.iter().zip(*found).all(|((hop, status, text), (known, like, pattern))| {
                hop == known && status == like && is_like(text, pattern)
            });
        assert!(is_found, "{what}: {findings:#?}");
        let left_out: Vec<_> =
            lines.iter().filter(|(_, status, _)| status == "skipped").map(|(hop, _, _)| hop.as_str()).collect();
        assert_eq!(left_out, *skipped, "{what}: {lines:#?}");
        let expected = i32::from(found.iter().any(|(_, status, _)| *status == "failed"));
        assert_eq!(status(&output), expected, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_works_is_a_line_a_hop_and_costs_three_reads() {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    hello(&azure);
    let output = check(setup(&azure)).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((status(&output), output.stderr.as_slice()), (0, &b""[..]), "{text}");
    let port = azure.registry_addr().port();
    let storage = azure.storage_addr();
    let expected = [
        "configuration */config.yaml".to_owned(),
        "  ok       configuration            1 route to 1 registry".to_owned(),
        format!("registry example.azurecr.io:{port}, signed in by default chain {}", testkit::CLIENT),
        "  ok       dns            * ms  127.0.0.1".to_owned(),
        format!("  ok       tcp            * ms  127.0.0.1:{port}"),
        "  ok       tls            * ms  TLS 1.3, certificate until *, issued by acr-emulator CA".to_owned(),
        "  ok       registry       * ms  answers as a registry does".to_owned(),
        "  ok       clock                    * s from the registry's".to_owned(),
        "  ok       identity       * ms  an Entra token, by client secret".to_owned(),
        "  ok       exchange       * ms  a refresh token for 180 min".to_owned(),
        "  ok       token          * ms  a token for all repositories, for 75 min".to_owned(),
        format!("route docker.io -> example.azurecr.io:{port}/hub, by library/hello-world:latest"),
        "  ok       manifest       * ms  hub/library/hello-world".to_owned(),
        format!("  ok       blob           * ms  redirected to {storage}"),
        "  ok       storage-dns    * ms  127.0.0.1".to_owned(),
        format!("  ok       storage-tcp    * ms  {storage}"),
        "  ok       storage-tls    * ms  TLS 1.3, certificate until *, issued by acr-emulator CA".to_owned(),
        "  ok       storage        * ms  it has come, and is what its digest says".to_owned(),
        "check: ok: pulls get through, in * s".to_owned(),
    ];
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{text}");
    for (line, pattern) in lines.iter().zip(&expected) {
        assert!(is_like(line, pattern), "{pattern}: {line}");
    }
    let reads: usize = azure.reads().iter().filter(|(read, _)| !read.ends_with("/v2/")).map(|(_, count)| count).sum();
    assert_eq!(reads, 3, "{:?}", azure.reads());
    let calls = |hop| azure.requests().iter().filter(|request| request.hop == hop).count();
    assert_eq!([Hop::Entra, Hop::Exchange, Hop::Token].map(calls), [1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_to_one_registry_share_its_lines_and_each_has_its_image() {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    hello(&azure);
    azure.push(Image::small("ghcr/org/app", "1.0"));
    let routes = Setup::routes(&azure, &[("docker.io", "hub"), ("ghcr.io", "ghcr")]);
    let output = check(routes.switch("--online").switch("--json")).await;
    let kinds = |output: &Output| -> Vec<(String, usize)> {
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let groups = report["groups"].as_array().expect("groups").iter();
        let lines = |group: &Value| group["lines"].as_array().expect("lines").len();
        groups.map(|group| (group["kind"].as_str().expect("text").to_owned(), lines(group))).collect()
    };
    let expected =
        |of: &[(&str, usize)]| of.iter().map(|(kind, lines)| ((*kind).to_owned(), *lines)).collect::<Vec<_>>();
    // Nothing is known to be on ghcr.io.
    assert_eq!(kinds(&output), expected(&[("configuration", 1), ("registry", 8), ("route", 6), ("route", 1)]));
    assert_eq!(status(&output), 0);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("no image of ghcr.io is known to be there: name one with --image"), "{text}");

    let routes = Setup::routes(&azure, &[("docker.io", "hub"), ("ghcr.io", "ghcr")]);
    let output = check(routes.switch("--online").switch("--json").flag("--image", "ghcr.io/org/app:1.0")).await;
    // The storage that the first route was redirected to is reached once.
    assert_eq!(kinds(&output), expected(&[("configuration", 1), ("registry", 8), ("route", 6), ("route", 3)]));
    let routes = Setup::routes(&azure, &[("docker.io", "hub"), ("ghcr.io", "ghcr")]);
    let output = check(routes.switch("--online").switch("--json").flag("--image", "quay.io/org/app:1.0")).await;
    assert_eq!(status(&output), 2);
    assert_eq!(
        lines(&output).last().map(|line| line.2.as_str()),
        Some("--image quay.io/org/app:1.0: no route is for it")
    );
    let routes = Setup::routes(&azure, &[("docker.io", "hub"), ("ghcr.io", "ghcr")]);
    let output = check(routes.switch("--online").flag("--image", "quay.io/org/app:1.0")).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("check: failed: 1 mistake in the flags"), "it was told to be in the configuration: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_online_all_mistakes_of_a_start_are_told_at_once_and_nobody_is_asked() {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let plain = || Setup::new(&azure).switch("--json");
    for (setup, expected, found) in [
        (plain(), 0, &[("ok", "1 route to 1 registry")][..]),
        (
            plain().settings("token_weight: 3s\nclient_keepalive: 3d"),
            2,
            &[
                ("failed", "*/config.yaml:8: token_weight: unknown setting: did you mean token_wait?"),
                (
                    "failed",
                    "*/config.yaml:9: client_keepalive: \"3d\" is not a time from 1s to 1h: use a whole number of s, m or h, such as 1h",
                ),
            ],
        ),
        // What only shows when the parts of the proxy are built.
        (
            plain()
                .listen("[{unix: {}/none/proxy.sock}]")
                .env("HTTPS_PROXY", "socks5://puller:p@ss:w#rd@proxy:1080")
                .env("AZURE_CLIENT_ID", "not an id"),
            2,
            &[
                (
                    "failed",
                    "listen unix:*/none/proxy.sock: its folder is not there: make it (RuntimeDirectory= in a unit), or choose another path",
                ),
                ("failed", "HTTPS_PROXY: *; or set egress.proxy to the proxy, or to off if there is none"),
                ("failed", "AZURE_CLIENT_ID: *"),
            ],
        ),
        (
            plain().flag("--masquerade-domain", "mirror").listen("0.0.0.0:8080").without("AZURE_TENANT_ID"),
            0,
            &[
                ("warning", "--masquerade-domain has no effect: *"),
                ("warning", "AZURE_CLIENT_SECRET is not used without AZURE_TENANT_ID: *"),
                (
                    "warning",
                    "clients are not authenticated, and 0.0.0.0:8080 is reachable from outside: protect the port",
                ),
                ("ok", "1 route to 1 registry"),
            ],
        ),
        (
            plain().settings(
                "identity: {kind: client_secret, client_secret_file: /nope}\nnotify: {command: [/nonexistent/x]}",
            ),
            0,
            &[
                (
                    "warning",
                    "identity.client_secret_file /nope: No such file or directory (os error 2): until it can be read the sign-in fails",
                ),
                ("warning", "notify.command: /nonexistent/x: it is not there: nobody is told of a fault"),
                ("ok", "1 route to 1 registry"),
            ],
        ),
        (
            plain().without("AZURE_CLIENT_SECRET"),
            0,
            &[
                ("warning", "AZURE_TENANT_ID is not used without one of AZURE_CLIENT_SECRET, *"),
                ("ok", "1 route to 1 registry"),
            ],
        ),
        // They were told by the start alone, where check had said that the proxy starts.
        (
            plain().listen("[{unix: {}/config.yaml}]"),
            2,
            &[(
                "failed",
                "listen unix:*/config.yaml: there is a file that is not a socket, and it is not removed: remove it, or choose another path",
            )],
        ),
        (
            plain().listen("[{unix: {}}]"),
            2,
            &[("failed", "listen unix:*: it is a folder: name the socket in it, such as clients.sock")],
        ),
        (
            plain().listen("[{unix: /proc/x.sock}]"),
            2,
            &[(
                "failed",
                "listen unix:/proc/x.sock: its folder is the kernel's own, in which no file can be made: choose another path",
            )],
        ),
        (
            plain().listen("192.0.2.7:8080").flag("--admin-address", "0.0.0.0:8081"),
            0,
            &[
                (
                    "warning",
                    "clients are not authenticated, and 192.0.2.7:8080 is reachable from outside: protect the port",
                ),
                (
                    "warning",
                    "listen 192.0.2.7:8080: this host has no such address, so a start fails until it has: use one of its own",
                ),
                (
                    "warning",
                    "the admin listener is not authenticated, and 0.0.0.0:8081 is reachable from outside: it names images and purges the cache, so let only probes and monitoring reach the port",
                ),
                ("ok", "1 route to 1 registry"),
            ],
        ),
        // Of a registry's name alone nothing was said.
        (
            plain().edit(|_| "upstream: {domain: example, prefix: hub}".to_owned()),
            0,
            &[
                (
                    "warning",
                    "the registry example has no dot in its name: if example.azurecr.io is meant, set the domain to that",
                ),
                ("ok", "1 route to 1 registry"),
            ],
        ),
        (
            plain().edit(|_| "upstream: {domain: docker.io, prefix: hub}".to_owned()),
            0,
            &[
                ("warning", "the registry docker.io is Docker Hub's, which is the source of a cache rule: *"),
                ("ok", "1 route to 1 registry"),
            ],
        ),
        (
            plain().edit(|_| include_str!("../../conf/minimal.yaml").to_owned()),
            0,
            &[
                (
                    "warning",
                    "it is the package's example, whose registry nobody has: acr-cache-proxy init writes yours",
                ),
                ("ok", "1 route to 1 registry"),
            ],
        ),
    ] {
        let output = check(setup).await;
        let lines = lines(&output);
        let is_found = lines.len() == found.len()
            && lines.iter().zip(found).all(|((hop, status, text), (like, pattern))| {
                hop == "configuration" && status == like && is_like(text, pattern)
            });
        assert!(is_found, "{lines:#?}");
        assert_eq!(status(&output), expected, "{lines:#?}");
    }
    assert!(azure.requests().is_empty(), "{:?}", azure.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_runs_is_not_disturbed() {
    let azure = testkit::azure().await;
    hello(&azure);
    let listen = Setup::new(&azure).start();
    let address = listen.address();
    let setup = Setup::new(&azure).listen(&address.to_string()).switch("--online");
    let output = check(setup).await;
    assert_eq!(status(&output), 0, "{}", String::from_utf8_lossy(&output.stdout));
    let answer = crate::wire::ask(address, "GET /v2/library/busybox/manifests/latest", "");
    assert_ne!(answer.status, 503, "{answer:?}");
}
