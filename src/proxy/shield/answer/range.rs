//! Which part of a body a request wants (RFC 9110 section 14).

use http::{HeaderValue, Method, header};
use pingora::http::RequestHeader;

/// What of a body goes to the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// All of it: no range is wanted, or several, or one in another unit, or of the answer to a HEAD, which has none.
    Whole,
    /// These bytes, one at least.
    Part(std::ops::Range<usize>),
    /// A range outside of it.
    Unsatisfiable,
}

/// The range of a request for a body of this length.
pub(super) fn of(request: &RequestHeader, length: usize, etag: Option<&HeaderValue>) -> Range {
    let mut ranges = request.headers.get_all(header::RANGE).iter();
    let (Some(range), None, &Method::GET) = (ranges.next(), ranges.next(), &request.method) else {
        return Range::Whole;
    };
    // Of another state of it, the whole is wanted (section 13.1.5).
    if request.headers.get(header::IF_RANGE).is_some_and(|state| Some(state) != etag) {
        return Range::Whole;
    }
    range.to_str().ok().and_then(|range| parse(range, length)).unwrap_or(Range::Whole)
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
        for (range, if_range, expected) in [
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
            let mut request = RequestHeader::build(Method::GET, b"/", None).expect("a request");
            request.insert_header(header::RANGE, range).expect("a header");
            if let Some(state) = if_range {
                request.insert_header(header::IF_RANGE, state).expect("a header");
            }
            assert_eq!(of(&request, 10, Some(&etag)), expected, "{range} {if_range:?}");
            request.set_method(Method::HEAD);
            assert_eq!(of(&request, 10, Some(&etag)), Range::Whole, "HEAD");
        }
        let request = RequestHeader::build(Method::GET, b"/", None).expect("a request");
        assert_eq!(of(&request, 10, None), Range::Whole);
    }
}
