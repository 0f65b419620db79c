//! The listening socket: bound before anything else is started, and empty before it is closed.
//!
//! Left to itself, Pingora binds late, tries for 30 s, then panics in a task and leaves a process without
//! a listener; and at the end it closes the socket with clients in its queue, to whom the kernel has said that they are
//! connected, and who are reset. Here the socket is bound at once or the start fails, and the queue is served to its end.

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

use super::connection::Connection;
use super::http::Downstream;
use super::refusal::{self, NoRequest};
use super::signal::{Arriving, MustNotEnd};
use super::socket::Socket;
use crate::load::Bound;

/// A connection that cannot be accepted stays in the queue, as for want of file descriptors: trying on at once would
/// only take the processor from those who could give some back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Connections that may wait to be accepted, where the kernel allows as many (net.core.somaxconn). Beyond that a client
/// hears nothing and tries again after a second, and hosts that pull do it all at once.
const QUEUE: u32 = 4096;

/// Connections beyond the bound that are given the time to take their refusal; any further one ends with it at once.
const MAX_REFUSALS: usize = 64;

/// A bound socket that is not yet served. Connections queue in the kernel meanwhile.
pub struct Listening {
    socket: TcpListener,
    address: SocketAddr,
    name: &'static str,
}

impl Listening {
    /// Binds; port 0 takes a free one. `[::]` means every address, so on a host without IPv6 it is `0.0.0.0`.
    pub fn bind(name: &'static str, address: SocketAddr) -> io::Result<Self> {
        let socket = match listen(address) {
            Err(cause) if address.ip().is_unspecified() && cause.kind() != io::ErrorKind::AddrInUse => {
                listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()))).map_err(|_| cause)
            }
            bound => bound,
        }?;
        Ok(Self { address: socket.local_addr()?, socket, name })
    }

    /// The address it really has.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The service that accepts on this socket, with so many threads, and as many connections at once as `connections`
    /// has room for; `arriving` counts what the process must not end on.
    pub fn serve<A: HttpServerApp + Send + Sync + 'static>(
        self,
        downstream: Downstream<A>,
        threads: usize,
        connections: &Arc<Bound>,
        arriving: &Arriving,
    ) -> Served<A> {
        Served {
            downstream: Arc::new(downstream),
            socket: Some(self.socket),
            name: self.name,
            threads,
            connections: Arc::clone(connections),
            arriving: arriving.clone(),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    // The standard library's queue is one of 128, and tokio's sockets belong to a runtime; this one is for nothing else.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _inside = runtime.enter();
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Each connection has it from its listener (Linux), which saves a call for each: an answer's end does not wait until
    // the client has confirmed what came before (RFC 896).
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)?.into_std()
}

/// A socket with what serves it, as one of Pingora's services.
pub struct Served<A> {
    downstream: Arc<Downstream<A>>,
    socket: Option<TcpListener>,
    name: &'static str,
    threads: usize,
    connections: Arc<Bound>,
    arriving: Arriving,
}

impl<A: HttpServerApp + Send + Sync + 'static> Served<A> {
    /// Accepts until the shutdown, and then what is in the queue.
    async fn accept(&self, socket: TcpListener, shutdown: &ShutdownWatch) -> io::Result<()> {
        let _open = self.arriving.enter();
        let listener = tokio::net::TcpListener::from_std(socket)?;
        let mut watch = shutdown.clone();
        let mut stopping = pin!(async {
            // Nobody is left who could say it: that is a shutdown, too.
            let _ = watch.wait_for(|stop| *stop).await;
        });
        loop {
            tokio::select! {
                biased;
                () = &mut stopping => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.serve(stream, peer, shutdown),
                    Err(cause) => {
                        error!("{}: accept: {cause}", self.name);
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        // The runtime may not have heard of the last ones yet; the kernel has.
        let queue = listener.into_std()?;
        while let Ok((stream, peer)) = queue.accept() {
            stream.set_nonblocking(true)?;
            self.serve(TcpStream::from_std(stream)?, peer, shutdown);
        }
        Ok(())
    }

    /// A full house is told to each new client at once: to leave it in the queue would keep it from turning to its next
    /// endpoint.
    fn serve(&self, mut stream: TcpStream, peer: SocketAddr, shutdown: &ShutdownWatch) {
        let place = self.connections.enter();
        match place.over() {
            0 => {
                if self.connections.is_crowded() {
                    self.downstream.make_room();
                }
                let (downstream, shutdown) = (Arc::clone(&self.downstream), shutdown.clone());
                let arrival = self.arriving.enter();
                tokio::spawn(async move {
                    downstream.serve(Box::new(Connection::new(Socket::new(stream), peer)), arrival, &shutdown).await;
                    drop(place);
                });
            }
            1..=MAX_REFUSALS => {
                tokio::spawn(async move {
                    refusal::refuse(&mut stream, NoRequest::NoRoom).await;
                    drop((stream, place));
                });
            }
            _ => refusal::refuse_at_once(&stream, NoRequest::NoRoom),
        }
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> Service for Served<A> {
    async fn start_service(&mut self, _fds: Option<ListenFds>, shutdown: ShutdownWatch, _listeners_per_fd: usize) {
        let alive = MustNotEnd::new(self.name, shutdown.clone());
        if let Some(socket) = self.socket.take()
            && let Err(cause) = self.accept(socket, &shutdown).await
        {
            error!("{}: {cause}", self.name);
        }
        drop(alive);
    }

    fn name(&self) -> &str {
        self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_no_delay_from_its_listener() {
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
