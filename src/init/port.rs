//! Whether the proxy can listen where the configuration says, before anything is written for it.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use super::Options;
use super::settings::Settings;
use crate::config::{Config, Endpoint, reachable};
use crate::doctor::{self, Answer};

/// As many ports are tried for one that is free.
const TRIED: u16 = 100;

/// Who listens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// Nobody.
    Free,
    /// A proxy of this program.
    Ours,
    /// Something else.
    Taken,
}

/// A listener of the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub address: SocketAddr,
    pub port: Port,
    /// By which it is set.
    key: &'static str,
}

impl Found {
    /// That the proxy cannot listen there, because somebody does, and what to do: what helps beside ending it, if there is something; `init` as
    /// it was asked for, with another port, or editing this configuration.
    pub(super) fn refusal(
        &self,
        who: &str,
        helps: Option<String>,
        by: Result<(&Settings, &Options), &String>,
    ) -> String {
        let Self { address, key, .. } = self;
        let other = match by {
            Ok((settings, options)) => {
                let other = self.elsewhere(settings);
                format!("choose another port: acr-cache-proxy init{}{}", other.to_flags(), options.manner())
            }
            Err(config) => format!("choose another port by {key} in {config}"),
        };
        let helps = helps.map(|helps| format!("or {helps}, ")).unwrap_or_default();
        format!(
            "nothing was done, because the proxy cannot listen on {address}, where {who} listens: find it with ss -ltnp 'sport = :{}' and end it, {helps}or {other}",
            address.port()
        )
    }

    /// The settings with the next port at which nobody listens.
    fn elsewhere(&self, settings: &Settings) -> Settings {
        let mut other = settings.clone();
        let (address, beside) = match self.key {
            "listen" => (&mut other.listen, settings.admin),
            _ => (&mut other.admin, settings.listen),
        };
        let mut ports = (1..=TRIED).filter_map(|more| self.address.port().checked_add(more));
        let free = |port: &u16| *port != beside.port() && TcpListener::bind((self.address.ip(), *port)).is_ok();
        if let Some(port) = ports.find(free) {
            address.set_port(port);
        }
        other
    }
}

/// The first listener that is not free; else the one for clients. One that systemd keeps for the service is.
pub(super) fn look(config: &Config, is_kept: impl Fn(&SocketAddr) -> bool) -> Option<Found> {
    let clients = config.listeners().iter().filter_map(|listener| match listener.endpoint {
        Endpoint::Address(address) => Some((address, "listen", listener.is_plain())),
        Endpoint::Unix { .. } => None,
    });
    let all: Vec<_> = clients.chain(config.admin().map(|address| (address, "admin", false))).collect();
    let who = |(address, key, is_plain): (SocketAddr, &'static str, bool)| {
        let port = if is_kept(&address) { Port::Free } else { who_listens(address, is_plain) };
        Found { address, port, key }
    };
    let mut looked = all.into_iter().map(who);
    let first = looked.next()?;
    match first.port {
        // Its own admin listener is not free either.
        Port::Ours | Port::Taken => Some(first),
        Port::Free => looked.find(|found| found.port != Port::Free).or(Some(first)),
    }
}

/// An address for clients at which nobody listens, once the proxy is to run.
pub(super) fn silent(config: &Config) -> Option<SocketAddr> {
    let addresses = config.listeners().iter().filter_map(|listener| listener.endpoint.address());
    addresses.into_iter().find(|address| TcpListener::bind(address).is_ok())
}

/// By binding the address, which ends with this call; who has it is asked, where that can be in plain HTTP.
fn who_listens(address: SocketAddr, is_plain: bool) -> Port {
    match TcpListener::bind(address) {
        Err(cause) if cause.kind() == ErrorKind::AddrInUse => {}
        // What else prevents it here need not prevent the service, which has another user and starts later.
        _ => return Port::Free,
    }
    if is_plain && wait(doctor::proxy_answers_at(address)) == Some(true) { Port::Ours } else { Port::Taken }
}

/// What a server of this host answers to this request, if it does within the limit of doctor.
pub(super) fn ask(address: SocketAddr, target: &str) -> Option<Answer> {
    wait(doctor::get(reachable(address), target))?.ok()
}

/// Does what doctor does in its own runtime. Without one nobody can be asked.
fn wait<T>(asked: impl Future<Output = T>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    Some(runtime.block_on(asked))
}
