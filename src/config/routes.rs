//! The `routes` list, or the one route of `upstream`: which source leads where, each cache registry once.

use std::net::IpAddr;
use std::sync::Arc;

use super::file::{Place, RouteTable, Text};
use super::identity::Identity;
use super::{Domain, Mistakes, Settings, Upstream};
use oci::name::Prefix;
use oci::route::{Blobs, DOCKER_HUB, OnFailure, Route, Source};

/// Where a route leads, and how it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The cache registry; routes may share one.
    pub upstream: Arc<Upstream>,
    /// What a failure asks of clients.
    pub on_failure: OnFailure,
    /// How blobs are served.
    pub blobs: Blobs,
}

/// The table of routes, as it is set.
pub type Routes = oci::route::Routes<Destination>;

/// The routes while they are put together.
#[derive(Default)]
pub struct Table {
    pub upstreams: Vec<Arc<Upstream>>,
    pub routes: Vec<Route<Destination>>,
    /// The `hosts` of all routes, each with its registry.
    hosts: Vec<(Place, String, String)>,
}

impl Table {
    /// One entry of `routes`, or the `upstream` of a file that has one route only; `flags` are its domain and prefix.
    pub fn add(&mut self, settings: &mut Settings, entry: RouteTable, flags: [Option<Text>; 2], identity: &Identity) {
        let [domain_flag, prefix_flag] = flags;
        let at = entry.place.clone();
        let is_named = domain_flag.is_some() || entry.domain.is_some();
        let domain = settings.first(&[domain_flag, entry.domain], Domain::parse);
        let prefix = settings.first(&[prefix_flag, entry.prefix], parse_prefix).unwrap_or_default();
        let source_at = entry.source.as_ref().map(|(place, _)| place.clone());
        // A source that is wrong, or hidden under a wrong key, is told once; the entry is then judged no further.
        let (is_sourced, is_flawed) = (!entry.listed || entry.source.is_some(), entry.flawed);
        let source = settings.first(&[entry.source], Source::parse);
        let addresses = settings.all(entry.addresses, parse_address);
        let blob_hosts = settings.all(entry.blob_hosts, parse_blob_host);
        let places: Vec<_> = entry.hosts.iter().map(|(place, _)| place.clone()).collect();
        let hosts: Vec<_> = entry.hosts.into_iter().map(|text| settings.first(&[Some(text)], parse_host)).collect();
        let on_failure = settings.first(&[entry.on_failure], parse_on_failure).unwrap_or_default();
        let blobs = settings.first(&[entry.blobs], parse_blobs).unwrap_or_default();
        let identity = match entry.identity {
            Some(entries) => Identity::parse(entries, &mut settings.mistakes),
            None => identity.clone(),
        };
        if let Some(at) = at.as_ref().filter(|_| !is_sourced && !is_flawed) {
            settings.mistakes.add(at, "has no source: name the registry that it is for, such as docker.io");
        }
        let Some(domain) = domain else {
            match at.filter(|_| entry.listed) {
                _ if is_named || is_flawed => {}
                Some(at) => settings
                    .mistakes
                    .add(&at, "has no domain: name the cache registry's login server, such as example.azurecr.io"),
                None if settings.mistakes.is_empty() => settings.mistakes.add_general(
                    "the registry is not named: set --upstream-domain, or upstream.domain in the file of --config, to its login server, such as example.azurecr.io",
                ),
                None => {}
            }
            return;
        };
        let source = match source {
            Some(source) => source,
            None if source_at.is_some() || !is_sourced => return,
            None => Source::docker_hub(),
        };
        if let Some(place) = source_at.filter(|_| self.routes.iter().any(|route| route.source == source)) {
            settings.mistakes.add(&place, format_args!("{source} has a route already"));
        }
        for (place, host) in places.into_iter().zip(&hosts).filter_map(|(place, host)| Some((place, host.clone()?))) {
            let registry = source.registry();
            if let Some((other, _, meant)) =
                self.hosts.iter().find(|(_, known, meant)| *known == host && meant != registry)
            {
                settings.mistakes.add(&place, format_args!("{host} means {meant} already, by {other}"));
            }
            self.hosts.push((place, host, registry.to_owned()));
        }
        let hosts = hosts.into_iter().flatten().collect();
        let upstream = Upstream { domain, addresses, blob_hosts, identity };
        let known = self.upstreams.iter().find(|known| ***known == upstream).map(Arc::clone);
        let upstream = known.unwrap_or_else(|| {
            let upstream = Arc::new(upstream);
            self.upstreams.push(Arc::clone(&upstream));
            upstream
        });
        let destination = Destination { upstream, on_failure, blobs };
        self.routes.push(Route { source, prefix, hosts, destination });
    }

    /// The registry that is meant where none is named: the one that is set, else Docker Hub if it has a route.
    pub fn default_registry(&self, mistakes: &mut Mistakes, set: Option<(Place, String)>) -> Option<String> {
        let has_route = |registry: &str| self.routes.iter().any(|route| route.source.registry() == registry);
        match set {
            Some((place, registry)) => {
                if mistakes.is_empty() && !has_route(&registry) {
                    mistakes.add(&place, format_args!("{registry} has no route: name the source of one"));
                }
                Some(registry)
            }
            None => has_route(DOCKER_HUB).then(|| DOCKER_HUB.to_owned()),
        }
    }
}

fn parse_prefix(text: &str) -> Result<Prefix, String> {
    Prefix::parse(text).ok_or_else(|| {
        format!("{text:?} is no repository path: give the cache rule's target without its /*, lower case, no slash at its ends, such as hub")
    })
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no IP address: give the registry's own, such as 10.0.0.5 or fd00::5"))
}

/// A registry alone, as `default` names it.
pub fn parse_registry(text: &str) -> Result<String, String> {
    match Source::parse(text) {
        Ok(source) if source.path().is_empty() => Ok(source.registry().to_owned()),
        _ => Err(format!("{text:?} is no registry: give the host of a route's source, such as docker.io")),
    }
}

fn parse_host(text: &str) -> Result<String, String> {
    match Domain::parse(text) {
        Ok(_) => Ok(text.to_ascii_lowercase()),
        Err(_) => Err(format!("{text:?} is no host: give what clients address, such as ghcr.mirror.internal")),
    }
}

fn parse_blob_host(text: &str) -> Result<String, String> {
    match Domain::parse(text.strip_prefix('.').unwrap_or(text)) {
        Ok(_) => Ok(text.to_ascii_lowercase()),
        Err(_) => Err(format!("{text:?} is no host of blobs: give a host, or a suffix such as .blob.internal")),
    }
}

fn parse_on_failure(text: &str) -> Result<OnFailure, String> {
    match text {
        "fallback" => Ok(OnFailure::Fallback),
        "closed" => Ok(OnFailure::Closed),
        _ => Err(format!("{text:?} is nothing to do on a failure: give fallback or closed")),
    }
}

pub(crate) fn parse_blobs(text: &str) -> Result<Blobs, String> {
    match text {
        "redirect" => Ok(Blobs::Redirect),
        "proxy" => Ok(Blobs::Proxy),
        _ => Err(format!("{text:?} is no way to serve blobs: give redirect or proxy")),
    }
}
