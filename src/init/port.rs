//! Whether the proxy can listen where the configuration says, before anything is written for it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::Options;
use super::settings::Settings;
use crate::config::{Config, Endpoint, reachable};

/// A proxy on the same host answers a refusal within milliseconds.
const LIMIT: Duration = Duration::from_secs(2);
/// The refusal has some hundred bytes, the admin listener's `/status` 100 KiB.
const MAX_ANSWER: u64 = 4 << 20;

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
    if is_plain && is_ours(address) { Port::Ours } else { Port::Taken }
}

/// This proxy refuses `/` as a request that it does not support; other servers and registries have something there, or a page.
fn is_ours(address: SocketAddr) -> bool {
    ask(address, "/").contains("\"code\":\"UNSUPPORTED\"")
}

/// What a server of this host answers to this request, its head and its body; empty where there is no answer.
pub(super) fn ask(address: SocketAddr, target: &str) -> String {
    let mut answer = Vec::new();
    let mut exchange = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&reachable(address), LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        // In HTTP/1.0 the end of the connection is that of the answer.
        let request = format!("GET {target} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        stream.take(MAX_ANSWER).read_to_end(&mut answer).map(drop)
    };
    // Of an answer that breaks off, what has come is looked at.
    let _: std::io::Result<()> = exchange();
    String::from_utf8_lossy(&answer).into_owned()
}
