//! Requests of one route that were refused for a reason that is not the client's, so that the client turns to the source if it may: since the
//! start, and in the last hour.

use super::labels::Cause;
use crate::label::{Counts, HourCounts};

/// The counts of a route.
#[derive(Default)]
pub(crate) struct Refused {
    all: Counts<Cause, { Cause::ALL.len() }>,
    hour: HourCounts<Cause, { Cause::ALL.len() }>,
}

/// What was refused in a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastHour {
    /// Requests.
    pub requests: u64,
    /// Why most of them were; `None` without any.
    pub cause: Option<Cause>,
}

impl Refused {
    /// One more.
    pub(crate) fn add(&self, cause: Cause) {
        self.all.add(cause);
        self.hour.add(cause);
    }

    /// Since the start of the process.
    pub(crate) fn count(&self, cause: Cause) -> u64 {
        self.all.get(cause)
    }

    /// In the last hour, to the minute.
    pub(crate) fn last_hour(&self) -> LastHour {
        self.at(self.hour.minute())
    }

    fn at(&self, minute: u32) -> LastHour {
        let counts = Cause::ALL.map(|cause| (self.hour.get_at(minute, cause), cause));
        let most = counts.iter().max_by_key(|(count, _)| *count).filter(|(count, _)| *count > 0);
        LastHour { requests: counts.iter().map(|(count, _)| count).sum(), cause: most.map(|(_, cause)| *cause) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_counted_and_what_is_older_is_forgotten() {
        let refused = Refused::default();
        assert_eq!(refused.at(0), LastHour { requests: 0, cause: None });
        for (minute, cause, times) in [(0, Cause::Down, 5), (30, Cause::NoToken, 3), (59, Cause::Down, 1)] {
            (0..times).for_each(|_| refused.hour.add_at(minute, cause));
        }
        for (minute, requests, cause) in
            [(59, 9, Some(Cause::Down)), (60, 4, Some(Cause::NoToken)), (90, 1, Some(Cause::Down)), (119, 0, None)]
        {
            assert_eq!(refused.at(minute), LastHour { requests, cause }, "{minute}");
        }
        (0..10_000).for_each(|minute| refused.hour.add_at(minute, Cause::Down));
        assert_eq!(refused.at(9_999).requests, 60);
        let refused = Refused::default();
        refused.add(Cause::Budget);
        assert_eq!((refused.count(Cause::Budget), refused.last_hour().requests), (1, 1));
    }
}
