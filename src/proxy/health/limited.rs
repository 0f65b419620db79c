//! Since when a registry asks for pauses, and when that is over: two lines in the log for each kind of call, however many pauses.
//!
//! A pause that follows another within [`QUIET`] is the same limit. The limit is over when that has passed, whether anybody asks or not.

use std::fmt::{self, Display, Formatter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Lasted;
use super::pause::{Call, QUIET};

/// Whether the registry limits requests.
#[derive(Default)]
pub(super) struct Limited {
    /// Some call is limited. Good answers, which are many, look at nothing else while none is.
    is_active: AtomicBool,
    episodes: Mutex<[Option<Episode>; 3]>,
}

/// One limit.
#[derive(Clone, Copy)]
struct Episode {
    since: Instant,
    until: Instant,
    pauses: u64,
    /// A good answer has come since the last pause.
    is_answered: bool,
}

/// A limit that is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Over {
    /// What was not asked for meanwhile.
    pub call: Call,
    /// How many pauses there were.
    pub pauses: u64,
    /// From the begin of the first one to the end of the last one.
    pub lasted: Duration,
}

impl Limited {
    /// A pause of this length begins. `is_new` as [`super::Pauses::answered`] says it; what was before is over then.
    pub(super) fn pause_begins(&self, call: Call, pause: Duration, is_new: bool) -> Option<Over> {
        let now = Instant::now();
        let episode = &mut self.episodes()[call as usize];
        let over = if is_new { episode.take().map(|episode| episode.over(call)) } else { None };
        let before = episode.unwrap_or(Episode { since: now, until: now, pauses: 0, is_answered: false });
        *episode = Some(Episode { until: now + pause, pauses: before.pauses + 1, is_answered: false, ..before });
        self.is_active.store(true, Ordering::Relaxed);
        over
    }

    /// The registry has given a good answer.
    pub(super) fn works(&self) {
        if !self.is_active() {
            return;
        }
        let now = Instant::now();
        for episode in self.episodes().iter_mut().flatten() {
            episode.is_answered |= episode.until <= now;
        }
    }

    /// What is over by now, each once.
    pub(super) fn over(&self) -> Vec<Over> {
        if !self.is_active() {
            return Vec::new();
        }
        let now = Instant::now();
        let mut episodes = self.episodes();
        let mut over = Vec::new();
        for call in Call::ALL {
            let episode = &mut episodes[call as usize];
            if let Some(ended) = episode.take_if(|episode| episode.until + QUIET <= now) {
                over.push(ended.over(call));
            }
        }
        // With the lock held, so that no pause begins in between.
        self.is_active.store(episodes.iter().any(Option::is_some), Ordering::Relaxed);
        over
    }

    /// A pause has ended a moment ago, and nobody knows yet whether the next request begins another.
    pub(super) fn is_open(&self) -> bool {
        if !self.is_active() {
            return false;
        }
        let now = Instant::now();
        self.episodes().iter().flatten().any(|episode| !episode.is_answered && now < episode.until + QUIET)
    }

    /// Some limit is not over, as far as anybody has looked.
    pub(super) fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Relaxed)
    }

    /// The array is never half changed.
    fn episodes(&self) -> MutexGuard<'_, [Option<Episode>; 3]> {
        self.episodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Episode {
    fn over(self, call: Call) -> Over {
        Over { call, pauses: self.pauses, lasted: self.until - self.since }
    }
}

impl Display for Over {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (calls, lasted) = (self.call.plural(), Lasted(self.lasted));
        write!(f, "the limit of {calls} is over: it has asked for ")?;
        match self.pauses {
            1 => write!(f, "one pause, of {lasted}"),
            pauses => write!(f, "{pauses} pauses, in {lasted}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// Of four pauses the log had one line, and never one that it was over.
    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_limit_is_told_with_its_pauses() {
        let limited = Limited::default();
        let seconds = Duration::from_secs;
        assert_eq!(limited.over(), []);
        assert_eq!(limited.pause_begins(Call::Manifest, seconds(3), true), None);
        for _ in 0..3 {
            advance(seconds(20)).await;
            assert!(limited.is_open(), "the end of a pause is no good answer");
            limited.works();
            assert_eq!(limited.over(), [], "between two pauses");
            assert!(!limited.is_open());
            assert_eq!(limited.pause_begins(Call::Manifest, seconds(3), false), None);
        }
        assert_eq!(limited.pause_begins(Call::Blob, seconds(60), true), None);
        advance(seconds(3) + QUIET).await;
        let lasted = seconds(63);
        assert_eq!(limited.over(), [Over { call: Call::Manifest, pauses: 4, lasted }]);
        assert_eq!(limited.over(), [], "told once");
        // Nobody has looked before the next one.
        advance(seconds(60) + QUIET).await;
        assert!(!limited.is_open(), "nobody has asked since");
        let over = Over { call: Call::Blob, pauses: 1, lasted: seconds(60) };
        assert_eq!(limited.pause_begins(Call::Blob, seconds(1), true), Some(over));
        advance(seconds(1) + QUIET).await;
        assert_eq!(limited.over(), [Over { call: Call::Blob, pauses: 1, lasted: seconds(1) }]);
        assert!(!limited.is_active());
    }

    /// "it has asked for a pause once", and not for how long.
    #[test]
    fn the_end_of_a_limit_of_one_pause_did_not_say_how_long_that_was() {
        for (pauses, seconds, said) in [(1, 17, "one pause, of 17 s"), (4, 63, "4 pauses, in 1 min 3 s")] {
            let over = Over { call: Call::Manifest, pauses, lasted: Duration::from_secs(seconds) };
            assert_eq!(over.to_string(), format!("the limit of manifests is over: it has asked for {said}"));
        }
    }
}
