//! The same addresses for reqwest, which makes the calls of the sign-in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{Addresses, LOOKUP_LIMIT, Names};

/// How long a call waits for its name before it fails and says so. Requests wait 10 s for a token by default, and are to
/// be told why there is none; the look-up goes on, and the next call has its answer.
pub(crate) const CALL_WAIT: Duration = Duration::from_secs(9);

/// Resolves by a table of names.
pub(crate) struct Resolver(pub Arc<Names>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        addresses_of(self.0.get(name.as_str(), 0))
    }
}

/// Resolves every name as one registry's, by the addresses that pulls go to.
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

/// One call to a name: its end tells something of the addresses.
pub(crate) struct Call {
    addresses: Arc<Addresses>,
    first: Option<SocketAddr>,
}

impl Addresses {
    /// A call begins.
    pub(crate) fn call(self: &Arc<Self>) -> Call {
        Call { addresses: Arc::clone(self), first: self.first() }
    }
}

impl Call {
    /// It has an answer: the address that gave it goes first.
    pub(crate) fn answered(&self, answer: &reqwest::Response) {
        if let Some(address) = answer.remote_addr() {
            self.addresses.connected(SocketAddr::new(address.ip(), self.addresses.port));
        }
    }

    /// It has none. No connection and no answer in time count against the address that went first: reqwest does not say
    /// which one it was.
    pub(crate) fn failed(&self, cause: reqwest::Error) -> reqwest::Error {
        if let Some(first) = self.first.filter(|_| cause.is_connect() || cause.is_timeout()) {
            self.addresses.failed(first);
        }
        cause
    }
}
