//! The same addresses for reqwest, which makes the calls of the sign-in; the result of each call improves their order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{Addresses, LOOKUP_LIMIT, Names, Way};

/// How long a call waits for the look-up of its host before it fails. Requests wait 10 s for a token by default, so this is
/// shorter: they are told the reason. The look-up goes on, and the next call uses its result.
const CALL_WAIT: Duration = Duration::from_secs(9);

/// Resolves host names by a table.
pub(crate) struct Resolver(pub Arc<Names>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        addresses_of(self.0.get(name.as_str(), 0))
    }
}

/// Resolves every name to these addresses: of the one registry, which pulls use as well, or of the proxy before it.
pub(crate) struct Single(pub Arc<Addresses>);

impl Resolve for Single {
    fn resolve(&self, _: Name) -> Resolving {
        addresses_of(Arc::clone(&self.0))
    }
}

fn addresses_of(addresses: Arc<Addresses>) -> Resolving {
    Box::pin(async move {
        addresses.resolve(LOOKUP_LIMIT).await?;
        Ok(Box::new(addresses.all().into_iter()) as Addrs)
    })
}

/// A call to a host: its result is recorded for the address that was used.
pub(crate) struct TrackedCall {
    addresses: Arc<Addresses>,
    /// `None` if it is a proxy's: what fails may be behind it.
    first: Option<SocketAddr>,
}

impl Way {
    /// Begins to track a call.
    pub(crate) fn track_call(&self) -> TrackedCall {
        let first = self.addresses().first().filter(|_| self.tunnel().is_none());
        TrackedCall { addresses: Arc::clone(self.addresses()), first }
    }

    /// Before a call: makes sure that there are addresses. The error is a sentence.
    pub(crate) async fn resolve(&self) -> Result<(), String> {
        let resolved = self.addresses().resolve(CALL_WAIT).await;
        resolved.map_err(|unresolved| match self.unresolved() {
            Some(no_tunnel) => format!("{no_tunnel}: {unresolved}"),
            None => unresolved.to_string(),
        })
    }
}

impl TrackedCall {
    /// There is a response: its address is tried first from now on.
    pub(crate) fn answered(&self, response: &reqwest::Response) {
        if let Some(address) = response.remote_addr() {
            self.addresses.connected(SocketAddr::new(address.ip(), self.addresses.port));
        }
    }

    /// There is no response. A failed connection or a timeout counts as a failure of the address that was tried first,
    /// because reqwest does not tell which one it used.
    pub(crate) fn failed(&self, cause: reqwest::Error) -> reqwest::Error {
        if let Some(first) = self.first.filter(|_| cause.is_connect() || cause.is_timeout()) {
            self.addresses.failed(first);
        }
        cause
    }
}
