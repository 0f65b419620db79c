//! Sockets at which systemd listens for a service (systemd.socket(5)). While the service does not run, whoever connects there starts it. So
//! nobody connects who only looks: what somebody has stopped stays so.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::config::{Config, Endpoint};
use crate::host::Host;
use crate::installed::{OWN_SOCKET, OWN_UNIT, runs_systemd};
use crate::program::{Printed, run};

/// It answers at once; a disk may be slow.
const LIMIT: Duration = Duration::from_secs(15);
/// Some ten lines of each socket unit.
const MAX_PRINTED: usize = 4 << 20;

/// Those that systemd has loaded. Where it does not tell, none is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sockets(Vec<Socket>);

/// A socket unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    /// `docker.socket`
    pub unit: String,
    /// `docker.service`
    pub service: String,
    /// It is started at boot.
    pub is_enabled: bool,
    /// It holds its sockets.
    pub is_active: bool,
    /// Nobody else does, because the service does not run.
    is_alone: bool,
    /// Where it listens for streams.
    pub at: Vec<Endpoint>,
}

impl Sockets {
    /// Asks systemd, on this host.
    pub(crate) async fn look(host: &Host) -> Self {
        if !host.is_this() || !runs_systemd() {
            return Self::default();
        }
        let show = "--property=Id,SubState,UnitFileState,Triggers,Listen";
        // A pattern stands for those that are loaded.
        let (mut command, mut printed) = (Command::new("systemctl"), Printed::all(MAX_PRINTED));
        command.args(["show", show, OWN_SOCKET, "*.socket"]);
        match timeout(LIMIT, run(&mut command, &mut printed)).await {
            Ok(Ok(status)) if status.success() => Self::parse(&String::from_utf8_lossy(&printed.stdout)),
            _ => Self::default(),
        }
    }

    /// The same for who has nothing else to do meanwhile.
    pub(crate) fn look_and_wait(host: &Host) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map(|runtime| runtime.block_on(Self::look(host))).unwrap_or_default()
    }

    /// What `systemctl show` prints.
    fn parse(said: &str) -> Self {
        Self(said.split("\n\n").filter_map(Socket::parse).collect())
    }

    /// The one of a service that does not run, at this address.
    pub(crate) fn alone_at(&self, endpoint: &Endpoint) -> Option<&Socket> {
        self.0.iter().filter(|socket| socket.is_alone).find(|socket| socket.at.iter().any(|at| takes(at, endpoint)))
    }

    /// The same at a path of this host.
    pub(crate) fn alone_at_path(&self, path: &Path) -> Option<&Socket> {
        self.alone_at(&Endpoint::Unix { path: path.to_owned(), mode: 0 })
    }

    /// The same at an address.
    pub(crate) fn alone_at_address(&self, address: SocketAddr) -> Option<&Socket> {
        self.alone_at(&Endpoint::Address(address))
    }

    /// This program's own, which its service is started with.
    pub(crate) fn own(&self) -> Option<&Socket> {
        self.0.iter().find(|socket| socket.is_own() && (socket.is_enabled || socket.is_active))
    }
}

impl Socket {
    /// It is this program's.
    pub(crate) fn is_own(&self) -> bool {
        self.unit == OWN_SOCKET
    }

    /// systemd listens there, and the service does not run.
    pub(crate) fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Its addresses for which these settings have no listener. With one the proxy does not start, and takes no settings.
    pub(crate) fn lacks(&self, config: &Config) -> Vec<Endpoint> {
        let admin = config.admin().map(Endpoint::Address);
        let listeners = || config.listeners().iter().map(|listener| &listener.endpoint).chain(&admin);
        self.at.iter().filter(|at| !listeners().any(|known| known.is_at(at))).cloned().collect()
    }

    /// The same as a sentence with what to do; `None` if it lacks nothing.
    pub(crate) fn refusal(&self, config: &Config) -> Option<String> {
        let lacks: Vec<_> = self.lacks(config).iter().map(ToString::to_string).collect();
        (!lacks.is_empty()).then(|| {
            format!(
                "{OWN_SOCKET} has ListenStream= of {}, and no listener of the settings has this address, so the service does not start and takes them at no reload: make listen and admin what the unit says, or change it: systemctl edit --full {OWN_SOCKET} && systemctl restart {OWN_SOCKET} {OWN_UNIT}",
                lacks.join(", ")
            )
        })
    }

    /// A block of what `systemctl show` prints.
    fn parse(block: &str) -> Option<Self> {
        let values = |key: &'static str| {
            block
                .lines()
                .filter_map(move |line| line.strip_prefix(key)?.strip_prefix('=').filter(|text| !text.is_empty()))
        };
        let value = |key: &'static str| values(key).next().unwrap_or_default();
        let state = value("SubState");
        Some(Self {
            unit: values("Id").next()?.to_owned(),
            service: value("Triggers").to_owned(),
            is_enabled: value("UnitFileState").starts_with("enabled"),
            is_active: matches!(state, "listening" | "running"),
            is_alone: state == "listening",
            at: values("Listen").filter_map(|listen| endpoint(listen.strip_suffix(" (Stream)")?)).collect(),
        })
    }

    /// What to say of an engine whose service does not run.
    pub(crate) fn note(&self) -> String {
        let Self { unit, service, .. } = self;
        format!("{service} does not run; {unit} starts it for whoever asks it, which doctor does not do")
    }
}

/// `/run/docker.sock`, `127.0.0.1:8080`; nothing for what is neither a path nor an address of IP.
fn endpoint(text: &str) -> Option<Endpoint> {
    match text.parse() {
        Ok(address) => Some(Endpoint::Address(address)),
        Err(_) => text.starts_with('/').then(|| Endpoint::Unix { path: text.into(), mode: 0 }),
    }
}

/// Whether a connection to `wanted` comes to this socket.
fn takes(at: &Endpoint, wanted: &Endpoint) -> bool {
    match (at, wanted) {
        (Endpoint::Unix { path: one, .. }, Endpoint::Unix { path: other, .. }) => real(one) == real(other),
        (one, other) => one.collides(other),
    }
}

/// `/var/run` is a link to `/run`.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// doctor connected, and a dockerd that somebody had stopped was started, with its containers.
    #[test]
    fn a_socket_of_a_service_that_does_not_run_is_known_before_anybody_connects() {
        let said = "Listen=/run/docker.sock (Stream)\nId=docker.socket\nTriggers=docker.service\nSubState=listening\nUnitFileState=disabled\n\n\
            Id=other.socket\nTriggers=\nSubState=dead\nUnitFileState=\n\n\
            Listen=/run/run.sock (Stream)\nListen=audit 1 (Netlink)\nId=run.socket\nTriggers=run.service\nSubState=running\nUnitFileState=static\n\n\
            Listen=127.0.0.1:8080 (Stream)\nListen=[::]:8081 (Stream)\nListen=/run/clients.sock (Stream)\nListen=127.0.0.1:53 (Datagram)\n\
            Id=acr-cache-proxy.socket\nTriggers=acr-cache-proxy.service\nSubState=listening\nUnitFileState=enabled\n";
        let sockets = Sockets::parse(said);
        for (at, unit) in [
            ("/run/docker.sock", Some("docker.socket")),
            ("/run/run.sock", None),
            ("127.0.0.1:8080", Some(OWN_SOCKET)),
            ("127.0.0.1:8081", Some(OWN_SOCKET)),
            ("127.0.0.2:8080", None),
            ("127.0.0.1:53", None),
            ("/run/clients.sock", Some(OWN_SOCKET)),
        ] {
            let found = sockets.alone_at(&endpoint(at).expect("an address"));
            assert_eq!(found.map(|socket| socket.unit.as_str()), unit, "{at}");
        }
        let own = sockets.own().expect("it is enabled");
        assert_eq!((own.at.len(), own.service.as_str()), (3, "acr-cache-proxy.service"));
    }
}
