//! Rewrites a body into the client's names, in bounded memory.
//!
//! The header of a response is sent before its body is known, so whoever sends a rewritten body frames it without a length.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::rename::Renaming;

/// Limit of a buffered tag list; the longest ones of Docker Hub have less than a tenth of it.
pub const MAX_TAGS: usize = 4 << 20;
/// Limit of a buffered error body. Parsed into values, it takes up to a hundred times as much memory.
pub const MAX_ERRORS: usize = 64 << 10;

/// The kind of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// A tag list.
    Tags,
    /// An error.
    Errors,
}

impl BodyKind {
    fn limit(self) -> usize {
        match self {
            Self::Tags => MAX_TAGS,
            Self::Errors => MAX_ERRORS,
        }
    }

    /// The body with the client's names; `None` if there is nothing to replace, or it is no body of this kind.
    pub fn renamed(self, body: &[u8], names: &Renaming<'_>) -> Option<Vec<u8>> {
        match self {
            Self::Tags => names.tags(body),
            Self::Errors => names.errors(body),
        }
    }
}

/// A body that is being received and rewritten.
pub struct Rewriting {
    kind: BodyKind,
    gzip: bool,
    /// The length that the registry announced.
    announced: Option<usize>,
    buffer: Vec<u8>,
    /// The body is passed on unchanged, because it exceeds its limit or there is no room for it.
    passes: bool,
}

impl Rewriting {
    /// `length` is the `Content-Length` of the registry. `None` if that is zero or exceeds the limit: pass the body on
    /// unchanged, with its length.
    pub fn new(kind: BodyKind, gzip: bool, length: Option<u64>) -> Option<Self> {
        let announced = match length {
            None => None,
            Some(length) => Some(usize::try_from(length).ok().filter(|length| (1..=kind.limit()).contains(length))?),
        };
        Some(Self { kind, gzip, announced, buffer: Vec::new(), passes: false })
    }

    /// Takes a part of the body; returns what can be sent before the end has been received.
    pub fn feed(&mut self, part: Bytes) -> Option<Bytes> {
        if self.passes && self.buffer.is_empty() {
            return Some(part);
        }
        let length = self.buffer.len() + part.len();
        self.passes |= length > self.kind.limit();
        let room = if self.passes { length } else { self.room_for(length) };
        self.buffer.reserve_exact(room - self.buffer.len());
        self.buffer.extend_from_slice(&part);
        self.passes.then(|| std::mem::take(&mut self.buffer).into())
    }

    /// How many bytes it takes once it has got so many more, those included that it has only room for; 0 if it holds none any more.
    pub fn will_hold(&self, more: usize) -> usize {
        if self.passes { 0 } else { self.room_for(self.buffer.len() + more) }
    }

    /// Of a body as long as this, what the buffer has room for: a quarter more than before, so that it is seldom moved and little of it
    /// is empty, and no more than the body can come to.
    fn room_for(&self, length: usize) -> usize {
        let room = self.buffer.capacity();
        if length <= room {
            return room;
        }
        let most = self.announced.unwrap_or(self.kind.limit());
        length.max((room + room / 4).min(most))
    }

    /// From now on it holds nothing more: the body is passed on unchanged.
    pub fn give_up(&mut self) {
        self.passes = true;
    }

    /// The rest of the body: with the client's names, and compressed as it was. Unchanged if it cannot be parsed or broke off.
    pub fn finish(self, names: &Renaming<'_>) -> Bytes {
        let Self { kind, gzip, announced, buffer, passes } = self;
        if passes || announced.is_some_and(|length| length != buffer.len()) {
            return buffer.into();
        }
        let renamed = if gzip {
            let plain = decompress(&buffer, kind.limit());
            plain.and_then(|body| kind.renamed(&body, names)).and_then(|body| compress(&body))
        } else {
            kind.renamed(&buffer, names)
        };
        renamed.unwrap_or(buffer).into()
    }
}

/// `None` if it is not gzip, or longer than `limit`.
fn decompress(body: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    let length = GzDecoder::new(body).take(limit as u64 + 1).read_to_end(&mut whole).ok()?;
    (length <= limit).then_some(whole)
}

fn compress(body: &[u8]) -> Option<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(body).ok()?;
    packed.finish().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHORTER: Renaming<'_> =
        Renaming { from: "hub/library/busybox", to: "busybox", namespace: None, authority: "example.azurecr.io" };
    const LONGER: Renaming<'_> = Renaming { from: "ghcr/org/app", to: "ghcr.io/org/app", ..SHORTER };

    /// The rewritten body, fed in parts of this size.
    fn through(
        names: &Renaming<'_>,
        kind: BodyKind,
        gzip: bool,
        has_length: bool,
        body: &[u8],
        part: usize,
    ) -> Vec<u8> {
        let length = has_length.then_some(body.len() as u64);
        let Some(mut rewriting) = Rewriting::new(kind, gzip, length) else { return body.to_vec() };
        let mut gone = Vec::new();
        for part in body.chunks(part) {
            gone.extend(rewriting.feed(Bytes::copy_from_slice(part)).unwrap_or_default());
        }
        gone.extend(rewriting.finish(names));
        gone
    }

    fn gzip(body: &[u8], level: u32) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::new(level));
        packed.write_all(body).expect("packed");
        packed.finish().expect("packed")
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn a_body_gets_the_clients_names_however_often_it_has_them_and_in_whatever_compression() {
        let tags: Vec<_> = (0..300).map(|tag| format!("\"1.{tag}\"")).collect();
        let list = |name: &str, tags: &str| format!("{{\"name\":\"{name}\",\"tags\":[{tags}]}}");
        let error = |name: &str| format!("{{\"errors\":[{{\"code\":\"X\",\"message\":\"{}\"}}]}}", [name; 9].join(" "));
        for names in [SHORTER, LONGER] {
            for (kind, there, here) in [
                (BodyKind::Tags, list(names.from, ""), list(names.to, "")),
                (BodyKind::Tags, list(names.from, &tags.join(",")), list(names.to, &tags.join(","))),
                (BodyKind::Errors, error(names.from), error(names.to)),
            ] {
                for has_length in [false, true] {
                    assert_eq!(text(&through(&names, kind, false, has_length, there.as_bytes(), 7)), here);
                    for level in [0, 1, 6] {
                        let gone = through(&names, kind, true, has_length, &gzip(there.as_bytes(), level), 100);
                        assert_eq!(text(&decompress(&gone, MAX_TAGS).expect("gzip")), here, "level {level}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_empty_body_keeps_its_length() {
        assert!(Rewriting::new(BodyKind::Errors, false, Some(0)).is_none());
    }

    #[test]
    fn a_body_that_cannot_be_parsed_or_is_too_long_passes_unchanged() {
        let (tags, errors) = (vec![b'x'; MAX_TAGS + 1], vec![b'x'; MAX_ERRORS + 1]);
        let other = b"{\"name\":\"other\"}".as_slice();
        for has_length in [false, true] {
            for (kind, body) in [
                (BodyKind::Tags, &tags[..]),
                (BodyKind::Errors, &errors),
                (BodyKind::Tags, other),
                (BodyKind::Errors, b"<html>"),
            ] {
                for packed in [false, true] {
                    assert!(through(&SHORTER, kind, packed, has_length, body, 16 << 10) == body, "{kind:?} {packed}");
                }
            }
        }
    }

    /// It doubled what it had, of which half was counted, and handed out twice as much as it was over its limit by.
    #[test]
    fn a_buffer_held_twice_as_much_as_was_counted() {
        for announced in [None, Some(MAX_TAGS as u64)] {
            let mut rewriting = Rewriting::new(BodyKind::Tags, false, announced).expect("a list");
            let part = Bytes::from(vec![b'x'; 60_000]);
            let passed = loop {
                let (length, counted) = (rewriting.buffer.len() + part.len(), rewriting.will_hold(part.len()));
                let passed = rewriting.feed(part.clone());
                assert!(rewriting.buffer.capacity() <= counted && counted <= length + length / 4, "{length} {counted}");
                if let Some(passed) = passed {
                    break passed.try_into_mut().expect("nobody else has it");
                }
            };
            assert!(passed.len() > MAX_TAGS && passed.capacity() == passed.len(), "{}", passed.capacity());
        }
    }

    #[test]
    fn a_body_that_is_given_up_passes_unchanged_from_its_beginning() {
        let list = format!("{{\"name\":\"{}\",\"tags\":[]}}", LONGER.from);
        for at in 0..=list.len() {
            let mut rewriting = Rewriting::new(BodyKind::Tags, false, None).expect("short enough");
            let (first, second) = list.split_at(at);
            assert_eq!(rewriting.will_hold(at), at);
            assert_eq!(rewriting.feed(Bytes::copy_from_slice(first.as_bytes())), None);
            rewriting.give_up();
            assert_eq!(rewriting.will_hold(second.len()), 0);
            let mut gone = rewriting.feed(Bytes::copy_from_slice(second.as_bytes())).unwrap_or_default().to_vec();
            gone.extend(rewriting.finish(&LONGER));
            assert_eq!(text(&gone), list, "{at}");
        }
    }

    #[test]
    fn a_body_that_broke_off_passes_unchanged() {
        let list = format!("{{\"name\":\"{}\",\"tags\":[]}}", LONGER.from);
        for (packs, body) in [(false, list.clone().into_bytes()), (true, gzip(list.as_bytes(), 6))] {
            let mut rewriting =
                Rewriting::new(BodyKind::Tags, packs, Some(body.len() as u64 + 1)).expect("short enough");
            assert_eq!(rewriting.feed(Bytes::copy_from_slice(&body)), None);
            assert_eq!(rewriting.finish(&LONGER), body, "packed: {packs}");
        }
    }

    proptest! {
        #[test]
        fn the_parts_of_a_body_do_not_change_the_result(
            name in prop::sample::select(vec!["hub/library/busybox", "ghcr/org/app", "other"]),
            behind in "[ a-z\"{}]{0,20}",
            packs in any::<bool>(),
            has_length in any::<bool>(),
            part in 1usize..50,
        ) {
            let list = format!("{{\"name\":\"{name}\",\"tags\":[]}}{behind}");
            let body = if packs { gzip(list.as_bytes(), 6) } else { list.into_bytes() };
            for names in [SHORTER, LONGER] {
                for kind in [BodyKind::Tags, BodyKind::Errors] {
                    let whole = through(&names, kind, packs, has_length, &body, usize::MAX);
                    prop_assert_eq!(through(&names, kind, packs, has_length, &body, part), whole);
                }
            }
        }
    }
}
