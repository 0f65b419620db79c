//! The real binary, built with the feature `otlp`, in front of a collector that decodes spans by OpenTelemetry's own messages.

mod losses;
mod settings;
mod spans;

use std::time::Duration;

use acr_emulator::Emulator;
use testkit::collector::Collector;
use testkit::{PATIENCE, Proxy, Setup, wire};
use tokio::time::Instant;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const MANIFEST: &str = "/v2/library/busybox/manifests/latest";
const ACCEPT: &str = "Accept: application/vnd.oci.image.index.v1+json\r\n";

/// A proxy in front of this collector, whose spans wait for 20 ms.
fn traced(azure: &Emulator, collector: &Collector) -> Setup {
    let setup = Setup::new(azure).env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint());
    setup.env("OTEL_BSP_SCHEDULE_DELAY", "20").flag("--admin-address", "127.0.0.1:0")
}

/// A tag list, which is asked of the registry each time.
fn list(proxy: &Proxy, number: usize, headers: &str) {
    let line = format!("GET /v2/library/busybox/tags/list?n={number}");
    assert_eq!(wire::ask(proxy.address(), &line, headers).status, 200);
}

/// The `traceparent` with which the registry was asked for that list.
fn sent_on(azure: &Emulator, number: usize) -> Option<String> {
    let end = format!("?n={number}");
    let seen = azure.requests();
    let request = seen.iter().find(|request| request.target.ends_with(&end)).expect("it was asked");
    request.headers.iter().find(|(name, _)| name == "traceparent").map(|(_, value)| value.clone())
}

/// A counter of the metrics by the `result` of spans.
fn count(proxy: &Proxy, result: &str) -> u64 {
    let line = proxy.wait_for_log("health and readiness on http://");
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    let metrics = wire::ask(address.parse().expect("an address"), "GET /metrics", "").body;
    let name = format!("acr_cache_proxy_spans_total{{result=\"{result}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&name)).expect("a sample");
    value.trim().parse::<f64>().expect("a number") as u64
}

/// Waits until counters of the metrics have these sums.
async fn wait_for(proxy: &Proxy, results: &[&str], expected: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let sum: u64 = results.iter().map(|result| count(proxy, result)).sum();
        if sum == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{results:?} are {sum} and not {expected}:\n{}", proxy.log());
        // Nothing depends on the step.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
