//! Rewrites a body into the client's names, in bounded memory, and keeps the `Content-Length` that was announced.
//!
//! The header of a response is sent before its body is known. If the registry sends a length, the client gets one as well,
//! and the rewritten body is padded to it: JSON with spaces at its end (RFC 8259 section 2), gzip with empty stored blocks
//! (RFC 1951 section 3.2.4).

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
/// How often an error may contain the name if the client's name is longer: the announced length has room for so many.
const MENTIONS: usize = 4;

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

    fn mentions(self) -> usize {
        match self {
            Self::Tags => 1,
            Self::Errors => MENTIONS,
        }
    }
}

/// A body that is being received and rewritten.
pub struct Rewriting {
    kind: BodyKind,
    gzip: bool,
    /// The length that the registry announced.
    received_length: Option<usize>,
    /// The length that the client is told.
    sent_length: Option<usize>,
    buffer: Vec<u8>,
    /// The body exceeds its limit: it is passed on unchanged.
    is_too_long: bool,
}

impl Rewriting {
    /// `length` is the `Content-Length` of the registry. `None` if that exceeds the limit: pass the body on unchanged.
    pub fn new(kind: BodyKind, gzip: bool, length: Option<u64>, names: &Renaming<'_>) -> Option<Self> {
        let growth = names.to.len().saturating_sub(names.from.len());
        let received_length = match length {
            None => None,
            Some(length) => Some(usize::try_from(length).ok().filter(|length| *length <= kind.limit())?),
        };
        // The compressed length of a longer text is not known before.
        let is_known = growth == 0 || !gzip;
        let sent_length = received_length.filter(|_| is_known).map(|length| length + growth * kind.mentions());
        Some(Self { kind, gzip, received_length, sent_length, buffer: Vec::new(), is_too_long: false })
    }

    /// The `Content-Length` for the client; `None` if the body needs another framing.
    pub fn promised(&self) -> Option<usize> {
        self.sent_length
    }

    /// Takes a part of the body; returns what can be sent before the end has been received.
    pub fn feed(&mut self, part: Bytes) -> Option<Bytes> {
        if self.is_too_long {
            return Some(part);
        }
        self.buffer.extend_from_slice(&part);
        if self.buffer.len() <= self.kind.limit() {
            return None;
        }
        self.is_too_long = true;
        Some(std::mem::take(&mut self.buffer).into())
    }

    /// The rest of the body: with the client's names, compressed as it was and of the promised length. Unchanged if it cannot
    /// be parsed, does not fit into the length, or broke off.
    pub fn finish(self, names: &Renaming<'_>) -> Bytes {
        let Self { kind, gzip, received_length, sent_length, buffer, is_too_long } = self;
        if is_too_long || received_length.is_some_and(|length| length != buffer.len()) {
            return buffer.into();
        }
        let rename = |body: &[u8]| match kind {
            BodyKind::Tags => names.tags(body),
            BodyKind::Errors => names.errors(body),
        };
        let renamed = if gzip {
            decompress(&buffer, kind.limit())
                .and_then(|body| rename(&body))
                .and_then(|body| compress(&body, sent_length))
        } else {
            rename(&buffer)
        };
        let mut body = renamed.filter(|body| sent_length.is_none_or(|length| body.len() <= length)).unwrap_or(buffer);
        if let Some(length) = sent_length.filter(|length| body.len() < *length) {
            body.resize(length, b' ');
        }
        body.into()
    }
}

/// `None` if it is not gzip, or longer than `limit`.
fn decompress(body: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    let length = GzDecoder::new(body).take(limit as u64 + 1).read_to_end(&mut whole).ok()?;
    (length <= limit).then_some(whole)
}

/// Compresses and pads to exactly this length, if one is given; `None` if it does not fit.
fn compress(body: &[u8], length: Option<usize>) -> Option<Vec<u8>> {
    /// Without name, comment and extra field (RFC 1952 section 2.3).
    const HEADER: usize = 10;
    const FLAGS: usize = 3;
    const HAS_COMMENT: u8 = 1 << 4;
    /// An empty stored block that is not the last one. Used instead of a long comment, because readers limit comments.
    const EMPTY_BLOCK: [u8; 5] = [0, 0, 0, 0xff, 0xff];
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(body).ok()?;
    let mut packed = packed.finish().ok()?;
    let gap = length.map_or(Some(0), |length| length.checked_sub(packed.len()))?;
    let (blocks, rest) = (gap / EMPTY_BLOCK.len(), gap % EMPTY_BLOCK.len());
    let mut padding = EMPTY_BLOCK.repeat(blocks);
    if rest > 0 {
        // The remaining one to four bytes are a comment, which ends with a zero byte.
        packed[FLAGS] |= HAS_COMMENT;
        let comment = [b' ', b' ', b' ', 0];
        padding.splice(0..0, comment[comment.len() - rest..].iter().copied());
    }
    packed.splice(HEADER..HEADER, padding);
    Some(packed)
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
    fn a_body_has_the_promised_length() {
        let list = |name: &str| format!("{{\"name\":\"{name}\",\"tags\":[\"latest\"]}}");
        for names in [SHORTER, LONGER] {
            let (there, here) = (list(names.from), list(names.to));
            let fits = through(&names, BodyKind::Tags, false, true, there.as_bytes(), 7);
            assert_eq!(text(&fits).trim_end_matches(' '), here);
            assert_eq!(fits.len(), there.len().max(here.len()), "no more than it takes");
            assert_eq!(text(&through(&names, BodyKind::Tags, false, false, there.as_bytes(), 7)), here, "no length");
        }
    }

    #[test]
    fn a_longer_name_fits_into_an_error_up_to_four_times() {
        let error = |names: usize, name: &str| {
            format!("{{\"errors\":[{{\"code\":\"X\",\"message\":\"{}\"}}]}}", vec![name; names].join(" "))
        };
        for (mentions, is_renamed) in [(1, true), (MENTIONS, true), (MENTIONS + 1, false)] {
            let body = error(mentions, LONGER.from);
            let gone = through(&LONGER, BodyKind::Errors, false, true, body.as_bytes(), 100);
            let expected = if is_renamed { error(mentions, LONGER.to) } else { body };
            assert_eq!(text(&gone).trim_end_matches(' '), expected);
        }
    }

    #[test]
    fn a_compressed_body_keeps_its_length() {
        let tags: Vec<_> = (0..300).map(|tag| format!("\"1.{tag}\"")).collect();
        for tags in [String::new(), tags.join(",")] {
            let there = format!("{{\"name\":\"{}\",\"tags\":[{tags}]}}", SHORTER.from);
            let here = there.replace(SHORTER.from, SHORTER.to);
            for level in [0, 1, 6] {
                let body = gzip(there.as_bytes(), level);
                let gone = through(&SHORTER, BodyKind::Tags, true, true, &body, 100);
                assert_eq!(gone.len(), body.len());
                assert_eq!(text(&decompress(&gone, MAX_TAGS).expect("gzip")), here, "level {level}");
            }
        }
        let there = format!("{{\"name\":\"{}\",\"tags\":[]}}", LONGER.from);
        let gone = through(&LONGER, BodyKind::Tags, true, true, &gzip(there.as_bytes(), 0), 100);
        assert_eq!(text(&decompress(&gone, MAX_TAGS).expect("gzip")), there.replace(LONGER.from, LONGER.to));
    }

    #[test]
    fn gzip_can_be_padded_by_any_number_of_bytes() {
        let body = b"{\"tags\":[]}";
        let least = compress(body, None).expect("packed").len();
        for gap in (0..40).chain([70_001]) {
            let filled = compress(body, Some(least + gap)).expect("it fits");
            assert_eq!(filled.len(), least + gap);
            assert_eq!(decompress(&filled, MAX_TAGS).expect("gzip"), body, "{gap}");
        }
        assert_eq!(compress(body, Some(least - 1)), None);
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

    #[test]
    fn a_body_that_broke_off_is_not_padded() {
        let list = format!("{{\"name\":\"{}\",\"tags\":[]}}", LONGER.from);
        for (packs, body) in [(false, list.clone().into_bytes()), (true, gzip(list.as_bytes(), 6))] {
            let mut rewriting =
                Rewriting::new(BodyKind::Tags, packs, Some(body.len() as u64 + 1), &LONGER).expect("short enough");
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
