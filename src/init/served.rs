//! What a proxy that listens already serves, beside what the configuration says: it may be another registry's.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use oci::quote::quoted;
use serde_json::Value;

use super::port;
use crate::admin::ways::{Ways, other_identities};
use crate::config::{Config, collide};
use crate::control;
use crate::doctor::Answer;

/// A proxy that has just been started signs in within this, as requests wait for it (`token_wait`).
const SIGN_IN: Duration = Duration::from_secs(10);
/// How often it is asked meanwhile.
const STEP: Duration = Duration::from_millis(500);

/// What listens where the proxy is to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Running {
    Nothing,
    /// A proxy that serves what the configuration says.
    Same,
    /// A proxy that serves this.
    Other(Ways),
    /// Whatever it is, it does not say what it serves.
    Unknown,
    /// The service runs, and listens somewhere else.
    Elsewhere,
    /// The host's own proxy, which listens where another configuration says.
    Former,
}

impl Running {
    /// Of a proxy that is not the host's, for a sentence about who listens; `wanted` is what the configuration says.
    pub(super) fn who(&self, wanted: &Ways) -> String {
        let which = match self {
            Self::Same => "the unit has not started".to_owned(),
            Self::Other(ways) => format!("serves {ways} and not {wanted}"),
            Self::Nothing | Self::Unknown | Self::Elsewhere | Self::Former => "does not say what it serves".to_owned(),
        };
        format!("another acr-cache-proxy, which {which},")
    }

    /// Why no engine is to be sent there yet, a clause with what to do; `remedy` has the proxy that runs go by the configuration.
    pub(super) fn lack(&self, remedy: &str) -> String {
        match self {
            Self::Other(ways) => format!(
                "the proxy that runs serves {ways} until it reads the new configuration: {remedy}, and run init again"
            ),
            Self::Former => format!(
                "the proxy that runs does not listen there until it reads the new configuration: {remedy}, and run init again"
            ),
            Self::Elsewhere => {
                "the service does not listen there: put that right, restart it, and run init again".to_owned()
            }
            Self::Nothing | Self::Same | Self::Unknown => {
                "the proxy does not run yet: start it, and run init again".to_owned()
            }
        }
    }
}

/// What makes the host's own proxy go by a configuration that it has not read; a clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It can read it while it runs.
    Reload,
    /// It cannot listen at the first address while it listens at the second.
    Restart(SocketAddr, SocketAddr),
}

impl Unread {
    /// What it takes from the configuration of `before` to this one.
    pub(super) fn of(before: &Config, config: &Config) -> Self {
        let overlaps = |address: SocketAddr| {
            let other = addresses(before).find(|known| collide(*known, address) && *known != address)?;
            Some(Self::Restart(address, other))
        };
        addresses(config).find_map(overlaps).unwrap_or(Self::Reload)
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reload => f.write_str("acr-cache-proxy reload"),
            Self::Restart(new, old) => {
                write!(f, "restart it, because a reload cannot have it listen on {new} in place of {old}")
            }
        }
    }
}

/// What the proxy that listens at this address of the configuration serves: as the admin listener says, else as the host's configuration
/// of `before` does, if by that one the proxy listens there.
pub(super) fn look(config: &Config, before: Option<&Config>, address: SocketAddr) -> Running {
    let admins = [config.admin(), before.and_then(Config::admin)];
    let by_file = before.filter(|before| listens(before, address));
    let served =
        admins.into_iter().flatten().find_map(ways).or_else(|| by_file.map(|before| Ways::of(before.routes())));
    match served {
        Some(ways) if ways == Ways::of(config.routes()) => Running::Same,
        Some(ways) => Running::Other(ways),
        None => Running::Unknown,
    }
}

/// What runs once the service is started: its unit may name another configuration. The clause says what it does in place of serving this
/// one, as far as that is known.
pub(super) fn after_start(config: &Config) -> (Running, Option<String>) {
    if let Some(silent) = port::silent(config) {
        return (Running::Elsewhere, Some(format!("nobody listens on {silent}")));
    }
    let served = port::look(config, |_| false).map(|found| look(config, None, found.address));
    match served {
        Some(Running::Other(ways)) => {
            let instead = format!("serves {ways} and not {}", Ways::of(config.routes()));
            (Running::Other(ways), Some(instead))
        }
        _ => (Running::Same, None),
    }
}

/// Whether a proxy of this configuration listens there.
pub(super) fn listens(config: &Config, address: SocketAddr) -> bool {
    addresses(config).any(|known| collide(known, address))
}

/// Where a proxy of this configuration listens, for clients first.
pub(super) fn addresses(config: &Config) -> impl Iterator<Item = SocketAddr> {
    let clients = config.listeners().iter().filter_map(|listener| listener.endpoint.address());
    clients.chain(config.admin())
}

/// Whether a proxy has its admin listener there.
pub(super) fn answers(admin: SocketAddr) -> bool {
    ways(admin).is_some()
}

/// Whether the proxy with this admin listener signs in to each registry as the configuration says, as far as it tells.
pub(super) fn signs_in_as(config: &Config, admin: SocketAddr) -> bool {
    status(admin).is_some_and(|status| other_identities(&status, config).is_empty())
}

/// The variables of this file with another value of which the proxy with this admin listener was started.
pub(super) fn older_variables(admin: SocketAddr, file: &Path) -> Vec<&'static str> {
    let id = status(admin).and_then(|status| u32::try_from(status["process"]["id"].as_u64()?).ok());
    id.map(|id| control::older_variables(id, file)).unwrap_or_default()
}

fn ways(admin: SocketAddr) -> Option<Ways> {
    Ways::told(&status(admin)?)
}

fn status(admin: SocketAddr) -> Option<Value> {
    port::ask(admin, "/status")?.json()
}

/// Why the proxy serves no pull, as its `/readyz` says it; `None` if it does, or does not tell. One that has just been started gets the time for
/// its sign-in.
pub(super) fn unready(admin: SocketAddr) -> Option<String> {
    let until = Instant::now() + SIGN_IN;
    loop {
        let why = summary(&port::ask(admin, "/readyz")?)?;
        if Instant::now() >= until {
            return Some(why);
        }
        thread::sleep(STEP);
    }
}

/// What a 503 of `/readyz` says.
fn summary(answer: &Answer) -> Option<String> {
    let body = answer.json().filter(|_| answer.status == 503)?;
    quoted(body["summary"].as_str()?, &[])
}
