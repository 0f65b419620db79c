//! A real Prometheus scrapes the proxy; the dashboard's queries and the alert rules are its own to judge.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Fault, Hop, Image};
use serde_json::Value;
use testkit::certificates::Authority;
use testkit::wire;
use testkit::{PATIENCE, Proxy, Setup};

use crate::namespace;
use crate::program::{installed, run};

const CONF: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf");
const ACCEPT: &str = "Accept: application/vnd.oci.image.index.v1+json\r\n";
/// What a rate is taken of; some scrapes are in it.
const INTERVAL: &str = "30s";

fn admin(proxy: &Proxy) -> SocketAddr {
    let line = proxy.wait_for_log("health and readiness on http://");
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    address.parse().expect("an address")
}

fn promtool(arguments: &[&str]) -> String {
    run(Command::new(installed("promtool")).args(arguments).current_dir(CONF))
}

/// A Prometheus of the test's own, killed with it.
struct Prometheus {
    process: std::process::Child,
    address: SocketAddr,
    _home: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    /// Scrapes this address by our own configuration, each second, and has our rules.
    fn start(target: SocketAddr) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let config = std::fs::read_to_string(Path::new(CONF).join("prometheus.yaml")).expect("a file");
        let config = config.replace("127.0.0.1:8081", &target.to_string()).replace("15s", "1s");
        let config = format!("rule_files: ['{CONF}/alerts.yaml']\n{config}");
        let file = home.path().join("prometheus.yaml");
        std::fs::write(&file, config).expect("written");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
        let process = Command::new(installed("prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", home.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        Self { process, address, _home: home }
    }

    /// The result of a query; `None` while it does not listen.
    fn query(&self, query: &str) -> Option<Value> {
        std::net::TcpStream::connect(self.address).ok()?;
        let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let answer = wire::ask(self.address, &format!("GET /api/v1/query?query={query}"), "");
        let body = answer.body;
        let json = body.get(body.find('{')?..=body.rfind('}')?)?.replace("\r\n", "");
        let value: Value = serde_json::from_str(&json).unwrap_or_else(|cause| panic!("{cause}: {body}"));
        assert_eq!(value["status"], "success", "{query}: {value}");
        Some(value["data"]["result"].clone())
    }
}

#[test]
#[ignore = "run by scripts/test, which installs promtool"]
fn the_alert_rules_are_valid_and_fire_when_they_should() {
    assert!(promtool(&["check", "rules", "alerts.yaml"]).contains("SUCCESS"));
    assert!(promtool(&["test", "rules", "alerts-test.yaml"]).contains("SUCCESS"));
    promtool(&["check", "config", "prometheus.yaml"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace"]
async fn prometheus_scrapes_the_proxy_and_every_query_of_the_dashboard_gives_series() {
    namespace::assert_isolated();
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let pushed = azure.push(Image::small("hub/library/busybox", "latest"));
    let setup = Setup::new(&azure).cache("{memory: 8MiB, tags: 0s}").flag("--admin-address", "127.0.0.1:0");
    let pair = Authority::new("mirror CA").server(&["mirror.internal"]);
    setup.file("tls.crt", &pair.certificate);
    setup.file("tls.key", &pair.key);
    let tls = "tls: {certificate: '{}/tls.crt', key: '{}/tls.key'}";
    let listen = format!("[{{address: '127.0.0.1:0'}}, {{address: '127.0.0.1:0', {tls}}}]");
    let proxy = setup.listen(&listen).settings("limits: {registry_reads_per_minute: 6000}").start();
    let (admin, with_tls) = (admin(&proxy), proxy.addresses()[1]);
    let ask = |path: &str| wire::ask(proxy.address(), &format!("GET /v2/library/busybox/{path}"), ACCEPT);
    let layer = format!("blobs/{}", pushed.blobs[0]);
    for path in ["manifests/latest", &layer, "tags/list", "manifests/none"] {
        ask(path);
    }
    // What a scrape has no series of before it happens.
    azure.inject(Hop::Data, Fault::Status(500));
    for path in ["manifests/new", "manifests/latest"] {
        ask(path);
    }
    azure.clear_faults();
    wire::ask(with_tls, "GET /v2/", "");

    // The text format and its conventions, by the judge of both.
    let text = wire::ask(admin, "GET /metrics", "").body;
    let mut judge = Command::new(installed("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    std::io::Write::write_all(&mut judge.stdin.take().expect("a pipe"), text.as_bytes()).expect("it reads");
    let judged = judge.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&[judged.stdout, judged.stderr].concat()).into_owned();
    assert!(judged.status.success() && said.trim().is_empty(), "{said}");

    let prometheus = Prometheus::start(admin);
    let dashboard = std::fs::read_to_string(Path::new(CONF).join("grafana.json")).expect("a file");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries: Vec<_> = targets.map(|target| target["expr"].as_str().expect("a query").to_owned()).collect();
    assert!(queries.len() > 30, "{}", queries.len());
    let concrete = |query: &String| {
        query.replace("$__rate_interval", INTERVAL).replace("$instance", ".*").replace("$job", "acr-cache-proxy")
    };
    let mut left: Vec<_> = queries.iter().map(concrete).collect();
    let deadline = Instant::now() + PATIENCE;
    while !left.is_empty() {
        assert!(Instant::now() < deadline, "these give nothing:\n{}", left.join("\n"));
        // Between scrapes, so that there is something to take a rate of.
        for path in ["manifests/latest", &layer] {
            ask(path);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        left.retain(|query| prometheus.query(query).is_none_or(|result| result.as_array().is_none_or(Vec::is_empty)));
    }
    // All of the catalogue's table is in Prometheus, and what an operator looks for first is in the dashboard, which had no panel of these.
    for name in ["requests_refused_total", "registry_budget_reads_per_minute", "registry_budget_wait_seconds"] {
        assert!(queries.iter().any(|query| query.contains(&format!("acr_cache_proxy_{name}{{"))), "{name}");
    }
    let page = include_str!("../../docs/metrics.md");
    for name in page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()) {
        let name =
            if page.contains(&format!("| `{name}` | histogram |")) { format!("{name}_count") } else { name.to_owned() };
        let result = prometheus.query(&name).expect("it listens");
        let is_there = result.as_array().is_some_and(|series| !series.is_empty());
        assert!(is_there, "{name}: {result}");
    }
    assert!(prometheus.query("ALERTS").is_some(), "the rules are loaded");
}
