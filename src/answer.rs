//! What servers say that are called here: read within bounds, quoted safely.

use std::error::Error;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, header};
use zeroize::Zeroizing;

/// ACR's name for a request, which its support asks for.
pub static CORRELATION_ID: HeaderName = HeaderName::from_static("x-ms-correlation-request-id");

/// Real answers with a token have 1 to 4 KiB.
pub const MAX_BODY: usize = 64 << 10;
/// Of what a server says about an error that much is quoted from its beginning, in characters,
const MAX_HEAD: usize = 300;
/// and that much from its end: there Azure puts its trace and correlation ids and the time, which its support asks for.
/// Entra ID's take 131 characters.
const MAX_TAIL: usize = 160;
const CUT: &str = " ... ";

/// Why a body could not be read.
pub enum BodyError {
    /// The connection broke or was too slow.
    Connection(reqwest::Error),
    /// More than [`MAX_BODY`] bytes.
    TooLarge,
}

/// The whole body, [`MAX_BODY`] bytes at most. It may be a token, so it is wiped, and never moved while it grows: that
/// would leave copies.
pub async fn read_body(mut answer: reqwest::Response) -> Result<Zeroizing<Vec<u8>>, BodyError> {
    let mut body = Zeroizing::new(Vec::with_capacity(MAX_BODY));
    while let Some(chunk) = answer.chunk().await.map_err(BodyError::Connection)? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(BodyError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The `Date` header, in seconds since 1970: the server's clock.
pub fn server_time(headers: &HeaderMap) -> Option<i64> {
    let date = httpdate::parse_http_date(headers.get(header::DATE)?.to_str().ok()?).ok()?;
    i64::try_from(date.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// `Retry-After` in either of its forms (RFC 9110 section 10.2.3); a date is taken against the answer's own clock.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = value.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let seconds = i64::try_from(until).ok()?.saturating_sub(server_time(headers)?);
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

/// How each JSON object begins that is packed by base64, and so each token (RFC 7519 section 3).
const TOKEN: &str = "eyJ";
/// Words of a language that begin so are shorter, and tokens are longer.
const MIN_TOKEN: usize = 16;
const LEFT_OUT: &str = "(a token)";

/// A server's words, safe to log: one line, bounded; `None` if there are none. A long text loses its middle, and is cut
/// between words. A token that the server repeats, as one that quotes the request it refuses, is left out.
pub fn quoted(text: &str) -> Option<String> {
    let text: Vec<char> = without_tokens(text).trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.len() <= MAX_HEAD + MAX_TAIL {
        return (!text.is_empty()).then(|| text.into_iter().collect());
    }
    let (head, rest) = text.split_at(MAX_HEAD);
    let tail = &rest[rest.len() - MAX_TAIL..];
    // A word that is longer than either is cut all the same.
    let head = head.rsplitn(2, |c| *c == ' ').last().unwrap_or(head);
    let tail = tail.splitn(2, |c| *c == ' ').last().unwrap_or(tail);
    Some(head.iter().chain(&CUT.chars().collect::<Vec<_>>()).chain(tail).collect())
}

fn without_tokens(text: &str) -> String {
    let mut parts = text.split(TOKEN);
    let mut safe = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let length = part.find(|c: char| !c.is_ascii_alphanumeric() && !"-_.+/=".contains(c)).unwrap_or(part.len());
        let (token, rest) = part.split_at(length);
        // What stands right behind a token that was left out, such as its next part, is a part of it.
        match TOKEN.len() + length < MIN_TOKEN && !safe.ends_with(LEFT_OUT) {
            true => safe.extend([TOKEN, token]),
            false if safe.ends_with(LEFT_OUT) => {}
            false => safe.push_str(LEFT_OUT),
        }
        safe.push_str(rest);
    }
    safe
}

/// An error with its causes, the innermost last, none said twice: one that ends with its cause stands for both, and one
/// that only wraps its cause in advice is left out.
pub fn chain(error: &dyn Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let said = error.to_string();
        next = error.source();
        match parts.last() {
            Some(last) if last.ends_with(&said) => continue,
            Some(last) if last.contains(&said) => drop(parts.pop()),
            _ => {}
        }
        parts.push(said);
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_in_seconds_or_as_a_date() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| ((*name).parse().expect("name"), value.parse().expect("value"))).collect()
        };
        let date = ("date", "Tue, 24 Nov 2026 12:00:00 GMT");
        for (pairs, expected) in [
            (&[("retry-after", "17")][..], Some(17)),
            (&[("retry-after", "Tue, 24 Nov 2026 12:00:30 GMT"), date][..], Some(30)),
            (&[("retry-after", "Tue, 24 Nov 2026 11:00:00 GMT"), date][..], None),
            (&[("retry-after", "soon")][..], None),
            (&[][..], None),
        ] {
            assert_eq!(retry_after(&headers(pairs)), expected.map(Duration::from_secs), "{pairs:?}");
        }
    }

    #[test]
    fn an_error_says_nothing_twice() {
        #[derive(Debug)]
        struct Chained(&'static str, Option<Box<Chained>>);
        impl std::fmt::Display for Chained {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.0)
            }
        }
        impl Error for Chained {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                self.1.as_deref().map(|cause| cause as &(dyn Error + 'static))
            }
        }
        for (parts, expected) in [
            (&["read key.pem", "No such file"][..], "read key.pem: No such file"),
            (&["read key.pem: No such file", "No such file"], "read key.pem: No such file"),
            (&["sign-in failed. az not found To troubleshoot, visit x", "az not found"], "az not found"),
            (&["a", "b", "c"], "a: b: c"),
        ] {
            let error = parts.iter().rev().fold(None, |cause, text| Some(Box::new(Chained(text, cause))));
            assert_eq!(chain(&*error.expect("one at least")), expected);
        }
    }

    #[test]
    fn what_a_server_says_is_one_bounded_line() {
        assert_eq!(quoted("a\r\nb"), Some("a  b".to_owned()));
        assert_eq!(quoted(&"x".repeat(5000)).map(|text| text.len()), Some(MAX_HEAD + CUT.len() + MAX_TAIL));
        assert_eq!(quoted(" \n"), None);
    }

    #[test]
    fn a_token_that_a_server_repeats_is_not_quoted() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzZWNyZXQifQ.c2lnbmF0dXJl-_c";
        for (text, expected) in [
            (format!("refused: access_token={token}&service=x"), "refused: access_token=(a token)&service=x"),
            (format!("{token} {token}"), "(a token) (a token)"),
            (format!("Bearer {token}"), "Bearer (a token)"),
            (token[..40].to_owned(), "(a token)"),
            ("eyJx is no token".to_owned(), "eyJx is no token"),
        ] {
            assert_eq!(quoted(&text).as_deref(), Some(expected), "{text}");
        }
        // Also where the text is cut in the middle of it.
        let long = format!("{}{token}{}", "x".repeat(MAX_HEAD - 10), "y".repeat(500));
        assert!(!quoted(&long).expect("words").contains("eyJ"));
    }

    #[test]
    fn a_long_text_keeps_azures_ids_and_is_cut_between_words() {
        let ids = "Trace ID: 0f6a1b2c-0000-4000-8000-000000000000 Correlation ID: 1f6a1b2c-0000-4000-8000-000000000000 \
                   Timestamp: 2026-11-25 10:00:00Z";
        let long = format!("AADSTS7000215: {}{ids}", "some words ".repeat(40));
        let text = quoted(&long).expect("words");
        assert!(text.starts_with("AADSTS7000215: some words") && text.ends_with(ids), "{text}");
        assert!(text.contains(" some ... words "), "{text}");
        let fits = format!("AADSTS7000215: {}{ids}", "some words ".repeat(20));
        assert_eq!(quoted(&fits), Some(fits));
    }
}
