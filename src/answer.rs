//! Responses to the calls of this program, read within bounds, and errors as one sentence.

use std::error::Error;
use std::fmt;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use oci::challenge::Challenge;
use zeroize::Zeroizing;

/// ACR's id of a request, which its support asks for; see [`correlation`].
pub(crate) static CORRELATION_ID: HeaderName = HeaderName::from_static("x-ms-correlation-request-id");

/// The digest of a manifest or a blob, as a registry says it.
pub(crate) const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// The header by which a client knows a registry (distribution specification, "Legacy Docker support HTTP headers").
pub(crate) const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// The header by which ACR says from where it has what it answers (Azure/acr issue 862).
pub(crate) const AZURE_ORIGIN: HeaderName = HeaderName::from_static("x-azure-origin");

/// Real responses with a token have 1 to 4 KiB.
pub(crate) const MAX_BODY: usize = 64 << 10;

/// In ACR's sentence about an address that its firewall does not know (Azure/acr issues). No name of a client's has a blank.
const OF_A_FIREWALL: &str = " is not allowed access";

/// What ends a refusal of the registry's firewall.
pub(crate) const FIREWALL: &str =
    "the registry's firewall denies this host: allow its address there, or reach the registry by a private endpoint";

/// ACR's ids are UUIDs, of 36 characters.
pub(crate) const MAX_CORRELATION: usize = 64;

/// The longest pause that a registry can ask for, of this proxy and of clients. ACR counts down from a minute.
pub(crate) const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Why a body could not be read.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The connection broke or was too slow.
    Connection(reqwest::Error),
    /// More than [`MAX_BODY`] bytes.
    TooLarge,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(cause) => write!(f, "the connection broke: {cause}"),
            Self::TooLarge => write!(f, "the answer is larger than {MAX_BODY} bytes"),
        }
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Connection(cause) => Some(cause),
            Self::TooLarge => None,
        }
    }
}

/// The whole body, [`MAX_BODY`] bytes at most. It may be a token, so the buffer is wiped, and never grows: that would leave
/// copies.
pub(crate) async fn read_body(mut answer: reqwest::Response) -> Result<Zeroizing<Vec<u8>>, BodyError> {
    let mut body = Zeroizing::new(Vec::with_capacity(MAX_BODY));
    while let Some(chunk) = answer.chunk().await.map_err(BodyError::Connection)? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(BodyError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// ACR's id of a request, for the log and for clients. What is no id may be anything, a part of the token that was sent too.
pub(crate) fn correlation(headers: &HeaderMap) -> Option<HeaderValue> {
    let is_id = |id: &&HeaderValue| {
        let id = id.as_bytes();
        (1..=MAX_CORRELATION).contains(&id.len()) && id.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-')
    };
    headers.get(&CORRELATION_ID).filter(is_id).cloned()
}

/// Whether the body of an error is that of the registry's firewall.
pub(crate) fn is_about_firewall(body: &[u8]) -> bool {
    says(body, OF_A_FIREWALL)
}

/// Whether these words are in a body.
pub(crate) fn says(body: &[u8], words: &str) -> bool {
    body.windows(words.len()).any(|window| window == words.as_bytes())
}

/// The challenge of a 401 or 403, if it has one for a bearer token.
pub(crate) fn challenge(headers: &HeaderMap) -> Option<Challenge<'_>> {
    Challenge::parse(headers.get(header::WWW_AUTHENTICATE)?.to_str().ok()?).ok()
}

/// Whether a value begins with these words, in any letter case.
pub(crate) fn begins(value: &[u8], words: &[u8]) -> bool {
    value.get(..words.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(words))
}

/// ACR has not imported this yet, and passes on what its source has.
pub(crate) fn is_not_imported(headers: &HeaderMap) -> bool {
    headers.get(&AZURE_ORIGIN).is_some_and(|origin| origin == "upstream")
}

/// Its type begins with this.
pub(crate) fn is_of_type(headers: &HeaderMap, begin: &str) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| begins(kind.as_bytes(), begin.as_bytes()))
}

/// A wrong type alone makes no answer somebody else's: whoever knows the digest knows the manifest, and ACR names the API's version in each
/// answer (recorded).
pub(crate) fn is_of_registry(headers: &HeaderMap) -> bool {
    headers.contains_key(&DIGEST) || headers.contains_key(&API_VERSION)
}

/// It is a page for people, and nothing says that the registry has given it.
pub(crate) fn is_page_of_another(headers: &HeaderMap) -> bool {
    is_of_type(headers, "text/html") && !is_of_registry(headers)
}

/// The `Date` header, in seconds since 1970: the server's clock.
pub(crate) fn server_time(headers: &HeaderMap) -> Option<i64> {
    let date = httpdate::parse_http_date(headers.get(header::DATE)?.to_str().ok()?).ok()?;
    i64::try_from(date.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// `Retry-After` in either of its forms (RFC 9110 section 10.2.3). A date is compared with the response's own `Date`, and one that has
/// passed is no time to wait. What is neither is none; a number beyond all numbers is the longest time.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let until = httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let seconds = i64::try_from(until).ok()?.saturating_sub(server_time(headers)?);
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

/// The same, [`MAX_PAUSE`] at most: what a registry or its storage can ask for, of this proxy and of clients.
pub(crate) fn bounded_pause(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers).map(|pause| pause.min(MAX_PAUSE))
}

/// What a client is told in place of a `Retry-After`, in seconds; `None` if it is told none. Clients take what makes no sense for no
/// pause, or wait for ever.
pub(crate) fn pause_for_clients(headers: &HeaderMap) -> Option<HeaderValue> {
    bounded_pause(headers).map(|pause| HeaderValue::from(pause.as_secs()))
}

/// How rustls begins to say that a connection was cut; the address of a page about it follows.
const CUT: &str = "peer closed connection without sending TLS close_notify";

/// What an error says by itself.
fn said(error: &dyn Error) -> String {
    let said = error.to_string();
    match said.split_once(CUT) {
        Some((before, _)) => format!("{before}the connection was cut, without the end that TLS has"),
        None => said,
    }
}

/// An error with its causes, the innermost last. An error that ends with its cause stands for both, and one that only wraps
/// its cause in advice is left out.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let said = said(error);
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
            (&[("retry-after", "Tue, 24 Nov 2026 11:00:00 GMT"), date][..], Some(0)),
            (&[("retry-after", "soon")][..], None),
            (&[][..], None),
        ] {
            assert_eq!(retry_after(&headers(pairs)), expected.map(Duration::from_secs), "{pairs:?}");
        }
    }

    /// The first client was once told 60 s where this proxy paused for 5, or for none.
    #[test]
    fn a_retry_after_is_read_in_one_way_for_this_proxy_and_for_clients() {
        const DATE: &str = "Tue, 24 Nov 2026 12:00:00 GMT";
        for (said, date, expected) in [
            ("17", None, Some(17)),
            (" 7 ", None, Some(7)),
            ("0", None, Some(0)),
            ("60", None, Some(60)),
            ("61", None, Some(60)),
            ("99999999999999999999", None, Some(60)),
            ("-5", None, None),
            ("7.5", None, None),
            ("+5", None, None),
            ("soon", None, None),
            ("", None, None),
            ("Tue, 24 Nov 2026 12:00:30 GMT", Some(DATE), Some(30)),
            ("Tue, 24 Nov 2026 11:00:00 GMT", Some(DATE), Some(0)),
            ("Tue, 24 Nov 2026 13:00:00 GMT", Some(DATE), Some(60)),
            ("Tue, 24 Nov 2026 13:00:00 GMT", None, None),
        ] {
            let mut headers = HeaderMap::from_iter([(header::RETRY_AFTER, said.parse().expect("a value"))]);
            headers.extend(date.map(|date: &str| (header::DATE, date.parse().expect("a value"))));
            assert_eq!(bounded_pause(&headers), expected.map(Duration::from_secs), "{said} {date:?}");
            let told = pause_for_clients(&headers).map(|told| told.to_str().expect("text").to_owned());
            assert_eq!(told, expected.map(|seconds| seconds.to_string()), "{said} {date:?}");
        }
        assert_eq!((bounded_pause(&HeaderMap::new()), pause_for_clients(&HeaderMap::new())), (None, None));
    }

    #[test]
    fn an_id_of_a_request_is_no_part_of_a_token() {
        for (value, is_id) in [
            ("0f6a1b2c-0000-4000-8000-000000000000", true),
            ("c0", true),
            ("", false),
            ("eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6IkZXNFA6NFdXNDpQNE", false),
            ("1 error=none", false),
            (&"0".repeat(MAX_CORRELATION + 1), false),
        ] {
            let headers = HeaderMap::from_iter([(CORRELATION_ID.clone(), value.parse().expect("a value"))]);
            assert_eq!(correlation(&headers).is_some(), is_id, "{value}");
        }
    }

    #[test]
    fn an_error_repeats_no_cause() {
        #[derive(Debug)]
        struct Chained(&'static str, Option<Box<Chained>>);
        impl fmt::Display for Chained {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
            assert_eq!(with_causes(&*error.expect("one at least")), expected);
        }
    }
}
