//! Repositories without a token: those that wait for their first call, in turns of the clients that ask for them, and those whose
//! call is under way or has failed. They have no place in the table of tokens, so invented names evict nothing from it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ahash::RandomState;
use tokio::sync::watch;

use super::slot::Slot;
use crate::access::{Client, Share, Turns};

/// Repositories that wait for their first call. Each has a waiting request, which costs far more than the 500 bytes that
/// the repository takes here; one more is refused at once.
pub(super) const MAX_WAITING: usize = 4096;

type Slots = HashMap<Arc<str>, Waits>;

/// All of them by name, and whose turn it is of those that wait for their first call.
#[derive(Default)]
pub(super) struct Pending {
    slots: Slots,
    queue: Turns<Arc<str>>,
}

/// A repository without a token.
struct Waits {
    slot: Arc<Slot>,
    /// In whose queues it is: the first turn of these is its turn, so none waits for one of somebody who asks for more. Nobody's once
    /// its first call has begun.
    clients: HashSet<Option<Client>, RandomState>,
}

/// A repository's slot, and its changes from now on.
pub(super) type Joined = (Arc<Slot>, watch::Receiver<()>);

impl Pending {
    /// The slot of this repository; true if the client has just taken a turn for it. `None` if too many wait, in all or of this client.
    /// The subscription is made here, under the caller's lock: a repository without a waiting request leaves the queue
    /// when its turn comes.
    pub(crate) fn join(&mut self, name: &str, client: Option<Client>, clock: u64) -> Option<(Joined, bool)> {
        let joined = |waits: &Waits| (Arc::clone(&waits.slot), waits.slot.changed.subscribe());
        let known = self.slots.get(name);
        if let Some(waits) = known.filter(|waits| waits.clients.is_empty() || waits.clients.contains(&client)) {
            return Some((joined(waits), false));
        }
        if !self.has_room(client) {
            self.evict_abandoned();
        }
        if !self.has_room(client) {
            return self.slots.get(name).map(|waits| (joined(waits), false));
        }
        let name: Arc<str> = name.into();
        let new = || Waits { slot: Arc::new(Slot::new(clock)), clients: HashSet::default() };
        let waits = self.slots.entry(Arc::clone(&name)).or_insert_with(new);
        waits.clients.insert(client);
        self.queue.push(client, name);
        Some((joined(waits), true))
    }

    /// One client leaves as much for others as of the requests under way.
    fn has_room(&self, client: Option<Client>) -> bool {
        let left = MAX_WAITING.checked_sub(self.queue.len() + 1);
        left.is_some_and(|left| Share::Fair.covers(self.queue.len_of(client) + 1, left))
    }

    /// The repository whose turn it is. It stays pending until [`Self::remove`].
    pub(crate) fn next(&mut self) -> Option<(Arc<str>, Arc<Slot>)> {
        let slots = &mut self.slots;
        let name = self.queue.pop(|client, name| is_waited_for(slots, client, name))?;
        let waits = slots.get_mut(&name)?;
        waits.clients = HashSet::default();
        Some((name, Arc::clone(&waits.slot)))
    }

    /// It has a token now, or no request asks for it any more.
    pub(crate) fn remove(&mut self, name: &str) {
        self.slots.remove(name);
    }

    /// Every slot that a request may wait for.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.slots.values().map(|waits| &waits.slot)
    }

    fn evict_abandoned(&mut self) {
        let slots = &mut self.slots;
        self.queue.retain(|client, name| is_waited_for(slots, client, name));
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}

/// Whether this turn of the client's is still one for this repository. One without a waiting request is forgotten.
fn is_waited_for(slots: &mut Slots, client: Option<Client>, name: &str) -> bool {
    let Some(waits) = slots.get(name).filter(|waits| waits.clients.contains(&client)) else { return false };
    let is_waited_for = waits.slot.changed.receiver_count() > 0;
    if !is_waited_for && let Some(waits) = slots.remove(name) {
        waits.slot.evict();
    }
    is_waited_for
}
