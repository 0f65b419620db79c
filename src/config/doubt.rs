//! What is likely not what is meant, and is no mistake, because somebody may mean it: a sentence each.

use super::{Config, Destination, Upstream};
use crate::access::Networks;
use oci::route::{DOCKER_HUB, Route, is_docker_hubs, is_docker_hubs_website};

impl Config {
    /// All of it. The start, a reload and `check` warn of it.
    pub(crate) fn doubts(&self) -> Vec<String> {
        let domains = self.upstreams.iter().filter_map(|upstream| of_domain(upstream));
        let routes = self.routes.iter().flat_map(|route| [of_source(route), of_prefix(route)]).flatten();
        let access = &self.access.access;
        let networks = [("allow", &access.allow), ("deny", &access.deny)].into_iter();
        let networks = networks.flat_map(|(key, networks)| of_networks(key, networks));
        domains.chain(routes).chain(self.nested()).chain(networks).chain(self.shut_out()).collect()
    }

    /// Prefixes below those of other sources: an image of the one has two names then.
    fn nested(&self) -> impl Iterator<Item = String> {
        let inside = |inner: &Route<Destination>, outer: &Route<Destination>| {
            let below = inner.prefix.as_str().strip_prefix(outer.prefix.as_str())?.strip_prefix('/')?;
            let name = format!("{}/{below}", outer.source);
            let [of_inner, of_outer] = [inner, outer].map(|route| route.destination.upstream.domain().authority());
            let is_open = outer.prefix.as_str().is_empty() || of_inner != of_outer;
            // A part of a source may have a route of its own, to where it is in any case.
            (!is_open && name != inner.source.to_string()).then(|| {
                format!(
                    "the prefix {} of {} is below {}, that of {}, so images of {} are pulled as {name}/... as well: give it a prefix that is not below another",
                    inner.prefix.as_str(), inner.source, outer.prefix.as_str(), outer.source, inner.source
                )
            })
        };
        self.routes.iter().filter_map(move |inner| self.routes.iter().find_map(|outer| inside(inner, outer)))
    }

    /// A client of this host comes from its loopback address, which `access` may leave out.
    fn shut_out(&self) -> Option<String> {
        let direct = self.listeners.iter().filter(|listener| listener.proxy_protocol.is_none());
        let loopback = direct.filter_map(|listener| listener.endpoint.address()).filter(|at| at.ip().is_loopback());
        let at = loopback.into_iter().find(|at| !self.access.access.lets_in(at.ip()))?;
        let from = at.ip();
        Some(format!(
            "nobody can pull at {at}, where clients come from {from}, which access refuses: let {from} in, or set listen to an address that the allowed networks reach"
        ))
    }
}

/// A registry's name of one part is good where a DNS of one's own has it, and so is Docker Hub's, which DNS may lead elsewhere; one
/// with a port or with addresses is meant as it is.
fn of_domain(upstream: &Upstream) -> Option<String> {
    let host = upstream.domain().host();
    if upstream.domain().authority() != host || !upstream.addresses().is_empty() {
        None
    } else if is_docker_hubs(host) {
        Some(format!(
            "the registry {host} is Docker Hub's, which is the source of a cache rule: set the domain to the cache registry, such as example.azurecr.io"
        ))
    } else if !host.contains(['.', ':']) && host != "localhost" {
        Some(format!(
            "the registry {host} has no dot in its name: if {host}.azurecr.io is meant, set the domain to that"
        ))
    } else {
        None
    }
}

/// An image may be asked for by the name of the website, but none of Docker Hub has it.
fn of_source(route: &Route<Destination>) -> Option<String> {
    let registry = route.source.registry();
    is_docker_hubs_website(registry).then(|| {
        format!(
            "the source {registry} is a website, and images of Docker Hub are of {DOCKER_HUB}: set the source to that"
        )
    })
}

/// A repository of the registry may have a name like that.
fn of_prefix(route: &Route<Destination>) -> Option<String> {
    let prefix = route.prefix.as_str();
    let host = route.destination.upstream.domain().host();
    let (first, rest) = prefix.split_once('/').unwrap_or((prefix, ""));
    let right = if rest.is_empty() { "remove the prefix".to_owned() } else { format!("set it to {rest}") };
    (first == host).then(|| {
        format!("the prefix {prefix} begins with the registry's name, which is not part of a repository there: {right}")
    })
}

/// A host may have an address that ends like that of a network.
fn of_networks(key: &'static str, networks: &Networks) -> impl Iterator<Item = String> {
    networks.likely_without_length().into_iter().map(move |(address, length)| {
        format!("access.{key}: {address} is one address: if a network is meant, write its length, such as {address}/{length}")
    })
}
