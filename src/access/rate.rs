//! Requests a second of each client: the generic cell rate algorithm (GCRA, ITU-T I.371), one number a client.
//!
//! What is kept of a client is when it will have paid for all that it was given; whoever is refused pays nothing, so a client
//! that asks for ever more still gets its rate. The table has a bound: what was not asked for lately makes room.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ahash::RandomState;
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use super::client::Client;

/// Clients that are remembered, some 100 bytes each. One that is forgotten begins anew with its whole burst, so more clients
/// than these at once get more than their rate, and nobody gets less.
const MAX_CLIENTS: usize = 64 << 10;

/// How many requests a client may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// In the long run.
    pub per_second: NonZeroU32,
    /// At once, after a pause that was long enough.
    pub burst: NonZeroU32,
}

type Table = Cache<Client, Arc<AtomicU64>, UnitWeighter, RandomState, DefaultLifecycle<Client, Arc<AtomicU64>>>;

/// What each client has used of its rate.
#[derive(Debug)]
pub(super) struct Rates {
    begun: Instant,
    /// Nanoseconds since `begun` at which the client has paid. Made when the first limit is set.
    paid: OnceLock<Table>,
}

impl Rates {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), paid: OnceLock::new() }
    }

    /// Takes one request, or tells how long the client has to wait for it.
    pub(super) fn take(&self, client: Client, rate: Rate, now: Instant) -> Result<(), Duration> {
        let now = nanoseconds(now.saturating_duration_since(self.begun));
        let paid = self.paid(client);
        let cost = 1_000_000_000 / u64::from(rate.per_second.get());
        let ahead = cost * u64::from(rate.burst.get() - 1);
        let mut refused = 0;
        let taken = paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid| {
            let from = paid.max(now);
            refused = (from - now).saturating_sub(ahead);
            (refused == 0).then(|| from.saturating_add(cost))
        });
        taken.map(drop).map_err(|_| Duration::from_nanos(refused))
    }

    fn paid(&self, client: Client) -> Arc<AtomicU64> {
        let table = self.paid.get_or_init(|| {
            let clients = MAX_CLIENTS as u64;
            Cache::with(MAX_CLIENTS, clients, UnitWeighter, RandomState::new(), DefaultLifecycle::default())
        });
        let fresh = || Ok::<_, std::convert::Infallible>(Arc::default());
        match table.get(&client) {
            Some(paid) => paid,
            None => table.get_or_insert_with(&client, fresh).unwrap_or_default(),
        }
    }
}

/// Of 584 years at most.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        let number = |number| NonZeroU32::new(number).expect("not zero");
        Rate { per_second: number(per_second), burst: number(burst) }
    }

    #[test]
    fn a_client_has_its_burst_and_then_its_rate_and_no_other_pays_for_it() {
        let rates = Rates::new();
        let (now, rate) = (rates.begun, rate(10, 3));
        for _ in 0..3 {
            assert_eq!(rates.take(Client::V4(1), rate, now), Ok(()));
        }
        let wait = Duration::from_millis(100);
        assert_eq!(rates.take(Client::V4(1), rate, now), Err(wait));
        assert_eq!(rates.take(Client::V4(1), rate, now), Err(wait), "a refusal costs nothing");
        assert_eq!(rates.take(Client::V6(1), rate, now), Ok(()), "another one");
        assert_eq!(rates.take(Client::V4(1), rate, now + wait), Ok(()));
        assert_eq!(rates.take(Client::V4(1), rate, now + wait), Err(wait));
        let later = now + Duration::from_secs(3600);
        let taken = (0..10).filter(|_| rates.take(Client::V4(1), rate, later).is_ok()).count();
        assert_eq!(taken, 3, "a long pause saves up no more than the burst");
    }

    #[test]
    fn the_table_of_clients_is_bounded() {
        let rates = Rates::new();
        for number in 0..3 * MAX_CLIENTS as u32 {
            assert_eq!(rates.take(Client::V4(number), rate(1, 1), rates.begun), Ok(()));
        }
        assert!(rates.paid.get().expect("made").len() <= MAX_CLIENTS);
    }

    proptest! {
        /// Against a bucket of tokens, filled as time goes by.
        #[test]
        fn as_many_pass_as_a_bucket_of_tokens_lets_through(
            per_second in 1_u32..50,
            burst in 1_u32..20,
            pauses in proptest::collection::vec(0_u64..500, 1..200),
        ) {
            let (rates, rate) = (Rates::new(), rate(per_second, burst));
            let cost = 1_000_000_000 / u64::from(per_second);
            let full = cost * u64::from(burst);
            let (mut now, mut bucket) = (rates.begun, full);
            for pause in pauses {
                let pause = Duration::from_millis(pause);
                now += pause;
                bucket = full.min(bucket + nanoseconds(pause));
                let taken = rates.take(Client::V4(1), rate, now);
                prop_assert_eq!(taken, if bucket >= cost { Ok(()) } else { Err(Duration::from_nanos(cost - bucket)) });
                bucket = if bucket >= cost { bucket - cost } else { bucket };
            }
        }
    }
}
