//! Whether a registry is known to be down: then nobody waits for it, and one probe at a time looks whether it is back.
//!
//! Requests that fail begin the suspicion, and a probe has to confirm it: a repository whose source is in trouble fails alone,
//! and the others must not suffer for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::proxy::fail::Trouble;

/// Failures in a row, of requests and of probes, until the registry is down. One is a connection that broke, two may follow
/// from one packet that was lost.
const FAILURES: u32 = 3;

/// The breaker of one registry.
#[derive(Default)]
pub(super) struct Breaker {
    /// There is something to forget. Good answers, which are many, look at nothing else while there is not.
    is_suspected: AtomicBool,
    state: Mutex<State>,
    /// For those who wait for the registry: it is down from now on.
    opened: Notify,
}

#[derive(Default)]
struct State {
    /// Without a good answer in between.
    failures: u32,
    down: Option<Down>,
    /// A probe is under way, or waits for its turn.
    is_probed: bool,
}

/// Why a registry is down, and since when.
#[derive(Clone)]
struct Down {
    since: Instant,
    cause: Arc<Trouble>,
}

impl Breaker {
    /// Something has failed since the last good answer.
    pub(super) fn is_suspected(&self) -> bool {
        self.is_suspected.load(Ordering::Acquire)
    }

    /// Why nothing is asked of the registry.
    pub(super) fn down(&self) -> Option<Arc<Trouble>> {
        if !self.is_suspected() {
            return None;
        }
        self.state().down.as_ref().map(|down| Arc::clone(&down.cause))
    }

    /// Waits until the registry is down; returns why.
    pub(super) async fn opens(&self) -> Arc<Trouble> {
        loop {
            // Made before the state is looked at, or what happens in between would not be heard.
            let opened = self.opened.notified();
            if let Some(cause) = self.down() {
                return cause;
            }
            opened.await;
        }
    }

    /// A request has failed, or takes long. True if a probe has to be started.
    pub(super) fn suspected(&self, has_failed: bool) -> bool {
        let mut state = self.state();
        state.failures += u32::from(has_failed);
        self.is_suspected.store(true, Ordering::Release);
        !std::mem::replace(&mut state.is_probed, true)
    }

    /// The registry has answered something. Returns how long it was down, if it was.
    pub(super) fn works(&self) -> Option<Duration> {
        if !self.is_suspected() {
            return None;
        }
        let mut state = self.state();
        state.failures = 0;
        self.is_suspected.store(false, Ordering::Release);
        state.down.take().map(|down| down.since.elapsed())
    }

    /// A probe has failed, by this cause. True if the registry is down from now on.
    pub(super) fn probe_failed(&self, cause: &Trouble) -> bool {
        let mut state = self.state();
        if !self.is_suspected() {
            return false;
        }
        state.failures += 1;
        if state.down.is_some() || state.failures < FAILURES {
            return false;
        }
        state.down = Some(Down { since: Instant::now(), cause: Arc::new(cause.clone()) });
        drop(state);
        self.opened.notify_waiters();
        true
    }

    /// Nobody probes any more. What is still suspected is forgotten: nobody would find out that it is over.
    pub(super) fn probes_end(&self) {
        let mut state = self.state();
        *state = State::default();
        self.is_suspected.store(false, Ordering::Release);
    }

    /// No panic leaves a state half changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn fail(breaker: &Breaker) -> bool {
        breaker.probe_failed(&Trouble::Silent)
    }

    #[tokio::test(start_paused = true)]
    async fn requests_and_probes_that_fail_in_a_row_open_it_and_one_answer_closes_it() {
        let breaker = Breaker::default();
        assert!(breaker.suspected(true));
        assert!(breaker.down().is_none(), "no probe has confirmed it");
        assert_eq!((fail(&breaker), fail(&breaker)), (false, true));
        assert!(matches!(breaker.down().as_deref(), Some(Trouble::Silent)));
        advance(Duration::from_secs(9)).await;
        assert!(!fail(&breaker) && breaker.down().is_some(), "it still is");
        assert_eq!(breaker.works(), Some(Duration::from_secs(9)));
        assert!(breaker.down().is_none() && breaker.works().is_none());
        assert!(!fail(&breaker), "the probe that was under way meanwhile");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_told_when_it_opens_and_not_before() {
        let breaker = Arc::new(Breaker::default());
        let waits: Vec<_> = (0..3)
            .map(|_| {
                let breaker = Arc::clone(&breaker);
                tokio::spawn(async move { breaker.opens().await })
            })
            .collect();
        breaker.suspected(true);
        fail(&breaker);
        advance(Duration::from_secs(60)).await;
        assert!(waits.iter().all(|wait| !wait.is_finished()), "it is suspected and no more");
        assert!(fail(&breaker));
        for wait in waits {
            assert!(matches!(*wait.await.expect("no panic"), Trouble::Silent));
        }
        assert!(matches!(*breaker.opens().await, Trouble::Silent), "who comes later waits for nothing");
    }

    #[test]
    fn failures_of_requests_alone_open_nothing_and_no_second_probe_begins_before_the_first_ends() {
        let breaker = Breaker::default();
        assert!(breaker.suspected(true));
        for _ in 0..10 {
            assert!(!breaker.suspected(true), "one at a time");
        }
        assert!(breaker.down().is_none());
        breaker.works();
        assert!(!breaker.suspected(true), "the probe is still under way");
        assert!(!fail(&breaker), "the good answer counts");
        breaker.probes_end();
        assert!(breaker.suspected(false));
        assert_eq!((fail(&breaker), fail(&breaker), fail(&breaker)), (false, false, true));
        breaker.probes_end();
        assert!(breaker.down().is_none(), "or it would be down for ever");
    }
}
