//! A blob's request to storage and the response, in Pingora's phases.

use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::Result;
use pingora_core::upstreams::peer::HttpPeer;

use super::range;
use super::redirect::Storage;
use crate::answer::{self, CORRELATION_ID, DIGEST};
use crate::net::addresses::{Connect, LOOKUP_LIMIT};
use crate::proxy::context::{Admitted, Body};
use crate::proxy::fail::Trouble;
use crate::proxy::forward;
use crate::proxy::relay::{bounds, framing};
use crate::proxy::reply::API_VERSION_2;
use crate::proxy::retry;

/// The headers of a request that storage needs.
const FORWARDED: [HeaderName; 3] = [header::RANGE, header::IF_RANGE, header::USER_AGENT];
/// The headers of its response that a client needs: a registry's answer for a blob has no others. One that is packed can be unpacked by
/// who knows of it alone.
const RELAYED: [HeaderName; 7] = [
    header::ACCEPT_RANGES,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::DATE,
    header::LAST_MODIFIED,
    header::TRANSFER_ENCODING,
];

/// `upstream_peer`: the storage, once the registry has redirected there; `None` before. A host name that was used before
/// has addresses to go to at once.
pub(crate) async fn peer(Admitted { destination, attempts, .. }: &mut Admitted) -> Result<Option<Box<HttpPeer>>> {
    let Some(storage) = attempts.storage() else {
        return Ok(None);
    };
    let host = storage.host();
    let (upstream, port) = (&destination.upstream, storage.domain().port());
    let way = upstream.egress.way((host, port), || upstream.storage_names.get(host, port));
    forward::follow_move(way.addresses(), attempts).await;
    let resolved = way.addresses().resolve(LOOKUP_LIMIT.min(attempts.time_left())).await;
    let Some(connect) = Connect::new(&way) else {
        let cause = match (way.unresolved(), resolved) {
            (Some(no_tunnel), _) => no_tunnel.to_string(),
            (None, resolved) => resolved.err().map_or_else(String::new, |unresolved| unresolved.to_string()),
        };
        return Err(Trouble::Storage(format!("blob storage {host}: {cause}")).into_error());
    };
    let server_name = storage.domain().server_name().to_owned();
    Ok(Some(Box::new(forward::peer_of(connect, &server_name, attempts))))
}

/// `upstream_request_filter`: a new request. No header comes from the one to the registry.
pub(crate) fn upstream_request(client: &RequestHeader, request: &mut RequestHeader, storage: &Storage) -> Result<()> {
    let room = Some(FORWARDED.len() + 2);
    let mut outgoing = RequestHeader::build_no_case(request.method.clone(), storage.target(), room)?;
    outgoing.set_version(request.version);
    outgoing.insert_header(header::HOST, storage.domain().authority())?;
    for name in &FORWARDED {
        for value in client.headers.get_all(name) {
            outgoing.append_header(name, value)?;
        }
    }
    *request = outgoing;
    Ok(())
}

/// `upstream_response_filter`: the blob, the range of it that was asked for, or a 416 for one that it does not have goes to the client. So
/// does the status of an error that clients act on, never its body, which is written for the owner of the storage account.
pub(crate) fn check_response(response: &ResponseHeader, client: &RequestHeader, admitted: &mut Admitted) -> Result<()> {
    let status = response.status;
    let unclear = framing::unclear(response).or_else(|| bounds::of_header(response));
    if let Some(why) = unclear.or_else(|| range::contradicts(status, &response.headers, &client.headers)) {
        return Err(unusable(admitted, why).into_error());
    }
    // Another success, such as 204, has no blob.
    if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE) {
        return Ok(());
    }
    if retry::repeat(client, admitted, Some(response)) {
        return Err(retry::again(response));
    }
    let host = admitted.attempts.storage().map_or("", Storage::host).to_owned();
    let is_told = match status {
        // containerd repeats them on its last host, which it does not with 502, and podman waits.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => true,
        // Clients that want several ranges turn to single ones after these, and only after these.
        StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED => range::are_several(&client.headers),
        _ => false,
    };
    let trouble = if is_told {
        Trouble::StorageSays { host, status, retry_after: answer::bounded_pause(&response.headers) }
    } else {
        Trouble::Storage(format!("blob storage {host}: {} to the registry's redirect", status.as_u16()))
    };
    Err(trouble.into_error())
}

/// An answer that cannot be used for this reason, of the storage that the request has gone to, or else of the registry.
pub(crate) fn unusable(admitted: &Admitted, why: &'static str) -> Trouble {
    match admitted.attempts.storage().map(Storage::host) {
        Some(host) => Trouble::Storage(format!("blob storage {host}: its answer cannot be used: {why}")),
        None => Trouble::Broken(why),
    }
}

/// `response_filter`: makes of it the answer of a registry that serves its blobs itself.
pub(crate) fn answer(
    response: &mut ResponseHeader,
    storage: &Storage,
    correlation: Option<&HeaderValue>,
) -> Result<Body> {
    let mut answer = ResponseHeader::build(response.status, Some(RELAYED.len() + 4))?;
    answer.set_version(response.version);
    for name in &RELAYED {
        if let Some(value) = response.headers.get(name) {
            answer.insert_header(name, value)?;
        }
    }
    // Several ranges come as one body, and the boundary between them is named here (RFC 9110 section 14.6).
    let kind = response.headers.get(header::CONTENT_TYPE).filter(|_| response.status == StatusCode::PARTIAL_CONTENT);
    match kind.filter(|kind| range::is_multipart(Some(kind))) {
        Some(kind) => answer.insert_header(header::CONTENT_TYPE, kind)?,
        None => answer.insert_header(header::CONTENT_TYPE, "application/octet-stream")?,
    }
    answer.insert_header(API_VERSION_2.0, API_VERSION_2.1)?;
    if let Some(digest) = storage.digest() {
        answer.insert_header(DIGEST, digest)?;
    }
    if let Some(correlation) = correlation {
        answer.insert_header(&CORRELATION_ID, correlation)?;
    }
    let mut body = Body::Unchanged;
    if response.status == StatusCode::RANGE_NOT_SATISFIABLE {
        // The header says all that a client can use: how long the blob is. The body is written for the storage account's owner.
        answer.remove_header(&header::TRANSFER_ENCODING);
        answer.insert_header(header::CONTENT_LENGTH, "0")?;
        body = Body::Withheld;
    }
    *response = answer;
    Ok(body)
}
