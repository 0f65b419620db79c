//! Answers that this proxy gives itself.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora_core::Result;
use pingora_proxy::Session;

use oci::error::Refusal;

pub use crate::answer::CORRELATION_ID;

/// The header by which a client knows a registry (distribution specification, "Legacy Docker support HTTP headers").
pub const API_VERSION: (&str, &str) = ("Docker-Distribution-API-Version", "registry/2.0");

/// An answer in the form of the distribution specification's errors.
pub struct Reply {
    status: StatusCode,
    body: Vec<u8>,
    retry_after: Option<u64>,
    correlation: Option<HeaderValue>,
}

impl Reply {
    /// A refusal as it is.
    pub fn refusal(refusal: &Refusal) -> Self {
        Self { status: refusal.status(), body: refusal.body(), retry_after: None, correlation: None }
    }

    /// The same with a `Retry-After` in seconds.
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// The same with the registry's own name for the request, if it had an answer.
    pub fn correlation(self, correlation: Option<HeaderValue>) -> Self {
        Self { correlation, ..self }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

/// `GET /v2/`: yes, this is a registry, and no sign-in is needed.
pub async fn ping(session: &mut Session) -> Result<()> {
    send(session, ResponseHeader::build(StatusCode::OK, Some(4))?, Bytes::from_static(b"{}")).await
}

/// Writes the answer; to a HEAD without its body, but with its length.
pub async fn write(session: &mut Session, reply: &Reply) -> Result<()> {
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
    send(session, response, Bytes::copy_from_slice(&reply.body)).await
}

async fn send(session: &mut Session, mut response: ResponseHeader, body: Bytes) -> Result<()> {
    response.insert_header(API_VERSION.0, API_VERSION.1)?;
    response.insert_header(header::CONTENT_TYPE, "application/json")?;
    response.insert_header(header::CONTENT_LENGTH, body.len().to_string())?;
    let bodiless = session.req_header().method == http::Method::HEAD;
    // Whoever does not take the answer, it is the client: Pingora's error does not say so.
    session.write_response_header(Box::new(response), bodiless).await.map_err(|error| error.into_down())?;
    if !bodiless {
        session.write_response_body(Some(body), true).await.map_err(|error| error.into_down())?;
    }
    Ok(())
}
