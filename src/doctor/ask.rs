//! Daemons of this host are asked: over their Unix sockets, over TCP, and by their own programs. Each within a deadline, and
//! no answer is taken beyond a bound.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::process::Command;
use tokio::time::timeout;

use crate::activation::Sockets;
use crate::answer::API_VERSION;
use crate::client_config::address::Address;
use crate::host::Host;
use crate::program::{Printed, run as run_to_its_end};

/// From the connection to the end of the answer. A daemon on the same host answers within milliseconds; dockerd takes
/// seconds where its disk is slow.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Each of them prints a few lines at once; a disk may be slow.
pub(super) const PROGRAM_LIMIT: Duration = Duration::from_secs(15);
/// dockerd's settings have tens of KiB, the status page of the proxy 100 KiB.
const MAX_ANSWER: usize = 4 << 20;
/// An answer's head has some ten lines.
const MAX_HEADERS: usize = 64;

/// An answer of HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    /// It has the header by which a registry is known.
    pub is_registry: bool,
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// A daemon that listens on a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listens {
    /// Its process, if that is in this process's namespace; systemd's where that has opened the socket.
    pub pid: Option<u32>,
}

/// Whether somebody listens there. An error says why nobody could be asked, which is not the same as nobody.
pub(super) async fn listens(socket: &Path) -> io::Result<Option<Listens>> {
    match timeout(ANSWER_LIMIT, UnixStream::connect(socket)).await {
        Ok(Ok(stream)) => {
            let pid = stream.peer_cred().ok().and_then(|peer| peer.pid()).and_then(|pid| u32::try_from(pid).ok());
            Ok(Some(Listens { pid: pid.filter(|pid| *pid > 1) }))
        }
        Ok(Err(cause)) => match cause.kind() {
            // The last is of a path that is too long for a socket.
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::InvalidInput => Ok(None),
            _ => Err(cause),
        },
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Whether a daemon listens at a path; not systemd in its place.
pub(super) async fn listens_at(sockets: &Sockets, socket: io::Result<PathBuf>) -> io::Result<Option<Listens>> {
    let socket = socket?;
    if sockets.alone_at_path(&socket).is_some() { Ok(None) } else { listens(&socket).await }
}

/// The first of these sockets that somebody listens on, or that nobody could be asked at.
pub(super) async fn first_that_listens(host: &Host, sockets: &[&str]) -> Option<PathBuf> {
    for path in sockets {
        let Ok(at) = host.at(path) else { continue };
        if !matches!(listens(&at).await, Ok(None)) {
            return Some(at);
        }
    }
    None
}

/// Asks a daemon behind a Unix socket.
pub(super) async fn get_unix(socket: &Path, target: &str) -> io::Result<Answer> {
    within(ANSWER_LIMIT, async { exchange(UnixStream::connect(socket).await?, "GET", target, "localhost").await }).await
}

/// The same by another method and with a limit of its own.
pub(super) async fn post_unix(socket: &Path, target: &str, limit: Duration) -> io::Result<Answer> {
    within(limit, async { exchange(UnixStream::connect(socket).await?, "POST", target, "localhost").await }).await
}

/// Asks a server on this host by its address.
pub(crate) async fn get(address: SocketAddr, target: &str) -> io::Result<Answer> {
    let host = address.to_string();
    within(ANSWER_LIMIT, async { exchange(TcpStream::connect(address).await?, "GET", target, &host).await }).await
}

/// Where the host of an address leads first, with the port.
pub(super) async fn resolve(address: &Address) -> io::Result<SocketAddr> {
    let authority = format!("{}:{}", address.host, address.port());
    let first =
        async { lookup_host(authority).await?.next().ok_or_else(|| io::Error::other("its name has no address")) };
    within(ANSWER_LIMIT, first).await
}

/// Whether a server takes a connection.
pub(super) async fn connects(address: SocketAddr) -> io::Result<()> {
    within(ANSWER_LIMIT, async { TcpStream::connect(address).await.map(drop) }).await
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// One request on a connection of its own, in HTTP/1.0, in which an answer ends with its connection.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    target: &str,
    host: &str,
) -> io::Result<Answer> {
    let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    let request = format!("{method} {target} HTTP/1.0\r\nHost: {host}\r\n{length}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let bytes = read(stream).await?;
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "its answer is not HTTP");
    let Ok(httparse::Status::Complete(end)) = head.parse(&bytes) else { return Err(wrong()) };
    let status = head.code.ok_or_else(wrong)?;
    let is_registry = head.headers.iter().any(|header| header.name.eq_ignore_ascii_case(API_VERSION.as_str()));
    Ok(Answer { status, is_registry, body: bytes.get(end..).unwrap_or_default().to_vec() })
}

async fn read(stream: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(MAX_ANSWER as u64 + 1).read_to_end(&mut bytes).await?;
    if bytes.len() > MAX_ANSWER {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its answer is too long"));
    }
    Ok(bytes)
}

/// What a program prints, if it succeeds within the limit. It is killed after that.
pub(super) async fn program(words: &[&str]) -> Option<String> {
    run(words, PROGRAM_LIMIT).await.ok().filter(|(succeeded, ..)| *succeeded).map(|(_, said, _)| said)
}

/// Properties of a unit, as systemd tells them.
pub(super) struct Properties(String);

impl Properties {
    /// Asks with these words for `systemctl show`; `None` where there is no answer.
    pub(super) async fn show(words: &[&str]) -> Option<Self> {
        program(&[&["systemctl", "show"], words].concat()).await.map(Self)
    }

    /// Empty for one that systemd does not know.
    pub(super) fn get(&self, key: &str) -> &str {
        self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn of(said: &str) -> Self {
        Self(said.to_owned())
    }
}

/// Runs a program to its end: whether it succeeded, and what it has printed to standard output and standard error. After the limit it is
/// killed, with its process group.
pub(super) async fn run(words: &[&str], limit: Duration) -> io::Result<(bool, String, String)> {
    let (name, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut printed = Printed::all(MAX_ANSWER);
    let status = within(limit, run_to_its_end(Command::new(name).args(arguments), &mut printed)).await?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((status.success(), text(printed.stdout), text(printed.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pull that left a process behind, with the pipes still open, was taken for one that has not ended.
    #[tokio::test]
    async fn what_a_program_leaves_behind_is_not_waited_for() {
        let ran = run(&["sh", "-c", "echo pulled; sleep 1000 & echo $! >&2"], PROGRAM_LIMIT).await;
        let (succeeded, out, left) = ran.expect("it has ended");
        assert_eq!((succeeded, out.as_str()), (true, "pulled\n"));
        let left = nix::unistd::Pid::from_raw(left.trim().parse().expect("a number"));
        nix::sys::signal::kill(left, nix::sys::signal::Signal::SIGKILL).expect("it goes on");
    }
}
