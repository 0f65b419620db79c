//! Where the header of an HTTP/1 request ends, found while its bytes come in: each byte is looked at once.
//!
//! The end is exactly where the parser behind this (httparse, by Pingora) has it. If it were found later, a client would
//! wait in vain; if earlier, the rest of a header would be taken for the next request (request smuggling).

use memchr::memchr;

/// No request's header begins like this.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// The header of one request, as far as it has been looked at.
#[derive(Debug, Default)]
pub struct Header {
    /// The begin of the first line that has not ended yet.
    line: usize,
    /// All bytes before this one have been looked at.
    seen: usize,
    has_body: bool,
}

impl Header {
    /// `bytes` is the request from its first byte, with more at its end at each call; there are no empty lines before
    /// it (see [`empty_lines`]). `Some` is the length of the header with the empty line that ends it. A line ends with LF, and a
    /// CR before that belongs to the line's end (RFC 9112 section 2.2).
    pub fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        if bytes == b"\r" {
            // Half of an empty line, which will be none of the request; nothing of that has been looked at.
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
        // A client of another protocol, TLS above all, waits for an answer to its first bytes.
        if self.line == 0 {
            check_method(bytes.split(|byte| *byte == b' ').next().unwrap_or_default())?;
        }
        Ok(None)
    }

    /// Whether a body may follow. Without a header of these two, or with a length of zero, there is none (RFC 9112
    /// section 6.3).
    pub fn has_body(&self) -> bool {
        self.has_body
    }
}

/// The length of the empty lines that come before a request and are to be ignored (RFC 9112 section 2.2).
pub fn empty_lines(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some(behind) = rest.strip_prefix(b"\n").or_else(|| rest.strip_prefix(b"\r\n")) {
        rest = behind;
    }
    bytes.len() - rest.len()
}

/// The two versions that there are; what else is wrong with the line is left to the parser.
fn check_request_line(line: &[u8]) -> Result<(), Malformed> {
    check_method(line.split(|byte| *byte == b' ').next().unwrap_or_default())?;
    if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") { Ok(()) } else { Err(Malformed) }
}

/// A token (RFC 9110 section 5.6.2), as far as it has come.
fn check_method(method: &[u8]) -> Result<(), Malformed> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if method.iter().all(is_token) { Ok(()) } else { Err(Malformed) }
}

fn declares_body(line: &[u8]) -> bool {
    // Most lines are neither.
    if !matches!(line.first(), Some(b'c' | b'C' | b't' | b'T')) {
        return false;
    }
    let Some((name, value)) = memchr(b':', line).and_then(|at| line.split_at_checked(at)) else {
        return false;
    };
    // `0, 0` is what a line in between makes of a length that is there twice; the parser takes it for one (RFC 9110
    // section 8.6).
    let mut lengths = value.get(1..).unwrap_or_default().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let is_zero = lengths.all(|digits| !digits.is_empty() && digits.iter().all(|digit| *digit == b'0'));
    name.eq_ignore_ascii_case(b"transfer-encoding") || (name.eq_ignore_ascii_case(b"content-length") && !is_zero)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pingora's own bound.
    const MAX_FIELDS: usize = 256;

    fn parse(bytes: &[u8]) -> httparse::Result<usize> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        httparse::Request::new(&mut fields).parse(bytes)
    }

    /// The end as it is found when the bytes come in pieces of this size.
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
    fn a_header_ends_with_its_first_empty_line_and_says_whether_a_body_follows() {
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
    fn empty_lines_before_a_request_are_none_of_it() {
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
    fn an_empty_line_that_comes_in_two_pieces_is_none_of_the_request_either() {
        for bytes in [&b"\r\nGET / HTTP/1.1\r\n\r\n"[..], b"\n\r\n\r\nGET / HTTP/1.1\r\n\r\n"] {
            let mut header = Header::default();
            for come in 1..=bytes.len() {
                let front = &bytes[empty_lines(&bytes[..come])..come];
                let expected = (come == bytes.len()).then_some(18);
                assert_eq!(header.end(front), Ok(expected), "{}", front.escape_ascii());
            }
        }
    }

    /// Pieces of which headers are made, and what breaks them.
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

        /// Whatever comes, and in whatever pieces: the parser takes the header that is handed to it to its last byte or
        /// refuses it, and it would have taken no part of it for a whole one.
        #[test]
        fn the_end_is_where_the_parser_has_it(bytes in soup(), step in 1..40_usize) {
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
                Ok(None) => prop_assert!(!matches!(whole, Ok(httparse::Status::Complete(_))), "a client would wait"),
                Err(Malformed) => prop_assert!(!matches!(whole, Ok(httparse::Status::Complete(_))), "refused for nothing"),
            }
        }
    }
}
