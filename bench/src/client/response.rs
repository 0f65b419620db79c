//! A response, whose body is read within limits.

use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use oci::quote::{quoted, registry_error};
use tokio::time::timeout;

use super::connector::Sender;
use super::idle::{Exchange, Idle};
use super::request::Request;
use crate::failure::{Failure, with_causes};
use crate::origin::Origin;

/// Between two parts of a body.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// The body of an error or a redirect; real ones have hundreds of bytes.
const MAX_SMALL_BODY: u64 = 64 << 10;

/// A response whose body is still to come.
pub struct Response<'p> {
    idle: &'p Idle,
    origin: Origin,
    sender: Sender,
    body: Incoming,
    request: String,
    /// The status.
    pub status: StatusCode,
    headers: HeaderMap,
    /// When the request was sent, on an open connection.
    pub sent: Instant,
    received: Instant,
}

impl<'p> Response<'p> {
    pub(super) fn new(
        idle: &'p Idle,
        request: &Request<'_>,
        sender: Sender,
        response: http::Response<Incoming>,
        sent: Instant,
    ) -> Self {
        let received = Instant::now();
        let (head, body) = response.into_parts();
        let (origin, request) = (request.origin.clone(), request.name());
        Self { idle, origin, sender, body, request, status: head.status, headers: head.headers, sent, received }
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// From the request to the response's header.
    pub fn latency(&self) -> Duration {
        self.received - self.sent
    }

    /// What is wrong with it, as a sentence that begins with the request.
    pub fn failure(&self, what: &str) -> Failure {
        Failure::new(format!("{}: {what}", self.request))
    }

    /// The failure that an unexpected status is, with the code and message of the server.
    pub async fn into_failure(mut self) -> Failure {
        let mut body = Vec::new();
        let length = self.read_parts(MAX_SMALL_BODY, |part| body.extend_from_slice(part)).await;
        self.record(length.unwrap_or_default());
        let mut sentence = format!("{}: {}", self.request, self.status.as_u16());
        let (code, message) = registry_error(&body, &[]);
        let storage = self.header("x-ms-error-code").and_then(|code| quoted(code, &[]));
        // A proxy passes a registry's 429 on as 503.
        let throttled = self.status == StatusCode::TOO_MANY_REQUESTS || code.as_deref() == Some("TOOMANYREQUESTS");
        if let Some(code) = code.or(storage) {
            sentence = format!("{sentence} {code}");
        }
        if let Some(message) = message {
            sentence = format!("{sentence}: {message}");
        }
        Failure { sentence, throttled }
    }

    /// Reads the body to its end, part by part, returns its length, and keeps the connection for the next request.
    pub async fn read(mut self, limit: u64, take: impl FnMut(&[u8])) -> Result<u64, Failure> {
        let length = self.read_parts(limit, take).await?;
        self.record(length);
        self.idle.give_back(self.origin, self.sender);
        Ok(length)
    }

    /// Reads a small body, such as a redirect's, and ignores it.
    pub async fn discard(self) -> Result<(), Failure> {
        self.read(MAX_SMALL_BODY, |_| {}).await.map(|_| ())
    }

    fn record(&self, bytes: u64) {
        self.idle.record(|| Exchange {
            origin: self.origin.clone(),
            request: self.request.clone(),
            status: self.status,
            bytes,
            took: self.sent.elapsed(),
        });
    }

    async fn read_parts(&mut self, limit: u64, mut take: impl FnMut(&[u8])) -> Result<u64, Failure> {
        let mut length = 0;
        loop {
            let frame = match timeout(READ_LIMIT, self.body.frame()).await {
                Ok(None) => return Ok(length),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(cause))) => {
                    return Err(self.failure(&format!("the body broke off: {}", with_causes(&cause))));
                }
                Err(_) => return Err(self.failure(&format!("the body stopped for {} s", READ_LIMIT.as_secs()))),
            };
            if let Some(part) = frame.data_ref() {
                length += part.len() as u64;
                if length > limit {
                    return Err(self.failure(&format!("the body is longer than {limit} bytes")));
                }
                take(part);
            }
        }
    }
}
