//! `request_filter`: is this a request of the pull API, and which registry is it for? Needs no token and no network.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, Version, header};
use pingora::http::RequestHeader;
use pingora_proxy::Session;
use tokio::time::timeout;

use super::destination::{Destination, Table};
use super::target::Target;
use crate::browser;
use oci::authority::MAX_AUTHORITY;
use oci::error::{Code, Refusal};
use oci::printable;
use oci::request::{Pull, Request};
use oci::route::Unrouted;

/// The end of an empty body is in the packet of the header, or in the next one.
const EMPTY_BODY_LIMIT: Duration = Duration::from_secs(5);

/// What a request is admitted as.
pub(crate) enum Admission {
    /// `GET /v2/`, which is answered here.
    Ping,
    /// A pull, which goes to a registry.
    Pull(Target, Arc<Destination>),
}

/// Parses the request into the closed set of the pull API and finds its route, or refuses it.
pub(crate) async fn admit(session: &mut Session, routes: &Table) -> Result<Admission, Refusal> {
    let method = &session.req_header().method;
    let is_pull = method == Method::GET || method == Method::HEAD;
    let has_body = has_body(session, is_pull).await;
    let request = session.req_header();
    if browser::sent(&request.headers) {
        let message = "pages in a browser have no access to this proxy";
        return Err(Refusal::new(StatusCode::FORBIDDEN, Code::Denied, message));
    }
    if request.version == Version::HTTP_11 && !request.headers.contains_key(header::HOST) {
        let message = "an HTTP/1.1 request needs a Host header";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, Code::Unsupported, message));
    }
    if std::str::from_utf8(request.raw_path()).is_err() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, Code::NameInvalid, "the path is not UTF-8"));
    }
    if is_pull && has_body {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, Code::Unsupported, "a pull request has no body"));
    }
    match Request::parse(&request.method, request.uri.path(), request.uri.query())? {
        Request::Ping => Ok(Admission::Ping),
        Request::Pull(pull) => route(&pull, host(request), routes),
    }
}

/// A body that is announced by `Transfer-Encoding` may turn out empty, so it is read: up to its first byte, no further.
async fn has_body(session: &mut Session, is_pull: bool) -> bool {
    if session.is_body_empty() {
        return false;
    }
    if !is_pull || session.req_header().headers.contains_key(header::CONTENT_LENGTH) {
        return true;
    }
    let read = async {
        loop {
            match session.read_request_body().await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                // Over HTTP/2 trailers may be all that has come. They would be held as long as the request.
                Ok(None) => return !session.is_body_done(),
                Ok(Some(_)) | Err(_) => return true,
            }
        }
    };
    // In a box: hardly any request comes here.
    Box::pin(timeout(EMPTY_BODY_LIMIT, read)).await.unwrap_or(true)
}

fn route(pull: &Pull<'_>, host: Option<&str>, routes: &Table) -> Result<Admission, Refusal> {
    let refusal = |unrouted| match unrouted {
        Unrouted(Some(registry)) => no_route(registry).with_detail(pull.name.as_str()),
        Unrouted(None) => no_default().with_detail(pull.name.as_str()),
    };
    let routes = routes.load();
    let choice = routes.choose(pull, host).map_err(refusal)?;
    Ok(Admission::Pull(Target::new(pull, &choice.repository), Arc::clone(&choice.route.destination)))
}

/// What the listener was addressed as.
fn host(request: &RequestHeader) -> Option<&str> {
    let header = request.headers.get(header::HOST).and_then(|value| value.to_str().ok());
    header.or_else(|| request.uri.authority().map(http::uri::Authority::as_str))
}

/// 404, so that the client asks the registry itself.
pub(crate) fn no_route(registry: &str) -> Refusal {
    // Without its control characters, what is no name would read as the name of a registry that has a route.
    let advice = match registry.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => "ask that registry itself, or add it to routes",
        false => "that is no registry's name",
    };
    let message = format!("no route for {}: {advice}", printable::bounded(registry, MAX_AUTHORITY));
    Refusal::new(StatusCode::NOT_FOUND, Code::NameUnknown, message)
}

fn no_default() -> Refusal {
    let message = "the request names no registry, and there is no default: set default in the settings";
    Refusal::new(StatusCode::NOT_FOUND, Code::NameUnknown, message)
}
