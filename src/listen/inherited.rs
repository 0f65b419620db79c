//! Listening sockets that this process was started with: systemd hands over those of a socket unit, and a proxy that is replaced
//! its own. Both by the same variables (sd_listen_fds(3)).
//!
//! The kernel queues connections at such a socket while no process serves it, so a restart refuses none.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use listenfd::ListenFd;
use nix::libc::{AF_UNIX, SOCK_SEQPACKET};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use super::bind::Socket;
use super::unsent;
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
/// The name of each socket that a proxy hands over to the one in its place, and that of one which the service manager keeps: no
/// process finds out later whose it is.
const UPGRADE: &str = "upgrade";
const UPGRADE_KEPT: &str = "upgrade-kept";

/// The name of the one by which the new process is asked. It comes last.
const UPGRADE_ASKED: &str = "upgrade-asked";

/// A socket for the process that takes this one's place.
pub(crate) struct Handed {
    pub socket: OwnedFd,
    /// The service manager goes on to hold it.
    pub is_kept: bool,
}

/// The variables for a process that gets these sockets of this one, and then the one by which it is asked.
pub(crate) fn variables(sockets: &[Handed]) -> [(&'static str, String); 2] {
    let names = sockets.iter().map(|handed| if handed.is_kept { UPGRADE_KEPT } else { UPGRADE });
    let names: Vec<_> = names.chain([UPGRADE_ASKED]).collect();
    [(COUNT, names.len().to_string()), (NAMES, names.join(":"))]
}

/// The sockets that nobody has taken yet, and all that the service manager keeps.
pub(crate) struct Inherited {
    sockets: Vec<One>,
    predecessor: Option<UnixStream>,
}

struct One {
    socket: Socket,
    endpoint: Endpoint,
    /// The service manager goes on to hold it, with its queue.
    is_kept: bool,
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
        let names: Vec<_> = names.split(':').collect();
        let mut handed = ListenFd::from_env();
        let asked = names.iter().position(|name| *name == UPGRADE_ASKED).filter(|index| *index < handed.len());
        let predecessor = asked.map(|index| {
            let taken = handed.take_custom(index, AF_UNIX, SOCK_SEQPACKET, "pair of sockets")?;
            taken.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
        });
        let predecessor = predecessor.transpose().map_err(HandedOver::Unusable)?;
        let is_upgrade = predecessor.is_some();
        let sockets = (0..handed.len()).filter(|index| Some(*index) != asked).map(|index| {
            let (socket, endpoint) = socket(&mut handed, index)?;
            Ok(One { socket, endpoint, is_kept: !is_upgrade || names.get(index) == Some(&UPGRADE_KEPT) })
        });
        let sockets: Vec<_> = sockets.collect::<io::Result<_>>().map_err(HandedOver::Unusable)?;
        let is_second = |(index, one): &(usize, &One)| {
            sockets.iter().take(*index).any(|earlier| earlier.endpoint.is_at(&one.endpoint))
        };
        match sockets.iter().enumerate().find(is_second) {
            Some((_, one)) => Err(HandedOver::Twice(one.endpoint.clone())),
            None => Ok(Self { sockets, predecessor }),
        }
    }

    /// The socket by which the proxy asks that still serves these, if this process is to take its place.
    pub(crate) fn predecessor(&mut self) -> Option<UnixStream> {
        self.predecessor.take()
    }

    /// The socket for this endpoint. Of a proxy that is replaced, port 0 is the port that it had chosen, and `[::]` may be
    /// `0.0.0.0`, as with [`super::bind::Listener::bind`].
    pub(super) fn socket(&mut self, wanted: &Endpoint) -> Option<io::Result<Socket>> {
        if let Some(kept) = self.kept().find(|kept| kept.endpoint.is_at(wanted)) {
            return Some(kept.socket.duplicate());
        }
        let stands_for = |endpoint: &Endpoint| match (endpoint, wanted) {
            (Endpoint::Address(address), Endpoint::Address(wanted)) => {
                let is_every = wanted.ip().is_unspecified() && address.ip().is_unspecified();
                (wanted.port() == 0 || wanted.port() == address.port()) && (wanted.ip() == address.ip() || is_every)
            }
            _ => endpoint.is_at(wanted),
        };
        let position = |is_its: &dyn Fn(&Endpoint) -> bool| {
            self.sockets.iter().position(|one| !one.is_kept && is_its(&one.endpoint))
        };
        let index = position(&|endpoint| endpoint.is_at(wanted)).or_else(|| position(&stands_for))?;
        // In their order: several may have had port 0.
        Some(Ok(self.sockets.remove(index).socket))
    }

    /// Whether the service manager goes on to hold the socket there, with its queue.
    pub(super) fn keeps(&self, endpoint: &Endpoint) -> bool {
        self.kept().any(|kept| kept.endpoint.is_at(endpoint))
    }

    /// An error if the service manager holds a socket of which there is no listener among these: clients would wait in its
    /// queue without end.
    pub(super) fn check<'a>(&self, wanted: impl Iterator<Item = &'a Endpoint> + Clone) -> Result<(), HandedOver> {
        let is_left = |kept: &&One| !wanted.clone().any(|wanted| wanted.is_at(&kept.endpoint));
        let left = self.kept().find(is_left);
        left.map_or(Ok(()), |kept| Err(HandedOver::Unexpected(kept.endpoint.clone())))
    }

    fn kept(&self) -> impl Iterator<Item = &One> {
        self.sockets.iter().filter(|one| one.is_kept)
    }

    /// Closes what a proxy that is replaced has more than the listeners of this one.
    pub(super) fn close_rest(&mut self) {
        self.sockets.retain(|one| one.is_kept);
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
        unsent::bound(&socket)?;
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
