//! Since when stale answers stand in for a registry, and when that is over: two lines in the log, however many answers.
//!
//! A trouble of the whole registry is over with its next good answer. One repository's is over when that repository's objects
//! have a good answer: that others are served, as they were all the time, says nothing about it.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Lasted;

/// A registry that serves some requests and refuses others is not well: so long after a stale answer, a good one counts.
const QUIET: Duration = Duration::from_secs(5);
/// An object that nobody has asked for in this time is waited for no longer. Kubernetes asks for an image every five minutes at
/// least.
const FORGOTTEN: Duration = Duration::from_secs(10 * 60);
/// Objects that are waited for; of more than these the rest is taken to do as they do.
const MAX_OBJECTS: usize = 1024;

/// Whether stale answers stand in.
#[derive(Default)]
pub(super) struct Stale {
    /// There is an episode. Good answers, which are many, look at nothing else while there is none.
    is_active: AtomicBool,
    /// Since the start of the process.
    answers: AtomicU64,
    episode: Mutex<Option<Episode>>,
    hasher: RandomState,
}

/// One time of trouble.
struct Episode {
    since: Instant,
    answers: u64,
    /// The last answer that was stale because of the whole registry.
    registry: Option<Instant>,
    /// The others' objects, by the hash of their paths, and when each was answered last.
    objects: HashMap<u64, Instant>,
}

/// An episode that is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Over {
    answers: u64,
    lasted: Duration,
}

impl Stale {
    /// Stale answers since the start of the process.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// A stale answer. True if it is the first one.
    pub(super) fn answered(&self, path: &str, is_registrys: bool) -> bool {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.stands_in(path, is_registrys, 1)
    }

    /// A stale answer to a client that has not waited for the registry's, which may still come.
    pub(super) fn answered_meanwhile(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        if let Some(episode) = self.episode().as_mut() {
            episode.answers += 1;
        }
    }

    /// The registry has failed where something stale stands in. True if that begins with it.
    pub(super) fn stands_in(&self, path: &str, is_registrys: bool, answers: u64) -> bool {
        let now = Instant::now();
        let object = self.hasher.hash_one(path);
        let mut episode = self.episode();
        let is_first = episode.is_none();
        let episode =
            episode.get_or_insert_with(|| Episode { since: now, answers: 0, registry: None, objects: HashMap::new() });
        episode.answers += answers;
        if is_registrys {
            // What else has failed may have had the same cause, before it was known.
            episode.objects.clear();
            episode.registry = Some(now);
        } else if episode.objects.len() < MAX_OBJECTS || episode.objects.contains_key(&object) {
            episode.objects.insert(object, now);
        }
        self.is_active.store(true, Ordering::Release);
        is_first
    }

    /// A good answer. Returns the episode if it is over with this.
    pub(super) fn answered_fresh(&self, path: &str) -> Option<Over> {
        if !self.is_active.load(Ordering::Acquire) {
            return None;
        }
        let now = Instant::now();
        let mut guard = self.episode();
        let episode = guard.as_mut()?;
        episode.objects.remove(&self.hasher.hash_one(path));
        episode.objects.retain(|_, last| now.duration_since(*last) < FORGOTTEN);
        episode.registry = episode.registry.filter(|last| now.duration_since(*last) < QUIET);
        if episode.registry.is_some() || !episode.objects.is_empty() {
            return None;
        }
        let over = Over { answers: episode.answers, lasted: now.duration_since(episode.since) };
        *guard = None;
        self.is_active.store(false, Ordering::Release);
        Some(over)
    }

    /// No panic leaves an episode half changed.
    fn episode(&self) -> MutexGuard<'_, Option<Episode>> {
        self.episode.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Display for Over {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} were stale in {}", self.answers, Lasted(self.lasted))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn over(answers: u64, seconds: u64) -> Option<Over> {
        Some(Over { answers, lasted: Duration::from_secs(seconds) })
    }

    #[tokio::test(start_paused = true)]
    async fn a_registrys_trouble_ends_with_its_next_good_answer() {
        let stale = Stale::default();
        assert_eq!(stale.answered_fresh("/a"), None);
        assert!(stale.answered("/a", false) && !stale.answered("/b", true));
        advance(Duration::from_secs(120)).await;
        assert!(!stale.answered("/c", true));
        // A connection that was kept still works.
        assert_eq!(stale.answered_fresh("/d"), None);
        advance(QUIET).await;
        assert_eq!(stale.answered_fresh("/e"), over(3, 125));
        assert_eq!(stale.answered_fresh("/e"), None);
        assert!(stale.answered("/a", true));
    }

    /// A registry that hangs: clients have their stale answers before it is known that there is no other.
    #[tokio::test(start_paused = true)]
    async fn answers_that_were_given_meanwhile_are_counted_and_a_failure_begins_the_episode() {
        let stale = Stale::default();
        stale.answered_meanwhile();
        assert!(stale.stands_in("/a", true, 0));
        stale.answered_meanwhile();
        assert!(!stale.stands_in("/a", true, 0));
        assert_eq!(stale.answers(), 2);
        advance(QUIET).await;
        assert_eq!(stale.answered_fresh("/a"), over(1, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn the_good_answers_of_others_do_not_end_one_repositorys_trouble() {
        let stale = Stale::default();
        assert!(stale.answered("/a", false));
        for _ in 0..10 {
            advance(FORGOTTEN / 2).await;
            assert_eq!(stale.answered_fresh("/b"), None);
            assert!(!stale.answered("/a", false));
        }
        assert_eq!(stale.answered_fresh("/a"), over(11, 10 * 300));
        // Nobody asks for it any more.
        assert!(stale.answered("/a", false));
        advance(FORGOTTEN).await;
        assert_eq!(stale.answered_fresh("/b"), over(1, 600));
    }

    #[tokio::test(start_paused = true)]
    async fn objects_beyond_the_bound_do_as_the_others() {
        let stale = Stale::default();
        for object in 0..2 * MAX_OBJECTS {
            stale.answered(&object.to_string(), false);
        }
        for object in 0..MAX_OBJECTS - 1 {
            assert_eq!(stale.answered_fresh(&object.to_string()), None);
        }
        let over = stale.answered_fresh(&(MAX_OBJECTS - 1).to_string()).expect("the last of those that are known");
        assert_eq!(over.to_string(), "2048 were stale in 0 s");
    }
}
