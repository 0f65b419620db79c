//! How many connections each client has open.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::client::Client;

/// The clients that are connected. It has no more entries than there are connections, whose number has a bound.
#[derive(Debug, Default)]
pub(super) struct Connected(Mutex<HashMap<Client, usize>>);

impl Connected {
    /// Counts one more connection until the guard is dropped, or none where the client has as many as it may.
    pub(super) fn enter(self: &Arc<Self>, client: Client, max: Option<NonZeroUsize>) -> Option<Place> {
        let mut clients = self.clients();
        let open = clients.get(&client).copied().unwrap_or(0);
        if max.is_some_and(|max| open >= max.get()) {
            return None;
        }
        clients.insert(client, open + 1);
        Some(Place { connected: Arc::clone(self), client })
    }

    /// Each client with its connections, in no order.
    #[cfg(test)]
    fn list(&self) -> Vec<(Client, usize)> {
        self.clients().iter().map(|(client, open)| (*client, *open)).collect()
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<Client, usize>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by a connection for as long as it is open.
#[derive(Debug)]
pub(crate) struct Place {
    connected: Arc<Connected>,
    client: Client,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut clients = self.connected.clients();
        match clients.get_mut(&self.client) {
            Some(open) if *open > 1 => *open -= 1,
            _ => drop(clients.remove(&self.client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_as_many_connections_as_it_may_and_leaves_nothing_behind() {
        let (connected, max) = (Arc::new(Connected::default()), NonZeroUsize::new(2));
        let one = Client::V4(1);
        let mut places = [connected.enter(one, max), connected.enter(one, max)];
        assert!(places.iter().all(Option::is_some) && connected.enter(one, max).is_none());
        let other = connected.enter(Client::V6(1), max);
        assert!(other.is_some(), "another client");
        places[0] = None;
        assert_eq!(connected.list().iter().filter(|(client, open)| *client == one && *open == 1).count(), 1);
        let again = connected.enter(one, max);
        assert!(
            again.is_some() && connected.enter(one, None).is_some(),
            "there is room again, and without a limit always"
        );
        drop((places, other, again));
        assert!(connected.list().is_empty());
    }
}
