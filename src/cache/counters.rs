//! What the cache has done, counted from the start of the process.

use std::sync::atomic::{AtomicU64, Ordering};

use super::entry::Kind;
use crate::label::{Counts, labels};

labels! {
    /// Why a request goes to the registry by itself, and nothing is kept of its answer.
    Reason {
        /// What is asked for is never kept: a HEAD of a blob.
        Kind = "kind",
        /// `Accept` names no type under which this could be served from what is kept.
        Accept = "accept",
        /// There are too many flights, or too many bytes in them.
        Full = "full",
        /// The answer is not one to keep: too large, packed, or without a digest by which it could be checked.
        Answer = "answer",
        /// The flight ended without a result, by a fault of this proxy's own.
        Fault = "fault",
    }
}

/// Relaxed counters; each only grows.
#[derive(Default)]
pub(crate) struct Counters {
    hits: Counts<Kind, { Kind::ALL.len() }>,
    misses: AtomicU64,
    collapsed: AtomicU64,
    stale: AtomicU64,
    stale_unasked: AtomicU64,
    passed: Counts<Reason, { Reason::ALL.len() }>,
}

impl Counters {
    /// A fresh entry of this kind was the answer.
    pub(crate) fn hit(&self, kind: Kind) {
        self.hits.add(kind);
    }

    /// A request started a flight and waited for it.
    pub(crate) fn miss(&self) {
        add(&self.misses);
    }

    /// A request waited for the flight of another one.
    pub(crate) fn collapsed(&self) {
        add(&self.collapsed);
    }

    /// A stale entry was the answer, in trouble or while the registry was asked behind it.
    pub(crate) fn stale(&self) {
        add(&self.stale);
    }

    /// No read was spent for such an answer: the request started no flight, or its flight found that the registry may not be
    /// asked, which may show after the answer.
    pub(crate) fn stale_unasked(&self) {
        add(&self.stale_unasked);
    }

    /// A request went to the registry by itself.
    pub(crate) fn passed(&self, reason: Reason) {
        self.passed.add(reason);
    }

    /// Hits of one kind.
    pub(crate) fn hits(&self, kind: Kind) -> u64 {
        self.hits.get(kind)
    }

    /// Misses, collapsed requests, stale answers.
    pub(crate) fn rest(&self) -> [u64; 3] {
        [&self.misses, &self.collapsed, &self.stale].map(|counter| counter.load(Ordering::Relaxed))
    }

    /// Requests for which no registry was asked by the cache. Only grows, as a counter of metrics has to, so what has passed then,
    /// because its client does not accept the type, is not taken off.
    pub(crate) fn saved(&self) -> u64 {
        let hits = Kind::ALL.iter().map(|kind| self.hits(*kind)).sum::<u64>();
        let rest = [&self.collapsed, &self.stale_unasked].map(|counter| counter.load(Ordering::Relaxed));
        hits + rest.iter().sum::<u64>()
    }

    /// Requests that passed, by reason.
    pub(crate) fn passes(&self, reason: Reason) -> u64 {
        self.passed.get(reason)
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_answer_behind_which_the_registry_was_asked_has_saved_no_read() {
        let counters = Counters::default();
        counters.hit(Kind::Tag);
        counters.collapsed();
        counters.miss();
        counters.stale();
        counters.stale();
        counters.stale_unasked();
        assert_eq!((counters.saved(), counters.rest()), (3, [1, 1, 2]));
    }
}
