//! The files of a listener's TLS: certificate and key as a pair, and the CA of its clients. They are read whole, and become
//! settings of rustls or an error that names the file and what to do.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::digest::{Context, SHA256};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use super::sessions::Sessions;
use crate::config::{TlsFiles, TlsKey};
use crate::file::{self, FileError};
use crate::value::{self, ValueError};

/// A chain has a few certificates, a file of CAs some hundred; this is a file of another kind.
const MAX_FILE: u64 = 1 << 20;
/// Sessions that can be resumed, of one listener: as many hosts as a mirror serves. Each takes 2 KiB or so.
const MAX_SESSIONS: usize = 1024;
/// Tickets that a client of TLS 1.3 gets: container engines, which are written in Go, keep one. Each takes a place above.
const TICKETS: usize = 1;
/// By ALPN, the preferred one first: what the plain listeners speak.
pub(super) const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What is wrong with a file; prints as a sentence about it, whose name goes before.
#[derive(Debug)]
pub(crate) struct TlsError {
    /// The setting that names the file.
    pub key: TlsKey,
    /// The file.
    pub path: PathBuf,
    why: Why,
}

#[derive(Debug)]
enum Why {
    File(FileError),
    Encoding(ValueError),
    Pem(pem::Error),
    NoCertificate,
    NoKey,
    EncryptedKey,
    /// The key does not belong to the certificate of this file.
    OtherKey(PathBuf),
    Unusable(rustls::Error),
    Verifier(rustls::server::VerifierBuilderError),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Why::File(cause) => cause.fmt(f),
            Why::Encoding(cause) => cause.fmt(f),
            Why::Pem(cause) => write!(f, "not PEM: {cause}"),
            Why::NoCertificate => f.write_str("no certificate is in it: name a PEM file with BEGIN CERTIFICATE"),
            Why::NoKey => f.write_str("no private key is in it: name a PEM file with BEGIN PRIVATE KEY"),
            Why::EncryptedKey => f.write_str(
                "the key is encrypted, and nobody is there to type its password: decrypt it (openssl pkey -in FILE -out NEW)",
            ),
            Why::OtherKey(certificate) => write!(
                f,
                "the key does not belong to the first certificate of {}: name its own key, and put the server's certificate before those of its CAs",
                certificate.display()
            ),
            Why::Unusable(cause) => write!(f, "cannot be used: {cause}"),
            Why::Verifier(cause) => write!(f, "cannot be used: {cause}"),
        }
    }
}

impl Error for TlsError {}

impl TlsError {
    /// With the file in front.
    pub(crate) fn to_sentence(&self) -> String {
        format!("{}: {self}", self.path.display())
    }
}

/// The files as they were at one moment. Prints nothing of the key.
pub(super) struct Contents {
    certificate: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
    client_ca: Option<Zeroizing<Vec<u8>>>,
}

/// What contents are known again by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

/// What the files say.
pub(super) struct Certificates {
    /// For handshakes.
    pub config: Arc<ServerConfig>,
    /// The CAs of clients.
    pub client_cas: Vec<CertificateDer<'static>>,
    /// When the server's certificate ends.
    pub not_after: SystemTime,
}

impl Contents {
    /// Reads all of them. This blocks.
    pub(super) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read(TlsKey::Certificate, &files.certificate)?,
            key: read(TlsKey::Key, &files.key)?,
            client_ca: files.clients.as_ref().map(|clients| read(TlsKey::ClientCa, &clients.ca)).transpose()?,
        })
    }

    /// The same with a limit of time.
    fn read_in_time(files: &TlsFiles) -> Result<Self, TlsError> {
        let own = files.clone();
        file::at_start(move || Self::read(&own)).map_err(|cause| hangs(files, cause))?
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let mut sum = Context::new(&SHA256);
        for part in [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()].into_iter().flatten() {
            sum.update(&(part.len() as u64).to_be_bytes());
            sum.update(part);
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(sum.finish().as_ref());
        Fingerprint(fingerprint)
    }

    /// Checks them against each other, and makes settings of them.
    pub(super) fn parse(&self, files: &TlsFiles) -> Result<Certificates, TlsError> {
        let chain = certificates(&self.certificate).map_err(wrong(TlsKey::Certificate, &files.certificate))?;
        let key = private_key(&self.key).map_err(wrong(TlsKey::Key, &files.key))?;
        let not_after = chain.first().map_or(UNIX_EPOCH, not_after);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|cause| wrong(TlsKey::Certificate, &files.certificate)(Why::Unusable(cause)))?;
        let mut client_cas = Vec::new();
        let builder = match files.clients.as_ref().zip(self.client_ca.as_ref()) {
            Some((clients, content)) => {
                client_cas = certificates(content).map_err(wrong(TlsKey::ClientCa, &clients.ca))?;
                let verifier = verifier(&client_cas, clients.is_required, provider);
                builder.with_client_cert_verifier(verifier.map_err(wrong(TlsKey::ClientCa, &clients.ca))?)
            }
            None => builder.with_no_client_auth(),
        };
        let config = builder.with_single_cert(chain, key).map_err(|cause| match cause {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                wrong(TlsKey::Key, &files.key)(Why::OtherKey(files.certificate.clone()))
            }
            rustls::Error::InvalidCertificate(_) => {
                wrong(TlsKey::Certificate, &files.certificate)(Why::Unusable(cause))
            }
            cause => wrong(TlsKey::Key, &files.key)(Why::Unusable(cause)),
        });
        let mut config = config?;
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        // Sessions belong to these settings alone: with other CAs none of them is resumed.
        config.session_storage = Sessions::room(MAX_SESSIONS);
        config.send_tls13_tickets = TICKETS;
        Ok(Certificates { config: Arc::new(config), client_cas, not_after })
    }
}

/// A certificate with its chain, and its key, of files. That they belong together is checked by whoever uses them.
pub(crate) fn pair(
    certificate: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let contents =
        Contents::read_in_time(&TlsFiles { certificate: certificate.to_owned(), key: key.to_owned(), clients: None })?;
    let chain = certificates(&contents.certificate).map_err(wrong(TlsKey::Certificate, certificate))?;
    Ok((chain, private_key(&contents.key).map_err(wrong(TlsKey::Key, key))?))
}

/// Says of what is wrong with a file which one it is.
fn wrong(key: TlsKey, path: &Path) -> impl FnOnce(Why) -> TlsError + use<> {
    let path = path.to_owned();
    move |why| TlsError { key, path, why }
}

fn read(key: TlsKey, path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    file::read(path, MAX_FILE).map_err(Why::File).map_err(wrong(key, path))
}

/// Checks the files of a listener at a start, by their setting, and returns when the certificate ends. All that cannot be read are
/// told, else what is wrong with one.
pub(crate) fn check(files: &TlsFiles) -> Result<SystemTime, Vec<TlsError>> {
    let own = files.clone();
    let unreadable = file::at_start(move || {
        let clients = own.clients.as_ref().map(|clients| (TlsKey::ClientCa, &clients.ca));
        let named = [(TlsKey::Certificate, &own.certificate), (TlsKey::Key, &own.key)].into_iter().chain(clients);
        named.filter_map(|(key, path)| read(key, path).err()).collect::<Vec<_>>()
    });
    match unreadable {
        Ok(none) if none.is_empty() => {
            load(files).map(|(_, certificates)| certificates.not_after).map_err(|wrong| vec![wrong])
        }
        Ok(unreadable) => Err(unreadable),
        Err(cause) => Err(vec![hangs(files, cause)]),
    }
}

/// They are not read in time.
fn hangs(files: &TlsFiles, cause: FileError) -> TlsError {
    wrong(TlsKey::Certificate, &files.certificate)(Why::File(cause))
}

/// Reads and checks them, with a limit of time.
pub(super) fn load(files: &TlsFiles) -> Result<(Fingerprint, Certificates), TlsError> {
    let contents = Contents::read_in_time(files)?;
    Ok((contents.fingerprint(), contents.parse(files)?))
}

fn certificates(content: &[u8]) -> Result<Vec<CertificateDer<'static>>, Why> {
    let text = value::unmarked(content).map_err(Why::Encoding)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(Why::Pem)?;
    if found.is_empty() { Err(Why::NoCertificate) } else { Ok(found) }
}

fn private_key(content: &[u8]) -> Result<PrivateKeyDer<'static>, Why> {
    let text = value::unmarked(content).map_err(Why::Encoding)?;
    // PKCS #8 (RFC 5958), and OpenSSL's own form before it (RFC 1421).
    let is_encrypted = [&b"BEGIN ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"];
    if is_encrypted.iter().any(|mark| memchr::memmem::find(text, mark).is_some()) {
        return Err(Why::EncryptedKey);
    }
    match PrivateKeyDer::from_pem_slice(text) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => Err(Why::NoKey),
        Err(cause) => Err(Why::Pem(cause)),
    }
}

fn verifier(
    cas: &[CertificateDer<'static>],
    is_required: bool,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Why> {
    let mut roots = RootCertStore::empty();
    for ca in cas {
        roots.add(ca.clone()).map_err(Why::Unusable)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if is_required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(Why::Verifier)
}

/// When a certificate ends.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> SystemTime {
    let parsed = X509Certificate::from_der(certificate);
    time(parsed.map(|(_, certificate)| certificate.validity().not_after.timestamp()).unwrap_or_default())
}

/// The time that a certificate has as seconds since 1970.
pub(crate) fn time(seconds: i64) -> SystemTime {
    /// The end of the year 9999, which RFC 5280 section 4.1.2.5 has for "never"; no date can be written beyond it.
    const LAST_SECOND: u64 = 253_402_300_799;
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default().min(LAST_SECOND))
}
