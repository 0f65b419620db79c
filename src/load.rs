//! What this process carries at the moment, and the most that it takes on.
//!
//! Counters that are atomics: each request touches them, and none waits for another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use log::{info, warn};

/// The counters of one process.
pub struct Load {
    /// Connections of clients.
    pub connections: Arc<Bound>,
    /// Requests under way, over HTTP/1 and HTTP/2.
    pub requests: Arc<Bound>,
    /// Requests whose header was malformed, too large or too slow.
    pub bad_headers: AtomicU64,
}

impl Load {
    /// The most connections and requests at once.
    pub fn new(connections: usize, requests: usize) -> Self {
        Self {
            connections: Bound::new("connections", connections),
            requests: Bound::new("requests under way", requests),
            bad_headers: AtomicU64::new(0),
        }
    }
}

/// A count that has a bound. Entering never fails: who is over the bound learns it and answers with a refusal, which is
/// work under way, too. The log has one line when refusing begins and one when it ends.
pub struct Bound {
    what: &'static str,
    max: usize,
    count: AtomicUsize,
    refused: AtomicU64,
    is_full: AtomicBool,
}

impl Bound {
    /// `what` is counted, as the log names it; `max` may be under way at once.
    pub fn new(what: &'static str, max: usize) -> Arc<Self> {
        let (count, refused) = (AtomicUsize::new(0), AtomicU64::new(0));
        Arc::new(Self { what, max, count, refused, is_full: AtomicBool::new(false) })
    }

    /// One more, until the value that is returned is dropped.
    pub fn enter(self: &Arc<Self>) -> Place {
        let count = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        let over = count.saturating_sub(self.max);
        if over > 0 {
            self.refused.fetch_add(1, Ordering::Relaxed);
            if !self.is_full.swap(true, Ordering::AcqRel) {
                warn!("{}: {} is the most at once, refusing more", self.what, self.max);
            }
        }
        Place { bound: Arc::clone(self), over }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// The most at once.
    pub fn max(&self) -> usize {
        self.max
    }

    /// How many have been over the bound since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// An eighth of the room is left, or less.
    pub fn is_crowded(&self) -> bool {
        self.count() > self.crowded_from()
    }

    fn crowded_from(&self) -> usize {
        self.max - self.max / 8
    }
}

/// One of them.
pub struct Place {
    bound: Arc<Bound>,
    over: usize,
}

impl Place {
    /// By how many the bound was exceeded when this one came; 0 is within it.
    pub fn over(&self) -> usize {
        self.over
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let bound = &self.bound;
        let left = bound.count.fetch_sub(1, Ordering::AcqRel) - 1;
        // Some way below the bound, so that a load right at it does not fill the log.
        if bound.is_full.load(Ordering::Relaxed)
            && left <= bound.crowded_from()
            && bound.is_full.swap(false, Ordering::AcqRel)
        {
            info!("{}: there is room again, {} refused since the start", bound.what, bound.refused());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_over_the_bound_learns_by_how_much_and_is_counted() {
        let bound = Bound::new("tests", 8);
        let places: Vec<_> = (0..10).map(|_| bound.enter()).collect();
        assert_eq!(places.iter().map(Place::over).collect::<Vec<_>>(), [0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!((bound.count(), bound.refused(), bound.is_crowded()), (10, 2, true));
        drop(places);
        assert_eq!((bound.count(), bound.refused(), bound.is_crowded()), (0, 2, false));
        assert_eq!(bound.enter().over(), 0, "and there is room again");
    }
}
