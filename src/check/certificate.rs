//! The TLS handshake with a host, by the trust of every other one, and what its certificate says.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use httpdate::fmt_http_date;
use oci::quote::quoted;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::listen::certificate::time;
use crate::net::certificate::Wrong;
use crate::net::trust::TrustRoots;
use crate::net::verifier;

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
    // Also of a handshake that fails.
    let seen = Arc::new(OnceLock::new());
    let config = verifier::client(roots, {
        let seen = Arc::clone(&seen);
        move |certificate, _, verified| {
            let _ = seen.set(certificate.clone().into_owned());
            verified
        }
    });
    let config = config.map_err(|cause| cause.to_string())?;
    let connected = timeout(HANDSHAKE_LIMIT, TlsConnector::from(Arc::new(config)).connect(name, stream)).await;
    let seen = seen.get().and_then(Certificate::read);
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
