//! One flight for each key: a task that asks the registry, and whoever wants its result.
//!
//! The task belongs to nobody, so a client that leaves ends neither it nor the wait of the others. A waiter that leaves just
//! drops its receiver.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::key::{Key, KeyRef};

/// Flights at once. Each holds a connection to the registry and a task; more than the registry allows in ten seconds, so a
/// number beyond it is a fault or an attack.
pub(super) const MAX_FLIGHTS: usize = 2048;

/// The flights under way.
pub(super) struct Flights<R> {
    table: Mutex<HashMap<Key, watch::Receiver<Option<R>>>>,
}

/// What a request gets for a key.
pub(super) enum Joined<R> {
    /// It has to start the flight: the task gives its result to this.
    First(watch::Sender<Option<R>>, watch::Receiver<Option<R>>),
    /// One is under way.
    Next(watch::Receiver<Option<R>>),
    /// There are too many.
    Full,
}

impl<R> Default for Flights<R> {
    fn default() -> Self {
        Self { table: Mutex::default() }
    }
}

impl<R> Flights<R> {
    /// Joins the flight for this key, or takes it on. `is_needed` is asked under the lock, before a new one: a flight may
    /// have ended since the caller looked into the store.
    pub(super) fn join<F>(&self, key: KeyRef<'_>, found: impl FnOnce() -> Option<F>) -> Result<Joined<R>, F> {
        let mut table = self.table();
        let key = key.to_key();
        if let Some(receiver) = table.get(&key) {
            return Ok(Joined::Next(receiver.clone()));
        }
        if let Some(found) = found() {
            return Err(found);
        }
        if table.len() >= MAX_FLIGHTS {
            return Ok(Joined::Full);
        }
        let (sender, receiver) = watch::channel(None);
        table.insert(key, receiver.clone());
        Ok(Joined::First(sender, receiver))
    }

    /// The flight is over; what it brought has been stored before. A request that comes now looks there first.
    pub(super) fn end(&self, key: &Key) {
        self.table().remove(key);
    }

    pub(super) fn count(&self) -> usize {
        self.table().len()
    }

    /// No panic leaves the map half changed.
    fn table(&self) -> MutexGuard<'_, HashMap<Key, watch::Receiver<Option<R>>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
