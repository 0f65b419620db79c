//! Manifests, and which one a client gets depending on the types that it accepts.
//!
//! Media types are compared literally; `*/*` and `q=` are ignored, and no answer has a `Vary`. Sources:
//! azure-sdk-for-go recordings of GetManifest and GetTagProperties (the child of a Docker list), Azure/acr-cli#132,
//! Azure/acr#764 and Azure/azure-cli#25280 (the messages for OCI types), distribution 2.8 (which message when, and what
//! `If-None-Match` does; unproved on Azure's own registries).

use serde_json::{Value, json};

use super::error::error;
use super::origin;
use crate::answer::Answer;
use crate::request::Request;
use crate::state::State;
use crate::store::Manifest;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

pub(super) fn manifest(state: &State, request: &Request, repository: &str, reference: &str) -> Answer {
    let is_by_tag = !reference.contains(':');
    let digest = if is_by_tag { state.store.tagged(repository, reference) } else { Some(reference.to_owned()) };
    let Some(digest) = digest else {
        let message = format!("manifest tagged by \"{reference}\" is not found");
        return error(404, "MANIFEST_UNKNOWN", &message, Some(json!({"Tag": reference})));
    };
    // Before the manifest is looked for: a digest that is known to the client is not modified even if it is gone.
    if is_known(request, &digest) {
        return Answer::new(304);
    }
    let Some(manifest) = state.store.manifest(repository, &digest) else {
        let message = format!("manifest {reference} is not found");
        return error(404, "MANIFEST_UNKNOWN", &message, Some(json!({"Digest": reference})));
    };
    let (digest, manifest) = match offer(&manifest.media_type, is_by_tag, |media_type| accepts(request, media_type)) {
        Offer::Itself => (digest, manifest),
        Offer::Child => {
            let child = default_child(&manifest);
            match child.and_then(|child| Some((child.clone(), state.store.manifest(repository, &child)?))) {
                Some(child) => child,
                None => return not_accepted("manifest list", "manifest lists"),
            }
        }
        Offer::Nothing { found, kind } => return not_accepted(found, kind),
    };
    origin::marked(state, repository, reference, served(&digest, manifest))
}

/// `If-None-Match` as distribution reads it: each header line is one digest, in quotes or without. Lists, `W/` and `*` match
/// nothing.
fn is_known(request: &Request, digest: &str) -> bool {
    let quoted = format!("\"{digest}\"");
    request.header_values("if-none-match").any(|known| known == digest || known == quoted)
}

/// What a client gets for a manifest.
#[derive(Debug, PartialEq, Eq)]
enum Offer {
    Itself,
    /// The manifest for linux/amd64 in a list.
    Child,
    /// The name of its type, singular and plural.
    Nothing {
        found: &'static str,
        kind: &'static str,
    },
}

/// Only a tag may be answered with another manifest. A request by digest gets that digest, so a Docker list is served then
/// whatever the client accepts. A list of which neither itself nor a child is accepted is refused; distribution converted it
/// to schema 1, which ACR no longer serves (inferred, and so is the message).
fn offer(media_type: &str, is_by_tag: bool, accepts: impl Fn(&str) -> bool) -> Offer {
    match media_type {
        OCI_INDEX if !accepts(OCI_INDEX) => Offer::Nothing { found: "OCI index", kind: "OCI indexes" },
        OCI_MANIFEST if !accepts(OCI_MANIFEST) => Offer::Nothing { found: "OCI manifest", kind: "OCI manifests" },
        DOCKER_LIST if is_by_tag && !accepts(DOCKER_LIST) => {
            if accepts(DOCKER_MANIFEST) {
                Offer::Child
            } else {
                Offer::Nothing { found: "manifest list", kind: "manifest lists" }
            }
        }
        _ => Offer::Itself,
    }
}

fn accepts(request: &Request, media_type: &str) -> bool {
    request
        .header_values("accept")
        .flat_map(|line| line.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|accepted| accepted.trim() == media_type)
}

/// Without a `detail`, unlike other errors (Azure/acr#764).
fn not_accepted(found: &str, kind: &str) -> Answer {
    let message = format!("{found} found, but accept header does not support {kind}");
    error(404, "MANIFEST_UNKNOWN", &message, None)
}

/// The digest of a list's manifest for linux/amd64, which distribution serves to clients that do not know lists.
fn default_child(list: &Manifest) -> Option<String> {
    let list: Value = serde_json::from_slice(&list.bytes).ok()?;
    let platform = json!({"architecture": "amd64", "os": "linux"});
    let child = list["manifests"].as_array()?.iter().find(|child| child["platform"] == platform)?;
    Some(child["digest"].as_str()?.to_owned())
}

fn served(digest: &str, manifest: Manifest) -> Answer {
    Answer::new(200)
        .header("Docker-Content-Digest", digest)
        .header("ETag", format!("\"{digest}\""))
        .header("Set-Cookie", "ARRAffinity=6d1f7cbb2a; Path=/; HttpOnly; Secure")
        .header("Content-Type", manifest.media_type)
        .body(manifest.bytes)
}

#[cfg(test)]
mod tests {
    use super::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Offer, offer};

    #[test]
    fn what_is_accepted_decides_what_is_served() {
        let no_list = || Offer::Nothing { found: "manifest list", kind: "manifest lists" };
        for (media_type, is_by_tag, accepted, expected) in [
            (OCI_INDEX, false, OCI_INDEX, Offer::Itself),
            (OCI_INDEX, true, "*/*", Offer::Nothing { found: "OCI index", kind: "OCI indexes" }),
            (OCI_INDEX, false, OCI_MANIFEST, Offer::Nothing { found: "OCI index", kind: "OCI indexes" }),
            (OCI_MANIFEST, true, OCI_INDEX, Offer::Nothing { found: "OCI manifest", kind: "OCI manifests" }),
            (OCI_MANIFEST, true, OCI_MANIFEST, Offer::Itself),
            (DOCKER_LIST, true, DOCKER_LIST, Offer::Itself),
            (DOCKER_LIST, true, DOCKER_MANIFEST, Offer::Child),
            (DOCKER_LIST, true, "*/*", no_list()),
            (DOCKER_LIST, true, "application/*", no_list()),
            (DOCKER_LIST, false, DOCKER_MANIFEST, Offer::Itself),
            (DOCKER_MANIFEST, true, "*/*", Offer::Itself),
        ] {
            let offered = offer(media_type, is_by_tag, |asked| asked == accepted);
            assert_eq!(offered, expected, "{media_type} {is_by_tag} {accepted}");
        }
    }
}
