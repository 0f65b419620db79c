//! Listening sockets that this process was started with: systemd hands over those of a socket unit, and a proxy that is replaced
//! its own. Both by the same variables (sd_listen_fds(3)).
//!
//! The kernel queues connections at such a socket while no process serves it, so a restart refuses none.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;

use listenfd::ListenFd;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use super::bind::Socket;
use crate::config::Endpoint;

/// Where the descriptors begin.
pub(crate) const FIRST_DESCRIPTOR: i32 = 3;
/// How many there are, and their names.
const COUNT: &str = "LISTEN_FDS";
const NAMES: &str = "LISTEN_FDNAMES";
/// For which process they are meant. One that is started with the sockets of this one does not get them: its id is not known
/// before.
pub(crate) const RECIPIENT: [&str; 2] = ["LISTEN_PID", "LISTEN_PIDFDID"];
/// Each is for one listener of the settings. A number that nobody means would have each of so many descriptors looked at.
const MAX_SOCKETS: usize = 1024;
/// The name of each socket that a proxy hands over to the one in its place.
const UPGRADE: &str = "upgrade";

/// The variables for a process that gets so many sockets of this one.
pub(crate) fn variables(sockets: usize) -> [(&'static str, String); 2] {
    [(COUNT, sockets.to_string()), (NAMES, vec![UPGRADE; sockets].join(":"))]
}

/// The sockets that nobody has taken yet, and all that the service manager keeps.
pub(crate) struct Inherited {
    sockets: Vec<(Socket, Endpoint)>,
    is_upgrade: bool,
}

/// Why a socket that was handed over cannot be used.
#[derive(Debug)]
pub(crate) enum HandedOver {
    /// There are said to be so many.
    TooMany(usize),
    /// How many there are is said with this, which is no number.
    NoNumber(OsString),
    /// It is neither a TCP nor a Unix stream socket that listens.
    Unusable(io::Error),
    /// No listener of the settings is there.
    Unexpected(Endpoint),
    /// Two sockets are for one listener.
    Twice(Endpoint),
}

impl fmt::Display for HandedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany(count) => {
                write!(f, "{COUNT}: {count} is more than {MAX_SOCKETS} sockets: unset it, or set it right")
            }
            Self::NoNumber(said) => {
                write!(f, "{COUNT}: {said:?} is not a number of sockets: unset it, or set it right")
            }
            Self::Unusable(cause) => write!(
                f,
                "{COUNT}: a socket that was handed over is no listening TCP or Unix socket: {cause}: the socket unit needs ListenStream= and Accept=no"
            ),
            Self::Unexpected(endpoint) => write!(
                f,
                "{COUNT}: {endpoint} was handed over, and no listener of the settings has this address: make listen what ListenStream= of the socket unit says, or remove it there"
            ),
            Self::Twice(endpoint) => write!(
                f,
                "{COUNT}: {endpoint} was handed over twice: remove it from one of the socket units, because one queue would never be served"
            ),
        }
    }
}

impl std::error::Error for HandedOver {}

impl Inherited {
    /// Of this process, by its variables, which its children do not get. To be called once, before there are threads that read
    /// the environment.
    pub(crate) fn of_process() -> Result<Self, HandedOver> {
        check_count()?;
        let names = std::env::var(NAMES).unwrap_or_default();
        let mut handed = ListenFd::from_env();
        let sockets = (0..handed.len()).map(|index| socket(&mut handed, index));
        let sockets: Vec<_> = sockets.collect::<io::Result<_>>().map_err(HandedOver::Unusable)?;
        let is_upgrade = !sockets.is_empty() && names.split(':').all(|name| name == UPGRADE);
        let is_second = |(index, (_, endpoint)): &(usize, &(Socket, Endpoint))| {
            sockets.iter().take(*index).any(|(_, earlier)| earlier.is_at(endpoint))
        };
        match sockets.iter().enumerate().find(is_second) {
            Some((_, (_, endpoint))) => Err(HandedOver::Twice(endpoint.clone())),
            None => Ok(Self { sockets, is_upgrade }),
        }
    }

    /// They come from a proxy that still serves them, and this process takes its place.
    pub(crate) fn is_upgrade(&self) -> bool {
        self.is_upgrade
    }

    /// The socket for this endpoint. Of a proxy that is replaced, port 0 is the port that it had chosen, and `[::]` may be
    /// `0.0.0.0`, as with [`super::bind::Listener::bind`].
    pub(super) fn socket(&mut self, wanted: &Endpoint) -> Option<io::Result<Socket>> {
        if !self.is_upgrade {
            let found = self.sockets.iter().find(|(_, endpoint)| endpoint.is_at(wanted));
            return found.map(|(socket, _)| socket.duplicate());
        }
        let stands_for = |endpoint: &Endpoint| match (endpoint, wanted) {
            (Endpoint::Address(address), Endpoint::Address(wanted)) => {
                let is_every = wanted.ip().is_unspecified() && address.ip().is_unspecified();
                (wanted.port() == 0 || wanted.port() == address.port()) && (wanted.ip() == address.ip() || is_every)
            }
            _ => endpoint.is_at(wanted),
        };
        let exact = self.sockets.iter().position(|(_, endpoint)| endpoint.is_at(wanted));
        let index = exact.or_else(|| self.sockets.iter().position(|(_, endpoint)| stands_for(endpoint)))?;
        // In their order: several may have had port 0.
        Some(Ok(self.sockets.remove(index).0))
    }

    /// Whether the service manager goes on to hold the socket there, with its queue.
    pub(super) fn keeps(&self, endpoint: &Endpoint) -> bool {
        !self.is_upgrade && self.sockets.iter().any(|(_, kept)| kept.is_at(endpoint))
    }

    /// An error if the service manager holds a socket of which there is no listener among these: clients would wait in its
    /// queue without end.
    pub(super) fn check<'a>(&self, wanted: impl Iterator<Item = &'a Endpoint> + Clone) -> Result<(), HandedOver> {
        let is_left = |endpoint: &Endpoint| !wanted.clone().any(|wanted| wanted.is_at(endpoint));
        let left = self.sockets.iter().find(|(_, endpoint)| !self.is_upgrade && is_left(endpoint));
        left.map_or(Ok(()), |(_, endpoint)| Err(HandedOver::Unexpected(endpoint.clone())))
    }

    /// Closes what a proxy that is replaced has more than the listeners of this one.
    pub(super) fn close_rest(&mut self) {
        if self.is_upgrade {
            self.sockets.clear();
        }
    }
}

/// An error if this process is said to have got a number of sockets that it cannot have. An empty one is none.
fn check_count() -> Result<(), HandedOver> {
    let [recipient, _] = RECIPIENT;
    let is_other = std::env::var(recipient).is_ok_and(|pid| pid.parse() != Ok(std::process::id()));
    let Some(said) = std::env::var_os(COUNT).filter(|said| !is_other && !said.is_empty()) else { return Ok(()) };
    match said.to_str().and_then(|said| said.parse::<usize>().ok()) {
        Some(count) if count > MAX_SOCKETS => Err(HandedOver::TooMany(count)),
        Some(_) => Ok(()),
        None => Err(HandedOver::NoNumber(said)),
    }
}

/// Connections of a listening TCP socket inherit that they do not delay small packets, as with those that are bound here.
fn socket(handed: &mut ListenFd, index: usize) -> io::Result<(Socket, Endpoint)> {
    if let Ok(Some(socket)) = handed.take_tcp_listener(index) {
        is_listening(getsockopt(&socket, sockopt::AcceptConn)?)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
        let endpoint = Endpoint::Address(socket.local_addr()?);
        return Ok((Socket::Tcp(socket), endpoint));
    }
    let socket = handed.take_unix_listener(index)?.ok_or(io::ErrorKind::InvalidInput)?;
    is_listening(getsockopt(&socket, sockopt::AcceptConn)?)?;
    socket.set_nonblocking(true)?;
    let path = socket.local_addr()?.as_pathname().map(Path::to_owned);
    let path = path.ok_or_else(|| io::Error::other("it has no path"))?;
    // Its permissions are those of the unit.
    Ok((Socket::Unix(socket), Endpoint::Unix { path, mode: 0 }))
}

fn is_listening(is_listening: bool) -> io::Result<()> {
    if is_listening { Ok(()) } else { Err(io::Error::other("it does not listen")) }
}
