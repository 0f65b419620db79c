//! The host names that are not in the settings: those of blob storage and of the sign-in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::Addresses;
use super::lookup::{self, Lookup};

/// Hosts of blob storage: a registry has a storage account, and perhaps a data endpoint, in each of its regions.
const MAX_STORAGE: usize = 256;
/// Hosts of the sign-in: those of Entra ID, and the endpoints of managed identities.
const MAX_SIGN_IN: usize = 32;
/// Look-ups of one table at a time. Each blocks a thread, so a resolver that hangs blocks no more threads than this.
const MAX_LOOKUPS: usize = 8;

/// Host names and their addresses. When the table is full, the least recently used name is evicted.
pub(crate) struct Names {
    role: &'static str,
    capacity: usize,
    lookup: Lookup,
    slots: Arc<Semaphore>,
    table: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    entries: HashMap<(String, u16), Entry>,
    /// The number of calls of [`Names::get`]; orders the entries by their last use.
    clock: u64,
}

struct Entry {
    addresses: Arc<Addresses>,
    used: u64,
}

impl Names {
    /// For hosts of blob storage.
    pub(crate) fn storage() -> Arc<Self> {
        Arc::new(Self::new("storage", MAX_STORAGE, lookup::system()))
    }

    /// For hosts of the sign-in. Their port is 0, because reqwest resolves hosts without a port and adds it.
    pub(crate) fn sign_in() -> Arc<Self> {
        Arc::new(Self::new("entra", MAX_SIGN_IN, lookup::system()))
    }

    /// For hosts that a client of a proxy asks: the proxy, and blob storage. Their port is 0, as above.
    pub(crate) fn pull() -> Arc<Self> {
        Arc::new(Self::new("pull", MAX_STORAGE, lookup::system()))
    }

    fn new(role: &'static str, capacity: usize, lookup: Lookup) -> Self {
        let slots = Arc::new(Semaphore::new(MAX_LOOKUPS));
        Self { role, capacity, lookup, slots, table: Mutex::default() }
    }

    /// The entry of a name, which is new if the table has none. Does no look-up: [`Addresses::resolve`] does.
    pub(crate) fn get(&self, host: &str, port: u16) -> Arc<Addresses> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (host.to_owned(), port);
        table.clock += 1;
        let used = table.clock;
        if let Some(entry) = table.entries.get_mut(&key) {
            entry.used = used;
            return Arc::clone(&entry.addresses);
        }
        if table.entries.len() >= self.capacity {
            let oldest = table.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            oldest.and_then(|key| table.entries.remove(&key));
        }
        let (lookup, slots) = (Arc::clone(&self.lookup), Arc::clone(&self.slots));
        let addresses = Arc::new(Addresses::build(self.role, (host, port), &[], lookup, slots));
        table.entries.insert(key, Entry { addresses: Arc::clone(&addresses), used });
        addresses
    }
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").field("role", &self.role).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_name_that_hangs_delays_no_other_and_look_ups_are_bounded() {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let lookup: Lookup = Arc::new(move |host, port| {
            counter.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                if host.starts_with("hangs") {
                    std::future::pending::<()>().await;
                }
                Ok(vec![([192, 0, 2, 1], port).into()])
            })
        });
        let names = Arc::new(Names::new("storage", MAX_STORAGE, lookup));
        let hang = |number: usize| {
            let name = names.get(&format!("hangs{number}.blob.core.windows.net"), 443);
            tokio::spawn(async move { name.resolve(Duration::from_secs(5)).await })
        };
        hang(0);
        tokio::task::yield_now().await;
        let good = names.get("x.blob.core.windows.net", 443);
        good.resolve(Duration::ZERO).await.expect_err("not looked up yet");
        good.resolve(Duration::from_secs(1)).await.expect("not blocked by the one that hangs");
        let all: Vec<_> = (0..100).map(hang).collect();
        for request in all {
            request.await.expect("no panic").expect_err("it hangs");
        }
        assert_eq!(count.load(Ordering::Relaxed), 1 + MAX_LOOKUPS);
        // A known name needs no look-up.
        assert!(good.resolve(Duration::ZERO).await.is_ok());
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_is_in_use() {
        let lookup: Lookup = Arc::new(|_, _| Box::pin(std::future::pending()));
        let names = Names::new("storage", 4, lookup);
        let kept = names.get("kept", 443);
        for number in 0..100 {
            names.get(&format!("other{number}"), 443);
            assert!(Arc::ptr_eq(&kept, &names.get("kept", 443)), "{number}");
        }
        assert!(!Arc::ptr_eq(&kept, &names.get("kept", 8443)));
        assert_eq!(names.table.lock().expect("one thread").entries.len(), 4);
    }
}
