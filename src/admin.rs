//! The admin listener. It has a port of its own, so that load balancers and kubelets can reach it while clients cannot.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};
use pingora::http::RequestHeader;
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;
use serde_json::Value;

use crate::browser;
use crate::load::Load;
use crate::metrics::Meters;
use crate::proxy::{CacheOfProcess, Table};

mod cache;
mod health;
mod history;
mod metrics;
mod named;
mod page;
mod process;
mod purge;
mod status;
pub(crate) mod ways;

use metrics::Exposition;

pub(crate) use history::Chronicler;

/// What is answered to a path that there is not.
const PATHS: &str = "there are /, /status, /healthz, /readyz, /metrics, /cache and, for POST, /cache/purge?image=...\n";

/// What a browser is told that comes by a name.
const BY_ADDRESS: &str = "not for pages in a browser: to see the status page, open it by the address of this host, as in http://127.0.0.1:8081/, because a name may be another page's doing\n";
/// Keeps the page's data from pages of other hosts, which may ask for it without reading it.
const CROSS_ORIGIN: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Everything that is asked for on this listener.
pub(crate) struct Admin {
    state: Arc<State>,
    exposition: Exposition,
}

/// What there is to tell of.
pub(crate) struct State {
    /// The routes, and with them the registries.
    pub routes: Arc<Table>,
    /// What is kept.
    pub cache: Arc<CacheOfProcess>,
    /// What the listeners have under way.
    pub load: Arc<Load>,
    /// What is measured.
    pub meters: Arc<Meters>,
    /// When the process began.
    pub started: Instant,
    /// A sentence for each listening socket that no client finds any more.
    pub lost: Box<dyn Fn() -> Vec<String> + Send + Sync>,
}

/// An answer.
struct Reply {
    status: StatusCode,
    kind: &'static str,
    body: String,
}

impl Reply {
    fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, kind: "text/plain", body: body.into() }
    }

    fn json(status: StatusCode, body: &Value) -> Self {
        Self { status, kind: "application/json", body: format!("{body:#}\n") }
    }
}

impl Admin {
    /// Tells of this.
    pub(crate) fn new(state: State) -> Self {
        let state = Arc::new(state);
        Self { exposition: Exposition::new(&state), state }
    }

    /// The second value is what else the path can be asked by, where the method is none of it.
    fn answer(&self, request: &RequestHeader) -> (Reply, Option<&'static str>) {
        let (method, path, query) = (&request.method, request.uri.path(), request.uri.query());
        let state = &self.state;
        let is_read = method == Method::GET || method == Method::HEAD;
        let reply = match path {
            "/cache/purge" if method == Method::POST => purge::purge(state, query.unwrap_or_default()),
            "/cache/purge" => return (Reply::text(StatusCode::METHOD_NOT_ALLOWED, "POST\n"), Some("POST")),
            "/" | "/status" | "/healthz" | "/readyz" | "/metrics" | "/cache" if !is_read => {
                return (Reply::text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n"), Some("GET, HEAD"));
            }
            "/healthz" => Reply::text(StatusCode::OK, "ok\n"),
            "/readyz" => {
                let now = health::Readiness::of(state);
                let status = if now.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                Reply::json(status, &now.told(state))
            }
            "/metrics" => {
                let (kind, body) = self.exposition.scrape(&request.headers);
                Reply { status: StatusCode::OK, kind, body }
            }
            "/" => Reply { status: StatusCode::OK, kind: "text/html; charset=utf-8", body: page::page().html.clone() },
            "/status" => {
                status::report(state, query).map_or_else(|wrong| wrong, |body| Reply::json(StatusCode::OK, &body))
            }
            "/cache" => Reply::json(StatusCode::OK, &cache::report(state)),
            _ => Reply::text(StatusCode::NOT_FOUND, PATHS),
        };
        (reply, None)
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        // No request is served behind a body, so it does not matter where the body ends. In HTTP/1.0 the end of the connection may be that
        // of the answer, for which a probe waits.
        if !session.is_body_empty() || session.req_header().version == Version::HTTP_10 {
            session.set_keepalive(None);
        }
        let request = session.req_header();
        let is_page = matches!(request.uri.path(), "/" | "/status");
        let (Reply { status, kind, body }, allow) = if is_page && browser::sent_by_own_page(&request.headers) {
            self.answer(request)
        } else if browser::sent(&request.headers) {
            // A web page must neither learn the names of registries and their errors nor have anything forgotten.
            let message = if is_page { BY_ADDRESS } else { "not for pages in a browser\n" };
            (Reply::text(StatusCode::FORBIDDEN, message), None)
        } else {
            self.answer(request)
        };
        let length = body.len();
        let body = if request.method == Method::HEAD { Vec::new() } else { body.into_bytes() };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CONTENT_LENGTH, length.into());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if is_page {
            headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            headers.insert(CROSS_ORIGIN, HeaderValue::from_static("same-origin"));
            if let Ok(policy) = HeaderValue::from_str(&page::page().policy) {
                headers.insert(header::CONTENT_SECURITY_POLICY, policy);
            }
        }
        if let Some(allow) = allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}
