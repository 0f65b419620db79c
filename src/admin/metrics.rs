//! `/metrics`: the catalogue with the numbers of now, in Prometheus's text format or in OpenMetrics.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use http::{HeaderMap, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::process::Process;
use super::{State, health};
use crate::access;
use crate::cache::{Kind, Reason};
use crate::load::Limit;
use crate::load::opening::{Handshake, RefusedProxyHeader};
use crate::logger;
use crate::metrics::catalogue::{self as names, Family, Type};
use crate::metrics::histogram::Counts;
use crate::metrics::labels::{self, CallResult, Hop};
use crate::metrics::spans::SpanResult;
use crate::proxy::{Call, Upstream, upstreams};

/// The content type of OpenMetrics, which the crate gives no name.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes what a scrape gets.
pub(super) struct Exposition(Registry);

impl Exposition {
    /// Of what this state says when it is asked.
    pub(super) fn new(state: &Arc<State>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Exporter(Arc::clone(state))));
        Self(registry)
    }

    /// The content type and the text that the client's `Accept` asks for.
    pub(super) fn scrape(&self, headers: &HeaderMap) -> (&'static str, String) {
        let mut body = String::new();
        // Writing to a String does not fail.
        if prefers_open_metrics(headers) {
            let _ = text::encode(&mut body, &self.0);
            (OPEN_METRICS, body)
        } else {
            let _ = prometheus_text::encode(&mut body, &self.0);
            (prometheus_text::CONTENT_TYPE, body)
        }
    }
}

/// OpenMetrics is named, and text is not preferred to it (RFC 9110 section 12.5.1).
fn prefers_open_metrics(headers: &HeaderMap) -> bool {
    let (mut open, mut text) = (0.0, 0.0);
    for value in headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
        for range in value.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |weight| weight.parse().ok());
            let weight: f32 = weight.unwrap_or(0.0);
            match kind.as_str() {
                "application/openmetrics-text" => open = weight.max(open),
                "text/plain" | "text/*" => text = weight.max(text),
                _ => {}
            }
        }
    }
    open > 0.0 && open >= text
}

struct Exporter(Arc<State>);

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter")
    }
}

impl Collector for Exporter {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let samples = samples(&self.0);
        for Samples { family, values } in samples {
            let kind = match family.kind {
                Type::Counter => MetricType::Counter,
                Type::Gauge => MetricType::Gauge,
                Type::Histogram => MetricType::Histogram,
            };
            let mut descriptor = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, value) in values {
                let labels: Vec<_> = family.labels.iter().copied().zip(labels.iter().map(String::as_str)).collect();
                let mut metric = descriptor.encode_family(&labels)?;
                match value {
                    Value::Number(number) if family.kind == Type::Counter => {
                        ConstCounter::new(number).encode(metric)?;
                    }
                    Value::Number(number) => ConstGauge::new(number).encode(metric)?,
                    Value::Counts(counts) => {
                        metric.encode_histogram::<NoLabelSet>(counts.sum, counts.count, &counts.buckets, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// A family with what is to be told of it.
struct Samples {
    family: &'static Family,
    values: Vec<(Vec<String>, Value)>,
}

enum Value {
    Number(f64),
    Counts(Counts),
}

impl Samples {
    fn of(family: &'static Family) -> Self {
        Self { family, values: Vec::new() }
    }

    /// One without labels.
    fn one(family: &'static Family, value: impl Number) -> Self {
        let mut samples = Self::of(family);
        samples.add(&[], value);
        samples
    }

    fn add(&mut self, labels: &[&str], value: impl Number) {
        if let Some(number) = value.number() {
            self.push(labels, Value::Number(number));
        }
    }

    fn push(&mut self, labels: &[&str], value: Value) {
        debug_assert_eq!(labels.len(), self.family.labels.len(), "{}", self.family.name);
        self.values.push((labels.iter().map(|label| (*label).to_owned()).collect(), value));
    }
}

/// What can be a sample; `None` is none.
trait Number {
    fn number(self) -> Option<f64>;
}

impl Number for f64 {
    fn number(self) -> Option<f64> {
        Some(self)
    }
}

impl Number for u64 {
    fn number(self) -> Option<f64> {
        Some(self as f64)
    }
}

impl Number for usize {
    fn number(self) -> Option<f64> {
        Some(self as f64)
    }
}

impl Number for bool {
    fn number(self) -> Option<f64> {
        Some(f64::from(u8::from(self)))
    }
}

impl<T: Number> Number for Option<T> {
    fn number(self) -> Option<f64> {
        self.and_then(T::number)
    }
}

/// Everything, in the order of the catalogue.
fn samples(state: &State) -> Vec<Samples> {
    let mut all = Vec::new();
    let mut build = Samples::of(&names::BUILD_INFO);
    build.add(&[env!("CARGO_PKG_VERSION"), env!("ACR_CACHE_PROXY_BUILD")], true);
    all.push(build);
    all.extend(requests(state));
    all.extend(calls(state));
    all.push(Samples::one(&names::READY, health::Readiness::of(state).is_ready()));
    all.extend(registries(state));
    all.extend(cache(state));
    all.extend(load(state));
    all.extend(process());
    all
}

fn requests(state: &State) -> Vec<Samples> {
    let families = [&names::REQUESTS, &names::REFUSED, &names::FIRST_BYTE, &names::WHOLE, &names::BODY_BYTES];
    let [mut requests, mut refused, mut first_byte, mut whole, mut bytes] = families.map(Samples::of);
    let unrouted = ("none".to_owned(), Arc::clone(&state.meters.unrouted));
    for (route, meter) in state.meters.routes().into_iter().chain([unrouted]) {
        meter.requests(|kind, status, cache, count| {
            requests.add(&[&route, kind.name(), status, cache.name()], count);
        });
        for cause in labels::Cause::ALL {
            let count = Some(meter.refused.count(cause)).filter(|count| *count > 0);
            refused.add(&[&route, cause.name()], count);
        }
        for kind in labels::Kind::ALL {
            for (samples, histogram) in [&mut first_byte, &mut whole].into_iter().zip(meter.durations(kind)) {
                if let Some(counts) = histogram.counts() {
                    samples.push(&[&route, kind.name()], Value::Counts(counts));
                }
            }
            bytes.add(&[&route, kind.name()], Some(meter.bytes(kind)).filter(|bytes| *bytes > 0));
        }
    }
    vec![requests, refused, first_byte, whole, bytes]
}

fn calls(state: &State) -> Vec<Samples> {
    let [mut calls, mut durations] = [&names::CALLS, &names::CALL_DURATION].map(Samples::of);
    for (registry, meter) in state.meters.registries() {
        for hop in Hop::ALL {
            for result in CallResult::ALL {
                let count = Some(meter.count(hop, result)).filter(|count| *count > 0);
                calls.add(&[&registry, hop.name(), result.name()], count);
            }
            if let Some(counts) = meter.durations(hop).counts() {
                durations.push(&[&registry, hop.name()], Value::Counts(counts));
            }
        }
    }
    vec![calls, durations]
}

/// A registry to which several identities sign in is one here: what is counted is added up, and of the rest the worst is told.
fn registries(state: &State) -> Vec<Samples> {
    let mut by_name = BTreeMap::<String, Vec<Arc<Upstream>>>::new();
    for upstream in upstreams(&state.routes) {
        by_name.entry(upstream.domain.authority().to_owned()).or_default().push(upstream);
    }
    let families = [
        &names::REGISTRY_READY,
        &names::TOKEN_AGE,
        &names::TOKEN_LEFT,
        &names::TOKEN_FAILING,
        &names::REPOSITORY_TOKENS,
        &names::DOWN,
        &names::PAUSES,
        &names::PAUSE_LEFT,
        &names::STALE,
        &names::BUDGET,
        &names::BUDGET_WAIT,
    ];
    let [
        mut ready,
        mut age,
        mut left,
        mut failing,
        mut repositories,
        mut down,
        mut pauses,
        mut pause_left,
        mut stale,
        mut budget,
        mut budget_wait,
    ] = families.map(Samples::of);
    for (name, upstreams) in by_name {
        let tokens: Vec<_> = upstreams.iter().map(|upstream| upstream.tokens.report()).collect();
        let health: Vec<_> = upstreams.iter().map(|upstream| &upstream.health).collect();
        ready.add(&[&name], upstreams.iter().all(|upstream| upstream.tokens.readiness().ready));
        let of_kind = [
            ("refresh", tokens.iter().filter_map(|tokens| tokens.refresh).collect::<Vec<_>>()),
            ("access", tokens.iter().filter_map(|tokens| tokens.access).collect()),
        ];
        for (kind, lives) in of_kind {
            age.add(&[&name, kind], lives.iter().map(|life| life.age).max().map(|age| age.as_secs_f64()));
            left.add(&[&name, kind], lives.iter().map(|life| life.left).min().map(|left| left.as_secs_f64()));
        }
        let longest = tokens.iter().filter_map(|tokens| tokens.failing).max().unwrap_or_default();
        failing.add(&[&name], longest.as_secs_f64());
        repositories.add(&[&name], tokens.iter().map(|tokens| tokens.repositories).sum::<usize>());
        down.add(&[&name], health.iter().any(|health| health.is_down()));
        pauses.add(&[&name], health.iter().map(|health| health.pauses()).sum::<u64>());
        for call in Call::ALL {
            let left = health.iter().map(|health| health.pause_left(call)).max().unwrap_or_default();
            pause_left.add(&[&name, call.plural()], left.as_secs_f64());
        }
        stale.add(&[&name], health.iter().map(|health| health.stale_answers()).sum::<u64>());
        let budgets: Vec<_> = health.iter().filter_map(|health| health.budget()).collect();
        budget.add(&[&name], budgets.iter().map(|(limit, _)| u64::from(limit.get())).max());
        budget_wait.add(&[&name], budgets.iter().map(|(_, wait)| *wait).max().map(|wait| wait.as_secs_f64()));
    }
    vec![ready, age, left, failing, repositories, down, pauses, pause_left, stale, budget, budget_wait]
}

fn cache(state: &State) -> Vec<Samples> {
    let cache = state.cache.get();
    let (entries, bytes) = cache.map_or((0, 0), |cache| cache.size());
    let (evicted, evicted_bytes) = cache.map_or((0, 0), |cache| cache.evicted());
    let mut hits = Samples::of(&names::CACHE_HITS);
    for kind in Kind::ALL {
        hits.add(&[kind.name()], cache.map_or(0, |cache| cache.counters().hits(kind)));
    }
    let mut passed = Samples::of(&names::CACHE_PASSED);
    for reason in Reason::ALL {
        passed.add(&[reason.name()], cache.map_or(0, |cache| cache.counters().passes(reason)));
    }
    vec![
        Samples::one(&names::CACHE_BYTES, bytes),
        Samples::one(&names::CACHE_MAX_BYTES, cache.map_or(0, |cache| cache.memory())),
        Samples::one(&names::CACHE_ENTRIES, entries),
        Samples::one(&names::CACHE_EVICTED_BYTES, evicted_bytes),
        Samples::one(&names::CACHE_EVICTED, evicted),
        hits,
        passed,
        Samples::one(&names::CACHE_SAVED, cache.map_or(0, |cache| cache.counters().saved())),
        Samples::one(&names::FLIGHTS, cache.map_or(0, |cache| cache.flights())),
    ]
}

fn load(state: &State) -> Vec<Samples> {
    let load = &state.load;
    let by_listener = |family, read: fn(&Limit) -> usize| {
        let mut samples = Samples::of(family);
        for (name, limit) in [("clients", &load.connections), ("admin", &load.admin_connections)] {
            samples.add(&[name], read(limit));
        }
        samples
    };
    let mut refusals = Samples::of(&names::REFUSALS);
    refusals.add(&["connections"], load.connections.refused());
    refusals.add(&["requests"], load.requests.refused());
    for reason in access::Reason::ALL {
        refusals.add(&[reason.name()], load.gate.refusals().get(reason));
    }
    let openings = &load.openings;
    let mut accepted = Samples::of(&names::ACCEPTED);
    for (name, count) in ["clients", "admin"].into_iter().zip(openings.accepted()) {
        accepted.add(&[name], count);
    }
    let mut handshakes = Samples::of(&names::HANDSHAKES);
    for result in Handshake::ALL {
        handshakes.add(&[result.name()], openings.handshakes(result));
    }
    let mut proxy_headers = Samples::of(&names::PROXY_HEADERS);
    for reason in RefusedProxyHeader::ALL {
        proxy_headers.add(&[reason.name()], openings.refused_proxy_headers(reason));
    }
    let mut certificates = Samples::of(&names::CERTIFICATE_END);
    for (address, end) in openings.certificates() {
        certificates.add(&[&address], end.duration_since(UNIX_EPOCH).ok().map(|end| end.as_secs()));
    }
    let mut spans = Samples::of(&names::SPANS);
    for result in SpanResult::ALL {
        spans.add(&[result.name()], state.meters.spans.get(result));
    }
    vec![
        by_listener(&names::CONNECTIONS, Limit::count),
        accepted,
        by_listener(&names::MAX_CONNECTIONS, Limit::max),
        Samples::one(&names::IN_FLIGHT, load.requests.count()),
        Samples::one(&names::MAX_IN_FLIGHT, load.requests.max()),
        refusals,
        handshakes,
        proxy_headers,
        certificates,
        Samples::one(&names::LOG_DROPPED, logger::dropped()),
        spans,
    ]
}

fn process() -> Vec<Samples> {
    let process = Process::read();
    vec![
        Samples::one(&names::CPU, process.cpu),
        Samples::one(&names::RESIDENT, process.resident),
        Samples::one(&names::VIRTUAL, process.size),
        Samples::one(&names::DESCRIPTORS, process.descriptors),
        Samples::one(&names::MAX_DESCRIPTORS, process.max_descriptors),
        Samples::one(&names::THREADS, process.threads),
        Samples::one(&names::START, process.start),
    ]
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_scraper_gets_the_format_that_it_prefers() {
        for (accept, expected) in [
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                true,
            ),
            (
                "application/vnd.google.protobuf;q=0.7,application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.4",
                true,
            ),
            ("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.1", false),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text;q=x", false),
            ("text/html,*/*", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(prefers_open_metrics(&headers), expected, "{accept}");
        }
        assert!(!prefers_open_metrics(&HeaderMap::new()));
    }
}
