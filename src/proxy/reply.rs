//! Answers that this proxy gives itself.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, Version, header};
use pingora::http::ResponseHeader;
use pingora_core::{Error, Result};
use pingora_proxy::{FailToProxy, Session};

use super::context::{Body, Context};
use super::fail::{self, Trouble};
use super::relay::framing;
use crate::answer::CORRELATION_ID;
use oci::error::Refusal;

/// [`crate::answer::API_VERSION`] as registries write it, with what all of them say.
pub(crate) const API_VERSION_2: (&str, &str) = ("Docker-Distribution-API-Version", "registry/2.0");

/// An answer in the form of the distribution specification's errors.
struct Reply {
    status: StatusCode,
    body: Bytes,
    /// In seconds.
    retry_after: Option<u64>,
    /// The registry's own id of the request, if it had an answer.
    correlation: Option<HeaderValue>,
}

impl Reply {
    fn refusal(refusal: &Refusal) -> Self {
        Self { status: refusal.status(), body: refusal.body().into(), retry_after: None, correlation: None }
    }

    fn trouble(trouble: &Trouble, session: &Session, context: &Context) -> Self {
        let (mut status, code, retry_after) = trouble.answer();
        let admitted = context.if_admitted();
        if let (Trouble::Limited(..), Some(admitted)) = (trouble, admitted) {
            status = fail::passed_on(status, admitted.target.endpoint(), admitted.destination.on_failure);
        }
        let name = admitted.map_or("", |admitted| admitted.target.client_name(session.req_header().uri.path()));
        let refusal = Refusal::new(status, code, trouble.to_string()).with_detail(name);
        let correlation = context.correlation(Some(trouble)).cloned();
        Self { retry_after, correlation, ..Self::refusal(&refusal) }
    }
}

/// `GET /v2/`: yes, this is a registry, and no sign-in is needed.
pub(crate) async fn ping(session: &mut Session, context: &mut Context) -> Result<()> {
    context.answered(StatusCode::OK, Body::Unchanged);
    send(session, ResponseHeader::build(StatusCode::OK, Some(4))?, Bytes::from_static(b"{}")).await
}

/// `request_filter`: a request that is not admitted.
pub(crate) async fn refusal(session: &mut Session, context: &mut Context, refusal: Refusal) -> Result<()> {
    // What follows a CONNECT is not meant for this proxy, and the body of a refused request is not read: the connection
    // ends with the answer. (Behind a body it ends anyway.)
    if session.req_header().method == http::Method::CONNECT {
        session.set_keepalive(None);
    }
    let mut reply = Reply::refusal(&refusal);
    // What a client still sends over HTTP/2, above all trailers, is held for as long as it leaves the answer waiting. One without words
    // waits for no window.
    if session.req_header().version == Version::HTTP_2 && !session.is_body_done() {
        reply.body = Bytes::new();
    }
    context.refuse(refusal);
    context.answered(reply.status, Body::Unchanged);
    write(session, &reply).await
}

/// `request_filter`, `proxy_upstream_filter`: the answer to a request that fails before it is sent anywhere. The client's
/// connection is kept.
pub(crate) async fn trouble(session: &mut Session, context: &mut Context, trouble: Trouble) -> Result<()> {
    let reply = Reply::trouble(&trouble, session, context);
    fails(session, context, trouble, &reply).await
}

/// The same with status and header alone, which wait for no window of HTTP/2.
pub(crate) async fn trouble_without_words(
    session: &mut Session,
    context: &mut Context,
    trouble: Trouble,
) -> Result<()> {
    let reply = Reply { body: Bytes::new(), ..Reply::trouble(&trouble, session, context) };
    fails(session, context, trouble, &reply).await
}

async fn fails(session: &mut Session, context: &mut Context, trouble: Trouble, reply: &Reply) -> Result<()> {
    context.fail(Some(trouble));
    context.answered(reply.status, Body::Unchanged);
    write(session, reply).await
}

/// `fail_to_proxy`: the answer, if the client can still have one. The client's own faults need none.
pub(crate) async fn failure(session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
    let storage = context.if_admitted().and_then(|admitted| admitted.attempts.storage());
    let trouble = Trouble::of(error, storage.map(|storage| storage.host()));
    let mut error_code = 0;
    if session.response_written().is_none()
        && let Some(trouble) = &trouble
    {
        let reply = Reply::trouble(trouble, session, context);
        // Pingora ends the connection after a failure, and the client must not send its next request on it.
        session.set_keepalive(None);
        context.answered(reply.status, Body::Unchanged);
        if write(session, &reply).await.is_ok() {
            error_code = reply.status.as_u16();
        }
    }
    context.fail(trouble);
    FailToProxy { error_code, can_reuse_downstream: false }
}

/// Writes the answer; to a HEAD without its body, but with its length.
async fn write(session: &mut Session, reply: &Reply) -> Result<()> {
    let mut response = ResponseHeader::build(reply.status, Some(8))?;
    if reply.status == StatusCode::METHOD_NOT_ALLOWED {
        response.insert_header(header::ALLOW, "GET, HEAD")?;
    }
    if let Some(seconds) = reply.retry_after {
        response.insert_header(header::RETRY_AFTER, seconds.to_string())?;
    }
    if let Some(correlation) = &reply.correlation {
        response.insert_header(&CORRELATION_ID, correlation)?;
    }
    send(session, response, reply.body.clone()).await
}

async fn send(session: &mut Session, mut response: ResponseHeader, body: Bytes) -> Result<()> {
    framing::last_of_process(session);
    response.insert_header(API_VERSION_2.0, API_VERSION_2.1)?;
    response.insert_header(header::CONTENT_TYPE, "application/json")?;
    response.insert_header(header::CONTENT_LENGTH, body.len().to_string())?;
    let is_bare = body.is_empty() || session.req_header().method == http::Method::HEAD;
    // Whoever does not take the answer, it is the client: Pingora's error does not say so.
    session.write_response_header(Box::new(response), is_bare).await.map_err(|error| error.into_down())?;
    if !is_bare {
        session.write_response_body(Some(body), true).await.map_err(|error| error.into_down())?;
    }
    Ok(())
}
