//! `request_filter`, first half: is this the pull API?

use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, Version, header};
use pingora::http::RequestHeader;
use pingora_core::Result;
use pingora_proxy::Session;
use tokio::time::timeout;

use super::context::Context;
use super::destination::Destination;
use super::endpoint::Endpoint;
use super::reply::{self, Reply};
use crate::browser;
use oci::error::{Code, Refusal};
use oci::request::{Pull, Request};
use oci::route::{Routes, Unrouted};

/// The end of an empty body is in the packet of the header, or in the next one.
const EMPTY_BODY_LIMIT: Duration = Duration::from_secs(5);
/// RFC 1035 section 2.3.4, and a port.
const MAX_QUOTED_REGISTRY: usize = 259;

/// True if the request goes on to a registry, with its target in `context`; false if it has its answer.
pub async fn accept(session: &mut Session, context: &mut Context, routes: &Routes<Arc<Destination>>) -> Result<bool> {
    let request = session.req_header();
    let pulls = request.method == http::Method::GET || request.method == http::Method::HEAD;
    let has_body = has_body(session, pulls).await;
    let request = session.req_header();
    let parsed = if browser::asks(&request.headers) {
        Err(Refusal::new(StatusCode::FORBIDDEN, Code::Denied, "pages in a browser have no access to this proxy"))
    } else if request.version == Version::HTTP_11 && !request.headers.contains_key(header::HOST) {
        Err(Refusal::new(StatusCode::BAD_REQUEST, Code::Unsupported, "a request of HTTP/1.1 has a Host header"))
    } else if std::str::from_utf8(request.raw_path()).is_err() {
        Err(Refusal::new(StatusCode::BAD_REQUEST, Code::NameInvalid, "the path is not UTF-8"))
    } else if pulls && has_body {
        Err(Refusal::new(StatusCode::BAD_REQUEST, Code::Unsupported, "a pull request has no body"))
    } else {
        Request::parse(&request.method, request.uri.path(), request.uri.query())
    };
    let refusal = match parsed {
        Ok(Request::Ping) => {
            Box::pin(reply::ping(session)).await?;
            return Ok(false);
        }
        Ok(Request::Pull(pull)) => match routed(&pull, host(request), routes, context) {
            Ok(()) => return Ok(true),
            Err(refusal) => refusal,
        },
        Err(refusal) => refusal,
    };
    // What follows a CONNECT is not meant for this proxy, and the body of a refused request is not read: the connection
    // ends with the answer. (Behind a body it ends anyway.)
    if session.req_header().method == http::Method::CONNECT {
        session.set_keepalive(None);
    }
    let reply = Reply::refusal(&refusal);
    context.refusal = Some(refusal);
    Box::pin(reply::write(session, &reply)).await?;
    Ok(false)
}

/// A body that is only announced may be empty. One that is read here has its bound: a single byte is too many.
async fn has_body(session: &mut Session, pulls: bool) -> bool {
    if session.is_body_empty() {
        return false;
    }
    if !pulls || session.req_header().headers.contains_key(header::CONTENT_LENGTH) {
        return true;
    }
    let read = async {
        loop {
            match session.read_request_body().await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(None) => return false,
                Ok(Some(_)) | Err(_) => return true,
            }
        }
    };
    // In a box: hardly any request comes here.
    Box::pin(timeout(EMPTY_BODY_LIMIT, read)).await.unwrap_or(true)
}

fn routed(
    pull: &Pull<'_>,
    host: Option<&str>,
    routes: &Routes<Arc<Destination>>,
    context: &mut Context,
) -> Result<(), Refusal> {
    context.endpoint = Some(Endpoint::of(&pull.resource));
    let choice = routes.choose(pull, host).map_err(|unrouted| match unrouted {
        Unrouted(Some(registry)) => no_route(registry).with_detail(pull.name.as_str()),
        Unrouted(None) => no_default().with_detail(pull.name.as_str()),
    })?;
    context.destination = Some(Arc::clone(&choice.route.destination));
    context.target = pull.upstream_target(&choice.repository);
    context.name_length = choice.repository.len();
    context.client_name_length = pull.name.as_str().len();
    Ok(())
}

/// What the listener was addressed as.
fn host(request: &RequestHeader) -> Option<&str> {
    let header = request.headers.get(header::HOST).and_then(|value| value.to_str().ok());
    header.or_else(|| request.uri.authority().map(http::uri::Authority::as_str))
}

/// 404, so that the client asks the registry itself.
pub fn no_route(registry: &str) -> Refusal {
    let registry = registry.chars().filter(|c| !c.is_control()).take(MAX_QUOTED_REGISTRY).collect::<String>();
    let message = format!("no route for {registry}: ask that registry itself, or add it to routes");
    Refusal::new(StatusCode::NOT_FOUND, Code::NameUnknown, message)
}

fn no_default() -> Refusal {
    let message = "the request names no registry, and there is no default: set default in the settings";
    Refusal::new(StatusCode::NOT_FOUND, Code::NameUnknown, message)
}
