//! The response, on its way to the client: which headers it keeps, and which names are replaced by the client's.

use bytes::Bytes;
use http::{HeaderName, Method, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::blob::storage;
use super::cache_status::{self, CACHE_STATUS};
use super::context::{Body, Cached, Context};
use super::{fail, hop_by_hop};
use crate::answer::{CORRELATION_ID, correlation, pause_for_clients};
use crate::cache::Reason;
use bounds::Bounds;

pub(super) mod bounds;
pub(super) mod framing;
pub(super) mod names;

/// Headers about the registry's host or its sign-in, which do not concern the client.
fn is_about_registry(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "www-authenticate"
            | "proxy-authenticate"
            | "authentication-info"
            | "set-cookie"
            | "strict-transport-security"
            | "alt-svc"
            // About the connection to the registry and no other (RFC 9110 section 7.6.1).
            | "keep-alive"
            | "upgrade"
            | "trailer"
            | "access-control-expose-headers"
            | "x-ms-ratelimit-remaining-calls-per-second"
    )
}

/// Whether a response of the registry or of storage is an interim one, which goes to no client (RFC 9110 section 15.2).
/// `Err` for 101: no request of ours asks for another protocol, and Pingora would open a tunnel.
pub(crate) fn is_interim(response: &ResponseHeader) -> Result<bool> {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, "101 to a request without Upgrade").into_up());
    }
    Ok(response.status.is_informational())
}

/// `response_filter`: drops the headers that are not for the client, and puts the client's names in place of the registry's.
/// All else is unchanged, above all manifests and the signature in a redirect to storage.
pub(crate) fn header(session: &mut Session, response: &mut ResponseHeader, context: &mut Context) -> Result<()> {
    if session.req_header().method != Method::HEAD {
        let admitted = context.admitted()?;
        let bounds = Bounds::of(response, admitted.target.endpoint());
        let bounds = bounds.map_err(|why| storage::unusable(admitted, why).into_error())?;
        context.bound_body(bounds);
    }
    // Whatever the registry writes there, perhaps what it was sent, is for nobody (RFC 9112 section 4).
    response.set_reason_phrase(None)?;
    framing::last_of_process(session);
    framing::end_with_connection(session, response);
    let names = response.headers.keys().filter(|name| is_about_registry(name));
    let dropped: Vec<_> = names.chain(hop_by_hop::listed(&response.headers)).cloned().collect();
    for name in &dropped {
        response.remove_header(name);
    }
    if context.admitted()?.attempts.storage().is_none() {
        context.registry_answers(response.status, &response.headers, &Bytes::new());
    }
    let admitted = &*context.admitted()?;
    let body = if let Some(storage) = admitted.attempts.storage() {
        storage::answer(response, storage, admitted.attempts.correlation())?
    } else {
        let status = fail::passed_on(response.status, admitted.target.endpoint(), admitted.destination.on_failure);
        response.set_status(status)?;
        match correlation(&response.headers) {
            Some(id) => response.insert_header(&CORRELATION_ID, id)?,
            None => drop(response.remove_header(&CORRELATION_ID)),
        }
        names::rename(session, response, admitted)?
    };
    let reason = match context.cached() {
        Some(Cached::Passed(reason)) => Some(reason),
        // The redirect was here; the layer to which it leads is not kept.
        Some(Cached::Here(_)) => Some(Reason::Kind),
        None => None,
    };
    if let Some(reason) = reason {
        response.insert_header(&CACHE_STATUS, cache_status::passed(reason))?;
    }
    if response.headers.contains_key(header::RETRY_AFTER) {
        match pause_for_clients(&response.headers) {
            Some(pause) => response.insert_header(header::RETRY_AFTER, pause)?,
            None => drop(response.remove_header(&header::RETRY_AFTER)),
        }
    }
    context.answered(response.status, body);
    Ok(())
}

/// A piece of a body that is written next, within the time that the client has for it.
pub(crate) fn pace(session: &mut Session, piece: Bytes, context: &mut Context) -> Bytes {
    let (piece, limit) = context.paced(piece);
    if limit.is_some() {
        session.set_write_timeout(limit);
    }
    piece
}

/// `response_body_filter`: holds a body that is renamed to its end, and lets every other one through.
pub(crate) fn body(session: &mut Session, part: &mut Option<Bytes>, is_end: bool, context: &mut Context) -> Result<()> {
    if let Err(why) = context.pass_body(part.as_ref().map_or(0, Bytes::len), is_end) {
        return Err(storage::unusable(context.admitted()?, why).into_error());
    }
    if let Some(part) = part {
        context.registry_sends(part);
    }
    let (body, admitted) = context.body()?;
    match body {
        Body::Unchanged | Body::Whole(_) => {}
        Body::Withheld => *part = None,
        Body::Renamed(held) => {
            *part = part.take().and_then(|part| held.feed(part));
            if is_end && let Body::Renamed(held) = std::mem::replace(body, Body::Unchanged) {
                let (rest, share) = names::rest(session.req_header(), held, admitted);
                *body = Body::Whole(share);
                if !rest.is_empty() {
                    *part = Some(rest);
                }
            }
        }
    }
    context.count_body(part.as_ref().map_or(0, Bytes::len));
    *part = part.take().map(|part| pace(session, part, context));
    Ok(())
}
