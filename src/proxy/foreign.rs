//! What is not the registry's answer, by its header or, where that is read here, by its body: something between this host and the
//! registry has given it, such as a page for signing in to a network.

use std::collections::HashMap;

use http::{HeaderMap, HeaderName, StatusCode, header};
use pingora::http::ResponseHeader;
use serde::de::IgnoredAny;

use super::blob::range;
use super::blob::redirect::storage_of;
use super::destination::Destination;
use super::endpoint::Endpoint;
use super::relay::names;
use super::target::Target;
use crate::answer::{DIGEST, begins, is_of_registry, is_of_type, is_page_of_another};

/// What the answer to anything but a blob is that is a redirect.
const ELSEWHERE: &str = "it is a redirect, which may be of something between this host and the registry";
/// What a redirect is that nobody can follow.
const NOWHERE: &str = "it is a redirect without an address";
/// What a redirect is whose address goes to no client, which so could not follow it either.
const ASTRAY: &str = "it is a redirect of a blob, neither to one of the repository nor to a web address";
/// What an answer is of whose addresses only the first would be looked at, and a client may follow another one.
const TWO_WAYS: &str = "it has more than one Location";
/// What an answer is of which one client would take one digest, and another client the other.
const TWO_DIGESTS: &str = "it says two digests";
/// What a 407 is: a client that took it for its own would send the password of its own proxy.
const OF_A_PROXY: &str = "it is a 407, which is no registry's: look for a proxy between this host and the registry";
/// What a 304 is that nobody has asked for.
const NO_CONDITION: &str = "it says that nothing has changed, and that was not asked";
/// A 206 has only a part of what was asked for, and nothing says that another success has the whole.
pub(crate) const OTHER_SUCCESS: &str = "its status is a success other than 200";
/// Why an answer is not used that has none of the content that was asked for.
pub(crate) const NO_MANIFEST: &str = "it is no manifest";
pub(crate) const NO_LIST: &str = "it is not JSON";
const NO_BLOB: &str = "it is no blob";
const OTHER_DIGEST: &str = "its Docker-Content-Digest is another digest than was asked for";

/// The headers by which a client asks whether something has changed.
static CONDITIONS: [HeaderName; 2] = [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE];

/// Why this cannot be the registry's answer; `None` where it can.
pub(crate) fn why(response: &ResponseHeader, target: &Target, destination: &Destination) -> Option<&'static str> {
    match target.endpoint() {
        _ if response.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED => Some(OF_A_PROXY),
        _ if response.headers.get_all(header::LOCATION).iter().nth(1).is_some() => Some(TWO_WAYS),
        _ if says_two_digests(&response.headers) => Some(TWO_DIGESTS),
        Endpoint::Blob if is_redirect(response.status) && !has_address(response) => Some(NOWHERE),
        Endpoint::Blob if is_redirect(response.status) && !may_lead(response, target, destination) => Some(ASTRAY),
        Endpoint::Blob if is_elsewhere(response, destination) => Some(ELSEWHERE),
        // ACR itself has all but blobs.
        Endpoint::Manifest | Endpoint::Tags | Endpoint::Referrers if is_redirect(response.status) => Some(ELSEWHERE),
        _ if !response.status.is_success() || !is_page_of_another(&response.headers) => None,
        Endpoint::Blob => Some(NO_BLOB),
        Endpoint::Manifest => Some(NO_MANIFEST),
        Endpoint::Tags | Endpoint::Referrers => Some(NO_LIST),
    }
}

fn says_two_digests(headers: &HeaderMap) -> bool {
    let mut said = headers.get_all(&DIGEST).iter();
    said.next().is_some_and(|first| said.any(|other| other != first))
}

/// A blob's redirect that is not as ACR's, which are 307, and leads to no storage that is known. Other registries redirect as they like.
fn is_elsewhere(response: &ResponseHeader, destination: &Destination) -> bool {
    let hosts = &destination.blob_hosts;
    is_redirect(response.status)
        && response.status != StatusCode::TEMPORARY_REDIRECT
        && hosts.are_of_acr()
        && storage_of(response.status, &response.headers, destination.upstream.domain.authority(), hosts).is_err()
}

/// Its `Location` is one that a client can follow: a path of the registry's, or a URL with a host.
fn has_address(response: &ResponseHeader) -> bool {
    const SCHEMES: [&[u8]; 2] = [b"https://", b"http://"];
    response.headers.get(header::LOCATION).is_some_and(|location| {
        let location = location.as_bytes();
        let has_host = |scheme: &[u8]| location.get(scheme.len()).is_some_and(|first| !b"/?#".contains(first));
        location.starts_with(b"/") || SCHEMES.iter().any(|scheme| begins(location, scheme) && has_host(scheme))
    })
}

/// A client may be led where it leads.
fn may_lead(response: &ResponseHeader, target: &Target, destination: &Destination) -> bool {
    let location = response.headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
    location.is_some_and(|location| names::may_lead(location, destination.upstream.domain.authority(), target))
}

/// Why an answer that is passed on cannot be one to the client's request. What is read here is judged by its content, and asked for
/// again.
pub(crate) fn contradicts(response: &ResponseHeader, client: &HeaderMap, target: &Target) -> Option<&'static str> {
    match response.status {
        StatusCode::OK => says_other_digest(response, target).then_some(OTHER_DIGEST),
        StatusCode::NOT_MODIFIED => {
            let is_asked = CONDITIONS.iter().any(|name| client.contains_key(name));
            (!is_asked).then_some(NO_CONDITION)
        }
        status if is_other_success(status) => Some(OTHER_SUCCESS),
        // The registry is never asked for a part of a list.
        status if target.endpoint().is_list() => range::contradicts(status, &response.headers, &HeaderMap::new()),
        status => range::contradicts(status, &response.headers, client),
    }
}

/// A success that has no content that was asked for.
fn is_other_success(status: StatusCode) -> bool {
    status.is_success() && !matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT)
}

/// A manifest was asked for by its digest, and it says another one. That of another algorithm may be the same manifest's.
fn says_other_digest(response: &ResponseHeader, target: &Target) -> bool {
    if target.endpoint() != Endpoint::Manifest || !target.is_by_digest() {
        return false;
    }
    let wanted = target.reference();
    let algorithm = wanted.split_inclusive(':').next().unwrap_or_default().as_bytes();
    let said = response.headers.get_all(&DIGEST).iter().map(|said| said.as_bytes());
    let mut same_algorithm = said.filter(|said| begins(said, algorithm));
    same_algorithm.any(|said| !said.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// It says where the content is, as a 304 does not.
pub(crate) fn is_redirect(status: StatusCode) -> bool {
    status.is_redirection() && status != StatusCode::NOT_MODIFIED
}

/// It says that it is a page for people.
pub(crate) fn is_page(response: &ResponseHeader) -> bool {
    is_of_type(&response.headers, "text/html")
}

/// In place of a manifest it has other JSON, such as the status of a network's sign-in page. Each known kind of manifest says its version
/// or its type; an unknown type, or a header of a registry, may belong to a kind that is not known here.
pub(crate) fn is_other_json(response: &ResponseHeader, body: &[u8]) -> bool {
    let has_own_type = response.headers.contains_key(header::CONTENT_TYPE)
        && !["application/json", "text/"].iter().any(|kind| is_of_type(&response.headers, kind));
    if has_own_type || is_of_registry(&response.headers) {
        return false;
    }
    let members = serde_json::from_slice::<HashMap<String, IgnoredAny>>(body).unwrap_or_default();
    !["schemaVersion", "mediaType"].iter().any(|name| members.contains_key(*name))
}
