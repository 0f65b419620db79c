//! The repositories that have a token of their own: read by every request, written by the background task alone.

use std::array;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::slot::Slot;

/// A change copies one shard and not the whole table: some 16 entries of a full one.
const SHARDS: usize = 64;

type Shard = HashMap<Arc<str>, Arc<Slot>>;

/// Slots by repository. Reading takes no lock and allocates nothing. There is one writer, so a change is a load and a
/// store.
pub(super) struct SlotTable {
    hasher: RandomState,
    shards: [ArcSwap<Shard>; SHARDS],
}

impl Default for SlotTable {
    fn default() -> Self {
        Self { hasher: RandomState::new(), shards: array::from_fn(|_| ArcSwap::default()) }
    }
}

impl SlotTable {
    /// Calls `read` with the slot of this repository, if there is one.
    pub(crate) fn read<T>(&self, name: &str, read: impl FnOnce(&Arc<Slot>) -> T) -> Option<T> {
        self.shard(name)?.load().get(name).map(read)
    }

    pub(crate) fn insert(&self, name: &Arc<str>, slot: &Arc<Slot>) {
        self.change(name, |shard| shard.insert(Arc::clone(name), Arc::clone(slot)));
    }

    pub(crate) fn remove(&self, name: &str) {
        self.change(name, |shard| shard.remove(name));
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Shard) -> Option<Arc<Slot>>) {
        let Some(shard) = self.shard(name) else { return };
        let mut changed = Shard::clone(&shard.load());
        change(&mut changed);
        shard.store(Arc::new(changed));
    }

    fn shard(&self, name: &str) -> Option<&ArcSwap<Shard>> {
        // The remainder is below 64, so it fits and the shard is there.
        let index = self.hasher.hash_one(name) % SHARDS as u64;
        self.shards.get(usize::try_from(index).ok()?)
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.load().len()).sum()
    }
}
