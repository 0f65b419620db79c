//! What a request says of the content that it wants: which it knows already, and which part of it (RFC 9110 sections 13, 14).

use http::{HeaderMap, HeaderValue, Method, header};

/// What of a body goes to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Range {
    /// All of it: no range is wanted, or several, or one in another unit, or of the answer to a HEAD, which has none.
    Whole,
    /// These bytes of it, one at least.
    Part(std::ops::Range<usize>),
    /// A range outside of it.
    Unsatisfiable,
}

/// The range of a request for a body of this length.
pub fn range(method: &Method, request: &HeaderMap, length: usize, etag: Option<&HeaderValue>) -> Range {
    let mut ranges = request.get_all(header::RANGE).iter();
    let (Some(range), None, &Method::GET) = (ranges.next(), ranges.next(), method) else {
        return Range::Whole;
    };
    // Of another state of it, the whole is wanted (section 13.1.5).
    if request.get(header::IF_RANGE).is_some_and(|state| Some(state) != etag) {
        return Range::Whole;
    }
    range.to_str().ok().and_then(|range| parse(range, length)).unwrap_or(Range::Whole)
}

/// Whether `If-None-Match` names the content (RFC 9110 section 13.1.2), by its entity tag or its digest, which is quoted or,
/// as ACR takes it as well, bare.
pub fn is_known(request: &HeaderMap, etag: Option<&HeaderValue>, digest: &str) -> bool {
    let known =
        request.get_all(header::IF_NONE_MATCH).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    let etag = etag.map_or(&b""[..], HeaderValue::as_bytes);
    let digest = digest.as_bytes();
    let mut known = known.map(<[u8]>::trim_ascii).map(|value| value.strip_prefix(b"W/").unwrap_or(value));
    known.any(|value| {
        !value.is_empty() && (value == b"*" || value == etag || value == digest || is_quoted(value, digest))
    })
}

fn is_quoted(value: &[u8], digest: &[u8]) -> bool {
    let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    !digest.is_empty() && quoted == Some(digest)
}

fn parse(range: &str, length: usize) -> Option<Range> {
    let (unit, range) = range.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let part = match (number(first)?, number(last)?) {
        (None, None) => return None,
        (None, Some(0)) => return Some(Range::Unsatisfiable),
        (None, Some(suffix)) => length.saturating_sub(suffix)..length,
        (Some(first), None) => first..length,
        (Some(first), Some(last)) if first <= last => first..length.min(last.saturating_add(1)),
        (Some(_), Some(_)) => return None,
    };
    Some(if part.is_empty() { Range::Unsatisfiable } else { Range::Part(part) })
}

/// A number, or none; `None` for anything else, a second range among it. One that is too large is as good as the largest.
fn number(text: &str) -> Option<Option<usize>> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| (!text.is_empty()).then(|| text.parse().unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_bytes_is_served() {
        let etag = HeaderValue::from_static("\"e\"");
        for (wanted, if_range, expected) in [
            ("bytes=0-3", None, Range::Part(0..4)),
            ("bytes=8-", None, Range::Part(8..10)),
            ("bytes=-3", None, Range::Part(7..10)),
            ("bytes=-30", None, Range::Part(0..10)),
            ("bytes=2-99999999999999999999999", None, Range::Part(2..10)),
            ("bytes=10-", None, Range::Unsatisfiable),
            ("bytes=-0", None, Range::Unsatisfiable),
            ("bytes=99999999999999999999999-", None, Range::Unsatisfiable),
            ("bytes=3-2", None, Range::Whole),
            ("bytes=-", None, Range::Whole),
            ("bytes=0-1,4-5", None, Range::Whole),
            ("bytes=+1-2", None, Range::Whole),
            ("lines=0-1", None, Range::Whole),
            ("Bytes=0-1", None, Range::Part(0..2)),
            ("bytes=0-3", Some("\"e\""), Range::Part(0..4)),
            ("bytes=0-3", Some("\"f\""), Range::Whole),
        ] {
            let mut request = HeaderMap::new();
            request.insert(header::RANGE, HeaderValue::from_static(wanted));
            if let Some(state) = if_range {
                request.insert(header::IF_RANGE, HeaderValue::from_static(state));
            }
            assert_eq!(range(&Method::GET, &request, 10, Some(&etag)), expected, "{wanted} {if_range:?}");
            assert_eq!(range(&Method::HEAD, &request, 10, Some(&etag)), Range::Whole);
        }
        assert_eq!(range(&Method::GET, &HeaderMap::new(), 10, None), Range::Whole);
    }

    #[test]
    fn what_a_client_knows_is_named_by_its_entity_tag_or_its_digest() {
        let etag = HeaderValue::from_static("\"e\"");
        for (said, expected) in [
            ("\"e\"", true),
            ("W/\"e\"", true),
            ("\"f\", \"e\"", true),
            ("*", true),
            ("sha256:d", true),
            ("\"sha256:d\"", true),
            ("\"f\"", false),
            ("e", false),
            ("\"\"", false),
            ("", false),
            (",", false),
        ] {
            let mut request = HeaderMap::new();
            request.insert(header::IF_NONE_MATCH, HeaderValue::from_static(said));
            assert_eq!(is_known(&request, Some(&etag), "sha256:d"), expected, "{said}");
            assert_eq!(is_known(&request, None, ""), said == "*", "nothing is known of it: {said}");
        }
    }
}
