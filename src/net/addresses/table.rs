//! The names that are not in the settings: hosts of blob storage, and those that the sign-in goes to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::Addresses;
use super::lookup::{self, Lookup};

/// Storage accounts whose addresses are remembered: a registry has one in each of its regions, and data endpoints.
const MAX_STORAGE: usize = 256;
/// Hosts of sign-ins: Entra ID's, and the endpoints that a machine's identity has.
const MAX_SIGN_IN: usize = 32;
/// Look-ups of one table's names at a time, each on a thread of its own. A resolver that hangs holds no more, and a name
/// that hangs leaves room for others.
const MAX_LOOKUPS: usize = 8;

/// Names and their addresses, the least recently used ones evicted.
pub(crate) struct Names {
    role: &'static str,
    capacity: usize,
    lookup: Lookup,
    slots: Arc<Semaphore>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    entries: HashMap<(String, u16), Entry>,
    /// Counts uses.
    clock: u64,
}

struct Entry {
    addresses: Arc<Addresses>,
    used: u64,
}

impl Names {
    /// Hosts that hold blobs.
    pub(crate) fn storage() -> Arc<Self> {
        Arc::new(Self::new("storage", MAX_STORAGE, lookup::system()))
    }

    /// Hosts that sign in. Their port is 0: reqwest asks for addresses without one, and puts it in itself.
    pub(crate) fn sign_in() -> Arc<Self> {
        Arc::new(Self::new("entra", MAX_SIGN_IN, lookup::system()))
    }

    fn new(role: &'static str, capacity: usize, lookup: Lookup) -> Self {
        let slots = Arc::new(Semaphore::new(MAX_LOOKUPS));
        Self { role, capacity, lookup, slots, table: Mutex::default() }
    }

    /// What is known of a name. Does no look-up: [`Addresses::resolve`] does.
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
    async fn a_name_that_hangs_delays_no_other_and_all_together_hold_few_look_ups() {
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
        good.resolve(Duration::from_secs(1)).await.expect("the hanging one leaves it room");
        let all: Vec<_> = (0..100).map(hang).collect();
        for request in all {
            request.await.expect("no panic").expect_err("it hangs");
        }
        assert_eq!(count.load(Ordering::Relaxed), 1 + MAX_LOOKUPS);
        // What is known needs none.
        assert!(good.resolve(Duration::ZERO).await.is_ok());
    }

    #[test]
    fn the_table_is_bounded_and_what_is_in_use_stays() {
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
