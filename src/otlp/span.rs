//! What of a request is exported, before it is put into OTLP's messages, which the exporting thread does.

use std::time::{Duration, SystemTime};

/// How a span is found: in a trace, below its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    /// Of all spans of the trace; not 0.
    pub trace: u128,
    /// Of this one; not 0.
    pub span: u64,
    /// The client's span, if the request came with one.
    pub parent: Option<u64>,
    /// Those of `traceparent`.
    pub flags: u8,
}

/// The span of one request that is over. Its texts are bounded by who makes it.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// How it is found.
    pub ids: Ids,
    /// `tracestate`, as it came.
    pub state: String,
    /// The method, and what kind of path it was for.
    pub name: String,
    /// When the request's header was read.
    pub started: SystemTime,
    /// From then to the end of the answer.
    pub elapsed: Duration,
    /// By the semantic conventions for HTTP servers, and ours.
    pub attributes: Vec<(&'static str, Value)>,
    /// The request has failed for no fault of its client's, and why.
    pub error: Option<String>,
}

/// What an attribute has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// Seconds.
    Seconds(Duration),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
