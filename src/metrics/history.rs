//! The last quarter of an hour, in steps of some seconds: what the status page draws before it has polled for as long itself.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::histogram::Totals;
use super::labels::{CacheResult, How, Kind, Status};
use super::{Meters, locked};

/// From one point to the next.
pub(crate) const STEP: Duration = Duration::from_secs(5);
/// A quarter of an hour.
const MAX_POINTS: usize = 180;

/// What happened in one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    /// Its end, in seconds since 1970.
    pub at: u64,
    /// Requests a second.
    pub rate: f64,
    /// Of these, those that failed, by [`Status::is_failure`].
    pub failed: f64,
    /// The time to the first byte that half of the requests needed at most, in seconds; `None` without any.
    pub median: Option<f64>,
    /// The same of 99 %.
    pub slow: Option<f64>,
}

/// Requests since the start of the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sum {
    /// All of them.
    pub requests: u64,
    /// Those that failed, by [`Status::is_failure`].
    pub failed: u64,
    /// Answered from memory.
    pub hits: u64,
    first_byte: Totals,
}

impl Sum {
    /// Of all routes, and of requests without one.
    pub(crate) fn of(meters: &Meters) -> Self {
        let mut sum = Self::default();
        let routes = meters.routes().into_iter().map(|(_, meter)| meter);
        for meter in routes.chain([Arc::clone(&meters.unrouted)]) {
            meter.requests(|_, status, cache, count| {
                sum.requests += count;
                sum.failed += if Status::is_failure(status) { count } else { 0 };
                sum.hits += if cache == CacheResult::Here(How::Hit) { count } else { 0 };
            });
            for kind in Kind::ALL {
                meter.durations(kind)[0].add_to(&mut sum.first_byte);
            }
        }
        sum
    }
}

/// The points, the oldest first.
#[derive(Default)]
pub(crate) struct History(Mutex<(Sum, VecDeque<Point>)>);

impl History {
    /// A step is over.
    pub(crate) fn step(&self, meters: &Meters) {
        let now = Sum::of(meters);
        let (before, points) = &mut *locked(&self.0);
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / STEP.as_secs_f64();
        let first_byte = now.first_byte.since(&before.first_byte);
        if points.len() >= MAX_POINTS {
            points.pop_front();
        }
        points.push_back(Point {
            at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            rate: rate(now.requests, before.requests),
            failed: rate(now.failed, before.failed),
            median: first_byte.quantile(0.5),
            slow: first_byte.quantile(0.99),
        });
        *before = now;
    }

    /// All of them.
    pub(crate) fn points(&self) -> Vec<Point> {
        locked(&self.0).1.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Request;

    #[test]
    fn a_point_is_what_happened_since_the_one_before_and_there_are_not_too_many() {
        let (meters, history) = (Meters::default(), History::default());
        let request = |status, millis| Request {
            kind: Kind::Manifest,
            status,
            cache: CacheResult::Here(How::Miss),
            first_byte: Some(Duration::from_millis(millis)),
            whole: Duration::from_millis(millis),
            bytes: 0,
        };
        let route = meters.route("docker.io");
        (0..99).for_each(|_| route.add(&request(200, 2)));
        route.add(&request(503, 900));
        history.step(&meters);
        history.step(&meters);
        let points = history.points();
        assert_eq!((points[0].rate, points[0].failed), (20.0, 0.2));
        assert!(points[0].median.is_some_and(|median| (0.001..0.005).contains(&median)), "{points:?}");
        assert_eq!((points[1].rate, points[1].median), (0.0, None));
        (0..1000).for_each(|_| history.step(&meters));
        assert_eq!(history.points().len(), MAX_POINTS);
    }
}
