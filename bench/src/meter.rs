//! What one pull measured.

use std::time::Duration;

use crate::failure::Failure;
use crate::phase::Phase;

/// Samples by phase: microseconds, or KiB a second for [`Phase::Throughput`].
#[derive(Clone, Debug, Default)]
pub struct Meter {
    samples: Vec<(Phase, u64)>,
    /// Bytes of manifests, configs and layers.
    pub bytes: u64,
}

impl Meter {
    /// Records a time.
    pub fn time(&mut self, phase: Phase, took: Duration) {
        self.samples.push((phase, u64::try_from(took.as_micros()).unwrap_or(u64::MAX)));
    }

    /// Records a throughput.
    pub fn throughput(&mut self, bytes: u64, took: Duration) {
        // The clock resolves a microsecond; the number of bytes is far below 2^53.
        let seconds = took.as_secs_f64().max(1e-6);
        self.samples.push((Phase::Throughput, (bytes as f64 / 1024.0 / seconds) as u64));
    }

    /// Adds what another part of the same pull measured.
    pub fn merge(&mut self, other: Self) {
        self.samples.extend(other.samples);
        self.bytes += other.bytes;
    }

    /// All samples, in the order in which they were recorded.
    pub fn samples(&self) -> &[(Phase, u64)] {
        &self.samples
    }

    /// The pull's total time in each phase, and its mean throughput; 0 for a phase without samples.
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

/// A pull that has ended.
#[derive(Debug)]
pub(crate) struct Pulled {
    /// What it measured before it ended.
    pub meter: Meter,
    /// Why it failed, `None` if it succeeded.
    pub failure: Option<Failure>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up_times_and_average_speeds() {
        let mut meter = Meter::default();
        meter.time(Phase::Redirect, Duration::from_micros(3));
        meter.time(Phase::Redirect, Duration::from_micros(4));
        meter.throughput(1 << 20, Duration::from_secs(1));
        meter.throughput(3 << 20, Duration::from_secs(1));
        let totals = meter.totals();
        assert_eq!(totals[Phase::Redirect as usize], 7);
        assert_eq!(totals[Phase::Throughput as usize], 2048);
        assert_eq!(totals[Phase::Token as usize], 0);
    }
}
