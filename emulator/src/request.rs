//! A request that has been read, for the server that answers it.

use bytes::Bytes;
use hyper::Method;
use hyper::header::{HOST, HeaderMap};

use crate::query::{pairs, value};

/// A request, whole.
pub(crate) struct Request {
    pub(crate) method: Method,
    /// The path, percent-decoded once, as the registry's own router does.
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    /// All values of a header.
    pub(crate) fn header_values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        value(&self.query, name)
    }

    /// The body as a form.
    pub(crate) fn form(&self) -> Vec<(String, String)> {
        pairs(&self.body)
    }

    pub(crate) fn is_read(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    /// The `Host` that the client used, which Entra compares with the audience of assertions.
    pub(crate) fn host(&self) -> &str {
        self.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
    }
}
