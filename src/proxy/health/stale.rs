//! Since when stale answers stand in for a registry, and when that is over: two lines in the log, however many answers.
//!
//! A trouble of the whole registry is over with its next good answer. One repository's is over when that repository has good answers
//! again, whichever of its objects clients ask for; that others are served, as they were all the time, says nothing about it.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Lasted;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::target::Target;

/// Who serves some requests and refuses others is not well: so long after a stale answer, a good one counts.
const QUIET: Duration = Duration::from_secs(5);
/// An object that nobody has asked for in this time is waited for no longer. Kubernetes asks for an image every five minutes at
/// least.
const FORGOTTEN: Duration = Duration::from_secs(10 * 60);
/// So long after a stale answer it may be expected that clients still live on them.
const RECENT: Duration = Duration::from_secs(60);
/// Repositories that have lines of their own at a time: a trouble of more is told by these.
const MAX_REPOSITORIES: usize = 8;
/// Objects of one repository that are waited for; of more than these the rest is taken to do as they do.
const MAX_OBJECTS: usize = 128;

/// Whether stale answers stand in.
#[derive(Default)]
pub(super) struct Stale {
    /// Something is stale. Good answers, which are many, look at nothing else while nothing is.
    is_active: AtomicBool,
    /// Since the start of the process.
    answers: AtomicU64,
    episodes: Mutex<Episodes>,
    hasher: RandomState,
}

/// What an answer is of.
#[derive(Clone, Copy)]
pub(super) struct Object<'a> {
    repository: &'a str,
    path: &'a str,
    /// For a tag the registry asks the source of a cache rule; what it has under a digest it serves while that is in trouble.
    is_tag: bool,
}

/// The times of trouble that are not over.
#[derive(Default)]
struct Episodes {
    /// Of the whole registry, and its last stale answer.
    registry: Option<(Episode, Instant)>,
    /// Of single repositories, by their names.
    repositories: HashMap<Box<str>, Repository>,
}

/// One time of trouble.
#[derive(Clone, Copy)]
struct Episode {
    since: Instant,
    answers: u64,
}

/// The trouble of one repository.
struct Repository {
    episode: Episode,
    /// What was stale, by the hash of its path.
    objects: HashMap<u64, Failed>,
}

/// When an object was stale last.
struct Failed {
    last: Instant,
    is_tag: bool,
}

/// An episode that is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Over {
    answers: u64,
    lasted: Duration,
    /// The repository, if it was one's alone.
    repository: Option<Box<str>>,
}

impl Episode {
    /// So many answers were stale. True if they are the first.
    fn answered(&mut self, answers: u64) -> bool {
        let is_first = self.answers == 0 && answers > 0;
        self.answers += answers;
        is_first
    }
}

impl<'a> Object<'a> {
    pub(super) fn of(target: &'a Target) -> Self {
        let is_tag = target.endpoint() == Endpoint::Manifest && !target.is_by_digest();
        Self { repository: target.repository(), path: target.path(), is_tag }
    }
}

impl Stale {
    /// Nothing is stale, and the count goes on.
    pub(super) fn after(before: &Self) -> Self {
        Self { answers: AtomicU64::new(before.answers()), ..Self::default() }
    }

    /// Stale answers since the start of the process.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// A stale answer. True if it is the first of a time of trouble.
    pub(super) fn answered(&self, object: Object<'_>, is_registrys: bool) -> bool {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.stands_in(object, is_registrys, 1)
    }

    /// A stale answer to a client that has not waited longer for the registry's, which may still come. True if it is the first of a
    /// time of trouble: as far as can be told then, it is the registry that is slow.
    pub(super) fn answered_meanwhile(&self, object: Object<'_>) -> bool {
        self.answers.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut episodes = self.episodes();
        let Episodes { registry, repositories } = &mut *episodes;
        if let Some(repository) = repositories.get_mut(object.repository) {
            return repository.episode.answered(1);
        }
        self.is_active.store(true, Ordering::Release);
        let (episode, last) = registry.get_or_insert((Episode { since: now, answers: 0 }, now));
        *last = now;
        episode.answered(1)
    }

    /// The registry has failed where something stale stands in, for so many answers. True if they are the first of a time of trouble;
    /// one without any is not told, for nothing was stale.
    pub(super) fn stands_in(&self, object: Object<'_>, is_registrys: bool, answers: u64) -> bool {
        let now = Instant::now();
        let path = self.hasher.hash_one(object.path);
        let mut episodes = self.episodes();
        self.is_active.store(true, Ordering::Release);
        let new = Episode { since: now, answers: 0 };
        let Episodes { registry, repositories } = &mut *episodes;
        if is_registrys {
            let (episode, last) = registry.get_or_insert((new, now));
            // What else has failed may have had the same cause, before it was known.
            for (_, repository) in repositories.drain() {
                episode.since = episode.since.min(repository.episode.since);
                episode.answers += repository.episode.answers;
            }
            *last = now;
            return episode.answered(answers);
        }
        if let Some((episode, _)) = registry.as_mut().filter(|(_, last)| now.duration_since(*last) < QUIET) {
            return episode.answered(answers);
        }
        if !repositories.contains_key(object.repository) && repositories.len() >= MAX_REPOSITORIES {
            return false;
        }
        let repository = repositories
            .entry(object.repository.into())
            .or_insert_with(|| Repository { episode: new, objects: HashMap::new() });
        if repository.objects.len() < MAX_OBJECTS || repository.objects.contains_key(&path) {
            repository.objects.insert(path, Failed { last: now, is_tag: object.is_tag });
        }
        repository.episode.answered(answers)
    }

    /// A good answer. Returns what is over with this.
    pub(super) fn answered_fresh(&self, object: Object<'_>) -> Vec<Over> {
        if !self.is_active.load(Ordering::Acquire) {
            return Vec::new();
        }
        let now = Instant::now();
        let path = self.hasher.hash_one(object.path);
        let mut episodes = self.episodes();
        let mut over = Vec::new();
        let mut end = |Episode { since, answers }: Episode, repository| {
            // Its begin was not told either.
            if answers > 0 {
                over.push(Over { answers, lasted: now.duration_since(since), repository });
            }
        };
        if let Some((episode, _)) = episodes.registry.take_if(|(_, last)| now.duration_since(*last) >= QUIET) {
            end(episode, None);
        }
        episodes.repositories.retain(|name, Repository { episode, objects }| {
            let is_own = **name == *object.repository;
            objects.retain(|failed, Failed { last, is_tag }| {
                let quiet = now.duration_since(*last);
                let is_well = *failed == path || quiet >= QUIET && (object.is_tag || !*is_tag);
                quiet < FORGOTTEN && !(is_own && is_well)
            });
            if objects.is_empty() {
                end(*episode, Some(name.clone()));
            }
            !objects.is_empty()
        });
        let is_active = episodes.registry.is_some() || !episodes.repositories.is_empty();
        self.is_active.store(is_active, Ordering::Release);
        over
    }

    /// Whether clients get stale answers now, as far as is known: one repository's trouble shows only when somebody asks for it.
    pub(super) fn lasts(&self) -> bool {
        if !self.is_active.load(Ordering::Acquire) {
            return false;
        }
        let (now, episodes) = (Instant::now(), self.episodes());
        let mut failed = episodes.repositories.values().flat_map(|repository| repository.objects.values());
        episodes.registry.is_some_and(|(_, last)| now.duration_since(last) < QUIET)
            || failed.any(|failed| now.duration_since(failed.last) < RECENT)
    }

    /// No panic leaves an episode half changed.
    fn episodes(&self) -> MutexGuard<'_, Episodes> {
        self.episodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Display for Over {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} were stale in {}", self.answers, Lasted(self.lasted))?;
        match &self.repository {
            Some(repository) => write!(f, ", of {repository}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// A tag, or what has a digest, written as `repository:tag` or `repository@digest`.
    fn object(path: &str) -> Object<'_> {
        let repository = path.split([':', '@']).next().unwrap_or_default();
        Object { repository, path, is_tag: path.contains(':') }
    }

    fn over(answers: u64, seconds: u64, repository: Option<&str>) -> Vec<Over> {
        vec![Over { answers, lasted: Duration::from_secs(seconds), repository: repository.map(Box::from) }]
    }

    /// Something of this is stale because of the registry, or because of its repository.
    fn of_registry(stale: &Stale, path: &str) -> bool {
        stale.answered(object(path), true)
    }

    fn of_repository(stale: &Stale, path: &str) -> bool {
        stale.answered(object(path), false)
    }

    fn fresh(stale: &Stale, path: &str) -> Vec<Over> {
        stale.answered_fresh(object(path))
    }

    #[tokio::test(start_paused = true)]
    async fn a_registrys_trouble_ends_with_its_next_good_answer() {
        let stale = Stale::default();
        assert_eq!(fresh(&stale, "a:1"), []);
        assert!(of_repository(&stale, "a:1") && !of_registry(&stale, "b:1"));
        advance(Duration::from_secs(120)).await;
        assert!(!of_registry(&stale, "c:1"));
        // A connection that was kept still works.
        assert_eq!(fresh(&stale, "d:1"), []);
        advance(QUIET).await;
        assert_eq!(fresh(&stale, "e:1"), over(3, 125, None));
        assert_eq!(fresh(&stale, "e:1"), []);
        assert!(of_registry(&stale, "a:1"));
    }

    /// A registry that was slow, or hung, once had no line until it was known to be down.
    #[tokio::test(start_paused = true)]
    async fn a_slow_registry_has_a_line_that_ends_when_nothing_was_stale_for_a_while() {
        let stale = Stale::default();
        assert!(stale.answered_meanwhile(object("a:1")));
        assert!(!stale.answered_meanwhile(object("b:1")) && !stale.stands_in(object("a:1"), true, 0));
        // It brings the answer at last, each time.
        advance(Duration::from_secs(2)).await;
        assert_eq!(fresh(&stale, "a:1"), []);
        assert!(!stale.answered_meanwhile(object("a:1")));
        assert_eq!(stale.answers(), 3);
        advance(QUIET).await;
        assert_eq!(fresh(&stale, "a:1"), over(3, 7, None));
        // Of a repository that is in trouble nothing else is said.
        assert!(of_repository(&stale, "c:1") && !stale.answered_meanwhile(object("c:1")));
        assert_eq!(fresh(&stale, "c:1"), over(2, 0, Some("c")));
    }

    /// "answers are stale from now on", of an answer that was asked for anew behind a client who had it, and then "0 were stale".
    #[tokio::test(start_paused = true)]
    async fn a_trouble_in_which_no_answer_was_stale_was_told_as_one() {
        for is_registrys in [true, false] {
            let stale = Stale::default();
            assert!(!stale.stands_in(object("a:1"), is_registrys, 0));
            assert!(stale.lasts(), "an upgrade waits for its end");
            advance(QUIET).await;
            assert_eq!(fresh(&stale, "a:1"), []);
            assert!(!stale.is_active.load(Ordering::Relaxed) && !stale.stands_in(object("a:1"), is_registrys, 0));
            advance(Duration::from_secs(1)).await;
            // Whoever gets it first is the first.
            assert!(stale.answered_meanwhile(object("a:1")) && !stale.answered(object("a:1"), is_registrys));
            advance(QUIET).await;
            assert_eq!(fresh(&stale, "a:1"), over(2, 6, (!is_registrys).then_some("a")));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_good_answers_of_others_do_not_end_one_repositorys_trouble() {
        let stale = Stale::default();
        assert!(of_repository(&stale, "a:1"));
        for _ in 0..10 {
            advance(FORGOTTEN / 2).await;
            assert_eq!(fresh(&stale, "b:1"), []);
            assert!(!of_repository(&stale, "a:1"));
        }
        assert_eq!(fresh(&stale, "a:1"), over(11, 10 * 300, Some("a")));
        // Nobody asks for it any more.
        assert!(of_repository(&stale, "a:1"));
        advance(FORGOTTEN).await;
        assert_eq!(fresh(&stale, "b:1"), over(1, 600, Some("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn the_trouble_of_a_tag_that_nobody_asks_for_again_ends_with_another_tag_of_its_repository() {
        let stale = Stale::default();
        assert!(of_repository(&stale, "a:3") && !of_repository(&stale, "a@1"));
        // Both are served and refused: it is not well yet.
        assert_eq!(fresh(&stale, "a:4"), []);
        advance(QUIET).await;
        // While a rule's source is in trouble, the registry serves what it has.
        assert_eq!(fresh(&stale, "a@2"), []);
        assert_eq!(fresh(&stale, "a:4"), over(2, 5, Some("a")));
        assert!(!stale.is_active.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn it_lasts_while_the_registry_fails_or_somebody_asks_for_what_has_failed() {
        for (what, is_registrys, limit) in [("a registry", true, QUIET), ("a repository", false, RECENT)] {
            let stale = Stale::default();
            assert!(!stale.lasts(), "{what}");
            stale.answered(object("a:1"), is_registrys);
            advance(limit - Duration::from_millis(1)).await;
            assert!(stale.lasts(), "{what}");
            advance(Duration::from_millis(1)).await;
            assert!(!stale.lasts(), "{what}");
            stale.answered(object("a:1"), false);
            fresh(&stale, "a:1");
            assert!(!stale.lasts(), "{what}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_repository_has_its_own_line_while_another_one_is_in_trouble() {
        let stale = Stale::default();
        assert!(of_repository(&stale, "a:1") && of_repository(&stale, "b:1") && !of_repository(&stale, "b:2"));
        assert_eq!(fresh(&stale, "a:1"), over(1, 0, Some("a")));
        // Those of the registry are told once, and what fails meanwhile is taken for a part of it.
        assert!(!of_registry(&stale, "b:1") && !of_repository(&stale, "c:1"));
        advance(QUIET).await;
        assert!(of_repository(&stale, "c:1"));
        assert_eq!(fresh(&stale, "d:1"), over(4, 5, None));
        assert_eq!(fresh(&stale, "c:1"), over(1, 0, Some("c")));
    }

    #[tokio::test(start_paused = true)]
    async fn repositories_and_objects_beyond_the_bounds_do_as_the_others() {
        let stale = Stale::default();
        let repositories = (0..2 * MAX_REPOSITORIES).map(|number| format!("{number}:1"));
        assert_eq!(repositories.filter(|path| of_repository(&stale, path)).count(), MAX_REPOSITORIES);
        let stale = Stale::default();
        let path = |number: usize| format!("a:{number}");
        for number in 0..2 * MAX_OBJECTS {
            of_repository(&stale, &path(number));
        }
        for number in 0..MAX_OBJECTS - 1 {
            assert_eq!(fresh(&stale, &path(number)), []);
        }
        let over = fresh(&stale, &path(MAX_OBJECTS - 1));
        assert_eq!(over.first().expect("the last of those that are known").to_string(), "256 were stale in 0 s, of a");
    }
}
