//! What the cache may hold, and for how long a route keeps each kind of answer.

use std::time::Duration;

use super::mistake::Mistakes;
use super::setting::{CACHE, CacheTable};
use super::table::{Switch, Table as _, Value};
use oci::platform::Platform;

/// Each costs two requests for every image, and no fleet has more kinds of machines.
const MAX_PREFETCH: usize = 8;

/// How long what a route fetched is used without asking the registry again. Zero asks each time; requests at the same time
/// still share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetimes {
    /// A manifest by its tag.
    pub tags: Duration,
    /// A manifest by its digest. It cannot change, but the right to pull it can end.
    pub manifests: Duration,
    /// That there is no such manifest or blob.
    pub missing: Duration,
    /// Where a blob is stored; never beyond five minutes before the end of the redirect's own signature.
    pub redirects: Duration,
    /// A list of tags or of referrers.
    pub lists: Duration,
    /// How much longer an answer may be given while the registry, or the way to it, fails.
    pub stale: Duration,
}

/// The cache of the process. Routes say how long they keep what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CacheSettings {
    /// The bound on all that is kept, keys and headers included, in bytes.
    pub memory: usize,
    /// For which platforms the manifest and the configuration of an image are fetched before a client asks for them.
    pub prefetch: Vec<Platform>,
}

/// `cache` of the file: the cache itself, and what it says for every route.
pub(super) struct FileCache {
    /// `None` is `cache: off`.
    pub settings: Option<CacheSettings>,
    pub given: Given,
}

impl FileCache {
    /// From the file, which may say nothing about it; what is wrong goes to `mistakes`.
    pub(super) fn parse(found: Option<Switch<CacheTable>>, mistakes: &mut Mistakes) -> Self {
        let mut table = match found {
            Some(Switch::Off(_)) => return Self { settings: None, given: Given::default() },
            Some(Switch::On(table)) => table,
            None => CacheTable::default(),
        };
        let memory = CACHE.memory.parse_or_default([table.memory.take()], mistakes).unwrap_or_default();
        let mut prefetch = Vec::new();
        for (place, text) in std::mem::take(&mut table.prefetch) {
            match mistakes.parse((place.clone(), text.clone()), CACHE.prefetch.parse) {
                Some(platform) if prefetch.contains(&platform) => {
                    mistakes.add(&place, format_args!("{text} is in the list already: remove one of the two"));
                }
                Some(_) if prefetch.len() == MAX_PREFETCH => {
                    mistakes.add(&place, format_args!("is one too many: list {MAX_PREFETCH} platforms at most"));
                    break;
                }
                platform => prefetch.extend(platform),
            }
        }
        Self { settings: Some(CacheSettings { memory, prefetch }), given: Given::parse(table, mistakes) }
    }

    /// For a route with a `cache` of its own, or without: what that says itself, where `None` is `cache: off`, and what follows, where `None`
    /// keeps nothing. What counts for each lifetime is the first of these that there is: the route's own, the file's, what an empty prefix
    /// has, the default.
    ///
    /// Behind an empty prefix is the whole registry, with images that people push and then expect at once.
    pub(super) fn of_route(
        &self,
        own: Option<Switch<CacheTable>>,
        prefix_is_empty: bool,
        mistakes: &mut Mistakes,
    ) -> (Option<Given>, Option<Lifetimes>) {
        let own = match own {
            Some(Switch::Off(_)) => return (None, None),
            Some(Switch::On(table)) => {
                if let Some(place) = table.place().filter(|_| self.settings.is_none()) {
                    mistakes.add(place, "has no effect, because the file has cache: off: remove one of the two");
                }
                let shared = [&CACHE.memory.row, &CACHE.prefetch.row].map(|row| row.key);
                for (_, place) in table.given().into_iter().filter(|(key, _)| shared.contains(key)) {
                    mistakes.add(place, "is one for all routes: set it in the cache of the file");
                }
                Given::parse(table, mistakes)
            }
            None => Given::default(),
        };
        if self.settings.is_none() {
            return (Some(own), None);
        }
        let given = own.or(self.given);
        let asked_each_time = prefix_is_empty.then_some(Duration::ZERO);
        let default = |row: &Value<Duration>| row.default().unwrap_or_default();
        let lifetimes = Lifetimes {
            tags: given.tags.or(asked_each_time).unwrap_or_else(|| default(&CACHE.tags)),
            manifests: given.manifests.unwrap_or_else(|| default(&CACHE.manifests)),
            missing: given.missing.or(asked_each_time).unwrap_or_else(|| default(&CACHE.missing)),
            redirects: given.redirects.unwrap_or_else(|| default(&CACHE.redirects)),
            lists: given.lists.or(asked_each_time).unwrap_or_else(|| default(&CACHE.lists)),
            stale: given.stale.unwrap_or_else(|| default(&CACHE.stale)),
        };
        (Some(own), Some(lifetimes))
    }
}

/// The lifetimes that one `cache` sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    tags: Option<Duration>,
    manifests: Option<Duration>,
    missing: Option<Duration>,
    redirects: Option<Duration>,
    lists: Option<Duration>,
    stale: Option<Duration>,
}

impl Given {
    fn parse(table: CacheTable, mistakes: &mut Mistakes) -> Self {
        let CacheTable {
            place: _,
            is_flawed: _,
            memory: _,
            prefetch: _,
            tags,
            manifests,
            missing,
            redirects,
            lists,
            stale,
        } = table;
        Self {
            tags: CACHE.tags.parse([tags], mistakes),
            manifests: CACHE.manifests.parse([manifests], mistakes),
            missing: CACHE.missing.parse([missing], mistakes),
            redirects: CACHE.redirects.parse([redirects], mistakes),
            lists: CACHE.lists.parse([lists], mistakes),
            stale: CACHE.stale.parse([stale], mistakes),
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            tags: self.tags.or(other.tags),
            manifests: self.manifests.or(other.manifests),
            missing: self.missing.or(other.missing),
            redirects: self.redirects.or(other.redirects),
            lists: self.lists.or(other.lists),
            stale: self.stale.or(other.stale),
        }
    }
}
