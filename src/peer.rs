//! What TLS has told about the client of a connection. Requests find it in Pingora's digest of the connection.

use std::sync::Arc;

use pingora::http::ResponseHeader;
use pingora_core::protocols::Digest;
use pingora_core::protocols::raw_connect::ProxyDigest;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::access::{MAX_NAME, Name};

/// Names of a certificate that are kept. A host's has a few.
const MAX_NAMES: usize = 32;

/// The client of a TLS connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// As `TLSv1.3`.
    pub version: &'static str,
    /// Names of the certificate that the client has proved to have; empty if it has shown none. A certificate that has more than
    /// [`MAX_NAMES`] is known by the first of them, and a name that is longer than [`MAX_NAME`] is none.
    pub names: Vec<Name>,
}

impl Peer {
    /// With the names of this certificate, which was verified.
    pub(crate) fn new(version: &'static str, certificate: Option<&[u8]>) -> Self {
        Self { version, names: certificate.map(names).unwrap_or_default() }
    }

    /// The peer of a request's connection; `None` without TLS.
    pub(crate) fn of(digest: &Digest) -> Option<&Self> {
        Self::in_digest(digest.proxy_digest.as_ref()?)
    }

    /// The same of the part of the digest that has it.
    pub(crate) fn in_digest(digest: &ProxyDigest) -> Option<&Self> {
        digest.user_data.as_ref()?.downcast_ref()
    }

    /// Makes it known to each request of a connection.
    pub(crate) fn into_digest(self) -> Option<Arc<ProxyDigest>> {
        // The header is there for other uses of the digest; this status is always right.
        let response = ResponseHeader::build(200, None).ok()?;
        Some(Arc::new(ProxyDigest::new(Box::new(response), Some(Box::new(self)))))
    }
}

fn names(der: &[u8]) -> Vec<Name> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Vec::new() };
    let subjects = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let alternatives = alternative.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(Name::Dns((*name).to_owned())),
        GeneralName::URI(name) => Some(Name::Uri((*name).to_owned())),
        _ => None,
    });
    let names = subjects.map(|name| Name::Subject(name.to_owned())).chain(alternatives);
    names.filter(|name| name.as_str().len() <= MAX_NAME).take(MAX_NAMES).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn the_names_of_a_certificate_are_its_subject_and_its_alternative_names() {
        let mut params = CertificateParams::new(vec!["node-7.internal".to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, "node-7");
        let uri = |text: String| SanType::URI(text.try_into().expect("ASCII"));
        params.subject_alt_names.push(uri("spiffe://example.org/node/7".to_owned()));
        params.subject_alt_names.push(SanType::IpAddress([192, 0, 2, 7].into()));
        params.subject_alt_names.push(uri(format!("spiffe://example.org/{}", "x".repeat(MAX_NAME))));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let peer = Peer::new("TLSv1.3", Some(certificate.der()));
        let expected = [
            Name::Subject("node-7".to_owned()),
            Name::Dns("node-7.internal".to_owned()),
            Name::Uri("spiffe://example.org/node/7".to_owned()),
        ];
        assert_eq!(peer.names, expected);
        assert!(Peer::new("TLSv1.3", Some(b"garbage")).names.is_empty());
        let digest = Digest { proxy_digest: peer.clone().into_digest(), ..Digest::default() };
        assert_eq!(Peer::of(&digest), Some(&peer));
        assert_eq!(Peer::of(&Digest::default()), None);
    }
}
