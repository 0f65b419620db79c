//! Accepts connections, and serves the queues of the listening sockets to the end before they close.
//!
//! When Pingora stops, it closes a socket with clients in its queue; these believe that they are connected, and the kernel
//! resets them.

use std::io;
use std::net;
use std::os::fd::AsFd;
use std::os::unix;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use log::error;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::Kind;
use super::bind::{self, Listener};
use super::connection::{Connection, Stream};
use super::exit::ExitIfDropped;
use super::http::{Http, Speaks};
use super::opening::{Opened, Opening};
use super::refusal::{self, NoRequest};
use super::socket::Socket;
use super::tls::{FILES_STEP, Revocation};
use crate::load::{Guard, Limit, Load};

/// When a connection cannot be accepted, as for want of file descriptors, it stays in the queue. To retry at once would only
/// take processor time from the requests that could free a descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Connections beyond the limit that are given the time to read their refusal; further ones are closed at once.
const MAX_REFUSALS: usize = 64;

/// Listeners of one kind: they serve the same requests on the same threads and share a limit of connections. One of Pingora's
/// services.
pub(crate) struct Listeners<A> {
    name: &'static str,
    shutdown: ShutdownWatch,
    listeners: Vec<(Listener, Arc<ArcSwap<Opening>>, Guard)>,
    acceptor: Arc<Acceptor<A>>,
    threads: usize,
}

impl<A: HttpServerApp + Send + Sync + 'static> Listeners<A> {
    /// Serves these listeners with `http`, on `threads` threads, until the shutdown. All are of its kind.
    pub(crate) fn new(
        listeners: Vec<(Listener, Opening)>,
        http: Http<A>,
        threads: usize,
        load: &Arc<Load>,
        shutdown: ShutdownWatch,
    ) -> Self {
        let kind = http.kind();
        // Counted from now on: a signal may come before the service has started.
        let counted =
            |(listener, opening)| (listener, Arc::new(ArcSwap::from_pointee(opening)), load.listeners.enter());
        let listeners = listeners.into_iter().map(counted).collect();
        let connections = Arc::clone(kind.connections(load));
        let acceptor = Acceptor { http: Arc::new(http), connections, load: Arc::clone(load) };
        Self { name: kind.name(), shutdown, listeners, acceptor: Arc::new(acceptor), threads }
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> Service for Listeners<A> {
    async fn start_service(&mut self, _fds: Option<ListenFds>, _: ShutdownWatch, _listeners_per_fd: usize) {
        let mut accepting = JoinSet::new();
        let openings: Vec<_> =
            self.listeners.iter().map(|(listener, opening, _)| (listener.url(), Arc::clone(opening))).collect();
        tokio::spawn(look_at_files(openings, Arc::clone(&self.acceptor.load)));
        for (listener, opening, open) in self.listeners.drain(..) {
            let (acceptor, shutdown) = (Arc::clone(&self.acceptor), self.shutdown.clone());
            accepting.spawn(async move {
                let name = listener.kind().name();
                let _exit = ExitIfDropped::new(name, shutdown.clone());
                if let Err(cause) = acceptor.accept(listener, &opening, &shutdown).await {
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

/// Takes what is new in the files of these listeners' TLS, and tells when the certificates in use end, until the runtime ends.
async fn look_at_files(openings: Vec<(String, Arc<ArcSwap<Opening>>)>, load: Arc<Load>) {
    let ends: Vec<_> = openings.iter().map(|(name, _)| load.openings.certificate(name.clone())).collect();
    loop {
        for ((_, opening), end) in openings.iter().zip(&ends) {
            end.set(opening.load().tls.as_ref().map(|tls| tls.not_after()));
        }
        tokio::time::sleep(FILES_STEP).await;
        for (name, opening) in &openings {
            let tls = opening.load().tls.clone();
            if let Some(tls) = tls {
                tls.look(name).await;
            }
        }
    }
}

/// Accepts connections and has each served in a task of its own.
struct Acceptor<A> {
    http: Arc<Http<A>>,
    connections: Arc<Limit>,
    load: Arc<Load>,
}

impl<A: HttpServerApp + Send + Sync + 'static> Acceptor<A> {
    /// Accepts until the shutdown, and then what is left in the queue.
    async fn accept(&self, listener: Listener, opening: &ArcSwap<Opening>, shutdown: &ShutdownWatch) -> io::Result<()> {
        let name = listener.kind().name();
        let queue = Queue::new(listener.socket)?;
        let mut watch = shutdown.clone();
        let mut stopping = pin!(async {
            // An error means that nobody is left who could announce a shutdown: that is one, too.
            let _ = watch.wait_for(|stop| *stop).await;
        });
        loop {
            tokio::select! {
                biased;
                () = &mut stopping => break,
                accepted = queue.accept() => match accepted {
                    Ok(accepted) => self.serve(accepted, opening, shutdown),
                    Err(cause) => {
                        error!("{name}: accept: {cause}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        queue.rest(|accepted| self.serve(accepted, opening, shutdown))?;
        if let Some(tls) = &opening.load().tls {
            tls.close();
        }
        Ok(())
    }

    fn serve(&self, accepted: Accepted, opening: &ArcSwap<Opening>, shutdown: &ShutdownWatch) {
        match accepted {
            Accepted::Tcp(stream, peer) => self.serve_stream(stream, peer, opening, shutdown),
            Accepted::Unix(stream, peer) => self.serve_stream(stream, peer, opening, shutdown),
        }
    }

    /// A connection beyond the limit is refused at once: left in the queue, its client would not turn to its next endpoint.
    fn serve_stream<S: Stream + AsFd>(
        &self,
        mut stream: S,
        peer: SocketAddr,
        opening: &ArcSwap<Opening>,
        shutdown: &ShutdownWatch,
    ) {
        self.load.openings.accept(self.http.kind() == Kind::Admin);
        let guard = self.connections.enter();
        match guard.excess() {
            0 => {
                if self.connections.is_nearly_full() {
                    self.http.close_idle();
                }
                let (http, shutdown) = (Arc::clone(&self.http), shutdown.clone());
                let (opening, load) = (opening.load_full(), Arc::clone(&self.load));
                let rate = load.gate.bounds().reader_rate;
                tokio::spawn(async move {
                    if opening.is_plain() {
                        drop((opening, load));
                        let mut connection = Box::new(Connection::new(Socket::new(stream, rate), peer));
                        if let Ok(_place) = http.admit(&mut connection).await {
                            http.serve(connection, Speaks::Either, &shutdown, Revocation::never()).await;
                        }
                    } else {
                        // Of its own memory, so that a plain connection's task stays small.
                        Box::pin(serve_opened(&http, &opening, stream, peer, &load, &shutdown)).await;
                    }
                    drop(guard);
                });
            }
            1..=MAX_REFUSALS => {
                tokio::spawn(async move {
                    refusal::refuse(&mut stream, NoRequest::TooManyConnections).await;
                    drop((stream, guard));
                });
            }
            _ => refusal::refuse_at_once(stream, NoRequest::TooManyConnections),
        }
    }
}

/// Opens a connection, and serves it to its end.
async fn serve_opened<A: HttpServerApp + Send + Sync + 'static, S: Stream + AsFd>(
    http: &Http<A>,
    opening: &Opening,
    stream: S,
    peer: SocketAddr,
    load: &Load,
    shutdown: &ShutdownWatch,
) {
    match Box::pin(opening.open(stream, peer, load)).await {
        Some(Opened::Plain(mut connection)) => {
            if let Ok(_place) = http.admit(&mut connection).await {
                http.serve(connection, Speaks::Either, shutdown, Revocation::never()).await;
            }
        }
        Some(Opened::Tls(mut connection, speaks, revocation, _place)) => {
            let admitted = http.admit_certificate(&mut connection, speaks).await;
            if let Ok(()) = admitted {
                http.serve(connection, speaks, shutdown, revocation).await;
            }
        }
        None => {}
    }
}

/// A listening socket's queue of connections.
enum Queue {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection, with its peer's address; of a Unix socket that is most often without a name.
enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream, SocketAddr),
}

impl Accepted {
    /// An IPv4 client of a socket for both is known by its IPv4 address.
    fn tcp((stream, peer): (TcpStream, net::SocketAddr)) -> Self {
        Self::Tcp(stream, net::SocketAddr::new(peer.ip().to_canonical(), peer.port()).into())
    }

    fn unix((stream, peer): (UnixStream, impl Into<unix::net::SocketAddr>)) -> Self {
        Self::Unix(stream, peer.into().into())
    }
}

impl Queue {
    /// Of a socket that does not block, in the runtime that serves it.
    fn new(socket: bind::Socket) -> io::Result<Self> {
        Ok(match socket {
            bind::Socket::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            bind::Socket::Unix(socket) => Self::Unix(UnixListener::from_std(socket)?),
        })
    }

    /// Waits for a connection. Cancel safe.
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(socket) => socket.accept().await.map(Accepted::tcp),
            Self::Unix(socket) => socket.accept().await.map(Accepted::unix),
        }
    }

    /// Takes what is still in it. The runtime may not have heard of the last connections yet; the kernel has.
    fn rest(self, mut take: impl FnMut(Accepted)) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => {
                let queue = socket.into_std()?;
                while let Ok((stream, peer)) = queue.accept() {
                    stream.set_nonblocking(true)?;
                    take(Accepted::tcp((TcpStream::from_std(stream)?, peer)));
                }
            }
            Self::Unix(socket) => {
                let queue = socket.into_std()?;
                while let Ok((stream, peer)) = queue.accept() {
                    stream.set_nonblocking(true)?;
                    take(Accepted::unix((UnixStream::from_std(stream)?, peer)));
                }
            }
        }
        Ok(())
    }
}
