//! Any sequence of good and bad configurations, under load, comes to what a fresh start with the last good one does, and no
//! request fails on the way.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::under_load::Clients;

const SOURCES: [&str; 3] = ["docker.io", "ghcr.io", "quay.io"];
const PREFIXES: [&str; 2] = ["hub", "other"];
/// The image that the clients under load ask for; here it is asked for by the names of each source.
const IMAGE: &str = "library/busybox/manifests/latest";

/// One route: the registry, the prefix, and the rest of its table.
type RouteChoice = (usize, usize, usize);

/// A configuration, or one with a mistake.
#[derive(Clone, Debug)]
struct Step {
    /// One for each of [`SOURCES`]; the first is always there.
    routes: [Option<RouteChoice>; 3],
    others: [usize; 5],
    /// What a Unix socket asks of its connections, of [`SOCKETS`]; `None` is no such listener.
    sockets: [Option<usize>; 2],
    mistake: Option<usize>,
}

const ROUTE_ENDS: [&str; 4] = ["", ", on_failure: closed", ", blobs: proxy", ", cache: off"];
const OTHERS: [[&str; 3]; 5] = [
    ["", "cache: off\n", "cache: {memory: 1MiB, tags: 0s}\n"],
    ["", "token_wait: 5s\n", "token_wait: 20s\n"],
    ["", "client_keepalive: 1h\n", "client_keepalive: 2m\n"],
    ["", "limits: {registry_reads_per_minute: 100000}\n", "limits: {registry_reads_per_minute: 90000}\n"],
    ["log: info\n", "log: warn,acr_cache_proxy::serve=info\n", "log: trace\n"],
];
const SOCKETS: [&str; 3] = ["", ", mode: 0600", ", proxy_protocol: {trusted: []}"];
/// A listener that no host can open (RFC 5737).
const NO_LISTENER: &str = ", {address: '192.0.2.1:8080'}";
const MISTAKES: [&str; 6] = [
    "unknown: key\n",
    "routes: again\n",
    "identity: {kind: client_secret, tenant_id: none at all}\n",
    "  bad indent: [\n",
    "default: registry.k8s.io\n",
    // Found when all else is well: see NO_LISTENER.
    "",
];

impl Step {
    fn text(&self, registries: &[Emulator; 2], ca: &Path) -> String {
        let mut listen = "{address: '127.0.0.1:0'}".to_owned();
        for (number, socket) in
            self.sockets.iter().enumerate().filter_map(|(at, choice)| Some((at, SOCKETS[(*choice)?])))
        {
            write!(listen, ", {{unix: '{}'{socket}}}", self::socket(ca, number).display()).expect("a String");
        }
        listen += if self.mistake == Some(5) { NO_LISTENER } else { "" };
        let ca = ca.display();
        let mut text = format!("listen: [{listen}]\nadmin: 127.0.0.1:0\nca_file: {ca}\n");
        if self.mistake != Some(2) {
            text += "identity: {kind: anonymous}\n";
        }
        text += "routes:\n";
        for (source, route) in SOURCES.iter().zip(&self.routes) {
            let Some((registry, prefix, end)) = route else { continue };
            let domain = format!("example.azurecr.io:{}", registries[*registry].registry_addr().port());
            let (prefix, end) = (PREFIXES[*prefix], ROUTE_ENDS[*end]);
            writeln!(
                text,
                "  - {{source: {source}, domain: '{domain}', prefix: {prefix}, addresses: [127.0.0.1]{end}}}"
            )
            .expect("a String");
        }
        text.extend(self.others.iter().zip(OTHERS).map(|(choice, others)| others[*choice]));
        text.extend(self.mistake.map(|mistake| MISTAKES[mistake]));
        text
    }
}

/// A Unix socket beside the proxy's other files.
fn socket(ca: &Path, number: usize) -> PathBuf {
    ca.with_file_name(format!("socket-{number}"))
}

fn step() -> impl Strategy<Value = Step> {
    let route = || (0..2_usize, 0..PREFIXES.len(), 0..ROUTE_ENDS.len());
    let others = [0..3_usize, 0..3, 0..3, 0..3, 0..3];
    let socket = || proptest::option::of(0..SOCKETS.len());
    let sockets = [socket(), socket()];
    let mistake = proptest::option::weighted(0.4, 0..MISTAKES.len());
    (route(), proptest::option::of(route()), proptest::option::of(route()), others, sockets, mistake).prop_map(
        |(first, second, third, others, sockets, mistake)| Step {
            routes: [Some(first), second, third],
            others,
            sockets,
            mistake,
        },
    )
}

fn proxy(azure: &[Emulator; 2], text: impl FnOnce(&Path) -> String) -> Proxy {
    let setup = Setup::new(&azure[0]).nobody();
    let ca = setup.file("ca.pem", azure.iter().map(Emulator::ca_pem).collect::<String>());
    setup.file("config.yaml", text(&ca));
    setup.start()
}

/// What clients see of a proxy: for each source its manifest, or why there is none; and what the admin listener says that the
/// settings decide.
fn seen(proxy: &Proxy) -> Vec<String> {
    let mut seen: Vec<_> = SOURCES
        .iter()
        .chain(&["registry.k8s.io"])
        .map(|source| {
            let answer = wire::ask(proxy.address(), &format!("GET /v2/{IMAGE}?ns={source}"), ACCEPT);
            format!("{source}: {} {}", answer.status, answer.body)
        })
        .collect();
    for number in 0..2 {
        seen.push(match UnixStream::connect(socket(&proxy.config(), number)) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
                stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).expect("an answer");
                let mode = socket(&proxy.config(), number).metadata().expect("a file").permissions().mode();
                format!("socket {number}: {} {mode:o}", wire::parse(&answer).status)
            }
            Err(_) => format!("socket {number}: none"),
        });
    }
    let admin = |path: &str| {
        let body = wire::ask(crate::admin::admin(proxy), &format!("GET {path}"), "").body;
        serde_json::from_str::<serde_json::Value>(&body).expect("JSON")
    };
    let cache = admin("/cache");
    let domains = |value: &serde_json::Value| {
        let upstreams = value.as_array().expect("a list");
        upstreams.iter().map(|upstream| upstream["domain"].to_string()).collect::<Vec<_>>().join(" ")
    };
    seen.push(format!("memory {}", cache["memory"]["max_bytes"]));
    seen.push(domains(&cache["registries"]));
    seen.push(domains(&admin("/readyz")["upstreams"]));
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn any_sequence_of_configurations_under_load_equals_a_fresh_start_with_the_last_good_one() {
    let registry = || Emulator::start(Options { anonymous_pull: true, ..testkit::options() });
    let azure = [registry().await.expect("an emulator"), registry().await.expect("an emulator")];
    for (at, azure) in azure.iter().enumerate() {
        for (number, prefix) in PREFIXES.iter().enumerate() {
            // Each with a manifest of its own.
            azure.push(
                Image::small(&format!("{prefix}/library/busybox"), "latest").with_layers(1, 100 + 10 * at + number),
            );
        }
    }
    let requests = AtomicUsize::new(0);
    let mut runner =
        TestRunner::new(Config { cases: 3, max_shrink_iters: 16, failure_persistence: None, ..Config::default() });
    let steps = (step(), proptest::collection::vec(step(), 4..10));
    tokio::task::block_in_place(|| {
        let tested = runner.run(&steps, |(mut first, steps)| {
            first.mistake = None;
            let proxy = proxy(&azure, |ca| first.text(&azure, ca));
            let ca = proxy.config().with_file_name("ca.pem");
            let clients = Clients::start(proxy.address());
            let mut good = &first;
            for step in &steps {
                let (is_taken, said) = proxy.reload_with(&step.text(&azure, &ca));
                assert_eq!(is_taken, step.mistake.is_none(), "{said}");
                if is_taken {
                    good = step;
                }
                clients.wait_for(2);
            }
            let fresh = self::proxy(&azure, |ca| good.text(&azure, ca));
            let both = [seen(&proxy), seen(&fresh)];
            requests.fetch_add(clients.end(), Ordering::Relaxed);
            prop_assert_eq!(&both[0], &both[1]);
            Ok(())
        });
        tested.expect("every sequence");
    });
    assert!(requests.into_inner() > 100);
}
