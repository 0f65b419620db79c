//! TLS to the forward proxy itself, and how what goes through it comes to Pingora.
//!
//! Pingora takes a stream of one's own (`VirtualSocketStream`), but keeps none for the next request: before it uses a kept
//! connection again it asks the socket for its peer, and such a stream has no socket. So it gets one end of a pair of Unix
//! sockets, and a task moves the bytes between the other end and TLS. Whatever Pingora does to a socket works: to look whether
//! it still stands, to keep it, and to shut it down at a deadline.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pingora_core::protocols::l4::ext::set_tcp_keepalive;
use pingora_core::protocols::l4::stream::Stream;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncWriteExt as _, BufReader, copy, split};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Tunnel, Why};
use crate::net::addresses::keepalive;
use crate::net::certificate::{Wrong, of_tls};
use crate::net::is_silence;

/// To tell the proxy that the connection ends.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);
/// What comes behind the head of an answer and has been read with it. Larger reads pass it by.
const BUFFER: usize = 1 << 10;

/// A connection to the proxy over TLS. What has been read of it and not used is kept.
pub(crate) type Secured = BufReader<TlsStream<TcpStream>>;

/// How TLS is spoken to a proxy.
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    /// Of its certificate.
    name: ServerName<'static>,
    /// How often connections to it have ended in silence.
    silences: AtomicU32,
}

impl Tls {
    /// To the proxy of this name. Without ALPN, as reqwest and curl's default have it: nothing but HTTP/1.1 is spoken.
    pub(crate) fn new(config: ClientConfig, name: ServerName<'static>) -> Self {
        Self { config: Arc::new(config), name, silences: AtomicU32::new(0) }
    }

    /// Speaks TLS on a new connection to the proxy.
    pub(super) async fn handshake(&self, stream: TcpStream) -> Result<Secured, Why> {
        // What Pingora does to a socket of its own. An error is one of the connection, which the handshake meets as well.
        let _ = stream.set_nodelay(true);
        let _ = set_tcp_keepalive(&stream, &keepalive());
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(self.name.clone(), stream).await.map_err(|cause| failed(&cause))?;
        Ok(BufReader::with_capacity(BUFFER, stream))
    }

    /// Changes when a connection has stopped without a word. Those that were made before are not used again, as with
    /// `proxy::epoch`, which cannot see what breaks behind a pair of sockets.
    pub(super) fn silences(&self) -> u32 {
        self.silences.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The end of a pair of sockets, of which the other end is the tunnel.
pub(super) fn relayed(secured: Secured, tunnel: &Tunnel) -> io::Result<Stream> {
    let (ours, pingoras) = UnixStream::pair()?;
    tokio::spawn(relay(secured, ours, tunnel.clone()));
    Ok(pingoras.into())
}

/// Moves bytes until either side ends: Pingora ends its side only where it wants no more of the other.
async fn relay(secured: Secured, mut local: UnixStream, tunnel: Tunnel) {
    let Some(tls) = &tunnel.proxy.tls else { return };
    let known = tls.silences();
    let (mut from_proxy, mut to_proxy) = split(secured);
    let ended = {
        let (mut from_here, mut to_here) = local.split();
        tokio::select! {
            sent = copy(&mut from_here, &mut to_proxy) => sent,
            received = copy(&mut from_proxy, &mut to_here) => received,
        }
    };
    if ended.is_err_and(|cause| is_silence(&cause)) {
        // Several that notice together count as one.
        let next = known.wrapping_add(1);
        let _ = tls.silences.compare_exchange(known, next, Ordering::Relaxed, Ordering::Relaxed);
    }
    // Pingora is told first.
    drop(local);
    let _ = timeout(GOODBYE_LIMIT, to_proxy.shutdown()).await;
}

/// The handshake has failed. The words never quote what was on the wire.
fn failed(cause: &io::Error) -> Why {
    let Some(wrong) = of_tls(cause) else {
        return Why::Handshake(
            match cause.kind() {
                ErrorKind::UnexpectedEof => "it closed the connection",
                _ => "the connection broke",
            }
            .to_owned(),
        );
    };
    match wrong {
        rustls::Error::InvalidCertificate(wrong) => Why::Certificate(untrusted(Wrong::of(wrong))),
        rustls::Error::AlertReceived(alert) => Why::Handshake(format!("it answers with the alert {alert:?}")),
        rustls::Error::InvalidMessage(_) => Why::Handshake("what it answers is not TLS".to_owned()),
        rustls::Error::PeerIncompatible(_) => Why::Handshake("it has no TLS 1.2 or 1.3 that fits".to_owned()),
        _ => Why::Handshake("it breaks off".to_owned()),
    }
}

/// The proxy is most often run by who reads this, so some words are others than of a registry.
fn untrusted(wrong: Wrong) -> &'static str {
    match wrong {
        Wrong::UnknownIssuer => wrong.remedy(),
        Wrong::OtherName => "it is for other names: give the proxy by one of them",
        Wrong::Expired => "it has expired: renew it there, or correct this host's clock",
        Wrong::NotYet => "it is not valid yet: correct the clock of this host or of the proxy's",
        Wrong::Revoked => "it is revoked",
        Wrong::VersionOne => "it is one of X.509 version 1: issue it anew, with extensions",
        Wrong::OfAuthority => "it is a CA's own: issue another one, with CA:FALSE",
        Wrong::Unusable => "it is not one that TLS can use",
    }
}

/// The connection to the proxy has broken before its answer was there. A server that wants a client's certificate says so only
/// after a handshake of TLS 1.3.
pub(super) fn broke(cause: &io::Error) -> Why {
    if of_tls(cause).is_some() { failed(cause) } else { Why::Closed }
}

#[cfg(test)]
mod tests;
