//! New connections.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::origin::Origin;

/// Two of glibc's waits for a name server.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);
/// TCP and TLS, over all addresses of a host. What takes longer is a failure and no sample.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Hosts of one run: the two sides, and the storage accounts that they redirect to.
const MAX_HOSTS: usize = 64;

/// Looks a host up, as the program that measures does everywhere else.
pub type Lookup = Arc<dyn Fn(String, u16) -> Found + Send + Sync>;
type Found = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// A connection.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Io for S {}

/// Opens a tunnel to a host, an IPv6 address in brackets, and a port; `None` if no forward proxy is on the way there. The error is
/// a sentence.
pub type Tunnels = Arc<dyn Fn(&str, u16) -> Option<Opening> + Send + Sync>;
/// A tunnel that is being opened.
pub type Opening = Pin<Box<dyn Future<Output = Result<Box<dyn Io>, String>> + Send>>;

/// The sending half of an HTTP/1.1 connection.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Opens the connections of a run. Each host is looked up once: DNS is not what is measured.
pub struct Connector {
    tls: TlsConnector,
    /// Those for one host alone, to which a certificate is presented.
    presenting: Option<(Origin, TlsConnector)>,
    /// The proxy that is measured, which no other proxy is before.
    measured: Option<Origin>,
    tunnels: Option<Tunnels>,
    lookup: Lookup,
    known: Mutex<HashMap<Origin, Arc<[SocketAddr]>>>,
}

impl Connector {
    /// With these TLS settings and this look-up.
    pub fn new(tls: ClientConfig, lookup: Lookup) -> Self {
        Self { tls: whole(tls), presenting: None, measured: None, tunnels: None, lookup, known: Mutex::default() }
    }

    /// Has these TLS settings for this host, and for no other.
    pub fn present(&mut self, origin: &Origin, tls: ClientConfig) {
        self.presenting = Some((origin.clone(), whole(tls)));
    }

    /// Goes through these tunnels to all that speaks TLS, as calls to Azure do, but not to the proxy that is measured nor to hosts
    /// with addresses of their own.
    pub fn through(&mut self, tunnels: Tunnels, measured: Option<&Origin>) {
        (self.tunnels, self.measured) = (Some(tunnels), measured.cloned());
    }

    /// The way through a forward proxy, if there is one on the way.
    fn tunnel(&self, origin: &Origin) -> Option<Opening> {
        let tunnels = self.tunnels.as_ref()?;
        if !origin.is_tls() || self.measured.as_ref() == Some(origin) || self.lock().contains_key(origin) {
            return None;
        }
        tunnels(origin.host(), origin.port())
    }

    /// Uses these addresses for a host, if there are any, and does not look it up.
    pub fn pin(&self, origin: &Origin, addresses: &[IpAddr]) {
        if !addresses.is_empty() {
            self.remember(origin, addresses.iter().map(|ip| SocketAddr::new(*ip, origin.port())).collect());
        }
    }

    /// The host's addresses, in the order of the look-up.
    pub async fn addresses(&self, origin: &Origin) -> Result<Arc<[SocketAddr]>, String> {
        if let Some(known) = self.lock().get(origin) {
            return Ok(Arc::clone(known));
        }
        let found = match timeout(LOOKUP_LIMIT, (self.lookup)(origin.server_name().to_owned(), origin.port())).await {
            Ok(Ok(found)) if found.is_empty() => return Err("DNS look-up: the name has no address".to_owned()),
            Ok(Ok(found)) => found.into(),
            Ok(Err(cause)) => return Err(format!("DNS look-up: {cause}")),
            Err(_) => return Err(format!("DNS look-up: no answer within {} s", LOOKUP_LIMIT.as_secs())),
        };
        self.remember(origin, Arc::clone(&found));
        Ok(found)
    }

    /// A new connection, and how long it took without the look-up.
    pub(super) async fn connect(&self, origin: &Origin) -> Result<(Sender, Duration), String> {
        let tunnel = self.tunnel(origin);
        let addresses = if tunnel.is_none() { self.addresses(origin).await? } else { Arc::default() };
        let begun = Instant::now();
        let connecting = async {
            if let Some(tunnel) = tunnel {
                return self.handshake(origin, tunnel.await?).await;
            }
            let mut last = "no address".to_owned();
            for address in addresses.iter() {
                match TcpStream::connect(address).await {
                    Ok(stream) => {
                        // A small request must not wait until the one before it is acknowledged.
                        let _ = stream.set_nodelay(true);
                        return self.handshake(origin, stream).await;
                    }
                    Err(cause) => last = format!("connect {address}: {cause}"),
                }
            }
            Err(last)
        };
        let sender = timeout(CONNECT_LIMIT, connecting)
            .await
            .unwrap_or_else(|_| Err(format!("connect: not done within {} s", CONNECT_LIMIT.as_secs())))?;
        Ok((sender, begun.elapsed()))
    }

    async fn handshake<S: Io + 'static>(&self, origin: &Origin, stream: S) -> Result<Sender, String> {
        if !origin.is_tls() {
            return http1(stream).await;
        }
        let name = ServerName::try_from(origin.server_name().to_owned()).map_err(|cause| format!("TLS: {cause}"))?;
        let presenting = self.presenting.as_ref().filter(|(known, _)| known == origin).map(|(_, tls)| tls);
        let connected = presenting.unwrap_or(&self.tls).connect(name, stream).await;
        http1(connected.map_err(|cause| tls_failure(&cause))?).await
    }

    fn remember(&self, origin: &Origin, addresses: Arc<[SocketAddr]>) {
        let mut known = self.lock();
        if known.len() < MAX_HOSTS {
            known.insert(origin.clone(), addresses);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Origin, Arc<[SocketAddr]>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Neither dockerd nor containerd resumes sessions: a new connection is a whole handshake.
fn whole(mut tls: ClientConfig) -> TlsConnector {
    tls.resumption = Resumption::disabled();
    TlsConnector::from(Arc::new(tls))
}

/// A failed handshake. That of a private CA, which is no fault of the host's, has the flag for it.
fn tls_failure(cause: &io::Error) -> String {
    let fault = cause.get_ref().and_then(|cause| cause.downcast_ref());
    let advice = match fault {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            "its certificate is not trusted: name its CA with --ca-file: "
        }
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => unusable(&format!("{other:?}")),
        _ => "",
    };
    format!("TLS: {advice}{cause}")
}

/// What to do about a certificate that is for no server, by the words of webpki, whose type this crate does not have.
fn unusable(other: &str) -> &'static str {
    if other.contains("UnsupportedCertVersion") {
        "its certificate is one of X.509 version 1: issue it there with extensions: "
    } else if other.contains("CaUsedAsEndEntity") {
        "its certificate is a CA's own: issue another one for it there, with CA:FALSE: "
    } else {
        ""
    }
}

async fn http1<S: Io + 'static>(stream: S) -> Result<Sender, String> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|cause| cause.to_string())?;
    // It ends with its sender or with the peer; a request under way then fails.
    tokio::spawn(connection);
    Ok(sender)
}
