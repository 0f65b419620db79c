//! What was measured: of one pull, and of all pulls of a side.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::connection::Failure;
use super::phase::Phase;

/// An hour in microseconds; nothing that is waited for here takes as long. As KiB a second, 3.6 TB/s.
const MAX_VALUE: u64 = 3_600_000_000;
/// Three significant digits: an error below 0.1 %, and some 200 KiB a histogram.
const DIGITS: u8 = 3;
/// Different sentences that are kept of a side's errors; the rest is counted together.
const MAX_SENTENCES: usize = 8;

/// What one pull measured, in microseconds, or KiB a second for [`Phase::Throughput`].
#[derive(Clone, Debug, Default)]
pub struct Meter {
    samples: Vec<(Phase, u64)>,
    /// Bytes of all bodies that content is made of.
    pub bytes: u64,
}

impl Meter {
    /// A time.
    pub fn time(&mut self, phase: Phase, took: Duration) {
        self.samples.push((phase, u64::try_from(took.as_micros()).unwrap_or(u64::MAX)));
    }

    /// A speed, by bytes and time.
    pub fn speed(&mut self, bytes: u64, took: Duration) {
        // A microsecond is as fine as it gets; the number of bytes is far below 2^53.
        let seconds = took.as_secs_f64().max(1e-6);
        self.samples.push((Phase::Throughput, (bytes as f64 / 1024.0 / seconds) as u64));
    }

    /// What another part of the same pull measured.
    pub fn merge(&mut self, other: Self) {
        self.samples.extend(other.samples);
        self.bytes += other.bytes;
    }

    /// The pull's time in each phase, and its mean throughput; 0 in a phase that it did not have.
    pub fn totals(&self) -> [u64; Phase::ALL.len()] {
        Phase::ALL.map(|phase| {
            let mut values = self.samples.iter().filter(|(of, _)| *of == phase).map(|(_, value)| *value).peekable();
            if phase.is_speed() && values.peek().is_some() {
                let count = values.clone().count() as u64;
                return values.sum::<u64>() / count;
            }
            values.sum()
        })
    }
}

/// A pull that came to its end, well or not.
#[derive(Debug)]
pub struct Pulled {
    /// What it measured until then.
    pub meter: Meter,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

/// All pulls of one side.
#[derive(Clone, Debug)]
pub struct Record {
    histograms: Vec<Histogram<u64>>,
    /// Pulls that succeeded.
    pub pulls: u64,
    /// Pulls that failed.
    pub errors: u64,
    /// Those of them that met a 429.
    pub throttled: u64,
    /// Pulls of an open loop that were never begun: too many were waiting.
    pub dropped: u64,
    /// Bytes of content.
    pub bytes: u64,
    sentences: BTreeMap<String, u64>,
}

impl Default for Record {
    fn default() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, MAX_VALUE, DIGITS)
                .expect("1 is a lower bound, the upper one is more than twice it, and digits go from 0 to 5")
        };
        Self {
            histograms: Phase::ALL.iter().map(|_| histogram()).collect(),
            pulls: 0,
            errors: 0,
            throttled: 0,
            dropped: 0,
            bytes: 0,
            sentences: BTreeMap::new(),
        }
    }
}

impl Record {
    /// Adds a pull. The whole counts only if it is one; its phases were real in any case.
    pub fn add(&mut self, pulled: &Pulled) {
        for (phase, value) in &pulled.meter.samples {
            if *phase != Phase::Whole || pulled.failure.is_none() {
                self.histograms[*phase as usize].saturating_record(*value);
            }
        }
        self.bytes += pulled.meter.bytes;
        let Some(failure) = &pulled.failure else {
            self.pulls += 1;
            return;
        };
        self.errors += 1;
        self.throttled += u64::from(failure.throttled);
        let known = self.sentences.len() < MAX_SENTENCES || self.sentences.contains_key(&failure.sentence);
        let sentence = if known { failure.sentence.as_str() } else { "others" };
        *self.sentences.entry(sentence.to_owned()).or_default() += 1;
    }

    /// The values of a phase.
    pub fn histogram(&self, phase: Phase) -> &Histogram<u64> {
        &self.histograms[phase as usize]
    }

    /// What went wrong, and how often.
    pub fn sentences(&self) -> impl Iterator<Item = (&str, u64)> {
        self.sentences.iter().map(|(sentence, count)| (sentence.as_str(), *count))
    }

    /// The value that `share` of all are no worse than: times no longer, speeds no lower. `None` without any value.
    pub fn percentile(&self, phase: Phase, share: f64) -> Option<u64> {
        let histogram = self.histogram(phase);
        if histogram.is_empty() {
            return None;
        }
        Some(if !phase.is_speed() {
            histogram.value_at_quantile(share)
        } else if share >= 1.0 {
            histogram.min()
        } else {
            histogram.value_at_quantile(1.0 - share)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulled(milliseconds: u64, failure: Option<Failure>) -> Pulled {
        let mut meter = Meter::default();
        meter.time(Phase::Ping, Duration::from_millis(1));
        meter.time(Phase::Whole, Duration::from_millis(milliseconds));
        Pulled { meter, failure }
    }

    #[test]
    fn a_failed_pull_is_an_error_and_no_time_of_a_pull() {
        let mut record = Record::default();
        for milliseconds in 1..=100 {
            record.add(&pulled(milliseconds, None));
        }
        record.add(&pulled(9, Some(Failure { sentence: "GET /v2/: 429".to_owned(), throttled: true })));
        for number in 0..20 {
            record.add(&pulled(9, Some(Failure::new(format!("GET /v2/: {number}")))));
        }
        assert_eq!((record.pulls, record.errors, record.throttled), (100, 21, 1));
        assert_eq!(record.histogram(Phase::Whole).len(), 100);
        assert_eq!(record.histogram(Phase::Ping).len(), 121);
        let p99 = record.percentile(Phase::Whole, 0.99).expect("values");
        assert!((98_900..=99_100).contains(&p99), "{p99}");
        assert_eq!(record.sentences().map(|(_, count)| count).sum::<u64>(), 21);
        assert!(record.sentences().count() <= MAX_SENTENCES + 1);
        assert_eq!(record.percentile(Phase::Token, 0.5), None);
    }

    #[test]
    fn percentiles_of_speed_are_those_of_the_slow() {
        let mut record = Record::default();
        for kib in 1..=100 {
            let mut meter = Meter::default();
            meter.speed(kib << 10, Duration::from_secs(1));
            record.add(&Pulled { meter, failure: None });
        }
        assert_eq!(record.percentile(Phase::Throughput, 1.0), Some(1));
        assert!(record.percentile(Phase::Throughput, 0.9).is_some_and(|p90| p90 <= 11));
    }

    #[test]
    fn totals_add_up_times_and_average_speeds() {
        let mut meter = Meter::default();
        meter.time(Phase::Redirect, Duration::from_micros(3));
        meter.time(Phase::Redirect, Duration::from_micros(4));
        meter.speed(1 << 20, Duration::from_secs(1));
        meter.speed(3 << 20, Duration::from_secs(1));
        let totals = meter.totals();
        assert_eq!(totals[Phase::Redirect as usize], 7);
        assert_eq!(totals[Phase::Throughput as usize], 2048);
        assert_eq!(totals[Phase::Token as usize], 0);
    }
}
