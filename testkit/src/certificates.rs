//! Certificates of a test's own: a CA, servers and clients.

use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};

/// A CA.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key, in PKCS #8.
    pub key: String,
}

/// A CA's own certificate, for these names or addresses, as `openssl req -x509` makes it.
pub fn self_signed(names: &[&str]) -> Pair {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    Pair { certificate: certificate.pem(), key: key.serialize_pem() }
}

impl Authority {
    /// A CA of this name.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Its certificate, in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server with these names or addresses.
    pub fn server(&self, names: &[&str]) -> Pair {
        self.issue("mirror", names, &[], ExtendedKeyUsagePurpose::ServerAuth, None)
    }

    /// The same until then.
    pub fn server_until(&self, names: &[&str], end: SystemTime) -> Pair {
        self.issue("mirror", names, &[], ExtendedKeyUsagePurpose::ServerAuth, Some(end))
    }

    /// A client whose subject is this, with a URI.
    pub fn client(&self, name: &str, uri: &str) -> Pair {
        self.issue(name, &[], &[uri], ExtendedKeyUsagePurpose::ClientAuth, None)
    }

    /// The same without a URI, until then.
    pub fn client_until(&self, name: &str, end: SystemTime) -> Pair {
        self.issue(name, &[], &[], ExtendedKeyUsagePurpose::ClientAuth, Some(end))
    }

    fn issue(
        &self,
        subject: &str,
        names: &[&str],
        uris: &[&str],
        usage: ExtendedKeyUsagePurpose,
        end: Option<SystemTime>,
    ) -> Pair {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, subject);
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ASCII")));
        params.subject_alt_names.extend(uris);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        if let Some(end) = end {
            params.not_after = date_time_ymd(1970, 1, 1) + end.duration_since(UNIX_EPOCH).expect("after 1970");
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}
