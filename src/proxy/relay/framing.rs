//! How the end of a body is told to the client.

use http::{HeaderValue, Version, header};
use pingora::http::ResponseHeader;
use pingora_core::Result;
use pingora_proxy::Session;

/// What an answer is whose end nobody can tell.
const UNKNOWN_CODING: &str = "its Transfer-Encoding is another one than chunked";
/// What an answer is whose end a client may see elsewhere than this proxy.
const UNCLEAR_LENGTH: &str = "its Content-Length is not one plain number";

/// Why it cannot be told where the body ends; `None` where it can. No request of ours takes another transfer coding than chunked, and of
/// an unknown one the end of the connection would be the end of the body (RFC 9112 section 6.3), which a server that keeps it open never
/// sends. A length that is a list of the same number may be refused (RFC 9110 section 8.6), and no server here sends one.
pub(crate) fn unclear(response: &ResponseHeader) -> Option<&'static str> {
    let mut codings = response.headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_other = |coding: &HeaderValue| !coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if codings.next().is_some_and(is_other) || codings.next().is_some() {
        return Some(UNKNOWN_CODING);
    }
    let mut lengths = response.headers.get_all(header::CONTENT_LENGTH).iter();
    let is_unclear =
        lengths.next().is_some_and(|length| !is_plain_number(length.as_bytes())) || lengths.next().is_some();
    is_unclear.then_some(UNCLEAR_LENGTH)
}

/// Digits, and none before them that says nothing: some read a number with a leading zero as octal.
fn is_plain_number(digits: &[u8]) -> bool {
    match digits {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// A client of HTTP/1.0 cannot read chunks (RFC 9112 section 6.1): without a length its body ends with the connection.
pub(crate) fn end_with_connection(session: &mut Session, response: &mut ResponseHeader) {
    if session.req_header().version < Version::HTTP_11 && !response.headers.contains_key(header::CONTENT_LENGTH) {
        response.remove_header(&header::TRANSFER_ENCODING);
        session.set_keepalive(None);
    }
}

/// While the process ends, an answer is the last of its connection and says so, also if the request came before that.
pub(crate) fn last_of_process(session: &mut Session) {
    if session.is_process_shutting_down() {
        session.set_keepalive(None);
    }
}

/// The length of a body, as far as its header says it.
pub(crate) fn length(response: &ResponseHeader) -> Option<u64> {
    if response.headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    response.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Frames a body that may be replaced, so that its length is not known, in the way that the client can read.
pub(crate) fn without_length(session: &mut Session, response: &mut ResponseHeader) -> Result<()> {
    response.remove_header(&header::TRANSFER_ENCODING);
    response.remove_header(&header::CONTENT_LENGTH);
    let request = session.req_header();
    match request.version {
        _ if request.method == http::Method::HEAD => Ok(()),
        // HTTP/2 frames its bodies itself.
        Version::HTTP_2 => Ok(()),
        Version::HTTP_11 => response.insert_header(header::TRANSFER_ENCODING, "chunked"),
        _ => {
            session.set_keepalive(None);
            Ok(())
        }
    }
}
