//! Client assertions (RFC 7523): signed by a registered certificate, or by a federated issuer.
//!
//! Source: entra-docs certificate-credentials and workload-identity-federation.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use serde_json::Value;
use webpki::EndEntityCert;
use webpki::ring::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256_LEGACY_KEY};

use super::refusal::Refusal;
use crate::jwt::{Claims, Unverified, is_current, text};
use crate::options::Client;

/// The only kind of assertion that Entra takes here.
pub(super) const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The audience of a token that another issuer made for Entra.
const FEDERATED_AUDIENCE: &str = "api://AzureADTokenExchange";

fn refused(code: u32, message: impl Into<String>) -> Refusal {
    Refusal::new(401, "invalid_client", code, message)
}

/// Checks an assertion against what the application has registered.
///
/// A header with a thumbprint says that a certificate signed it; without one it comes from a
/// federated issuer, whose keys are out of reach here, so that its claims alone decide.
pub(super) fn verify(assertion: &str, client: &Client, audiences: &[String], now: i64) -> Result<(), Refusal> {
    let Some(token) = Unverified::parse(assertion) else {
        return Err(refused(50_027, "JWT token is invalid or malformed."));
    };
    if ["x5t", "x5t#S256"].iter().any(|name| token.header.contains_key(*name)) {
        signed_by_certificate(&token, client)?;
        certificate_claims(&token.claims, client, audiences, now)
    } else {
        federated_claims(&token.claims, client, now)
    }
}

fn signed_by_certificate(token: &Unverified<'_>, client: &Client) -> Result<(), Refusal> {
    let unknown = || {
        let message = "Client assertion failed signature validation. The key was not found.";
        refused(700_027, message)
    };
    let certificate = client
        .certificate_pem
        .as_deref()
        .and_then(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok())
        .ok_or_else(unknown)?;
    let thumbprint = |algorithm| BASE64_URL_SAFE_NO_PAD.encode(digest(algorithm, &certificate));
    let matches = |name: &str, algorithm| {
        // Both base64 alphabets and padding are met in the wild.
        let given = text(&token.header, name);
        let given = given.trim_end_matches('=').replace('+', "-").replace('/', "_");
        !token.header.contains_key(name) || given == thumbprint(algorithm)
    };
    if !matches("x5t", &SHA1_FOR_LEGACY_USE_ONLY) || !matches("x5t#S256", &SHA256) {
        return Err(unknown());
    }
    let algorithm: &dyn SignatureVerificationAlgorithm = match text(&token.header, "alg") {
        "RS256" => RSA_PKCS1_2048_8192_SHA256,
        "PS256" => RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        other => {
            let message = format!("The assertion's algorithm '{other}' is not supported.");
            return Err(refused(5_002_738, message));
        }
    };
    EndEntityCert::try_from(&certificate)
        .and_then(|end| end.verify_signature(algorithm, token.signed.as_bytes(), &token.signature))
        .map_err(|_| {
            refused(
                700_027,
                "Client assertion failed signature validation. The provided signature value did not match the expected signature value.",
            )
        })
}

fn certificate_claims(claims: &Claims, client: &Client, audiences: &[String], now: i64) -> Result<(), Refusal> {
    let names_client = |claim| text(claims, claim).eq_ignore_ascii_case(&client.client_id);
    if !names_client("iss") || !names_client("sub") {
        let message = "Client assertion application identifier doesn't match 'client_id' parameter.";
        return Err(refused(700_021, message));
    }
    if !audiences.iter().any(|audience| has_audience(claims, audience)) {
        let message = "Client assertion audience claim does not match Realm issuer.";
        return Err(refused(700_023, message));
    }
    current(claims, now)
}

fn federated_claims(claims: &Claims, client: &Client, now: i64) -> Result<(), Refusal> {
    let subject = text(claims, "sub");
    let issuer = text(claims, "iss");
    let is_registered = client.federated_subject.as_deref() == Some(subject)
        && client.federated_issuer.as_deref().is_none_or(|registered| registered == issuer);
    if !is_registered {
        let message = format!(
            "No matching federated identity record found for presented assertion subject '{subject}'. Assertion Issuer: '{issuer}'."
        );
        return Err(refused(700_213, message));
    }
    if !has_audience(claims, FEDERATED_AUDIENCE) {
        let message = "No matching federated identity record found for presented assertion audience.";
        return Err(refused(700_212, message));
    }
    current(claims, now)
}

fn current(claims: &Claims, now: i64) -> Result<(), Refusal> {
    if is_current(claims, now) {
        return Ok(());
    }
    Err(refused(700_024, "Client assertion is not within its valid time range."))
}

/// `aud` is one text or, from Kubernetes, a list of them.
fn has_audience(claims: &Claims, wanted: &str) -> bool {
    match claims.get("aud") {
        Some(Value::String(audience)) => audience.eq_ignore_ascii_case(wanted),
        Some(Value::Array(audiences)) => audiences.iter().any(|audience| audience == wanted),
        _ => false,
    }
}
