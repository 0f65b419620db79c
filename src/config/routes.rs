//! The `routes` list, or the one route of `upstream`: which source leads where, each cache registry once.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ServingHost;
use super::cache::{FileCache, Given, Lifetimes};
use super::domain::Domain;
use super::identity::Identity;
use super::mistake::{Mistakes, Place, Text};
use super::setting::{ROUTE, RouteTable};
use oci::route::{Blobs, DOCKER_HUB, OnFailure, Route, Source};

/// One cache registry, with who signs in to it. Azure meters both together, so routes that have both in common share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upstream {
    domain: Domain,
    addresses: Vec<IpAddr>,
    identity: Identity,
}

impl Upstream {
    /// Its login server.
    pub(crate) fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Addresses to use instead of DNS; empty if DNS is to be asked.
    pub(crate) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Who signs in.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }
}

/// Where a route leads, and how it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    /// The cache registry; routes may share one.
    pub upstream: Arc<Upstream>,
    /// What a failure asks of clients.
    pub on_failure: OnFailure,
    /// How blobs are served.
    pub blobs: Blobs,
    /// Further hosts, or suffixes of hosts with a dot in front, that may hold them.
    pub blob_hosts: Vec<String>,
    /// How long what the route fetched is kept; `None` keeps nothing, as with `cache: off`.
    pub lifetimes: Option<Lifetimes>,
}

/// What a route itself sets in place of the file's setting. A reload compares it, to name the setting that has changed: the file's or
/// the route's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Own {
    source: Source,
    identity: Option<Identity>,
    /// `None` is `cache: off`.
    cache: Option<Given>,
}

/// The table of routes, as it is set.
pub(crate) type Routes = oci::route::Routes<Destination>;

/// The routes while they are put together.
#[derive(Default)]
pub(crate) struct Table {
    pub upstreams: Vec<Arc<Upstream>>,
    pub routes: Vec<Route<Destination>>,
    /// Of each route, in the order of the file.
    pub own: Vec<Own>,
    /// The `hosts` of all routes, each with its registry.
    hosts: Vec<(Place, String, String)>,
    /// The file that was to name the registry, and is not there.
    missing: Option<PathBuf>,
}

impl Table {
    /// Without a route yet.
    pub(crate) fn new(missing: Option<PathBuf>) -> Self {
        Self { missing, ..Self::default() }
    }

    /// An item of `routes`; or, with the `flags` for its domain and prefix, the `upstream` of a file with one route only.
    pub(crate) fn add(
        &mut self,
        mistakes: &mut Mistakes,
        entry: RouteTable,
        flags: Option<[Option<Text>; 2]>,
        identity: &Identity,
        cache: &FileCache,
        host: Option<&ServingHost>,
    ) {
        let RouteTable {
            place: at,
            is_flawed,
            domain,
            prefix,
            source,
            addresses,
            hosts,
            on_failure,
            blobs,
            blob_hosts,
            cache: own_cache,
            identity: own_identity,
        } = entry;
        let is_listed = flags.is_none();
        let [domain_flag, prefix_flag] = flags.unwrap_or_default();
        let is_named = domain_flag.is_some() || domain.is_some();
        let domain = ROUTE.domain.parse([domain_flag, domain], mistakes);
        let prefix = ROUTE.prefix.parse_or_default([prefix_flag, prefix], mistakes).unwrap_or_default();
        let source_at = source.as_ref().map(|(place, _)| place.clone());
        // A source that is wrong, or hidden under a wrong key, is told once; the entry is then judged no further.
        let is_sourced = !is_listed || source.is_some();
        let source = ROUTE.source.parse_or_default([source], mistakes);
        let addresses_at = addresses.first().map(|(place, _)| place.clone()).or_else(|| at.clone());
        let addresses = ROUTE.addresses.parse(addresses, mistakes);
        let places: Vec<_> = hosts.iter().map(|(place, _)| place.clone()).collect();
        let hosts: Vec<_> = hosts.into_iter().map(|text| mistakes.parse(text, ROUTE.hosts.parse)).collect();
        let on_failure = ROUTE.on_failure.parse_or_default([on_failure], mistakes).unwrap_or_default();
        let blobs_at = blobs.as_ref().map(|(place, _)| place.clone());
        let (blobs, blob_hosts) = blobs_and_hosts(blobs, blob_hosts, mistakes);
        let (own_cache, lifetimes) = cache.of_route(own_cache, prefix.as_str().is_empty(), mistakes);
        if let (Some(place), Blobs::ProxyConfig, None) = (blobs_at, blobs, lifetimes) {
            let sentence = "proxy_config needs the cache, which tells configurations from layers: use redirect or proxy, or remove cache: off";
            mistakes.add(&place, sentence);
        }
        let own_identity = own_identity.map(|table| Identity::parse(table, host, mistakes));
        let identity = own_identity.clone().unwrap_or_else(|| identity.clone());
        if let Some(at) = at.as_ref().filter(|_| !is_sourced && !is_flawed) {
            mistakes.add(at, "has no source: set it to the registry that the cache rule is for, such as docker.io");
        }
        let Some(domain) = domain else {
            if !is_named && !is_flawed {
                no_domain(at.filter(|_| is_listed), self.missing.as_deref(), mistakes);
            }
            return;
        };
        let Some(source) = source.filter(|_| is_sourced) else { return };
        if let Some(place) = source_at.filter(|_| self.routes.iter().any(|route| route.source == source)) {
            mistakes.add(&place, format_args!("{source} has a route already: remove one of the two"));
        }
        for (place, host) in places.into_iter().zip(&hosts).filter_map(|(place, host)| Some((place, host.clone()?))) {
            self.add_host(place, host, source.registry(), mistakes);
        }
        let hosts = hosts.into_iter().flatten().collect();
        let upstream = self.share(Upstream { domain, addresses, identity }, addresses_at, mistakes);
        self.own.push(Own { source: source.clone(), identity: own_identity, cache: own_cache });
        let destination = Destination { upstream, on_failure, blobs, blob_hosts, lifetimes };
        self.routes.push(Route { source, prefix, hosts, destination });
    }

    /// The upstream that an earlier route has for this registry and identity, or else this one; `at` is where its addresses are set.
    fn share(&mut self, upstream: Upstream, at: Option<Place>, mistakes: &mut Mistakes) -> Arc<Upstream> {
        let is_known = |known: &&Arc<Upstream>| known.domain == upstream.domain && known.identity == upstream.identity;
        let Some(known) = self.upstreams.iter().find(is_known).map(Arc::clone) else {
            let upstream = Arc::new(upstream);
            self.upstreams.push(Arc::clone(&upstream));
            return upstream;
        };
        if let Some(place) = at.filter(|_| mistakes.is_empty() && known.addresses != upstream.addresses) {
            let sentence = "has other addresses in an earlier route: both sign in as the same identity and share connections and reads, so give both the same addresses";
            mistakes.add(&place, format_args!("{} {sentence}", known.domain.authority()));
        }
        known
    }

    /// A host stands for one registry.
    fn add_host(&mut self, place: Place, host: String, registry: &str, mistakes: &mut Mistakes) {
        let other = self.hosts.iter().find(|(_, known, meant)| *known == host && meant != registry);
        if let Some((other, _, meant)) = other {
            mistakes.add(&place, format_args!("{host} already stands for {meant}, by {other}: use another name"));
        }
        self.hosts.push((place, host, registry.to_owned()));
    }

    /// The registry that is meant where none is named: the one that is set, else Docker Hub if it has a route.
    pub(crate) fn default_registry(&self, mistakes: &mut Mistakes, set: Option<(Place, String)>) -> Option<String> {
        let has_route = |registry: &str| self.routes.iter().any(|route| route.source.registry() == registry);
        match set {
            Some((place, registry)) => {
                if mistakes.is_empty() && !has_route(&registry) {
                    mistakes.add(
                        &place,
                        format_args!("{registry} has no route: use the registry of a route's source, or add a route"),
                    );
                }
                Some(registry)
            }
            None => has_route(DOCKER_HUB).then(|| DOCKER_HUB.to_owned()),
        }
    }
}

/// What is set for the registry of this domain, in the route with this prefix or else in the first that leads there, as in `upstream`.
pub(super) fn of_registry(mut routes: Vec<RouteTable>, domain: &str, prefix: &str) -> Option<RouteTable> {
    let domain = Domain::parse(domain).ok()?;
    let is_there = |text: &Text| Domain::parse(&text.1).is_ok_and(|other| other == domain);
    routes.retain(|route| route.domain.as_ref().is_some_and(is_there));
    let has_prefix = |route: &RouteTable| route.prefix.as_ref().is_some_and(|(_, text)| text == prefix);
    let at = routes.iter().position(has_prefix).unwrap_or_default();
    let route = routes.into_iter().nth(at)?;
    Some(RouteTable { source: None, ..route })
}

/// How blobs are served, and the further hosts that may hold them, which only a route that asks them may name.
fn blobs_and_hosts(blobs: Option<Text>, hosts: Vec<Text>, mistakes: &mut Mistakes) -> (Blobs, Vec<String>) {
    let blobs = ROUTE.blobs.parse_or_default([blobs], mistakes);
    let at = hosts.first().map(|(place, _)| place.clone());
    let before = mistakes.count();
    let hosts = ROUTE.blob_hosts.parse(hosts, mistakes);
    if let (Some(place), Some(Blobs::Redirect)) = (at.filter(|_| mistakes.count() == before), blobs) {
        mistakes.add(
            &place,
            "has no effect with blobs: redirect: set blobs: proxy_config or blobs: proxy, or remove blob_hosts",
        );
    }
    (blobs.unwrap_or_default(), hosts)
}

/// The registry is not named, in an item of `routes` at this place or as the only registry. The latter is told only where
/// nothing else is wrong, which may be the reason. `missing` is the file that was to name it.
fn no_domain(item: Option<Place>, missing: Option<&Path>, mistakes: &mut Mistakes) {
    match item {
        Some(place) => mistakes
            .add(&place, "has no domain: set it to the cache registry's login server, such as example.azurecr.io"),
        None if let (Some(path), true) = (missing, mistakes.is_empty()) => mistakes.add_general(&format!(
            "the registry is not named, because {} is not there: name another file by --config, or set --upstream-domain to its login server, such as example.azurecr.io",
            path.display()
        )),
        None if mistakes.is_empty() => mistakes.add_general(
            "the registry is not named: set --upstream-domain, or upstream.domain in the file of --config, to its login server, such as example.azurecr.io",
        ),
        None => {}
    }
}
