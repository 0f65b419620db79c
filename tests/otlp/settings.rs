//! How the collector is reached, and what is said of variables that are wrong.

use testkit::Setup;
use testkit::certificates::Authority;
use testkit::collector::Collector;
use testkit::forward::{Does, ForwardProxy};

use crate::{list, traced};

#[tokio::test(flavor = "multi_thread")]
async fn credentials_reach_the_collector_and_no_log() {
    let (azure, collector) = (testkit::azure().await, Collector::start().await);
    let proxy = traced(&azure, &collector)
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20geheim,x-tenant=a")
        .start();
    list(&proxy, 1, "");
    collector.wait_for(1).await;
    let head = collector.heads()[0].to_ascii_lowercase();
    assert!(head.contains("\r\nauthorization: bearer geheim\r\n") && head.contains("\r\nx-tenant: a\r\n"), "{head}");
    let log = proxy.end();
    assert!(log.contains(&format!("otlp {}/v1/traces: spans of requests are exported", collector.endpoint())), "{log}");
    assert!(!log.contains("geheim"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_over_tls_is_trusted_by_ca_file_and_behind_the_egress_proxy() {
    let authority = Authority::new("telemetry");
    let collector = Collector::with_tls(&authority.server(&["collector.test"])).await;
    let (azure, forward) = (testkit::azure().await, ForwardProxy::start().await);
    let endpoint = format!("https://collector.test:{}", collector.address().port());
    let setup = || {
        Setup::new(&azure)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "2000")
            .env("OTEL_BSP_SCHEDULE_DELAY", "20")
            .env("HTTPS_PROXY", &format!("http://{}", forward.address()))
    };
    let proxy = setup().start();
    list(&proxy, 1, "");
    let line = proxy.wait_for_log(": spans are dropped: ");
    assert!(line.contains("UnknownIssuer") || line.contains("certificate"), "{line}");
    drop(proxy);

    let setup = setup();
    setup.file("ca.pem", azure.ca_pem().to_owned() + authority.pem());
    let proxy = setup.start();
    list(&proxy, 2, "");
    collector.wait_for(1).await;
    assert!(forward.connects_to(collector.address()) > 0);
    // A refusal is told by the proxy's own words. The tunnels that are kept end first.
    forward.set(Does::Denies);
    forward.cut();
    // The registry is behind it, too, but it is known, and what is asked of this program itself needs nobody.
    let _ = testkit::wire::ask(proxy.address(), "GET /v2/", "");
    let line = proxy.wait_for_log(": spans are dropped: ");
    assert!(line.contains("it does not allow CONNECT to collector.test:"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_variables_are_told_and_pulls_go_on_without_spans() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure).env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");
    let proxy = setup.env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc").start();
    list(&proxy, 1, "");
    let line = proxy.wait_for_line(&["WARN", "OTEL_EXPORTER_OTLP_PROTOCOL: "]);
    assert!(line.contains("only http/protobuf is spoken") && line.ends_with(": no spans are exported"), "{line}");
}
