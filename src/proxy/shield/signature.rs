//! An image without a known signature, while the registry cannot be asked for one.
//!
//! podman, skopeo and CRI-O look for one at each pull, under a tag of its own, and a pull ends with any other answer than 200 and 404,
//! though they have the manifest from here already. Who wants a signature takes 404 as little as an error (containers-policy.json(5)); but
//! who copies an image takes it for an image without one. So 404 is said of an outage only, which no client can bring about: not while the
//! registry or this proxy limits requests, and not of an answer that the registry gives to this one.

use http::StatusCode;
use http::header::RETRY_AFTER;
use oci::error::{Code, Refusal};
use oci::name::signed_by;
use tokio::time::Instant;

use super::key;
use crate::cache::{Content, Freshness, KeyRef, Known, Part, Served};
use crate::proxy::context::Admitted;
use crate::proxy::destination::Kept;
use crate::proxy::fail::Trouble;

/// A 404 in place of an answer that is none, if a signature is asked for whose image is kept.
pub(super) fn none_is_known(served: &Served<Trouble>, admitted: &Admitted, kept: &Kept) -> Option<Refusal> {
    let image = admitted.target.manifest_path(&signed_by(admitted.target.reference())?);
    let known = kept.cache.peek(&KeyRef { path: &image, ..key(admitted, Part::Manifest) });
    let Some(Known::Answer(image)) = known else { return None };
    let is_usable =
        image.content.status == StatusCode::OK && image.freshness(&kept.lifetimes, Instant::now()) != Freshness::Ended;
    let why = match served {
        Served::Failed(trouble, _) if is_usable && is_outage(trouble) => trouble.to_string(),
        Served::Answer(content, _) if is_usable && is_fault(content) => {
            format!("the registry answers {}", content.status.as_u16())
        }
        _ => return None,
    };
    let message = format!("no signature of this image is known, and the registry cannot be asked for one: {why}");
    Some(Refusal::new(StatusCode::NOT_FOUND, Code::ManifestUnknown, message))
}

/// The registry, the sign-in or the way there does not work at all.
fn is_outage(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::NoToken(_) => !trouble.is_right_refused(),
        Trouble::Down(cause) => is_outage(cause),
        Trouble::Unresolved | Trouble::Egress(_) | Trouble::Failing(_) | Trouble::Unreachable(_) | Trouble::Silent => {
            true
        }
        _ => false,
    }
}

/// The registry says that it does not work, and not when to come again, as it does where there is too much to do.
fn is_fault(content: &Content) -> bool {
    content.status.is_server_error() && !content.header_map(0).contains_key(RETRY_AFTER)
}
