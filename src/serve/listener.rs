//! The listening socket: bound before anything else is started, and empty before it is closed.
//!
//! Left to itself, Pingora binds late, tries for 30 s, then panics in a task and leaves a process without
//! a listener; and at the end it closes the socket with clients in its queue, to whom the kernel has said that they are
//! connected, and who are reset. Here the socket is bound at once or the start fails, and the queue is served to its end.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use log::error;
use pingora_core::apps::ServerApp;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use pingora_core::services::listening::Service as ListeningService;
use tokio::net::{TcpSocket, TcpStream};

use super::connection::Connection;
use super::shutdown::{Arriving, MustNotEnd};

/// A connection that cannot be accepted stays in the queue, as for want of file descriptors: trying on at once would
/// only take the processor from those who could give some back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Connections that may wait to be accepted, where the kernel allows as many (net.core.somaxconn). Beyond that a client
/// hears nothing and tries again after a second, and hosts that pull do it all at once.
const QUEUE: u32 = 4096;

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

    /// The service that accepts on this socket, with so many threads; `arriving` counts what the process must not end on.
    pub fn serve<A: ServerApp + Send + Sync + 'static>(self, app: A, threads: usize, arriving: &Arriving) -> Served<A> {
        Served { app: Arc::new(app), socket: Some(self.socket), name: self.name, threads, arriving: arriving.clone() }
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

/// An app with its socket, as one of Pingora's services.
pub struct Served<A> {
    app: Arc<A>,
    socket: Option<TcpListener>,
    name: &'static str,
    threads: usize,
    arriving: Arriving,
}

impl<A: ServerApp + Send + Sync + 'static> Served<A> {
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

    fn serve(&self, stream: TcpStream, peer: SocketAddr, shutdown: &ShutdownWatch) {
        let (app, shutdown) = (Arc::clone(&self.app), shutdown.clone());
        let mut arriving = Some(self.arriving.enter());
        tokio::spawn(async move {
            let connection = Box::new(Connection::new(stream, peer));
            let mut serving = pin!(ListeningService::handle_event(connection, app, shutdown));
            // By the end of its first step the app counts the connection itself, if it wants to.
            poll_fn(|context| {
                let state = serving.as_mut().poll(context);
                arriving = None;
                state
            })
            .await;
        });
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> Service for Served<A> {
    async fn start_service(&mut self, _fds: Option<ListenFds>, shutdown: ShutdownWatch, _listeners_per_fd: usize) {
        let alive = MustNotEnd::new(self.name, shutdown.clone());
        if let Some(socket) = self.socket.take() {
            if let Err(cause) = self.accept(socket, &shutdown).await {
                error!("{}: {cause}", self.name);
            }
            self.app.cleanup().await;
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
