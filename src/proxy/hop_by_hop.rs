//! `Connection`: the options that it lists name headers which are for one connection only (RFC 9110 section 7.6.1).
//!
//! Pingora has the same rules for a request that it sends itself. They are here because a request for a blob is also sent
//! by `blob::locate`, and because what is malformed is to be refused before it waits for a token.

use http::{HeaderMap, HeaderName, header};

/// As many as Pingora allows; real clients send one.
const MAX_OPTIONS: usize = 9;
/// A sender that lists one of these wants to hide the host or the client's address from the next server.
const PROTECTED: [&str; 4] = ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
/// These say where a body ends. They are never for one connection only, whatever the sender lists.
const FRAMING: [HeaderName; 2] = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

/// Every option is a token (RFC 9110 section 5.6.2), none is protected, and there are no more than [`MAX_OPTIONS`].
pub(crate) fn is_valid(request: &HeaderMap) -> bool {
    options(request).nth(MAX_OPTIONS).is_none()
        && options(request).all(|option| {
            let is_protected = PROTECTED.iter().any(|name| option.eq_ignore_ascii_case(name.as_bytes()));
            !is_protected && option.iter().all(|&byte| is_token_byte(byte))
        })
}

/// The headers that are there and that `Connection` lists. Allocates nothing.
pub(crate) fn listed(headers: &HeaderMap) -> impl Iterator<Item = &HeaderName> {
    let find = |option: &[u8]| headers.keys().find(|name| option.eq_ignore_ascii_case(name.as_str().as_bytes()));
    options(headers).filter_map(find).filter(|name| !FRAMING.contains(name))
}

fn options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(header::CONNECTION).into_iter();
    let options = values.flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    options.map(<[u8]>::trim_ascii).filter(|option| !option.is_empty())
}

/// Whether a token may contain this byte (RFC 9110 section 5.6.2). A method is a token, and so is the name of a header.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(connection: &[&'static str]) -> HeaderMap {
        connection.iter().map(|value| (header::CONNECTION, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn connection_lists_tokens_that_are_not_protected() {
        for (connection, expected) in [
            (&[][..], true),
            (&["close"], true),
            (&["keep-alive, X-A,, Accept"], true),
            (&["a,b,c,d,e", "f,g,h,i"], true),
            (&["a,b,c,d,e", "f,g,h,i,j"], false),
            (&["close", "HOST"], false),
            (&["x-forwarded-for"], false),
            (&[":authority"], false),
            (&["\"X-A\""], false),
            (&["keep-alive, a b"], false),
        ] {
            assert_eq!(is_valid(&of(connection)), expected, "{connection:?}");
        }
    }

    #[test]
    fn a_listed_header_is_found_in_any_letter_case_and_framing_never() {
        let mut headers = of(&["keep-alive, ETag", "Content-Length"]);
        for name in [header::ETAG, header::CONTENT_LENGTH, header::DATE] {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        assert_eq!(listed(&headers).collect::<Vec<_>>(), [&header::ETAG]);
    }
}
