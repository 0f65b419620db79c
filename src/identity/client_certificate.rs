//! Signing in with a client certificate: the assertion is a JWT that the certificate's key signs.
//!
//! Form and claims: Microsoft identity platform, "Certificate credentials" (PS256, `x5t#S256`). Signed with
//! ring, since azure_identity's own certificate credential brings openssl.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use azure_core::error::{Error, ErrorKind};
use azure_core::http::ClientMethodOptions;
use azure_identity::ClientAssertion;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use oci::quote::quoted;
use p12_keystore::KeyStore;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{RSA_PSS_SHA256, RsaKeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer as _;

use crate::secret::Secret;
use crate::value;

/// Entra accepts up to ten minutes; the assertion is used at once.
const LIFETIME: u64 = 300;

/// Whom an assertion signs in, and where.
pub struct Application {
    pub authority: String,
    pub tenant_id: String,
    pub client_id: String,
}

/// A certificate, its key, and whom it is to sign in. `Debug` shows neither.
pub struct CertificateAssertion {
    key: RsaKeyPair,
    /// The key's certificate first, each behind it has signed the one before.
    chain: Vec<CertificateDer<'static>>,
    audience: String,
    client_id: String,
}

impl CertificateAssertion {
    /// From a file's content: PEM or PKCS#12, with an RSA key and its certificate, and the certificates that signed
    /// that one, in any order. PEM has its key unencrypted, as PKCS#8 or PKCS#1; PKCS#12 may have a password.
    pub fn parse(content: &[u8], password: &Secret, application: Application) -> Result<Self, String> {
        // PKCS#12 is DER, which begins with a SEQUENCE.
        let (key, certificates) = match content.first() {
            Some(0x30) => from_pkcs12(content, password)?,
            _ => from_pem(value::unmarked(content)?)?,
        };
        let key = match &key {
            PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            _ => return Err("its private key is not an RSA key, and Entra ID takes no other".to_owned()),
        }
        .map_err(|cause| format!("its private key is no RSA key of 2048 to 4096 bits: {cause}"))?;
        let chain = chain(certificates, key.public().as_ref())?;
        let Application { authority, tenant_id, client_id } = application;
        let audience = format!("{}/{tenant_id}/oauth2/v2.0/token", authority.trim_end_matches('/'));
        Ok(Self { key, chain, audience, client_id })
    }

    fn sign(&self, now: u64) -> Result<String, &'static str> {
        let random = SystemRandom::new();
        let mut id = [0; 16];
        random.fill(&mut id).map_err(|_| "no random numbers")?;
        let certificate = self.chain.first().ok_or("no certificate")?;
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
        self.key
            .sign(&RSA_PSS_SHA256, &random, message.as_bytes(), &mut signature)
            .map_err(|_| "the key does not sign")?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

#[async_trait]
impl ClientAssertion for CertificateAssertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.sign(now).map_err(|cause| Error::with_message(ErrorKind::Credential, cause))
    }
}

impl fmt::Debug for CertificateAssertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAssertion").finish_non_exhaustive()
    }
}

/// A private key and the certificates beside it, as a file has them.
type Found = (PrivateKeyDer<'static>, Vec<CertificateDer<'static>>);

fn from_pem(text: &[u8]) -> Result<Found, String> {
    // RFC 1421's header, which openssl puts into an encrypted PKCS#1 key, and the label of encrypted PKCS#8.
    let begins = |mark: &str| text.split(|byte| *byte == b'\n').any(|line| line.starts_with(mark.as_bytes()));
    if begins("Proc-Type: 4,ENCRYPTED") || begins("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
        return Err("its private key is encrypted, and PEM can have no password here: \
                    decrypt it with `openssl pkey`, or make a PKCS#12 file with `openssl pkcs12 -export`"
            .to_owned());
    }
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|cause| format!("not a PEM file: {cause:?}"))?;
    let key = PrivateKeyDer::from_pem_slice(text)
        .map_err(|_| "no private key in it: a PEM block BEGIN PRIVATE KEY is needed".to_owned())?;
    if certificates.is_empty() {
        return Err("no certificate in it: a PEM block BEGIN CERTIFICATE is needed".to_owned());
    }
    Ok((key, certificates))
}

fn from_pkcs12(content: &[u8], password: &Secret) -> Result<Found, String> {
    let store = KeyStore::from_pkcs12(content, password.expose())
        .map_err(|cause| format!("not PKCS#12, or another password opens it: {cause}"))?;
    let (_, chain) = store.private_key_chain().ok_or("no private key with a certificate in it")?;
    let certificates = chain.chain().iter().map(|certificate| certificate.as_der().to_vec().into()).collect();
    Ok((PrivateKeyDer::Pkcs8(chain.key().to_vec().into()), certificates))
}

/// The certificate of the key, which is `public_key` (RSAPublicKey in DER), then its issuer, and so on. What belongs to
/// neither is left out: Entra ID takes the first for the one that signs.
fn chain(
    certificates: Vec<CertificateDer<'static>>,
    public_key: &[u8],
) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut parsed = Vec::new();
    for (index, certificate) in certificates.iter().enumerate() {
        let (_, certificate) = X509Certificate::from_der(certificate)
            .map_err(|cause| format!("certificate {} in it cannot be read: {cause}", index + 1))?;
        parsed.push((index, certificate));
    }
    let of_key = |(_, certificate): &(usize, X509Certificate<'_>)| {
        *certificate.public_key().subject_public_key.data == *public_key
    };
    let mut next = parsed.iter().position(of_key);
    if next.is_none() {
        let subjects: Vec<_> = parsed.iter().map(|(_, certificate)| certificate.subject().to_string()).collect();
        return Err(format!(
            "no certificate in it belongs to its private key, but to other keys: {}",
            quoted(&subjects.join("; ")).unwrap_or_default()
        ));
    }
    let mut order = Vec::new();
    while let Some(at) = next {
        // What is taken is gone, so that a circle of issuers ends.
        let (index, certificate) = parsed.remove(at);
        order.push(index);
        let is_root = certificate.issuer().as_raw() == certificate.subject().as_raw();
        next = parsed.iter().position(|(_, issuer)| !is_root && has_issued(issuer, &certificate));
    }
    Ok(order.into_iter().filter_map(|index| certificates.get(index).cloned()).collect())
}

/// By name, and by key id where both have one: a CA that has renewed its key keeps its name.
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

    fn parse(content: impl AsRef<[u8]>) -> Result<CertificateAssertion, String> {
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
    fn a_key_vaults_order_sends_the_leafs_thumbprint_and_its_chain_once_each() {
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
    fn what_cannot_sign_in_is_told() {
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
            let said = parse(parts.concat()).expect_err("cannot sign in");
            assert!(said.contains(says), "{parts:?}: {said}");
        }
        let stranger = CertificateDer::from_pem_slice(STRANGER.as_bytes()).expect("a certificate");
        let stranger = p12_keystore::Certificate::from_der(&stranger).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).expect("a key");
        let pair = p12_keystore::PrivateKeyChain::new(key.secret_der(), [1_u8], [stranger]);
        let mut store = KeyStore::new();
        store.add_entry("pair", p12_keystore::KeyStoreEntry::PrivateKeyChain(pair));
        let said = parse(store.writer("").write().expect("written")).expect_err("cannot sign in");
        assert!(said.contains("no certificate in it belongs to its private key"), "{said}");
        assert_eq!(parse(b"\xff\xfe-\0").expect_err("no PEM"), "it is text in UTF-16: save it as UTF-8");
    }
}
