//! The entries: bounded by their bytes, the least useful ones go first.

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use super::entry::Entry;
use super::key::{Key, KeyRef, Part};

/// An entry of this size is common: a manifest, its headers and its key. Only sizes the table of keys that went lately.
const TYPICAL_ENTRY: usize = 4 << 10;

/// Entries by key.
pub(super) struct Store {
    entries: Cache<Key, Arc<Entry>, Weight, RandomState, Evicted>,
    evicted: Arc<Evictions>,
}

#[derive(Default)]
struct Evictions {
    entries: AtomicU64,
    bytes: AtomicU64,
}

/// What an entry counts for, its key included.
#[derive(Clone)]
struct Weight;

impl Weighter<Key, Arc<Entry>> for Weight {
    fn weight(&self, key: &Key, entry: &Arc<Entry>) -> u64 {
        // Not 0, which would never be evicted: an entry has an overhead.
        (entry.weight() + key.path.len()) as u64
    }
}

/// Counts what has to go.
#[derive(Clone)]
struct Evicted(Arc<Evictions>);

impl Lifecycle<Key, Arc<Entry>> for Evicted {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), key: Key, entry: Arc<Entry>) {
        self.0.entries.fetch_add(1, Ordering::Relaxed);
        self.0.bytes.fetch_add(Weight.weight(&key, &entry), Ordering::Relaxed);
    }
}

impl Store {
    pub(super) fn new(memory: usize) -> Self {
        let evicted = Arc::new(Evictions::default());
        // One shard: each would have its own part of the bound, and entries differ in size by a thousand.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(memory / TYPICAL_ENTRY)
            .weight_capacity(memory as u64)
            .build()
            .expect("both capacities are set, and nothing else is required");
        let entries = Cache::with_options(options, Weight, RandomState::new(), Evicted(Arc::clone(&evicted)));
        Self { entries, evicted }
    }

    pub(super) fn get(&self, key: &KeyRef<'_>) -> Option<Arc<Entry>> {
        self.entries.get(key)
    }

    pub(super) fn insert(&self, key: Key, entry: Arc<Entry>) {
        // An entry that is larger than its share of the bound is not admitted, and what was there stays: it must not.
        self.entries.remove(&key);
        self.entries.insert(key, entry);
    }

    pub(super) fn remove(&self, key: &KeyRef<'_>) {
        self.entries.remove(key);
    }

    pub(super) fn remove_if(&self, key: &KeyRef<'_>, is_meant: impl FnOnce(&Entry) -> bool) {
        self.entries.remove_if(key, |entry| is_meant(entry));
    }

    pub(super) fn purge(&self, registry: u64, is_meant: impl Fn(Part, &str) -> bool) -> usize {
        let before = self.entries.len();
        self.entries.retain(|key, _| key.registry != registry || !is_meant(key.part, &key.path));
        before.saturating_sub(self.entries.len())
    }

    pub(super) fn size(&self) -> (usize, u64) {
        (self.entries.len(), self.entries.weight())
    }

    pub(super) fn evicted(&self) -> (u64, u64) {
        (self.evicted.entries.load(Ordering::Relaxed), self.evicted.bytes.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::StatusCode;
    use tokio::time::Instant;

    use super::*;
    use crate::cache::{Content, Kind};

    fn redirect(body: &'static [u8]) -> Arc<Entry> {
        let content = Content {
            status: StatusCode::TEMPORARY_REDIRECT,
            headers: Vec::new(),
            body: Bytes::from_static(body),
            manifest: None,
            digest: None,
        };
        let until = Some(Instant::now() + Duration::from_secs(60));
        Arc::new(Entry {
            kind: Kind::Redirect,
            content: Arc::new(content),
            confirmed: Instant::now(),
            at_most: None,
            until,
        })
    }

    #[test]
    fn an_entry_that_took_the_place_of_the_meant_one_stays() {
        let store = Store::new(1 << 20);
        let key = KeyRef { registry: 1, part: Part::Redirect, path: "/v2/a/blobs/b" };
        let (first, second) = (redirect(b"x"), redirect(b"x"));
        let is = |meant: &Arc<Entry>| {
            let meant = Arc::clone(&meant.content);
            move |entry: &Entry| Arc::ptr_eq(&entry.content, &meant)
        };
        store.insert(key.to_key(), Arc::clone(&first));
        store.insert(key.to_key(), Arc::clone(&second));
        store.remove_if(&key, is(&first));
        assert!(store.get(&key).is_some_and(|entry| Arc::ptr_eq(&entry, &second)));
        store.remove_if(&key, is(&second));
        assert!(store.get(&key).is_none());
    }
}
