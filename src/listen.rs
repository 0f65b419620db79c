//! Clients' connections: accepted, read within bounds, handed to Pingora request by request, and drained at the end.

pub(crate) mod bind;
pub(crate) mod certificate;
pub(crate) mod descriptors;
pub(crate) mod drain;
pub(crate) mod exit;
pub(crate) mod http;
pub(crate) mod inherited;
pub(crate) mod listener;
pub(crate) mod opening;
pub(crate) mod set;
pub(crate) mod signal;
pub(crate) mod tls;

mod connection;
mod fields;
mod frames;
mod h2;
mod header;
mod near_timer;
mod pace;
mod places;
mod refusal;
mod sessions;
mod socket;
mod unsent;

#[cfg(feature = "hot-path")]
pub(crate) use {connection::Connection, socket::Socket};

use std::sync::Arc;

use crate::load::{Limit, Load};

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Pulls of container clients.
    Clients,
    /// Health and readiness.
    Admin,
}

impl Kind {
    /// As the log names such a listener.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Clients => "the listener",
            Self::Admin => "the admin listener",
        }
    }

    /// The limit that connections of all such listeners share.
    pub(crate) fn connections(self, load: &Load) -> &Arc<Limit> {
        match self {
            Self::Clients => &load.connections,
            Self::Admin => &load.admin_connections,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    /// Both ends of a connection: the server's and the client's.
    pub(super) async fn tcp() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        (listener.accept().await.expect("accepted").0, client)
    }
}
