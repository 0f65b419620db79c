//! The header of the PROXY protocol, by which a balancer says whose connection it passes on: version 1 is a line of text,
//! version 2 is binary. The specification is HAProxy's `doc/proxy-protocol.txt`.
//!
//! Where a header ends is decided here, so that it is bounded and takes no byte of what follows; `proxy-header` reads it.
//! It is a crate of its own, so that a fuzz target is made of it and of nothing else.

use std::net::SocketAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};

/// How version 1 begins.
const V1: &[u8] = b"PROXY ";
/// How version 2 begins.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its CR LF; the specification's own bound.
const MAX_V1: usize = 107;
/// In front of what version 2 counts as its length: the signature, version and command, family, and the length.
const V2_HEAD: usize = 16;
/// The most of a header of version 2. Addresses take 216 bytes at most; the rest are extensions, which are skipped: HAProxy's
/// take some hundred, Azure Private Link's 11.
const MAX_V2: usize = 1024;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its length in bytes.
    pub length: usize,
    /// The client's address; `None` if the connection is the balancer's own, as a health check is (LOCAL), or if the balancer
    /// does not know (UNKNOWN, UNSPEC, a Unix socket): the real address counts.
    pub client: Option<SocketAddr>,
}

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The first bytes are not those of a header.
    Missing,
    /// It is longer than it may be.
    TooLong,
    /// It begins like one and is none.
    Malformed,
}

/// Looks for a header at the front of `bytes`; `Ok(None)` if more bytes are needed to tell. It never needs more than 1024 bytes.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Wrong> {
    let whole = if begins(bytes, V1) {
        match bytes.iter().take(MAX_V1).position(|byte| *byte == b'\n') {
            Some(end) => bytes.get(..=end),
            None if bytes.len() >= MAX_V1 => return Err(Wrong::TooLong),
            None => None,
        }
    } else if begins(bytes, V2) {
        let length = bytes.get(V2_HEAD - 2..V2_HEAD);
        match length.map(|length| length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))) {
            Some(length) if V2_HEAD + length > MAX_V2 => return Err(Wrong::TooLong),
            Some(length) => bytes.get(..V2_HEAD + length),
            None => None,
        }
    } else {
        return Err(Wrong::Missing);
    };
    let Some(whole) = whole else { return Ok(None) };
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    // All of it is here, so "too short" is a wrong length; and a line that ends before its last byte has another in it.
    let (header, length) = ProxyHeader::parse(whole, config).map_err(|_| Wrong::Malformed)?;
    if length != whole.len() {
        return Err(Wrong::Malformed);
    }
    let proxied = header.proxied_address().filter(|address| address.protocol == Protocol::Stream);
    let client = proxied.map(|address| SocketAddr::new(address.source.ip().to_canonical(), address.source.port()));
    Ok(Some(Header { length, client }))
}

/// Whether these are the first bytes of a header, from somebody who may not send one. Also without the empty lines in front
/// of version 2, which are skipped before a request.
pub fn is_begun(bytes: &[u8]) -> bool {
    let behind_empty_lines = V2.strip_prefix(b"\r\n\r\n").unwrap_or(V2);
    bytes.starts_with(V1) || (!bytes.is_empty() && (begins(bytes, V2) || begins(bytes, behind_empty_lines)))
}

/// Whether the bytes, which may be few, are those of this beginning.
fn begins(bytes: &[u8], beginning: &[u8]) -> bool {
    bytes.starts_with(beginning) || beginning.starts_with(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of version 2 with this command, family, addresses and extensions.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [V2, &[0x20 | command, family], &length, rest].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 192, 0, 2, 1, 0x80, 0, 0, 80];
    const TLV: &[u8] = b"\x04\0\x03abc";

    fn v6(source: &str) -> Vec<u8> {
        let octets = |text: &str| text.parse::<std::net::Ipv6Addr>().expect("an address").octets();
        [&octets(source)[..], &octets("2001:db8::1"), &[0x80, 0, 0, 80]].concat()
    }

    /// What is found when the bytes come in pieces of this size, with what follows them.
    fn found(bytes: &[u8], step: usize) -> Result<Option<Header>, Wrong> {
        let followed = [bytes, b"\x16\x03\x01GET / HTTP/1.1\r\n"].concat();
        for come in (1..followed.len()).step_by(step).chain([followed.len()]) {
            match parse(&followed[..come]) {
                Ok(None) => {}
                end => return end,
            }
        }
        Ok(None)
    }

    #[test]
    fn both_versions_are_read_in_pieces_of_any_size_and_nothing_behind_them() {
        for (bytes, client) in [
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 32768 80\r\n".to_vec(), Some("192.0.2.7:32768")),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 32768 80\r\n".to_vec(), Some("[2001:db8::7]:32768")),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.1 32768 80\r\n".to_vec(), Some("192.0.2.7:32768")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN 2001:db8::7 2001:db8::1 32768 80\r\n".to_vec(), None),
            (v2(1, 0x11, &V4), Some("192.0.2.7:32768")),
            (v2(1, 0x11, &[&V4, TLV].concat()), Some("192.0.2.7:32768")),
            (v2(1, 0x21, &v6("2001:db8::7")), Some("[2001:db8::7]:32768")),
            (v2(1, 0x21, &v6("::ffff:192.0.2.7")), Some("192.0.2.7:32768")),
            (v2(1, 0x11, &[&V4[..], &vec![0; MAX_V2 - V2_HEAD - V4.len()]].concat()), Some("192.0.2.7:32768")),
            // LOCAL, with and without addresses; UNSPEC; a Unix socket; datagrams.
            (v2(0, 0x00, b""), None),
            (v2(0, 0x11, &V4), None),
            (v2(1, 0x00, TLV), None),
            (v2(1, 0x31, &[b'x'; 216]), None),
            (v2(1, 0x12, &V4), None),
        ] {
            for step in [1, 2, 3, 7, 1000] {
                let expected =
                    Header { length: bytes.len(), client: client.map(|text| text.parse().expect("an address")) };
                assert_eq!(found(&bytes, step), Ok(Some(expected)), "{} in steps of {step}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_no_header_is_told_as_soon_as_that_is_certain() {
        let long_line = format!("PROXY UNKNOWN {}", "x".repeat(200));
        for (bytes, wrong) in [
            (b"GET /v2/ HTTP/1.1\r\n".to_vec(), Wrong::Missing),
            (b"\x16\x03\x01\x02".to_vec(), Wrong::Missing),
            (b"PRI * HTTP/2.0\r\n".to_vec(), Wrong::Missing),
            (b"\r\n\r\nGET / HTTP/1.1\r\n".to_vec(), Wrong::Missing),
            (b"PROXYTCP4 192.0.2.7 192.0.2.1 1 2\r\n".to_vec(), Wrong::Missing),
            (long_line.clone().into_bytes(), Wrong::TooLong),
            ((long_line + "\r\n").into_bytes(), Wrong::TooLong),
            (v2(1, 0x11, &[0; MAX_V2]), Wrong::TooLong),
            ([V2, b"\x21\x11\xff\xff"].concat(), Wrong::TooLong),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 32768\r\n".to_vec(), Wrong::Malformed),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 32768 80\n".to_vec(), Wrong::Malformed),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 32768 80 \r\n".to_vec(), Wrong::Malformed),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 32768 65536\r\n".to_vec(), Wrong::Malformed),
            (b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n".to_vec(), Wrong::Malformed),
            (b"PROXY TCP4 evil.example 192.0.2.1 1 2\r\n".to_vec(), Wrong::Malformed),
            (b"PROXY UDP4 192.0.2.7 192.0.2.1 1 2\r\n".to_vec(), Wrong::Malformed),
            (b"PROXY UNKNOWN\rGET / HTTP/1.1\r\n".to_vec(), Wrong::Malformed),
            (b"PROXY \r\n".to_vec(), Wrong::Malformed),
            (v2(1, 0x11, &V4[..11]), Wrong::Malformed),
            (v2(1, 0x21, &V4), Wrong::Malformed),
            (v2(1, 0x11, b""), Wrong::Malformed),
            (v2(1, 0x31, b"short"), Wrong::Malformed),
            (v2(1, 0x41, &V4), Wrong::Malformed),
            (v2(2, 0x11, &V4), Wrong::Malformed),
            ([V2, b"\x11\x11\0\x0c", &V4].concat(), Wrong::Malformed),
        ] {
            for step in [1, 3, 1000] {
                assert_eq!(found(&bytes, step), Err(wrong), "{} in steps of {step}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn a_truncated_header_is_waited_for() {
        for whole in [b"PROXY TCP4 192.0.2.7 192.0.2.1 32768 80\r\n".to_vec(), v2(1, 0x11, &[&V4, TLV].concat())] {
            for length in 0..whole.len() {
                assert_eq!(parse(&whole[..length]), Ok(None), "{}", whole[..length].escape_ascii());
            }
        }
    }
}
