//! Room for what clients hold in memory: bodies, from the first byte that is read until nobody sends or keeps them any more, and
//! headers of requests, from their first byte until the request is over.
//!
//! A client that reads slowly, or not at all, holds its answer for as long as it may, and one that sends slowly its header. Thousands
//! may do so at once: what all of them hold together is bounded, whatever the registry or they send.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// Bytes of bodies beside those that are kept: as many as the default of the whole cache.
const BESIDE_CACHE: usize = 64 << 20;

/// Bytes of headers beyond usual ones, of requests under way too: some 500 of the largest.
const HEADERS: usize = 32 << 20;
/// A header up to this length is a usual one, and takes nothing of the room: clients send less than 1 KiB, and some carry a token.
const USUAL_HEADER: usize = 4 << 10;

/// The rooms of this process.
static BODIES: Room = Room::new(BESIDE_CACHE);
static LONG_HEADERS: Room = Room::new(HEADERS);

#[derive(Debug)]
struct Room {
    bytes: AtomicUsize,
    held: AtomicUsize,
}

impl Room {
    const fn new(bytes: usize) -> Self {
        Self { bytes: AtomicUsize::new(bytes), held: AtomicUsize::new(0) }
    }
}

/// The cache keeps as many bytes at most. Its bodies are held as well, so that as much room is left beside them as without it.
pub(crate) fn set_cache_memory(memory: usize) {
    BODIES.bytes.store(BESIDE_CACHE.saturating_add(memory), Ordering::Relaxed);
}

/// What a body or a header takes of its room.
#[derive(Debug)]
pub(crate) struct Share {
    room: &'static Room,
    bytes: usize,
}

impl Default for Share {
    fn default() -> Self {
        Self { room: &BODIES, bytes: 0 }
    }
}

impl Share {
    /// Of a header that comes; [`Self::grow_header`] takes what it needs.
    pub(crate) fn of_header() -> Self {
        Self { room: &LONG_HEADERS, bytes: 0 }
    }

    /// Takes as much as so many bytes of a header need. False if there is not that much left.
    pub(crate) fn grow_header(&mut self, length: usize) -> bool {
        length <= USUAL_HEADER || self.grow(length)
    }

    /// Takes as much as a body of this length needs. False if there is not that much left.
    pub(crate) fn grow(&mut self, length: usize) -> bool {
        let more = length.saturating_sub(self.bytes);
        if more == 0 {
            return true;
        }
        // Whoever takes too much gives it back at once; another one that comes meanwhile is refused, as it might have been anyway.
        let held = self.room.held.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        if held > self.room.bytes.load(Ordering::Relaxed) {
            self.room.held.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes += more;
        true
    }

    /// The body, which takes its room until the last part of it is dropped. What has been taken beyond its length is given back.
    pub(crate) fn hold(mut self, body: Bytes) -> Bytes {
        let beyond = self.bytes.saturating_sub(body.len());
        self.bytes -= beyond;
        self.room.held.fetch_sub(beyond, Ordering::Relaxed);
        if body.is_empty() { body } else { Bytes::from_owner(Held { body, _share: self }) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        self.room.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Held {
    body: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(bytes: usize) -> &'static Room {
        Box::leak(Box::new(Room::new(bytes)))
    }

    #[test]
    fn a_body_takes_its_length_until_its_last_part_is_dropped() {
        let room = room(100);
        let held = || room.held.load(Ordering::Relaxed);
        let mut share = Share { room, bytes: 0 };
        for (length, is_there) in [(10, true), (5, true), (60, true), (101, false), (60, true)] {
            assert_eq!(share.grow(length), is_there, "{length}");
        }
        assert_eq!(held(), 60);
        assert!(share.grow(90));
        let body = share.hold(Bytes::from(vec![b'x'; 60]));
        assert_eq!(held(), 60, "the rest was empty");
        let part = body.slice(10..20);
        drop(body);
        assert_eq!((held(), part.len()), (60, 10));
        assert!(!Share { room, bytes: 0 }.grow(41), "it is held by whoever sends it");
        drop(part);
        assert_eq!(held(), 0);
        assert!(Share { room, bytes: 0 }.grow(100));
        assert_eq!(held(), 0);
    }

    #[test]
    fn a_usual_header_takes_nothing_of_the_room() {
        let room = room(10_000);
        for (length, is_there, held) in
            [(4096, true, 0), (4097, true, 4097), (10_001, false, 0), (10_000, true, 10_000)]
        {
            let mut share = Share { room, bytes: 0 };
            assert_eq!((share.grow_header(length), room.held.load(Ordering::Relaxed)), (is_there, held), "{length}");
        }
    }
}
