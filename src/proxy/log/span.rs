//! The span of a request that is over: it has the fields of the line in the log, by the names of OpenTelemetry's semantic conventions
//! for HTTP servers where these have one.
//!
//! As in the line, no header of either side is in it but `Host` and ACR's correlation id, and no query.

use http::header::HOST;
use http::uri::Authority;
use http::{Method, Version};
use pingora::http::RequestHeader;

use super::{Line, MAX_AUTHORITY, MAX_CORRELATION, MAX_ERROR, MAX_METHOD, MAX_PATH, Outcome};
use crate::otlp::Value;
use crate::proxy::context::Cached;
use crate::proxy::span::Begun;

/// The methods that the conventions name; another is `_OTHER`.
const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// Ends it with the line of its request. `request` is the client's, where that is still there.
pub(super) fn end(span: Begun, line: &Line<'_>, request: Option<&RequestHeader>) {
    let error = line.is_failure().then(|| line.outcome.to_text());
    span.end(name(line), line.elapsed, attributes(line, request), error);
}

/// The method and the kind of path: what a client can choose freely is in neither.
fn name(line: &Line<'_>) -> String {
    let method = known(line.method).unwrap_or("HTTP");
    match route(line.kind) {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    }
}

fn known(method: &str) -> Option<&str> {
    METHODS.iter().any(|known| known.as_str() == method).then_some(method)
}

/// `http.route`, of a kind of request.
fn route(kind: &str) -> Option<&'static str> {
    match kind {
        "manifest" => Some("/v2/{name}/manifests/{reference}"),
        "blob" => Some("/v2/{name}/blobs/{digest}"),
        "tags" => Some("/v2/{name}/tags/list"),
        "referrers" => Some("/v2/{name}/referrers/{digest}"),
        "ping" => Some("/v2/"),
        _ => None,
    }
}

fn attributes(line: &Line<'_>, request: Option<&RequestHeader>) -> Vec<(&'static str, Value)> {
    let text = |text: &str, most| (!text.is_empty()).then(|| Value::from(bounded(text, most)));
    let number = |number: usize| Some(Value::Number(i64::try_from(number).unwrap_or(i64::MAX)));
    let port = |port: u16| Some(Value::Number(port.into()));
    let method = known(line.method);
    let server = request.and_then(server);
    let server = server.as_ref();
    let (cache, reason) = match line.cached {
        Some(Cached::Here(how)) => (how.name(), ""),
        Some(Cached::Passed(reason)) => ("pass", reason.name()),
        None => ("", ""),
    };
    let certificate = line.peer.and_then(|peer| peer.names.first()).map_or("", |name| name.as_str());
    let why = line.outcome.to_text();
    let all = [
        ("http.request.method", text(method.unwrap_or("_OTHER"), MAX_METHOD)),
        ("http.request.method_original", if method.is_none() { text(line.method, MAX_METHOD) } else { None }),
        ("url.scheme", text(if line.peer.is_some() { "https" } else { "http" }, MAX_METHOD)),
        ("url.path", text(line.path, MAX_PATH)),
        ("http.route", route(line.kind).map(Value::from)),
        ("http.response.status_code", if line.status == 0 { None } else { port(line.status) }),
        ("http.response.body.size", number(line.sent)),
        ("error.type", line.is_failure().then(|| line.error_type())),
        ("server.address", server.and_then(|authority| text(host(authority), MAX_AUTHORITY))),
        ("server.port", server.and_then(Authority::port_u16).and_then(port)),
        ("client.address", line.client.map(|client| Value::Text(client.ip().to_string()))),
        ("client.port", line.client.and_then(|client| port(client.port()))),
        ("network.protocol.name", text("http", MAX_METHOD)),
        ("network.protocol.version", request.and_then(|request| version(request.version)).map(Value::from)),
        ("tls.protocol.version", line.peer.and_then(|peer| text(peer.version.trim_start_matches("TLSv"), MAX_METHOD))),
        ("acr_cache_proxy.route", text(line.route, MAX_AUTHORITY)),
        ("acr_cache_proxy.kind", text(line.kind, MAX_METHOD)),
        ("acr_cache_proxy.repository", text(line.repository, MAX_PATH)),
        ("acr_cache_proxy.cache", text(cache, MAX_METHOD)),
        ("acr_cache_proxy.cache_reason", text(reason, MAX_METHOD)),
        ("acr_cache_proxy.tries", number(line.tries)),
        ("acr_cache_proxy.upstream", line.upstream.map(|address| Value::Text(address.to_string()))),
        ("acr_cache_proxy.storage", line.storage.and_then(|storage| text(storage, MAX_AUTHORITY))),
        ("acr_cache_proxy.time_to_first_byte", line.first_byte.map(Value::Seconds)),
        ("acr_cache_proxy.registry_time", line.asking.map(Value::Seconds)),
        ("acr_cache_proxy.correlation", line.correlation.as_deref().and_then(|id| text(id, MAX_CORRELATION))),
        ("acr_cache_proxy.certificate", text(certificate, MAX_AUTHORITY)),
        ("acr_cache_proxy.error", text(&why, MAX_ERROR)),
    ];
    all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

impl Line<'_> {
    /// The request has failed for no fault of its client's, which makes its span an error.
    fn is_failure(&self) -> bool {
        match self.outcome {
            Outcome::CutOff | Outcome::Broken(_) => true,
            Outcome::Failed(_) => !(400..500).contains(&self.status),
            Outcome::Left(_) | Outcome::Refused(_) | Outcome::Denied(_) => false,
            Outcome::Answered | Outcome::Registry(_) => self.status >= 500,
        }
    }

    fn error_type(&self) -> Value {
        match self.outcome {
            _ if self.status >= 500 => Value::Text(self.status.to_string()),
            Outcome::CutOff => Value::from("cut_off"),
            Outcome::Broken(error) => Value::from(error.etype().as_str()),
            _ => Value::from("_OTHER"),
        }
    }
}

impl Outcome<'_> {
    /// The `error` of the line, bounded; empty if there is none.
    fn to_text(&self) -> String {
        let text = self.error().map(|error| error.to_string()).unwrap_or_default();
        bounded(&text, MAX_ERROR).to_owned()
    }
}

/// Where the client has sent its request to, as it says.
fn server(request: &RequestHeader) -> Option<Authority> {
    let named = request.headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    named.or_else(|| request.uri.authority().cloned()).filter(|authority| !authority.as_str().contains('@'))
}

/// Without the brackets of an IPv6 address, as the conventions want it.
fn host(authority: &Authority) -> &str {
    oci::authority::without_brackets(authority.host())
}

fn version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}

/// So much of a text as `most` bytes hold.
fn bounded(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}
