//! Whatever a balancer sends: a header ends at one place, whatever follows it and in whatever pieces it comes, and is bounded.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy_protocol::{is_begun, parse};

/// The bound of version 2, which is the larger one.
const MAX: usize = 1024;

fuzz_target!(|bytes: &[u8]| {
    let found = parse(bytes);
    let followed = [bytes, b"GET / HTTP/1.1\r\n"].concat();
    match found {
        Ok(Some(header)) => {
            assert!(header.length <= bytes.len() && header.length <= MAX);
            assert!(is_begun(bytes));
            assert_eq!(parse(&followed), found, "what follows changes nothing");
            for shorter in 0..header.length {
                assert_eq!(parse(&bytes[..shorter]), Ok(None), "no part of it is a header");
            }
        }
        Ok(None) => assert!(bytes.len() < MAX, "a header that needs more is short"),
        Err(_) => assert!(parse(&followed).is_err(), "what is wrong stays wrong"),
    }
});
