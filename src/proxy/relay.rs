//! The way back: what of the registry's answer is for the client, and in whose names.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use pingora::http::ResponseHeader;
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::context::Context;
use super::endpoint::Endpoint;
use super::{fail, storage};
use oci::rename::Renaming;
use oci::rewrite::{Kind, Rewriting};

/// Headers that speak of the registry's host or of its sign-in, which the client has no part in.
fn is_the_registrys(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "www-authenticate"
            | "proxy-authenticate"
            | "authentication-info"
            | "set-cookie"
            | "strict-transport-security"
            | "alt-svc"
            // Of the connection to the registry, and of none other (RFC 9110 section 7.6.1).
            | "keep-alive"
            | "upgrade"
            | "trailer"
            | "access-control-expose-headers"
            | "x-ms-ratelimit-remaining-calls-per-second"
    )
}

/// Whether an answer of the registry or of storage is an interim one, which goes to no client (RFC 9110 section 15.2).
/// `Err` for 101: no request of ours asks for another protocol, and Pingora would open a tunnel.
pub fn is_interim(response: &ResponseHeader) -> Result<bool> {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, "101 to a request without Upgrade").into_up());
    }
    Ok(response.status.is_informational())
}

/// This answer goes to no client: the request is sent again.
pub fn again(response: &ResponseHeader) -> Box<Error> {
    let mut error = Error::explain(ErrorType::HTTPStatus(response.status.as_u16()), "asked again").into_up();
    error.set_retry(true);
    error
}

/// `response_filter`: drops what is the registry's own, and names things as the client does. All else, above all a
/// manifest and a redirect to storage with its signature, is left alone.
pub fn header(session: &mut Session, response: &mut ResponseHeader, context: &mut Context) -> Result<()> {
    // Chunks are nothing that a client of HTTP/1.0 can read (RFC 9112 section 6.1): its body ends with the connection.
    if session.req_header().version < Version::HTTP_11 && !response.headers.contains_key(header::CONTENT_LENGTH) {
        response.remove_header(&header::TRANSFER_ENCODING);
        session.set_keepalive(None);
    }
    if storage::header(response, context)? {
        return Ok(());
    }
    let dropped: Vec<_> = response.headers.keys().filter(|name| is_the_registrys(name)).cloned().collect();
    for name in &dropped {
        response.remove_header(name);
    }
    let status = fail::passed_on(response.status, context.endpoint()?, context.destination()?.on_failure);
    response.set_status(status)?;
    let kind = kind(response, context.endpoint()?);
    let speaks = [header::LINK, header::LOCATION].iter().any(|name| response.headers.contains_key(name));
    if kind.is_none() && !speaks {
        return Ok(());
    }
    let request = session.req_header();
    let namespace = namespace(request.uri.query());
    let names = names(request.uri.path(), context, namespace.as_deref())?;
    let renamed = |value: &HeaderValue, rename: &dyn Fn(&str) -> Option<String>| {
        HeaderValue::try_from(rename(value.to_str().ok()?)?).ok()
    };
    let links: Vec<_> = (response.headers.get_all(header::LINK).iter())
        .map(|value| renamed(value, &|value| names.link(value)).unwrap_or_else(|| value.clone()))
        .collect();
    let location = response.headers.get(header::LOCATION);
    let location = location.and_then(|value| renamed(value, &|value| names.location(value)));
    let kind = kind.filter(|_| names.from != names.to);
    let gzip = response.headers.contains_key(header::CONTENT_ENCODING);
    let rewriting = kind.and_then(|kind| Rewriting::new(kind, gzip, length(response), &names));
    let (is_head, version) = (request.method == Method::HEAD, request.version);
    response.remove_header(&header::LINK);
    for link in links {
        response.append_header(header::LINK, link)?;
    }
    if let Some(location) = location {
        response.insert_header(header::LOCATION, location)?;
    }
    let Some(rewriting) = rewriting else {
        return Ok(());
    };
    response.remove_header(&header::TRANSFER_ENCODING);
    match rewriting.promised() {
        Some(length) => response.insert_header(header::CONTENT_LENGTH, length)?,
        None => {
            response.remove_header(&header::CONTENT_LENGTH);
            match version {
                _ if is_head => {}
                // It frames its bodies itself.
                Version::HTTP_2 => {}
                Version::HTTP_11 => response.insert_header(header::TRANSFER_ENCODING, "chunked")?,
                _ => session.set_keepalive(None),
            }
        }
    }
    if !is_head {
        context.rewriting = Some(rewriting);
    }
    Ok(())
}

/// The length of a body, as far as its head says it.
fn length(response: &ResponseHeader) -> Option<u64> {
    if response.headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    response.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Which body this is, if it is one that names the repository and that can be read.
fn kind(response: &ResponseHeader, endpoint: Endpoint) -> Option<Kind> {
    let kind = match response.status.as_u16() {
        200 if endpoint.names_repository() => Kind::Tags,
        400.. => Kind::Errors,
        _ => return None,
    };
    let text = |name| response.headers.get(name).map(|value| value.to_str().unwrap_or_default().to_ascii_lowercase());
    let readable = matches!(text(header::CONTENT_ENCODING).as_deref(), None | Some("gzip" | "x-gzip"));
    let json = text(header::CONTENT_TYPE).is_some_and(|value| value.contains("json"));
    (readable && json).then_some(kind)
}

/// `response_body_filter`: holds such a body to its end, and lets every other one through.
pub fn body(session: &Session, body: &mut Option<Bytes>, end: bool, context: &mut Context) -> Result<()> {
    if storage::withholds_body(context) {
        *body = None;
        return Ok(());
    }
    let Some(rewriting) = &mut context.rewriting else {
        return Ok(());
    };
    *body = body.take().and_then(|part| rewriting.feed(part));
    if end && let Some(rewriting) = context.rewriting.take() {
        let request = session.req_header();
        let namespace = namespace(request.uri.query());
        let rest = rewriting.finish(&names(request.uri.path(), context, namespace.as_deref())?);
        if !rest.is_empty() {
            *body = Some(rest);
        }
    }
    Ok(())
}

fn names<'a>(path: &'a str, context: &'a Context, namespace: Option<&'a str>) -> Result<Renaming<'a>> {
    let authority = context.destination()?.upstream.domain.authority();
    Ok(Renaming { from: context.repository(), to: context.client_name(path), namespace, authority })
}

fn namespace(query: Option<&str>) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query?.as_bytes());
    pairs.find(|(name, _)| name == "ns").map(|(_, value)| value.into_owned()).filter(|value| !value.is_empty())
}
