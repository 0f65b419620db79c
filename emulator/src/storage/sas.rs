//! An address in a storage account, with a shared access signature (SAS).
//!
//! Sources: azure-sdk-for-net recordings for the form; Azure Storage's create-service-sas for what is signed.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;

use crate::clock::iso_date;
use crate::query;
use crate::random;
use crate::request::Request;
use crate::state::State;

/// The version of the service that the registry signs for.
pub(super) const VERSION: &str = "2016-05-31";

/// Path and query; the double slash is Azure's.
pub(super) fn target(state: &State, digest: &str, expiry: i64) -> String {
    let hex = digest.trim_start_matches("sha256:");
    let account = format!("{}-{}", state.registry_id, &random::guid()[..8]);
    let path = format!("/{account}//docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
    let expiry = iso_date(expiry);
    let protocols = if state.options.storage_tls { "https" } else { "https,http" };
    let signature = hmac::sign(&key(state), text_to_sign(&path, &expiry, protocols).as_bytes());
    format!(
        "{path}?se={}&sig={}&sp=r&spr={}&sr=b&sv={VERSION}&regid={}",
        query::escape(&expiry),
        query::escape(&BASE64_STANDARD.encode(signature.as_ref())),
        query::escape(protocols),
        state.registry_id,
    )
}

/// The digest of the blob that a request is for; `None` if its signature is wrong or has expired.
pub(super) fn digest(state: &State, request: &Request) -> Option<String> {
    let expiry = request.parameter("se")?;
    let fixed = [("sp", "r"), ("sr", "b"), ("sv", VERSION)];
    if fixed.iter().any(|(name, value)| request.parameter(name) != Some(value)) {
        return None;
    }
    let signature = BASE64_STANDARD.decode(request.parameter("sig")?).ok()?;
    let text = text_to_sign(&request.path, expiry, request.parameter("spr")?);
    hmac::verify(&key(state), text.as_bytes(), &signature).ok()?;
    // Both have the same fixed width, so comparing the text compares the time.
    if expiry <= iso_date(state.clock.now()).as_str() {
        return None;
    }
    let hex = request.path.strip_suffix("/data")?.rsplit('/').next()?;
    Some(format!("sha256:{hex}"))
}

/// Covers everything that a client could change to its advantage.
fn text_to_sign(path: &str, expiry: &str, protocols: &str) -> String {
    format!("r\n{expiry}\n{path}\n{protocols}\nb\n{VERSION}")
}

fn key(state: &State) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &state.account_key)
}
