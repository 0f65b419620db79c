//! What the pulls of a level have measured so far, on both sides.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::meter::Pulled;
use crate::pairs::Pairs;
use crate::phase::Phase;
use crate::plan::Plan;
use crate::record::Record;
use crate::route::Side;

/// What a level has measured so far.
#[derive(Debug)]
pub(crate) struct Tally {
    /// The record of each side, in the order of the routes.
    pub records: Vec<(Side, Record)>,
    /// The differences, if there are two sides.
    pub pairs: Pairs,
    /// Pulls of each side that were started, or should have been.
    pub begun: Vec<u64>,
    /// Pulls that have ended on one side only; `None` if that side failed.
    halves: HashMap<u64, Option<[u64; Phase::ALL.len()]>>,
}

impl Tally {
    /// From these records, pairs and numbers of started pulls.
    pub(crate) fn of(records: Vec<(Side, Record)>, pairs: Pairs, begun: Vec<u64>) -> Self {
        Self { records, pairs, begun, halves: HashMap::new() }
    }
}

/// A tally that workers share.
pub(crate) struct Ledger(Mutex<Tally>);

impl Ledger {
    /// An empty tally.
    pub(crate) fn new(plan: &Plan) -> Self {
        let records: Vec<_> = plan.routes.iter().map(|route| (route.side, Record::default())).collect();
        let begun = vec![0; records.len()];
        Self(Mutex::new(Tally::of(records, Pairs::new(plan.seed), begun)))
    }

    /// The tally so far.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the tally; a pull that ends later does not count.
    pub(crate) fn close(&self) -> Tally {
        let mut tally = self.lock();
        std::mem::replace(&mut tally, Tally::of(Vec::new(), Pairs::new(0), Vec::new()))
    }

    /// Counts a pull that starts.
    pub(crate) fn begin(&self, side: usize) {
        if let Some(begun) = self.lock().begun.get_mut(side) {
            *begun += 1;
        }
    }

    /// Adds a pull of this number and side; `None` if it was not started.
    pub(crate) fn add(&self, number: u64, side: usize, pulled: Option<&Pulled>) {
        let mut tally = self.lock();
        let Some((_, record)) = tally.records.get_mut(side) else { return };
        match pulled {
            Some(pulled) => record.add(pulled),
            None => record.dropped += 1,
        }
        if tally.records.len() < 2 {
            return;
        }
        let totals = pulled.filter(|pulled| pulled.failure.is_none()).map(|pulled| pulled.meter.totals());
        match (tally.halves.remove(&number), totals) {
            (None, totals) => {
                tally.halves.insert(number, totals);
            }
            (Some(Some(other)), Some(this)) => {
                let (via, direct) = if side == 0 { (&this, &other) } else { (&other, &this) };
                tally.pairs.add(via, direct);
            }
            (Some(_), _) => {}
        }
    }
}
