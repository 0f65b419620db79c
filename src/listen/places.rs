//! Places for connections to the admin listener. Nobody is refused one: a probe that finds no place would have a healthy process
//! killed. Where there is none left, an earlier connection ends, of a client that has more than its part.

use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::access::Client;
use crate::load::{Guard, Limit};

/// Connections that have lost their places to others of the same client and have not ended yet: so many may be accepted before they
/// do. What one client opens faster than it is served is then taken from the queue of the kernel, where a probe waits behind it, at
/// next to no cost; and no more is accepted than can soon be closed, so that neither tasks nor file descriptors pile up.
const MAX_ENDING: usize = 128;

/// The connections that have a place.
#[derive(Default)]
pub(super) struct Places(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    /// The oldest first; no more than the limit has.
    connections: Vec<Connected>,
    /// Those that have lost their places, and are not closed yet.
    ending: usize,
    next: u64,
}

struct Connected {
    number: u64,
    client: Option<Client>,
    /// Ends the connection when it is dropped.
    _ends: oneshot::Sender<()>,
    _guard: Guard,
}

/// A connection's, until it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    ended: oneshot::Receiver<()>,
    must_settle: bool,
}

impl Places {
    /// A place within `limit` for a connection of this client, of whom half of all are.
    pub(super) fn enter(self: &Arc<Self>, client: Option<IpAddr>, limit: &Arc<Limit>) -> Place {
        let client = client.map(Client::from);
        let mut taken = self.taken();
        let mut must_settle = false;
        if let Some(index) = taken.too_many(client, limit.max()) {
            // Its guard goes with it, so the limit has room before the new one counts.
            let ending = taken.connections.remove(index);
            taken.ending += 1;
            must_settle = ending.client != client || taken.ending >= MAX_ENDING;
        }
        let (ends, ended) = oneshot::channel();
        let number = taken.next;
        taken.next += 1;
        taken.connections.push(Connected { number, client, _ends: ends, _guard: limit.enter() });
        Place { places: Arc::clone(self), number, ended, must_settle }
    }

    /// Waits until all that have lost their places are closed.
    pub(super) async fn settle(&self) {
        // What is ready runs between one look and the next.
        while self.taken().ending > 0 {
            tokio::task::yield_now().await;
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Which connection has to end before one more of this client: its own oldest, if it has half of all; where all places are
    /// taken, the oldest of the client that has the most.
    fn too_many(&self, client: Option<Client>, max: usize) -> Option<usize> {
        let all = &self.connections;
        let count = |client| all.iter().filter(|other| other.client == client).count();
        if count(client) >= max / 2 {
            return all.iter().position(|other| other.client == client);
        }
        if all.len() < max {
            return None;
        }
        // The last of equals, and of these the oldest connection: in reverse the oldest is the last.
        all.iter().enumerate().rev().max_by_key(|(_, other)| count(other.client)).map(|(index, _)| index)
    }
}

impl Place {
    /// Whether [`Places::settle`] comes before the next connection is accepted: for this one another client has lost its place, or many
    /// have lost theirs and are not closed yet.
    pub(super) fn must_settle(&self) -> bool {
        self.must_settle
    }

    /// Serves the connection to its end, or until another one needs the place.
    pub(super) async fn hold(mut self, served: impl Future<Output = ()>) {
        tokio::select! {
            // In this order: its request may be there, and would be answered to nobody before the connection ends.
            biased;
            // Always an error: nothing is sent.
            _ = &mut self.ended => {}
            () = served => {}
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        match taken.connections.iter().position(|connected| connected.number == self.number) {
            Some(index) => drop(taken.connections.remove(index)),
            None => taken.ending -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, number]))
    }

    fn is_ended(place: &mut Place) -> bool {
        place.ended.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn who_has_more_than_its_part_makes_room_for_others_and_for_itself() {
        let (places, limit) = (Arc::new(Places::default()), Limit::new("tests", 8));
        let enter = |number| places.enter(client(number), &limit);
        let mut one: Vec<_> = (0..5).map(|_| enter(1)).collect();
        let ended = |places: &mut [Place]| places.iter_mut().map(is_ended).collect::<Vec<_>>();
        assert_eq!(ended(&mut one), [true, false, false, false, false], "its own oldest");
        let mut two: Vec<_> = (0..4).map(|_| enter(2)).collect();
        assert_eq!(limit.count(), 8);
        let mut third = enter(3);
        assert_eq!(ended(&mut one), [true, true, false, false, false], "the oldest of those that have the most");
        let mut fourth = enter(4);
        assert_eq!(ended(&mut two), [true, false, false, false]);
        assert!(!is_ended(&mut third) && !is_ended(&mut fourth));
        assert_eq!((limit.count(), limit.refused()), (8, 0));
        drop((one, two));
        assert_eq!(limit.count(), 2, "those that have ended long ago count once");
    }

    #[tokio::test]
    async fn a_connection_ends_when_another_one_needs_its_place() {
        let (places, limit) = (Arc::new(Places::default()), Limit::new("tests", 2));
        let held = tokio::spawn(places.enter(client(1), &limit).hold(std::future::pending()));
        let _newer = places.enter(client(1), &limit);
        held.await.expect("it ends");
        assert_eq!(limit.count(), 1);
    }
}
