//! A deadline for each HTTP/2 frame and header block of a client.
//!
//! A frame that never ends, or a header block that is continued for ever (CONTINUATION), keeps a connection open without a
//! request. The h2 crate bounds the size of each; their time is bounded here, what those of all connections take together, and how
//! many fields a block has.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::fields::Fields;
use super::header::MAX_FIELDS;
use crate::proxy::room::Share;

/// RFC 9113 section 4.1: length of the payload in three bytes, type, flags, stream in four.
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
/// Of RFC 9113 and RFC 8441: method, scheme, path, authority and protocol are fields of a block and none of HTTP/1's.
const PSEUDO_FIELDS: usize = 5;
/// How long the answer to a block with too many fields has to leave, before the connection ends.
const LINGER: Duration = Duration::from_secs(1);

/// Tracks the frames of one connection.
#[derive(Debug)]
pub(crate) struct Frames {
    header: [u8; FRAME_HEADER],
    /// Bytes of `header` that have come.
    length: usize,
    /// Bytes of the payload that are still to come.
    payload: usize,
    in_header_block: bool,
    /// Whether the payload is part of one.
    is_of_block: bool,
    fields: Fields,
    /// Since a block had too many fields: the end of the connection.
    last: Option<Pin<Box<Sleep>>>,
    limit: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Bytes of the frame or header block that has not ended, and their part of the room of such.
    unended: usize,
    share: Share,
    /// There was no room.
    is_refused: bool,
}

impl Frames {
    /// For a connection whose next `preface` bytes belong to no frame. Frames and header blocks have `limit`.
    pub(crate) fn new(preface: usize, limit: Duration) -> Self {
        Self {
            header: [0; FRAME_HEADER],
            length: 0,
            payload: preface,
            in_header_block: false,
            is_of_block: false,
            fields: Fields::default(),
            last: None,
            limit,
            deadline: None,
            unended: 0,
            share: Share::of_header(),
            is_refused: false,
        }
    }

    /// Takes note of bytes that have come, and tells how many may be read: none behind a block that has too many fields. The deadline
    /// starts again whenever a frame or header block ends.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> usize {
        let (behind, rest) = self.follow(bytes);
        let bytes = bytes.get(..bytes.len() - rest).unwrap_or(bytes);
        match behind {
            Some(rest) => (self.unended, self.share) = (rest, Share::of_header()),
            None => self.unended += bytes.len(),
        }
        self.is_refused |= !self.share.grow_header(self.unended);
        match (self.is_unfinished(), behind.is_some(), &mut self.deadline) {
            (false, _, deadline) => *deadline = None,
            (true, true, Some(deadline)) => deadline.as_mut().reset(Instant::now() + self.limit),
            (true, false, Some(_)) => {}
            (true, _, none) => *none = Some(Box::pin(sleep_until(Instant::now() + self.limit))),
        }
        bytes.len()
    }

    /// A block had too many fields, and nothing is read any more; ready when the connection ends for it.
    pub(crate) fn last(&mut self) -> Option<&mut Pin<Box<Sleep>>> {
        self.last.as_mut()
    }

    /// Too many unfinished frames and header blocks are as long as this connection's.
    pub(crate) fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Ready when the deadline of an unfinished frame or header block has passed.
    pub(crate) fn poll_overdue(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.deadline.as_mut().map_or(Poll::Pending, |deadline| deadline.as_mut().poll(context))
    }

    /// How many bytes have come since a frame ended, other than within an unfinished header block; `None` if none has ended. And how
    /// many have come behind a block with too many fields.
    fn follow(&mut self, mut bytes: &[u8]) -> (Option<usize>, usize) {
        let mut behind = None;
        while !bytes.is_empty() {
            if self.payload > 0 {
                let length = self.payload.min(bytes.len());
                if self.is_of_block {
                    self.fields.read(bytes.get(..length).unwrap_or_default(), self.payload);
                }
                self.payload -= length;
                bytes = bytes.get(length..).unwrap_or_default();
            } else {
                let length = (FRAME_HEADER - self.length).min(bytes.len());
                let (part, rest) = bytes.split_at(length);
                if let Some(header) = self.header.get_mut(self.length..self.length + length) {
                    header.copy_from_slice(part);
                }
                self.length += length;
                bytes = rest;
                if self.length < FRAME_HEADER {
                    break;
                }
                let [high, middle, low, kind, flags, ..] = self.header;
                self.length = 0;
                self.payload = u32::from_be_bytes([0, high, middle, low]) as usize;
                self.is_of_block = kind == HEADERS || kind == CONTINUATION;
                if self.is_of_block {
                    self.in_header_block = flags & END_HEADERS == 0;
                }
                match kind {
                    HEADERS => self.fields.begin(flags),
                    CONTINUATION => self.fields.go_on(),
                    _ => {}
                }
            }
            if self.payload == 0 && !self.in_header_block {
                behind = Some(bytes.len());
                if self.fields.count() > MAX_FIELDS + PSEUDO_FIELDS {
                    self.last = Some(Box::pin(sleep_until(Instant::now() + LINGER)));
                    return (Some(0), bytes.len());
                }
            }
        }
        (behind, 0)
    }

    fn is_unfinished(&self) -> bool {
        self.length > 0 || self.payload > 0 || self.in_header_block
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    const SETTINGS: u8 = 0x4;
    const LIMIT: Duration = Duration::from_secs(20);

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], &vec![0; payload][..]].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_finished_frame_or_header_block_restarts_the_deadline() {
        let settings = frame(SETTINGS, 0, 6);
        let whole = frame(HEADERS, END_HEADERS, 40);
        let open = frame(HEADERS, 0, 40);
        let more = frame(CONTINUATION, 0, 10);
        let last = frame(CONTINUATION, END_HEADERS, 10);
        for (parts, overdue) in [
            (vec![&settings[..], &whole], None),
            (vec![&whole[..5]], Some(0)),
            (vec![&whole[..20]], Some(0)),
            (vec![&whole[..20], &whole[20..]], None),
            (vec![&whole[..20], &whole[20..22]], Some(0)),
            (vec![&open], Some(0)),
            (vec![&open, &more, &more, &more], Some(0)),
            (vec![&open, &more, &last], None),
            (vec![&open, &last, &settings[..3]], Some(2)),
            (vec![&open, &[&last[..], &settings[..3]].concat()], Some(1)),
        ] {
            for step in [1, 4, 1000] {
                // The preface, of which some is there already.
                let mut frames = Frames::new(4, LIMIT);
                assert_eq!(frames.read(&[0; 4]), 4);
                let begun = Instant::now();
                for part in &parts {
                    part.chunks(step).for_each(|bytes| assert_eq!(frames.read(bytes), bytes.len()));
                    tokio::time::advance(Duration::from_secs(1)).await;
                }
                let late = tokio::time::timeout(LIMIT * 2, poll_fn(|context| frames.poll_overdue(context))).await;
                let expected = overdue.map(|part| LIMIT + Duration::from_secs(part));
                assert_eq!(late.ok().map(|()| begun.elapsed().as_secs()), expected.map(|at| at.as_secs()), "{parts:?}");
            }
        }
    }
}
