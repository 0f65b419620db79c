//! What tells `docker-registry` whom to trust, in Azure's words.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use testkit::CLIENT;

/// What `docker-registry` trusts: the certificate whose key signs the tokens. Azure's registries sign with RSA, too.
pub(crate) const CERTIFICATE: &str = include_str!("../../emulator/tests/it/keys/registered.crt");
const KEY: &str = include_str!("../../emulator/tests/it/keys/registered.key");
/// `docker-registry` is told both, and takes tokens of no other issuer and for no other service.
pub(crate) const ISSUER: &str = "Azure Container Registry";
pub(crate) const SERVICE: &str = "example.azurecr.io";
const LIFETIME: u64 = 3600;

/// The token endpoints of a registry of Azure's.
pub(crate) struct Tokens {
    key: RsaKeyPair,
    serial: AtomicU64,
    grants_nothing: AtomicBool,
}

impl Tokens {
    pub(crate) fn new() -> Self {
        let key = PrivatePkcs8KeyDer::from_pem_slice(KEY.as_bytes()).expect("a key");
        let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).expect("an RSA key");
        Self { key, serial: AtomicU64::new(0), grants_nothing: AtomicBool::new(false) }
    }

    /// From now on tokens are given that allow nothing.
    pub(crate) fn grant_nothing(&self) {
        self.grants_nothing.store(true, Ordering::SeqCst);
    }

    /// Status and body of the answer to a form.
    pub(crate) fn answer(&self, path: &str, form: &[u8]) -> (u16, String) {
        let form: Vec<(String, String)> = form_urlencoded::parse(form).into_owned().collect();
        let field = |name: &str| form.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
        let granted = match (path, field("grant_type"), field("service")) {
            ("/oauth2/exchange", "access_token", SERVICE) => self.exchange(field("access_token")),
            ("/oauth2/token", "refresh_token", SERVICE) => {
                let refused =
                    claims(field("refresh_token")).is_none_or(|claims| claims["grant_type"] != "refresh_token");
                (!refused).then(|| json!({"access_token": self.access(field("scope"), &["pull"])}))
            }
            _ => None,
        };
        match granted {
            Some(granted) => (200, granted.to_string()),
            None => (401, json!({"errors": [{"code": "UNAUTHORIZED", "message": "not for you"}]}).to_string()),
        }
    }

    /// Entra's signature is Entra's own affair; whose token it is can be seen.
    fn exchange(&self, entra: &str) -> Option<Value> {
        let is_known = claims(entra).is_some_and(|claims| claims["appid"] == CLIENT);
        // An ABAC registry's token names the identity. Like such a registry, `docker-registry` knows no wildcard.
        let claims = json!({"grant_type": "refresh_token", "aad_identity": CLIENT});
        is_known.then(|| json!({"refresh_token": self.sign(claims)}))
    }

    /// A token for a scope, as `repository:<name>:pull`.
    pub(crate) fn access(&self, scope: &str, actions: &[&str]) -> String {
        let name = scope.split(':').nth(1).unwrap_or_default();
        let access = json!([{"type": "repository", "name": name, "actions": actions}]);
        let nothing = self.grants_nothing.load(Ordering::SeqCst);
        self.sign(json!({"grant_type": "access_token", "access": if nothing { json!([]) } else { access }}))
    }

    fn sign(&self, mut claims: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        for (name, value) in [
            ("iss", json!(ISSUER)),
            ("aud", json!(SERVICE)),
            ("sub", json!(CLIENT)),
            ("jti", json!(self.serial.fetch_add(1, Ordering::SeqCst).to_string())),
            ("iat", json!(now)),
            ("nbf", json!(now)),
            ("exp", json!(now + LIFETIME)),
        ] {
            claims[name] = value;
        }
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("a certificate");
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [BASE64_STANDARD.encode(&certificate)]});
        let encoded = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = encoded.join(".");
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).expect("signed");
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

fn claims(token: &str) -> Option<Value> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok()
}
