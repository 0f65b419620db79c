//! A histogram of durations that takes no lock: one addition for the bucket and one for the sum.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the buckets, in microseconds: a hit takes tens of them, a layer through the proxy a minute.
const BOUNDS: [u64; 15] = [
    100, 500, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000,
];

/// Counts of durations by size.
#[derive(Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// What a histogram has counted, as the formats of Prometheus want it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Counts {
    /// Seconds, added up.
    pub sum: f64,
    /// How many there were.
    pub count: u64,
    /// The upper bound of each bucket in seconds, and what is in this one alone.
    pub buckets: Vec<(f64, u64)>,
}

/// Durations by size, of several histograms or of a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals([u64; BOUNDS.len() + 1]);

impl Totals {
    /// What has come since an earlier state of the same.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|bucket| self.0[bucket].saturating_sub(earlier.0[bucket])))
    }

    /// The duration in seconds that this part of all did not exceed, as Prometheus estimates it: evenly within a bucket.
    pub(crate) fn quantile(&self, part: f64) -> Option<f64> {
        let all: u64 = self.0.iter().sum();
        let (mut below, rank) = (0, part * all as f64);
        for (bucket, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            let lower =
                bucket.checked_sub(1).and_then(|bucket| BOUNDS.get(bucket)).map_or(0.0, |bound| seconds(*bound));
            let upper = BOUNDS.get(bucket).map_or(lower, |bound| seconds(*bound));
            if (below + count) as f64 >= rank {
                return Some(lower + (upper - lower) * (rank - below as f64) / *count as f64);
            }
            below += count;
        }
        None
    }
}

impl Histogram {
    /// Adds what there is.
    pub(crate) fn add_to(&self, totals: &mut Totals) {
        for (total, count) in totals.0.iter_mut().zip(&self.buckets) {
            *total += count.load(Ordering::Relaxed);
        }
    }

    /// Counts one.
    pub(crate) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().take_while(|bound| **bound < micros).count();
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// What there is now; `None` before the first.
    pub(crate) fn counts(&self) -> Option<Counts> {
        let micros = self.micros.load(Ordering::Relaxed);
        let counts = self.buckets.each_ref().map(|count| count.load(Ordering::Relaxed));
        let count = counts.iter().sum();
        let bounds = BOUNDS.map(seconds).into_iter().chain([f64::INFINITY]);
        (count > 0).then(|| Counts { sum: seconds(micros), count, buckets: bounds.zip(counts).collect() })
    }
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::default();
        assert_eq!(histogram.counts(), None);
        for micros in [0, 100, 101, 30_000_000, 30_000_001, u64::MAX / 4] {
            histogram.observe(Duration::from_micros(micros));
        }
        let counts = histogram.counts().expect("six");
        let filled: Vec<_> = counts.buckets.iter().filter(|(_, count)| *count > 0).copied().collect();
        assert_eq!(filled, [(0.0001, 2), (0.0005, 1), (30.0, 1), (f64::INFINITY, 2)]);
        assert_eq!(counts.count, 6);
    }
}
