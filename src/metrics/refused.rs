//! Requests of one route that were refused for a reason that is not the client's, so that the client turns to the source if it may: since the
//! start, and in the last hour.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::labels::Cause;
use super::locked;
use crate::label::Counts;

/// What is told of.
const HOUR: u64 = 60;
const MINUTE: Duration = Duration::from_secs(60);

/// The counts of a route. Only a request that is refused takes its lock.
pub(crate) struct Refused {
    since: Instant,
    all: Counts<Cause, { Cause::ALL.len() }>,
    hour: Mutex<Hour>,
}

/// What was refused in a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastHour {
    /// Requests.
    pub requests: u64,
    /// Why most of them were; `None` without any.
    pub cause: Option<Cause>,
}

impl Default for Refused {
    fn default() -> Self {
        Self { since: Instant::now(), all: Counts::default(), hour: Mutex::default() }
    }
}

impl Refused {
    /// One more.
    pub(crate) fn add(&self, cause: Cause) {
        self.all.add(cause);
        locked(&self.hour).add(self.minute(), cause);
    }

    /// Since the start of the process.
    pub(crate) fn count(&self, cause: Cause) -> u64 {
        self.all.get(cause)
    }

    /// In the last hour, to the minute.
    pub(crate) fn last_hour(&self) -> LastHour {
        locked(&self.hour).sum(self.minute())
    }

    fn minute(&self) -> u64 {
        self.since.elapsed().as_secs() / MINUTE.as_secs()
    }
}

/// The minutes of the last hour in which something was refused, the oldest first.
#[derive(Default)]
struct Hour(VecDeque<(u64, [u32; Cause::ALL.len()])>);

impl Hour {
    fn add(&mut self, minute: u64, cause: Cause) {
        self.forget(minute);
        if self.0.back().is_none_or(|(last, _)| *last != minute) {
            self.0.push_back((minute, [0; Cause::ALL.len()]));
        }
        if let Some(count) = self.0.back_mut().and_then(|(_, counts)| counts.get_mut(cause as usize)) {
            *count = count.saturating_add(1);
        }
    }

    fn sum(&mut self, minute: u64) -> LastHour {
        self.forget(minute);
        let of = |cause: &Cause| {
            self.0.iter().filter_map(|(_, counts)| counts.get(*cause as usize)).map(|count| u64::from(*count)).sum()
        };
        let counts: Vec<(u64, Cause)> = Cause::ALL.iter().map(|cause| (of(cause), *cause)).collect();
        let most = counts.iter().max_by_key(|(count, _)| *count).filter(|(count, _)| *count > 0);
        LastHour { requests: counts.iter().map(|(count, _)| count).sum(), cause: most.map(|(_, cause)| *cause) }
    }

    fn forget(&mut self, minute: u64) {
        while self.0.front().is_some_and(|(first, _)| first + HOUR <= minute) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_counted_and_what_is_older_is_forgotten() {
        let mut hour = Hour::default();
        assert_eq!(hour.sum(0), LastHour { requests: 0, cause: None });
        for (minute, cause, times) in [(0, Cause::Down, 5), (30, Cause::NoToken, 3), (59, Cause::Down, 1)] {
            (0..times).for_each(|_| hour.add(minute, cause));
        }
        for (minute, requests, cause) in
            [(59, 9, Some(Cause::Down)), (60, 4, Some(Cause::NoToken)), (90, 1, Some(Cause::Down)), (119, 0, None)]
        {
            assert_eq!(hour.sum(minute), LastHour { requests, cause }, "{minute}");
        }
        (0..10_000).for_each(|minute| hour.add(minute, Cause::Down));
        assert_eq!(hour.0.len() as u64, HOUR);
        let refused = Refused::default();
        refused.add(Cause::Budget);
        assert_eq!((refused.count(Cause::Budget), refused.last_hour().requests), (1, 1));
    }
}
