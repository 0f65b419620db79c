//! Listening sockets: bound before anything else starts, and their queues served to the end before they close.
//!
//! Left to itself, Pingora binds late, tries for 30 s, then panics in a task and leaves a process without a listener. When it
//! stops, it closes the socket with clients in its queue; these believe that they are connected, and the kernel resets them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use log::error;
use pingora_core::apps::HttpServerApp;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::Kind;
use super::connection::Connection;
use super::exit::ExitIfDropped;
use super::http::Http;
use super::refusal::{self, NoRequest};
use super::socket::Socket;
use crate::load::{Guard, Limit, Load};

/// When a connection cannot be accepted, as for want of file descriptors, it stays in the queue. To retry at once would only
/// take processor time from the requests that could free a descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Connections that may wait to be accepted, where the kernel allows as many (net.core.somaxconn). Beyond that a client gets
/// no reply and retries after a second, and hosts that pull all do so at once.
const QUEUE: u32 = 4096;

/// Connections beyond the limit that are given the time to read their refusal; further ones are closed at once.
const MAX_REFUSALS: usize = 64;

/// A bound socket that is not served yet. Connections queue in the kernel meanwhile.
pub(crate) struct Listener {
    kind: Kind,
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds; port 0 takes a free one. `[::]` means every address, so on a host without IPv6 it is `0.0.0.0`.
    pub(crate) fn bind(kind: Kind, address: SocketAddr) -> io::Result<Self> {
        let socket = match listen(address) {
            Err(cause) if address.ip().is_unspecified() && cause.kind() != io::ErrorKind::AddrInUse => {
                listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()))).map_err(|_| cause)
            }
            bound => bound,
        }?;
        Ok(Self { kind, address: socket.local_addr()?, socket })
    }

    /// What it is for.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The address it really has.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    // The standard library's queue has 128 places, and tokio's sockets belong to a runtime; this one serves nothing else.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _inside = runtime.enter();
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it (Linux), which saves a system call for each: the end of an answer does not wait until
    // the client has acknowledged what came before (RFC 896).
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)?.into_std()
}

/// Listeners of one kind: they serve the same requests on the same threads and share a limit of connections. One of Pingora's
/// services.
pub(crate) struct Listeners<A> {
    name: &'static str,
    shutdown: ShutdownWatch,
    listeners: Vec<(Listener, Guard)>,
    acceptor: Arc<Acceptor<A>>,
    threads: usize,
}

impl<A: HttpServerApp + Send + Sync + 'static> Listeners<A> {
    /// Serves these listeners with `http`, on `threads` threads, until the shutdown. All are of its kind.
    pub(crate) fn new(
        listeners: Vec<Listener>,
        http: Http<A>,
        threads: usize,
        load: &Load,
        shutdown: ShutdownWatch,
    ) -> Self {
        let kind = http.kind();
        // Counted from now on: a signal may come before the service has started.
        let listeners = listeners.into_iter().map(|listener| (listener, load.listeners.enter())).collect();
        let acceptor = Acceptor { http: Arc::new(http), connections: Arc::clone(kind.connections(load)) };
        Self { name: kind.name(), shutdown, listeners, acceptor: Arc::new(acceptor), threads }
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> Service for Listeners<A> {
    async fn start_service(&mut self, _fds: Option<ListenFds>, _: ShutdownWatch, _listeners_per_fd: usize) {
        let mut accepting = JoinSet::new();
        for (listener, open) in self.listeners.drain(..) {
            let (acceptor, shutdown) = (Arc::clone(&self.acceptor), self.shutdown.clone());
            accepting.spawn(async move {
                let name = listener.kind.name();
                let _exit = ExitIfDropped::new(name, shutdown.clone());
                if let Err(cause) = acceptor.accept(listener, &shutdown).await {
                    error!("{name}: {cause}");
                }
                drop(open);
            });
        }
        while accepting.join_next().await.is_some() {}
        self.acceptor.http.answer_last().await;
    }

    fn name(&self) -> &str {
        self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }
}

/// Accepts connections and has each served in a task of its own.
struct Acceptor<A> {
    http: Arc<Http<A>>,
    connections: Arc<Limit>,
}

impl<A: HttpServerApp + Send + Sync + 'static> Acceptor<A> {
    /// Accepts until the shutdown, and then what is left in the queue.
    async fn accept(&self, listener: Listener, shutdown: &ShutdownWatch) -> io::Result<()> {
        let name = listener.kind.name();
        let listener = tokio::net::TcpListener::from_std(listener.socket)?;
        let mut watch = shutdown.clone();
        let mut stopping = pin!(async {
            // An error means that nobody is left who could announce a shutdown: that is one, too.
            let _ = watch.wait_for(|stop| *stop).await;
        });
        loop {
            tokio::select! {
                biased;
                () = &mut stopping => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.serve(stream, peer, shutdown),
                    Err(cause) => {
                        error!("{name}: accept: {cause}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        // The runtime may not have heard of the last connections yet; the kernel has.
        let queue = listener.into_std()?;
        while let Ok((stream, peer)) = queue.accept() {
            stream.set_nonblocking(true)?;
            self.serve(TcpStream::from_std(stream)?, peer, shutdown);
        }
        Ok(())
    }

    /// A connection beyond the limit is refused at once: left in the queue, its client would not turn to its next endpoint.
    fn serve(&self, mut stream: TcpStream, peer: SocketAddr, shutdown: &ShutdownWatch) {
        let guard = self.connections.enter();
        match guard.excess() {
            0 => {
                if self.connections.is_nearly_full() {
                    self.http.close_idle();
                }
                let (http, shutdown) = (Arc::clone(&self.http), shutdown.clone());
                tokio::spawn(async move {
                    http.serve(Box::new(Connection::new(Socket::new(stream), peer)), &shutdown).await;
                    drop(guard);
                });
            }
            1..=MAX_REFUSALS => {
                tokio::spawn(async move {
                    refusal::refuse(&mut stream, NoRequest::TooManyConnections).await;
                    drop((stream, guard));
                });
            }
            _ => refusal::refuse_at_once(&stream, NoRequest::TooManyConnections),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_connections_inherit_no_delay() {
        let socket = listen(([127, 0, 0, 1], 0).into()).expect("a port");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(socket).expect("non-blocking");
            let _client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
            let (stream, _) = listener.accept().await.expect("accepted");
            assert!(stream.nodelay().expect("a socket"));
        });
    }
}
