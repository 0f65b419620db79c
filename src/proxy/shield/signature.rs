//! An image without a known signature, while the registry fails.
//!
//! podman, skopeo and CRI-O look for one at each pull, under a tag of its own, and a pull ends with any other answer than 200 and 404,
//! though they have the manifest from here already. Who wants a signature takes 404 as little as an error (containers-policy.json(5)).

use http::StatusCode;
use oci::error::{Code, Refusal};
use oci::name::signed_by;
use tokio::time::Instant;

use super::key;
use crate::cache::{Content, Freshness, KeyRef, Known, Part, Served};
use crate::proxy::context::Admitted;
use crate::proxy::destination::Kept;
use crate::proxy::fail::Trouble;
use crate::proxy::refused::Refused;

/// A 404 in place of an answer that is none, if a signature is asked for whose image is kept.
pub(super) fn none_is_known(served: &Served<Trouble>, admitted: &Admitted, kept: &Kept) -> Option<Refusal> {
    let image = admitted.target.manifest_path(&signed_by(admitted.target.reference())?);
    let known = kept.cache.peek(&KeyRef { path: &image, ..key(admitted, Part::Manifest) });
    let Some(Known::Answer(image)) = known else { return None };
    let is_usable =
        image.content.status == StatusCode::OK && image.freshness(&kept.lifetimes, Instant::now()) != Freshness::Ended;
    let why = match served {
        Served::Failed(trouble, _) if is_usable && trouble.is_upstreams() => trouble.to_string(),
        Served::Answer(content, _) if is_usable && fails(content) => {
            format!("the registry answers {}", content.status.as_u16())
        }
        _ => return None,
    };
    let message = format!("no signature of this image is known, and the registry cannot be asked for one: {why}");
    Some(Refusal::new(StatusCode::NOT_FOUND, Code::ManifestUnknown, message))
}

/// It is an answer for which something stale would stand in.
fn fails(content: &Content) -> bool {
    let is_none = content.status == StatusCode::NOT_FOUND || content.status.is_redirection();
    !is_none && Refused::is_trouble(content.status, &content.header_map(0), &content.body)
}
