//! What differs between two configurations, and when that takes effect.

use std::convert::Infallible;

use super::{Config, Destination, Routes};

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
            upstreams,
            routes,
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
        // How long a route keeps something follows from its own `cache` and from that of the file. Where the file's has changed it is
        // not told whether the route's has as well.
        let has_other_lifetimes = *lifetimes != next.lifetimes || cache.is_some() != next.cache.is_some();
        let has_other_routes = match has_other_lifetimes {
            true => without_lifetimes(routes) != without_lifetimes(&next.routes),
            false => *routes != next.routes,
        };
        let all = [
            ("listen", AtOnce, *listeners != next.listeners),
            ("admin", AtOnce, *admin != next.admin),
            // `identity`, `default` and `upstream` are in the routes.
            ("routes", AtOnce, has_other_routes || *upstreams != next.upstreams),
            ("ca_file", AtStart, *ca_file != next.ca_file),
            ("token_wait", AtOnce, *token_wait != next.token_wait),
            ("client_keepalive", AtOnce, *client_keepalive != next.client_keepalive),
            ("drain", AtOnce, *drain != next.drain),
            ("notify", AtOnce, *notify != next.notify),
            ("cache", AtOnce, *cache != next.cache || has_other_lifetimes),
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

/// The routes but for what the `cache` of the file has a part in.
fn without_lifetimes(routes: &Routes) -> Result<Routes, Infallible> {
    routes.try_map(|_, destination| Ok(Destination { lifetimes: None, ..destination.clone() }))
}
