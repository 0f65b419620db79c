//! Query strings and forms, read and written.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What Go's `url.QueryEscape` leaves as it is, of the characters that occur here.
const GO: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The fields of a query string or a form, decoded.
pub(crate) fn pairs(encoded: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(encoded).into_owned().collect()
}

/// The first value of a field.
pub(crate) fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Escapes as Go's `url.QueryEscape`, with which registries write their links.
pub(crate) fn escape(text: &str) -> String {
    utf8_percent_encode(text, GO).to_string()
}
