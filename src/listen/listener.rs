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
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Kind;
use super::bind;
use super::connection::{Connection, Stream};
use super::exit::ExitIfDropped;
use super::http::{Http, Speaks};
use super::opening::{Opened, Opening};
use super::places::Places;
use super::refusal::{self, NoRequest};
use super::set;
use super::socket::Socket;
use super::tls::{FILES_STEP, Revocation};
use crate::config::Endpoint;
use crate::liveness::{Heartbeat, Liveness};
use crate::load::{Guard, Limit, Load};

/// When a connection cannot be accepted, as for want of file descriptors, it stays in the queue. To retry at once would only
/// take processor time from the requests that could free a descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Listeners of one kind: they serve the same requests on the same threads and share a limit of connections. One of Pingora's
/// services.
pub(crate) struct Listeners<A> {
    name: &'static str,
    /// Those that are to be served; it ends when the process takes in no more work.
    opened: mpsc::UnboundedReceiver<set::Opened>,
    acceptor: Arc<Acceptor<A>>,
    threads: usize,
    liveness: Liveness,
}

impl<A: HttpServerApp + Send + Sync + 'static> Listeners<A> {
    /// Serves the listeners that come, all of its kind, with `http`, on `threads` threads.
    pub(crate) fn new(
        opened: mpsc::UnboundedReceiver<set::Opened>,
        http: Http<A>,
        threads: usize,
        load: &Arc<Load>,
        liveness: Liveness,
    ) -> Self {
        let kind = http.kind();
        let connections = Arc::clone(kind.connections(load));
        let (http, places) = (Arc::new(http), Arc::default());
        let acceptor = Acceptor { http, connections, places, load: Arc::clone(load) };
        Self { name: kind.name(), opened, acceptor: Arc::new(acceptor), threads, liveness }
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> Service for Listeners<A> {
    async fn start_service(&mut self, _fds: Option<ListenFds>, _: ShutdownWatch, _listeners_per_fd: usize) {
        self.liveness.threads(self.name);
        let http = Arc::clone(&self.acceptor.http);
        let attending = tokio::spawn(async move { http.attend().await });
        let mut accepting = JoinSet::new();
        while let Some(opened) = self.opened.recv().await {
            // Takes away the tasks of listeners that are closed.
            while accepting.try_join_next().is_some() {}
            let acceptor = Arc::clone(&self.acceptor);
            let heartbeat =
                self.liveness.part(&set::url(&opened.listener.endpoint, opened.opening.load().tls.is_some()));
            accepting.spawn(async move {
                let name = opened.kind.name();
                let _exit = ExitIfDropped::new(name, opened.stop.clone());
                let (endpoint, opening) = (opened.listener.endpoint.clone(), Arc::clone(&opened.opening));
                let looking = tokio::spawn(look_at_files(endpoint, opening, Arc::clone(&acceptor.load)));
                if let Err(cause) = acceptor.accept(opened, heartbeat).await {
                    error!("{name}: {cause}");
                }
                looking.abort();
            });
        }
        while accepting.join_next().await.is_some() {}
        self.acceptor.http.answer_last().await;
        attending.abort();
    }

    fn name(&self) -> &str {
        self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }
}

/// Takes what is new in the files of a listener's TLS, and tells when the certificate in use ends, if it has TLS at that moment.
async fn look_at_files(endpoint: Endpoint, opening: Arc<ArcSwap<Opening>>, load: Arc<Load>) {
    let name = set::url(&endpoint, true);
    let end = load.openings.certificate(name.clone());
    loop {
        let current = opening.load_full();
        end.set(current.tls.as_ref().map(|tls| tls.not_after()));
        if current.tls.is_none() {
            // There is nothing to look at until other settings come, or the listener is closed.
            let _ = current.ended().wait_for(|ended| *ended).await;
            if Arc::ptr_eq(&current, &opening.load()) {
                return;
            }
            continue;
        }
        drop(current);
        tokio::time::sleep(FILES_STEP).await;
        let tls = opening.load().tls.clone();
        if let Some(tls) = tls {
            tls.look(&name).await;
        }
    }
}

/// Accepts connections and has each served in a task of its own.
struct Acceptor<A> {
    http: Arc<Http<A>>,
    connections: Arc<Limit>,
    /// Those of the admin listener.
    places: Arc<Places>,
    load: Arc<Load>,
}

impl<A: HttpServerApp + Send + Sync + 'static> Acceptor<A> {
    /// Accepts until the listener stops, and then what is left in the queue, if nobody else serves it.
    async fn accept(&self, opened: set::Opened, heartbeat: Heartbeat) -> io::Result<()> {
        let set::Opened { kind, listener, opening, stop, held, open: _open, closed: _closed } = opened;
        let queue = Queue::new(listener.socket)?;
        let heartbeat = Arc::new(heartbeat);
        let mut stop = stop;
        let mut stopping = pin!(async {
            // An error means that nobody is left who could stop it: that is a stop, too.
            let _ = stop.wait_for(|stop| *stop).await;
        });
        loop {
            tokio::select! {
                biased;
                () = &mut stopping => break,
                // Before connections, of which there may always be one.
                () = heartbeat.asked() => {
                    let heartbeat = Arc::clone(&heartbeat);
                    // As a connection is served.
                    tokio::spawn(async move { heartbeat.answer() });
                }
                accepted = queue.accept() => match accepted {
                    // The watchdog's question has its turn, too.
                    Ok(accepted) => if self.serve(accepted, &opening) {
                        self.places.settle().await;
                    },
                    Err(cause) => {
                        error!("{}: accept: {cause}", kind.name());
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        if !held.release() {
            queue.rest(|accepted| {
                self.serve(accepted, &opening);
            })?;
        }
        Ok(())
    }

    /// Whether [`Places::settle`] comes before the next one: connections come faster than they are served.
    fn serve(&self, accepted: Accepted, opening: &ArcSwap<Opening>) -> bool {
        match accepted {
            Accepted::Tcp(stream, peer) => self.serve_stream(stream, peer, opening),
            Accepted::Unix(stream, peer) => self.serve_stream(stream, peer, opening),
        }
    }

    /// A connection beyond the limit is refused at once: left in the queue, its client would not turn to its next endpoint.
    fn serve_stream<S: Stream + AsFd>(&self, stream: S, peer: SocketAddr, opening: &ArcSwap<Opening>) -> bool {
        self.load.openings.accept(self.http.kind() == Kind::Admin);
        if self.http.kind() == Kind::Admin {
            let place = self.places.enter(peer.as_inet().map(|peer| peer.ip()), &self.connections);
            let must_settle = place.must_settle();
            let http = Arc::clone(&self.http);
            let (opening, load) = (opening.load_full(), Arc::clone(&self.load));
            tokio::spawn(async move {
                let ended = opening.ended();
                place.hold(serve_opened(&http, &opening, stream, peer, &load, &ended)).await;
            });
            return must_settle;
        }
        let guard = self.connections.enter();
        match guard.excess() {
            0 => {
                if self.connections.is_nearly_full() {
                    self.http.close_idle();
                }
                let http = Arc::clone(&self.http);
                let (opening, load) = (opening.load_full(), Arc::clone(&self.load));
                let rate = load.gate.bounds().reader_rate;
                tokio::spawn(async move {
                    let ended = opening.ended();
                    if opening.is_plain() {
                        drop((opening, load));
                        let mut connection = Box::new(Connection::new(Socket::new(stream, rate), peer));
                        if let Ok(place) = http.admit(&mut connection).await {
                            http.serve(connection, place, Speaks::Either, &ended, Revocation::never()).await;
                        }
                    } else {
                        // Of its own memory, so that a plain connection's task stays small.
                        Box::pin(serve_opened(&http, &opening, stream, peer, &load, &ended)).await;
                    }
                    drop(guard);
                });
            }
            _ => self.refuse(stream, guard, opening.load().tls.is_some()),
        }
        false
    }

    /// Ends a connection that is over the limit, in words that its client understands.
    fn refuse<S: Stream>(&self, mut stream: S, guard: Guard, has_tls: bool) {
        let why = NoRequest::TooManyConnections;
        match self.load.gate.answer() {
            Some(answer) => drop(tokio::spawn(async move {
                if has_tls {
                    refusal::alert(&mut stream, why, false).await;
                } else {
                    refusal::refuse(&mut stream, why).await;
                }
                drop((stream, guard, answer));
            })),
            None if has_tls => refusal::alert_at_once(stream, why),
            None => refusal::refuse_at_once(stream, why),
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
    ended: &ShutdownWatch,
) {
    match Box::pin(opening.open(stream, peer, load)).await {
        Some(Opened::Plain(mut connection)) => {
            if let Ok(place) = http.admit(&mut connection).await {
                http.serve(connection, place, Speaks::Either, ended, Revocation::never()).await;
            }
        }
        Some(Opened::Tls(mut connection, speaks, revocation, place)) => {
            let admitted = http.admit_certificate(&mut connection, speaks).await;
            if let Ok(()) = admitted {
                http.serve(connection, place, speaks, ended, revocation).await;
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
