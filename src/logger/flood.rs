//! A bound on the lines that clients cause without a request: hostile ones can be refused far more often than a log is read.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::info;

/// The most such lines in [`PERIOD`]. What is wrong shows in a few of them, and a flood that lasts a day fills half a gigabyte.
const MAX_LINES: u32 = 20;
const PERIOD: Duration = Duration::from_secs(1);

static FLOOD: Flood = Flood(Mutex::new(State { began: None, written: 0, dropped: 0 }));

/// Whether there is room for one more line now. If not, a line says within [`PERIOD`] how many had none.
pub(crate) fn has_room() -> bool {
    match FLOOD.take(Instant::now()) {
        Room::Some => true,
        Room::Full => false,
        Room::NoneLeft => {
            let tell = || {
                let dropped = FLOOD.end(Instant::now());
                info!(
                    "{dropped} more refusals have no line, because {MAX_LINES} a second are the most: /metrics has their reasons"
                );
            };
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => {
                    runtime.spawn(async move {
                        tokio::time::sleep(PERIOD).await;
                        tell();
                    });
                }
                // Outside a runtime nobody waits.
                Err(_) => tell(),
            }
            false
        }
    }
}

/// The lines of a period.
struct Flood(Mutex<State>);

struct State {
    /// `None` before the first line.
    began: Option<Instant>,
    written: u32,
    dropped: u64,
}

/// For a line.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    Some,
    /// None, for the first time in this period: somebody has to end it.
    NoneLeft,
    /// None until then.
    Full,
}

impl Flood {
    fn take(&self, now: Instant) -> Room {
        let mut state = self.state();
        let is_over = state.began.is_none_or(|began| now.saturating_duration_since(began) >= PERIOD);
        if is_over && state.dropped == 0 {
            (state.began, state.written) = (Some(now), 0);
        }
        if state.written < MAX_LINES {
            state.written += 1;
            return Room::Some;
        }
        state.dropped += 1;
        if state.dropped == 1 { Room::NoneLeft } else { Room::Full }
    }

    /// Begins a new period, and tells how many lines the old one has dropped.
    fn end(&self, now: Instant) -> u64 {
        let mut state = self.state();
        (state.began, state.written) = (Some(now), 0);
        std::mem::take(&mut state.dropped)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_second_are_written_and_what_is_dropped_is_told_once() {
        let flood = Flood(Mutex::new(State { began: None, written: 0, dropped: 0 }));
        let begun = Instant::now();
        let take = |count: u32, now| (0..count).map(|_| flood.take(now)).collect::<Vec<_>>();
        assert!(take(MAX_LINES, begun).iter().all(|room| *room == Room::Some));
        let later = begun + PERIOD;
        assert!(take(MAX_LINES, later).iter().all(|room| *room == Room::Some), "a new second");
        assert_eq!(take(3, later), [Room::NoneLeft, Room::Full, Room::Full]);
        assert_eq!(take(1, later + 2 * PERIOD), [Room::Full], "until the drops are told");
        assert_eq!(flood.end(later + 2 * PERIOD), 4);
        assert_eq!(take(MAX_LINES + 1, later + 2 * PERIOD).iter().filter(|room| **room == Room::Some).count(), 20);
    }
}
