//! One flight for each key: who asks the registry, and whoever wants the result.
//!
//! A client that leaves ends neither the flight nor the wait of the others, see [`super::lookup`]. A waiter that leaves just
//! drops its receiver.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::RandomState;
use tokio::sync::watch;

use super::key::{Key, KeyRef};

/// Flights at once, to all registries. Each holds a connection to its registry. A registry allows fewer requests in
/// ten seconds, so a number beyond it is a fault or an attack.
pub(super) const MAX_FLIGHTS: usize = 2048;

/// The flights under way. Their lock orders what they bring: a result is stored under it, and so is what is purged forgotten.
pub(super) struct Flights<R> {
    table: Mutex<Table<R>>,
}

struct Table<R> {
    /// Those that a request may join.
    open: HashMap<Key, Flight<R>, RandomState>,
    /// All that are under way, with those that nobody may join any more.
    under_way: usize,
    /// The number of the last flight.
    last: u64,
}

struct Flight<R> {
    number: u64,
    receiver: watch::Receiver<Option<R>>,
}

/// What a request gets for a key.
pub(super) enum Joined<R> {
    /// It has to begin the flight, of this number, which gives its result to the sender.
    First(u64, watch::Sender<Option<R>>),
    /// One is under way.
    Next(watch::Receiver<Option<R>>),
    /// There are too many.
    Full,
}

impl<R> Default for Flights<R> {
    fn default() -> Self {
        Self { table: Mutex::new(Table { open: HashMap::default(), under_way: 0, last: 0 }) }
    }
}

impl<R> Flights<R> {
    /// Joins the flight for this key, or takes it on. `found` is asked under the lock, before a new one: a flight may have
    /// ended since the caller looked into the store.
    pub(super) fn join<F>(&self, key: KeyRef<'_>, found: impl FnOnce() -> Option<F>) -> Result<Joined<R>, F> {
        let key = key.to_key();
        let mut table = self.table();
        if let Some(flight) = table.open.get(&key) {
            return Ok(Joined::Next(flight.receiver.clone()));
        }
        if let Some(found) = found() {
            return Err(found);
        }
        if table.under_way >= MAX_FLIGHTS {
            return Ok(Joined::Full);
        }
        let (sender, receiver) = watch::channel(None);
        table.under_way += 1;
        table.last += 1;
        let number = table.last;
        table.open.insert(key, Flight { number, receiver });
        Ok(Joined::First(number, sender))
    }

    /// The flight of this number is over. `store` keeps what it has brought, unless the key was forgotten meanwhile: then this
    /// is false. A request that comes now looks there first.
    pub(super) fn end(&self, key: &Key, number: u64, store: impl FnOnce()) -> bool {
        let mut table = self.table();
        table.under_way -= 1;
        let is_open = table.open.get(key).is_some_and(|flight| flight.number == number);
        if is_open {
            store();
            table.open.remove(key);
        }
        is_open
    }

    /// Forgets the flights of these keys: who waits for one gets what it brings, nobody joins it from now on, and nothing of
    /// it is stored. Returns how many there were, and the result of `also`, which runs under the lock.
    pub(super) fn forget<F>(&self, is_meant: impl Fn(&Key) -> bool, also: impl FnOnce() -> F) -> (usize, F) {
        let mut table = self.table();
        let before = table.open.len();
        table.open.retain(|key, _| !is_meant(key));
        (before - table.open.len(), also())
    }

    /// Runs this under the lock.
    pub(super) fn locked<F>(&self, run: impl FnOnce() -> F) -> F {
        let _table = self.table();
        run()
    }

    /// Whether a request for this key would join a flight.
    pub(super) fn is_open(&self, key: &KeyRef<'_>) -> bool {
        self.table().open.contains_key(&key.to_key())
    }

    /// Flights under way.
    pub(super) fn count(&self) -> usize {
        self.table().under_way
    }

    /// No panic leaves the table half changed.
    fn table(&self) -> MutexGuard<'_, Table<R>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
