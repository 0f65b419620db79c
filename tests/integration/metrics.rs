//! What a scrape gives, and that it is what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use acr_emulator::{Emulator, Fault, Hop, Image};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use testkit::certificates::Authority;
use testkit::{Proxy, Setup};

use crate::admin::observed;
use crate::fixture::{ABSENT, ACCEPT};
use crate::tls::{self, Secret};
use crate::wire;

const OPEN_METRICS: &str = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";

/// The lines of a scrape that are samples, with their values.
fn scrape(admin: SocketAddr) -> BTreeMap<String, f64> {
    let answer = wire::ask(admin, "GET /metrics", "");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; version=0.0.4; charset=utf-8")));
    let samples = answer.body.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').expect("a value"))
        .map(|(name, value)| (name.to_owned(), value.parse().expect(value)))
        .collect()
}

/// The value of a sample, whose labels are given in the order of the catalogue; 0 if it is not there.
fn value(samples: &BTreeMap<String, f64>, sample: &str) -> f64 {
    samples.get(&format!("acr_cache_proxy_{sample}")).copied().unwrap_or_default()
}

async fn start(cache: &str) -> (Emulator, acr_emulator::Pushed, Proxy, SocketAddr) {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let pushed = azure.push(Image::small("hub/library/busybox", "latest"));
    let (proxy, admin) = observed(&azure, cache);
    (azure, pushed, proxy, admin)
}

/// The table of docs/metrics.md, which a test of the catalogue compares with it: name and type.
fn documented() -> BTreeSet<(String, String)> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).expect("a page");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let row = |row: &str| {
        let mut cells = row.split('|').map(str::trim);
        (cells.next().expect("a name").trim_end_matches('`').to_owned(), cells.next().expect("a type").to_owned())
    };
    rows.map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_has_every_metric_of_the_catalogue_and_no_other() {
    let (azure, _, proxy, admin) = start("{memory: 8MiB}").await;
    wire::ask(proxy.address(), "GET /v2/library/busybox/manifests/latest", ACCEPT);
    azure.inject(Hop::Data, Fault::CacheRule(403).times(1));
    wire::ask(proxy.address(), "GET /v2/library/refused/manifests/latest", ACCEPT);
    let text = wire::ask(admin, "GET /metrics", "").body;
    let types = |text: &str| -> BTreeSet<_> {
        let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        lines
            .map(|line| line.split_once(' ').expect("a type"))
            .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
            .collect()
    };
    assert_eq!(types(&text), documented());
    let open = wire::ask(admin, "GET /metrics", OPEN_METRICS);
    assert_eq!(open.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
    // OpenMetrics names a family without the suffix of its samples.
    let with_suffix = |(name, kind): (String, String)| (if kind == "counter" { name + "_total" } else { name }, kind);
    assert_eq!(types(&open.body).into_iter().map(with_suffix).collect::<BTreeSet<_>>(), documented());
    for name in documented().into_iter().map(|(name, _)| name) {
        let is_unset = name.contains("_budget_") || name.contains("_certificate_");
        let sample = |line: &str| line.starts_with(&name) && !line.starts_with('#');
        assert!(text.lines().any(sample) != is_unset, "{name}: a sample, but of what is not set\n{text}");
    }
}

/// The page said that every series appears with its first event.
#[tokio::test(flavor = "multi_thread")]
async fn a_counter_by_route_appears_with_its_first_event_and_others_are_there_from_the_start() {
    let (_azure, _, _proxy, admin) = start("{memory: 8MiB}").await;
    let samples = scrape(admin);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).expect("a page");
    let counters = page.lines().filter(|line| line.starts_with("| `") && line.contains(" | counter | "));
    for row in counters {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let (name, labels) = (cells[1].trim_matches('`'), cells[3]);
        // The sign-in may have come.
        if !labels.contains("`hop`") {
            let is_there = samples.keys().any(|sample| sample.split('{').next() == Some(name));
            assert_eq!(is_there, !labels.contains("`route`"), "{row}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_counted_once_by_route_kind_status_and_what_the_cache_did() {
    let (azure, pushed, proxy, admin) = start("{memory: 8MiB}").await;
    let mut expected = BTreeMap::<String, f64>::new();
    let layer = &pushed.blobs[0];
    for (line, headers, labels) in [
        ("GET /v2/", "", r#"route="none",kind="ping",status="200",cache="none""#),
        (
            "GET /v2/library/busybox/manifests/latest",
            ACCEPT,
            r#"route="docker.io",kind="manifest",status="200",cache="miss""#,
        ),
        (
            "HEAD /v2/library/busybox/manifests/latest",
            ACCEPT,
            r#"route="docker.io",kind="manifest",status="200",cache="hit""#,
        ),
        (
            "GET /v2/library/busybox/manifests/latest",
            "",
            r#"route="docker.io",kind="manifest",status="404",cache="pass""#,
        ),
        (
            &format!("GET /v2/library/busybox/blobs/{layer}"),
            "",
            r#"route="docker.io",kind="blob",status="307",cache="miss""#,
        ),
        (
            &format!("GET /v2/library/busybox/blobs/{ABSENT}"),
            "",
            r#"route="docker.io",kind="blob",status="404",cache="miss""#,
        ),
        ("GET /v2/library/busybox/tags/list", "", r#"route="docker.io",kind="tags",status="200",cache="miss""#),
        ("GET /v2/ghcr.io/org/app/manifests/1", ACCEPT, r#"route="ghcr.io",kind="manifest",status="404",cache="miss""#),
        ("GET /v2/quay.io/org/app/manifests/1", ACCEPT, r#"route="none",kind="other",status="404",cache="none""#),
        ("POST /v2/library/busybox/blobs/uploads/", "", r#"route="none",kind="other",status="405",cache="none""#),
    ] {
        wire::ask(proxy.address(), line, headers);
        *expected.entry(format!("acr_cache_proxy_requests_total{{{labels}}}")).or_default() += 1.0;
    }
    let samples = scrape(admin);
    let found: BTreeMap<_, _> = samples
        .iter()
        .filter(|(name, _)| name.starts_with("acr_cache_proxy_requests_total"))
        .map(|(name, count)| (name.clone(), *count))
        .collect();
    assert_eq!(found, expected);
    // What clients see, and what the registry was asked.
    let seen = r#"{route="docker.io",kind="manifest"}"#;
    for metric in ["request_first_byte_seconds_count", "request_duration_seconds_count"] {
        assert_eq!(value(&samples, &format!("{metric}{seen}")), 3.0, "{metric}");
    }
    assert!(value(&samples, &format!("response_body_bytes_total{seen}")) > 400.0);
    let registry = format!("example.azurecr.io:{}", azure.registry_addr().port());
    let reads: f64 = ["ok", "not_found"]
        .iter()
        .map(|result| {
            value(
                &samples,
                &format!("upstream_requests_total{{registry=\"{registry}\",hop=\"read\",result=\"{result}\"}}"),
            )
        })
        .sum();
    let asked = azure.requests().into_iter().filter(|request| request.hop == Hop::Data).count();
    assert_eq!(reads as usize, asked);
    for hop in ["identity", "exchange", "token"] {
        assert_eq!(
            value(&samples, &format!("upstream_requests_total{{registry=\"{registry}\",hop=\"{hop}\",result=\"ok\"}}")),
            1.0,
            "{hop}"
        );
        assert_eq!(
            value(
                &samples,
                &format!("upstream_request_duration_seconds_count{{registry=\"{registry}\",hop=\"{hop}\"}}")
            ),
            1.0
        );
    }
    for token in ["access", "refresh"] {
        let of = |metric: &str| {
            value(&samples, &format!("token_{metric}_seconds{{registry=\"{registry}\",token=\"{token}\"}}"))
        };
        assert!(of("remaining") > 60.0 && of("age") >= 0.0, "{token}");
    }
    assert_eq!(value(&samples, "ready"), 1.0);
    assert!(value(&samples, "cache_entries") >= 5.0 && value(&samples, "cache_hits_total{kind=\"tags\"}") == 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_at_each_hop_shows_in_its_series() {
    for (hop, name) in
        [(Hop::Entra, "identity"), (Hop::Exchange, "exchange"), (Hop::Token, "token"), (Hop::Data, "read")]
    {
        for (fault, result) in [(Fault::Status(500), "failed"), (Fault::Status(429), "limited")] {
            let (azure, _, proxy, admin) = start("off").await;
            let registry = format!("example.azurecr.io:{}", azure.registry_addr().port());
            if hop == Hop::Data {
                azure.inject(hop, fault);
                let answer = wire::ask(proxy.address(), "GET /v2/library/busybox/manifests/latest", ACCEPT);
                assert!(answer.status >= 429, "{answer:?}");
            } else {
                // From the start on, so that the first sign-in meets it.
                drop(proxy);
                azure.inject(hop, fault);
                let proxy = Setup::routes(&azure, &[("docker.io", "hub")]).flag("--admin-address", ":0").start();
                let admin = crate::admin::admin(&proxy);
                let sample =
                    format!("upstream_requests_total{{registry=\"{registry}\",hop=\"{name}\",result=\"{result}\"}}");
                let told = || value(&scrape(admin), &sample) > 0.0;
                let deadline = std::time::Instant::now() + testkit::PATIENCE;
                while !told() {
                    assert!(std::time::Instant::now() < deadline, "{sample}: {:?}", scrape(admin));
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                let samples = scrape(admin);
                assert_eq!(value(&samples, "ready"), 0.0);
                assert_eq!(value(&samples, &format!("registry_ready{{registry=\"{registry}\"}}")), 0.0);
                continue;
            }
            let samples = scrape(admin);
            let sample =
                format!("upstream_requests_total{{registry=\"{registry}\",hop=\"{name}\",result=\"{result}\"}}");
            assert!(value(&samples, &sample) > 0.0, "{sample}: {samples:?}");
        }
    }
}

/// Nothing that a client sends is a label, however often it tries.
#[tokio::test(flavor = "multi_thread")]
async fn no_client_adds_a_series_by_what_it_asks_for() {
    let (_azure, _, proxy, admin) = start("{memory: 8MiB}").await;
    let ask = |name: &str| {
        wire::ask(proxy.address(), &format!("GET /v2/library/{name}/manifests/{name}"), ACCEPT);
        wire::ask(proxy.address(), &format!("GET /v2/{name}.example/a/manifests/{name}"), ACCEPT);
        wire::ask(proxy.address(), &format!("{} /v2/", name.to_uppercase()), "");
    };
    ask("hostile");
    let names = |samples: BTreeMap<String, f64>| {
        samples.into_keys().filter(|name| !name.contains("acr_cache_proxy_cache_")).collect::<BTreeSet<_>>()
    };
    let before = names(scrape(admin));
    (0..20).for_each(|number| ask(&format!("hostile{number}")));
    assert_eq!(names(scrape(admin)), before);
    assert!(!before.iter().any(|name| name.contains("hostile")), "{before:?}");
}

/// What comes of connections before their first request: a row for each, with its series.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_and_proxy_headers_are_counted_by_what_came_of_them() {
    let azure = testkit::azure().await;
    let (servers, clients, others) = (Authority::new("mirror CA"), Authority::new("clients"), Authority::new("others"));
    let secret = Secret::new(&servers.server(&["mirror.internal"]), &[&clients]);
    let tls = secret.tls(", client_ca: {ca}");
    let listen = format!(
        "[{{address: '127.0.0.1:0', tls: {tls}}}, {{address: '127.0.0.1:0', proxy_protocol: {{trusted: [127.0.0.1]}}}}]"
    );
    let proxy = Setup::new(&azure).listen(&listen).flag("--admin-address", ":0").start();
    let admin = crate::admin::admin(&proxy);
    let (with_tls, behind) = (proxy.addresses()[0], proxy.addresses()[1]);
    let handshake = |trusted: &Authority, issuer: Option<&Authority>| {
        let pair = issuer.map(|issuer| issuer.client("node-7", "spiffe://example.org/node/7"));
        let settings = tls::settings(trusted, pair.as_ref(), &tls::BOTH);
        let _ = tls::ask(&mut tls::secured(&settings, wire::connect(with_tls)));
    };
    let send = |address, bytes: &[u8]| {
        let mut stream = wire::connect(address);
        stream.write_all(bytes).expect("sent");
        let _ = stream.read_to_end(&mut Vec::new());
    };
    handshake(&servers, Some(&clients));
    handshake(&servers, None);
    handshake(&servers, Some(&others));
    handshake(&others, Some(&clients));
    drop({
        let mut left = wire::connect(with_tls);
        left.write_all(&[22, 3, 1]).expect("sent");
        left
    });
    send(with_tls, b"GET / HTTP/1.1\r\n\r\n");
    send(with_tls, &[22, 3, 1, 0, 4, 9, 0, 0, 0]);
    send(with_tls, b"PROXY TCP4 192.0.2.7 192.0.2.1 1 80\r\n");
    send(behind, b"GET / HTTP/1.1\r\n\r\n");
    send(behind, b"PROXY TCP9 a b\r\n");
    send(behind, format!("PROXY {}", "x".repeat(4 << 10)).as_bytes());
    let expected = [
        (r#"tls_handshakes_total{result="ok"}"#, 1.0),
        (r#"tls_handshakes_total{result="no_certificate"}"#, 1.0),
        (r#"tls_handshakes_total{result="bad_certificate"}"#, 1.0),
        (r#"tls_handshakes_total{result="refused_by_client"}"#, 1.0),
        (r#"tls_handshakes_total{result="client_left"}"#, 1.0),
        (r#"tls_handshakes_total{result="not_tls"}"#, 1.0),
        (r#"tls_handshakes_total{result="failed"}"#, 1.0),
        (r#"proxy_headers_refused_total{reason="untrusted"}"#, 1.0),
        (r#"proxy_headers_refused_total{reason="missing"}"#, 1.0),
        (r#"connections_accepted_total{listener="clients"}"#, 11.0),
    ];
    let deadline = std::time::Instant::now() + testkit::PATIENCE;
    let counted = || {
        let samples = scrape(admin);
        expected.map(|(sample, _)| (sample, value(&samples, sample)))
    };
    while counted() != expected && std::time::Instant::now() < deadline {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(counted(), expected, "{}", proxy.log());
    let samples = scrape(admin);
    let unreadable: f64 = ["malformed", "too_long"]
        .iter()
        .map(|reason| value(&samples, &format!("proxy_headers_refused_total{{reason=\"{reason}\"}}")))
        .sum();
    assert_eq!(unreadable, 2.0);
    // The end of the certificate in use, as the page has it, too.
    let end = value(&samples, &format!("listener_certificate_end_timestamp_seconds{{address=\"https://{with_tls}\"}}"));
    let pem = servers.server(&["mirror.internal"]).certificate;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).expect("a certificate");
    assert_eq!(end as i64, certificate.validity().not_after.timestamp());
    let status: Value = serde_json::from_str(&wire::ask(admin, "GET /status", "").body).expect("JSON");
    assert_eq!(status["opening"]["certificates"][0]["end"].as_f64(), Some(end), "{status}");
    assert_eq!(status["opening"]["handshakes"]["ok"], 1);
    assert_eq!(status["opening"]["refused_proxy_headers"]["missing"], 1);
}
