//! The numbers that requests and calls add to: arrays of atomics that are found once, when the table of routes is made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::histogram::Histogram;
use super::labels::{CacheResult, CallResult, Hop, Kind, Status};
use super::recent::Images;
use super::refused::Refused;

/// What the requests of one route add to. Adding takes no lock and looks nothing up.
pub(crate) struct RouteMeter {
    requests: [[[AtomicU64; CacheResult::ALL.len()]; Status::COUNT]; Kind::ALL.len()],
    first_byte: [Histogram; Kind::ALL.len()],
    whole: [Histogram; Kind::ALL.len()],
    bytes: [AtomicU64; Kind::ALL.len()],
    /// Which images were pulled.
    pub images: Images,
    /// Which requests were refused.
    pub refused: Refused,
}

/// A request that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// What it was for.
    pub kind: Kind,
    /// The status of its answer; 0 is none.
    pub status: u16,
    /// What the cache did.
    pub cache: CacheResult,
    /// From the end of its header to the header of the answer; `None` without one.
    pub first_byte: Option<Duration>,
    /// From the end of its header to the end of the answer.
    pub whole: Duration,
    /// Bytes of the answer's body.
    pub bytes: usize,
}

impl Default for RouteMeter {
    fn default() -> Self {
        Self {
            requests: std::array::from_fn(|_| std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0)))),
            first_byte: Default::default(),
            whole: Default::default(),
            bytes: Default::default(),
            images: Images::default(),
            refused: Refused::default(),
        }
    }
}

impl RouteMeter {
    /// Adds a request.
    pub(crate) fn add(&self, request: &Request) {
        let kind = request.kind as usize;
        self.requests[kind][Status::of(request.status).index()][request.cache.index()].fetch_add(1, Ordering::Relaxed);
        if let Some(first_byte) = request.first_byte {
            self.first_byte[kind].observe(first_byte);
        }
        self.whole[kind].observe(request.whole);
        self.bytes[kind].fetch_add(request.bytes as u64, Ordering::Relaxed);
    }

    /// Calls `each` with every count that is not 0: kind, status, what the cache did.
    pub(crate) fn requests(&self, mut each: impl FnMut(Kind, &'static str, CacheResult, u64)) {
        for (kind, statuses) in Kind::ALL.into_iter().zip(&self.requests) {
            for (status, results) in statuses.iter().enumerate() {
                for (cache, count) in CacheResult::ALL.into_iter().zip(results) {
                    match count.load(Ordering::Relaxed) {
                        0 => {}
                        count => each(kind, Status::name(status), cache, count),
                    }
                }
            }
        }
    }

    /// Times to the first byte, and to the whole answer.
    pub(crate) fn durations(&self, kind: Kind) -> [&Histogram; 2] {
        [&self.first_byte[kind as usize], &self.whole[kind as usize]]
    }

    /// Bytes of bodies.
    pub(crate) fn bytes(&self, kind: Kind) -> u64 {
        self.bytes[kind as usize].load(Ordering::Relaxed)
    }
}

/// The calls to one registry, to its sign-in and to its storage.
#[derive(Default)]
pub(crate) struct CallMeter {
    results: [[AtomicU64; CallResult::ALL.len()]; Hop::ALL.len()],
    durations: [Histogram; Hop::ALL.len()],
}

impl CallMeter {
    /// A call has ended. Where there was an answer, it took this long.
    pub(crate) fn add(&self, hop: Hop, result: CallResult, took: Option<Duration>) {
        self.results[hop as usize][result as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(took) = took {
            self.durations[hop as usize].observe(took);
        }
    }

    /// A call begins. It counts as one without an answer unless [`Call::ended`] is told.
    pub(crate) fn begin(self: &Arc<Self>, hop: Hop) -> Call {
        Call { meter: Arc::clone(self), hop, begun: Instant::now(), is_over: false }
    }

    /// How many have ended so.
    pub(crate) fn count(&self, hop: Hop, result: CallResult) -> u64 {
        self.results[hop as usize][result as usize].load(Ordering::Relaxed)
    }

    /// How long the answers took.
    pub(crate) fn durations(&self, hop: Hop) -> &Histogram {
        &self.durations[hop as usize]
    }
}

/// A call under way.
pub(crate) struct Call {
    meter: Arc<CallMeter>,
    hop: Hop,
    begun: Instant,
    is_over: bool,
}

impl Call {
    /// It has an answer.
    pub(crate) fn ended(mut self, result: CallResult) {
        self.is_over = true;
        self.meter.add(self.hop, result, Some(self.begun.elapsed()));
    }

    /// No call was made.
    pub(crate) fn was_none(mut self) {
        self.is_over = true;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.is_over {
            self.meter.add(self.hop, CallResult::Unreachable, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::labels::How;
    use super::*;

    #[test]
    fn a_request_is_counted_once_by_its_labels() {
        let meter = RouteMeter::default();
        let request = Request {
            kind: Kind::Manifest,
            status: 200,
            cache: CacheResult::Here(How::Hit),
            first_byte: Some(Duration::from_millis(1)),
            whole: Duration::from_millis(2),
            bytes: 7,
        };
        meter.add(&request);
        meter.add(&request);
        meter.add(&Request { status: 0, cache: CacheResult::None, first_byte: None, ..request });
        let mut found = Vec::new();
        meter.requests(|kind, status, cache, count| found.push((kind.name(), status, cache.name(), count)));
        assert_eq!(found, [("manifest", "0", "none", 1), ("manifest", "200", "hit", 2)]);
        let [first_byte, whole] =
            meter.durations(Kind::Manifest).map(|histogram| histogram.counts().map(|counts| counts.count));
        assert_eq!((first_byte, whole, meter.bytes(Kind::Manifest)), (Some(2), Some(3), 21));
    }

    #[test]
    fn a_call_without_an_answer_is_one_too() {
        let meter = Arc::new(CallMeter::default());
        meter.begin(Hop::Token).ended(CallResult::Limited);
        drop(meter.begin(Hop::Token));
        meter.begin(Hop::Token).was_none();
        let counts = CallResult::ALL.map(|result| meter.count(Hop::Token, result));
        assert_eq!(counts, [0, 0, 1, 0, 0, 1]);
        assert_eq!(meter.durations(Hop::Token).counts().map(|counts| counts.count), Some(1));
    }
}
