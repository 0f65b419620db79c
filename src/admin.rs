//! The admin listener. It has a port of its own, so that load balancers and kubelets can reach it while clients cannot.

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderValue, Method, Response, StatusCode, header};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;
use serde_json::Value;

use crate::browser;
use crate::load::Load;
use crate::proxy::Table;

mod cache;
mod health;
mod purge;

/// What is answered to a path that there is not.
const PATHS: &str = "there are /healthz, /readyz, /cache and, for POST, /cache/purge?image=...\n";

/// Everything that is asked for on this listener.
pub(crate) struct Admin {
    routes: Arc<Table>,
    load: Arc<Load>,
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
    /// Tells of the registries of `routes` and of what is kept of them, and the `load` of the listeners for clients.
    pub(crate) fn new(routes: Arc<Table>, load: Arc<Load>) -> Self {
        Self { routes, load }
    }

    /// The second value is what else the path can be asked by, where the method is none of it.
    fn answer(&self, method: &Method, path: &str, query: Option<&str>) -> (Reply, Option<&'static str>) {
        let is_read = method == Method::GET || method == Method::HEAD;
        let reply = match path {
            "/cache/purge" if method == Method::POST => purge::purge(&self.routes, query.unwrap_or_default()),
            "/cache/purge" => return (Reply::text(StatusCode::METHOD_NOT_ALLOWED, "POST\n"), Some("POST")),
            _ if !is_read => {
                return (Reply::text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n"), Some("GET, HEAD"));
            }
            "/healthz" => Reply::text(StatusCode::OK, "ok\n"),
            "/readyz" => {
                let (ready, body) = health::readiness(&self.routes, &self.load);
                Reply::json(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
            }
            "/cache" => Reply::json(StatusCode::OK, &cache::report(&self.routes)),
            _ => Reply::text(StatusCode::NOT_FOUND, PATHS),
        };
        (reply, None)
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        if !session.is_body_empty() {
            // No request is served behind a body, so it does not matter where the body ends.
            session.set_keepalive(None);
        }
        let request = session.req_header();
        let (Reply { status, kind, body }, allow) = if browser::sent(&request.headers) {
            // A web page must neither learn the names of registries and their errors nor have anything forgotten.
            (Reply::text(StatusCode::FORBIDDEN, "not for pages in a browser\n"), None)
        } else {
            self.answer(&request.method, request.uri.path(), request.uri.query())
        };
        let length = body.len();
        let body = if request.method == Method::HEAD { Vec::new() } else { body.into_bytes() };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CONTENT_LENGTH, length.into());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(allow) = allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}
