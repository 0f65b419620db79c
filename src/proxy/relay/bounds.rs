//! How much of an answer may pass, and how long its body may take. What is read here has bounds of its own.
//!
//! A layer is as long as it is, and may take hours: each read and each write of it has a limit, and the client knows its digest. A
//! document is short, and whoever waits for one that has no end turns to no other host.

use std::time::Duration;

use http::StatusCode;
use oci::manifest::MAX_DOCUMENT;
use pingora::http::ResponseHeader;
use tokio::time::Instant;

use super::framing;
use crate::proxy::CLIENT_WRITE_LIMIT;
use crate::proxy::blob::range::{OTHER_LENGTH, length_of_part};
use crate::proxy::endpoint::Endpoint;
use crate::proxy::fetch::body::BODY_LIMIT;

/// As much as a client's request may have. A registry sends 2 KiB, most of it the signature of a redirect.
const MAX_HEADER: usize = 64 << 10;
/// Four times what this proxy reads of a manifest, a list or an error, for clients that take more than it does.
const MAX_PASSED: u64 = 4 * MAX_DOCUMENT as u64;
/// From the header of a document to its end: as long as a flight reads one, and as a client may take next to nothing of it. A read that
/// gets nothing has a limit of its own, so what drips ends at its first byte after this.
const PASS_LIMIT: Duration = BODY_LIMIT.saturating_add(CLIENT_WRITE_LIMIT);

const LARGE_HEADER: &str = "its header is larger than 64 KiB";
const TOO_LONG: &str = "it is longer than a manifest, a list or an error may be";
const TOO_SLOW: &str = "its body does not come in time";

/// Why a header may not pass; `None` where it may. Many clients take no more, and would blame this proxy.
pub(crate) fn of_header(response: &ResponseHeader) -> Option<&'static str> {
    let bytes: usize = response.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    (bytes > MAX_HEADER).then_some(LARGE_HEADER)
}

/// What is left of the bounds of one body.
pub(crate) struct Bounds {
    /// Of a part, whose place says how long it is: how many bytes are to come.
    part: Option<u64>,
    /// Of a document: how many bytes may come, and until when.
    document: Option<(u64, Instant)>,
}

impl Bounds {
    /// Of the answer with this header. `Err` if that says already that the body is too long.
    pub(crate) fn of(response: &ResponseHeader, endpoint: Endpoint) -> Result<Self, &'static str> {
        let is_layer = endpoint.is_blob() && response.status.is_success();
        let is_part = response.status == StatusCode::PARTIAL_CONTENT;
        if !is_layer && framing::length(response).is_some_and(|length| length > MAX_PASSED) {
            return Err(TOO_LONG);
        }
        Ok(Self {
            part: if is_part { length_of_part(&response.headers) } else { None },
            document: (!is_layer).then(|| (MAX_PASSED, Instant::now() + PASS_LIMIT)),
        })
    }

    /// So many bytes more have come, perhaps the last. `Err` says why they and what follows may not pass.
    pub(crate) fn pass(&mut self, bytes: usize, is_end: bool) -> Result<(), &'static str> {
        let bytes = bytes as u64;
        if let Some(left) = &mut self.part {
            *left = left.checked_sub(bytes).filter(|left| !is_end || *left == 0).ok_or(OTHER_LENGTH)?;
        }
        if let Some((left, until)) = &mut self.document {
            *left = left.checked_sub(bytes).ok_or(TOO_LONG)?;
            if !is_end && Instant::now() > *until {
                return Err(TOO_SLOW);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http::header;
    use tokio::time::sleep;

    use super::*;

    fn response(status: u16, headers: &[(header::HeaderName, &'static str)]) -> ResponseHeader {
        let mut response = ResponseHeader::build(status, None).expect("a status");
        for (name, value) in headers {
            response.insert_header(name, *value).expect("a header");
        }
        response
    }

    /// How it ends if a byte of it comes every four seconds, and after how many seconds.
    async fn dripped(status: u16, endpoint: Endpoint) -> (Result<(), &'static str>, u64) {
        let mut bounds = Bounds::of(&response(status, &[]), endpoint).expect("no length");
        let begun = Instant::now();
        for _ in 0..1000 {
            sleep(Duration::from_secs(4)).await;
            if let Err(why) = bounds.pass(1, false) {
                return (Err(why), begun.elapsed().as_secs());
            }
        }
        (bounds.pass(1, true), begun.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_manifest_that_drips_had_no_end_and_a_layer_may_take_its_time() {
        for (status, endpoint, expected) in [
            (200, Endpoint::Manifest, (Err(TOO_SLOW), 84)),
            (206, Endpoint::Manifest, (Err(TOO_SLOW), 84)),
            (404, Endpoint::Manifest, (Err(TOO_SLOW), 84)),
            (200, Endpoint::Tags, (Err(TOO_SLOW), 84)),
            (404, Endpoint::Blob, (Err(TOO_SLOW), 84)),
            (307, Endpoint::Blob, (Err(TOO_SLOW), 84)),
            (200, Endpoint::Blob, (Ok(()), 4000)),
            (206, Endpoint::Blob, (Ok(()), 4000)),
        ] {
            assert_eq!(dripped(status, endpoint).await, expected, "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_slow_to_take_a_whole_document_gets_its_end() {
        let mut bounds = Bounds::of(&response(200, &[]), Endpoint::Manifest).expect("no length");
        sleep(10 * PASS_LIMIT).await;
        assert_eq!(bounds.pass(1, true), Ok(()));
    }

    #[test]
    fn a_document_without_end_passed_without_end() {
        let announced = |status, endpoint| {
            Bounds::of(&response(status, &[(header::CONTENT_LENGTH, "16777217")]), endpoint).map(drop)
        };
        assert_eq!(announced(200, Endpoint::Manifest), Err(TOO_LONG));
        assert_eq!(announced(500, Endpoint::Blob), Err(TOO_LONG));
        assert_eq!(announced(200, Endpoint::Blob), Ok(()));
        let mut bounds = Bounds::of(&response(200, &[]), Endpoint::Tags).expect("no length");
        let passed = (0..).take_while(|_| bounds.pass(1 << 20, false).is_ok()).count();
        assert_eq!(passed, 16);
    }

    #[test]
    fn a_part_in_chunks_that_is_shorter_or_longer_than_its_place_was_taken_for_whole() {
        for (place, parts, expected) in [
            ("bytes 0-9/100", &[10][..], Ok(())),
            ("bytes 0-9/100", &[5, 5, 0], Ok(())),
            ("bytes 0-9/100", &[5, 0], Err(OTHER_LENGTH)),
            ("bytes 0-9/100", &[20], Err(OTHER_LENGTH)),
            ("bytes 0-9/100", &[5, 6, 0], Err(OTHER_LENGTH)),
            // Several parts: their places are in the body.
            ("", &[60], Ok(())),
        ] {
            let headers = [(header::CONTENT_RANGE, place)];
            let headers = if place.is_empty() { &[][..] } else { &headers };
            let mut bounds = Bounds::of(&response(206, headers), Endpoint::Blob).expect("no length");
            let mut left = parts.len();
            let outcome = parts.iter().try_for_each(|part| {
                left -= 1;
                bounds.pass(*part, left == 0)
            });
            assert_eq!(outcome, expected, "{place} {parts:?}");
        }
    }
}
