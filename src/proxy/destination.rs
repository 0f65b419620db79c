//! Where a route leads: one cache registry, and how the route wants it served.

use std::convert::Infallible;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderValue;
use pingora_core::connectors::http::v1::Connector;
use tokio::sync::oneshot;

use super::blob::hosts::BlobHosts;
use crate::config::Domain;
use crate::net::addresses::{Addresses, Names};
use crate::token::Tokens;
use oci::route::{OnFailure, Routes};

/// One cache registry, as requests see it.
pub(crate) struct Upstream {
    /// Where it is and what it is called: SNI, `Host`.
    pub domain: Domain,
    /// Its `Host`, ready to be sent.
    pub host: HeaderValue,
    /// Its addresses, looked up in the background.
    pub addresses: Arc<Addresses>,
    /// Its tokens, renewed in the background.
    pub tokens: Arc<Tokens>,
    /// Where its blobs are.
    pub blob_hosts: BlobHosts,
    /// The addresses of these hosts, all registries' together.
    pub storage_names: Arc<Names>,
    /// Dropped with the registry, which ends its upkeep. Nothing is ever sent.
    #[expect(dead_code, reason = "only its drop is noticed")]
    pub(crate) in_use: oneshot::Sender<Infallible>,
}

/// Where a route leads.
pub(crate) struct Destination {
    /// The registry; routes may share one.
    pub upstream: Arc<Upstream>,
    /// Whether clients are to turn to their next endpoint when a pull fails.
    pub on_failure: OnFailure,
    /// The connections on which the registry is asked where a blob is, which then comes through the proxy; `None` passes the
    /// registry's redirects on.
    pub(crate) blob_connector: Option<Arc<Connector>>,
}

/// The routes that requests go by. They are swapped whole; a request goes on to the destination that it was given.
pub(crate) type Table = ArcSwap<Routes<Arc<Destination>>>;

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
