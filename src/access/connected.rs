//! How many connections each client has open, and how many handshakes of TLS and requests under way on them.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::client::Client;

/// The clients that are connected. It has no more entries than there are connections, whose number has a bound.
#[derive(Debug, Default)]
pub(super) struct Connected(Mutex<HashMap<Client, Open>>);

/// What one client has.
#[derive(Debug, Default)]
struct Open {
    connections: usize,
    under_way: Arc<Counts>,
}

/// What one client has under way, which is counted without the lock.
#[derive(Debug, Default)]
struct Counts {
    handshakes: AtomicUsize,
    requests: AtomicUsize,
}

impl Connected {
    /// Counts one more connection until the guard is dropped, or none where the client has as many as it may.
    pub(super) fn enter(self: &Arc<Self>, client: Client, max: Option<NonZeroUsize>) -> Option<Arc<Place>> {
        let mut clients = self.clients();
        let open = clients.entry(client).or_default();
        if max.is_some_and(|max| open.connections >= max.get()) {
            return None;
        }
        open.connections += 1;
        Some(Arc::new(Place { connected: Arc::clone(self), client, under_way: Arc::clone(&open.under_way) }))
    }

    /// Each client with its connections, in no order.
    #[cfg(test)]
    fn list(&self) -> Vec<(Client, usize)> {
        self.clients().iter().map(|(client, open)| (*client, open.connections)).collect()
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<Client, Open>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by a connection for as long as it is open, and by each of its requests: those over HTTP/2 may outlive it.
#[derive(Debug)]
pub(crate) struct Place {
    connected: Arc<Connected>,
    client: Client,
    under_way: Arc<Counts>,
}

impl Place {
    /// Counts one more handshake until the guard is dropped. How many are under way with it.
    pub(super) fn shake_hands(&self) -> (Handshaking, usize) {
        let before = self.under_way.handshakes.fetch_add(1, Ordering::Relaxed);
        (Handshaking(Arc::clone(&self.under_way)), before + 1)
    }

    /// Counts one more request until the guard is dropped. How many are under way with it.
    pub(super) fn begin(self: Arc<Self>) -> (UnderWay, usize) {
        let before = self.under_way.requests.fetch_add(1, Ordering::Relaxed);
        (UnderWay(self), before + 1)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut clients = self.connected.clients();
        match clients.get_mut(&self.client) {
            Some(open) if open.connections > 1 => open.connections -= 1,
            _ => drop(clients.remove(&self.client)),
        }
    }
}

/// Held by a request for as long as it is under way.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Place>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Held by a connection for as long as its handshake is under way.
#[derive(Debug)]
pub(crate) struct Handshaking(Arc<Counts>);

impl Drop for Handshaking {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::Relaxed);
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

    #[test]
    fn the_requests_of_a_client_are_counted_over_all_its_connections_and_longer_than_these() {
        let connected = Arc::new(Connected::default());
        let connect = |client| connected.enter(client, None).expect("no limit");
        let (one, other) = (connect(Client::V4(1)), connect(Client::V4(1)));
        let (first, count) = Arc::clone(&one).begin();
        assert_eq!(count, 1);
        let (second, count) = other.begin();
        assert_eq!((count, connect(Client::V4(2)).begin().1), (2, 1), "another client");
        drop((one, second));
        let (_third, count) = connect(Client::V4(1)).begin();
        assert_eq!(count, 2, "the first one is still under way, its connection is not");
        drop(first);
    }

    #[test]
    fn handshakes_are_counted_over_all_connections_of_a_client_and_apart_from_its_requests() {
        let connected = Arc::new(Connected::default());
        let connect = |client| connected.enter(client, None).expect("no limit");
        let (one, other, third) = (connect(Client::V4(1)), connect(Client::V4(1)), connect(Client::V4(2)));
        let (_request, _) = Arc::clone(&one).begin();
        let (first, count) = one.shake_hands();
        assert_eq!((count, other.shake_hands().1, third.shake_hands().1), (1, 2, 1));
        drop(first);
        assert_eq!(one.shake_hands().1, 1, "and they end");
    }
}
