//! Makes an answer of what is kept: in the client's names, whole or a range of it, or that it has not changed.

use std::fmt::{self, Write as _};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use oci::condition::{self, Range};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::Result;
use pingora_proxy::Session;

use crate::answer::CORRELATION_ID;
use crate::cache::Content;
use crate::proxy::cache_status::{CACHE_STATUS, CacheStatus};
use crate::proxy::context::{Admitted, Body, Context};
use crate::proxy::relay::{self, framing, names};
use crate::proxy::{fail, fetch};

/// Headers that are made here, beside those of the content.
const MADE: usize = 5;
/// Their values; longer ones find room as well.
const MADE_BYTES: usize = 96;

/// Over HTTP/2 the time limit of a write is for one piece, whose size is what a client may be behind with; nearly all manifests are
/// shorter.
const PIECE: usize = 64 << 10;

/// Sends it.
pub(super) async fn content(
    session: &mut Session,
    context: &mut Context,
    content: &Content,
    status: &CacheStatus,
) -> Result<()> {
    let request = session.req_header();
    let (mut response, body) = match content.digest {
        Some(_) => with_digest(request, content, status),
        None => other(request, context.admitted()?, content, status)?,
    };
    // ACR's support asks for it. What was kept has none, because the call was another request's.
    if let Some(correlation) = context.flown().and_then(|trip| trip.correlation.clone()) {
        response.insert_header(&CORRELATION_ID, correlation)?;
    }
    context.registry_answers(content.status, &response.headers, &content.body);
    context.answered(response.status, Body::Unchanged);
    let is_bodiless = request.method == Method::HEAD || response.status == StatusCode::NOT_MODIFIED;
    let is_end = is_bodiless || body.is_empty();
    framing::last_of_process(session);
    session.write_response_header(Box::new(response), is_end).await.map_err(|error| error.into_down())?;
    let mut rest = body;
    while !is_end && !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(PIECE));
        context.count_body(piece.len());
        let piece = relay::pace(session, piece, context);
        session.write_response_body(Some(piece), rest.is_empty()).await.map_err(|error| error.into_down())?;
    }
    Ok(())
}

/// A manifest or a configuration, or a part of it, or that it has not changed.
pub(crate) fn with_digest(request: &RequestHeader, content: &Content, status: &CacheStatus) -> (ResponseHeader, Bytes) {
    let mut made = Made::of(content, status);
    let etag = content.header(&header::ETAG);
    if condition::is_known(&request.headers, etag, content.digest.as_deref().unwrap_or_default()) {
        made.headers.remove(header::CONTENT_TYPE);
        return (fetch::response(StatusCode::NOT_MODIFIED, made.headers), Bytes::new());
    }
    let length = content.body.len();
    let (code, body) = match condition::range(&request.method, &request.headers, length, etag) {
        Range::Whole => (content.status, content.body.clone()),
        Range::Part(part) => {
            made.add(header::CONTENT_RANGE, format_args!("bytes {}-{}/{length}", part.start, part.end - 1));
            (StatusCode::PARTIAL_CONTENT, content.body.slice(part))
        }
        Range::Unsatisfiable => {
            made.add(header::CONTENT_RANGE, format_args!("bytes */{length}"));
            made.headers.remove(header::CONTENT_TYPE);
            (StatusCode::RANGE_NOT_SATISFIABLE, Bytes::new())
        }
    };
    made.add(header::CONTENT_LENGTH, format_args!("{}", body.len()));
    (fetch::response(code, made.headers), body)
}

/// A list, a redirect or an error.
fn other(
    request: &RequestHeader,
    admitted: &Admitted,
    content: &Content,
    status: &CacheStatus,
) -> Result<(ResponseHeader, Bytes)> {
    let code = fail::passed_on(content.status, admitted.target.endpoint(), admitted.destination.on_failure);
    let mut response = fetch::response(code, Made::of(content, status).headers);
    let body = names::whole(request, &mut response, &content.body, admitted)?.unwrap_or_else(|| content.body.clone());
    response.insert_header(header::CONTENT_LENGTH, body.len())?;
    Ok((response, body))
}

/// The headers of an answer while they are made. The values that are made here share one piece of memory.
struct Made {
    headers: HeaderMap,
    values: BytesMut,
}

impl Made {
    /// Those of the content, and what the cache has to say.
    fn of(content: &Content, status: &CacheStatus) -> Self {
        let mut made = Self { headers: content.header_map(MADE), values: BytesMut::with_capacity(MADE_BYTES) };
        if let Some(age) = status.age() {
            made.add(header::AGE, format_args!("{age}"));
        }
        made.add(CACHE_STATUS, format_args!("{status}"));
        made
    }

    fn add(&mut self, name: HeaderName, value: fmt::Arguments<'_>) {
        // Neither fails: this proxy's words and numbers are valid in a header, and the buffer grows.
        if self.values.write_fmt(value).is_ok()
            && let Ok(value) = HeaderValue::from_maybe_shared(self.values.split().freeze())
        {
            self.headers.insert(name, value);
        }
    }
}
