//! The difference between the sides, pull by pull, with its confidence interval.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};

use crate::phase::Phase;

/// Pairs that are kept, a uniform sample if there were more; 88 bytes each.
const MAX_PAIRS: usize = 5_000;
/// Resamples of a bootstrap: beyond 1,000, the ends of a 95 % interval hardly change.
const RESAMPLES: usize = 1_000;
/// The share of resamples within the interval.
const CONFIDENCE: f64 = 0.95;

/// Differences of pulls that succeeded on both sides.
#[derive(Debug)]
pub(crate) struct Pairs {
    kept: Vec<[i64; Phase::ALL.len()]>,
    seen: u64,
    rng: Xoshiro256PlusPlus,
}

/// A value and its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    /// Of the sample.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// The difference in a phase, via minus direct: a negative value is what the proxy saves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Difference {
    /// The mean.
    pub mean: Estimate,
    /// The median, which a few slow pulls do not move.
    pub median: Estimate,
}

impl Pairs {
    /// No pairs yet; `seed` is that of sampling and resampling.
    pub(crate) fn new(seed: u64) -> Self {
        Self { kept: Vec::new(), seen: 0, rng: Xoshiro256PlusPlus::seed_from_u64(seed) }
    }

    /// How many pairs were added.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// Adds the totals of one pull on both sides. Beyond [`MAX_PAIRS`], reservoir sampling (Vitter's algorithm R) decides
    /// which pairs are kept.
    pub(crate) fn add(&mut self, via: &[u64; Phase::ALL.len()], direct: &[u64; Phase::ALL.len()]) {
        let difference = std::array::from_fn(|phase| {
            // Both are below an hour in microseconds.
            i64::try_from(via[phase]).unwrap_or(i64::MAX) - i64::try_from(direct[phase]).unwrap_or(i64::MAX)
        });
        self.seen += 1;
        if self.kept.len() < MAX_PAIRS {
            self.kept.push(difference);
            return;
        }
        let place = self.rng.random_range(..self.seen);
        if let Some(kept) = usize::try_from(place).ok().and_then(|place| self.kept.get_mut(place)) {
            *kept = difference;
        }
    }

    /// The difference in one phase, by bootstrap over the pairs; `None` with fewer than two pairs.
    pub(crate) fn difference(&self, phase: Phase) -> Option<Difference> {
        let values: Vec<f64> = self.kept.iter().map(|pair| pair[phase as usize] as f64).collect();
        let rng = &mut self.rng.clone();
        (values.len() >= 2)
            .then(|| Difference { mean: bootstrap(&values, mean, rng), median: bootstrap(&values, median, rng) })
    }
}

/// The percentile bootstrap (Efron, 1979): the statistic of resamples drawn with replacement, and its quantiles.
fn bootstrap(values: &[f64], statistic: impl Fn(&mut [f64]) -> f64, rng: &mut Xoshiro256PlusPlus) -> Estimate {
    let mut sample = values.to_vec();
    let value = statistic(&mut sample);
    let mut statistics: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            for place in &mut sample {
                *place = values[rng.random_range(..values.len())];
            }
            statistic(&mut sample)
        })
        .collect();
    statistics.sort_unstable_by(f64::total_cmp);
    let outside = (RESAMPLES as f64 * (1.0 - CONFIDENCE) / 2.0) as usize;
    Estimate { value, low: statistics[outside], high: statistics[RESAMPLES - 1 - outside] }
}

fn mean(values: &mut [f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    let even = values.len().is_multiple_of(2);
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    if even { (below.iter().copied().fold(f64::MIN, f64::max) + upper) / 2.0 } else { upper }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum of twelve uniform numbers, minus six: mean 0, variance 1, close to a normal distribution.
    fn normal(rng: &mut Xoshiro256PlusPlus) -> f64 {
        (0..12).map(|_| rng.random_range(..1u64 << 32) as f64 / (1u64 << 32) as f64).sum::<f64>() - 6.0
    }

    #[test]
    fn the_interval_is_that_of_the_known_distribution() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let values: Vec<f64> = (0..400).map(|_| 50.0 + 10.0 * normal(&mut rng)).collect();
        let Estimate { value, low, high } = bootstrap(&values, mean, &mut rng);
        // 1.96 standard errors of 10 / sqrt(400) on either side.
        assert!((value - 50.0).abs() < 1.5, "{value}");
        assert!((0.8..1.2).contains(&(value - low)) && (0.8..1.2).contains(&(high - value)), "{low} {value} {high}");
        let Estimate { value, low, high } = bootstrap(&values, median, &mut rng);
        assert!(low <= value && value <= high && (1.2..4.0).contains(&(high - low)), "{low} {value} {high}");
    }

    #[test]
    fn the_interval_contains_the_true_mean_in_about_95_of_100_cases() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(2);
        let hits = (0..100)
            .filter(|_| {
                let values: Vec<f64> = (0..60).map(|_| normal(&mut rng)).collect();
                let estimate = bootstrap(&values, mean, &mut rng);
                estimate.low <= 0.0 && 0.0 <= estimate.high
            })
            .count();
        assert!((86..=100).contains(&hits), "{hits} of 100");
    }

    #[test]
    fn medians_of_even_and_odd_numbers() {
        for (mut values, expected) in
            [(vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 3.0, 2.0], 2.5), (vec![7.0], 7.0), (vec![1.0, 9.0], 5.0)]
        {
            assert_eq!(median(&mut values), expected);
        }
    }

    #[test]
    fn more_pairs_than_are_kept_leave_a_uniform_sample() {
        let mut pairs = Pairs::new(3);
        assert_eq!(pairs.difference(Phase::Whole), None);
        for number in 0..20_000 {
            pairs.add(&[number; Phase::ALL.len()], &[0; Phase::ALL.len()]);
        }
        assert_eq!((pairs.seen(), pairs.kept.len()), (20_000, MAX_PAIRS));
        let mean = pairs.kept.iter().map(|pair| pair[0] as f64).sum::<f64>() / MAX_PAIRS as f64;
        assert!((9_600.0..10_400.0).contains(&mean), "{mean}");
    }
}
