//! Which certificate authorities every TLS hop trusts: the system's, plus private ones.
//!
//! One set serves Entra ID, the registry's token endpoints and the data path alike.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use log::warn;
use nix::sys::memfd::{MFdFlags, memfd_create};
use rustls::client::WantsClientCert;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use crate::file::{self, FileError};
use crate::value::{self, ValueError};

/// Where the common distributions keep their bundle (Debian, RHEL, openSUSE, Alpine). They are read
/// by name only when `SSL_CERT_FILE` or `SSL_CERT_DIR` would otherwise *replace* them.
pub(crate) const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A CA bundle larger than this is not one; the public set has about 0.25 MiB.
const MAX_CA_FILE: u64 = 8 << 20;

/// The trusted certificate authorities, checked: every entry is one that rustls accepts.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TrustRoots {
    certificates: Vec<CertificateDer<'static>>,
}

/// What is wrong with the CA certificates; prints as one sentence.
#[derive(Debug)]
pub(crate) enum TrustError {
    /// The file of the `ca_file` setting cannot be used, and why.
    CaFile(PathBuf, CaFileError),
    /// The files of the system, or of the two variables, cannot be read in time.
    Native(FileError),
    /// Neither the system nor the settings have a single usable certificate.
    Empty,
    /// The bundle could not be handed to Pingora.
    Bundle(io::Error),
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CaFile(path, cause) => write!(f, "ca_file {}: {cause}", path.display()),
            Self::Native(cause) => write!(f, "CA certificates of SSL_CERT_FILE, SSL_CERT_DIR or the system: {cause}"),
            Self::Empty => f.write_str(
                "no CA certificate found: install the system's ca-certificates, or name a PEM file with ca_file or SSL_CERT_FILE",
            ),
            Self::Bundle(cause) if cause.kind() == io::ErrorKind::NotFound => {
                f.write_str("the CA bundle is read by way of /proc/self/fd, and /proc is not mounted: mount it")
            }
            Self::Bundle(cause) => write!(f, "CA bundle in memory: {cause}"),
        }
    }
}

impl Error for TrustError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::CaFile(_, cause) => Some(cause),
            Self::Native(cause) => Some(cause),
            Self::Bundle(cause) => Some(cause),
            Self::Empty => None,
        }
    }
}

/// Why the CA certificates of a file cannot be used; prints as one sentence without the file's name.
#[derive(Debug)]
pub(crate) enum CaFileError {
    /// It cannot be read.
    File(FileError),
    /// It is in another encoding.
    Encoding(ValueError),
    /// It is damaged.
    Pem(pem::Error),
    /// It is a PEM file of something else.
    NoCertificate,
    /// TLS cannot use one of its certificates.
    Unusable(rustls::Error),
}

impl fmt::Display for CaFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(cause) => cause.fmt(f),
            Self::Encoding(cause) => cause.fmt(f),
            Self::Pem(cause) => write!(f, "not a PEM file: {cause:?}"),
            Self::NoCertificate => f.write_str("it has no PEM block BEGIN CERTIFICATE"),
            Self::Unusable(cause) => write!(f, "a certificate in it is unusable: {cause}"),
        }
    }
}

impl Error for CaFileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::File(cause) => Some(cause),
            Self::Encoding(cause) => Some(cause),
            Self::Pem(cause) => Some(cause),
            Self::Unusable(cause) => Some(cause),
            Self::NoCertificate => None,
        }
    }
}

/// Whether [`TrustRoots::load`] can use this `ca_file`.
pub(crate) fn check_ca_file(path: &Path) -> Result<(), CaFileError> {
    read_ca_file(path).map(drop)
}

impl TrustRoots {
    /// The system's certificates, those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, and those of each `ca_file`.
    /// A broken entry of the system's bundle is passed over; what a variable names and cannot be used is said in the log,
    /// for other programs' sake it may be there; a broken `ca_file` is an error: somebody asked for it by name.
    pub(crate) fn load<'a>(ca_files: impl IntoIterator<Item = &'a Path>) -> Result<Self, TrustError> {
        // A FIFO that a variable names, or a mount that hangs, is to be told and not waited for.
        let mut found = file::at_start(native).map_err(TrustError::Native)?;
        found.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
        found.dedup();
        let mut store = RootCertStore::empty();
        let mut certificates: Vec<_> =
            found.into_iter().filter(|certificate| store.add(certificate.clone()).is_ok()).collect();
        for path in ca_files {
            certificates.extend(read_ca_file(path).map_err(|cause| TrustError::CaFile(path.to_owned(), cause))?);
        }
        if certificates.is_empty() {
            return Err(TrustError::Empty);
        }
        Ok(Self { certificates })
    }

    /// Those of these files, as far as they can be read.
    pub(crate) fn of_files(files: Vec<PathBuf>) -> Self {
        let read = file::at_start(move || {
            let found = files.iter().map(|path| rustls_native_certs::load_certs_from_paths(Some(path), None).certs);
            found.flatten().collect::<Vec<_>>()
        });
        let mut store = RootCertStore::empty();
        let mut certificates = read.unwrap_or_default();
        certificates.retain(|certificate| store.add(certificate.clone()).is_ok());
        Self { certificates }
    }

    /// Nobody: for a client that speaks no TLS.
    pub(crate) fn none() -> Self {
        Self { certificates: Vec::new() }
    }

    /// Whether this very certificate is one of them.
    pub(crate) fn has(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates.iter().any(|one| one == certificate)
    }

    /// The same set for a client of reqwest's, which is to trust these and no others.
    pub(crate) fn reqwest_certificates(&self) -> reqwest::Result<Vec<reqwest::Certificate>> {
        self.certificates.iter().map(|certificate| reqwest::Certificate::from_der(certificate)).collect()
    }

    /// The same set for a verifier of our own.
    pub(crate) fn root_store(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        // Each was accepted by such a store before.
        store.add_parsable_certificates(self.certificates.iter().cloned());
        store
    }

    /// A TLS client of our own that trusts this set. `Err` if it cannot be built at all.
    pub(crate) fn client(&self) -> Result<ClientConfig, rustls::Error> {
        self.builder().map(|client| client.with_no_client_auth())
    }

    /// The same, which may yet be given a certificate to present.
    pub(crate) fn builder(&self) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(client.with_root_certificates(self.root_store()))
    }

    /// The same set as a PEM file in memory. Pingora reads its CA bundle from a path, panics on a
    /// file that it cannot read and forgets the system's own roots; this one is whole and checked.
    pub(crate) fn bundle(&self) -> Result<Bundle, TrustError> {
        let write = || -> io::Result<OwnedFd> {
            let mut file = File::from(memfd_create("ca-bundle", MFdFlags::MFD_CLOEXEC)?);
            for certificate in &self.certificates {
                file.write_all(pem(certificate).as_bytes())?;
            }
            Ok(file.into())
        };
        let bundle = Bundle { file: write().map_err(TrustError::Bundle)? };
        // Where Pingora could not read it, it would panic.
        File::open(bundle.path()).map_err(TrustError::Bundle)?;
        Ok(bundle)
    }
}

/// The CA bundle as an anonymous file: it has a path for as long as this value lives.
pub(crate) struct Bundle {
    file: OwnedFd,
}

impl Bundle {
    /// A path that this process, and no other, can open.
    pub(crate) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }
}

/// The system's certificates, and those of the two variables.
fn native() -> Vec<CertificateDer<'static>> {
    let native = rustls_native_certs::load_native_certs();
    let mut found = native.certs;
    if ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some()) {
        // Of a bundle's many mistakes one is enough.
        if let Some(cause) = native.errors.first() {
            warn!("SSL_CERT_FILE, SSL_CERT_DIR: {cause}: the system's CA certificates are trusted all the same");
        }
        for bundle in SYSTEM_BUNDLES {
            found.extend(rustls_native_certs::load_certs_from_paths(Some(Path::new(bundle)), None).certs);
        }
    }
    found
}

fn read_ca_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, CaFileError> {
    let file = path.to_owned();
    let content = file::at_start(move || file::read(&file, MAX_CA_FILE)).flatten().map_err(CaFileError::File)?;
    let text = value::unmarked(&content).map_err(CaFileError::Encoding)?;
    let mut store = RootCertStore::empty();
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate.map_err(CaFileError::Pem)?;
        store.add(certificate.clone()).map_err(CaFileError::Unusable)?;
        certificates.push(certificate);
    }
    if certificates.is_empty() {
        return Err(CaFileError::NoCertificate);
    }
    Ok(certificates)
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    /// RFC 7468 section 2: lines of exactly 64 characters.
    const LINE: usize = 64;
    let text = STANDARD.encode(certificate);
    let mut pem = String::with_capacity(text.len() + text.len() / LINE + 64);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while let Some((line, more)) = rest.split_at_checked(LINE) {
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    if !rest.is_empty() {
        pem.push_str(rest);
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
