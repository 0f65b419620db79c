//! Repositories without a token: those that wait for their first call, in order of arrival, and those whose call is under
//! way or has failed. They have no place in the table of tokens, so invented names evict nothing from it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::watch;

use super::slot::Slot;

/// Repositories that wait for their first call. Each has a waiting request, which costs far more than the 300 bytes that
/// the repository takes here; one more is refused at once.
pub(super) const MAX_WAITING: usize = 4096;

/// All of them by name, and the queue of those that wait for their first call.
#[derive(Default)]
pub(super) struct Pending {
    slots: HashMap<Arc<str>, Arc<Slot>>,
    queue: VecDeque<Arc<str>>,
}

/// A repository's slot, and its changes from now on.
pub(super) type Joined = (Arc<Slot>, watch::Receiver<()>);

impl Pending {
    /// The slot of this repository; true if it has just joined the end of the queue. `None` if the queue is full.
    /// The subscription is made here, under the caller's lock: a repository without a waiting request leaves the queue
    /// when its turn comes.
    pub(crate) fn join(&mut self, name: &str, clock: u64) -> Option<(Joined, bool)> {
        if let Some(slot) = self.slots.get(name) {
            return Some(((Arc::clone(slot), slot.changed.subscribe()), false));
        }
        if self.queue.len() >= MAX_WAITING {
            self.evict_abandoned();
        }
        if self.queue.len() >= MAX_WAITING {
            return None;
        }
        let slot = Arc::new(Slot::new(clock));
        let changed = slot.changed.subscribe();
        let name: Arc<str> = name.into();
        self.queue.push_back(Arc::clone(&name));
        self.slots.insert(name, Arc::clone(&slot));
        Some(((slot, changed), true))
    }

    /// The repository whose turn it is. It stays pending until [`Self::remove`].
    pub(crate) fn next(&mut self) -> Option<(Arc<str>, Arc<Slot>)> {
        while let Some(name) = self.queue.pop_front() {
            let Some(slot) = self.slots.get(&name) else { continue };
            if slot.changed.receiver_count() > 0 {
                return Some((name, Arc::clone(slot)));
            }
            if let Some(slot) = self.slots.remove(&name) {
                slot.evict();
            }
        }
        None
    }

    /// It has a token now, or no request asks for it any more.
    pub(crate) fn remove(&mut self, name: &str) {
        self.slots.remove(name);
    }

    /// Every slot that a request may wait for.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.slots.values()
    }

    fn evict_abandoned(&mut self) {
        let slots = &mut self.slots;
        self.queue.retain(|name| {
            let is_awaited = slots.get(name).is_some_and(|slot| slot.changed.receiver_count() > 0);
            if !is_awaited && let Some(slot) = slots.remove(name) {
                slot.evict();
            }
            is_awaited
        });
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}
