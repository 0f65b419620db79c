//! Signing in with a client certificate: the assertion is a JWT that the certificate's key signs.
//!
//! Form and claims: Microsoft identity platform, "Certificate credentials" (PS256, `x5t#S256`). Signed with
//! ring, since azure_identity's own certificate credential brings openssl.

use std::fmt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use azure_core::error::{Error, ErrorKind};
use azure_core::http::ClientMethodOptions;
use azure_identity::ClientAssertion;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use p12_keystore::KeyStore;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{RSA_PSS_SHA256, RsaKeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// A certificate with its chain and key is a few KiB.
const MAX_FILE: u64 = 1 << 20;
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
    certificates: Vec<CertificateDer<'static>>,
    audience: String,
    client_id: String,
}

impl CertificateAssertion {
    /// Reads a certificate (first; a chain may follow) and its RSA key. PEM: the key unencrypted, PKCS#8 or PKCS#1.
    /// PKCS#12: with its password, if it has one. The error is one sentence that names the file.
    pub fn read(path: &Path, password: &Secret, application: &Application) -> Result<Self, String> {
        let read = || {
            let size = std::fs::metadata(path).map_err(|cause| cause.to_string())?.len();
            if size > MAX_FILE {
                return Err(format!("{size} bytes are too many for a certificate and its key"));
            }
            let content = Zeroizing::new(std::fs::read(path).map_err(|cause| cause.to_string())?);
            // PKCS#12 is DER, which begins with a SEQUENCE.
            if content.first() == Some(&0x30) {
                Self::from_pkcs12(&content, password, application)
            } else {
                Self::from_pem(&content, application)
            }
        };
        read().map_err(|cause| format!("{}: {cause}", path.display()))
    }

    fn from_pem(text: &[u8], application: &Application) -> Result<Self, String> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(text)
            .collect::<Result<_, _>>()
            .map_err(|cause| format!("not a PEM file: {cause:?}"))?;
        let key = PrivateKeyDer::from_pem_slice(text)
            .map_err(|_| "no unencrypted private key in it: a PEM block BEGIN PRIVATE KEY is needed".to_owned())?;
        Self::new(certificates, &key, application)
    }

    fn from_pkcs12(content: &[u8], password: &Secret, application: &Application) -> Result<Self, String> {
        let store = KeyStore::from_pkcs12(content, password.expose())
            .map_err(|cause| format!("not PKCS#12, or another password opens it: {cause}"))?;
        let (_, chain) = store.private_key_chain().ok_or("no private key in it")?;
        let certificates = chain.chain().iter().map(|certificate| certificate.as_der().to_vec().into()).collect();
        let key = PrivateKeyDer::Pkcs8(chain.key().to_vec().into());
        Self::new(certificates, &key, application)
    }

    fn new(
        certificates: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
        application: &Application,
    ) -> Result<Self, String> {
        if certificates.is_empty() {
            return Err("no certificate in it: a PEM block BEGIN CERTIFICATE is needed".to_owned());
        }
        let key = match key {
            PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            _ => return Err("Entra ID takes RSA keys only".to_owned()),
        }
        .map_err(|cause| format!("the private key is no RSA key of 2048 bits or more: {cause}"))?;
        let Application { authority, tenant_id, client_id } = application;
        let audience = format!("{}/{tenant_id}/oauth2/v2.0/token", authority.trim_end_matches('/'));
        Ok(Self { key, certificates, audience, client_id: client_id.clone() })
    }

    fn sign(&self, now: u64) -> Result<String, &'static str> {
        let random = SystemRandom::new();
        let mut id = [0; 16];
        random.fill(&mut id).map_err(|_| "no random numbers")?;
        let certificate = self.certificates.first().ok_or("no certificate")?;
        let thumbprint = ring::digest::digest(&ring::digest::SHA256, certificate);
        let chain: Vec<_> = self.certificates.iter().map(|certificate| STANDARD.encode(certificate)).collect();
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
