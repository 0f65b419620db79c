//! The TLS handshake with a host, by the trust of every other one, and what its certificate says.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use httpdate::fmt_http_date;
use oci::quote::quoted;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, ProtocolVersion, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::listen::certificate::time;
use crate::net::certificate::Wrong;
use crate::net::trust::TrustRoots;

/// As long as a request gives it.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(4);
/// Of the names in a certificate; a few say whose it is.
const MAX_NAMES: usize = 3;

/// What a certificate says of itself. Nothing of it is proved.
pub(super) struct Certificate {
    /// Who has signed it.
    issuer: String,
    names: Vec<String>,
    not_before: SystemTime,
    pub not_after: SystemTime,
}

impl Certificate {
    fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let issuer = certificate.issuer();
        let common = issuer.iter_common_name().chain(issuer.iter_organization());
        let issuer = common.filter_map(|name| quoted(name.as_str().ok()?, &[])).next();
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.map(|extension| &extension.value.general_names).into_iter().flatten();
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => quoted(name, &[]),
            _ => None,
        });
        Some(Self {
            issuer: issuer.unwrap_or_else(|| "nobody in particular".to_owned()),
            names: names.take(MAX_NAMES).collect(),
            not_before: time(certificate.validity().not_before.timestamp()),
            not_after: time(certificate.validity().not_after.timestamp()),
        })
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate until {}, issued by {}", fmt_http_date(self.not_after), self.issuer)
    }
}

/// Shakes hands; the version, and the certificate. The error says what is wrong with it, and what to do.
pub(super) async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    host: &str,
    roots: &TrustRoots,
) -> Result<(&'static str, Option<Certificate>), String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|cause| format!("{host}: {cause}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots.root_store()), Arc::clone(&provider));
    let verifier =
        Arc::new(Witness { inner: inner.build().map_err(|cause| cause.to_string())?, seen: OnceLock::new() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|cause| cause.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Witness>::clone(&verifier))
        .with_no_client_auth();
    let connected = timeout(HANDSHAKE_LIMIT, TlsConnector::from(Arc::new(config)).connect(name, stream)).await;
    let seen = verifier.seen.get().and_then(Certificate::read);
    match connected {
        Ok(Ok(stream)) => {
            let version = match stream.get_ref().1.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
                _ => "TLS 1.2",
            };
            Ok((version, seen))
        }
        Ok(Err(cause)) => {
            let tls = cause.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
            Err(match tls {
                Some(rustls::Error::InvalidCertificate(why)) => wrong(why, host, seen.as_ref()),
                Some(cause) => format!("TLS handshake failed: is a middlebox or another program between? {cause}"),
                None => {
                    "the connection broke in the TLS handshake: check firewalls and middleboxes on the way".to_owned()
                }
            })
        }
        Err(_) => Err(format!(
            "no TLS handshake within {} s: check firewalls and middleboxes on the way",
            HANDSHAKE_LIMIT.as_secs()
        )),
    }
}

/// What is wrong with a certificate.
fn wrong(why: &CertificateError, host: &str, seen: Option<&Certificate>) -> String {
    let date = |end: fn(&Certificate) -> SystemTime| {
        seen.map(|certificate| format!(" on {}", fmt_http_date(end(certificate)))).unwrap_or_default()
    };
    let wrong = Wrong::of(why);
    let remedy = wrong.remedy();
    match wrong {
        Wrong::Expired => format!("its certificate ended{}: {remedy}", date(|certificate| certificate.not_after)),
        Wrong::NotYet => format!("its certificate begins{}: {remedy}", date(|certificate| certificate.not_before)),
        Wrong::OtherName => {
            let names = seen.map(|certificate| certificate.names.join(", ")).filter(|names| !names.is_empty());
            let names = names.unwrap_or_else(|| "no host name".to_owned());
            format!("its certificate is for {names}, and not for {host}: {remedy}")
        }
        Wrong::VersionOne => format!("its certificate is one of X.509 version 1: {remedy}"),
        Wrong::OfAuthority => format!("its certificate is a CA's own: {remedy}"),
        Wrong::UnknownIssuer | Wrong::Revoked | Wrong::Unusable => {
            let issuer = seen.map(|certificate| format!(": it is issued by {}", certificate.issuer));
            format!("its certificate is not trusted: {remedy}{}", issuer.unwrap_or_default())
        }
    }
}

/// Verifies as usual, and remembers the certificate, also of a handshake that fails.
#[derive(Debug)]
struct Witness {
    inner: Arc<WebPkiServerVerifier>,
    seen: OnceLock<CertificateDer<'static>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let _ = self.seen.set(end_entity.clone().into_owned());
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
