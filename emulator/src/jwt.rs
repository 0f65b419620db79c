//! JSON Web Tokens (RFC 7519): signed with a key made for this run, and parsed.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde_json::{Map, Value, json};

/// The claims of a token.
pub(crate) type Claims = Map<String, Value>;

/// Signs tokens, and verifies those that it signed.
///
/// Azure signs with RS256; a key for that takes seconds to make, and no client of Entra or of
/// the registry should look at it, so this one is ES256.
pub(crate) struct Signer {
    key: EcdsaKeyPair,
    kid: String,
}

impl Signer {
    pub(crate) fn new() -> std::io::Result<Signer> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random)
            .map_err(|_| std::io::Error::other("no key for tokens could be made"))
            .and_then(|document| {
                EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random)
                    .map_err(|error| std::io::Error::other(error.to_string()))
            })?;
        let kid = key_id(key.public_key().as_ref());
        Ok(Signer { key, kid })
    }

    /// A signed token; empty when the system has no randomness left to sign with.
    pub(crate) fn sign(&self, claims: &Claims) -> String {
        let header = json!({"typ": "JWT", "alg": "ES256", "kid": self.kid});
        let input = format!("{}.{}", encode(&header), encode(claims));
        match self.key.sign(&SystemRandom::new(), input.as_bytes()) {
            Ok(signature) => {
                format!("{input}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref()))
            }
            Err(_) => String::new(),
        }
    }

    /// The claims of a token that this signer made; the caller judges `exp` and the rest.
    pub(crate) fn verify(&self, token: &str) -> Option<Claims> {
        let parsed = Unverified::parse(token)?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        key.verify(parsed.signed.as_bytes(), &parsed.signature).ok()?;
        Some(parsed.claims)
    }
}

fn encode(value: &impl serde::Serialize) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).unwrap_or_default())
}

/// A key identifier in the form of libtrust: twelve groups of four characters in base32.
fn key_id(public_key: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = digest(&SHA256, public_key);
    let mut text = String::new();
    for (index, group) in digest.as_ref()[..30].chunks_exact(5).enumerate() {
        let bits = group.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        for place in 0..8 {
            if place % 4 == 0 && (index, place) != (0, 0) {
                text.push(':');
            }
            text.push(char::from(ALPHABET[(bits >> (35 - 5 * place) & 31) as usize]));
        }
    }
    text
}

/// A parsed token whose signature is not verified yet.
pub(crate) struct Unverified<'a> {
    pub(crate) header: Claims,
    pub(crate) claims: Claims,
    /// What the signature covers.
    pub(crate) signed: &'a str,
    pub(crate) signature: Vec<u8>,
}

impl Unverified<'_> {
    pub(crate) fn parse(token: &str) -> Option<Unverified<'_>> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
        Some(Unverified {
            header: serde_json::from_slice(&decode(header)?).ok()?,
            claims: serde_json::from_slice(&decode(claims)?).ok()?,
            signed,
            signature: decode(signature)?,
        })
    }
}

/// A claim that is text, or nothing.
pub(crate) fn text<'a>(claims: &'a Claims, name: &str) -> &'a str {
    claims.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Whether `exp` is there and later than `now`, and `nbf` is not.
pub(crate) fn is_current(claims: &Claims, now: i64) -> bool {
    claims.contains_key("exp") && holds(claims, now)
}

/// The same, but a token without `exp` is valid too: one of our own, from which a fault removed it.
pub(crate) fn holds(claims: &Claims, now: i64) -> bool {
    let time = |name: &str| claims.get(name).map(|value| value.as_i64().or_else(|| Some(value.as_f64()? as i64)));
    time("exp").is_none_or(|end| end.is_some_and(|end| end > now))
        && time("nbf").flatten().is_none_or(|start| start <= now + 300)
}
