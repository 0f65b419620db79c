//! An address of a dedicated data endpoint, `<name>.<region>.data.azurecr.io`.
//!
//! Source: the fixtures of Azure/peerd's `pkg/urlparser` for the parameters, their order and that there is no path. `p`
//! and `s` are opaque there, and long; that `p` holds the expiry and `s` signs the rest is inferred.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac;

use crate::random;
use crate::request::Request;
use crate::state::State;

const TOKEN_BYTES: usize = 20;
/// Length of `p`, so that the address is as long as real ones, over 1 kB.
const PADDING_BYTES: usize = 512;
/// Tags of 32 bytes in `s`, which is as long as an RSA signature.
const SIGNATURE_TAGS: u8 = 8;
const SIGNATURE_VERSION: &str = "1";

/// A query without a path: it follows the host directly.
pub(super) fn target(state: &State, repository: &str, digest: &str, expiry: i64) -> String {
    let mut sealed = expiry.to_be_bytes().to_vec();
    sealed.extend(random::bytes::<PADDING_BYTES>());
    let signed = format!(
        "t={}&h={}&c={}&r={repository}&d={digest}&p={}",
        hex::encode(random::bytes::<TOKEN_BYTES>()),
        state.options.login_server,
        random::guid(),
        BASE64_URL_SAFE_NO_PAD.encode(sealed),
    );
    let signature = BASE64_URL_SAFE_NO_PAD.encode(sign(state, &signed));
    format!("?{signed}&s={signature}&v={SIGNATURE_VERSION}")
}

/// The digest of the blob that a request is for; `None` if its signature is wrong or has expired.
pub(super) fn digest(state: &State, request: &Request) -> Option<String> {
    if request.path != "/" || request.parameter("v") != Some(SIGNATURE_VERSION) {
        return None;
    }
    let mut signed = String::new();
    for name in ["t", "h", "c", "r", "d", "p"] {
        let separator = if signed.is_empty() { "" } else { "&" };
        signed.push_str(&format!("{separator}{name}={}", request.parameter(name)?));
    }
    let signature = BASE64_URL_SAFE_NO_PAD.decode(request.parameter("s")?).ok()?;
    if signature != sign(state, &signed) {
        return None;
    }
    let sealed = BASE64_URL_SAFE_NO_PAD.decode(request.parameter("p")?).ok()?;
    let expiry = i64::from_be_bytes(sealed.first_chunk().copied()?);
    (expiry > state.clock.now()).then(|| request.parameter("d").map(str::to_owned)).flatten()
}

fn sign(state: &State, text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &state.account_key);
    let tag = |number: u8| hmac::sign(&key, format!("{number}\n{text}").as_bytes()).as_ref().to_vec();
    (0..SIGNATURE_TAGS).flat_map(tag).collect()
}
