//! Where a route leads: one cache registry, and how the route wants it served.

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::sync::oneshot;

use super::blob::hosts::BlobHosts;
use super::connections::Connections;
use super::endpoint::Endpoint;
use super::fail::Trouble;
use super::health::{Call, Health};
use crate::cache::Cache;
use crate::config::{Domain, Lifetimes};
use crate::metrics::{CallMeter, RouteMeter};
use crate::net::addresses::{Names, Way};
use crate::net::egress::Egress;
use crate::token::Tokens;
use oci::platform::Platform;
use oci::route::{Blobs, OnFailure, Routes};

/// One cache registry, as requests see it. Routes that sign in to it as the same identity share it, and with it all that the
/// registry counts together: the reads, the pauses, and what is kept.
pub(crate) struct Upstream {
    /// No other registry of this process has it, nor the same registry with another identity: what is kept is found by it. The same
    /// one has it whatever way it is reached.
    pub number: u64,
    /// Where it is and what it is called: SNI, `Host`.
    pub domain: Domain,
    /// Its `Host`, ready to be sent.
    pub host: HeaderValue,
    /// How it is reached: by its addresses, looked up in the background, or by those of a proxy before it.
    pub way: Way,
    /// Its tokens, renewed in the background.
    pub tokens: Arc<Tokens>,
    /// Who signs in to it, for people: the kind of identity, and its client id.
    pub identity: (&'static str, Option<String>),
    /// How it does, and what is asked of it.
    pub health: Health,
    /// The calls to it and to its storage.
    pub meter: Arc<CallMeter>,
    /// The addresses of hosts that hold blobs, all registries' together.
    pub storage_names: Arc<Names>,
    /// Which of them are behind a proxy.
    pub egress: Arc<Egress>,
    /// Dropped with the registry, which ends its upkeep. Nothing is ever sent.
    #[expect(dead_code, reason = "only its drop is noticed")]
    pub(crate) in_use: oneshot::Sender<Infallible>,
}

/// Where a route leads.
pub(crate) struct Destination {
    /// The source that the route is for, as the log names the route.
    pub route: String,
    /// The registry; routes may share one.
    pub upstream: Arc<Upstream>,
    /// Whether clients are to turn to their next endpoint when a pull fails.
    pub on_failure: OnFailure,
    /// How clients get blobs.
    pub blobs: Blobs,
    /// Where they may come from.
    pub blob_hosts: BlobHosts,
    /// The connections of calls that are not passed on: for what is kept, and for where a blob is.
    pub calls: Arc<Connections>,
    /// What is kept for this route; `None` keeps nothing.
    pub kept: Option<Kept>,
    /// What its requests add to.
    pub meter: Arc<RouteMeter>,
}

#[cfg(any(test, feature = "hot-path"))]
impl Destination {
    /// A route of example.azurecr.io, to which nobody signs in: for tests, and for what is counted and timed.
    pub(crate) fn example(number: u64, blobs: Blobs, kept: Option<Kept>) -> Self {
        use crate::net::addresses::Addresses;

        const DOMAIN: &str = "example.azurecr.io";
        let domain = Domain::parse(DOMAIN).expect("a domain");
        let upstream = Upstream {
            number,
            host: domain.to_header(),
            way: Way::direct(Arc::new(Addresses::new(domain.host(), domain.port(), &[]))),
            tokens: Arc::default(),
            identity: ("anonymous", None),
            health: Health::new(&domain, None),
            meter: Arc::default(),
            storage_names: Names::storage(),
            egress: Egress::direct(),
            domain,
            in_use: oneshot::channel().0,
        };
        Self {
            route: "docker.io".to_owned(),
            upstream: Arc::new(upstream),
            on_failure: OnFailure::default(),
            blobs,
            blob_hosts: BlobHosts::new(DOMAIN, &[]),
            calls: Arc::new(Connections::new(None, 0)),
            meter: Arc::default(),
            kept,
        }
    }
}

impl Destination {
    /// Requests keep to what is known of the registry's health. Without a cache they find out for themselves.
    pub(crate) fn minds_health(&self) -> bool {
        self.kept.is_some()
    }

    /// Whether the registry may be asked; if not, why not.
    pub(crate) fn may_ask(&self, endpoint: Endpoint) -> Result<(), Trouble> {
        if self.minds_health() { self.upstream.health.may_ask(Call::of(endpoint)) } else { Ok(()) }
    }

    /// Waits for something of the registry's, until that is known to be down: then nobody waits for it any longer.
    pub(crate) async fn unless_down<T>(&self, wait: impl Future<Output = T>) -> Result<T, Trouble> {
        if self.minds_health() { self.upstream.health.unless_down(wait).await } else { Ok(wait.await) }
    }
}

/// The cache, as a route uses it.
#[derive(Clone)]
pub(crate) struct Kept {
    /// The one of the process.
    pub cache: Arc<Cache<Trouble>>,
    /// For how long this route uses what is in it.
    pub lifetimes: Lifetimes,
    /// The platforms for which an image's manifest and configuration are fetched once its index has come.
    pub prefetch: Arc<[Platform]>,
}

/// The one cache of the process, once there were settings with one. It stays while the cache is off, empty, for its counters.
pub(crate) type CacheOfProcess = OnceLock<Arc<Cache<Trouble>>>;

/// The routes that requests go by. They are swapped whole; a request goes on to the destination that it was given.
pub(crate) type Table = ArcSwap<Routes<Arc<Destination>>>;

/// Whether answers of this registry's may be kept that stand in for those that it does not give. How long such answers do, the
/// settings of its routes say.
pub(crate) fn has_kept(table: &Table, upstream: &Arc<Upstream>) -> bool {
    table.load().iter().any(|route| {
        let destination = &route.destination;
        let is_its = Arc::ptr_eq(&destination.upstream, upstream);
        is_its
            && destination.kept.as_ref().is_some_and(|kept| {
                let limit = kept.lifetimes.manifests.saturating_add(kept.lifetimes.stale);
                kept.cache.size().0 > 0 && upstream.health.last_success().is_some_and(|ago| ago < limit)
            })
    })
}

/// The registries to which the routes lead, each once.
pub(crate) fn upstreams(table: &Table) -> Vec<Arc<Upstream>> {
    let mut upstreams: Vec<Arc<Upstream>> = Vec::new();
    for route in table.load().iter() {
        let upstream = &route.destination.upstream;
        if !upstreams.iter().any(|known| Arc::ptr_eq(known, upstream)) {
            upstreams.push(Arc::clone(upstream));
        }
    }
    upstreams
}
