//! The body of an answer, read whole within bounds.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora_core::protocols::http::v1::client::HttpSession;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::proxy::relay::framing;

/// Bytes of bodies that all flights hold together, in KiB: as many as the default of the whole cache.
const MAX_IN_FLIGHT: usize = 64 << 10;
/// In one piece from the start, if the answer says its length: all manifests but a few, and most lists. A longer one grows
/// with what comes, so that no answer takes memory by what it announces.
const FIRST_PIECE: usize = 64 << 10;
/// The body of an answer, in all.
const BODY_LIMIT: Duration = Duration::from_secs(20);

static IN_FLIGHT: Semaphore = Semaphore::const_new(MAX_IN_FLIGHT);

/// A body, as far as it has been read.
pub(crate) enum Body {
    /// To its end, in as much memory as it is long.
    Whole(Bytes),
    /// The connection broke, or the time was up.
    BrokeOff,
    /// It is longer than it may be.
    TooLarge,
    /// Too many bytes are in flight.
    NoRoom,
}

/// Reads a body of `limit` bytes at most. Its bytes count as in flight until it is here.
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
                Ok(Some(part)) => body.extend_from_slice(part),
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
    Body::Whole(exact(body))
}

/// What is kept is counted by its length.
fn exact(body: BytesMut) -> Bytes {
    if body.len() == body.capacity() { body.freeze() } else { Bytes::copy_from_slice(&body) }
}

/// What a body takes of [`IN_FLIGHT`].
#[derive(Default)]
struct Share {
    permit: Option<SemaphorePermit<'static>>,
}

impl Share {
    /// Takes as much as this many bytes need. False if there is not that much left.
    fn grow(&mut self, bytes: usize) -> bool {
        let held = self.permit.as_ref().map_or(0, SemaphorePermit::num_permits);
        let more = u32::try_from(bytes.div_ceil(1024).saturating_sub(held)).unwrap_or(u32::MAX);
        if more == 0 {
            return true;
        }
        let Ok(permit) = IN_FLIGHT.try_acquire_many(more) else { return false };
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_takes_its_share_by_its_length_whatever_parts_it_comes_in() {
        let mut share = Share::default();
        for (bytes, held) in [(1, 1), (2, 1), (1024, 1), (1025, 2), (4 << 20, 4096), (10, 4096)] {
            assert!(share.grow(bytes));
            assert_eq!(share.permit.as_ref().map(SemaphorePermit::num_permits), Some(held), "{bytes}");
        }
        assert!(!share.grow((MAX_IN_FLIGHT + 1) << 10), "more than there is");
        assert_eq!(share.permit.as_ref().map(SemaphorePermit::num_permits), Some(4096));
    }

    #[test]
    fn what_is_kept_takes_no_more_than_it_is_long() {
        let mut grown = BytesMut::with_capacity(1000);
        grown.extend_from_slice(b"ten bytes.");
        let kept = exact(grown).try_into_mut().expect("nobody else has it");
        assert_eq!((kept.len(), kept.capacity()), (10, 10));
    }
}
