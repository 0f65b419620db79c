//! Signing in with a client certificate: the assertion is a JWT that the certificate's key signs.
//!
//! Form and claims: Microsoft identity platform, "Certificate credentials" (PS256, `x5t#S256`). Signed with ring, because
//! azure_identity's own certificate credential needs openssl.

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use azure_core::error::ErrorKind;
use azure_core::http::ClientMethodOptions;
use azure_identity::{ClientAssertion, ClientAssertionCredential};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use oci::quote::quoted;
use p12_keystore::KeyStore;
use ring::error::{KeyRejected, Unspecified};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{RSA_PSS_SHA256, RsaKeyPair};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::ParsedExtension;
use x509_parser::nom;
use x509_parser::prelude::FromDer as _;

use super::azure::assertion_options;
use super::inputs::{Inputs, SourceError, client_id, file, tenant_id};
use super::variables::{CERTIFICATE, PASSWORD};
use crate::secret::Secret;
use crate::value::{self, Form, ValueError};

/// Entra accepts up to ten minutes; the assertion is used at once.
const LIFETIME: u64 = 300;

/// A certificate with its chain and key has a few KiB.
const MAX_FILE: u64 = 1 << 20;

/// Reads the certificate, for one sign-in.
pub(crate) async fn credential(
    inputs: &Inputs,
    tenant: Option<&str>,
    client: Option<&str>,
    certificate_file: Option<&Path>,
    password_file: Option<&Path>,
) -> Result<Arc<dyn TokenCredential>, SourceError> {
    let certificate = file(certificate_file, "certificate_file", CERTIFICATE)?;
    let password = inputs.secret("certificate_password_file", password_file, PASSWORD, Form::Line).await?;
    let password = password.unwrap_or_else(|| Secret::new(String::new()));
    let (tenant_id, client_id) = (tenant_id(tenant)?, client_id(client)?);
    let application = Application {
        authority: inputs.cloud.authority.clone(),
        tenant_id: tenant_id.clone(),
        client_id: client_id.clone(),
    };
    let parse = move |content: &[u8]| CertificateAssertion::parse(content, &password, application);
    let assertion = inputs.read(certificate, MAX_FILE, parse).await?;
    let options = assertion_options(inputs);
    Ok(ClientAssertionCredential::new(tenant_id, client_id, assertion, Some(options))?)
}

/// The application that an assertion signs in, and where.
struct Application {
    authority: String,
    tenant_id: String,
    client_id: String,
}

/// Why a file's certificate cannot sign in. Displays as a sentence about the file.
#[derive(Debug)]
enum CertificateError {
    Encoding(ValueError),
    Pem(pem::Error),
    Pkcs12(p12_keystore::error::Error),
    /// The private key of a PEM file has a password.
    Encrypted,
    NoKey,
    NoCertificate,
    /// The PKCS#12 file has no private key with a certificate.
    NoPair,
    NotRsa,
    Key(KeyRejected),
    /// The certificate at this place, counted from 1, is malformed.
    Certificate(usize, nom::Err<X509Error>),
    /// The certificates belong to other keys; their subjects.
    OtherKeys(String),
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding(cause) => cause.fmt(f),
            Self::Pem(cause) => write!(f, "not a PEM file: {cause:?}"),
            Self::Pkcs12(cause) => write!(f, "not PKCS#12, or another password opens it: {cause}"),
            Self::Encrypted => f.write_str(
                "its private key is encrypted, and PEM can have no password here: \
                 decrypt it with `openssl pkey`, or make a PKCS#12 file with `openssl pkcs12 -export`",
            ),
            Self::NoKey => f.write_str("no private key in it: a PEM block BEGIN PRIVATE KEY is needed"),
            Self::NoCertificate => f.write_str("no certificate in it: a PEM block BEGIN CERTIFICATE is needed"),
            Self::NoPair => f.write_str("no private key with a certificate in it"),
            Self::NotRsa => f.write_str("its private key is not an RSA key, and Entra ID takes no other"),
            Self::Key(cause) => write!(f, "its private key is no RSA key of 2048 to 4096 bits: {cause}"),
            Self::Certificate(number, cause) => write!(f, "certificate {number} in it cannot be read: {cause}"),
            Self::OtherKeys(subjects) => {
                write!(f, "no certificate in it belongs to its private key, but to other keys: {subjects}")
            }
        }
    }
}

impl Error for CertificateError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Encoding(cause) => Some(cause),
            Self::Pem(cause) => Some(cause),
            Self::Pkcs12(cause) => Some(cause),
            Self::Certificate(_, cause) => Some(cause),
            // ring's error is none in the sense of `std`; it is in the sentence.
            Self::Key(_)
            | Self::Encrypted
            | Self::NoKey
            | Self::NoCertificate
            | Self::NoPair
            | Self::NotRsa
            | Self::OtherKeys(_) => None,
        }
    }
}

/// A certificate, its key, and the application that it signs in. `Debug` shows neither.
struct CertificateAssertion {
    key: RsaKeyPair,
    /// The key's certificate, then its issuer's, and so on.
    chain: Vec<CertificateDer<'static>>,
    audience: String,
    client_id: String,
}

impl CertificateAssertion {
    /// From a file's content: PEM or PKCS#12, with an RSA key and its certificate, and the certificates that signed
    /// that one, in any order. PEM has its key unencrypted, as PKCS#8 or PKCS#1; PKCS#12 may have a password.
    fn parse(content: &[u8], password: &Secret, application: Application) -> Result<Self, CertificateError> {
        // PKCS#12 is DER, which begins with a SEQUENCE.
        let (key, certificates) = match content.first() {
            Some(0x30) => from_pkcs12(content, password)?,
            _ => from_pem(value::unmarked(content).map_err(CertificateError::Encoding)?)?,
        };
        let key = match &key {
            PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            _ => return Err(CertificateError::NotRsa),
        }
        .map_err(CertificateError::Key)?;
        let chain = chain(certificates, key.public().as_ref())?;
        let Application { authority, tenant_id, client_id } = application;
        let audience = format!("{}/{tenant_id}/oauth2/v2.0/token", authority.trim_end_matches('/'));
        Ok(Self { key, chain, audience, client_id })
    }

    fn sign(&self, now: u64) -> Result<String, Unspecified> {
        let random = SystemRandom::new();
        let mut id = [0; 16];
        random.fill(&mut id)?;
        let certificate = self.chain.first().ok_or(Unspecified)?;
        let thumbprint = ring::digest::digest(&ring::digest::SHA256, certificate);
        let chain: Vec<_> = self.chain.iter().map(|certificate| STANDARD.encode(certificate)).collect();
        // With the chain in the header, subject-name authentication works as well as a registered thumbprint.
        let header = json!({
            "alg": "PS256", "typ": "JWT", "x5t#S256": URL_SAFE_NO_PAD.encode(thumbprint), "x5c": chain,
        });
        let claims = json!({
            "aud": self.audience, "iss": self.client_id, "sub": self.client_id, "jti": URL_SAFE_NO_PAD.encode(id),
            "iat": now, "nbf": now, "exp": now + LIFETIME,
        });
        let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&header), encode(&claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key.sign(&RSA_PSS_SHA256, &random, message.as_bytes(), &mut signature)?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

#[async_trait]
impl ClientAssertion for CertificateAssertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let message = "the private key does not sign";
        self.sign(now).map_err(|_| azure_core::Error::with_message(ErrorKind::Credential, message))
    }
}

impl fmt::Debug for CertificateAssertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAssertion").finish_non_exhaustive()
    }
}

/// A private key and the certificates beside it, as a file has them.
type Found = (PrivateKeyDer<'static>, Vec<CertificateDer<'static>>);

fn from_pem(text: &[u8]) -> Result<Found, CertificateError> {
    // RFC 1421's header, which openssl puts into an encrypted PKCS#1 key, and the label of encrypted PKCS#8.
    let begins = |mark: &str| text.split(|byte| *byte == b'\n').any(|line| line.starts_with(mark.as_bytes()));
    if begins("Proc-Type: 4,ENCRYPTED") || begins("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
        return Err(CertificateError::Encrypted);
    }
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(CertificateError::Pem)?;
    let key = PrivateKeyDer::from_pem_slice(text).map_err(|_| CertificateError::NoKey)?;
    if certificates.is_empty() {
        return Err(CertificateError::NoCertificate);
    }
    Ok((key, certificates))
}

fn from_pkcs12(content: &[u8], password: &Secret) -> Result<Found, CertificateError> {
    let store = KeyStore::from_pkcs12(content, password.expose()).map_err(CertificateError::Pkcs12)?;
    let (_, chain) = store.private_key_chain().ok_or(CertificateError::NoPair)?;
    let certificates = chain.chain().iter().map(|certificate| certificate.as_der().to_vec().into()).collect();
    Ok((PrivateKeyDer::Pkcs8(chain.key().to_vec().into()), certificates))
}

/// The certificate of the key `public_key` (RSAPublicKey in DER), then its issuer's, and so on. Other certificates are left
/// out: Entra ID takes the first for the one that signs.
fn chain(
    certificates: Vec<CertificateDer<'static>>,
    public_key: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let mut parsed = Vec::new();
    for (index, certificate) in certificates.iter().enumerate() {
        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|cause| CertificateError::Certificate(index + 1, cause))?;
        parsed.push((index, certificate));
    }
    let of_key = |(_, certificate): &(usize, X509Certificate<'_>)| {
        *certificate.public_key().subject_public_key.data == *public_key
    };
    let mut next = parsed.iter().position(of_key);
    if next.is_none() {
        let subjects: Vec<_> = parsed.iter().map(|(_, certificate)| certificate.subject().to_string()).collect();
        return Err(CertificateError::OtherKeys(quoted(&subjects.join("; "), &[]).unwrap_or_default()));
    }
    let mut order = Vec::new();
    while let Some(at) = next {
        // Each certificate is taken once, so a circle of issuers ends.
        let (index, certificate) = parsed.remove(at);
        order.push(index);
        let is_root = certificate.issuer().as_raw() == certificate.subject().as_raw();
        next = parsed.iter().position(|(_, issuer)| !is_root && has_issued(issuer, &certificate));
    }
    Ok(order.into_iter().filter_map(|index| certificates.get(index).cloned()).collect())
}

/// Compares the names, and the key ids where both have one: a CA that has renewed its key keeps its name.
fn has_issued(issuer: &X509Certificate<'_>, certificate: &X509Certificate<'_>) -> bool {
    let authority = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref(),
        _ => None,
    });
    let subject = issuer.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id),
        _ => None,
    });
    let same_key = authority.zip(subject).is_none_or(|(authority, subject)| authority == subject);
    certificate.issuer().as_raw() == issuer.subject().as_raw() && same_key
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    const KEY: &str = include_str!("../../emulator/tests/it/keys/registered.key");
    const SELF_SIGNED: &str = include_str!("../../emulator/tests/it/keys/registered.crt");
    const STRANGER: &str = include_str!("../../emulator/tests/it/keys/other.crt");

    fn parse(content: impl AsRef<[u8]>) -> Result<CertificateAssertion, CertificateError> {
        let [authority, tenant_id, client_id] = ["https://login.example", "t", "c"].map(str::to_owned);
        let password = Secret::new(String::new());
        CertificateAssertion::parse(content.as_ref(), &password, Application { authority, tenant_id, client_id })
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        params
    }

    fn ca(name: &str) -> CertificateParams {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    /// A root, an intermediate, a second intermediate of the same name with another key, and the key's certificate.
    fn certificates() -> [String; 4] {
        let key = || KeyPair::generate().expect("a key");
        let (root_key, intermediate_key, renewed_key) = (key(), key(), key());
        let root_pem = ca("root").self_signed(&root_key).expect("signed").pem();
        let root = Issuer::new(ca("root"), root_key);
        let intermediate_pem = ca("intermediate").signed_by(&intermediate_key, &root).expect("signed").pem();
        let renewed_pem = ca("intermediate").signed_by(&renewed_key, &root).expect("signed").pem();
        let intermediate = Issuer::new(ca("intermediate"), intermediate_key);
        let leaf_key = KeyPair::from_pem(KEY).expect("a key");
        let leaf_pem = params("leaf").signed_by(&leaf_key, &intermediate).expect("signed").pem();
        [root_pem, intermediate_pem, renewed_pem, leaf_pem]
    }

    fn header(assertion: &CertificateAssertion) -> serde_json::Value {
        let token = assertion.sign(0).expect("signed");
        let header = URL_SAFE_NO_PAD.decode(token.split('.').next().expect("a header")).expect("base64url");
        serde_json::from_slice(&header).expect("JSON")
    }

    #[test]
    fn certificates_in_any_order_give_the_leafs_thumbprint_and_its_chain() {
        let [root, intermediate, renewed, leaf] = &certificates();
        let der = |pem: &String| CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        let thumbprint = URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, &der(leaf)));
        let chain: Vec<_> = [leaf, intermediate, root].map(|pem| STANDARD.encode(der(pem))).into();
        for parts in [
            vec![KEY, root, intermediate, leaf],
            vec![KEY, renewed, intermediate, root, leaf],
            vec![leaf, root, KEY, renewed, intermediate, leaf, intermediate],
            vec!["\u{feff}", KEY, STRANGER, intermediate, leaf, root],
        ] {
            let assertion = parse(parts.concat()).expect("good");
            let header = header(&assertion);
            assert_eq!((&header["x5t#S256"], &header["x5c"]), (&json!(thumbprint), &json!(chain)), "{parts:?}");
        }
    }

    #[test]
    fn an_unusable_file_is_refused_with_the_reason() {
        let [root, ..] = &certificates();
        let encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n\
                         -----END RSA PRIVATE KEY-----\n";
        let elliptic = KeyPair::generate().expect("a key").serialize_pem();
        for (parts, says) in [
            (vec![KEY, STRANGER], "no certificate in it belongs to its private key, but to other keys: CN=other"),
            (vec![KEY, root, STRANGER], "but to other keys: CN=root; CN=other"),
            (vec![KEY], "no certificate in it: a PEM block BEGIN CERTIFICATE is needed"),
            (vec![SELF_SIGNED], "no private key in it: a PEM block BEGIN PRIVATE KEY is needed"),
            (vec![encrypted, SELF_SIGNED], "its private key is encrypted"),
            (
                vec![
                    "-----BEGIN ENCRYPTED PRIVATE KEY-----\r\nAAAA\r\n-----END ENCRYPTED PRIVATE KEY-----\r\n",
                    SELF_SIGNED,
                ],
                "its private key is encrypted",
            ),
            (vec![&elliptic, SELF_SIGNED], "its private key is no RSA key of 2048 to 4096 bits"),
        ] {
            let said = parse(parts.concat()).expect_err("cannot sign in").to_string();
            assert!(said.contains(says), "{parts:?}: {said}");
        }
        let stranger = CertificateDer::from_pem_slice(STRANGER.as_bytes()).expect("a certificate");
        let stranger = p12_keystore::Certificate::from_der(&stranger).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).expect("a key");
        let pair = p12_keystore::PrivateKeyChain::new(key.secret_der(), [1_u8], [stranger]);
        let mut store = KeyStore::new();
        store.add_entry("pair", p12_keystore::KeyStoreEntry::PrivateKeyChain(pair));
        let said = parse(store.writer("").write().expect("written")).expect_err("cannot sign in").to_string();
        assert!(said.contains("no certificate in it belongs to its private key"), "{said}");
        assert_eq!(parse(b"\xff\xfe-\0").expect_err("no PEM").to_string(), "it is text in UTF-16: save it as UTF-8");
    }
}
