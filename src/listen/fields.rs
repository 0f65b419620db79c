//! Counts the fields of HTTP/2 header blocks as their bytes come in (HPACK, RFC 7541), without decoding any.
//!
//! The h2 crate decodes all blocks that have come before anybody looks at the first of their requests. It bounds the size of each, by
//! which a block of 2 KiB may have 1,900 fields: 180 KiB of memory.

/// Flags of HEADERS (RFC 9113 section 6.2).
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The header block that comes.
#[derive(Debug, Default)]
pub(super) struct Fields {
    count: usize,
    at: At,
    /// The next byte says how many bytes of padding end the frame's payload.
    is_padded: bool,
    padding: usize,
    /// Bytes of the payload that come before its fields.
    priority: usize,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, Default)]
enum At {
    /// The first byte of a field.
    #[default]
    Field,
    /// An index in more than one byte, before so many strings.
    Index { strings: u8 },
    /// The length of the first of so many strings.
    Length { strings: u8 },
    /// The rest of such a length.
    MoreLength { strings: u8, length: usize, shift: u32 },
    /// The first of so many strings, of which so much is to come.
    Text { strings: u8, left: usize },
}

impl Fields {
    /// How many have begun, pseudo-header fields too.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// A block begins with the payload of a HEADERS frame that has these flags.
    pub(super) fn begin(&mut self, flags: u8) {
        let priority = if flags & PRIORITY == 0 { 0 } else { 5 };
        *self = Self { is_padded: flags & PADDED != 0, priority, ..Self::default() };
    }

    /// Of HEADERS, or of CONTINUATION, which has no padding of its own.
    pub(super) fn go_on(&mut self) {
        self.padding = 0;
    }

    /// Bytes of a payload of which so many were to come, these included.
    pub(super) fn read(&mut self, mut bytes: &[u8], mut left: usize) {
        if self.is_padded
            && let Some((padding, rest)) = bytes.split_first()
        {
            (self.is_padded, self.padding) = (false, usize::from(*padding));
            (bytes, left) = (rest, left.saturating_sub(1));
        }
        let priority = self.priority.min(bytes.len());
        self.priority -= priority;
        left = left.saturating_sub(priority);
        bytes = bytes.get(priority..).unwrap_or_default();
        bytes = bytes.get(..left.saturating_sub(self.padding)).unwrap_or(bytes);
        while let Some((first, rest)) = bytes.split_first() {
            if let At::Text { strings, left } = self.at {
                let length = left.min(bytes.len());
                bytes = bytes.get(length..).unwrap_or_default();
                self.at = At::text(strings, left - length);
            } else {
                bytes = rest;
                self.step(*first);
            }
        }
    }

    fn step(&mut self, byte: u8) {
        self.at = match self.at {
            At::Field => {
                // Section 6: how many bits of the index are in this byte, and whether strings follow.
                let (bits, is_literal) = match byte {
                    0x80.. => (7, false),
                    0x40.. => (6, true),
                    0x20.. => (5, false),
                    _ => (4, true),
                };
                // That of five bits is a size of the table.
                self.count += usize::from(bits != 5);
                let most = (1 << bits) - 1_u8;
                let strings = match (is_literal, byte & most) {
                    (false, _) => 0,
                    (true, 0) => 2,
                    (true, _) => 1,
                };
                if byte & most == most { At::Index { strings } } else { At::before(strings) }
            }
            At::Index { strings } if byte & 0x80 == 0 => At::before(strings),
            At::Length { strings } => match usize::from(byte & 0x7f) {
                length @ 0x7f => At::MoreLength { strings, length, shift: 0 },
                length => At::text(strings, length),
            },
            At::MoreLength { strings, length, shift } => {
                let more = usize::from(byte & 0x7f).checked_shl(shift).unwrap_or(usize::MAX);
                let length = length.saturating_add(more);
                match byte & 0x80 {
                    0 => At::text(strings, length),
                    _ => At::MoreLength { strings, length, shift: shift.saturating_add(7) },
                }
            }
            at @ (At::Index { .. } | At::Text { .. }) => at,
        };
    }
}

impl At {
    fn before(strings: u8) -> Self {
        if strings == 0 { Self::Field } else { Self::Length { strings } }
    }

    fn text(strings: u8, left: usize) -> Self {
        if left == 0 { Self::before(strings.saturating_sub(1)) } else { Self::Text { strings, left } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_in_every_form_and_in_pieces_of_every_size() {
        let long = [&[0x00, 0x7f, 0x80, 0x01][..], &[b'n'; 255], &[0x7f, 0x00], &[b'v'; 127]].concat();
        for (block, expected) in [
            (&b""[..], 0),
            // Indexed, also by an index of three bytes.
            (b"\x82\x86\x84", 3),
            (b"\xff\x80\x01\x82", 2),
            // Literal: an indexed name or a new one, with and without indexing, never indexed.
            (b"\x41\x01x\x82", 2),
            (b"\x40\x01a\x01b\x00\x01a\x00\x10\x00\x01b", 3),
            (b"\x0f\x04\x02\x82\x82\x82", 2),
            // A size of the table is none.
            (b"\x3f\xe1\x1f\x20\x82", 1),
            (&long, 1),
            (&[&long[..], b"\x82"].concat(), 2),
        ] {
            for (flags, front, behind) in [
                (0, &b""[..], &b""[..]),
                (PADDED, b"\x03", b"\x82\x82\x82"),
                (PADDED | PRIORITY, b"\x01\x82\x82\x82\x82\x82", b"\x82"),
            ] {
                let payload = [front, block, behind].concat();
                for step in [1, 2, 3, 1000] {
                    let (mut fields, mut left) = (Fields::default(), payload.len());
                    fields.begin(flags);
                    for piece in payload.chunks(step) {
                        fields.read(piece, left);
                        left -= piece.len();
                    }
                    assert_eq!(fields.count(), expected, "{} {flags:#x} {step}", block.escape_ascii());
                }
            }
        }
    }
}
