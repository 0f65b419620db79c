//! A timer that ends soon, as long as requests come: with it the timers of the requests need no system call.
//!
//! A request sets a timer for each thing that it waits for, and drops nearly all of them before their time. Where a timer ends
//! before all those that tokio knew when it last waited, tokio writes to a descriptor of its own, so that it waits for a shorter
//! time. It does so on the very thread that is about to wait, too: some two writes a request. Next to a timer that ends before
//! theirs, requests write nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

/// How far away the timer is. It is below the shortest wait of a usual request, a second for the next one on the same connection,
/// and wakes up a busy thread only twice a second.
const NEAR: Duration = Duration::from_millis(500);

/// Of the runtime that [`Self::keep`] runs in.
#[derive(Default)]
pub(super) struct NearTimer {
    /// A request has come since the timer was set.
    came: AtomicBool,
    is_kept: AtomicBool,
    begin: Notify,
}

impl NearTimer {
    /// A request has come, or a connection.
    pub(super) fn request(&self) {
        // Most find both set, and write to nothing that threads share.
        if !self.came.load(Ordering::Relaxed) {
            self.came.store(true, Ordering::Relaxed);
        }
        if !self.is_kept.load(Ordering::Relaxed) && !self.is_kept.swap(true, Ordering::Relaxed) {
            self.begin.notify_one();
        }
    }

    /// Has the timer set as long as requests come, for ever. Where none come it waits without one, so that an idle process rests.
    pub(super) async fn keep(&self) {
        loop {
            self.begin.notified().await;
            while self.came.swap(false, Ordering::Relaxed) {
                sleep(NEAR).await;
            }
            // One that comes right here is found by the next: until then its timers cost a write.
            self.is_kept.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn there_is_a_timer_while_requests_come_and_none_afterwards() {
        let timer = Arc::new(NearTimer::default());
        let kept = tokio::spawn({
            let timer = Arc::clone(&timer);
            async move { timer.keep().await }
        });
        for _ in 0..3 {
            timer.request();
            tokio::task::yield_now().await;
            assert!(timer.is_kept.load(Ordering::Relaxed));
            // Paused time goes to the next timer that there is: the second one finds that nothing came, and there is no third.
            let begun = Instant::now();
            sleep(10 * NEAR).await;
            assert_eq!(begun.elapsed(), 10 * NEAR);
            assert!(!timer.is_kept.load(Ordering::Relaxed));
        }
        kept.abort();
    }
}
