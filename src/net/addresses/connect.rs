//! TCP to the first address that accepts a connection (RFC 8305, "happy eyeballs").

use std::future::Future;
use std::io::{Error as IoError, ErrorKind, Result as IoResult};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use nix::errno::Errno;
use pingora_core::connectors::L4Connect;
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::{Error, ErrorType, Result};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::Addresses;
use super::way::Way;
use crate::answer::with_causes;
use crate::net::certificate::Wrong;
use crate::net::tunnel::{NoTunnel, Opened, TUNNEL_LIMIT, Tunnel, Why};

/// From the start of one address to that of the next (RFC 8305 section 5 recommends 250 ms).
const STAGGER: Duration = Duration::from_millis(250);
/// The same if all remaining addresses have failed lately. The kernel repeats a SYN after 1 s, so after this time the
/// attempts under way have lost a packet or go to dead addresses.
const STAGGER_FAILED: Duration = Duration::from_secs(1);
/// For one address. Its SYN is repeated once; a further one would come too late.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// For all addresses together.
const RACE_LIMIT: Duration = Duration::from_secs(3);

/// One connect to a host for a request. Pingora calls it to open a connection, unless it has a kept connection to
/// [`Connect::first`]. Afterwards [`Connect::address`] tells which address was used.
pub(crate) struct Connect {
    way: Way,
    first: SocketAddr,
    /// The address that accepted the connection; unset if a kept one was used.
    winner: OnceLock<SocketAddr>,
}

impl Connect {
    /// `None` if the name that is connected to has no known address.
    pub(crate) fn new(way: &Way) -> Option<Arc<Self>> {
        let first = way.addresses().first()?;
        Some(Arc::new(Self { way: way.clone(), first, winner: OnceLock::new() }))
    }

    /// The address that is tried first; Pingora keeps connections under it. A connection to another address is used once and
    /// not kept: the next request tries that address first. Through a tunnel it is the proxy's, as Pingora asks the socket.
    pub(crate) fn first(&self) -> SocketAddr {
        self.first
    }

    /// The address of Pingora's peer: it uses a kept connection again only if the socket is connected to it. A proxy that is spoken
    /// to over TLS is behind a socket that has no address, which Pingora compares with none that is unspecified.
    pub(crate) fn of_socket(&self) -> SocketAddr {
        match self.tunnel() {
            Some(tunnel) if !tunnel.has_socket() => (Ipv4Addr::UNSPECIFIED, self.first.port()).into(),
            _ => self.first,
        }
    }

    /// The request went to that address.
    pub(crate) fn is_to_first(&self) -> bool {
        self.address() == self.first
    }

    /// The address that the request went to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.winner.get().copied().unwrap_or(self.first)
    }

    /// The tunnel that the host is behind.
    pub(crate) fn tunnel(&self) -> Option<&Tunnel> {
        self.way.tunnel()
    }

    /// For a connection that took too long: it still waits for the proxy, not for the host behind it.
    pub(crate) fn waits_for_tunnel(&self) -> Option<NoTunnel> {
        let tunnel = self.tunnel().filter(|_| self.winner.get().is_none())?;
        Some(tunnel.refused(Why::Silent))
    }

    /// The address that accepted the connection does not answer or breaks off: others are tried first from now on. Of a
    /// proxy's address it says nothing, for what does not answer is behind it.
    pub(crate) fn failed(&self) {
        if self.tunnel().is_none() {
            self.way.addresses().failed(self.address());
        }
    }

    /// No connection was made. Addresses that refused are known as failed already; what remains is an address that accepted
    /// TCP and failed in TLS.
    pub(crate) fn connect_failed(&self) {
        if self.winner.get().is_some() {
            self.failed();
        }
    }
}

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect").field("way", &self.way).field("first", &self.first).finish_non_exhaustive()
    }
}

#[async_trait]
impl L4Connect for Connect {
    async fn connect(&self, _: &PeerAddr) -> Result<Stream> {
        let (winner, stream) = match self.tunnel() {
            None => {
                let connected = race(self.way.addresses(), self.first, TcpStream::connect).await;
                connected.map(|(winner, stream)| (winner, stream.into())).map_err(explain)?
            }
            Some(tunnel) => {
                let (winner, opened) = through(self.way.addresses(), self.first, tunnel).await?;
                (winner, opened.into_stream(tunnel).map_err(explain)?)
            }
        };
        let _ = self.winner.set(winner);
        Ok(stream)
    }
}

/// What to do about a tunnel through which TLS does not get.
const NO_ANSWER: &str = "check what the proxy does with TLS, and the CA";

impl Way {
    /// After a call that found no connection, for this cause: what the proxy on the way has to do with it. reqwest does not tell,
    /// so the proxy is asked once more: if it gives a tunnel, it is in what is behind it.
    pub(crate) async fn explain(&self, cause: &reqwest::Error) -> Option<NoTunnel> {
        let (tunnel, first) = (self.tunnel()?, self.addresses().first()?);
        match through(self.addresses(), first, tunnel).await {
            Ok(_) => {
                let of_certificate = Wrong::of_error(cause).map(|wrong| wrong.to_string());
                let why = of_certificate.unwrap_or_else(|| format!("{NO_ANSWER}: {}", with_causes(cause)));
                Some(tunnel.refused(Why::Behind(why)))
            }
            Err(error) => NoTunnel::of(&error).cloned(),
        }
    }

    /// A tunnel of one's own. The error is a sentence, as is that of a host which is behind no proxy.
    #[cfg(feature = "bench")]
    pub(crate) async fn open(&self) -> std::result::Result<Opened, String> {
        self.resolve().await?;
        let known = self.tunnel().zip(self.addresses().first());
        let (tunnel, first) = known.ok_or("there is no proxy on the way")?;
        let opened = through(self.addresses(), first, tunnel).await;
        opened.map(|(_, opened)| opened).map_err(|error| match NoTunnel::of(&error) {
            Some(no_tunnel) => no_tunnel.to_string(),
            None => error.root_cause().to_string(),
        })
    }
}

/// Connects to the proxy and asks it for the tunnel. Of an address that accepts the connection and does not answer, another
/// one is tried first the next time. The error has a [`NoTunnel`] as its cause, unless it is this host's.
async fn through(proxy: &Arc<Addresses>, first: SocketAddr, tunnel: &Tunnel) -> Result<(SocketAddr, Opened)> {
    let until = Instant::now() + TUNNEL_LIMIT;
    let no_tunnel = |why| Error::because(ErrorType::ConnectProxyFailure, "no tunnel", why);
    let (winner, stream) = match race(proxy, first, TcpStream::connect).await {
        Ok(connected) => connected,
        Err(cause) if is_this_hosts(&cause) => return Err(explain(cause)),
        Err(cause) => return Err(no_tunnel(tunnel.refused(Why::unreachable(&cause)))),
    };
    match tunnel.open(stream, until).await {
        Ok(opened) => Ok((winner, opened)),
        Err(why) => {
            if why.is_proxys() {
                proxy.failed(winner);
            }
            Err(no_tunnel(why))
        }
    }
}

/// The error type that Pingora's own connector would give.
fn explain(cause: IoError) -> Box<Error> {
    let kind = match (cause.kind(), cause.raw_os_error()) {
        (ErrorKind::ConnectionRefused, _) => ErrorType::ConnectRefused,
        (ErrorKind::TimedOut, _) => ErrorType::ConnectTimedout,
        (ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::PermissionDenied, _) => {
            ErrorType::ConnectNoRoute
        }
        _ if is_this_hosts(&cause) => ErrorType::InternalError,
        _ => ErrorType::ConnectError,
    };
    Error::because(kind, "no address takes a connection", cause)
}

/// This process or host has no file descriptors left. That is no fault of the address, and others would fail as well.
fn is_this_hosts(cause: &IoError) -> bool {
    [Errno::EMFILE, Errno::ENFILE].iter().any(|errno| cause.raw_os_error() == Some(*errno as i32))
}

/// Starts with `first`; each further address is tried when the one before has failed or is late. The first connection wins
/// and the other attempts are cancelled. `Err` is the first failure, or a timeout if any address timed out.
async fn race<S, F>(
    name: &Arc<Addresses>,
    first: SocketAddr,
    connect: impl Fn(SocketAddr) -> F,
) -> IoResult<(SocketAddr, S)>
where
    S: Send + 'static,
    F: Future<Output = IoResult<S>> + Send + 'static,
{
    let mut waiting = name.candidates(first).into_iter().peekable();
    let mut under_way = JoinSet::new();
    let mut started: Vec<(SocketAddr, Instant)> = Vec::new();
    let mut failure: Option<IoError> = None;
    let end = Instant::now() + RACE_LIMIT;
    let mut next = Instant::now();
    loop {
        let now = Instant::now();
        let is_due = next <= now || under_way.is_empty();
        if let Some((address, _)) = waiting.next_if(|_| is_due) {
            let connection = connect(address);
            under_way.spawn(async move {
                let late = |_| Err(ErrorKind::TimedOut.into());
                (address, timeout(CONNECT_LIMIT, connection).await.unwrap_or_else(late))
            });
            started.push((address, now));
        }
        if under_way.is_empty() {
            return Err(failure.unwrap_or_else(|| ErrorKind::TimedOut.into()));
        }
        if is_due {
            let is_healthy = waiting.peek().is_some_and(|(_, is_healthy)| *is_healthy);
            next = now + if is_healthy { STAGGER } else { STAGGER_FAILED };
        }
        let step = if waiting.peek().is_some() { next.min(end) } else { end };
        tokio::select! {
            ended = under_way.join_next() => {
                let Some(Ok((address, result))) = ended else {
                    continue;
                };
                started.retain(|(other, _)| *other != address);
                match result {
                    Ok(stream) => {
                        cancel(name, &started);
                        name.connected(address);
                        return Ok((address, stream));
                    }
                    Err(cause) if is_this_hosts(&cause) => return Err(cause),
                    Err(cause) => {
                        name.failed(address);
                        if failure.is_none() || cause.kind() == ErrorKind::TimedOut {
                            failure = Some(cause);
                        }
                        if waiting.peek().is_some_and(|(_, is_healthy)| *is_healthy) {
                            next = Instant::now();
                        }
                    }
                }
            }
            () = sleep_until(step) => {
                if Instant::now() >= end {
                    cancel(name, &started);
                    return Err(ErrorKind::TimedOut.into());
                }
            }
        }
    }
}

/// Cancelled attempts that ran long enough to have lost a packet count as failed; the others were only slower.
fn cancel(name: &Arc<Addresses>, under_way: &[(SocketAddr, Instant)]) {
    for (address, since) in under_way {
        if since.elapsed() >= STAGGER_FAILED {
            name.failed(*address);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::super::alternate;
    use super::super::tests::{address, address6, resolved};
    use super::*;

    /// What an address does: accept or refuse after so many milliseconds, or nothing.
    #[derive(Clone, Copy, Debug)]
    enum Does {
        Takes(u64),
        Refuses(u64),
        Nothing,
    }

    async fn run(name: &Arc<Addresses>, does: &[(SocketAddr, Does)]) -> (IoResult<SocketAddr>, u128) {
        let begun = Instant::now();
        let connect = |to: SocketAddr| {
            let does = does.iter().find(|(address, _)| *address == to).map_or(Does::Nothing, |(_, does)| *does);
            async move {
                match does {
                    Does::Takes(after) => {
                        sleep(Duration::from_millis(after)).await;
                        Ok(())
                    }
                    Does::Refuses(after) => {
                        sleep(Duration::from_millis(after)).await;
                        Err(IoError::from(ErrorKind::ConnectionRefused))
                    }
                    Does::Nothing => std::future::pending().await,
                }
            }
        };
        let first = name.first().expect("known");
        let result = race(name, first, connect).await.map(|(winner, ())| winner);
        (result, begun.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_address_starts_while_the_first_is_silent() {
        use Does::{Nothing, Refuses, Takes};
        let (a, b) = (address, address6);
        for (does, winner, takes) in [
            (vec![(a(1), Takes(100)), (a(2), Takes(0))], Some(a(1)), 100),
            (vec![(a(1), Nothing), (a(2), Takes(10))], Some(a(2)), 260),
            (vec![(a(1), Takes(300)), (a(2), Takes(200))], Some(a(1)), 300),
            (vec![(a(1), Refuses(5)), (a(2), Refuses(5)), (a(3), Takes(5))], Some(a(3)), 15),
            // Three dead IPv6 addresses and a good IPv4 one: the families alternate.
            (vec![(b(1), Nothing), (b(2), Nothing), (b(3), Nothing), (a(1), Takes(1))], Some(a(1)), 251),
            (vec![(a(1), Nothing), (a(2), Nothing), (a(3), Nothing), (a(4), Takes(1))], Some(a(4)), 751),
            (vec![(a(1), Refuses(1)), (a(2), Refuses(1))], None, 2),
            (vec![(a(1), Nothing)], None, 2000),
            (vec![(a(1), Nothing), (a(2), Nothing)], None, 2250),
            ((1..17).map(|last| (a(last), Nothing)).collect(), None, 3000),
        ] {
            let addresses = alternate(does.iter().map(|(address, _)| *address).collect());
            let (result, took) = run(&resolved(&addresses), &does).await;
            assert_eq!((result.ok(), took), (winner, takes), "{does:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_winner_comes_first_next_time_and_failed_addresses_start_late() {
        use Does::{Nothing, Takes};
        let name = resolved(&[address(1), address(2), address(3)]);
        let does = [(address(1), Nothing), (address(2), Takes(1)), (address(3), Takes(1))];
        assert_eq!(run(&name, &does).await.1, 251);
        assert_eq!(run(&name, &does).await.1, 1);
        name.failed(address(2));
        name.failed(address(3));
        // The only address that has not failed is dead: after a second the others are tried, and it counts as failed.
        assert_eq!(name.first(), Some(address(1)));
        let (result, took) = run(&name, &does).await;
        assert_eq!((result.expect("one takes it"), took), (address(2), 1001));
        assert_eq!(name.all(), [2, 3, 1].map(address));
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_without_descriptors_blames_no_address() {
        let name = resolved(&[address(1), address(2)]);
        let none_left = |_| async { Err::<(), _>(IoError::from_raw_os_error(Errno::EMFILE as i32)) };
        let cause = race(&name, address(1), none_left).await.expect_err("no connection");
        assert_eq!(*explain(cause).etype(), ErrorType::InternalError);
        assert_eq!(name.first(), Some(address(1)));
    }
}
