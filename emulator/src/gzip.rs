//! gzip (RFC 1952) with stored blocks only: every client can read it, and making it costs no more than a copy.

use flate2::Crc;

/// The longest stored block (RFC 1951, 3.2.4).
const BLOCK: usize = 65_535;
/// A header without name, time or flags, from an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// A gzip stream being written.
///
/// The output of a compressor depends on its version, and the digests of layers would too. Stored blocks are the same
/// everywhere.
pub(crate) struct Stored {
    stream: Vec<u8>,
    block: Vec<u8>,
    crc: Crc,
}

impl Stored {
    pub(crate) fn new() -> Stored {
        Stored { stream: HEADER.to_vec(), block: Vec::with_capacity(BLOCK), crc: Crc::new() }
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) {
        self.crc.update(bytes);
        while !bytes.is_empty() {
            // A full block is written only when more follows, because the last one carries a mark.
            if self.block.len() == BLOCK {
                self.end_block(false);
            }
            let (part, rest) = bytes.split_at(bytes.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(part);
            bytes = rest;
        }
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.end_block(true);
        self.stream.extend_from_slice(&self.crc.sum().to_le_bytes());
        self.stream.extend_from_slice(&self.crc.amount().to_le_bytes());
        self.stream
    }

    fn end_block(&mut self, is_last: bool) {
        // A block is never longer than its 16-bit length allows.
        let length = self.block.len() as u16;
        self.stream.push(u8::from(is_last));
        self.stream.extend_from_slice(&length.to_le_bytes());
        self.stream.extend_from_slice(&(!length).to_le_bytes());
        self.stream.append(&mut self.block);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::{BLOCK, Stored};

    #[test]
    fn another_implementation_reads_it() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let content: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            let mut gzip = Stored::new();
            for part in content.chunks(1_000) {
                gzip.write(part);
            }
            let mut read = Vec::new();
            let stream = gzip.finish();
            let result = flate2::read::GzDecoder::new(stream.as_slice()).read_to_end(&mut read);
            assert_eq!(result.expect("gzip"), length);
            assert!(read == content, "{length}");
        }
    }
}
