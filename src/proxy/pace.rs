//! The pace at which a client takes an answer over HTTP/2, where a closed window keeps bytes from the socket. That of the socket,
//! which is HTTP/1's, says nothing of it.
//!
//! Pingora gives each piece of an answer a limit of time, whatever its size. Here that limit is what the rate gives the bytes that
//! wait, and [`CLIENT_WRITE_LIMIT`] more, less the time by which the client is behind with earlier pieces. A client that keeps to
//! the rate is never behind by more than that, one that does not falls back ever more. Only time counts in which a piece waits.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::CLIENT_WRITE_LIMIT;

/// What one client is behind with one answer.
pub(crate) struct Pace(Arc<Waiting>);

struct Waiting {
    rate: NonZeroU32,
    state: Mutex<State>,
}

struct State {
    pieces: usize,
    bytes: usize,
    /// Since when the first of them waits, or since one before it was taken.
    since: Instant,
    /// How much longer the client has taken for the earlier ones than the rate gives it.
    behind: Duration,
}

/// Held by HTTP/2 until it has left.
struct Piece {
    bytes: Bytes,
    waiting: Arc<Waiting>,
}

impl Pace {
    /// The client has to take so many bytes a second.
    pub(super) fn new(rate: NonZeroU32) -> Self {
        let state = State { pieces: 0, bytes: 0, since: Instant::now(), behind: Duration::ZERO };
        Self(Arc::new(Waiting { rate, state: Mutex::new(state) }))
    }

    /// Another piece of the answer, which is to be written now, within the limit of time that is returned with it.
    pub(super) fn next(&self, bytes: Bytes) -> (Bytes, Duration) {
        let limit = self.0.give(bytes.len());
        (Bytes::from_owner(Piece { bytes, waiting: Arc::clone(&self.0) }), limit)
    }
}

impl Waiting {
    fn give(&self, bytes: usize) -> Duration {
        let (mut state, now) = (self.state(), Instant::now());
        if state.pieces == 0 {
            state.since = now;
        }
        state.pieces += 1;
        state.bytes += bytes;
        let behind = state.behind + (now - state.since);
        (CLIENT_WRITE_LIMIT + self.time_for(state.bytes)).saturating_sub(behind)
    }

    fn take(&self, bytes: usize) {
        let (mut state, now) = (self.state(), Instant::now());
        state.pieces -= 1;
        state.bytes -= bytes;
        state.behind = (state.behind + (now - state.since)).saturating_sub(self.time_for(bytes));
        state.since = now;
    }

    fn time_for(&self, bytes: usize) -> Duration {
        Duration::from_secs(bytes as u64) / self.rate.get()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.waiting.take(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const RATE: u32 = 1000;

    /// After how long a client is cut off that takes so many bytes a second of pieces of this size, if it is within an hour.
    async fn cut_off(piece: usize, taken: usize) -> Option<Duration> {
        let pace = Pace::new(NonZeroU32::new(RATE).expect("not zero"));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3600) {
            let (piece, limit) = pace.next(Bytes::from(vec![0; piece]));
            let takes = Duration::from_secs(piece.len() as u64) / u32::try_from(taken).expect("few");
            sleep(takes.min(limit)).await;
            if takes > limit {
                return Some(begun.elapsed());
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_the_same_whatever_the_size_of_the_pieces() {
        for piece in [1000, 16 << 10, 64 << 10, 1 << 20] {
            for (taken, is_given_up) in [(1001, false), (5000, false), (500, true), (100, true), (1, true)] {
                let after = cut_off(piece, taken).await;
                assert_eq!(after.is_some(), is_given_up, "{piece} {taken}: {after:?}");
                // A minute later than the rate gives for what was taken, and within a piece of that.
                let most = CLIENT_WRITE_LIMIT.mul_f64(1000.0 / (1000.0 - taken.min(999) as f64));
                let most = most + Duration::from_secs(piece as u64) / RATE + Duration::from_secs(1);
                assert!(after.is_none_or(|after| after <= most), "{piece} {taken}: {after:?}, {most:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_brings_little_is_no_fault_of_the_clients() {
        let pace = Pace::new(NonZeroU32::new(RATE).expect("not zero"));
        for _ in 0..100 {
            let (piece, limit) = pace.next(Bytes::from_static(b"x"));
            assert!(limit >= CLIENT_WRITE_LIMIT, "{limit:?}");
            drop(piece);
            sleep(Duration::from_secs(10)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_that_wait_together_wait_once() {
        let pace = Pace::new(NonZeroU32::new(RATE).expect("not zero"));
        let pieces: Vec<_> = (0..4).map(|_| pace.next(Bytes::from(vec![0; 10_000])).0).collect();
        sleep(Duration::from_secs(50)).await;
        drop(pieces);
        let (_piece, limit) = pace.next(Bytes::from_static(b"x"));
        assert_eq!(limit.as_secs(), 50, "40,000 bytes in 50 s are 10 s behind");
    }
}
