//! Client assertions, signed for real.

use std::sync::Arc;

use acr_emulator::{CLIENT_ID, Client, Options, TENANT};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use crate::azure::{Azure, SCOPE, field, json};

const REGISTERED: (&str, &str) = (include_str!("keys/registered.crt"), include_str!("keys/registered.key"));
const OTHER: (&str, &str) = (include_str!("keys/other.crt"), include_str!("keys/other.key"));
const SUBJECT: &str = "system:serviceaccount:kube-system:pull";
const ISSUER: &str = "https://oidc.example/1";

async fn azure() -> Azure {
    let client = Client {
        secret: None,
        certificate_pem: Some(REGISTERED.0.to_owned()),
        federated_subject: Some(SUBJECT.to_owned()),
        federated_issuer: Some(ISSUER.to_owned()),
        ..Client::default()
    };
    Azure::with(Options { clients: vec![client], ..Options::default() }).await
}

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("a time").as_secs()
}

fn encode(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

fn sign(header: &Value, claims: &Value, key: &str, padding: &'static dyn RsaEncoding) -> String {
    let key = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let key = Arc::new(RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).expect("an RSA key"));
    let input = format!("{}.{}", encode(header), encode(claims));
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(padding, &SystemRandom::new(), input.as_bytes(), &mut signature).expect("a signature");
    format!("{input}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn thumbprint(certificate: &str, algorithm: &'static ring::digest::Algorithm) -> String {
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate");
    BASE64_URL_SAFE_NO_PAD.encode(digest(algorithm, &der))
}

fn sha1() -> Value {
    let x5t = thumbprint(REGISTERED.0, &SHA1_FOR_LEGACY_USE_ONLY);
    json!({"alg": "RS256", "typ": "JWT", "x5t": x5t})
}

fn sha256() -> Value {
    json!({"alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint(REGISTERED.0, &SHA256)})
}

fn claims(azure: &Azure) -> Value {
    json!({
        "aud": format!("{}{TENANT}/oauth2/v2.0/token", azure.emulator.authority()),
        "iss": CLIENT_ID,
        "sub": CLIENT_ID,
        "jti": "1",
        "nbf": now(),
        "exp": now() + 600,
    })
}

fn with(claims: &Value, name: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    claims[name] = value;
    claims
}

async fn code(azure: &Azure, assertion: &str) -> u64 {
    let answer = azure
        .entra(&[
            ("grant_type", "client_credentials"),
            ("client_id", CLIENT_ID),
            ("scope", SCOPE),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion),
        ])
        .await;
    let status = answer.status();
    let body = json(answer).await;
    if status == 200 {
        assert!(!field(&body, "access_token").is_empty());
        return 0;
    }
    assert_eq!((status.as_u16(), &body["error"]), (401, &json!("invalid_client")), "{body}");
    body["error_codes"][0].as_u64().expect("a code")
}

#[tokio::test]
async fn a_registered_certificate_proves_the_client() {
    let azure = azure().await;
    let claims = claims(&azure);
    assert_eq!(code(&azure, &sign(&sha1(), &claims, REGISTERED.1, &RSA_PKCS1_SHA256)).await, 0);
    assert_eq!(code(&azure, &sign(&sha256(), &claims, REGISTERED.1, &RSA_PSS_SHA256)).await, 0);
}

#[tokio::test]
async fn a_bad_assertion_is_refused_by_its_first_fault() {
    let azure = azure().await;
    let good = claims(&azure);
    let sign = |header: &Value, claims: &Value, key| sign(header, claims, key, &RSA_PKCS1_SHA256);
    let stranger = with(&sha1(), "x5t", json!(thumbprint(OTHER.0, &SHA1_FOR_LEGACY_USE_ONLY)));
    for (assertion, expected) in [
        (sign(&stranger, &good, OTHER.1), 700_027),
        (sign(&sha1(), &good, OTHER.1), 700_027),
        // The header promises PSS, the signature is PKCS #1.
        (sign(&sha256(), &good, REGISTERED.1), 700_027),
        (sign(&with(&sha1(), "alg", json!("none")), &good, REGISTERED.1), 5_002_738),
        (sign(&sha1(), &with(&good, "iss", json!("x")), REGISTERED.1), 700_021),
        (sign(&sha1(), &with(&good, "sub", json!("x")), REGISTERED.1), 700_021),
        (sign(&sha1(), &with(&good, "aud", json!("https://x/")), REGISTERED.1), 700_023),
        (sign(&sha1(), &with(&good, "exp", json!(now() - 1)), REGISTERED.1), 700_024),
        (sign(&sha1(), &with(&good, "nbf", json!(now() + 900)), REGISTERED.1), 700_024),
        (sign(&sha1(), &with(&good, "exp", Value::Null), REGISTERED.1), 700_024),
        ("not a token".to_owned(), 50_027),
    ] {
        assert_eq!(code(&azure, &assertion).await, expected);
    }
}

#[tokio::test]
async fn a_federated_token_proves_the_client_by_subject_and_issuer() {
    let azure = azure().await;
    let header = json!({"alg": "RS256", "kid": "1"});
    let good = json!({
        "aud": ["api://AzureADTokenExchange"],
        "iss": ISSUER,
        "sub": SUBJECT,
        "exp": now() + 600,
    });
    for (claims, expected) in [
        (good.clone(), 0),
        (with(&good, "sub", json!("system:serviceaccount:default:x")), 700_213),
        (with(&good, "iss", json!("https://oidc.example/2")), 700_213),
        (with(&good, "aud", json!("https://kubernetes.default.svc")), 700_212),
        (with(&good, "exp", json!(now() - 1)), 700_024),
    ] {
        let assertion = sign(&header, &claims, OTHER.1, &RSA_PKCS1_SHA256);
        assert_eq!(code(&azure, &assertion).await, expected);
    }
}
