//! Whatever a request says of what it wants, it gets bytes of the body, the whole of it, or none; and only what it names is
//! known to it.
//!
//! The input is the length of a body, `G` or `H` for the method, and then, each after a line break: `Range`, `If-Range`,
//! `If-None-Match`, and the entity tag.

#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use libfuzzer_sys::fuzz_target;
use oci::condition::{Range, is_known, range};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fuzz_target!(|input: &[u8]| {
    let [length, method, rest @ ..] = input else { return };
    let mut lines = rest.split(|byte| *byte == b'\n').skip(1).map(|line| HeaderValue::from_bytes(line).ok());
    let mut headers = HeaderMap::new();
    let mut add = |name: HeaderName| {
        let value = lines.next().flatten().filter(|value| !value.is_empty());
        headers.extend(value.map(|value| (name, value)));
    };
    [header::RANGE, header::IF_RANGE, header::IF_NONE_MATCH].into_iter().for_each(&mut add);
    let etag = lines.next().flatten();
    let length = usize::from(*length);
    let method = if *method == b'H' { Method::HEAD } else { Method::GET };

    match range(&method, &headers, length, etag.as_ref()) {
        Range::Whole => {}
        Range::Part(part) => {
            assert!(part.start < part.end && part.end <= length, "{part:?} of {length}");
            // Written as one range, it is the same again.
            let written = format!("bytes={}-{}", part.start, part.end - 1);
            headers.insert(header::RANGE, written.parse().expect("a header"));
            assert_eq!(range(&method, &headers, length, etag.as_ref()), Range::Part(part));
            assert!(method == Method::GET);
        }
        Range::Unsatisfiable => assert!(method == Method::GET),
    }
    let names = |text: &[u8]| {
        let said = headers.get(header::IF_NONE_MATCH).map_or(&b""[..], HeaderValue::as_bytes);
        !text.is_empty() && said.windows(text.len()).any(|window| window == text)
    };
    if is_known(&headers, etag.as_ref(), DIGEST) {
        let etag = etag.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
        assert!(names(b"*") || names(etag) || names(DIGEST.as_bytes()), "known, and not named");
    }
});
