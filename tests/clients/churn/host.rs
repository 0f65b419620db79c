//! The load: hosts with an address of their own each, which pull as engines do, and the two that are refused.
//!
//! A request on a kept connection that ends before anything of the answer has come is sent once more, on a new connection, as Go's
//! HTTP client does for all engines. Any other end is a failed pull, and so is content that does not have its digest.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use testkit::PATIENCE;
use testkit::certificates::Authority;
use testkit::wire::{self, Whole};

use super::Image;
use super::balancer::Lane;
use crate::hub::TAG;

const ACCEPT: &str = "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json\r\n";
trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection from this address.
pub(super) fn connect_from(source: Ipv4Addr, to: SocketAddrV4) -> io::Result<TcpStream> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(source, 0)))?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(to))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What a client needs for TLS; the one protocol is HTTP/1.1.
pub(super) fn trust(ca: &Authority) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).expect("PEM")).expect("a CA");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A TLS session before its handshake.
pub(super) fn secure(
    trust: &Arc<ClientConfig>,
    to: SocketAddrV4,
    stream: TcpStream,
) -> StreamOwned<ClientConnection, TcpStream> {
    StreamOwned::new(ClientConnection::new(Arc::clone(trust), IpAddr::V4(*to.ip()).into()).expect("settings"), stream)
}

type Connection = BufReader<Box<dyn Stream>>;

enum Trouble {
    /// The connection has ended before anything of the answer.
    NothingYet(io::Error),
    Other(io::Error),
}

/// One host.
pub(super) struct Host {
    pub source: Ipv4Addr,
    pub lane: Lane,
    trust: Arc<ClientConfig>,
    kept: Option<Connection>,
    /// Requests that were answered, and those that were sent again.
    pub answers: usize,
    pub repeated: usize,
}

impl Host {
    pub(super) fn new(source: Ipv4Addr, lane: Lane, trust: &Arc<ClientConfig>) -> Self {
        Self { source, lane, trust: Arc::clone(trust), kept: None, answers: 0, repeated: 0 }
    }

    /// The next request is on a new connection.
    pub(super) fn disconnect(&mut self) {
        self.kept = None;
    }

    fn connect(&self) -> io::Result<Connection> {
        let stream = connect_from(self.source, self.lane.address)?;
        let stream: Box<dyn Stream> =
            if self.lane.has_tls { Box::new(secure(&self.trust, self.lane.address, stream)) } else { Box::new(stream) };
        Ok(BufReader::new(stream))
    }

    /// One request and its answer. The error names it.
    pub(super) fn ask(&mut self, method: &str, path: &str) -> Result<Whole, String> {
        let error = |cause: io::Error| format!("{} from {}: {method} {path}: {cause}", self.lane.name, self.source);
        let outcome = match self.kept.take().map(|kept| exchange(kept, method, path)) {
            Some(Err(Trouble::NothingYet(_))) => {
                self.repeated += 1;
                exchange(self.connect().map_err(error)?, method, path)
            }
            Some(outcome) => outcome,
            None => exchange(self.connect().map_err(error)?, method, path),
        };
        let (answer, kept) = outcome.map_err(|trouble| match trouble {
            Trouble::NothingYet(cause) => error(io::Error::other(format!("no answer: {cause}"))),
            Trouble::Other(cause) => error(cause),
        })?;
        self.kept = kept;
        self.answers += 1;
        Ok(answer)
    }

    /// A request whose answer has this status.
    fn expect(&mut self, method: &str, path: &str, status: u16) -> Result<Whole, String> {
        let answer = self.ask(method, path)?;
        if answer.status() == status {
            return Ok(answer);
        }
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        Err(format!("{} from {}: {method} {path}: {}\n{body}", self.lane.name, self.source, answer.head.head))
    }

    /// What an engine reads of an image: the tag, the index, a manifest, configuration and layers.
    pub(super) fn pull(&mut self, image: &Image) -> Result<(), String> {
        let path = |kind: &str, of: &str| format!("/v2/{}/{kind}/{of}?ns={}", image.name, image.source);
        let head = self.expect("HEAD", &path("manifests", TAG), 200)?;
        let digest = head.header("docker-content-digest").ok_or("no digest")?.to_owned();
        let index: Value = self.verified(&path("manifests", &digest), &digest)?;
        let manifest = index["manifests"][0]["digest"].as_str().ok_or("no manifest")?.to_owned();
        let described: Value = self.verified(&path("manifests", &manifest), &manifest)?;
        let layers = described["layers"].as_array().ok_or("no layers")?;
        for blob in [&described["config"]].into_iter().chain(layers) {
            let digest = blob["digest"].as_str().ok_or("no digest of a blob")?;
            let path = path("blobs", digest);
            if image.is_redirected {
                let answer = self.expect("GET", &path, 307)?;
                let location = answer.header("location").unwrap_or_default();
                if !location.contains(&digest["sha256:".len()..]) {
                    return Err(format!("{path}: {location}"));
                }
            } else {
                self.content(&path, digest)?;
            }
        }
        Ok(())
    }

    fn verified(&mut self, path: &str, digest: &str) -> Result<Value, String> {
        serde_json::from_slice(&self.content(path, digest)?).map_err(|cause| format!("{path}: {cause}"))
    }

    fn content(&mut self, path: &str, digest: &str) -> Result<Vec<u8>, String> {
        let body = self.expect("GET", path, 200)?.body;
        let found = format!("sha256:{}", hex::encode(ring::digest::digest(&ring::digest::SHA256, &body)));
        if found == digest { Ok(body) } else { Err(format!("{path}: {} bytes of {found}", body.len())) }
    }
}

/// The answer, and the connection if it stays open.
fn exchange(mut stream: Connection, method: &str, path: &str) -> Result<(Whole, Option<Connection>), Trouble> {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: mirror\r\n{ACCEPT}\r\n");
    stream.get_mut().write_all(request.as_bytes()).map_err(Trouble::NothingYet)?;
    stream.get_mut().flush().map_err(Trouble::NothingYet)?;
    if stream.fill_buf().map_err(Trouble::NothingYet)?.is_empty() {
        return Err(Trouble::NothingYet(io::ErrorKind::UnexpectedEof.into()));
    }
    let received = wire::receive(&mut stream, method, usize::MAX).map_err(Trouble::Other)?;
    if let Some(cause) = received.broken {
        let cause = format!("broken off behind {} bytes: {cause}", received.answer.body.len());
        return Err(Trouble::Other(io::Error::other(cause)));
    }
    let is_last = received.answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok((received.answer, (!is_last).then_some(stream)))
}
