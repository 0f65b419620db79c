//! `/healthz` and `/readyz`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;
use serde_json::{Value, json};

use crate::browser;
use crate::failure::Hop;
use crate::load::{Limit, Load};
use crate::proxy::{Table, upstreams};

/// `/healthz`: the process runs. `/readyz`: every registry of the table has a valid token.
pub(crate) struct Health {
    routes: Arc<Table>,
    load: Arc<Load>,
}

impl Health {
    /// Reports the readiness of the registries of `routes`, and the `load` of the listeners for clients.
    pub(crate) fn new(routes: Arc<Table>, load: Arc<Load>) -> Self {
        Self { routes, load }
    }

    fn answer(&self, path: &str) -> (StatusCode, &'static str, String) {
        match path {
            "/healthz" => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
            "/readyz" => {
                let (ready, body) = self.readiness();
                let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                (status, "application/json", format!("{body:#}\n"))
            }
            _ => (StatusCode::NOT_FOUND, "text/plain", "there are /healthz and /readyz\n".to_owned()),
        }
    }

    fn readiness(&self) -> (bool, Value) {
        let upstreams = upstreams(&self.routes);
        let states: Vec<_> =
            upstreams.iter().map(|upstream| (upstream.domain.authority(), upstream.tokens.readiness())).collect();
        let ready = states.iter().all(|(_, state)| state.ready);
        let upstreams: Vec<_> = states
            .into_iter()
            .map(|(domain, state)| {
                let mut upstream = json!({ "domain": domain, "ready": state.ready });
                // Also while the token is still valid and only its renewal fails: there is time to act then.
                if let Some(failure) = state.failure {
                    upstream["hop"] = json!(hop(failure.hop));
                    upstream["message"] = json!(failure.message);
                    upstream["permanent"] = json!(failure.permanent);
                    upstream["since"] = json!(state.since.map(timestamp));
                } else if !state.ready {
                    upstream["message"] = json!("the first sign-in is under way");
                }
                upstream
            })
            .collect();
        (ready, json!({ "ready": ready, "upstreams": upstreams, "load": self.load() }))
    }

    fn load(&self) -> Value {
        let Load { connections, requests, bad_headers, .. } = &*self.load;
        let limit = |limit: &Limit| json!({ "now": limit.count(), "max": limit.max(), "refused": limit.refused() });
        json!({
            "connections": limit(connections),
            "requests": limit(requests),
            "bad_headers": bad_headers.load(Ordering::Relaxed),
        })
    }
}

fn hop(hop: Hop) -> &'static str {
    match hop {
        Hop::Identity => "identity",
        Hop::Exchange => "exchange",
        Hop::Token => "token",
    }
}

/// A date in the format of HTTP (RFC 9110 section 5.6.7).
fn timestamp(time: SystemTime) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write!(text, "{}", httpdate::HttpDate::from(time));
    text
}

#[async_trait]
impl ServeHttp for Health {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        let (status, kind, body) = match request.method {
            // Web pages must not learn the names of registries and their errors.
            _ if browser::sent(&request.headers) => {
                (StatusCode::FORBIDDEN, "text/plain", "not for pages in a browser\n".to_owned())
            }
            Method::GET | Method::HEAD => self.answer(request.uri.path()),
            _ => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET or HEAD\n".to_owned()),
        };
        let length = body.len();
        let body = if request.method == Method::HEAD { Vec::new() } else { body.into_bytes() };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
        headers.insert(header::CONTENT_LENGTH, length.into());
        headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
        response
    }
}
