//! The difference between the sides, pull by pull, and how sure it is.

use super::chance::Chance;
use super::phase::Phase;

/// Pairs that are kept, a fair sample of all if there were more; 88 bytes each.
const MAX_PAIRS: usize = 5_000;
/// Resamples of a bootstrap: with 1,000, the ends of a 95 % interval hardly move any more.
const RESAMPLES: usize = 1_000;
/// The share of resamples within the interval.
const CONFIDENCE: f64 = 0.95;

/// Differences of pulls that went well on both sides.
#[derive(Debug)]
pub struct Pairs {
    kept: Vec<[i64; Phase::ALL.len()]>,
    seen: u64,
    chance: Chance,
}

/// A value and the interval that it is in, with a confidence of 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Of what was measured.
    pub value: f64,
    /// Where the interval begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
}

/// What the pairs say about a phase: via less direct, so that less than 0 is what the proxy saves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The mean.
    pub mean: Estimate,
    /// The median, which a few slow pulls do not move.
    pub median: Estimate,
}

impl Pairs {
    /// None yet.
    pub fn new(seed: u64) -> Self {
        Self { kept: Vec::new(), seen: 0, chance: Chance::new(seed) }
    }

    /// How many there were.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Adds the totals of one pull on both sides. Once there are as many as are kept, by reservoir sampling (Vitter's
    /// algorithm R).
    pub fn add(&mut self, via: &[u64; Phase::ALL.len()], direct: &[u64; Phase::ALL.len()]) {
        let difference = std::array::from_fn(|phase| {
            // Both are below an hour in microseconds.
            i64::try_from(via[phase]).unwrap_or(i64::MAX) - i64::try_from(direct[phase]).unwrap_or(i64::MAX)
        });
        self.seen += 1;
        if self.kept.len() < MAX_PAIRS {
            self.kept.push(difference);
            return;
        }
        let place = self.chance.below(self.seen);
        if let Some(kept) = usize::try_from(place).ok().and_then(|place| self.kept.get_mut(place)) {
            *kept = difference;
        }
    }

    /// Of one phase, by bootstrap over the pairs; `None` with fewer than two.
    pub fn difference(&self, phase: Phase) -> Option<Difference> {
        let values: Vec<f64> = self.kept.iter().map(|pair| pair[phase as usize] as f64).collect();
        let chance = &mut self.chance.clone();
        (values.len() >= 2)
            .then(|| Difference { mean: bootstrap(&values, mean, chance), median: bootstrap(&values, median, chance) })
    }
}

/// The percentile bootstrap (Efron, 1979): the statistic of resamples drawn with replacement, and its quantiles.
fn bootstrap(values: &[f64], statistic: impl Fn(&mut [f64]) -> f64, chance: &mut Chance) -> Estimate {
    let mut sample = values.to_vec();
    let value = statistic(&mut sample);
    let mut statistics: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            for place in &mut sample {
                *place = values[chance.index(values.len())];
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

    /// Twelve uniform numbers less six: mean 0, variance 1, near enough to a normal distribution.
    fn normal(chance: &mut Chance) -> f64 {
        (0..12).map(|_| chance.below(1 << 32) as f64 / (1u64 << 32) as f64).sum::<f64>() - 6.0
    }

    #[test]
    fn the_interval_is_that_of_the_known_distribution() {
        let mut chance = Chance::new(1);
        let values: Vec<f64> = (0..400).map(|_| 50.0 + 10.0 * normal(&mut chance)).collect();
        let Estimate { value, low, high } = bootstrap(&values, mean, &mut chance);
        // 1.96 standard errors of 10 / sqrt(400) on either side.
        assert!((value - 50.0).abs() < 1.5, "{value}");
        assert!((0.8..1.2).contains(&(value - low)) && (0.8..1.2).contains(&(high - value)), "{low} {value} {high}");
        let Estimate { value, low, high } = bootstrap(&values, median, &mut chance);
        assert!(low <= value && value <= high && (1.2..4.0).contains(&(high - low)), "{low} {value} {high}");
    }

    #[test]
    fn the_interval_holds_the_truth_about_as_often_as_it_says() {
        let mut chance = Chance::new(2);
        let hits = (0..100)
            .filter(|_| {
                let values: Vec<f64> = (0..60).map(|_| normal(&mut chance)).collect();
                let estimate = bootstrap(&values, mean, &mut chance);
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
    fn more_pairs_than_are_kept_leave_a_fair_sample() {
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
