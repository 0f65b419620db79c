//! The way to one host, before anything is asked there: its name, a connection or a tunnel, TLS.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pingora_core::connectors::L4Connect as _;
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora_core::protocols::l4::stream::Stream;

use super::certificate;
use super::report::{Hop, Value};
use super::steps::{Finding, Steps, Works};
use crate::net::NO_CONNECTION;
use crate::net::addresses::{Connect, Way};
use crate::net::trust::TrustRoots;
use crate::net::tunnel::Why;
use crate::proxy::Trouble;

/// glibc waits 5 s for a name server before it asks again: one packet may be lost.
const LOOKUP_LIMIT: Duration = Duration::from_secs(6);
/// A certificate that ends within this should have been renewed by now.
const ENDS_SOON: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A host on the way.
pub(super) struct Server<'a> {
    pub way: &'a Way,
    /// What its certificate has to be for.
    pub name: &'a str,
    /// It is storage.
    pub is_storage: bool,
    /// Pulls go on without it, as far as this host knows.
    pub only_warns: bool,
}

impl Server<'_> {
    /// The hops to it.
    pub(super) fn hops(&self) -> Vec<Hop> {
        match (self.way.tunnel().is_some(), self.is_storage) {
            (false, false) => vec![Hop::Dns, Hop::Tcp, Hop::Tls],
            (true, false) => vec![Hop::Egress, Hop::Tls],
            (false, true) => vec![Hop::StorageDns, Hop::StorageTcp, Hop::StorageTls],
            (true, true) => vec![Hop::StorageEgress, Hop::StorageTls],
        }
    }

    /// Tries them. True if the host is reached.
    pub(super) async fn reach(&self, steps: &mut Steps, roots: &TrustRoots) -> bool {
        let hops = self.hops();
        let done = steps.lines.len();
        if self.go(&hops, steps, roots).await.is_some() {
            return true;
        }
        let tried = steps.lines.len() - done;
        steps.skip(hops.into_iter().skip(tried));
        false
    }

    async fn go(&self, hops: &[Hop], steps: &mut Steps, roots: &TrustRoots) -> Option<()> {
        let [looked_up @ .., connected, secured] = hops else { return None };
        for hop in looked_up {
            steps.step(*hop, self.look_up()).await?;
        }
        let connection = async {
            if self.way.tunnel().is_some() {
                self.look_up().await?;
            }
            self.connect().await
        };
        let stream = steps.step(*connected, connection).await?;
        steps.step(*secured, self.secure(stream, roots)).await
    }

    fn failed(&self, text: String) -> Finding {
        let finding = Finding::failed(text);
        if self.only_warns { finding.only_warns() } else { finding }
    }

    async fn look_up(&self) -> Result<Works<()>, Finding> {
        let addresses = self.way.addresses();
        addresses.resolve(LOOKUP_LIMIT).await.map_err(|unresolved| {
            self.failed(match self.way.unresolved() {
                Some(no_tunnel) => format!("{no_tunnel}: {unresolved}"),
                None => unresolved.to_string(),
            })
        })?;
        let found: Vec<_> = addresses.all().iter().map(|address| address.ip().to_string()).collect();
        Ok(Works::new((), found.join(", ")))
    }

    async fn connect(&self) -> Result<Works<Stream>, Finding> {
        let storage = self.is_storage.then_some(self.name);
        let connect = Connect::new(self.way).ok_or_else(|| self.failed(Trouble::unresolved(self.way).to_string()))?;
        let stream = connect.connect(&PeerAddr::Inet(connect.first())).await.map_err(|error| {
            let addresses: Vec<_> = self.way.addresses().all().iter().map(ToString::to_string).collect();
            self.failed(match Trouble::of_call(&error.into_up(), storage) {
                Trouble::Unreachable(cause) => format!("{NO_CONNECTION}: {cause}: {}", addresses.join(", ")),
                Trouble::Storage(text) if self.way.tunnel().is_none() => {
                    format!("{text}: {}: open this host's way to it", addresses.join(", "))
                }
                trouble => trouble.to_string(),
            })
        })?;
        let text = match self.way.tunnel() {
            None => connect.address().to_string(),
            Some(tunnel) => format!("a tunnel by {}, of {}", tunnel.proxy().name, tunnel.proxy().setting),
        };
        Ok(Works::new(stream, text))
    }

    async fn secure(&self, stream: Stream, roots: &TrustRoots) -> Result<Works<()>, Finding> {
        let (version, certificate) =
            certificate::shake_hands(stream, self.name, roots).await.map_err(|wrong| match self.way.tunnel() {
                Some(tunnel) => self.failed(tunnel.refused(Why::Behind(wrong)).to_string()),
                None => self.failed(wrong),
            })?;
        let Some(certificate) = certificate else { return Ok(Works::new((), version)) };
        let end = certificate.not_after;
        let is_ending = end.duration_since(SystemTime::now()).unwrap_or_default() < ENDS_SOON;
        let seconds = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let advice = if is_ending { ": it ends soon, and who runs the host has to renew it" } else { "" };
        Ok(Works {
            value: Some(Value::CertificateEnds(seconds)),
            is_doubtful: is_ending,
            ..Works::new((), format!("{version}, {certificate}{advice}"))
        })
    }
}
