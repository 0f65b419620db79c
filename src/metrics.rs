//! What is measured of requests and of calls to registries. The names under which it is told are in one catalogue.
//!
//! Numbers that a module counts for itself ([`crate::load`], `cache::counters`, `proxy::health`) stay there; the admin listener
//! reads them when it is asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) mod catalogue;
pub(crate) mod histogram;
pub(crate) mod history;
pub(crate) mod labels;
pub(crate) mod recent;
pub(crate) mod refused;
pub(crate) mod spans;

mod meter;

use history::History;
use recent::{Clients, Failures};
use spans::SpanMeter;

pub(crate) use meter::{CallMeter, Request, RouteMeter};

/// The meters of a process. Those of a route and of a registry are found by name when a table is made, so that they go on
/// when it is replaced; requests hold them.
#[derive(Default)]
pub(crate) struct Meters {
    /// Requests that have no route: refused ones, and `GET /v2/`.
    pub unrouted: Arc<RouteMeter>,
    routes: Mutex<BTreeMap<String, Arc<RouteMeter>>>,
    registries: Mutex<BTreeMap<String, Arc<CallMeter>>>,
    /// Who has asked.
    pub clients: Clients,
    /// What has failed.
    pub failures: Failures,
    /// How it went lately.
    pub history: History,
    /// What has become of spans.
    pub spans: Arc<SpanMeter>,
}

impl Meters {
    /// The meter of the route with this source.
    pub(crate) fn route(&self, source: &str) -> Arc<RouteMeter> {
        found(&self.routes, source)
    }

    /// The meter of the registry of this name, whoever signs in to it.
    pub(crate) fn registry(&self, name: &str) -> Arc<CallMeter> {
        found(&self.registries, name)
    }

    /// Every route's meter, with its source.
    pub(crate) fn routes(&self) -> Vec<(String, Arc<RouteMeter>)> {
        all(&self.routes)
    }

    /// Every registry's meter, with its name.
    pub(crate) fn registries(&self) -> Vec<(String, Arc<CallMeter>)> {
        all(&self.registries)
    }

    /// Forgets the meters that nobody holds any more: those of routes and registries that a new table is without.
    pub(crate) fn forget_unused(&self) {
        locked(&self.routes).retain(|_, meter| Arc::strong_count(meter) > 1);
        locked(&self.registries).retain(|_, meter| Arc::strong_count(meter) > 1);
    }
}

fn found<T: Default>(all: &Mutex<BTreeMap<String, Arc<T>>>, name: &str) -> Arc<T> {
    Arc::clone(locked(all).entry(name.to_owned()).or_default())
}

fn all<T>(all: &Mutex<BTreeMap<String, Arc<T>>>) -> Vec<(String, Arc<T>)> {
    locked(all).iter().map(|(name, meter)| (name.clone(), Arc::clone(meter))).collect()
}

/// No panic leaves a map half changed.
fn locked<T>(all: &Mutex<T>) -> MutexGuard<'_, T> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_that_is_in_the_next_table_keeps_its_meter() {
        let meters = Meters::default();
        let (kept, gone) = (meters.route("docker.io"), meters.route("ghcr.io"));
        assert!(Arc::ptr_eq(&kept, &meters.route("docker.io")));
        drop(gone);
        meters.forget_unused();
        let left: Vec<_> = meters.routes().into_iter().map(|(source, _)| source).collect();
        assert_eq!(left, ["docker.io"]);
    }
}
