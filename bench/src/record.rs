//! What all pulls of one side measured.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use oci::quote::fingerprint;

use crate::meter::Pulled;
use crate::phase::Phase;

/// An hour in microseconds, longer than any wait here. In KiB a second, it is 3.6 TB/s.
const MAX_VALUE: u64 = 3_600_000_000;
/// Three significant digits: an error below 0.1 %, and some 200 KiB a histogram.
const DIGITS: u8 = 3;
/// Different errors of a side that are counted by their sentence; others are counted together.
const MAX_SENTENCES: usize = 8;

/// All pulls of one side.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    histograms: Vec<Histogram<u64>>,
    /// Pulls that succeeded.
    pub pulls: u64,
    /// Pulls that failed.
    pub errors: u64,
    /// Failed pulls that met a limit of requests.
    pub throttled: u64,
    /// Pulls of an open loop that were not started because too many were waiting.
    pub dropped: u64,
    /// Bytes of manifests, configs and layers.
    pub bytes: u64,
    /// By what is the same in each: the first such sentence, and how many there were.
    sentences: BTreeMap<String, (String, u64)>,
    others: u64,
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
            others: 0,
        }
    }
}

impl Record {
    /// Adds a pull. The phases of a failed pull count, its whole time does not.
    pub(crate) fn add(&mut self, pulled: &Pulled) {
        for (phase, value) in pulled.meter.samples() {
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
        let same = fingerprint(&failure.sentence);
        if self.sentences.len() < MAX_SENTENCES || self.sentences.contains_key(&same) {
            self.sentences.entry(same).or_insert_with(|| (failure.sentence.clone(), 0)).1 += 1;
        } else {
            self.others += 1;
        }
    }

    /// The samples of a phase.
    pub(crate) fn histogram(&self, phase: Phase) -> &Histogram<u64> {
        &self.histograms[phase as usize]
    }

    /// The errors, and how often each occurred.
    pub(crate) fn sentences(&self) -> impl Iterator<Item = (&str, u64)> {
        let others = (self.others > 0).then_some(("others", self.others));
        self.sentences.values().map(|(sentence, count)| (sentence.as_str(), *count)).chain(others)
    }

    /// The error that occurred most often, of those that are counted by their sentence.
    pub(crate) fn most_frequent(&self) -> Option<&str> {
        let most = self.sentences.values().max_by_key(|(_, count)| *count);
        most.map(|(sentence, _)| sentence.as_str())
    }

    /// The value that a `share` of all samples are no worse than: times no longer, speeds no lower. `None` without samples.
    pub(crate) fn percentile(&self, phase: Phase, share: f64) -> Option<u64> {
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
    use std::time::Duration;

    use super::*;
    use crate::failure::Failure;
    use crate::meter::Meter;

    fn pulled(milliseconds: u64, failure: Option<Failure>) -> Pulled {
        let mut meter = Meter::default();
        meter.time(Phase::Ping, Duration::from_millis(1));
        meter.time(Phase::Whole, Duration::from_millis(milliseconds));
        Pulled { meter, failure }
    }

    #[test]
    fn a_failed_pull_counts_as_an_error_and_not_as_a_time() {
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

    /// ACR's sentences end in an id of the request, so each was an error of its own, and most were "others".
    #[test]
    fn errors_that_differ_in_an_id_alone_are_one() {
        let mut record = Record::default();
        let denied =
            |number| format!("GET /v2/: 403 DENIED: not allowed. CorrelationId: 4b9d2c55-7d5f-4a52-9d0e-{number:012}");
        for number in 0..20 {
            record.add(&pulled(9, Some(Failure::new(denied(number)))));
        }
        assert_eq!(record.sentences().collect::<Vec<_>>(), [(denied(0).as_str(), 20)]);
        // What is counted together says nothing of why.
        for number in 0..200 {
            record.add(&pulled(9, Some(Failure::new(format!("GET /v2/{number}: 500")))));
        }
        assert_eq!(record.sentences().last(), Some(("others", 193)));
        assert_eq!(record.most_frequent(), Some(denied(0).as_str()));
    }

    #[test]
    fn percentiles_of_throughput_count_from_the_fast_end() {
        let mut record = Record::default();
        for kib in 1..=100 {
            let mut meter = Meter::default();
            meter.throughput(kib << 10, Duration::from_secs(1));
            record.add(&Pulled { meter, failure: None });
        }
        assert_eq!(record.percentile(Phase::Throughput, 1.0), Some(1));
        assert!(record.percentile(Phase::Throughput, 0.9).is_some_and(|p90| p90 <= 11));
    }
}
