//! Whether what was answered is the content that was asked for: all of it, by its digest, or the first byte of a layer.

use http::{HeaderMap, StatusCode, header};

use super::client::{Answer, Call};
use super::failure::Failure;
use crate::answer::is_of_type;
use crate::digest;

/// The content is what its digest says.
pub(super) fn check_all(call: &Call, digest: &str, answer: &Answer) -> Result<(), Failure> {
    match digest::is_of(digest, &answer.body) {
        Some(true) => Ok(()),
        Some(false) => Err(match not_of_an_image(answer) {
            Some(what) => Failure::intercepted(&call.hop, &call.name, what),
            None => {
                let what = format_args!("do not use this image: its content is not {digest}");
                Failure::content(&call.hop, &call.name, what)
            }
        }),
        None => {
            let what = format_args!("its digest cannot be checked, only sha256 and sha512 can: {digest}");
            Err(Failure::content(&call.hop, &call.name, what))
        }
    }
}

/// A successful answer has the first byte of a layer of so many bytes.
pub(super) fn check_first_byte(call: &Call, size: u64, answer: &Answer) -> Result<(), Failure> {
    let wrong = not_of_an_image(answer).or_else(|| not_of_size(size, answer));
    wrong.map_or(Ok(()), |what| Err(Failure::intercepted(&call.hop, &call.name, what)))
}

/// What an answer is that no registry or storage gives for content: a page for people, or nothing.
fn not_of_an_image(answer: &Answer) -> Option<String> {
    let status = answer.status.as_u16();
    match is_of_type(&answer.headers, "text/html") {
        true => Some(format!("{status} with text/html")),
        false => answer.body.is_empty().then(|| format!("{status} without content")),
    }
}

/// What is wrong with the part of a layer that an answer has: 200 has all of it, because some storage ignores `Range`.
fn not_of_size(size: u64, answer: &Answer) -> Option<String> {
    let status = answer.status.as_u16();
    // Of what is compressed for the way, lengths are not those of the layer.
    let total = (!answer.headers.contains_key(header::CONTENT_ENCODING)).then_some(size);
    let other = |found: u64| {
        total.filter(|total| *total != found).map(|total| format!("a length of {found} in place of {total}"))
    };
    let wrong = match answer.status {
        StatusCode::OK => answer.header(header::CONTENT_LENGTH.as_str())?.parse().ok().and_then(other),
        StatusCode::PARTIAL_CONTENT => match first_of(&answer.headers) {
            Some(found) if answer.body.len() == 1 => found.and_then(other),
            Some(_) => Some("more than the one byte that was asked for".to_owned()),
            None => Some("another part than the first byte".to_owned()),
        },
        _ => Some("no content".to_owned()),
    };
    wrong.map(|what| format!("{status} with {what}"))
}

/// The length of the whole, if it is told, where `Content-Range` says that the part is the first byte (RFC 9110 section 14.4).
fn first_of(headers: &HeaderMap) -> Option<Option<u64>> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (unit, range) = range.split_once(' ')?;
    let total = range.trim().strip_prefix("0-0/").filter(|_| unit.eq_ignore_ascii_case("bytes"))?;
    if total == "*" { Some(None) } else { total.parse().ok().map(Some) }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use reqwest::Url;

    use super::super::client::Take;
    use super::super::failure::Hop;
    use super::*;

    #[test]
    fn the_first_byte_of_a_layer_is_in_a_206_for_it_or_in_a_200_with_all() {
        let call = Call {
            hop: Hop::Storage { host: "blob.example".to_owned(), is_kept: false },
            method: Method::GET,
            url: Url::parse("https://blob.example/").expect("an address"),
            name: "GET".to_owned(),
            headers: &[],
            take: Take::FirstByte,
        };
        for (status, headers, body, wrong) in [
            (206, &[("content-range", "bytes 0-0/9")][..], "x", None),
            (206, &[("content-range", "bytes 0-0/*")], "x", None),
            (206, &[("content-range", "Bytes 0-0/9")], "x", None),
            (200, &[("content-length", "9")], "xx", None),
            (200, &[], "x", None),
            (200, &[("content-length", "5"), ("content-encoding", "gzip")], "x", None),
            (200, &[("content-type", "application/octet-stream")], "x", None),
            (206, &[("content-range", "bytes 5-6/9")], "xx", Some("206 with another part than the first byte")),
            (206, &[], "x", Some("206 with another part than the first byte")),
            (
                206,
                &[("content-range", "bytes 0-0/9")],
                "xx",
                Some("206 with more than the one byte that was asked for"),
            ),
            (206, &[("content-range", "bytes 0-0/9")], "", Some("206 without content")),
            (206, &[("content-range", "bytes 0-0/8")], "x", Some("206 with a length of 8 in place of 9")),
            (200, &[("content-length", "8")], "xx", Some("200 with a length of 8 in place of 9")),
            (200, &[("content-length", "0")], "", Some("200 without content")),
            (200, &[("content-type", "Text/HTML; charset=utf-8")], "<", Some("200 with text/html")),
            (204, &[], "", Some("204 without content")),
            (202, &[], "x", Some("202 with no content")),
        ] {
            let headers =
                headers.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
            let status = StatusCode::from_u16(status).expect("a status");
            let answer = Answer { status, headers: headers.collect(), body: body.into(), given_up: None };
            let said = check_first_byte(&call, 9, &answer).err().map(|failure| failure.to_string());
            let told = said.as_ref().and_then(|said| said.rsplit_once(": ")).map(|(_, what)| what);
            assert_eq!(told, wrong, "{answer:?}");
        }
    }
}
