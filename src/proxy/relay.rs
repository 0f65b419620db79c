//! The way back: what of the registry's answer is for the client.

use pingora::http::ResponseHeader;

/// Headers that speak of the registry's host or of its sign-in, which the client has no part in.
const DROPPED: [&str; 8] = [
    "www-authenticate",
    "proxy-authenticate",
    "authentication-info",
    "set-cookie",
    "strict-transport-security",
    "alt-svc",
    "access-control-expose-headers",
    "x-ms-ratelimit-remaining-calls-per-second",
];

/// `response_filter`: drops those; all else, above all a redirect's `Location` with its signature, is left alone.
pub fn clean(response: &mut ResponseHeader) {
    for name in DROPPED {
        response.remove_header(name);
    }
}
