//! What is known by key: bounded by its bytes, the least useful goes first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use super::entry::{Entry, Known};
use super::key::{Key, KeyRef};

/// Few entries are smaller. It sizes the table of keys that went lately, which has half as many as there are entries of this size:
/// what is asked for again while its key is there takes the place of what nobody asks for, so a working set gets in though the store
/// is full of names that were asked for once. A key takes some 80 bytes there, so all of them a twenty-fifth of the bound.
const SMALL_ENTRY: usize = 1 << 10;

/// What is known by key.
pub(super) struct Store {
    entries: Cache<Key, Known, Weight, RandomState, Evictions>,
    evicted_entries: AtomicU64,
    evicted_bytes: AtomicU64,
}

/// What an entry counts for, its key included.
#[derive(Clone)]
struct Weight;

impl Weighter<Key, Known> for Weight {
    fn weight(&self, key: &Key, known: &Known) -> u64 {
        // Not 0, which would never be evicted: each has an overhead.
        (known.weight() + key.path.len()) as u64
    }
}

/// Counts what one insertion puts out: others, and that which it replaces.
#[derive(Clone)]
struct Evictions;

/// What it puts out: entries, and their bytes.
#[derive(Default)]
struct Gone {
    entries: u64,
    bytes: u64,
    /// The answer that is inserted, while it is in. A mark is smaller than any bound.
    inserted: Option<Arc<Entry>>,
}

impl Lifecycle<Key, Known> for Evictions {
    type RequestState = Gone;

    fn on_evict(&self, gone: &mut Gone, key: Key, known: Known) {
        let is_it = |inserted: &Arc<Entry>| known.answer().is_some_and(|entry| Arc::ptr_eq(inserted, entry));
        // It is larger than the bound, and has never been in.
        if gone.inserted.take_if(|inserted| is_it(inserted)).is_some() {
            return;
        }
        gone.entries += 1;
        gone.bytes += Weight.weight(&key, &known);
    }
}

impl Store {
    pub(super) fn new(memory: usize) -> Self {
        // One shard: each would have its own part of the bound, and entries differ in size by a thousand.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(memory / SMALL_ENTRY)
            .weight_capacity(memory as u64)
            .build()
            .expect("both capacities are set, and nothing else is required");
        let entries = Cache::with_options(options, Weight, RandomState::new(), Evictions);
        Self { entries, evicted_entries: AtomicU64::new(0), evicted_bytes: AtomicU64::new(0) }
    }

    pub(super) fn get(&self, key: &KeyRef<'_>) -> Option<Known> {
        self.entries.get(key)
    }

    /// Keeps this in place of what was there, with that one's standing among the others. An answer that the registry was
    /// asked for later than for this one stays. An answer that is larger than the bound is not kept, nor is what it should
    /// have replaced: then this is false. Called by one thread at a time.
    pub(super) fn insert(&self, key: Key, known: Known) -> bool {
        // It is off. What a request brings that began before is not evicted for anything.
        if self.memory() == 0 {
            return false;
        }
        let replaced = self.entries.peek(&key.as_ref());
        if let (Some(Known::Answer(kept)), Known::Answer(entry)) = (&replaced, &known)
            && kept.confirmed > entry.confirmed
        {
            return true;
        }
        let replaced = replaced.map_or((0, 0), |replaced| (1, Weight.weight(&key, &replaced)));
        let inserted = known.answer().cloned();
        let is_answer = inserted.is_some();
        let mut gone = Gone { inserted, ..Gone::default() };
        self.entries.insert_with_lifecycle(key, known, &mut gone);
        self.evicted_entries.fetch_add(gone.entries.saturating_sub(replaced.0), Ordering::Relaxed);
        self.evicted_bytes.fetch_add(gone.bytes.saturating_sub(replaced.1), Ordering::Relaxed);
        gone.inserted.is_some() || !is_answer
    }

    pub(super) fn remove(&self, key: &KeyRef<'_>) {
        self.entries.remove(key);
    }

    pub(super) fn remove_if(&self, key: &KeyRef<'_>, is_meant: impl FnOnce(&Known) -> bool) {
        self.entries.remove_if(key, is_meant);
    }

    pub(super) fn purge(&self, is_meant: impl Fn(&Key, &Known) -> bool) -> usize {
        let before = self.entries.len();
        self.entries.retain(|key, known| !is_meant(key, known));
        before.saturating_sub(self.entries.len())
    }

    /// The bound on the bytes.
    pub(super) fn memory(&self) -> u64 {
        self.entries.capacity()
    }

    /// Changes that bound; 0 is that nothing is kept, for which nothing has to make room. Called by one thread at a time.
    pub(super) fn set_memory(&self, memory: usize) {
        if memory == 0 {
            self.entries.clear();
        }
        let (entries, bytes) = self.size();
        self.entries.set_capacity(memory as u64);
        let (left, bytes_left) = self.size();
        self.evicted_entries.fetch_add(entries.saturating_sub(left) as u64, Ordering::Relaxed);
        self.evicted_bytes.fetch_add(bytes.saturating_sub(bytes_left), Ordering::Relaxed);
    }

    pub(super) fn size(&self) -> (usize, u64) {
        (self.entries.len(), self.entries.weight())
    }

    pub(super) fn evicted(&self) -> (u64, u64) {
        (self.evicted_entries.load(Ordering::Relaxed), self.evicted_bytes.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests;
