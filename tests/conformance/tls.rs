//! TLS servers of a test's own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use acr_emulator::Emulator;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// No request of a pull has a longer head.
const LONGEST_HEAD: usize = 32 << 10;

/// A connection with a client.
pub(crate) type Stream = server::TlsStream<TcpStream>;

/// Takes connections on a port of the system's choice, with the emulator's certificate.
pub(crate) async fn serve<F, Served>(azure: &Emulator, each: F) -> (SocketAddr, AbortHandle)
where
    F: Fn(Stream) -> Served + Send + Sync + 'static,
    Served: Future<Output = io::Result<()>> + Send + 'static,
{
    let (certificate, key) = azure.certificate_and_key_pem();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
    let acceptor = TlsAcceptor::from(Arc::new(config.expect("they fit")));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let each = Arc::new(each);
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, each) = (acceptor.clone(), Arc::clone(&each));
            tokio::spawn(async move { each(acceptor.accept(stream).await?).await });
        }
    });
    (address, accepting.abort_handle())
}

/// What trusts the emulator's certificates.
pub(crate) fn connector(azure: &Emulator) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(azure.ca_pem().as_bytes()).expect("a CA")).expect("a CA");
    TlsConnector::from(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

/// Connects to a server with such a certificate.
pub(crate) async fn connect(connector: &TlsConnector, address: SocketAddr) -> io::Result<client::TlsStream<TcpStream>> {
    connector.connect(ServerName::from(address.ip()), TcpStream::connect(address).await?).await
}

/// A request's head, and what of its body came along with it.
pub(crate) struct Request {
    pub head: String,
    pub rest: Vec<u8>,
}

impl Request {
    pub(crate) async fn read(stream: &mut Stream) -> io::Result<Self> {
        let mut bytes = Vec::new();
        loop {
            if let Some(end) = bytes.windows(4).position(|at| at == b"\r\n\r\n") {
                let rest = bytes.split_off(end + 4);
                return Ok(Self { head: String::from_utf8_lossy(&bytes).into_owned(), rest });
            }
            if stream.read_buf(&mut bytes).await? == 0 || bytes.len() > LONGEST_HEAD {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Method and target.
    pub(crate) fn line(&self) -> (&str, &str) {
        let mut words = self.head.split(' ');
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The whole body, by its `Content-Length`.
    pub(crate) async fn body(self, stream: &mut Stream) -> io::Result<Vec<u8>> {
        let length = self.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = self.rest;
        while body.len() < length {
            if stream.read_buf(&mut body).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(body)
    }
}

/// Answers and ends the connection. `HEAD` has the length of a body that is not sent.
pub(crate) async fn answer(
    stream: &mut Stream,
    status: u16,
    headers: &str,
    body: &[u8],
    is_head: bool,
) -> io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} \r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await?;
    if !is_head {
        stream.write_all(body).await?;
    }
    stream.shutdown().await
}
