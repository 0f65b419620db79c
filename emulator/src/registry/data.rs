//! The data plane: reads of `/v2/` and everything below it.
//!
//! Sources: the distribution specification; recordings of azure-sdk-for-net and azure-sdk-for-go for headers and bodies.

use hyper::Method;
use serde_json::{Value, json};

use super::error::{self, Detail, Missing, error, no_such_page, unauthorized};
use super::manifest::manifest;
use super::resource::Resource;
use super::{oauth, origin};
use crate::answer::Answer;
use crate::query;
use crate::rate_limits::Kind;
use crate::request::Request;
use crate::state::State;
use crate::storage;

/// Names or tags on a page if the request does not say; the lists in AAD-OAuth.md have a hundred.
const PAGE: usize = 100;

pub(super) fn answer(state: &State, request: &Request) -> Answer {
    let Some(resource) = Resource::parse(&request.path) else {
        return no_such_page();
    };
    if !request.is_read() {
        return error(405, "UNSUPPORTED", "The operation is unsupported.", None);
    }
    let identity = match authorize(state, request, resource) {
        Ok(identity) => identity,
        Err(challenge) => return challenge,
    };
    let kind = match resource {
        Resource::Ping => None,
        Resource::Referrers { .. } => Some(Kind::Referrers),
        _ => Some(Kind::Read),
    };
    if let Some(left) = kind.and_then(|kind| state.meter.refuse(&state.options.rate_limits, kind, &identity)) {
        return error::too_many_requests(left);
    }
    match resource {
        Resource::Ping => Answer::json(200, &json!({})),
        Resource::Catalog => {
            listed(request, "/v2/_catalog", state.store.names(), |names| json!({ "repositories": names }))
        }
        Resource::Manifest { repository, reference } => manifest(state, request, repository, reference),
        Resource::Blob { repository, digest } => blob(state, request, repository, digest),
        Resource::Tags { repository } => match state.store.tags(repository) {
            Some(tags) => listed(
                request,
                &format!("/v2/{repository}/tags/list"),
                tags,
                |tags| json!({"name": repository, "tags": tags}),
            ),
            None => unknown_name(repository),
        },
        Resource::Referrers { repository, digest } => referrers(state, request, repository, digest),
    }
}

pub(super) fn challenge(state: &State, request: &Request) -> Answer {
    challenged(state, Resource::parse(&request.path), false)
}

/// Who asks, if they may.
fn authorize(state: &State, request: &Request, resource: Resource<'_>) -> Result<String, Answer> {
    let mut lines = request.header_values("authorization");
    let bearer = match (lines.next(), lines.next()) {
        (Some(only), None) => {
            only.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer")).map(|(_, token)| token)
        }
        _ => None,
    };
    let Some((identity, access)) = bearer.and_then(|token| oauth::access_of(state, token)) else {
        return Err(challenged(state, Some(resource), false));
    };
    let is_enough = match resource.access() {
        None => true,
        Some((_, name, _)) if state.is_revoked(name) => false,
        Some((kind, name, action)) => access.iter().any(|entry| {
            entry.covers(kind, name, action) && (entry.names(name) || !state.options.refuses_wildcard_tokens)
        }),
    };
    if is_enough { Ok(identity) } else { Err(challenged(state, Some(resource), true)) }
}

fn challenged(state: &State, resource: Option<Resource<'_>>, is_too_narrow: bool) -> Answer {
    let detail = match resource.and_then(Resource::access) {
        Some((kind, name, action)) => Detail::Access([Missing { kind, name, action }]),
        None => Detail::Value(Value::Null),
    };
    let mut header = challenge_for(state, resource);
    if is_too_narrow {
        header.push_str(",error=\"insufficient_scope\"");
    }
    unauthorized(Some(detail)).header("WWW-Authenticate", header)
}

/// The challenge of a 401 to this request.
pub(super) fn challenge_header(state: &State, request: &Request) -> String {
    challenge_for(state, Resource::parse(&request.path))
}

fn challenge_for(state: &State, resource: Option<Resource<'_>>) -> String {
    let mut header = format!("Bearer realm=\"{}\",service=\"{}\"", state.realm(), state.options.login_server);
    if let Some((kind, name, action)) = resource.and_then(Resource::access) {
        header.push_str(&format!(",scope=\"{kind}:{name}:{action}\""));
    }
    header
}

fn unknown_name(repository: &str) -> Answer {
    let detail = json!({ "name": repository });
    error(404, "NAME_UNKNOWN", "repository name not known to registry", Some(detail))
}

/// Whether it is a digest that this registry can hold. The router accepts more (see [`Resource::parse`]).
fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

fn blob(state: &State, request: &Request, repository: &str, digest: &str) -> Answer {
    if !is_digest(digest) {
        let message = "provided digest did not match uploaded content";
        return error(400, "DIGEST_INVALID", message, Some(json!({})));
    }
    let Some(length) = state.store.blob_length(repository, digest) else {
        let detail = json!({ "digest": digest });
        return error(404, "BLOB_UNKNOWN", "blob unknown to registry", Some(detail));
    };
    // The registry answers HEAD itself, without a redirect, an `ETag` or `Accept-Ranges` (azure-sdk-for-go recording of
    // CheckBlobExists, 2024-08).
    if request.method == Method::HEAD {
        return Answer::new(200)
            .header("Content-Type", "application/octet-stream")
            .header("Content-Length", length.to_string())
            .header("Docker-Content-Digest", digest);
    }
    let location = storage::location(state, repository, digest);
    let link = format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", location.replace('&', "&amp;"));
    let answer = Answer::new(307)
        .header("Content-Type", "text/html")
        .header("Docker-Content-Digest", digest)
        .header("Location", location)
        .body(link);
    origin::marked(state, repository, digest, answer)
}

/// One page of names in order, with a relative link to the next (Azure/acr AAD-OAuth.md).
fn listed(request: &Request, path: &str, names: Vec<String>, body: impl Fn(&[String]) -> Value) -> Answer {
    let size = match request.parameter("n").map(str::parse::<usize>) {
        None => PAGE,
        Some(Ok(size)) if size > 0 => size,
        Some(_) => {
            let message = "invalid number of results requested";
            return error(400, "PAGINATION_NUMBER_INVALID", message, None);
        }
    };
    let start = match request.parameter("last") {
        None | Some("") => 0,
        Some(last) => names.partition_point(|name| name.as_str() <= last),
    };
    let rest = &names[start..];
    let page = &rest[..rest.len().min(size)];
    let answer = Answer::json(200, &body(page));
    match page.last() {
        Some(last) if page.len() < rest.len() => {
            let last = query::escape(last);
            answer.header("Link", format!("<{path}?last={last}&n={size}&orderby=>; rel=\"next\""))
        }
        _ => answer,
    }
}

fn referrers(state: &State, request: &Request, repository: &str, digest: &str) -> Answer {
    if !is_digest(digest) {
        return error(400, "DIGEST_INVALID", "invalid digest", Some(json!({})));
    }
    let Some(mut found) = state.store.referrers(repository, digest) else {
        return unknown_name(repository);
    };
    let filter = request.parameter("artifactType");
    if let Some(wanted) = filter {
        found.retain(|descriptor| descriptor["artifactType"] == wanted);
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": found,
    });
    let mut answer = Answer::json(200, &index);
    answer.set_header("Content-Type", "application/vnd.oci.image.index.v1+json");
    match filter {
        Some(_) => answer.header("OCI-Filters-Applied", "artifactType"),
        None => answer,
    }
}
