//! The span of a request under way: begun when its header is read, if it is sampled, and the parent of what the registry does.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderValue;

use super::trace::Trace;
use crate::otlp::{Ids, Span, Spans, Value};

/// The flags of `traceparent`: that it is sampled, and that its id is random (W3C Trace Context level 2).
const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

/// A span whose request is under way.
pub(crate) struct Begun {
    spans: Arc<Spans>,
    ids: Ids,
    state: Option<HeaderValue>,
    started: SystemTime,
}

/// Begins the span of a request, if it is sampled: the trace for the registry is then the one from this span on. A trace that is
/// not sampled stays as it is, and where there is none none begins.
pub(crate) fn begin(spans: &Arc<Spans>, trace: Option<Trace>) -> (Option<Trace>, Option<Begun>) {
    let client = trace.as_ref().and_then(Trace::parent);
    let (id, parent, flags) = match client {
        Some((id, parent, flags)) => (id, Some(parent), flags & RANDOM | SAMPLED),
        // 0 is no id.
        None => (rand::random::<u128>().max(1), None, RANDOM | SAMPLED),
    };
    if !spans.takes(id, client.map(|(.., flags)| flags & SAMPLED != 0)) {
        return (trace, None);
    }
    let ids = Ids { trace: id, span: rand::random::<u64>().max(1), parent, flags };
    let state = trace.as_ref().and_then(Trace::state).cloned();
    let begun = Begun { spans: Arc::clone(spans), ids, state: state.clone(), started: SystemTime::now() };
    (Trace::below(ids, state), Some(begun))
}

impl Begun {
    /// The request is over, and its span goes to those that wait for the collector.
    pub(crate) fn end(
        self,
        name: String,
        elapsed: Duration,
        attributes: Vec<(&'static str, Value)>,
        error: Option<String>,
    ) {
        let Self { spans, ids, state, started } = self;
        let state = state.as_ref().and_then(|state| state.to_str().ok()).unwrap_or_default().to_owned();
        spans.push(Span { ids, state, name, started, elapsed, attributes, error });
    }
}
