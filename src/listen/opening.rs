//! How a connection opens, before its first request: the header of the PROXY protocol, then TLS, as its listener has it.
//! One limit of time is over all of it.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::server::ShutdownWatch;
use proxy_protocol::Wrong;
use rustls::CertificateError;
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::server::TlsStream;

use super::certificate::TlsError;
use super::connection::{Connection, Stream};
use super::http::Speaks;
use super::refusal::{self, NoRequest};
use super::socket::Socket;
use super::tls::{Revocation, Secured, Tls};
use crate::access::{Denial, Gate, Networks, Place};
use crate::config::Listener;
use crate::load::Load;
use crate::load::opening::{Handshake, RefusedProxyHeader};
use crate::net::certificate::Wrong as OfCertificate;
use crate::proxy;

/// From when a connection is accepted until its first request may come. A header is one packet and a handshake two round
/// trips; with two packets lost, that is some seconds.
const OPENING_LIMIT: Duration = Duration::from_secs(10);
/// Read at once: a header with the first bytes behind it, or a client's hello, most of them whole.
const READ_SIZE: usize = 1 << 10;
/// The first byte of a TLS handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// What a listener asks of each connection. It is replaced as a whole, and connections go on by the one they began with.
pub(crate) struct Opening {
    /// Who has to send the PROXY protocol's header, where the listener has it.
    pub proxy_protocol: Option<Networks>,
    /// TLS, where the listener has it.
    pub tls: Option<Arc<Tls>>,
    /// Set when other settings have taken this one's place, and when the listener is closed.
    ended: watch::Sender<bool>,
}

/// A connection that is ready for requests.
pub(super) enum Opened<S: Stream> {
    Plain(Box<Connection<Socket<S>>>),
    /// Its client has been let in, as far as that depends on its address.
    Tls(Box<Connection<TlsStream<Socket<S>>>>, Speaks, Revocation, Option<Arc<Place>>),
}

/// Why a handshake has come to nothing; prints as the access line's error.
enum NoTls {
    Failed(io::Error),
    TooSlow,
    TooMany,
    /// As many of its client as one may have.
    TooManyOfClient,
}

impl NoTls {
    /// What it counts as.
    fn result(&self) -> Handshake {
        let cause = match self {
            Self::Failed(cause) => cause,
            Self::TooSlow => return Handshake::TooSlow,
            Self::TooMany | Self::TooManyOfClient => return Handshake::TooMany,
        };
        match cause.get_ref().and_then(|cause| cause.downcast_ref()) {
            Some(rustls::Error::NoCertificatesPresented) => Handshake::NoCertificate,
            Some(rustls::Error::InvalidCertificate(_)) => Handshake::BadCertificate,
            Some(rustls::Error::AlertReceived(_)) => Handshake::RefusedByClient,
            Some(_) => Handshake::Failed,
            // What the system says of the connection.
            None => Handshake::ClientLeft,
        }
    }
}

/// What a client's certificate is that was issued for no client, and what to do. rustls shows it in words for programmers.
fn unusable(wrong: &CertificateError) -> Option<&'static str> {
    match OfCertificate::of(wrong) {
        OfCertificate::VersionOne => Some("one of X.509 version 1: issue it with extensions"),
        OfCertificate::OfAuthority => Some("a CA's own: issue another one, with CA:FALSE"),
        _ => None,
    }
}

impl fmt::Display for NoTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("TLS handshake: client left")
            }
            Self::Failed(cause) => match cause.get_ref().and_then(|cause| cause.downcast_ref()) {
                Some(rustls::Error::NoCertificatesPresented) => {
                    f.write_str("TLS handshake: the client has no certificate, and client_auth is required")
                }
                Some(rustls::Error::AlertReceived(alert)) => {
                    write!(f, "TLS handshake: the client refuses the server's certificate or TLS version: {alert:?}")
                }
                Some(rustls::Error::InvalidCertificate(wrong)) if let Some(what) = unusable(wrong) => {
                    write!(f, "TLS handshake: the client's certificate is {what}")
                }
                _ => write!(f, "TLS handshake: {cause}"),
            },
            Self::TooSlow => f.write_str("TLS handshake: it has not ended in time"),
            Self::TooMany => f.write_str("TLS handshake: too many are under way"),
            Self::TooManyOfClient => f.write_str("TLS handshake: this client has too many under way"),
        }
    }
}

impl Opening {
    /// What the settings say. The certificates are read.
    pub(crate) fn load(listener: &Listener) -> Result<Self, TlsError> {
        let tls = listener.tls.as_ref().map(Tls::load).transpose()?;
        let proxy_protocol = listener.proxy_protocol.clone();
        Ok(Self { proxy_protocol, tls: tls.map(Arc::new), ended: watch::Sender::new(false) })
    }

    /// Takes what the files of the same settings said when `read` was made of them. Whether that is new.
    pub(super) fn take_files(&self, listener: &str, read: Self) -> bool {
        let read = self.tls.as_ref().zip(read.tls.and_then(Arc::into_inner));
        read.is_some_and(|(tls, read)| tls.take(listener, read))
    }

    /// Ends the connections that began by this one, after the requests under way. `next` has taken its place; without it the
    /// listener is closed.
    pub(super) fn end(&self, next: Option<&Self>) {
        self.ended.send_replace(true);
        let Some(tls) = &self.tls else { return };
        tls.close();
        if let Some(next) = next {
            tls.revoke_removed(next.tls.as_deref());
        }
    }

    /// What tells a connection that it is to end.
    pub(super) fn ended(&self) -> ShutdownWatch {
        self.ended.subscribe()
    }

    /// Whether the first bytes of all connections are a request's.
    pub(super) fn is_plain(&self) -> bool {
        self.proxy_protocol.is_none() && self.tls.is_none()
    }

    /// Opens a connection of this peer. What is refused was answered as far as that is possible, counted and logged.
    pub(super) async fn open<S: Stream + AsFd>(&self, stream: S, peer: SocketAddr, load: &Load) -> Option<Opened<S>> {
        let begun = Instant::now();
        let deadline = begun + OPENING_LIMIT;
        let mut socket = Socket::new(stream, load.gate.bounds().reader_rate);
        let mut client = peer;
        let mut bytes = BytesMut::new();
        if self.proxy_protocol.as_ref().is_some_and(|trusted| covers(trusted, &client)) {
            let header = timeout_at(deadline, read_header(&mut socket, &mut bytes)).await;
            match header.unwrap_or(Err(Some(RefusedProxyHeader::TooSlow))) {
                Ok(Some(source)) => client = source.into(),
                Ok(None) => {}
                // It has sent nothing, as a check of the port does.
                Err(_) if bytes.is_empty() => return None,
                Err(why) => {
                    let why = why.unwrap_or(RefusedProxyHeader::Malformed);
                    self.refuse_header(&mut socket, &client, why, begun, load).await;
                    return None;
                }
            }
        }
        let Some(tls) = &self.tls else {
            socket.unread(bytes);
            return Some(Opened::Plain(Box::new(Connection::new(socket, client))));
        };
        // Before the handshake, which costs a hundred times as much.
        let place = match load.gate.connect(client.as_inet().map(|client| client.ip())) {
            Ok(place) => place,
            Err(denial) => {
                deny(&mut socket, &bytes, &client, denial, begun, load).await;
                return None;
            }
        };
        if bytes.is_empty() {
            match timeout_at(deadline, read(&mut socket, &mut bytes)).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) => return None,
                Err(_) => {
                    refuse_handshake(&NoTls::TooSlow, &client, begun, load);
                    return None;
                }
            }
        }
        if bytes.first() != Some(&TLS_HANDSHAKE) {
            if proxy_protocol::is_begun(&bytes) {
                self.refuse_header(&mut socket, &client, RefusedProxyHeader::Untrusted, begun, load).await;
            } else {
                load.openings.handshake(Handshake::NotTls);
                let refusal = NoRequest::NotTls.refusal();
                proxy::log_refused_header(client.as_inet().copied(), None, &refusal, begun.elapsed());
                refusal::refuse(&mut socket, NoRequest::NotTls).await;
            }
            return None;
        }
        socket.unread(bytes);
        match shake_hands(tls, socket, place.as_deref(), deadline, load).await {
            Ok(secured) => {
                load.openings.handshake(Handshake::Ok);
                let speaks = if secured.speaks_h2 { Speaks::Http2 } else { Speaks::Http1 };
                let connection = Connection::secured(secured.stream, client, secured.peer);
                Some(Opened::Tls(Box::new(connection), speaks, secured.revocation, place))
            }
            Err(why) => {
                refuse_handshake(&why, &client, begun, load);
                None
            }
        }
    }

    /// A client of TLS would not understand an answer, so it gets none, and the log says so.
    async fn refuse_header<S: Stream>(
        &self,
        socket: &mut Socket<S>,
        client: &SocketAddr,
        why: RefusedProxyHeader,
        begun: Instant,
        load: &Load,
    ) {
        load.openings.refuse_proxy_header(why);
        let why = NoRequest::ProxyHeader(why);
        let (client, refusal) = (client.as_inet().copied(), why.refusal());
        if self.tls.is_some() {
            proxy::log_no_answer(client, refusal.message(), begun.elapsed());
        } else {
            proxy::log_refused_header(client, None, &refusal, begun.elapsed());
            refusal::refuse(socket, why).await;
        }
    }
}

/// The handshake with a client that has this place, if there is room for one more.
async fn shake_hands<S: Stream>(
    tls: &Tls,
    socket: Socket<S>,
    place: Option<&Place>,
    deadline: Instant,
    load: &Load,
) -> Result<Secured<Socket<S>>, NoTls> {
    let guard = load.handshakes.enter();
    let own = place.map(|place| Gate::shake_hands(place, guard.left()));
    if guard.excess() > 0 {
        Err(NoTls::TooMany)
    } else if let Some(None) = own {
        Err(NoTls::TooManyOfClient)
    } else {
        match timeout_at(deadline, tls.accept(socket)).await {
            Ok(secured) => secured.map_err(NoTls::Failed),
            Err(_) => Err(NoTls::TooSlow),
        }
    }
}

/// The peer of a Unix socket counts as trusted: who may connect is decided by the permissions of its file.
fn covers(trusted: &Networks, peer: &SocketAddr) -> bool {
    peer.as_inet().is_none_or(|peer| trusted.contains(peer.ip()))
}

/// Ends the connection of a client that is not let in, with an alert of TLS for as many at once as are told why. `hello` is what
/// has come of its handshake.
async fn deny<S: Stream>(
    socket: &mut Socket<S>,
    hello: &[u8],
    client: &SocketAddr,
    denial: Denial,
    begun: Instant,
    load: &Load,
) {
    let client = client.as_inet().copied();
    if load.gate.may_be_logged(client.map(|client| client.ip()), std::time::Instant::now()) {
        proxy::log_no_answer(client, &denial.to_string(), begun.elapsed());
    }
    if let Some(_answer) = load.gate.answer() {
        refusal::alert(socket, NoRequest::Denied(denial), hello.is_empty()).await;
    }
}

fn refuse_handshake(why: &NoTls, client: &SocketAddr, begun: Instant, load: &Load) {
    load.openings.handshake(why.result());
    proxy::log_no_answer(client.as_inet().copied(), &why.to_string(), begun.elapsed());
}

/// Reads a header, and leaves what has come behind it in `bytes`. `Err(None)` is the end of the connection amid one.
async fn read_header<S: Stream>(
    socket: &mut Socket<S>,
    bytes: &mut BytesMut,
) -> Result<Option<std::net::SocketAddr>, Option<RefusedProxyHeader>> {
    loop {
        if read(socket, bytes).await.unwrap_or_default() == 0 {
            return Err(None);
        }
        match proxy_protocol::parse(bytes) {
            Ok(Some(header)) => {
                bytes.advance(header.length);
                return Ok(header.client);
            }
            Ok(None) => {}
            Err(Wrong::Missing) => return Err(Some(RefusedProxyHeader::Missing)),
            Err(Wrong::TooLong) => return Err(Some(RefusedProxyHeader::TooLong)),
            Err(Wrong::Malformed) => return Err(Some(RefusedProxyHeader::Malformed)),
        }
    }
}

/// Appends what has come, [`READ_SIZE`] at most.
async fn read<S: Stream>(socket: &mut Socket<S>, bytes: &mut BytesMut) -> io::Result<usize> {
    bytes.reserve(READ_SIZE);
    let mut part = socket.take(READ_SIZE as u64);
    part.read_buf(bytes).await
}
