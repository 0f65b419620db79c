//! What becomes of the spans of requests.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::label::labels;

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
#[derive(Debug, Default)]
pub(crate) struct SpanMeter([AtomicU64; SpanResult::ALL.len()]);

impl SpanMeter {
    /// So many have ended like this.
    #[cfg(feature = "otlp")]
    pub(crate) fn add(&self, result: SpanResult, count: u64) {
        self.0[result as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// How many have.
    pub(crate) fn get(&self, result: SpanResult) -> u64 {
        self.0[result as usize].load(Ordering::Relaxed)
    }
}
