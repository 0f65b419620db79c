//! Finds where the header of an HTTP/1 request ends, as its bytes come in. Each byte is examined once.
//!
//! The end must be exactly where Pingora's parser (httparse) finds it. If it were later, a client would wait for ever; if
//! earlier, the rest of the header would be taken for the next request (request smuggling).

use http::uri::PathAndQuery;
use memchr::memchr;

use crate::proxy::is_token_byte;

/// Fields of a header, as Pingora takes them over HTTP/1.
pub(super) const MAX_FIELDS: usize = 256;

/// No header of an HTTP/1 request begins like this.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The header of one request, as far as it has been examined.
#[derive(Debug, Default)]
pub(crate) struct Header {
    /// Where the line begins that has not ended yet.
    line: usize,
    /// All bytes before this one have been examined.
    seen: usize,
    has_body: bool,
}

impl Header {
    /// `bytes` is the request from its first byte, without empty lines before it (see [`empty_lines`]); each call brings more
    /// bytes at its end. `Some` is the length of the header, including the empty line that ends it. A line ends with LF or CR LF
    /// (RFC 9112 section 2.2).
    pub(crate) fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        if bytes == b"\r" {
            // Half of an empty line before the request; no byte of the request has been examined.
            return Ok(None);
        }
        while let Some(length) = bytes.get(self.seen..).and_then(|rest| memchr(b'\n', rest)) {
            let (start, end) = (self.line, self.seen + length);
            (self.line, self.seen) = (end + 1, end + 1);
            let line = bytes.get(start..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match line {
                [] if start > 0 => return Ok(Some(end + 1)),
                line if start == 0 => check_request_line(line)?,
                line => self.has_body |= declares_body(line),
            }
        }
        self.seen = bytes.len();
        // A client of another protocol, most often TLS, sends no line end and waits for an answer to its first bytes.
        if self.line == 0 {
            check_method(bytes.split(|byte| *byte == b' ').next().unwrap_or_default())?;
        }
        Ok(None)
    }

    /// Whether a body may follow: not without `Content-Length` and `Transfer-Encoding`, and not if the length is zero (RFC 9112
    /// section 6.3).
    pub(crate) fn has_body(&self) -> bool {
        self.has_body
    }
}

/// The length of the empty lines before a request, which are to be ignored (RFC 9112 section 2.2).
pub(crate) fn empty_lines(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some(remaining) = rest.strip_prefix(b"\n").or_else(|| rest.strip_prefix(b"\r\n")) {
        rest = remaining;
    }
    bytes.len() - rest.len()
}

/// Whether Pingora makes a request of a whole header that is for a path. It answers what it cannot read on a listener of clients; on
/// the admin listener it would close the connection without a word.
pub(crate) fn is_understood(header: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let is_whole = request.parse(header).is_ok_and(|parsed| parsed.is_complete());
    is_whole && request.path.is_some_and(|path| path.starts_with('/') && PathAndQuery::try_from(path).is_ok())
}

/// Only HTTP/1.0 and HTTP/1.1. What else may be wrong with the line is left to the parser.
fn check_request_line(line: &[u8]) -> Result<(), Malformed> {
    check_method(line.split(|byte| *byte == b' ').next().unwrap_or_default())?;
    if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") { Ok(()) } else { Err(Malformed) }
}

/// A method is a token (RFC 9110 section 5.6.2); checked as far as it has come.
fn check_method(method: &[u8]) -> Result<(), Malformed> {
    if method.iter().all(|byte| is_token_byte(*byte)) { Ok(()) } else { Err(Malformed) }
}

fn declares_body(line: &[u8]) -> bool {
    // Most lines are neither `Content-Length` nor `Transfer-Encoding`.
    if !matches!(line.first(), Some(b'c' | b'C' | b't' | b'T')) {
        return false;
    }
    let Some((name, value)) = memchr(b':', line).and_then(|at| line.split_at_checked(at)) else {
        return false;
    };
    // An intermediary joins two such fields to `0, 0`, which the parser takes for one length (RFC 9110 section 8.6).
    let mut lengths = value.get(1..).unwrap_or_default().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let is_zero = lengths.all(|digits| !digits.is_empty() && digits.iter().all(|digit| *digit == b'0'));
    name.eq_ignore_ascii_case(b"transfer-encoding") || (name.eq_ignore_ascii_case(b"content-length") && !is_zero)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(bytes: &[u8]) -> httparse::Result<usize> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        httparse::Request::new(&mut fields).parse(bytes)
    }

    /// The end that is found when the bytes come in pieces of this size.
    fn end(bytes: &[u8], step: usize) -> Result<Option<(usize, bool)>, Malformed> {
        let mut header = Header::default();
        let mut come = 0;
        while come < bytes.len() {
            come = (come + step).min(bytes.len());
            if let Some(end) = header.end(&bytes[..come])? {
                return Ok(Some((end, header.has_body())));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_header_ends_at_its_first_empty_line_and_tells_whether_a_body_follows() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], Ok(Some((27, false)))),
            (b"GET / HTTP/1.1\nHost: x\n\nGET", Ok(Some((24, false)))),
            (b"GET / HTTP/1.1\r\nHost: x\n\r\n", Ok(Some((26, false)))),
            (b"GET / HTTP/1.0\r\n\r\n", Ok(Some((18, false)))),
            (b"GET / HTTP/1.1\r\nA: \r\n\r\n", Ok(Some((23, false)))),
            (b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", Ok(Some((37, false)))),
            (b"GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\n", Ok(Some((37, true)))),
            (b"GET / HTTP/1.1\r\ncontent-length:00\r\n\r\n", Ok(Some((37, false)))),
            (b"GET / HTTP/1.1\r\nContent-Length:\r\n\r\n", Ok(Some((35, true)))),
            (b"GET / HTTP/1.1\r\nContent-Length: 0 ,00\r\n\r\n", Ok(Some((41, false)))),
            (b"GET / HTTP/1.1\r\nContent-Length: 0, 5\r\n\r\n", Ok(Some((40, true)))),
            (b"GET / HTTP/1.1\r\nContent-Length: 0,\r\n\r\n", Ok(Some((38, true)))),
            (b"GET / HTTP/1.1\r\nCONTENT-LENGTH: 0\r\nContent-Length: 5\r\n\r\n", Ok(Some((56, true)))),
            (b"GET / HTTP/1.1\r\ntransfer-Encoding: x\r\n\r\n", Ok(Some((40, true)))),
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r", Ok(None)),
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\r\n", Ok(None)),
            (b"GET / HTTP/1.1", Ok(None)),
            (b"GET", Ok(None)),
            (b"GET /\r\n", Err(Malformed)),
            (b"GET / HTTP/2.0\r\n", Err(Malformed)),
            (b"\x16\x03\x01\x02", Err(Malformed)),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Err(Malformed)),
            (b"\rGET", Err(Malformed)),
        ] {
            for step in [1, 2, 3, 7, 1000] {
                assert_eq!(end(bytes, step), expected, "{} in steps of {step}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn empty_lines_before_a_request_are_skipped() {
        for (bytes, expected) in [
            (&b""[..], 0),
            (b"\r\n", 2),
            (b"\n\r\n\nGET", 4),
            (b"\r", 0),
            (b"\r\n\r", 2),
            (b"\rGET", 0),
            (b"GET\r\n", 0),
        ] {
            assert_eq!(empty_lines(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn an_empty_line_in_two_pieces_is_skipped_too() {
        for bytes in [&b"\r\nGET / HTTP/1.1\r\n\r\n"[..], b"\n\r\n\r\nGET / HTTP/1.1\r\n\r\n"] {
            let mut header = Header::default();
            for come in 1..=bytes.len() {
                let front = &bytes[empty_lines(&bytes[..come])..come];
                let expected = (come == bytes.len()).then_some(18);
                assert_eq!(header.end(front), Ok(expected), "{}", front.escape_ascii());
            }
        }
    }

    /// Parts of headers, and bytes that make them invalid, in any order.
    fn soup() -> impl Strategy<Value = Vec<u8>> {
        let pieces = [
            "GET",
            " ",
            "/",
            "/v2/",
            " HTTP/1.1",
            " HTTP/1.0",
            "\r\n",
            "\n",
            "\r",
            "\r\n\r\n",
            "\n\n",
            "Host: x",
            "a:",
            ":",
            "b: c",
            "\t",
            "\0",
            "\u{e9}",
            "Content-Length: 0",
            "Content-Length: 7",
            "Transfer-Encoding: chunked",
            " x",
            "HTTP/1.1",
            "PRI * HTTP/2.0",
            "\x0b",
        ];
        let begin = prop_oneof![Just(""), Just("GET / HTTP/1.1\r\n"), Just("GET / HTTP/1.1\nHost: x\r\n")];
        (begin, proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..12))
            .prop_map(|(begin, pieces)| (begin.to_owned() + &pieces.concat()).into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// For all input, in pieces of all sizes: the parser accepts the header up to its last byte or refuses it, and takes no
        /// shorter part of it for a complete header.
        #[test]
        fn the_end_is_where_the_parser_finds_it(bytes in soup(), step in 1..40_usize) {
            let bytes = &bytes[empty_lines(&bytes)..];
            let found = end(bytes, step);
            let whole = parse(bytes);
            match found {
                Ok(Some((end, _))) => {
                    let parsed = parse(&bytes[..end]);
                    prop_assert!(matches!(parsed, Ok(httparse::Status::Complete(length)) if length == end) || parsed.is_err());
                    for shorter in 0..end {
                        prop_assert!(!matches!(parse(&bytes[..shorter]), Ok(httparse::Status::Complete(_))));
                    }
                }
                Ok(None) => prop_assert!(!matches!(whole, Ok(httparse::Status::Complete(_))), "a complete header was not found"),
                Err(Malformed) => prop_assert!(!matches!(whole, Ok(httparse::Status::Complete(_))), "a valid header was refused"),
            }
        }
    }
}
