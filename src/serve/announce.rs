//! What the log says of the settings at a start, and of each listener whenever it comes, changes or goes.

use std::net::SocketAddr;
use std::time::SystemTime;

use httpdate::fmt_http_date;
use log::{info, warn};

use crate::access::Gate;
use crate::alarm;
use crate::config::identity::Kind;
use crate::config::{self, Config};
use crate::identity;
use crate::listen;
use crate::listen::set::Change;

/// Has a line for each route, one for the cache and one for the proxy on the way out, and warns of what is in doubt.
pub(super) fn settings(config: &Config, egress_proxy: Option<&str>) {
    for route in config.routes().iter() {
        let upstream = route.destination.upstream.domain().authority();
        let prefix = route.prefix.as_str();
        let slash = if prefix.is_empty() { "" } else { "/" };
        let is_off = config.cache().is_some() && route.destination.lifetimes.is_none();
        let cache = if is_off { ", cache: off" } else { "" };
        info!("route: {} -> {upstream}{slash}{prefix}{cache}", route.source);
    }
    if let Some(proxy) = egress_proxy {
        info!("egress: through {proxy}");
    }
    match config.cache() {
        Some(cache) => info!("cache: up to {} MiB of memory", cache.memory >> 20),
        None => info!("cache: off"),
    }
    config.doubts().iter().for_each(|doubt| warn!("{doubt}"));
    if config.upstreams().iter().any(|upstream| matches!(upstream.identity().kind(), Kind::Default)) {
        identity::passed_over().inspect(|sentence| warn!("{sentence}"));
    }
    alarm::doubt(&config.notify().command).inspect(|sentence| warn!("{sentence}"));
}

/// Has a line in the log for each listener that has come, changed or gone. `gate` has the rules that clients pass.
pub(super) fn listeners(changes: &[Change], gate: &Gate) {
    for change in changes {
        match change {
            Change::Files => {}
            Change::MadeAgain(url) => {
                warn!("{url}: its socket was removed, or another file was in its place: it is made again");
            }
            Change::Unchanged(sentence) => warn!("{sentence}"),
            Change::Closed(url) => info!("{url}: closed, because the settings have it no more"),
            Change::Served { url, address, wanted, .. } if wanted.kind == listen::Kind::Admin => {
                info!(
                    "health and readiness on {url}/healthz and /readyz, a page for people at /, metrics at /metrics, counters at /cache"
                );
                if let Some(exposed) = address.and_then(exposed_admin) {
                    warn!("{exposed}");
                }
            }
            Change::Served { url, address, wanted, not_after } => {
                let settings = &wanted.settings;
                if let Some(ended) = not_after.and_then(|end| ended(url, end)) {
                    warn!("{ended}");
                }
                info!("acr-cache-proxy {}: listening on {url}{}", env!("CARGO_PKG_VERSION"), how(settings));
                if let Some(exposed) = address.and_then(|address| exposed(settings, address, gate.asks_for_names())) {
                    warn!("{exposed}");
                }
            }
        }
    }
}

/// A warning for a listener whose certificate has ended.
pub(crate) fn ended(url: &str, end: SystemTime) -> Option<String> {
    let is_over = end < SystemTime::now();
    is_over.then(|| format!("{url}: the certificate ended on {}: clients refuse it, renew it", fmt_http_date(end)))
}

/// A warning for a listener that whoever reaches this address may use; `access` may ask for names of certificates.
pub(crate) fn exposed(settings: &config::Listener, address: SocketAddr, asks_for_names: bool) -> Option<String> {
    let is_open = !address.ip().is_loopback() && !requires_certificates(settings, asks_for_names);
    is_open.then(|| format!("clients are not authenticated, and {address} is reachable from outside: protect the port"))
}

/// The same for the admin listener, which asks nobody who it is.
pub(crate) fn exposed_admin(address: SocketAddr) -> Option<String> {
    let is_open = !address.ip().is_loopback();
    is_open.then(|| {
        format!(
            "the admin listener is not authenticated, and {address} is reachable from outside: it names images and purges the cache, so let only probes and monitoring reach the port"
        )
    })
}

/// Whether a client without a certificate is refused, by the listener or, where that asks for one, by `access.certificates`.
fn requires_certificates(settings: &config::Listener, asks_for_names: bool) -> bool {
    let clients = settings.tls.as_ref().and_then(|tls| tls.clients.as_ref());
    clients.is_some_and(|clients| clients.is_required || asks_for_names)
}

/// What a listener asks of its clients, as the log has it.
fn how(settings: &config::Listener) -> String {
    let certificates = match settings.tls.as_ref().and_then(|tls| tls.clients.as_ref()) {
        Some(clients) if clients.is_required => ", client certificates required",
        Some(_) => ", client certificates optional",
        None => "",
    };
    let tls = if settings.tls.is_some() && settings.endpoint.address().is_none() { ", TLS" } else { "" };
    let proxy_protocol = if settings.proxy_protocol.is_some() { ", PROXY protocol" } else { "" };
    format!("{tls}{certificates}{proxy_protocol}")
}
