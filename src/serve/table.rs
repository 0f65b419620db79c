//! The table of routes with their destinations, and how it is replaced while requests run.
//!
//! Requests read the table through one pointer, which is swapped atomically. A request keeps the destination that it got, so
//! it ends with the table that it began with. The upkeep of a registry ends after the last request to it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::ServeError;
use super::registry::{Builder, Built, Shared};
use super::upkeep::{Upkeep, UpkeepService};
use crate::cache::Cache;
use crate::config::{self, CacheSettings, Config};
use crate::metrics::Meters;
use crate::net::egress::{Egress, EgressSettings};
use crate::net::trust::TrustRoots;
use crate::proxy::{BlobHosts, CacheOfProcess, Connections, Destination, Kept, Table, Upstream, room};
use oci::route::{Routes, Source};

/// Makes tables of routes, and swaps them.
pub(crate) struct RouteTable {
    live: Arc<Table>,
    /// The registries of the live table, and what they have in common; `None` before the first one.
    served: Vec<Served>,
    shared: Option<Shared>,
    builder: Builder,
    /// How hosts are reached, and the settings for it. Another value for other settings.
    egress: Arc<Mutex<(EgressSettings, Option<Arc<Egress>>)>>,
    /// The connections of calls that are not passed on, shared by all routes.
    calls: Arc<Connections>,
    /// Made by the first settings with a cache.
    cache: Arc<CacheOfProcess>,
    upkeep: mpsc::UnboundedSender<Upkeep>,
    meters: Arc<Meters>,
}

/// A registry, and the settings from which it was built.
#[derive(Clone)]
struct Served {
    settings: Arc<config::Upstream>,
    egress: Arc<Egress>,
    upstream: Arc<Upstream>,
}

impl Served {
    fn is_built_from(&self, settings: &config::Upstream, egress: &Arc<Egress>) -> bool {
        *self.settings == *settings && Arc::ptr_eq(&self.egress, egress)
    }
}

/// The next table, of which all registries are there.
struct Next {
    egress: Arc<Egress>,
    shared: Shared,
    served: Vec<Served>,
    /// Of those that are new.
    upkeep: Vec<Upkeep>,
    /// Each with its registry.
    routes: Routes<(Arc<Upstream>, config::Destination)>,
}

impl RouteTable {
    /// A table without routes, until [`Self::replace`] adds them; and the service that runs the upkeep of its registries.
    pub(crate) fn new(roots: TrustRoots, calls: Connections, meters: &Arc<Meters>) -> (Self, UpkeepService) {
        let (upkeep, service) = UpkeepService::new();
        let table = Self {
            live: Arc::new(ArcSwap::from_pointee(Routes::new(Vec::new(), None))),
            served: Vec::new(),
            shared: None,
            builder: Builder::new(roots, meters),
            egress: Arc::default(),
            calls: Arc::new(calls),
            cache: Arc::default(),
            upkeep,
            meters: Arc::clone(meters),
        };
        (table, service)
    }

    /// The table that requests read.
    pub(crate) fn live(&self) -> Arc<Table> {
        Arc::clone(&self.live)
    }

    /// The cache, for its counters.
    pub(crate) fn cache(&self) -> Arc<CacheOfProcess> {
        Arc::clone(&self.cache)
    }

    /// Replaces the routes by those of these settings, for new requests, and the size of the cache. A registry whose settings
    /// are unchanged keeps its tokens, addresses, connections and what is kept of it; one for which only the egress has changed
    /// keeps its tokens for all repositories and what is kept of it. After an error, nothing has changed. Does no network I/O.
    pub(crate) fn replace(&mut self, config: &Config) -> Result<(), ServeError> {
        // What was built before the mistake is gone, and is not to be in metrics.
        let next = self.next(config).inspect_err(|_| self.meters.forget_unused())?;
        self.apply(config, next);
        Ok(())
    }

    /// All registries of these settings: those that are there, and others, which are built.
    fn next(&self, config: &Config) -> Result<Next, ServeError> {
        let (egress, shared) = (self.egress(config.egress())?, Shared::of(config));
        let (mut served, mut upkeep) = (Vec::<Served>::new(), Vec::new());
        let routes = config.routes().try_map(|_, destination| {
            let settings = &destination.upstream;
            let is_it = |known: &&Served| known.is_built_from(settings, &egress);
            let upstream = match (served.iter().find(is_it), self.served.iter().find(is_it)) {
                (Some(known), _) => Arc::clone(&known.upstream),
                (None, Some(known)) => {
                    served.push(known.clone());
                    Arc::clone(&known.upstream)
                }
                (None, None) => {
                    let (upstream, its_upkeep) = self.build(settings, shared, &egress)?;
                    upkeep.push(its_upkeep);
                    let (settings, egress) = (Arc::clone(settings), Arc::clone(&egress));
                    served.push(Served { settings, egress, upstream: Arc::clone(&upstream) });
                    upstream
                }
            };
            Ok((upstream, destination.clone()))
        })?;
        Ok(Next { egress, shared, served, upkeep, routes })
    }

    fn apply(&mut self, config: &Config, Next { egress, shared, served, upkeep, routes }: Next) {
        for upkeep in upkeep {
            // Fails only while the program ends, when upkeep is no longer needed.
            let _ = self.upkeep.send(upkeep);
        }
        if self.shared.is_some_and(|known| known.token_wait != shared.token_wait) {
            served.iter().for_each(|served| served.upstream.tokens.set_wait(shared.token_wait));
        }
        if self.shared.is_some_and(|known| known.reads_per_minute != shared.reads_per_minute) {
            served.iter().for_each(|served| served.upstream.health.set_reads(shared.reads_per_minute));
        }
        let Ok(routes) = routes.try_map(|source, (upstream, settings)| {
            Ok::<_, Infallible>(Arc::new(self.destination(source, upstream, settings, config.cache())))
        });
        let is_used = routes.iter().any(|route| route.destination.kept.is_some());
        let memory = config.cache().filter(|_| is_used).map_or(0, |settings| settings.memory);
        room::set_cache_memory(memory);
        if let Some(cache) = self.cache.get() {
            // Without a cache, what was in it is not to take memory.
            cache.set_memory(memory);
        }
        self.live.store(Arc::new(routes));
        *self.egress.lock().unwrap_or_else(PoisonError::into_inner) = (config.egress().clone(), Some(egress));
        (self.shared, self.served) = (Some(shared), served);
        self.meters.forget_unused();
    }

    /// Where a route leads. `cache`: of all routes, if there is one.
    fn destination(
        &self,
        source: &Source,
        upstream: &Arc<Upstream>,
        settings: &config::Destination,
        cache: Option<&CacheSettings>,
    ) -> Destination {
        let config::Destination { upstream: registry, on_failure, blobs, blob_hosts, lifetimes } = settings;
        let route = source.to_string();
        Destination {
            upstream: Arc::clone(upstream),
            on_failure: *on_failure,
            blobs: *blobs,
            blob_hosts: BlobHosts::new(registry.domain().host(), blob_hosts),
            calls: Arc::clone(&self.calls),
            kept: cache.zip(*lifetimes).map(|(settings, lifetimes)| Kept {
                cache: Arc::clone(self.cache.get_or_init(|| Arc::new(Cache::new(settings.memory)))),
                lifetimes,
                prefetch: settings.prefetch.as_slice().into(),
            }),
            meter: self.meters.route(&route),
            route,
        }
    }

    /// The forward proxy on the way to Azure, if there is one: its address, and what names it.
    pub(crate) fn egress_proxy(&self) -> Option<String> {
        let egress = self.egress.lock().unwrap_or_else(PoisonError::into_inner);
        let proxy = egress.1.as_ref()?.proxy()?;
        let over_tls = if proxy.tls.is_some() { " over TLS" } else { "" };
        Some(format!("{}{over_tls}, by {}", proxy.name, proxy.setting))
    }

    /// How hosts are reached, as a function of the settings that are in effect when it is called.
    #[cfg(feature = "otlp")]
    pub(crate) fn way_out(&self) -> impl Fn() -> Arc<Egress> + Send + 'static {
        let egress = Arc::clone(&self.egress);
        move || {
            let egress = egress.lock().unwrap_or_else(PoisonError::into_inner);
            egress.1.as_ref().map_or_else(Egress::direct, Arc::clone)
        }
    }

    /// How hosts are reached by these settings: as before, if they are the same.
    fn egress(&self, settings: &EgressSettings) -> Result<Arc<Egress>, ServeError> {
        let current = self.egress.lock().unwrap_or_else(PoisonError::into_inner);
        if let (known, Some(egress)) = &*current
            && known == settings
        {
            return Ok(Arc::clone(egress));
        }
        self.builder.egress(settings)
    }

    /// Builds one registry and its upkeep.
    fn build(
        &self,
        settings: &config::Upstream,
        shared: Shared,
        egress: &Arc<Egress>,
    ) -> Result<(Arc<Upstream>, Upkeep), ServeError> {
        // A token and an answer are as good whatever way they came; connections are not.
        let before = self.served.iter().find(|known| *known.settings == *settings).map(|known| &*known.upstream);
        let Built { upstream, issuer, in_use } = self.builder.build(settings, shared, egress, before)?;
        let addresses = Arc::clone(upstream.way.addresses());
        let upkeep = Upkeep { addresses, tokens: Arc::clone(&upstream.tokens), issuer, in_use };
        Ok((upstream, upkeep))
    }
}

#[cfg(test)]
mod tests;
