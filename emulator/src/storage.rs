//! Blob storage: the addresses that a registry redirects to, and the blobs behind them.
//!
//! Sources: Azure Storage's REST reference (get-blob, status-and-error-codes); for the addresses see `sas` and
//! `data_endpoint`. What a data endpoint answers is inferred to be what storage does.

mod data_endpoint;
mod sas;

use bytes::Bytes;
use hyper::Method;

use crate::answer::Answer;
use crate::clock::{http_date, iso_date};
use crate::random;
use crate::request::Request;
use crate::state::State;
use crate::token::seconds;

/// The address of a blob, for as long as [`crate::Options::redirect_lifetime`]. `se` is exactly that after `Date`, as it
/// was in every recording.
pub(crate) fn location(state: &State, repository: &str, digest: &str) -> String {
    let options = &state.options;
    let scheme = if options.storage_tls { "https" } else { "http" };
    let port = options.storage_port.unwrap_or_else(|| state.storage_addr.port());
    let expiry = state.clock.now() + seconds(options.redirect_lifetime);
    let target = if options.data_endpoints {
        data_endpoint::target(state, repository, digest, expiry)
    } else {
        sas::target(state, digest, expiry)
    };
    format!("{scheme}://{}:{port}{target}", options.storage_host)
}

pub(crate) fn answer(state: &State, request: &Request) -> Answer {
    dressed(served(state, request).unwrap_or_else(|refusal| refusal.answer(state)))
}

/// The error answer for a status that an injected fault asks for.
pub(crate) fn failure(state: &State, status: u16) -> Answer {
    let (code, message) = match status {
        403 => AUTHENTICATION_FAILED,
        404 => ("BlobNotFound", "The specified blob does not exist."),
        500 => ("InternalError", "The server encountered an internal error. Please retry the request."),
        503 => ("ServerBusy", "The server is currently unable to receive requests. Please retry your request."),
        _ => ("InvalidInput", "One of the request inputs is not valid."),
    };
    dressed(Refusal { status, code, message }.answer(state))
}

const AUTHENTICATION_FAILED: (&str, &str) = (
    "AuthenticationFailed",
    "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature.",
);

struct Refusal {
    status: u16,
    code: &'static str,
    message: &'static str,
}

impl Refusal {
    fn new(status: u16, (code, message): (&'static str, &'static str)) -> Refusal {
        Refusal { status, code, message }
    }

    fn answer(&self, state: &State) -> Answer {
        let Refusal { status, code, message } = self;
        Answer::new(*status)
            .header("Content-Type", "application/xml")
            .header("x-ms-error-code", *code)
            .body(format!(
                "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{message}\nRequestId:{}\nTime:{}</Message></Error>",
                random::guid(),
                iso_date(state.clock.now()),
            ))
    }
}

fn dressed(answer: Answer) -> Answer {
    answer
        .header("Server", "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0")
        .header("x-ms-request-id", random::guid())
        .header("x-ms-version", sas::VERSION)
}

fn served(state: &State, request: &Request) -> Result<Answer, Refusal> {
    if !request.is_read() {
        let words = ("UnsupportedHttpVerb", "The resource doesn't support specified Http Verb.");
        return Err(Refusal::new(405, words));
    }
    // The signature is the only credential; a forwarded one spoils the request (Azure/acr#217).
    if request.header("authorization").is_some() {
        let words = (
            "InvalidAuthenticationInfo",
            "Authentication information is not given in the correct format. Check the value of Authorization header.",
        );
        return Err(Refusal::new(400, words));
    }
    let digest =
        if state.options.data_endpoints { data_endpoint::digest(state, request) } else { sas::digest(state, request) };
    let digest = digest.ok_or_else(|| Refusal::new(403, AUTHENTICATION_FAILED))?;
    let blob = (state.store.blob(&digest))
        .ok_or_else(|| Refusal::new(404, ("BlobNotFound", "The specified blob does not exist.")))?;
    let length = blob.len();
    let answer = Answer::new(200)
        .header("Content-Type", "application/octet-stream")
        .header("Accept-Ranges", "bytes")
        .header("ETag", "\"0x8DB02F7A6C8F1E2\"")
        .header("Last-Modified", http_date(1_675_105_053))
        .header("x-ms-blob-type", "BlockBlob")
        .header("x-ms-lease-state", "available")
        .header("x-ms-lease-status", "unlocked")
        .header("x-ms-server-encrypted", "true");
    if request.method == Method::HEAD {
        return Ok(answer.header("Content-Length", length.to_string()));
    }
    let range = request.header("x-ms-range").or_else(|| request.header("range"));
    match range.and_then(|range| Range::parse(range, length)) {
        None => Ok(answer.body(blob)),
        Some(Range::Part { first, last }) => Ok(part(answer, &blob, first, last)),
        Some(Range::Outside) => {
            let words = ("InvalidRange", "The range specified is invalid for the current size of the resource.");
            Err(Refusal::new(416, words))
        }
    }
}

fn part(mut answer: Answer, blob: &Bytes, first: usize, last: usize) -> Answer {
    answer.status = 206;
    answer.header("Content-Range", format!("bytes {first}-{last}/{}", blob.len())).body(blob.slice(first..=last))
}

enum Range {
    Part { first: usize, last: usize },
    Outside,
}

impl Range {
    /// `bytes=a-` and `bytes=a-b`, the two forms that Azure Storage knows; others are ignored.
    fn parse(header: &str, length: usize) -> Option<Range> {
        let (first, last) = header.trim().strip_prefix("bytes=")?.split_once('-')?;
        let first: usize = first.parse().ok()?;
        let last = if last.is_empty() { usize::MAX } else { last.parse().ok()? };
        if last < first {
            return None;
        }
        Some(if first >= length { Range::Outside } else { Range::Part { first, last: last.min(length - 1) } })
    }
}
