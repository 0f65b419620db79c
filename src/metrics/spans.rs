//! What becomes of the spans of requests.

use crate::label::{Counts, labels};

labels! {
    /// What has become of a span.
    SpanResult {
        /// The collector has taken it.
        Exported = "exported",
        /// There was no room for it: it was dropped.
        QueueFull = "queue_full",
        /// The collector has not taken it in time, or has refused it.
        NotTaken = "not_taken",
    }
}

/// Counts them. Without the feature `otlp` there are none.
pub(crate) type SpanMeter = Counts<SpanResult, { SpanResult::ALL.len() }>;
