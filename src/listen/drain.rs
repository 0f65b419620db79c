//! The drain: after a signal the process waits for what is under way, for as long as that takes and no longer.
//!
//! What is under way holds a guard of [`Load`]: an open listener for clients, a connection, a request. The drain is told when one of
//! these counts changes. The admin listener is open all the while, so that whoever watches the process sees how it ends.
//!
//! One race remains: if the client's last handshake packet arrives after the listening socket has closed, the kernel resets
//! the connection.

use std::time::Duration;

use log::{info, warn};
use pingora_core::server::ShutdownWatch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::load::Load;

/// A client that is connected when the drain begins has this long to send its request's header. On a new connection it sends
/// that at once, and clients do not retry what fails on a connection that has served nothing yet. On a kept connection a
/// request may be on its way; it is answered, too, with `Connection: close`.
const REQUEST_WAIT: Duration = Duration::from_secs(1);

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing is under way any more.
    Whole,
    /// The time is over. The requests that are left have to be dropped.
    CutOff,
}

/// Waits until no request is under way and none can come any more, for `timeout` at most: all listeners and connections are
/// closed, or none of them was opened or closed, and no request has ended, for [`REQUEST_WAIT`]: the end of an answer over
/// HTTP/2 is written by its connection, which closes then. On a host that is short of processor time, bytes that
/// came long ago are still to be read; while connections come and go, that second begins anew.
pub(crate) async fn drained(load: &Load, timeout: Duration) -> Drained {
    let changes = load.watch();
    let begun = Instant::now();
    info!("stopping: {} requests under way, at most {} s", load.requests.count(), timeout.as_secs());
    let deadline = begun + timeout;
    let (mut counts, mut changed) = ((load.sources(), load.requests.count()), begun);
    loop {
        let (sources, left) = (load.sources(), load.requests.count());
        if (sources, left) != counts {
            (counts, changed) = ((sources, left), Instant::now());
        }
        let quiet = changed + REQUEST_WAIT;
        let now = Instant::now();
        // Whoever looks at the process in the meantime is answered, and holds nothing up.
        let is_over = sources == 0 && load.admin_connections.count() == 0;
        if left == 0 && (is_over || now >= quiet) {
            info!("stopped");
            return Drained::Whole;
        }
        if now >= deadline {
            warn!("stopped after {} s: {left} requests under way are cut off", timeout.as_secs());
            return Drained::CutOff;
        }
        let until = if left == 0 { quiet.min(deadline) } else { deadline };
        tokio::select! {
            () = changes.next() => {}
            () = sleep_until(until) => {}
        }
    }
}

/// Returns when a connection on which no request has come ends because of a drain.
pub(crate) async fn ends_idle(shutdown: &ShutdownWatch) {
    // An error means that nobody is left who could begin one: that is one, too.
    let _ = shutdown.clone().wait_for(|stop| *stop).await;
    sleep(REQUEST_WAIT).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::watch;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(25);

    /// How a drain of this load ends, and after which time of the paused clock.
    async fn drain(load: &Load) -> (Drained, Duration) {
        let begun = Instant::now();
        let drained = tokio::time::timeout(2 * TIMEOUT, drained(load, TIMEOUT)).await.expect("a drain has an end");
        (drained, begun.elapsed())
    }

    /// Timers have a resolution of a millisecond.
    fn is_about(took: Duration, expected: Duration) -> bool {
        took >= expected && took <= expected + Duration::from_millis(5)
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_process_ends_at_once() {
        assert_eq!(drain(&Load::new(8, 8)).await, (Drained::Whole, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_guard_ends_the_drain_in_that_moment() {
        for kind in 0..4 {
            let load = Arc::new(Load::new(8, 8));
            let limits = [&load.listeners, &load.connections, &load.admin_connections, &load.requests];
            let (guard, hold) = (limits[kind].enter(), Duration::from_millis(700));
            let holder = tokio::spawn(async move {
                sleep(hold).await;
                drop(guard);
            });
            let (end, took) = drain(&load).await;
            assert!(end == Drained::Whole && is_about(took, hold), "{kind}: {end:?} {took:?}");
            holder.await.expect("it ends");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_has_a_second_to_send_a_request() {
        let load = Load::new(8, 8);
        let _idle = load.connections.enter();
        let (end, took) = drain(&load).await;
        assert!(end == Drained::Whole && is_about(took, REQUEST_WAIT), "{end:?} {took:?}");
    }

    /// A connection that closes half a second after the signal, a request that ends after three.
    #[tokio::test(start_paused = true)]
    async fn a_request_holds_the_drain_and_connections_a_second_longer() {
        for (closes, ends, expected) in [(500, 0, 1500), (500, 3000, 4000), (2500, 3000, 4000), (2500, 0, 1000)] {
            let load = Load::new(8, 8);
            let _idle = load.connections.enter();
            let (connection, request) = (load.connections.enter(), (ends > 0).then(|| load.requests.enter()));
            let others = async {
                let begun = Instant::now();
                let first = sleep_until(begun + Duration::from_millis(closes));
                first.await;
                drop(connection);
                sleep_until(begun + Duration::from_millis(ends)).await;
                drop(request);
                std::future::pending::<()>().await;
            };
            let (end, took) =
                tokio::select! { ended = drain(&load) => ended, () = others => unreachable!("it never ends") };
            assert!(end == Drained::Whole && is_about(took, Duration::from_millis(expected)), "{expected}: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_end_is_cut_off_after_the_time_limit() {
        let load = Load::new(8, 8);
        let _request = load.requests.enter();
        let (end, took) = drain(&load).await;
        assert!(end == Drained::CutOff && is_about(took, TIMEOUT), "{end:?} {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_a_second_after_the_drain_has_begun() {
        for begins in [0, 5000] {
            let (stop, shutdown) = watch::channel(false);
            let begins = Duration::from_millis(begins);
            tokio::spawn(async move {
                sleep(begins).await;
                stop.send_replace(true);
                std::future::pending::<()>().await;
            });
            let begun = Instant::now();
            ends_idle(&shutdown).await;
            assert!(is_about(begun.elapsed(), begins + REQUEST_WAIT), "{begins:?}: {:?}", begun.elapsed());
        }
    }
}
