//! A body on its way into the client's names, in bounded memory and by the length that was promised for it.
//!
//! The head of an answer goes out before its body has come. Where the registry says how long the body is, the client is
//! told a length all the same, and the rewritten body is filled up to it: JSON with white space behind it (RFC 8259
//! section 2), gzip with blocks of nothing (RFC 1951 section 3.2.4).

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::rename::Renaming;

/// A tag list is held this far; Docker Hub's longest have less than a tenth of it.
pub const MAX_TAGS: usize = 4 << 20;
/// An error body is held this far. It is taken apart into values, which take some hundred times its own room.
pub const MAX_ERRORS: usize = 64 << 10;
/// How often an error may name its repository where the client's name is the longer one: there has to be room for each.
const MENTIONS: usize = 4;

/// Which body it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A tag list.
    Tags,
    /// An error.
    Errors,
}

impl Kind {
    fn limit(self) -> usize {
        match self {
            Self::Tags => MAX_TAGS,
            Self::Errors => MAX_ERRORS,
        }
    }

    fn mentions(self) -> usize {
        match self {
            Self::Tags => 1,
            Self::Errors => MENTIONS,
        }
    }
}

/// A body of which the end has not come yet.
pub struct Rewriting {
    kind: Kind,
    gzip: bool,
    /// How long the body is as it comes, and as it goes, where that is known.
    comes: Option<usize>,
    goes: Option<usize>,
    held: Vec<u8>,
    /// It grew too long: the rest passes.
    passes: bool,
}

impl Rewriting {
    /// `length` is what the registry says, if it does. `None` if that is more than is held: such a body passes as it is.
    pub fn new(kind: Kind, gzip: bool, length: Option<u64>, names: &Renaming<'_>) -> Option<Self> {
        let growth = names.to.len().saturating_sub(names.from.len());
        let comes = match length {
            None => None,
            Some(length) => Some(usize::try_from(length).ok().filter(|length| *length <= kind.limit())?),
        };
        // How long a longer text is when it is packed, nobody knows.
        let goes = comes.filter(|_| growth == 0 || !gzip).map(|comes| comes + growth * kind.mentions());
        Some(Self { kind, gzip, comes, goes, held: Vec::new(), passes: false })
    }

    /// The length that the client is to be told; none, and its end has to be told in another way.
    pub fn promised(&self) -> Option<usize> {
        self.goes
    }

    /// Takes a part; gives what can go out before the end has come.
    pub fn feed(&mut self, part: Bytes) -> Option<Bytes> {
        if self.passes {
            return Some(part);
        }
        self.held.extend_from_slice(&part);
        if self.held.len() <= self.kind.limit() {
            return None;
        }
        self.passes = true;
        Some(std::mem::take(&mut self.held).into())
    }

    /// What is left to go out: the body in the client's names, packed as it came and as long as promised; or as it came,
    /// where it cannot be read or finds no room. What came shorter than it should is left alone.
    pub fn finish(self, names: &Renaming<'_>) -> Bytes {
        let Self { kind, gzip, comes, goes: room, held, passes } = self;
        if passes || comes.is_some_and(|comes| comes != held.len()) {
            return held.into();
        }
        let rename = |body: &[u8]| match kind {
            Kind::Tags => names.tags(body),
            Kind::Errors => names.errors(body),
        };
        let renamed = if gzip {
            unpacked(&held, kind.limit()).and_then(|body| rename(&body)).and_then(|body| packed(&body, room))
        } else {
            rename(&held)
        };
        let mut body = renamed.filter(|body| room.is_none_or(|room| body.len() <= room)).unwrap_or(held);
        if let Some(room) = room.filter(|room| body.len() < *room) {
            body.resize(room, b' ');
        }
        body.into()
    }
}

/// `None` if it is no gzip or too long.
fn unpacked(body: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    let length = GzDecoder::new(body).take(limit as u64 + 1).read_to_end(&mut whole).ok()?;
    (length <= limit).then_some(whole)
}

/// Of exactly this length, if one is given and it fits.
fn packed(body: &[u8], length: Option<usize>) -> Option<Vec<u8>> {
    /// Without name, comment and extra field (RFC 1952 section 2.3).
    const HEADER: usize = 10;
    const FLAGS: usize = 3;
    const HAS_COMMENT: u8 = 1 << 4;
    /// A stored block of no bytes, not the last one. A reader's limits on a comment do not count for them.
    const NOTHING: [u8; 5] = [0, 0, 0, 0xff, 0xff];
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(body).ok()?;
    let mut packed = packed.finish().ok()?;
    let gap = length.map_or(Some(0), |length| length.checked_sub(packed.len()))?;
    let (blocks, odd) = (gap / NOTHING.len(), gap % NOTHING.len());
    let mut filling = NOTHING.repeat(blocks);
    if odd > 0 {
        // A comment ends with a zero, which is the whole of an empty one.
        packed[FLAGS] |= HAS_COMMENT;
        let comment = [b' ', b' ', b' ', 0];
        filling.splice(0..0, comment[comment.len() - odd..].iter().copied());
    }
    packed.splice(HEADER..HEADER, filling);
    Some(packed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHORTER: Renaming<'_> =
        Renaming { from: "hub/library/busybox", to: "busybox", namespace: None, authority: "example.azurecr.io" };
    const LONGER: Renaming<'_> = Renaming { from: "ghcr/org/app", to: "ghcr.io/org/app", ..SHORTER };

    /// What goes out for a body that comes in parts of this size.
    fn through(names: &Renaming<'_>, kind: Kind, gzip: bool, has_length: bool, body: &[u8], part: usize) -> Vec<u8> {
        let length = has_length.then_some(body.len() as u64);
        let Some(mut rewriting) = Rewriting::new(kind, gzip, length, names) else { return body.to_vec() };
        let promised = rewriting.promised();
        let mut gone = Vec::new();
        for part in body.chunks(part) {
            gone.extend(rewriting.feed(Bytes::copy_from_slice(part)).unwrap_or_default());
        }
        gone.extend(rewriting.finish(names));
        assert!(promised.is_none_or(|promised| promised == gone.len()), "{promised:?}, {} bytes", gone.len());
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
    fn a_body_is_as_long_as_was_promised() {
        let list = |name: &str| format!("{{\"name\":\"{name}\",\"tags\":[\"latest\"]}}");
        for names in [SHORTER, LONGER] {
            let (there, here) = (list(names.from), list(names.to));
            let fits = through(&names, Kind::Tags, false, true, there.as_bytes(), 7);
            assert_eq!(text(&fits).trim_end_matches(' '), here);
            assert_eq!(fits.len(), there.len().max(here.len()), "no more than it takes");
            assert_eq!(text(&through(&names, Kind::Tags, false, false, there.as_bytes(), 7)), here, "no length");
        }
    }

    #[test]
    fn a_longer_name_has_room_where_it_is_said_a_few_times() {
        let error = |names: usize, name: &str| {
            format!("{{\"errors\":[{{\"code\":\"X\",\"message\":\"{}\"}}]}}", vec![name; names].join(" "))
        };
        for (mentions, is_renamed) in [(1, true), (MENTIONS, true), (MENTIONS + 1, false)] {
            let body = error(mentions, LONGER.from);
            let gone = through(&LONGER, Kind::Errors, false, true, body.as_bytes(), 100);
            let expected = if is_renamed { error(mentions, LONGER.to) } else { body };
            assert_eq!(text(&gone).trim_end_matches(' '), expected);
        }
    }

    #[test]
    fn a_packed_body_is_packed_again_to_the_same_length() {
        let tags: Vec<_> = (0..300).map(|tag| format!("\"1.{tag}\"")).collect();
        for tags in [String::new(), tags.join(",")] {
            let there = format!("{{\"name\":\"{}\",\"tags\":[{tags}]}}", SHORTER.from);
            let here = there.replace(SHORTER.from, SHORTER.to);
            for level in [0, 1, 6] {
                let body = gzip(there.as_bytes(), level);
                let gone = through(&SHORTER, Kind::Tags, true, true, &body, 100);
                assert_eq!(gone.len(), body.len());
                assert_eq!(text(&unpacked(&gone, MAX_TAGS).expect("gzip")), here, "level {level}");
            }
        }
        let there = format!("{{\"name\":\"{}\",\"tags\":[]}}", LONGER.from);
        let gone = through(&LONGER, Kind::Tags, true, true, &gzip(there.as_bytes(), 0), 100);
        assert_eq!(text(&unpacked(&gone, MAX_TAGS).expect("gzip")), there.replace(LONGER.from, LONGER.to));
    }

    #[test]
    fn gzip_can_be_filled_by_any_number_of_bytes() {
        let body = b"{\"tags\":[]}";
        let least = packed(body, None).expect("packed").len();
        for gap in (0..40).chain([70_001]) {
            let filled = packed(body, Some(least + gap)).expect("it fits");
            assert_eq!(filled.len(), least + gap);
            assert_eq!(unpacked(&filled, MAX_TAGS).expect("gzip"), body, "{gap}");
        }
        assert_eq!(packed(body, Some(least - 1)), None);
    }

    #[test]
    fn what_cannot_be_read_or_is_too_long_passes_byte_for_byte() {
        let (tags, errors) = (vec![b'x'; MAX_TAGS + 1], vec![b'x'; MAX_ERRORS + 1]);
        let other = b"{\"name\":\"other\"}".as_slice();
        for has_length in [false, true] {
            for (kind, body) in
                [(Kind::Tags, &tags[..]), (Kind::Errors, &errors), (Kind::Tags, other), (Kind::Errors, b"<html>")]
            {
                for packed in [false, true] {
                    assert!(through(&SHORTER, kind, packed, has_length, body, 16 << 10) == body, "{kind:?} {packed}");
                }
            }
        }
    }

    #[test]
    fn a_body_that_came_short_is_not_made_whole() {
        let list = format!("{{\"name\":\"{}\",\"tags\":[]}}", LONGER.from);
        for (packs, body) in [(false, list.clone().into_bytes()), (true, gzip(list.as_bytes(), 6))] {
            let mut rewriting =
                Rewriting::new(Kind::Tags, packs, Some(body.len() as u64 + 1), &LONGER).expect("short enough");
            assert_eq!(rewriting.feed(Bytes::copy_from_slice(&body)), None);
            assert_eq!(rewriting.finish(&LONGER), body, "packed: {packs}");
        }
    }

    proptest! {
        #[test]
        fn in_whatever_parts_it_comes_the_same_goes_out(
            name in prop::sample::select(vec!["hub/library/busybox", "ghcr/org/app", "other"]),
            behind in "[ a-z\"{}]{0,20}",
            packs in any::<bool>(),
            has_length in any::<bool>(),
            part in 1usize..50,
        ) {
            let list = format!("{{\"name\":\"{name}\",\"tags\":[]}}{behind}");
            let body = if packs { gzip(list.as_bytes(), 6) } else { list.into_bytes() };
            for names in [SHORTER, LONGER] {
                for kind in [Kind::Tags, Kind::Errors] {
                    let whole = through(&names, kind, packs, has_length, &body, usize::MAX);
                    prop_assert_eq!(through(&names, kind, packs, has_length, &body, part), whole);
                }
            }
        }
    }
}
