//! Which repositories keep their token, and which failures are remembered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::Refresher;
use crate::token::backoff::Backoff;
use crate::token::slot::Slot;
use crate::token::{MAX_SCOPES, WILDCARD, as_millis};

/// Repositories whose last call failed and that never had a token. A request that asks again finds the pause that their
/// failures have come to; of more, the one that was asked for longest ago is evicted. Each may be called once a second at
/// first, of the 160 calls that ACR allows.
pub(in crate::token) const MAX_FAILED: usize = 128;
/// A token that the registry has accepted and that was used within this time is not evicted for a new one: the requests
/// of a pull follow each other more quickly.
const IN_USE: Duration = Duration::from_secs(5 * 60);

impl Refresher<'_> {
    /// Puts a repository whose first token has come into the table. If the table is full of tokens in use, it stays
    /// pending.
    pub(super) fn admit(&mut self, repository: &Arc<str>) {
        if self.in_table >= MAX_SCOPES && !self.make_room() {
            return;
        }
        let Some(scope) = self.scopes.get_mut(repository) else { return };
        scope.is_pending = false;
        scope.schedule.backoff = Backoff::default();
        self.in_table += 1;
        self.tokens.table.insert(repository, &scope.slot);
        self.tokens.pending().remove(repository);
    }

    /// Evicts one repository from the table. First one without a good token, then one whose token the registry has never
    /// accepted (the name is invented, or has just come), of equals the one that was used longest ago. False if all are
    /// in use.
    fn make_room(&mut self) -> bool {
        let now = Instant::now();
        let rank = |slot: &Slot| match slot.good(now) {
            None => 0,
            Some(bearer) if !bearer.accepted.load(Ordering::Relaxed) => 1,
            Some(_) => 2,
        };
        let used = |slot: &Slot| slot.used.load(Ordering::Relaxed);
        let candidates = self
            .scopes
            .iter()
            .filter(|(name, scope)| !scope.is_pending && !scope.schedule.in_flight && ***name != *WILDCARD);
        let worst = candidates.map(|(name, scope)| (rank(&scope.slot), used(&scope.slot), Arc::clone(name))).min();
        match worst {
            Some((2, used, _)) if self.tokens.clock().saturating_sub(used) < as_millis(IN_USE) => false,
            Some((_, _, name)) => {
                self.evict(&name);
                true
            }
            None => false,
        }
    }

    /// Keeps the pending repositories whose calls fail within [`MAX_FAILED`].
    pub(super) fn evict_one_of_too_many_failed(&mut self) {
        let failed = self.scopes.iter().filter(|(_, scope)| scope.is_pending && !scope.schedule.in_flight);
        if failed.clone().count() > MAX_FAILED {
            let oldest = failed.min_by_key(|(_, scope)| scope.slot.used.load(Ordering::Relaxed));
            if let Some(name) = oldest.map(|(name, _)| Arc::clone(name)) {
                self.evict(&name);
            }
        }
    }

    /// No request asks for this repository any more, or others need its place.
    pub(super) fn evict(&mut self, name: &str) {
        let Some(scope) = self.scopes.remove(name) else { return };
        if scope.is_pending {
            self.tokens.pending().remove(name);
        } else {
            self.in_table -= 1;
            self.tokens.table.remove(name);
        }
        self.report.forget(name);
        scope.slot.evict();
    }
}
