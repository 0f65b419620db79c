//! Which parts a client asks for, mostly of a blob, and whether an answer is one of them (RFC 9110 section 14).

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::answer::begins;

/// Why a part cannot be the answer.
const NOT_ASKED: &str = "it is about a part, and the whole was asked for";
const NO_PLACE: &str = "it is a part and does not say which";
const OTHER_PART: &str = "it is another part than was asked for";
pub(crate) const OTHER_LENGTH: &str = "its length is not that of the part that it names";
const HAS_IT: &str = "it refuses a part that there is, by its own words";

/// A range of bytes as a client asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// From this byte, to this one or to the end.
    From(u64, Option<u64>),
    /// So many at the end.
    Last(u64),
}

/// Why an answer of this status and with these headers is not for a request with those of the client; `None` where it is.
pub(crate) fn contradicts(status: StatusCode, answer: &HeaderMap, client: &HeaderMap) -> Option<&'static str> {
    match status {
        // What makes no sense may be refused so, or taken for no range (section 14.2), and so may several at once (section 15.5.17).
        StatusCode::RANGE_NOT_SATISFIABLE if ranges(client).next().is_none() => Some(NOT_ASKED),
        StatusCode::RANGE_NOT_SATISFIABLE if are_several(client) => None,
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let length = answer.get(header::CONTENT_RANGE).and_then(length)?;
            let mut asked = ranges(client).filter_map(Asked::read);
            asked.any(|asked| asked.is_within(length)).then_some(HAS_IT)
        }
        StatusCode::PARTIAL_CONTENT => {
            let asked: Vec<Asked> = ranges(client).filter_map(Asked::read).collect();
            // The places of several parts are in the body, of which the client reads them.
            let are_several = asked.len() > 1 && is_multipart(answer.get(header::CONTENT_TYPE));
            match answer.get(header::CONTENT_RANGE).map(place) {
                _ if asked.is_empty() => Some(NOT_ASKED),
                None if are_several => None,
                None | Some(None) => Some(NO_PLACE),
                // Of several it may be one, or all as one with what is between.
                Some(Some(place)) => {
                    let is_asked =
                        asked.iter().any(|one| one.begins(&place)) && asked.iter().any(|one| one.ends(&place));
                    let length = answer.get(header::CONTENT_LENGTH).and_then(|value| number(value.to_str().ok()?));
                    match length {
                        _ if !is_asked => Some(OTHER_PART),
                        // The difference is one less than the length of the part, which may be more than a number holds.
                        Some(length) if length.checked_sub(1) != Some(place.last - place.first) => Some(OTHER_LENGTH),
                        Some(_) | None => None,
                    }
                }
            }
        }
        _ => None,
    }
}

/// How long a body is that is one part, by its place: its `Content-Length` may say nothing. Longer than a number holds is none.
pub(crate) fn length_of_part(answer: &HeaderMap) -> Option<u64> {
    let place = answer.get(header::CONTENT_RANGE).and_then(place)?;
    (place.last - place.first).checked_add(1)
}

/// Several parts as one body, with a boundary between them.
pub(crate) fn is_multipart(kind: Option<&HeaderValue>) -> bool {
    kind.is_some_and(|kind| begins(kind.as_bytes(), b"multipart/byteranges"))
}

/// `Range: bytes=0-1,4-5`.
pub(crate) fn are_several(client: &HeaderMap) -> bool {
    ranges(client).nth(1).is_some()
}

/// The text of each range of bytes; other units count as no range (section 14.2).
fn ranges(client: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = client.get_all(header::RANGE).iter().filter_map(|value| value.to_str().ok());
    let of_bytes =
        values.filter_map(|value| value.split_once('=').filter(|(unit, _)| unit.eq_ignore_ascii_case("bytes")));
    of_bytes.flat_map(|(_, ranges)| ranges.split(',')).map(|range| range.trim_matches([' ', '\t']))
}

impl Asked {
    fn read(range: &str) -> Option<Self> {
        let (first, last) = range.split_once('-')?;
        match (first, last) {
            ("", last) => Some(Self::Last(number(last)?)),
            (first, "") => Some(Self::From(number(first)?, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From(first, Some(last)))
            }
        }
    }

    /// The part begins where this does.
    fn begins(self, place: &Place) -> bool {
        match (self, place.length) {
            (Self::From(first, _), _) => place.first == first,
            (Self::Last(count), Some(length)) => place.first == length.saturating_sub(count),
            (Self::Last(count), None) => place.last - place.first < count,
        }
    }

    /// The part ends where this does, or with the blob: not all clients ask for the rest of one that is shorter.
    fn ends(self, place: &Place) -> bool {
        let last = match self {
            Self::From(_, last) => last.unwrap_or(u64::MAX),
            Self::Last(_) => u64::MAX,
        };
        match place.length {
            Some(length) => place.last == last.min(length.saturating_sub(1)),
            None => place.last <= last,
        }
    }

    /// A blob of this length has some of it.
    fn is_within(self, length: u64) -> bool {
        match self {
            Self::From(first, _) => first < length,
            Self::Last(count) => count.min(length) > 0,
        }
    }
}

/// Where a part is in its blob: its first and last byte, and how long the blob is, if that is said.
struct Place {
    first: u64,
    last: u64,
    length: Option<u64>,
}

/// Of `Content-Range: bytes 0-9/100` or `bytes 0-9/*`.
fn place(value: &HeaderValue) -> Option<Place> {
    let (unit, range) = value.to_str().ok()?.split_once(' ')?;
    let (range, length) = range.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let length = if length == "*" { None } else { Some(number(length)?) };
    let is_whole = unit.eq_ignore_ascii_case("bytes") && first <= last && length.is_none_or(|length| last < length);
    is_whole.then_some(Place { first, last, length })
}

/// Of `Content-Range: bytes */100`, which comes with a 416: how long the blob is.
fn length(value: &HeaderValue) -> Option<u64> {
    let (unit, length) = value.to_str().ok()?.split_once(" */")?;
    if unit.eq_ignore_ascii_case("bytes") { number(length) } else { None }
}

/// Digits; more of them than a blob can have are the largest number.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_an_answer_only_to_who_asks_for_it() {
        const PARTS: &str = "multipart/byteranges; boundary=x";
        let headers = |fields: &[(header::HeaderName, &'static str)]| {
            let there = fields.iter().filter(|(_, value)| !value.is_empty());
            there.map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect::<HeaderMap>()
        };
        for (asked, status, place, kind, expected) in [
            ("", 200, "", "", None),
            ("bytes=0-9", 200, "", "", None),
            ("", 206, "", "", Some(NOT_ASKED)),
            ("", 206, "bytes 0-9/10", "", Some(NOT_ASKED)),
            ("", 416, "bytes */5", "", Some(NOT_ASKED)),
            ("bytes=9-", 416, "bytes */5", "", None),
            ("bytes=9-", 416, "", "", None),
            ("bytes=5-2", 416, "bytes */9", "", None),
            ("bytes=-0", 416, "bytes */9", "", None),
            ("bytes=-5", 416, "bytes */0", "", None),
            ("items=0-9", 416, "bytes */5", "", Some(NOT_ASKED)),
            ("bytes=0-9", 416, "bytes */5", "", Some(HAS_IT)),
            ("bytes=-5", 416, "bytes */9", "", Some(HAS_IT)),
            ("bytes=0-1,4-5", 416, "bytes */9", "", None),
            ("items=0-9", 206, "bytes 0-9/10", "", Some(NOT_ASKED)),
            ("bytes=5-2", 206, "bytes 2-5/10", "", Some(NOT_ASKED)),
            ("bytes=0-9", 206, "", "", Some(NO_PLACE)),
            ("bytes=0-9", 206, "", PARTS, Some(NO_PLACE)),
            ("bytes=0-9", 206, "bytes 9-0/10", "", Some(NO_PLACE)),
            ("bytes=0-9", 206, "bytes 0-9/9", "", Some(NO_PLACE)),
            ("bytes=0-9", 206, "bytes */10", "", Some(NO_PLACE)),
            ("bytes=0-9", 206, "bytes 100-109/999", "", Some(OTHER_PART)),
            ("bytes=0-9", 206, "bytes 0-10/999", "", Some(OTHER_PART)),
            ("bytes=0-9", 206, "bytes 0-9/999", "", None),
            ("Bytes=0-9", 206, "bytes 0-9/*", "", None),
            // The blob ends there, or nobody says where.
            ("bytes=0-9", 206, "bytes 0-4/*", "", None),
            ("bytes=0-9", 206, "bytes 0-4/5", "", None),
            ("bytes=7-", 206, "bytes 7-99/100", "", None),
            ("bytes=7-99999999999999999999999", 206, "bytes 7-99/100", "", None),
            ("bytes=7-", 206, "bytes 0-99/100", "", Some(OTHER_PART)),
            ("bytes=-5", 206, "bytes 95-99/100", "", None),
            ("bytes=-5", 206, "bytes 0-2/3", "", None),
            ("bytes=-5", 206, "bytes 0-4/100", "", Some(OTHER_PART)),
            ("bytes=-5", 206, "bytes 90-99/*", "", Some(OTHER_PART)),
            ("bytes=0-1,4-5", 206, "", PARTS, None),
            ("bytes=0-1,4-5", 206, "", "text/html", Some(NO_PLACE)),
            ("bytes=0-1, 4-5", 206, "bytes 4-5/9", "", None),
            ("bytes=0-1,4-5", 206, "bytes 0-5/9", "", None),
            ("bytes=0-1,4-5", 206, "bytes 2-3/9", "", Some(OTHER_PART)),
            // Less than was asked for.
            ("bytes=0-9", 206, "bytes 0-4/100", "", Some(OTHER_PART)),
            ("bytes=7-", 206, "bytes 7-50/100", "", Some(OTHER_PART)),
            ("bytes=-5", 206, "bytes 95-96/100", "", Some(OTHER_PART)),
            ("bytes=0-1,4-5", 206, "bytes 4-4/9", "", Some(OTHER_PART)),
        ] {
            let client = headers(&[(header::RANGE, asked)]);
            let answer = headers(&[(header::CONTENT_RANGE, place), (header::CONTENT_TYPE, kind)]);
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(contradicts(status, &answer, &client), expected, "{asked} {status} {place} {kind}");
        }
    }

    #[test]
    fn a_part_whose_length_is_not_that_of_the_place_that_it_names_was_an_answer() {
        for (asked, place, length, expected) in [
            ("bytes=0-9", "bytes 0-9/10", "10", None),
            ("bytes=0-9", "bytes 0-9/10", "", None),
            ("bytes=0-9", "bytes 0-9/10", "9", Some(OTHER_LENGTH)),
            ("bytes=0-9", "bytes 0-9/10", "11", Some(OTHER_LENGTH)),
            ("bytes=0-", "bytes 0-0/1", "0", Some(OTHER_LENGTH)),
            ("bytes=0-9", "bytes 5-9/10", "9", Some(OTHER_PART)),
            ("bytes=0-", "bytes 0-18446744073709551614/*", "18446744073709551615", None),
        ] {
            let client = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static(asked))]);
            let mut answer = HeaderMap::from_iter([(header::CONTENT_RANGE, HeaderValue::from_static(place))]);
            if !length.is_empty() {
                answer.insert(header::CONTENT_LENGTH, HeaderValue::from_static(length));
            }
            let found = contradicts(StatusCode::PARTIAL_CONTENT, &answer, &client);
            assert_eq!(found, expected, "{asked} {place} {length}");
        }
    }
}
