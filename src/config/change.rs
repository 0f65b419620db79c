//! What differs between two configurations, and when that takes effect.

use std::convert::Infallible;
use std::net::IpAddr;

use oci::route::{self, Blobs, OnFailure};

use super::{Config, Destination, Domain, Routes};

/// When a change takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// When the configuration is read again.
    AtOnce,
    /// When the process starts.
    AtStart,
}

impl Config {
    /// The keys of the file whose values differ in `next`, with `effect`.
    pub(crate) fn changes(&self, next: &Self, effect: Effect) -> Vec<&'static str> {
        use Effect::{AtOnce, AtStart};
        // Without `..`: whoever adds a setting decides here.
        let Self {
            listeners,
            // Each is in a route.
            upstreams: _,
            routes,
            own,
            identity,
            admin,
            ca_file,
            token_wait,
            client_keepalive,
            threads,
            log,
            cache,
            lifetimes,
            access,
            connections,
            registry_reads_per_minute,
            drain,
            notify,
            egress,
        } = self;
        let all = [
            ("listen", AtOnce, *listeners != next.listeners),
            ("admin", AtOnce, *admin != next.admin),
            // `default` and `upstream` are in the routes.
            ("routes", AtOnce, *own != next.own || without_the_files(routes) != without_the_files(&next.routes)),
            ("identity", AtOnce, *identity != next.identity),
            ("ca_file", AtStart, *ca_file != next.ca_file),
            ("token_wait", AtOnce, *token_wait != next.token_wait),
            ("client_keepalive", AtOnce, *client_keepalive != next.client_keepalive),
            ("drain", AtOnce, *drain != next.drain),
            ("notify", AtOnce, *notify != next.notify),
            ("cache", AtOnce, *cache != next.cache || *lifetimes != next.lifetimes),
            ("access", AtOnce, access.access != next.access.access),
            (
                "limits",
                AtOnce,
                *registry_reads_per_minute != next.registry_reads_per_minute
                    || access.per_client != next.access.per_client
                    || access.bounds != next.access.bounds,
            ),
            ("limits.connections", AtStart, *connections != next.connections),
            ("egress", AtOnce, *egress != next.egress),
            ("threads", AtStart, *threads != next.threads),
            ("log", AtOnce, *log != next.log),
        ];
        let is_it = |(key, when, differs): (&'static str, Effect, bool)| (differs && when == effect).then_some(key);
        all.into_iter().filter_map(is_it).collect()
    }
}

/// Where a route leads and how it serves, but for what the `identity` and the `cache` of the file have a part in.
type Rest = (Domain, Vec<IpAddr>, OnFailure, Blobs, Vec<String>);

/// The routes with that.
fn without_the_files(routes: &Routes) -> Result<route::Routes<Rest>, Infallible> {
    routes.try_map(|_, Destination { upstream, on_failure, blobs, blob_hosts, lifetimes: _ }| {
        Ok((upstream.domain().clone(), upstream.addresses().to_vec(), *on_failure, *blobs, blob_hosts.clone()))
    })
}
