//! Which registry each source leads to: as settings have it, and as a proxy that runs tells it, which may have earlier ones.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use oci::route::Route;
use serde_json::Value;

use crate::config::{Config, Destination, Routes, Upstream};

/// A sentence names as many; a configuration may have hundreds.
const NAMED: usize = 3;
/// A source and a registry with its prefix have some tens of characters; more is not what this proxy tells.
const LONGEST: usize = 200;

/// Which registry each source leads to, as the log has routes: `docker.io -> example.azurecr.io/hub`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ways(BTreeSet<String>);

impl Ways {
    /// Those of settings.
    pub(crate) fn of(routes: &Routes) -> Self {
        Self(routes.iter().map(way).collect())
    }

    /// As `/status` of the admin listener tells them.
    pub(crate) fn told(status: &Value) -> Option<Self> {
        let way = |route: &Value| {
            let text = |key: &str| route[key].as_str();
            Some(written(text("route")?, text("registry")?, text("prefix")?).chars().take(LONGEST).collect())
        };
        status["routes"].as_array()?.iter().map(way).collect::<Option<_>>().map(Self)
    }

    /// Whether this route is among them.
    pub(crate) fn have(&self, route: &Route<Destination>) -> bool {
        self.0.contains(&way(route))
    }

    /// Each of them.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// As whom the proxy of this `/status` signs in where these settings name somebody else, as far as it tells, a clause for each registry.
pub(crate) fn other_identities(status: &Value, config: &Config) -> Vec<String> {
    let Some(registries) = status["registries"].as_array() else { return Vec::new() };
    let other = |upstream: &Arc<Upstream>| {
        let domain = upstream.domain().authority();
        let (kind, id) = upstream.identity().kind().told();
        let mut told = registries.iter().filter(|told| told["domain"] == domain).map(|told| &told["identity"]);
        // Where the settings name no id, a variable may.
        let is_same = |told: &Value| told["kind"] == kind && id.is_none_or(|id| told["id"] == id);
        let first = told.clone().next();
        let named = |kind: &str, id: Option<&str>| id.map_or(kind.to_owned(), |id| format!("{kind} {id}"));
        let is = first.map_or("nobody".to_owned(), |told| {
            named(told["kind"].as_str().unwrap_or_default(), told["id"].as_str()).chars().take(LONGEST).collect()
        });
        (!told.any(is_same)).then(|| format!("{domain}: {is}, and not {}", named(kind, id)))
    };
    config.upstreams().iter().filter_map(other).collect()
}

fn way(route: &Route<Destination>) -> String {
    written(&route.source.to_string(), route.destination.upstream.domain().authority(), route.prefix.as_str())
}

fn written(source: &str, domain: &str, prefix: &str) -> String {
    format!("{source} -> {domain}/{prefix}")
}

impl fmt::Display for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<_> = self.lines().take(NAMED).collect();
        f.write_str(&named.join(", "))?;
        match self.0.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
