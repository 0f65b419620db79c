//! One line a request.

use std::fmt::Write as _;

use log::{Level, log};
use pingora_core::Error;
use pingora_proxy::Session;

use super::context::Context;
use super::storage::Storage;

/// `logging`: who, what, outcome, how long. What is written is an allow-list: no header of either
/// side but ACR's correlation id, and no query, for a redirect's would carry a signature.
pub fn line(session: &Session, error: Option<&Error>, context: &Context) {
    let failed = context.trouble.is_some() || error.is_some();
    let level = if failed { Level::Warn } else { Level::Info };
    let request = session.req_header();
    let status = session.response_written().map_or(0, |response| response.status.as_u16());
    log!(
        target: "access", level,
        "{} {} {status} {}B {}ms client={} repository={} upstream={} tries={}{}{}{}",
        request.method,
        Path(request.uri.path()),
        session.body_bytes_sent(),
        context.elapsed().as_millis(),
        Show(session.client_addr()),
        if context.repository().is_empty() { "-" } else { context.repository() },
        Show(context.address()),
        1 + context.refused + context.replays as usize + usize::from(context.renewed) + usize::from(context.narrowed),
        Prefixed(" storage=", context.storage.as_ref().map(Storage::host)),
        Prefixed(" correlation=", context.correlation.as_ref().and_then(|value| value.to_str().ok())),
        Prefixed(" error=", outcome(error, context).as_deref()),
    );
}

fn outcome(error: Option<&Error>, context: &Context) -> Option<String> {
    match (&context.trouble, error) {
        (Some(trouble), _) => Some(trouble.to_string()),
        (None, Some(error)) => Some(format!("{} {}", error.esource().as_str(), error.etype().as_str())),
        (None, None) => None,
    }
}

/// The longest path that is a pull has a name, an endpoint and a digest.
const MAX_PATH: usize = 1024;

/// A client's path as one word: what is no visible ASCII is escaped, and a longer one is cut.
struct Path<'a>(&'a str);

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.len() <= MAX_PATH && self.0.bytes().all(|byte| byte.is_ascii_graphic()) {
            return f.write_str(self.0);
        }
        for c in self.0.chars().take(MAX_PATH) {
            if c.is_ascii_graphic() { f.write_char(c) } else { write!(f, "{}", c.escape_unicode()) }?;
        }
        if self.0.len() > MAX_PATH { f.write_str("...") } else { Ok(()) }
    }
}

/// A value or a dash.
struct Show<T>(Option<T>);

impl<T: std::fmt::Display> std::fmt::Display for Show<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// A labelled value or nothing.
struct Prefixed<'a>(&'a str, Option<&'a str>);

impl std::fmt::Display for Prefixed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.1 {
            Some(value) => write!(f, "{}{value}", self.0),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_bounded_word_of_visible_ascii() {
        let long = "a".repeat(MAX_PATH + 1);
        for (path, expected) in [
            ("/v2/library/busybox/manifests/latest", "/v2/library/busybox/manifests/latest"),
            ("/v2/\u{9b}31m \x1b\u{e9}", "/v2/\\u{9b}31m\\u{20}\\u{1b}\\u{e9}"),
            (&long, &format!("{}...", &long[1..])),
        ] {
            assert_eq!(Path(path).to_string(), expected);
        }
    }
}
