//! Makes an answer of what is kept: in the client's names, whole or a range of it, or that it has not changed.

use bytes::Bytes;
use http::{Method, StatusCode, header};
use oci::condition::{self, Range};
use pingora::http::ResponseHeader;
use pingora_core::Result;
use pingora_proxy::Session;

use crate::answer::CORRELATION_ID;
use crate::cache::Content;
use crate::proxy::cache_status::{CACHE_STATUS, CacheStatus};
use crate::proxy::context::{Body, Context};
use crate::proxy::relay::names;
use crate::proxy::{fail, fetch};

/// Headers that are made here, beside those of the content.
const MADE: usize = 5;

/// Sends it.
pub(super) async fn content(
    session: &mut Session,
    context: &mut Context,
    content: &Content,
    status: &CacheStatus,
) -> Result<()> {
    let (response, body) = make(session, context, content, status)?;
    context.answered(response.status, Body::Unchanged);
    let is_bodiless = session.req_header().method == Method::HEAD || response.status == StatusCode::NOT_MODIFIED;
    let is_end = is_bodiless || body.is_empty();
    session.write_response_header(Box::new(response), is_end).await.map_err(|error| error.into_down())?;
    if !is_end {
        context.count_body(body.len());
        session.write_response_body(Some(body), true).await.map_err(|error| error.into_down())?;
    }
    Ok(())
}

fn make(
    session: &Session,
    context: &mut Context,
    content: &Content,
    status: &CacheStatus,
) -> Result<(ResponseHeader, Bytes)> {
    let request = session.req_header();
    // ACR's support asks for it. What was kept has none, because the call was another request's.
    let correlation = context.flown().and_then(|trip| trip.correlation.clone());
    let admitted = &*context.admitted()?;
    let code = fail::passed_on(content.status, admitted.target.endpoint(), admitted.destination.on_failure);
    let mut response = fetch::response(content, MADE)?;
    response.set_status(code)?;
    if let Some(correlation) = correlation {
        response.insert_header(&CORRELATION_ID, correlation)?;
    }
    if let Some(age) = status.age() {
        response.insert_header(header::AGE, age)?;
    }
    if let Some(value) = status.to_header() {
        response.insert_header(&CACHE_STATUS, value)?;
    }
    if content.digest.is_none() {
        let body =
            names::whole(request, &mut response, &content.body, admitted)?.unwrap_or_else(|| content.body.clone());
        response.insert_header(header::CONTENT_LENGTH, body.len())?;
        return Ok((response, body));
    }
    let etag = content.header(&header::ETAG);
    if condition::is_known(&request.headers, etag, content.digest.as_deref().unwrap_or_default()) {
        response.set_status(StatusCode::NOT_MODIFIED)?;
        response.remove_header(&header::CONTENT_TYPE);
        return Ok((response, Bytes::new()));
    }
    let body = match condition::range(&request.method, &request.headers, content.body.len(), etag) {
        Range::Whole => content.body.clone(),
        Range::Part(part) => {
            let value = format!("bytes {}-{}/{}", part.start, part.end - 1, content.body.len());
            response.set_status(StatusCode::PARTIAL_CONTENT)?;
            response.insert_header(header::CONTENT_RANGE, value)?;
            content.body.slice(part)
        }
        Range::Unsatisfiable => {
            response.set_status(StatusCode::RANGE_NOT_SATISFIABLE)?;
            response.insert_header(header::CONTENT_RANGE, format!("bytes */{}", content.body.len()))?;
            response.remove_header(&header::CONTENT_TYPE);
            Bytes::new()
        }
    };
    response.insert_header(header::CONTENT_LENGTH, body.len())?;
    Ok((response, body))
}
