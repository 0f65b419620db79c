//! Answers to what never becomes a request: written straight to the connection, which then ends.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::access::{Denial, Reason};
use crate::load::Load;
use crate::load::opening::RefusedProxyHeader;
use crate::peer::Peer;
use crate::proxy;
use oci::error::{Code, Refusal};

/// A client that is refused has this long to read the answer and to close.
const LINGER: Duration = Duration::from_secs(1);
/// What is still read of such a client. To close with bytes unread would reset the connection, and the client might lose
/// the answer.
const MAX_LINGER: usize = 256 << 10;

/// Why there is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRequest {
    /// The first bytes are not HTTP/1's.
    Malformed,
    /// The same behind TLS.
    NotHttp,
    /// The header is larger than its limit.
    TooLarge,
    /// It breaks another rule of HTTP, for Pingora, which has answered.
    Invalid,
    /// It has more fields than HTTP/1 may have.
    TooManyFields,
    /// One that came when as many bytes of others were held as may be.
    NoRoom,
    /// The header has not ended in time.
    TooSlow,
    /// As many connections as there may be are open.
    TooManyConnections,
    /// The client may not pull, or has too many connections open.
    Denied(Denial),
    /// A header of the PROXY protocol, or what came in place of one.
    ProxyHeader(RefusedProxyHeader),
    /// The first bytes are not TLS's, on a listener that speaks nothing else.
    NotTls,
}

impl NoRequest {
    /// The answer's status and error body.
    pub(crate) fn refusal(self) -> Refusal {
        let (status, code, message) = match self {
            Self::Malformed => {
                (StatusCode::BAD_REQUEST, Code::Unsupported, "not an HTTP request: this port speaks plain HTTP, no TLS")
            }
            Self::NotHttp => (StatusCode::BAD_REQUEST, Code::Unsupported, "not an HTTP request"),
            Self::Invalid => (
                StatusCode::BAD_REQUEST,
                Code::Unsupported,
                "the header is no valid one of HTTP: a field of it is malformed, or two of its parts contradict each other",
            ),
            Self::TooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Code::Unsupported,
                "the header is larger than limits.header_size",
            ),
            Self::TooManyFields => (StatusCode::BAD_REQUEST, Code::Unsupported, "the header has too many fields"),
            Self::NoRoom => {
                (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "too many long headers are held at once")
            }
            Self::TooSlow => {
                (StatusCode::REQUEST_TIMEOUT, Code::Unsupported, "the header has not ended within limits.header_time")
            }
            Self::TooManyConnections => {
                (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "too many connections are open")
            }
            Self::Denied(denial) => {
                let (status, code, _) = denial.answer();
                return Refusal::new(status, code, denial.to_string());
            }
            Self::ProxyHeader(why) => proxy_header(why),
            Self::NotTls => (StatusCode::BAD_REQUEST, Code::Unsupported, "this port speaks TLS: use https"),
        };
        Refusal::new(status, code, message)
    }

    /// What a header that is refused counts as.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::TooLarge | Self::NoRoom => Reason::HeaderSize,
            Self::TooSlow => Reason::HeaderTime,
            _ => Reason::Malformed,
        }
    }

    fn answer(self) -> Vec<u8> {
        let refusal = self.refusal();
        let (status, body) = (refusal.status(), refusal.body());
        let retry = if status == StatusCode::SERVICE_UNAVAILABLE { "Retry-After: 1\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {} {}\r\nDate: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{retry}Connection: close\r\n\r\n",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            httpdate::fmt_http_date(SystemTime::now()),
            body.len(),
        );
        [head.into_bytes(), body].concat()
    }

    /// What a client of TLS understands in place of the answer: a fatal alert (RFC 8446 section 6).
    fn alert(self) -> [u8; 7] {
        const ACCESS_DENIED: u8 = 49;
        const INTERNAL_ERROR: u8 = 80;
        let why = match self {
            Self::Denied(denial) if denial.reason() != Reason::Connections => ACCESS_DENIED,
            // Where there are too many connections it may come again, so it is not told that it has no access.
            _ => INTERNAL_ERROR,
        };
        // A record of an alert, of the version that all clients read, with two bytes: fatal, and why.
        [21, 3, 3, 0, 2, 2, why]
    }
}

fn proxy_header(why: RefusedProxyHeader) -> (StatusCode, Code, &'static str) {
    let (status, message) = match why {
        RefusedProxyHeader::Untrusted => (
            StatusCode::BAD_REQUEST,
            "a PROXY protocol header that this listener does not take from this sender: its proxy_protocol says from whom",
        ),
        RefusedProxyHeader::Missing => (
            StatusCode::BAD_REQUEST,
            "no PROXY protocol header, which every connection from proxy_protocol.trusted begins with",
        ),
        RefusedProxyHeader::Malformed => (StatusCode::BAD_REQUEST, "the PROXY protocol header cannot be read"),
        RefusedProxyHeader::TooLong => (StatusCode::BAD_REQUEST, "the PROXY protocol header is larger than its limit"),
        RefusedProxyHeader::TooSlow => (StatusCode::REQUEST_TIMEOUT, "the PROXY protocol header has not ended in time"),
    };
    (status, Code::Unsupported, message)
}

/// Counts a header that is answered without a body, and logs it.
pub(super) fn tell_bodiless(load: &Load, client: Option<SocketAddr>, peer: Option<&Peer>, why: NoRequest) {
    load.refuse_header(why.reason());
    proxy::log_refused_bodiless(client, peer, &why.refusal());
}

/// Answers and ends the connection, which takes [`LINGER`] at most.
pub(crate) async fn refuse(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), why: NoRequest) {
    end_with(stream, &why.answer()).await;
}

/// The same, but waits for what the client has to say first: one that gets an answer before it has sent its request may not
/// take it for one. Takes twice [`LINGER`] at most.
pub(crate) async fn refuse_after_first_bytes(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), why: NoRequest) {
    if says_something(stream).await {
        refuse(stream, why).await;
    }
}

/// Ends the connection with an alert in place of a handshake. If it `waits` for the client's hello, it takes twice [`LINGER`] at
/// most.
pub(crate) async fn alert(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), why: NoRequest, waits: bool) {
    if !waits || says_something(stream).await {
        end_with(stream, &why.alert()).await;
    }
}

/// Whether the client has sent a byte within [`LINGER`].
async fn says_something(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    matches!(tokio::time::timeout(LINGER, stream.read(&mut [0; 1])).await, Ok(Ok(1..)))
}

async fn end_with(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), answer: &[u8]) {
    let ended = async {
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut *stream).take(MAX_LINGER as u64), &mut tokio::io::sink()).await
    };
    // It fails if the client has left, and then nobody misses the answer.
    let _ = tokio::time::timeout(LINGER, ended).await;
}

/// Answers as far as that can be done without waiting, and closes the connection.
pub(crate) fn refuse_at_once(stream: impl AsyncWrite + Unpin, why: NoRequest) {
    write_at_once(stream, &why.answer());
}

/// The same by an alert.
pub(crate) fn alert_at_once(stream: impl AsyncWrite + Unpin, why: NoRequest) {
    write_at_once(stream, &why.alert());
}

fn write_at_once(mut stream: impl AsyncWrite + Unpin, answer: &[u8]) {
    let _ = Pin::new(&mut stream).poll_write(&mut Context::from_waker(Waker::noop()), answer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_complete_http_response() {
        for (why, status) in [
            (NoRequest::Malformed, 400),
            (NoRequest::TooSlow, 408),
            (NoRequest::TooLarge, 431),
            (NoRequest::NoRoom, 503),
            (NoRequest::TooManyConnections, 503),
            (NoRequest::ProxyHeader(RefusedProxyHeader::Untrusted), 400),
            (NoRequest::ProxyHeader(RefusedProxyHeader::TooSlow), 408),
            (NoRequest::NotTls, 400),
        ] {
            let answer = why.answer();
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut parsed = httparse::Response::new(&mut headers);
            let Ok(httparse::Status::Complete(length)) = parsed.parse(&answer) else { panic!("{why:?}") };
            assert_eq!(parsed.code, Some(status));
            let promised = parsed.headers.iter().find(|header| header.name == "Content-Length").expect("a length");
            assert_eq!(promised.value, (answer.len() - length).to_string().as_bytes());
        }
    }
}
