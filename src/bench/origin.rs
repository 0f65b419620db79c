//! Who is asked: scheme, host and port, and their addresses.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use crate::config::Domain;

/// As in [`crate::net::addresses`]: two of glibc's waits.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);
/// Hosts of one run: the two sides, and the storage accounts that they redirect to.
const MAX_HOSTS: usize = 64;

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    tls: bool,
    /// An IPv6 address in brackets.
    host: String,
    port: u16,
}

impl Origin {
    /// The registry: over TLS, whatever anyone says.
    pub fn registry(domain: &Domain) -> Self {
        Self { tls: true, host: domain.host().to_owned(), port: domain.port() }
    }

    /// `http://host[:port]` or `https://…`, and what follows it, `/` if nothing does. `None` if it is not of that form.
    pub fn parse_url(url: &str) -> Option<(Self, String)> {
        let uri: http::Uri = url.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let port = match authority.port() {
            Some(port) => port.as_str().parse().ok().filter(|port| *port != 0)?,
            None => Self::usual_port(tls),
        };
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        // A data endpoint's address may have a query and no path.
        let slash = if target.starts_with('/') { "" } else { "/" };
        Some((Self { tls, host: authority.host().to_ascii_lowercase(), port }, format!("{slash}{target}")))
    }

    fn usual_port(tls: bool) -> u16 {
        if tls { 443 } else { 80 }
    }

    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// What the certificate has to be for.
    pub fn server_name(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// What goes into `Host`.
    pub fn authority(&self) -> String {
        if self.port == Self::usual_port(self.tls) { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// Addresses, looked up once for each host: DNS is not what is measured.
#[derive(Default)]
pub struct Resolver {
    known: Mutex<HashMap<Origin, Arc<[SocketAddr]>>>,
}

impl Resolver {
    /// Uses these addresses instead of DNS.
    pub fn fix(&self, origin: &Origin, addresses: &[IpAddr]) {
        if !addresses.is_empty() {
            self.keep(origin, addresses.iter().map(|ip| SocketAddr::new(*ip, origin.port)).collect());
        }
    }

    /// The host's addresses, in the resolver's order.
    pub async fn addresses(&self, origin: &Origin) -> Result<Arc<[SocketAddr]>, String> {
        if let Some(known) = self.lock().get(origin) {
            return Ok(Arc::clone(known));
        }
        let lookup = tokio::net::lookup_host((origin.server_name(), origin.port));
        let found: Arc<[SocketAddr]> = match timeout(LOOKUP_LIMIT, lookup).await {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(cause)) => return Err(format!("DNS look-up: {cause}")),
            Err(_) => return Err(format!("DNS look-up: no answer within {} s", LOOKUP_LIMIT.as_secs())),
        };
        if found.is_empty() {
            return Err("DNS look-up: the name has no address".to_owned());
        }
        self.keep(origin, Arc::clone(&found));
        Ok(found)
    }

    fn keep(&self, origin: &Origin, addresses: Arc<[SocketAddr]>) {
        let mut known = self.lock();
        if known.len() < MAX_HOSTS {
            known.insert(origin.clone(), addresses);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Origin, Arc<[SocketAddr]>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_in_their_forms() {
        for (url, shown, path) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", "/"),
            (
                "https://X.blob.core.windows.net:443/a//b?sig=c%2Fd",
                "https://x.blob.core.windows.net",
                "/a//b?sig=c%2Fd",
            ),
            ("https://x.westeurope.data.azurecr.io?r=a/b&s=c", "https://x.westeurope.data.azurecr.io", "/?r=a/b&s=c"),
            ("http://[::1]:80/", "http://[::1]", "/"),
        ] {
            let (origin, rest) = Origin::parse_url(url).expect(url);
            assert_eq!((origin.to_string().as_str(), rest.as_str()), (shown, path), "{url}");
        }
        for url in ["127.0.0.1:8080", "ftp://a/", "http://", "http://a:0/", "http://user:pw@a/", "/v2/", "http://a b/"]
        {
            assert!(Origin::parse_url(url).is_none(), "{url}");
        }
    }
}
