//! Makes the message of a server safe to log: one line of bounded length, without tokens.

use serde::Deserialize;

/// Characters kept from the beginning of a long text.
const MAX_HEAD: usize = 300;
/// Characters kept from its end. Azure puts trace ID, correlation ID and time there, which its support asks for; those of
/// Entra ID have 131 characters.
const MAX_TAIL: usize = 160;
const CUT: &str = " ... ";

/// Every token begins with this: it is the base64 of `{"` (RFC 7519 section 3).
const TOKEN: &str = "eyJ";
/// Shorter words that begin with the same letters are not tokens.
const MIN_TOKEN: usize = 16;
const LEFT_OUT: &str = "(a token)";

/// The text on one line; `None` if it is empty. The middle of a long text is left out, cut between words. Tokens are
/// replaced, because a server may quote the request that it refuses.
pub fn quoted(text: &str) -> Option<String> {
    let text: Vec<char> = without_tokens(text).trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.len() <= MAX_HEAD + MAX_TAIL {
        return (!text.is_empty()).then(|| text.into_iter().collect());
    }
    let (head, rest) = text.split_at(MAX_HEAD);
    let tail = &rest[rest.len() - MAX_TAIL..];
    // A single word that is longer is cut inside.
    let head = head.rsplitn(2, |c| *c == ' ').last().unwrap_or(head);
    let tail = tail.splitn(2, |c| *c == ' ').last().unwrap_or(tail);
    Some(head.iter().chain(&CUT.chars().collect::<Vec<_>>()).chain(tail).collect())
}

fn without_tokens(text: &str) -> String {
    let mut parts = text.split(TOKEN);
    let mut safe = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let length = part.find(|c: char| !c.is_ascii_alphanumeric() && !"-_.+/=".contains(c)).unwrap_or(part.len());
        let (token, rest) = part.split_at(length);
        // A token that follows another one without a separator belongs to it.
        match TOKEN.len() + length < MIN_TOKEN && !safe.ends_with(LEFT_OUT) {
            true => safe.extend([TOKEN, token]),
            false if safe.ends_with(LEFT_OUT) => {}
            false => safe.push_str(LEFT_OUT),
        }
        safe.push_str(rest);
    }
    safe
}

/// Code and message of the first error in a body; `None` if the body is not an OCI error.
pub fn registry_error(body: &[u8]) -> (Option<String>, Option<String>) {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let first = serde_json::from_slice::<Body>(body).ok().and_then(|body| body.errors.into_iter().next());
    first.map_or((None, None), |first| (quoted(&first.code), quoted(&first.message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_message_is_one_bounded_line() {
        assert_eq!(quoted("a\r\nb"), Some("a  b".to_owned()));
        assert_eq!(quoted(&"x".repeat(5000)).map(|text| text.len()), Some(MAX_HEAD + CUT.len() + MAX_TAIL));
        assert_eq!(quoted(" \n"), None);
    }

    #[test]
    fn tokens_in_a_servers_message_are_not_quoted() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzZWNyZXQifQ.c2lnbmF0dXJl-_c";
        for (text, expected) in [
            (format!("refused: access_token={token}&service=x"), "refused: access_token=(a token)&service=x"),
            (format!("{token} {token}"), "(a token) (a token)"),
            (format!("Bearer {token}"), "Bearer (a token)"),
            (token[..40].to_owned(), "(a token)"),
            ("eyJx is no token".to_owned(), "eyJx is no token"),
        ] {
            assert_eq!(quoted(&text).as_deref(), Some(expected), "{text}");
        }
        // Also where the text is cut in the middle of it.
        let long = format!("{}{token}{}", "x".repeat(MAX_HEAD - 10), "y".repeat(500));
        assert!(!quoted(&long).expect("words").contains("eyJ"));
    }

    #[test]
    fn a_long_text_keeps_azures_ids_and_is_cut_between_words() {
        let ids = "Trace ID: 0f6a1b2c-0000-4000-8000-000000000000 Correlation ID: 1f6a1b2c-0000-4000-8000-000000000000 \
                   Timestamp: 2026-11-25 10:00:00Z";
        let long = format!("AADSTS7000215: {}{ids}", "some words ".repeat(40));
        let text = quoted(&long).expect("words");
        assert!(text.starts_with("AADSTS7000215: some words") && text.ends_with(ids), "{text}");
        assert!(text.contains(" some ... words "), "{text}");
        let fits = format!("AADSTS7000215: {}{ids}", "some words ".repeat(20));
        assert_eq!(quoted(&fits), Some(fits));
    }

    #[test]
    fn only_an_oci_error_body_has_a_code_and_a_message() {
        let body = br#"{"errors":[{"code":"DENIED","message":"retrieving permissions failed"}]}"#;
        assert_eq!(registry_error(body), (Some("DENIED".to_owned()), Some("retrieving permissions failed".to_owned())));
        assert_eq!(registry_error(b"<html>"), (None, None));
    }
}
