//! How many flights to a registry are under way at once. Where there is no place left, clients take turns for the next ones: one that
//! asks for much waits for itself, and not everybody for it.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::turn::MAX_WAIT;
use crate::access::{Client, Turns};

/// Flights to one registry at once. What its tier allows, 83 to 167 reads a second, is within it even if each takes a second.
/// After an outage thousands of answers are stale, and whoever asks for them must not ask all at once.
const MAX_PLACES: usize = 128;
/// A flight that takes longer gives its place to another one: it waits for a cache rule's slow source, and repositories of
/// other sources must not wait for that. With this, 64 flights a second begin even if none ends.
const PLACE_LIMIT: Duration = Duration::from_secs(2);

/// The places of flights to one registry.
#[derive(Default)]
pub(super) struct Places(Arc<Shared>);

struct Shared {
    free: AtomicUsize,
    /// Whether flights wait. While none does, nobody takes the lock.
    is_waited_for: AtomicBool,
    /// Who waits; those who have given up stay until it is their client's turn. There are no more than flights may begin meanwhile.
    waiting: Mutex<Turns<oneshot::Sender<Place>>>,
}

/// A flight's, until it is dropped.
struct Place(Arc<Shared>);

impl Default for Shared {
    fn default() -> Self {
        Self { free: AtomicUsize::new(MAX_PLACES), is_waited_for: AtomicBool::new(false), waiting: Mutex::default() }
    }
}

impl Places {
    /// Lets a flight that this client has begun go once there is a place for it; `None` if there is none in time.
    pub(super) async fn run<T>(&self, client: Option<Client>, flight: impl Future<Output = T>) -> Option<T> {
        let place = match self.take() {
            Some(place) => place,
            None => timeout(MAX_WAIT, self.wait(client)).await.ok()?.ok()?,
        };
        let mut flight = pin!(flight);
        let in_time = timeout(PLACE_LIMIT, &mut flight).await;
        drop(place);
        Some(match in_time {
            Ok(result) => result,
            Err(_) => flight.await,
        })
    }

    /// A place that nobody waits for.
    fn take(&self) -> Option<Place> {
        let Self(shared) = self;
        (!shared.is_waited_for.load(Ordering::SeqCst) && shared.take()).then(|| Place(Arc::clone(shared)))
    }

    /// Brings one when it is the client's turn.
    fn wait(&self, client: Option<Client>) -> oneshot::Receiver<Place> {
        let (sender, receiver) = oneshot::channel();
        self.0.give(|waiting| waiting.push(client, sender));
        receiver
    }
}

impl Shared {
    /// Whether there was one that was free, which is taken now.
    fn take(&self) -> bool {
        self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |free| free.checked_sub(1)).is_ok()
    }

    /// Changes who waits, and gives what is free to those whose turn it is.
    ///
    /// Who gives a place back makes it free before it looks whether somebody waits, and who waits says so before it looks for a
    /// free place: one of the two finds the other.
    fn give(self: &Arc<Self>, change: impl FnOnce(&mut Turns<oneshot::Sender<Place>>)) {
        // Nothing panics while it holds the lock.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut waiting);
        self.is_waited_for.store(!waiting.is_empty(), Ordering::SeqCst);
        let mut left = None;
        while !waiting.is_empty() && self.take() {
            left = hand_on(&mut waiting, Place(Arc::clone(self)));
        }
        self.is_waited_for.store(!waiting.is_empty(), Ordering::SeqCst);
        // It takes the lock if somebody waits by now.
        drop(waiting);
        drop(left);
    }
}

/// Gives the place to who has its turn; back if nobody wants it.
fn hand_on(waiting: &mut Turns<oneshot::Sender<Place>>, mut place: Place) -> Option<Place> {
    while let Some(next) = waiting.pop(|_, waits| !waits.is_closed()) {
        match next.send(place) {
            Ok(()) => return None,
            // It has just given up.
            Err(back) => place = back,
        }
    }
    Some(place)
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self(shared) = self;
        shared.free.fetch_add(1, Ordering::SeqCst);
        if shared.is_waited_for.load(Ordering::SeqCst) {
            shared.give(|_| {});
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;
    use tokio::time::{Instant, sleep};

    use super::*;

    /// So many flights of one client, each of which takes this long.
    fn fly(flights: &mut JoinSet<Option<()>>, places: &Arc<Places>, client: Client, count: usize, time: Duration) {
        for _ in 0..count {
            let places = Arc::clone(places);
            flights.spawn(async move { places.run(Some(client), sleep(time)).await });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_bounded_and_flights_that_hang_hold_none_for_long() {
        let (places, mut flights) = (Arc::new(Places::default()), JoinSet::new());
        fly(&mut flights, &places, Client::V4(1), 4 * MAX_PLACES, MAX_WAIT * 10);
        sleep(Duration::from_millis(1)).await;
        let started = Instant::now();
        assert!(places.run(Some(Client::V4(1)), async {}).await.is_none(), "those that came before are too many");
        assert_eq!(started.elapsed(), MAX_WAIT);
        sleep(PLACE_LIMIT).await;
        assert!(places.run(Some(Client::V4(1)), async {}).await.is_some(), "all of those still hang");
        let flown = flights.join_all().await.into_iter().flatten().count();
        assert_eq!(flown, 3 * MAX_PLACES, "the last quarter would have had to wait for longer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_wants_all_places_waits_for_itself_and_others_have_the_next_ones() {
        let (places, mut flights) = (Arc::new(Places::default()), JoinSet::new());
        fly(&mut flights, &places, Client::V4(1), 10 * MAX_PLACES, MAX_WAIT * 10);
        sleep(Duration::from_millis(1)).await;
        let mut others = JoinSet::new();
        for other in 2..2 + 32 {
            fly(&mut others, &places, Client::V4(other), 2, Duration::ZERO);
        }
        let started = Instant::now();
        assert!(others.join_all().await.iter().all(Option::is_some));
        assert!(started.elapsed() <= PLACE_LIMIT, "{:?}", started.elapsed());
        flights.abort_all();
    }

    #[tokio::test(start_paused = true)]
    async fn every_place_comes_back_whoever_gives_up_meanwhile() {
        let (places, mut flights) = (Arc::new(Places::default()), JoinSet::new());
        for client in 0..4 {
            fly(&mut flights, &places, Client::V4(client), 4 * MAX_PLACES, PLACE_LIMIT / 3);
        }
        sleep(PLACE_LIMIT / 2).await;
        flights.abort_all();
        while flights.join_next().await.is_some() {}
        let shared = &places.0;
        assert_eq!(shared.free.load(Ordering::SeqCst), MAX_PLACES);
        assert!(!shared.is_waited_for.load(Ordering::SeqCst) && places.run(None, async {}).await.is_some());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn none_is_lost_among_threads() {
        let (places, mut flights) = (Arc::new(Places::default()), JoinSet::new());
        for number in 0..64 * u32::try_from(MAX_PLACES).expect("small") {
            fly(&mut flights, &places, Client::V4(number % 7), 1, Duration::from_micros(u64::from(number % 3)));
        }
        assert!(flights.join_all().await.iter().all(Option::is_some), "nobody is forgotten");
        assert_eq!(places.0.free.load(Ordering::SeqCst), MAX_PLACES);
    }
}
