//! Whether the proxy takes the certificate that a client presents, where its listener asks for one. By TLS 1.3 a client that is refused learns of
//! it only when it reads.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::super::ask;
use super::shown::as_engines;
use crate::client_config::address::Address;
use crate::host::Host;
use crate::listen::certificate;
use crate::net::trust::{SYSTEM_BUNDLES, TrustRoots};
use crate::net::verifier;

/// From the connection to the first bytes of an answer.
const LIMIT: Duration = Duration::from_secs(5);

/// A certificate and its key, as an engine names them; without a key, one file has both.
pub(super) type Pair = (String, Option<String>);

/// The authorities that a client trusts, or for `None` every certificate; and what it presents.
type Client = (Option<Vec<String>>, Vec<Pair>);

/// Why an engine cannot show who it is.
#[derive(Clone, Debug)]
pub(super) enum Away {
    /// The engine cannot load the pair itself, and says so before it asks anybody.
    Unusable(String),
    /// The proxy refuses it.
    Refused(String),
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unusable(why) | Self::Refused(why)) = self;
        f.write_str(why)
    }
}

/// The proxy at an address, as clients with certificates find it.
pub(super) struct Door<'a> {
    host: &'a Host,
    url: Address,
    known: BTreeMap<Client, Option<Away>>,
}

impl<'a> Door<'a> {
    pub(super) fn new(host: &'a Host, url: Address) -> Self {
        Self { host, url, known: BTreeMap::new() }
    }

    /// Why a client that trusts the host's authorities and `own`, or for `None` every certificate, and has these pairs, is turned away;
    /// `None` if it is not, or nobody knows.
    pub(super) async fn away(&mut self, own: Option<&[String]>, pairs: &[Pair]) -> Option<Away> {
        let key = (own.map(<[_]>::to_vec), pairs.to_vec());
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let trusted: Option<Vec<_>> = own.map(|own| {
            let files = SYSTEM_BUNDLES.iter().copied().chain(own.iter().map(String::as_str));
            files.filter_map(|path| self.host.at(path).ok()).collect()
        });
        let away = self.turned(trusted.as_deref(), pairs).await;
        self.known.insert(key, away.clone());
        away
    }

    async fn turned(&self, trusted: Option<&[PathBuf]>, pairs: &[Pair]) -> Option<Away> {
        let mut loaded = Vec::new();
        for pair in pairs {
            match self.load(pair) {
                Ok(key) => loaded.push(Some(key?)),
                Err(wrong) => return Some(Away::Unusable(wrong)),
            }
        }
        if loaded.is_empty() {
            loaded.push(None);
        }
        let mut refused = None;
        for key in loaded {
            match knock(&self.url, trusted, key).await? {
                Ok(()) => return None,
                Err(why) => refused = Some(Away::Refused(why)),
            }
        }
        refused
    }

    /// `None` where this user may not read it. The error is what is wrong with it.
    fn load(&self, (certificate, key): &Pair) -> Result<Option<Arc<CertifiedKey>>, String> {
        let key = key.as_ref().unwrap_or(certificate);
        let is_denied = |path: &str| {
            let denied = |text: crate::host::Text| text.content.is_err_and(|wrong| wrong == crate::host::DENIED);
            self.host.read(path).is_some_and(denied)
        };
        let (Ok(certificate_at), Ok(key_at)) = (self.host.at(certificate), self.host.at(key)) else { return Ok(None) };
        if is_denied(certificate) || is_denied(key) {
            return Ok(None);
        }
        let (chain, private) = certificate::pair(&certificate_at, &key_at).map_err(|wrong| wrong.to_sentence())?;
        let provider = rustls::crypto::ring::default_provider();
        let key = CertifiedKey::from_der(chain, private, &provider)
            .map_err(|_| format!("{key} is not the key of {certificate}"))?;
        Ok(Some(Arc::new(key)))
    }
}

/// One request by a client that presents this; `None` where nobody knows what comes of it. The error is why it is refused.
async fn knock(
    url: &Address,
    trusted: Option<&[PathBuf]>,
    key: Option<Arc<CertifiedKey>>,
) -> Option<Result<(), String>> {
    let asked = Arc::new(Asked { was: AtomicBool::new(false), key });
    let resolver: Arc<dyn ResolvesClientCert> = Arc::<Asked>::clone(&asked);
    let mut config = match trusted {
        Some(files) => as_engines(TrustRoots::of_files(files.to_vec()))?,
        // Nothing is sent to it that is not for everybody.
        None => verifier::client(&TrustRoots::of_files(Vec::new()), |_, _, _| Ok(())).ok()?,
    };
    config.client_auth_cert_resolver = resolver;
    let name = ServerName::try_from(url.host.trim_matches(['[', ']']).to_owned()).ok()?;
    let address = ask::resolve(url).await.ok()?;
    let request = format!("GET /v2/ HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", url.host);
    let answer = async {
        let stream = TcpStream::connect(address).await?;
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        // What it answers to those whom it refuses is there to read all the same.
        let _ = stream.write_all(request.as_bytes()).await;
        stream.read_u8().await
    };
    let cause = match timeout(LIMIT, answer).await.ok()? {
        Ok(_) => return Some(Ok(())),
        Err(cause) => cause,
    };
    let why = match cause.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(AlertDescription::UnknownCA)) => {
            "the CA of what it presents is not in the listener's client_ca".to_owned()
        }
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)) => {
            "the listener asks for a certificate of the client, and it presents none".to_owned()
        }
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateExpired)) => {
            "the certificate that it presents has ended".to_owned()
        }
        Some(rustls::Error::InvalidCertificate(_)) => return None,
        _ => cause.to_string(),
    };
    asked.was.load(Ordering::Relaxed).then_some(Err(why))
}

/// Presents one certificate, and remembers whether the server has asked for any.
#[derive(Debug)]
struct Asked {
    was: AtomicBool,
    key: Option<Arc<CertifiedKey>>,
}

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.was.store(true, Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}
