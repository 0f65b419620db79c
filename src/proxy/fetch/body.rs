//! The body of an answer, read whole within bounds.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora_core::protocols::http::v1::client::HttpSession;
use tokio::time::timeout;

use crate::proxy::relay::framing;
use crate::proxy::room::Share;

/// In one piece from the start, if the answer says its length: all manifests but a few, and most lists. A longer one grows
/// with what comes, so that no answer takes memory by what it announces.
const FIRST_PIECE: usize = 64 << 10;
/// The body of an answer, in all.
pub(crate) const BODY_LIMIT: Duration = Duration::from_secs(20);

/// A body, as far as it has been read.
pub(crate) enum Body {
    /// To its end, in as much memory as it is long.
    Whole(Bytes),
    /// The connection broke, or the time was up.
    BrokeOff,
    /// It is longer than it may be.
    TooLarge,
    /// Too many bytes are held.
    NoRoom,
}

/// Reads a body of `limit` bytes at most, which takes its room until it is dropped.
pub(crate) async fn read(upstream: &mut HttpSession, response: &ResponseHeader, limit: usize) -> Body {
    let announced = framing::length(response);
    if announced.is_some_and(|announced| announced > limit as u64) {
        return Body::TooLarge;
    }
    let first = announced.and_then(|announced| usize::try_from(announced).ok()).unwrap_or_default().min(FIRST_PIECE);
    let (mut body, mut share) = (BytesMut::with_capacity(first), Share::default());
    let read = async {
        loop {
            match upstream.read_body_ref().await {
                Ok(Some(part)) if body.len() + part.len() > limit => return Err(Body::TooLarge),
                Ok(Some(part)) if !share.grow(body.len() + part.len()) => return Err(Body::NoRoom),
                Ok(Some(part)) => {
                    body.extend_from_slice(part);
                    // It may have doubled.
                    if !share.grow(body.capacity()) {
                        return Err(Body::NoRoom);
                    }
                }
                Ok(None) => return Ok(()),
                Err(_) => return Err(Body::BrokeOff),
            }
        }
    };
    if let Err(end) = timeout(BODY_LIMIT, read).await.unwrap_or(Err(Body::BrokeOff)) {
        return end;
    }
    // That of a 304 is the length of what has not changed (RFC 9110 section 8.6).
    let is_short = announced.is_some_and(|announced| announced != body.len() as u64);
    if is_short && response.status != StatusCode::NOT_MODIFIED {
        return Body::BrokeOff;
    }
    Body::Whole(share.hold(exact(body)))
}

/// What is kept is counted by its length.
fn exact(body: BytesMut) -> Bytes {
    if body.len() == body.capacity() { body.freeze() } else { Bytes::copy_from_slice(&body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_takes_no_more_than_it_is_long() {
        let mut grown = BytesMut::with_capacity(1000);
        grown.extend_from_slice(b"ten bytes.");
        let kept = exact(grown).try_into_mut().expect("nobody else has it");
        assert_eq!((kept.len(), kept.capacity()), (10, 10));
    }
}
