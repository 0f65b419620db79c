//! The ways to all registries, each with the routes that lead there.

use std::sync::Arc;

use oci::route::OnFailure;
use tokio::time::Instant;

use super::configuration::Parts;
use super::images::Images;
use super::pull::{self, Route};
use super::registry;
use super::report::{Group, Kind};
use super::steps::Steps;
use crate::config::Upstream;
use crate::identity;
use crate::net::trust::TrustRoots;
use crate::proxy::{BlobHosts, Connections, Destination};
use crate::serve::registry::Built;

/// A registry, and the routes that lead there.
pub(super) struct Way {
    built: Built,
    roots: TrustRoots,
    routes: Vec<Route>,
    /// A file of the sign-in that only the unit has, a clause.
    elsewhere: Option<String>,
}

/// The ways to all registries.
pub(super) fn ways(parts: Parts, images: &Images, calls: &Arc<Connections>) -> Vec<Way> {
    let Parts { config, roots, registries, meters } = parts;
    let is_for_this_host = config
        .listeners()
        .iter()
        .all(|listener| listener.endpoint.address().is_none_or(|address| address.ip().is_loopback()));
    let way = |(settings, built): (Arc<Upstream>, Built)| {
        let routes = config.routes().iter().filter(|route| Arc::ptr_eq(&route.destination.upstream, &settings));
        let routes = routes.map(|route| {
            let name = route.source.to_string();
            let images = images.of(route, config.routes()).into_iter();
            let images = images.filter_map(|wanted| Some((wanted.clone(), wanted.target(config.routes())?)));
            Route {
                source: route.source.clone(),
                prefix: route.prefix.clone(),
                images: images.collect(),
                is_for_this_host,
                destination: Arc::new(Destination {
                    meter: meters.route(&name),
                    route: name,
                    upstream: Arc::clone(&built.upstream),
                    on_failure: OnFailure::Closed,
                    blobs: route.destination.blobs,
                    blob_hosts: BlobHosts::new(built.upstream.domain.host(), &route.destination.blob_hosts),
                    calls: Arc::clone(calls),
                    kept: None,
                }),
            }
        });
        let routes = routes.collect();
        let mut elsewhere = identity::of_unit(settings.identity().kind()).into_iter().map(|(setting, path)| {
            let path = path.display();
            format!("not tried, since only the unit has {setting} {path}: doctor asks the proxy that runs")
        });
        Way { built, roots: roots.clone(), routes, elsewhere: elsewhere.next() }
    };
    registries.into_iter().map(way).collect()
}

impl Way {
    /// The registry, and who signs in to it.
    pub(super) fn name(&self) -> String {
        let upstream = &self.built.upstream;
        let (kind, id) = &upstream.identity;
        let id = id.as_ref().map(|id| format!(" {id}")).unwrap_or_default();
        format!("{}, signed in by {kind}{id}", upstream.domain.authority())
    }

    /// Tries it.
    pub(super) async fn go(self, until: Instant) -> Vec<Group> {
        let name = self.name();
        let Self { built, roots, routes, elsewhere } = self;
        let mut steps = Steps::new(until);
        let ready = match routes.first() {
            Some(route) => registry::reach(&built, &route.destination, roots, elsewhere, &mut steps).await,
            None => None,
        };
        let ended = steps.ended;
        let mut groups = vec![Group { kind: Kind::Registry, name, lines: steps.lines }];
        let mut reached = Vec::new();
        for route in &routes {
            groups.extend(pull::route(route, ready.as_ref(), ended, &mut reached, until).await);
        }
        groups
    }
}
