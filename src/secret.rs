//! Values that must not be seen: tokens, client secrets, signatures.

use std::fmt;

use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

/// What stands before a token in `Authorization` (RFC 6750 section 2.1).
pub(crate) const SCHEME: &str = "Bearer ";

/// A secret text. It displays as a mask, each copy is wiped when it is dropped, and only [`Secret::expose`] gives the
/// content, so that every use can be found.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership of the text; the caller keeps no copy.
    pub(crate) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for the one place that sends it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// `Bearer <secret>` as a header value. Its clones share one buffer, which is wiped after the last of them, and `Debug`
    /// masks it. `None` if the secret has a character that no header may carry.
    pub(crate) fn to_bearer(&self) -> Option<HeaderValue> {
        let mut text = Zeroizing::new(Vec::with_capacity(SCHEME.len() + self.0.len()));
        text.extend_from_slice(SCHEME.as_bytes());
        text.extend_from_slice(self.0.as_bytes());
        let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_a_mask() {
        let secret = Secret::new("eyJhbGciOi.token".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        let header = secret.to_bearer().expect("a valid header value");
        assert_eq!(format!("{header:?}"), "Sensitive");
        assert_eq!(header.as_bytes(), b"Bearer eyJhbGciOi.token");
    }

    #[test]
    fn a_token_with_a_line_break_is_refused_as_a_header() {
        assert!(Secret::new("a\r\nX-Evil: 1".to_owned()).to_bearer().is_none());
    }
}
