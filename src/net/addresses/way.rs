//! How a host is reached: by its own addresses, or through a tunnel by those of a forward proxy.

use std::sync::Arc;

use super::Addresses;
use crate::net::tunnel::{NoTunnel, Tunnel, Why};

/// The way to one host.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// What is connected to: the host, or the proxy.
    addresses: Arc<Addresses>,
    tunnel: Option<Tunnel>,
}

impl Way {
    /// To the host's own addresses.
    pub(crate) fn direct(addresses: Arc<Addresses>) -> Self {
        Self { addresses, tunnel: None }
    }

    /// Through a tunnel, by the addresses of its proxy.
    pub(crate) fn through(tunnel: Tunnel, addresses: Arc<Addresses>) -> Self {
        Self { addresses, tunnel: Some(tunnel) }
    }

    /// What is connected to.
    pub(crate) fn addresses(&self) -> &Arc<Addresses> {
        &self.addresses
    }

    /// What is asked for there, if the host is behind a proxy.
    pub(crate) fn tunnel(&self) -> Option<&Tunnel> {
        self.tunnel.as_ref()
    }

    /// The failure of a host without an address; `None` if it is the host's own name that has none.
    pub(crate) fn unresolved(&self) -> Option<NoTunnel> {
        self.tunnel.as_ref().map(|tunnel| tunnel.refused(Why::Unresolved))
    }
}
