//! When a request may go out where the settings say how many a minute: in order of arrival.

use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A request waits for its turn no longer than this. The rest of what clients wait for an answer is the registry's.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);
/// A tenth of a minute's reads may go out at once. The others follow evenly, so that no minute has more than all.
const BURST_PART: u32 = 10;

/// The reads a minute that one registry is asked for. A read is paid for when it is given its turn.
pub(super) struct Budget {
    reads_per_minute: NonZeroU32,
    /// From one read to the next, once the burst is used up.
    interval: Duration,
    /// How far ahead of that the reads may be.
    ahead: Duration,
    /// When the next read would go out if they went evenly.
    next: Mutex<Instant>,
}

impl Budget {
    /// So many reads a minute: a tenth of them at once, and nine tenths evenly.
    pub(super) fn new(reads_per_minute: NonZeroU32) -> Self {
        let reads = reads_per_minute.get();
        let burst = (reads / BURST_PART).max(1);
        // Rounded up.
        let interval = MINUTE / (reads - burst).max(1) + Duration::from_nanos(1);
        Self { reads_per_minute, interval, ahead: interval * (burst - 1), next: Mutex::new(Instant::now()) }
    }

    /// How long the next read has to wait. It has its turn then, whether or not it still wants it. `Err` if that would be too
    /// long, with the time until a wait would be short enough.
    pub(super) fn take(&self) -> Result<Duration, Duration> {
        let now = Instant::now();
        let mut next = self.next();
        let due = (*next).max(now);
        let wait = (due - now).saturating_sub(self.ahead);
        if wait > MAX_WAIT {
            return Err(wait - MAX_WAIT);
        }
        *next = due + self.interval;
        Ok(wait)
    }

    /// Takes a turn for a read that no client waits for, if one is spare: nobody waits for a turn, and half of the burst is left to
    /// clients.
    pub(super) fn take_spare(&self) -> bool {
        let now = Instant::now();
        let mut next = self.next();
        let due = (*next).max(now);
        let is_spare = due - now <= self.ahead / 2;
        if is_spare {
            *next = due + self.interval;
        }
        is_spare
    }

    /// The reads a minute, and how long one that came now would wait.
    pub(super) fn state(&self) -> (NonZeroU32, Duration) {
        let wait = self.next().saturating_duration_since(Instant::now()).saturating_sub(self.ahead);
        (self.reads_per_minute, wait)
    }

    /// A read goes out without its turn: a request is sent again. Those that come after it wait longer.
    pub(super) fn overdraw(&self) {
        let now = Instant::now();
        let mut next = self.next();
        // Bounded, so that a time in which much is sent again is over soon afterwards.
        *next = ((*next).max(now) + self.interval).min(now + MINUTE);
    }

    /// A time cannot be half changed.
    fn next(&self) -> MutexGuard<'_, Instant> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn budget(reads: u32) -> Budget {
        Budget::new(NonZeroU32::new(reads).expect("not zero"))
    }

    /// When reads go out that come as fast as they can, for this many seconds.
    async fn times(budget: &Budget, seconds: u64) -> Vec<Duration> {
        let start = Instant::now();
        let mut times = Vec::new();
        while start.elapsed() < Duration::from_secs(seconds) {
            if let Ok(wait) = budget.take() {
                times.push(start.elapsed() + wait);
            } else {
                advance(Duration::from_millis(100)).await;
            }
        }
        times
    }

    #[tokio::test(start_paused = true)]
    async fn no_minute_has_more_reads_than_the_setting_and_little_is_wasted() {
        for reads in [60, 61, 1000, 5000, 100_000] {
            let times = times(&budget(reads), 200).await;
            let in_minute = |from: Duration| times.iter().filter(|time| (from..from + MINUTE).contains(*time)).count();
            let most =
                times.iter().step_by((times.len() / 500).max(1)).map(|from| in_minute(*from)).max().unwrap_or_default();
            assert!(most <= reads as usize, "{reads}: {most}");
            assert!(most >= reads as usize * 9 / 10, "{reads}: {most}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_order_of_arrival_and_what_would_wait_too_long_is_told_for_how_long() {
        let budget = budget(600);
        let waits: Vec<_> = (0..200).map_while(|_| budget.take().ok()).collect();
        assert!(waits.is_sorted() && waits.iter().filter(|wait| wait.is_zero()).count() == 60, "{waits:?}");
        assert!(waits.last().is_some_and(|wait| *wait <= MAX_WAIT));
        let refused = budget.take().expect_err("too long");
        advance(refused).await;
        assert!(budget.take().is_ok_and(|wait| wait <= MAX_WAIT));
        assert!(budget.take().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_leaves_half_of_the_burst_and_never_waits() {
        for (reads, most) in [(600, 30), (60, 3)] {
            let budget = budget(reads);
            assert_eq!((0..100).take_while(|_| budget.take_spare()).count(), most, "{reads}");
            let at_once = (0..100).take_while(|_| budget.take() == Ok(Duration::ZERO)).count();
            assert_eq!(at_once, (reads / BURST_PART) as usize - most, "{reads}");
            // A client waits by now.
            assert!(budget.take().is_ok(), "{reads}");
            advance(budget.interval).await;
            assert!(!budget.take_spare(), "{reads}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_again_is_paid_by_those_who_come_later() {
        let budget = budget(60);
        assert_eq!(budget.take(), Ok(Duration::ZERO));
        let (before, mut after) = (budget.interval * 2, Duration::ZERO);
        for _ in 0..6 {
            budget.overdraw();
        }
        if let Ok(wait) = budget.take() {
            after = wait;
        }
        assert!(after >= before || budget.take().is_err(), "{after:?}");
    }
}
