//! What is kept of the registry's answers, so that many hosts cost it what one costs: a bounded store, one flight to the
//! registry for each object, and the rules of what may be answered from where.
//!
//! Pure: no sockets and no HTTP framework. Whoever asks the registry is an [`Origin`]. All of it is in memory and may vanish at
//! any time; nothing depends on what is kept but the number of reads.

use std::ops::AddAssign;
use std::sync::Arc;

mod counters;
mod entry;
mod flights;
mod key;
mod lookup;
mod store;

pub(crate) use counters::{Counters, Reason};
pub(crate) use entry::{Content, Entry, Freshness, Kind, Known};
pub(crate) use key::{Key, KeyRef, Part};
pub(crate) use lookup::{Fetched, Origin, Served};

pub(crate) use crate::metrics::labels::How;

use flights::Flights;
use store::Store;

/// The one cache of a process. `T` is why the registry gave no answer, in the words of whoever asks it.
pub(crate) struct Cache<T> {
    store: Store,
    flights: Flights<Fetched<T>>,
    counters: Counters,
}

/// What was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Purged {
    /// Entries that were kept.
    pub entries: usize,
    /// Flights of which nothing will be kept.
    pub flights: usize,
}

impl AddAssign for Purged {
    fn add_assign(&mut self, more: Self) {
        self.entries += more.entries;
        self.flights += more.flights;
    }
}

impl<T> Cache<T> {
    /// An empty one that keeps `memory` bytes at most, headers and keys counted.
    pub(crate) fn new(memory: usize) -> Self {
        Self { store: Store::new(memory), flights: Flights::default(), counters: Counters::default() }
    }

    /// What it has done so far.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Forgets every entry of a registry that is meant, by its path and its content, which a mark and a flight have not. A flight that is under way brings its result to those who wait for it, and nothing of it is kept: it may be of the
    /// time before.
    pub(crate) fn purge(&self, registry: u64, is_meant: impl Fn(&str, Option<&Content>) -> bool) -> Purged {
        let is_key = |key: &Key, content: Option<&Content>| key.registry == registry && is_meant(&key.path, content);
        let (flights, entries) = self.flights.forget(
            |key| is_key(key, None),
            || self.store.purge(|key, known| is_key(key, known.answer().map(|entry| &*entry.content))),
        );
        Purged { entries, flights }
    }

    /// Forgets the entry for a key if this is its content. Another one, which somebody has fetched since, stays.
    pub(crate) fn forget(&self, key: &KeyRef<'_>, content: &Arc<Content>) {
        self.store.remove_if(key, |known| known.answer().is_some_and(|entry| Arc::ptr_eq(&entry.content, content)));
    }

    /// The bound on the bytes of all entries.
    pub(crate) fn memory(&self) -> u64 {
        self.store.memory()
    }

    /// From now on it keeps `memory` bytes at most, and drops at once what is too much. 0 drops everything.
    pub(crate) fn set_memory(&self, memory: usize) {
        self.flights.locked(|| self.store.set_memory(memory));
    }

    /// Remembers that something may be kept under this key: that a blob is a configuration. What is there stays.
    pub(crate) fn remember(&self, key: &KeyRef<'_>) {
        self.flights.locked(|| {
            if self.store.get(key).is_none() {
                self.store.insert(key.to_key(), Known::Configuration);
            }
        });
    }

    /// What is known under this key, however old.
    pub(crate) fn peek(&self, key: &KeyRef<'_>) -> Option<Known> {
        self.store.get(key)
    }

    /// Entries and their bytes, as the bound counts them.
    pub(crate) fn size(&self) -> (usize, u64) {
        self.store.size()
    }

    /// Entries that had to go for others, and their bytes.
    pub(crate) fn evicted(&self) -> (u64, u64) {
        self.store.evicted()
    }

    /// A flight for this key is under way that has not been forgotten.
    pub(crate) fn is_under_way(&self, key: &KeyRef<'_>) -> bool {
        self.flights.is_open(key)
    }

    /// Flights under way.
    pub(crate) fn flights(&self) -> usize {
        self.flights.count()
    }
}

#[cfg(test)]
mod tests;
