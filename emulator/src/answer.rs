//! An answer as a server decides it, before it is sent.

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::Value;

use crate::gzip::Stored;

/// Status, headers and body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// Sent in chunks, without a `Content-Length`.
    pub(crate) chunked: bool,
}

impl Answer {
    pub(crate) fn new(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: Bytes::new(), chunked: false }
    }

    pub(crate) fn json(status: u16, value: &Value) -> Answer {
        Answer::new(status).header("Content-Type", "application/json; charset=utf-8").body(value.to_string())
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Answer {
        self.body = body.into();
        self
    }

    pub(crate) fn chunked(mut self) -> Answer {
        self.chunked = true;
        self
    }

    /// Compresses the body, if there is one.
    pub(crate) fn gzip(mut self) -> Answer {
        if self.body.is_empty() {
            return self;
        }
        let mut packed = Stored::new();
        packed.write(&self.body);
        self.body = packed.finish().into();
        self.header("Content-Encoding", "gzip")
    }

    /// Replaces a header, or adds it.
    pub(crate) fn set_header(&mut self, name: &str, value: &str) {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    /// The head in HTTP/1.1, for an answer after which the connection is closed.
    pub(crate) fn head(&self) -> String {
        let reason = StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        let headers = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        format!(
            "HTTP/1.1 {} {}\r\n{}Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.status,
            reason.unwrap_or_default(),
            headers.collect::<String>(),
            self.body.len(),
        )
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name))
    }
}
