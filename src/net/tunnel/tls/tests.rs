//! A proxy that is spoken to over TLS, well and badly.

use std::os::fd::AsRawFd as _;

use pingora_core::upstreams::peer::{HttpPeer, Peer as _};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::super::{ForwardProxy, NoTunnel, Opened};
use super::*;

const LIMIT: Duration = Duration::from_secs(60);
/// As squid answers, and what comes behind it in the same record.
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n\x16\x03";

/// A CA, and the certificate of `proxy.corp`.
struct Authority {
    roots: RootCertStore,
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let mut roots = RootCertStore::empty();
        roots.add(params.self_signed(&key).expect("a certificate").der().clone()).expect("a CA");
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["proxy.corp".to_owned()]).expect("a name");
        let chain = vec![params.signed_by(&key, &issuer).expect("a certificate").der().clone()];
        Self { roots, chain, key: key.serialize_der() }
    }

    /// With a certificate that is its own CA, as `openssl req -x509` makes it.
    fn of_itself() -> Self {
        let mut params = CertificateParams::new(vec!["proxy.corp".to_owned()]).expect("a name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a CA");
        Self { roots, chain: vec![certificate], key: key.serialize_der() }
    }

    /// How the proxy serves, and whether it wants a client's certificate.
    fn server(&self, wants_client: bool) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let roots = Arc::new(self.roots.clone());
        let builder = if wants_client {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build().expect("roots");
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(self.key.clone()).expect("a key");
        builder.with_single_cert(self.chain.clone(), key).expect("a pair")
    }

    /// The tunnel of who trusts it, through the proxy of this name.
    fn tunnel(&self, name: &str) -> Tunnel {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_root_certificates(self.roots.clone()).with_no_client_auth();
        let tls = Some(Tls::new(config, ServerName::try_from(name.to_owned()).expect("a name")));
        let proxy = ForwardProxy { name: format!("{name}:3129"), setting: "HTTPS_PROXY", authorization: None, tls };
        Tunnel::new(&Arc::new(proxy), "example.azurecr.io", 443)
    }
}

/// Answers a `CONNECT`, and sends back what comes through the tunnel.
async fn serve(stream: TcpStream, config: ServerConfig) -> io::Result<()> {
    let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    assert!(head.starts_with(b"CONNECT example.azurecr.io:443 HTTP/1.1\r\n"), "{head:?}");
    stream.write_all(ESTABLISHED).await?;
    let (mut from, mut to) = split(stream);
    copy(&mut from, &mut to).await.map(drop)
}

/// Opens the tunnel through a proxy that serves so; without TLS, it answers the handshake as a server of plain HTTP.
async fn open(tunnel: &Tunnel, server: Option<ServerConfig>) -> Result<Opened, NoTunnel> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        match server {
            Some(config) => serve(stream, config).await,
            None => {
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await?;
                stream.read_to_end(&mut Vec::new()).await.map(drop)
            }
        }
    });
    let stream = TcpStream::connect(address).await.expect("connected");
    tunnel.open(stream, Instant::now() + LIMIT).await
}

#[tokio::test]
async fn a_tunnel_over_tls_is_a_socket_that_pingora_keeps_and_nothing_of_it_is_lost() {
    let authority = Authority::new();
    let tunnel = authority.tunnel("proxy.corp");
    let opened = open(&tunnel, Some(authority.server(false))).await.unwrap_or_else(|why| panic!("{why}"));
    let mut stream = opened.into_stream(&tunnel).expect("descriptors");
    let mut read = [0; 2];
    stream.read_exact(&mut read).await.expect("what came behind the head");
    assert_eq!(&read, b"\x16\x03");
    // More than the buffers on the way have room for.
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let (mut from, mut to) = split(stream);
    let mut received = vec![0; sent.len()];
    let sending = async {
        to.write_all(&sent).await?;
        to.flush().await
    };
    let (written, read) = tokio::join!(sending, from.read_exact(&mut received));
    written.expect("sent");
    read.expect("received");
    assert!(received == sent);
    // As Pingora's pool asks, before it uses a kept connection again.
    let stream = from.unsplit(to);
    let to = |host: &str| HttpPeer::new((host, 3129), true, "example.azurecr.io".to_owned());
    assert!(to("0.0.0.0").matches_fd(stream.as_raw_fd()));
    assert!(!to("127.0.0.1").matches_fd(stream.as_raw_fd()), "so the address says something");
}

#[tokio::test]
async fn each_failure_of_the_handshake_has_words_that_name_the_proxy_and_what_to_do() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for (name, server, says, is_refusal) in [
        ("proxy.corp", Some(stranger.server(false)), "is not trusted: a private CA goes into ca_file", true),
        ("other.corp", Some(authority.server(false)), "is not trusted: it is for other names: give the proxy by", true),
        ("proxy.corp", Some(authority.server(true)), "it answers with the alert CertificateRequired", false),
        ("proxy.corp", None, "is HTTPS_PROXY the port of an https:// proxy?: what it answers is not TLS", false),
    ] {
        let why = open(&authority.tunnel(name), server).await.err().expect(says);
        let said = why.to_string();
        assert!(said.starts_with(&format!("egress proxy {name}:3129: ")) && said.contains(says), "{says}: {said}");
        assert_eq!((why.is_refusal(), why.is_proxys()), (is_refusal, !is_refusal), "{said}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_a_cas_own_was_told_as_one_that_tls_cannot_use() {
    let authority = Authority::of_itself();
    let why = open(&authority.tunnel("proxy.corp"), Some(authority.server(false))).await.err().expect("no handshake");
    let says = "its certificate is not trusted: it is a CA's own: issue another one, with CA:FALSE";
    assert!(why.to_string().contains(says), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_is_silent_in_the_handshake_is_given_up_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let stream = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
    let tunnel = Authority::new().tunnel("proxy.corp");
    let why = tunnel.open(stream, Instant::now() + LIMIT).await.err().expect("nobody answers");
    assert!(why.to_string().ends_with("https:// proxy?: no answer in time"), "{why}");
}

#[tokio::test]
async fn either_end_of_a_tunnel_ends_the_other() {
    let authority = Authority::new();
    let tunnel = authority.tunnel("proxy.corp");
    for from_here in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let proxy = async {
            let (stream, _) = listener.accept().await.expect("a connection");
            TlsAcceptor::from(Arc::new(authority.server(false))).accept(stream).await.expect("a handshake")
        };
        let client = async {
            let stream = TcpStream::connect(address).await.expect("connected");
            tunnel.proxy.tls.as_ref().expect("it has").handshake(stream).await.expect("a handshake")
        };
        let (mut proxy, secured) = tokio::join!(proxy, client);
        let mut stream = relayed(secured, &tunnel).expect("descriptors");
        if from_here {
            drop(stream);
            assert_eq!(proxy.read(&mut [0]).await.expect("its end, told as TLS has it"), 0);
        } else {
            drop(proxy);
            assert_eq!(stream.read(&mut [0]).await.expect("its end"), 0);
        }
    }
}

#[test]
fn connections_that_stopped_without_a_word_are_not_used_again() {
    let tunnel = Authority::new().tunnel("proxy.corp");
    let before = tunnel.id();
    assert_eq!(tunnel.id(), before);
    tunnel.proxy.tls.as_ref().expect("it has").silences.fetch_add(1, Ordering::Relaxed);
    assert_ne!(tunnel.id(), before);
    assert_ne!(Authority::new().tunnel("other.corp").id(), before);
}
