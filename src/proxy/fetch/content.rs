//! What clients may have of an answer.

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, header};
use pingora::http::ResponseHeader;

use crate::answer::{API_VERSION, AZURE_ORIGIN, CORRELATION_ID, DIGEST, correlation, pause_for_clients};
use crate::cache::Content;

/// The headers of an answer that every client may have. The length and the age are made with each answer.
static KEPT: [HeaderName; 9] = [
    header::CONTENT_TYPE,
    header::DATE,
    header::ETAG,
    header::LINK,
    header::LOCATION,
    DIGEST,
    API_VERSION,
    HeaderName::from_static("oci-filters-applied"),
    AZURE_ORIGIN,
];

/// More of an answer that is for those alone who wait for it.
static SHARED: [&HeaderName; 2] = [&header::RETRY_AFTER, &CORRELATION_ID];

/// Of an answer that may be kept.
pub(super) fn kept(response: &ResponseHeader, body: Bytes) -> Content {
    of(response, body, KEPT.iter())
}

/// Of an answer that is not kept.
pub(super) fn shared(response: &ResponseHeader, body: Bytes) -> Content {
    with_bounded_pause(response, of(response, body, KEPT.iter().chain(SHARED)))
}

/// The same without its body, where that could not be read: what counts is what its status says.
pub(super) fn bodiless(response: &ResponseHeader) -> Content {
    let names = KEPT.iter().filter(|name| **name != header::CONTENT_TYPE);
    with_bounded_pause(response, of(response, Bytes::new(), names.chain(SHARED)))
}

/// Who has met a limit waits no longer than those whom this proxy answers after it.
fn with_bounded_pause(response: &ResponseHeader, mut content: Content) -> Content {
    match pause_for_clients(&response.headers) {
        Some(pause) => {
            for (_, value) in content.headers.iter_mut().filter(|(name, _)| *name == header::RETRY_AFTER) {
                *value = pause.clone();
            }
        }
        None => content.headers.retain(|(name, _)| *name != header::RETRY_AFTER),
    }
    content
}

/// The values are copied, all into one piece of memory: those of the response share the buffer that it was read into, which
/// would be kept with them.
fn of<'a>(response: &ResponseHeader, body: Bytes, names: impl Iterator<Item = &'a HeaderName>) -> Content {
    let is_for_clients = |name: &&HeaderName| **name != CORRELATION_ID || correlation(&response.headers).is_some();
    let names = names.filter(is_for_clients);
    let found: Vec<_> = names.flat_map(|name| values(response, name).map(move |value| (name, value))).collect();
    let mut values = BytesMut::with_capacity(found.iter().map(|(_, value)| value.len()).sum());
    for (_, value) in &found {
        values.extend_from_slice(value);
    }
    let mut values = values.freeze();
    let mut headers = Vec::with_capacity(found.len());
    for (name, value) in &found {
        let value = values.split_to(value.len());
        headers.extend(HeaderValue::from_maybe_shared(value).ok().map(|value| ((*name).clone(), value)));
    }
    Content { status: response.status, headers, body, manifest: None, digest: None }
}

/// All values of a header that is a list, the first one of any other: what is checked is what clients get.
fn values<'a>(response: &'a ResponseHeader, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let most = if *name == header::LINK { usize::MAX } else { 1 };
    response.headers.get_all(name).iter().take(most).map(HeaderValue::as_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_shares_no_memory_with_the_response() {
        let read = Bytes::from(b"application/json;padding;\"etag\";padding".to_vec());
        let mut response = ResponseHeader::build(404, None).expect("a status");
        for (name, range) in [("content-type", 0..16), ("etag", 25..31)] {
            let value = HeaderValue::from_maybe_shared(read.slice(range)).expect("a value");
            response.insert_header(name, value).expect("a header");
        }
        response.insert_header("set-cookie", "x").expect("a header");
        response.insert_header("retry-after", "1").expect("a header");
        let content = kept(&response, Bytes::new());
        let expected = [("content-type", "application/json"), ("etag", "\"etag\"")];
        let found = content.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text")));
        assert_eq!(found.collect::<Vec<_>>(), expected);
        assert_eq!(content.headers.capacity(), expected.len());
        drop(response);
        assert!(read.is_unique(), "the buffer of the response is free");
        let response = ResponseHeader::build(503, None).expect("a status");
        assert!(bodiless(&response).headers.is_empty());
    }

    #[test]
    fn a_second_digest_type_or_location_which_nothing_has_checked_goes_to_no_client() {
        let mut response = ResponseHeader::build(200, None).expect("a status");
        let names = ["content-type", "docker-content-digest", "etag", "location", "link"];
        for (value, name) in ["first", "second"].into_iter().flat_map(|value| names.map(|name| (value, name))) {
            response.append_header(name, value).expect("a header");
        }
        let content = shared(&response, Bytes::new());
        let of = |name: &str| content.headers.iter().filter(|(known, _)| known == name).count();
        assert_eq!(names.map(of), [1, 1, 1, 1, 2]);
        assert_eq!(content.headers.iter().filter(|(_, value)| value == "second").count(), 1, "of a list");
    }
}
