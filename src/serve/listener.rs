//! The listening socket, bound before anything else is started.
//!
//! Left to itself, Pingora binds late, tries for 30 s, then panics in a task and leaves a process without
//! a listener. Here the socket is bound at once or the start fails, and Pingora is handed the open one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{IntoRawFd as _, OwnedFd};

use async_trait::async_trait;
use pingora_core::apps::ServerApp;
use pingora_core::listeners::{L4BufferSettings, ListenerConfig};
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use pingora_core::services::listening::Service as ListeningService;

use super::shutdown::MustNotEnd;

/// A client's connection reads through a buffer of this size: a request's header has less than 1 KiB, and its body, if
/// it has one, is not read. Pingora's own 64 KiB are filled with zeros for each connection, and dockerd opens one for
/// each request.
const READ_BUFFER: usize = 4 << 10;
/// And it writes through one of this size, so that the header of an answer and a manifest behind it leave in one packet
/// train: Pingora's own 1,460 bytes make them two, and wake the client twice.
const WRITE_BUFFER: usize = 16 << 10;

/// A bound socket that is not yet served. Connections queue in the kernel meanwhile.
pub struct Listening {
    socket: OwnedFd,
    address: SocketAddr,
    name: &'static str,
}

impl Listening {
    /// Binds; port 0 takes a free one. `[::]` means every address, so on a host without IPv6 it is `0.0.0.0`.
    pub fn bind(name: &'static str, address: SocketAddr) -> io::Result<Self> {
        let listener = match TcpListener::bind(address) {
            Err(cause) if address.ip().is_unspecified() && cause.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).map_err(|_| cause)
            }
            bound => bound,
        }?;
        listener.set_nonblocking(true)?;
        Ok(Self { address: listener.local_addr()?, socket: listener.into(), name })
    }

    /// The address it really has.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The service that will accept on this socket.
    pub fn serve<A: ServerApp + Send + Sync + 'static>(self, mut service: ListeningService<A>) -> Served<A> {
        let address = self.address.to_string();
        service.add_listener(
            ListenerConfig::tcp(address.clone()).l4_buffer(L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER)),
        );
        Served { service, address, socket: Some(self.socket), name: self.name }
    }
}

/// Pingora's service with its socket ready.
pub struct Served<A> {
    service: ListeningService<A>,
    address: String,
    socket: Option<OwnedFd>,
    name: &'static str,
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> Service for Served<A> {
    async fn start_service(&mut self, fds: Option<ListenFds>, shutdown: ShutdownWatch, listeners_per_fd: usize) {
        let alive = MustNotEnd::new(self.name, shutdown.clone());
        if let (Some(fds), Some(socket)) = (&fds, self.socket.take()) {
            fds.lock().add(self.address.clone(), socket.into_raw_fd());
        }
        Service::start_service(&mut self.service, fds, shutdown, listeners_per_fd).await;
        drop(alive);
    }

    fn name(&self) -> &str {
        self.name
    }

    fn threads(&self) -> Option<usize> {
        self.service.threads
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(vec![self.address.clone()])
    }
}
