//! The registry's response in the client's names: `Link`, `Location`, and the bodies that name the repository.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::Result;
use pingora_proxy::Session;

use super::framing;
use crate::proxy::context::{Admitted, Body};
use crate::proxy::endpoint::Endpoint;
use crate::proxy::held_body::HeldBody;
use crate::proxy::room::Share;
use crate::proxy::target::{Target, parts_within};
use oci::rename::{Renaming, own_path};
use oci::rewrite::{BodyKind, Rewriting};

/// Renames what the header names, and says how the body is to go.
pub(crate) fn rename(session: &mut Session, response: &mut ResponseHeader, admitted: &Admitted) -> Result<Body> {
    let kind = kind(response, admitted.target.endpoint());
    let names_something = [header::LINK, header::LOCATION].iter().any(|name| response.headers.contains_key(name));
    if kind.is_none() && !names_something {
        return Ok(Body::Unchanged);
    }
    let request = session.req_header();
    let is_head = request.method == Method::HEAD;
    let namespace = namespace(request.uri.query());
    let names = renaming(request.uri.path(), admitted, namespace.as_deref());
    headers(response, &names, &admitted.target)?;
    let kind = kind.filter(|_| names.from != names.to);
    let is_gzip = response.headers.contains_key(header::CONTENT_ENCODING);
    let rewriting = kind.and_then(|kind| Rewriting::new(kind, is_gzip, framing::length(response)));
    let Some(rewriting) = rewriting else {
        return Ok(Body::Unchanged);
    };
    framing::without_length(session, response)?;
    Ok(if is_head { Body::Unchanged } else { Body::Renamed(HeldBody::new(rewriting)) })
}

/// The same for a response whose body is here as a whole: the new body, if it changes. Where there is no room for a second one it
/// does not, as one does not that is too long.
pub(crate) fn whole(
    request: &RequestHeader,
    response: &mut ResponseHeader,
    body: &[u8],
    admitted: &Admitted,
) -> Result<Option<Bytes>> {
    let namespace = namespace(request.uri.query());
    let names = renaming(request.uri.path(), admitted, namespace.as_deref());
    headers(response, &names, &admitted.target)?;
    if names.from == names.to {
        return Ok(None);
    }
    let Some(kind) = kind(response, admitted.target.endpoint()) else { return Ok(None) };
    let mut share = Share::default();
    if !share.grow(body.len()) {
        return Ok(None);
    }
    Ok(kind.renamed(body, &names).map(|renamed| share.hold(renamed.into())))
}

/// Renames in `Link` and `Location`, and drops what leads to something else than what was asked for.
fn headers(response: &mut ResponseHeader, names: &Renaming<'_>, target: &Target) -> Result<()> {
    let renamed = |value: &HeaderValue, rename: &dyn Fn(&str) -> Option<String>| {
        HeaderValue::try_from(rename(value.to_str().ok()?)?).ok()
    };
    let path = target.path().split('?').next().unwrap_or_default();
    let links: Vec<_> = (response.headers.get_all(header::LINK).iter())
        .filter(|value| value.to_str().is_ok_and(|value| names.links_to(value, path)))
        .map(|value| renamed(value, &|value| names.link(value)).unwrap_or_else(|| value.clone()))
        .collect();
    response.remove_header(&header::LINK);
    for link in links {
        response.append_header(header::LINK, link)?;
    }
    let Some(location) = response.headers.get(header::LOCATION) else { return Ok(()) };
    if !location.to_str().is_ok_and(|location| may_lead(location, names.authority, target)) {
        response.remove_header(&header::LOCATION);
    } else if let Some(location) = renamed(location, &|value| names.location(value)) {
        response.insert_header(header::LOCATION, location)?;
    }
    Ok(())
}

/// Whether a client may be led there: to the same object, a manifest also to one by its digest, a blob to another one of the
/// repository or to storage. ACR has nothing else.
pub(crate) fn may_lead(location: &str, authority: &str, target: &Target) -> bool {
    let Some(path) = own_path(location, authority) else {
        let scheme = location.split_once("://").map_or("", |(scheme, _)| scheme);
        let is_web = ["https", "http"].iter().any(|web| scheme.eq_ignore_ascii_case(web));
        return target.endpoint().is_blob() && is_web;
    };
    match (target.endpoint(), parts_within(path, target.repository())) {
        (Endpoint::Blob, Some(("blobs", _))) => true,
        (Endpoint::Manifest, Some(("manifests", reference))) => {
            reference == target.reference() || reference.contains(':')
        }
        _ => false,
    }
}

/// The rest of a body that was held, at its end, and what it takes until the client has it.
pub(crate) fn rest(client: &RequestHeader, held: HeldBody, admitted: &Admitted) -> (Bytes, Share) {
    let namespace = namespace(client.uri.query());
    held.finish(&renaming(client.uri.path(), admitted, namespace.as_deref()))
}

/// Which body this is, if it is one that names the repository and that can be read.
fn kind(response: &ResponseHeader, endpoint: Endpoint) -> Option<BodyKind> {
    let kind = match response.status.as_u16() {
        200 if endpoint.names_repository() => BodyKind::Tags,
        400.. => BodyKind::Errors,
        _ => return None,
    };
    let text = |name: HeaderName| {
        response.headers.get(name).map(|value| value.to_str().unwrap_or_default().to_ascii_lowercase())
    };
    let is_readable = matches!(text(header::CONTENT_ENCODING).as_deref(), None | Some("gzip" | "x-gzip"));
    let is_json = text(header::CONTENT_TYPE).is_some_and(|value| value.contains("json"));
    (is_readable && is_json).then_some(kind)
}

fn renaming<'a>(client_path: &'a str, admitted: &'a Admitted, namespace: Option<&'a str>) -> Renaming<'a> {
    let authority = admitted.destination.upstream.domain.authority();
    let target = &admitted.target;
    Renaming { from: target.repository(), to: target.client_name(client_path), namespace, authority }
}

/// The registry that the client names by `ns`, which its links have to go on naming.
fn namespace(query: Option<&str>) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query?.as_bytes());
    pairs.find(|(name, _)| name == "ns").map(|(_, value)| value.into_owned()).filter(|value| !value.is_empty())
}
