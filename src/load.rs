//! What this process has under way: counted, bounded, and awaited at the end.
//!
//! The counters are atomics: each request touches them, and none waits for another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use log::{info, warn};
use tokio::sync::Notify;

use crate::access::{Gate, Reason, Rules};

pub(crate) mod opening;

use opening::Openings;

/// Connections to the admin listener at once: a few probes and scrapers. The bound is its own, so that clients of the
/// mirror cannot use it up; one more has an earlier one end.
const MAX_ADMIN_CONNECTIONS: usize = 32;

/// TLS handshakes at once. One takes a millisecond of processor time, so this many are a second's work; what takes longer
/// waits for a slow client, and may wait for 10 s.
const MAX_HANDSHAKES: usize = 1024;

/// The counters of one process. The process does not end on what they count, see [`crate::listen::drain`].
pub(crate) struct Load {
    /// Listening sockets for clients that are open.
    pub listeners: Arc<Limit>,
    /// Connections of clients.
    pub connections: Arc<Limit>,
    /// Connections to the admin listener.
    pub admin_connections: Arc<Limit>,
    /// Requests under way, over HTTP/1 and HTTP/2.
    pub requests: Arc<Limit>,
    /// Requests whose header was malformed, too large or too slow.
    pub bad_headers: AtomicU64,
    /// TLS handshakes under way.
    pub handshakes: Arc<Limit>,
    /// What came of connections before their first request.
    pub openings: Openings,
    /// The process is about to end, and no balancer should send clients here any more.
    is_stopping: AtomicBool,
    /// Which clients may pull, and how much each.
    pub gate: Gate,
}

impl Load {
    /// The most connections of clients and requests at once.
    pub(crate) fn new(connections: usize, requests: usize) -> Self {
        Self {
            listeners: Limit::new("listeners", usize::MAX),
            connections: Limit::new("connections", connections),
            admin_connections: Limit::new("connections to the admin listener", MAX_ADMIN_CONNECTIONS),
            requests: Limit::new("requests under way", requests),
            bad_headers: AtomicU64::new(0),
            handshakes: Limit::new("TLS handshakes", MAX_HANDSHAKES),
            openings: Openings::default(),
            is_stopping: AtomicBool::new(false),
            gate: Gate::new(Rules::default()),
        }
    }

    /// A header was refused, over HTTP/1 or HTTP/2.
    pub(crate) fn refuse_header(&self, why: Reason) {
        self.bad_headers.fetch_add(1, Ordering::Relaxed);
        self.gate.refusals().count(why);
    }

    /// From now on the process is about to end.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    /// Whether the process is about to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// What may still bring a request that [`Self::requests`] does not count yet: a listener's queue, a connection whose next
    /// request has not come to the end of its header, one of HTTP/2.
    pub(crate) fn sources(&self) -> usize {
        self.listeners.count() + self.connections.count()
    }

    /// From now on each change of a counter is told, to one task. To be called before the counters are read.
    pub(crate) fn watch(&self) -> Changes<'_> {
        let limits = [&self.listeners, &self.connections, &self.admin_connections, &self.requests];
        for limit in limits {
            limit.count.fetch_or(WATCHED, Ordering::AcqRel);
        }
        Changes(limits.map(|limit| &limit.changed))
    }
}

/// Changes of the counters of a [`Load`].
pub(crate) struct Changes<'a>([&'a Notify; 4]);

impl Changes<'_> {
    /// Waits for a change since the last call. Cancel safe.
    pub(crate) async fn next(&self) {
        let [listeners, connections, admin_connections, requests] = self.0;
        tokio::select! {
            () = listeners.notified() => {}
            () = connections.notified() => {}
            () = admin_connections.notified() => {}
            () = requests.notified() => {}
        }
    }
}

/// Set in a counter whose changes somebody waits for, so that nobody else pays for telling them.
const WATCHED: usize = 1 << (usize::BITS - 1);

/// A counter with a bound. Entering never fails: who is over the bound learns it and answers with a refusal, which is work
/// under way, too. The log has one line when refusing begins and one when it ends.
pub(crate) struct Limit {
    what: &'static str,
    max: usize,
    /// The count, and [`WATCHED`]: in one word, so that no change falls between the two.
    count: AtomicUsize,
    changed: Notify,
    refused: AtomicU64,
    is_full: AtomicBool,
}

impl Limit {
    /// `what` is counted, as the log names it; `max` may be under way at once.
    pub(crate) fn new(what: &'static str, max: usize) -> Arc<Self> {
        Arc::new(Self {
            what,
            max,
            count: AtomicUsize::new(0),
            changed: Notify::new(),
            refused: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
        })
    }

    /// Counts one more, until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Guard {
        let before = self.count.fetch_add(1, Ordering::AcqRel);
        self.tell(before);
        let guard = Guard { limit: Arc::clone(self), count: (before & !WATCHED) + 1 };
        if guard.excess() > 0 {
            self.refused.fetch_add(1, Ordering::Relaxed);
            if !self.is_full.swap(true, Ordering::AcqRel) {
                warn!("{}: {} is the most at once, refusing more", self.what, self.max);
            }
        }
        guard
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire) & !WATCHED
    }

    /// The most at once.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// How many have been over the bound since the start.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// At most an eighth of the room is left.
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.count() > self.nearly_full()
    }

    fn nearly_full(&self) -> usize {
        self.max - self.max / 8
    }

    fn tell(&self, before: usize) {
        if before & WATCHED != 0 {
            self.changed.notify_one();
        }
    }
}

/// Held by what is counted, for as long as it is under way.
pub(crate) struct Guard {
    limit: Arc<Limit>,
    /// How many there were with it.
    count: usize,
}

impl Guard {
    /// By how much the bound was exceeded on entering; 0 is within it.
    pub(crate) fn excess(&self) -> usize {
        self.count.saturating_sub(self.limit.max)
    }

    /// How many more there could be on entering.
    pub(crate) fn left(&self) -> usize {
        self.limit.max.saturating_sub(self.count)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let limit = &self.limit;
        let before = limit.count.fetch_sub(1, Ordering::AcqRel);
        limit.tell(before);
        // Some way below the bound, so that a load right at it does not fill the log.
        if limit.is_full.load(Ordering::Relaxed)
            && (before & !WATCHED) - 1 <= limit.nearly_full()
            && limit.is_full.swap(false, Ordering::AcqRel)
        {
            info!("{}: there is room again, {} refused since the start", limit.what, limit.refused());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[test]
    fn the_excess_over_the_bound_is_told_and_counted() {
        let limit = Limit::new("tests", 8);
        let guards: Vec<_> = (0..10).map(|_| limit.enter()).collect();
        assert_eq!(guards.iter().map(Guard::excess).collect::<Vec<_>>(), [0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(guards.iter().map(Guard::left).collect::<Vec<_>>(), [7, 6, 5, 4, 3, 2, 1, 0, 0, 0]);
        assert_eq!((limit.count(), limit.refused(), limit.is_nearly_full()), (10, 2, true));
        drop(guards);
        assert_eq!((limit.count(), limit.refused(), limit.is_nearly_full()), (0, 2, false));
        assert_eq!(limit.enter().excess(), 0, "and there is room again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_counter_that_is_watched_tells_its_changes_and_still_counts() {
        let load = Load::new(1, 1);
        let (first, wait) = (load.requests.enter(), Duration::from_secs(1));
        let changes = load.watch();
        assert!(timeout(wait, changes.next()).await.is_err(), "nothing has changed");
        let second = load.requests.enter();
        assert_eq!((load.requests.count(), first.excess(), second.excess()), (2, 0, 1));
        for guard in [first, second] {
            assert!(timeout(wait, changes.next()).await.is_ok(), "a change before the call");
            drop(guard);
        }
        assert!(timeout(wait, changes.next()).await.is_ok());
        assert!(timeout(wait, changes.next()).await.is_err(), "each change is told once");
        assert_eq!((load.requests.count(), load.sources()), (0, 0));
    }
}
