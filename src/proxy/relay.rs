//! The way back: what of the registry's answer is for the client, and in whose names.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{HeaderName, HeaderValue, Method, Version, header};
use pingora::http::ResponseHeader;
use pingora_core::Result;
use pingora_proxy::Session;

use super::context::Context;
use super::{fail, storage};
use crate::oci::rename::Renaming;

/// Headers that speak of the registry's host or of its sign-in, which the client has no part in.
static DROPPED: [HeaderName; 8] = [
    header::WWW_AUTHENTICATE,
    header::PROXY_AUTHENTICATE,
    header::SET_COOKIE,
    header::STRICT_TRANSPORT_SECURITY,
    header::ALT_SVC,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    HeaderName::from_static("authentication-info"),
    HeaderName::from_static("x-ms-ratelimit-remaining-calls-per-second"),
];
/// A body that is put in the client's names is held this far; Docker Hub's longest tag lists have less than a tenth of
/// it. A longer one passes as it is.
const MAX_HELD: usize = 4 << 20;

/// A body on its way into the client's names.
pub struct Rewriting {
    kind: Kind,
    gzip: bool,
    held: Vec<u8>,
    /// It grew too long: the rest passes.
    passes: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Tags,
    Errors,
}

/// Whether answers of this part of the API are read on their way back.
pub fn reads(endpoint: &str) -> bool {
    matches!(endpoint, "tags" | "referrers")
}

/// `response_filter`: drops what is the registry's own, and names things as the client does. All else, above all a
/// manifest and a redirect to storage with its signature, is left alone.
pub fn header(session: &mut Session, response: &mut ResponseHeader, context: &mut Context) -> Result<()> {
    if storage::header(response, context)? {
        return Ok(());
    }
    for name in &DROPPED {
        response.remove_header(name);
    }
    let status = fail::passed_on(response.status, context.endpoint, context.destination()?.on_failure);
    response.set_status(status)?;
    let kind = kind(response, context.endpoint);
    let speaks = [header::LINK, header::LOCATION].iter().any(|name| response.headers.contains_key(name));
    if kind.is_none() && !speaks {
        return Ok(());
    }
    let request = session.req_header();
    let namespace = namespace(request.uri.query());
    let names = names(request.uri.path(), context, namespace.as_deref());
    let authority = context.destination()?.upstream.domain.authority();
    let renamed = |name, rename: &dyn Fn(&str) -> Option<String>| {
        let value = response.headers.get(name)?.to_str().ok()?;
        HeaderValue::try_from(rename(value)?).ok()
    };
    let link = renamed(header::LINK, &|value| names.link(value, authority));
    let location = renamed(header::LOCATION, &|value| names.target(value, authority));
    let kind = kind.filter(|_| names.from != names.to);
    let (is_head, version) = (request.method == Method::HEAD, request.version);
    for (name, value) in [(header::LINK, link), (header::LOCATION, location)] {
        if let Some(value) = value {
            response.insert_header(name, value)?;
        }
    }
    let Some(kind) = kind else {
        return Ok(());
    };
    // How long it will be is not known yet. HTTP/2 frames its bodies, and HTTP/1.0 ends them with the connection.
    response.remove_header(&header::CONTENT_LENGTH);
    response.remove_header(&header::TRANSFER_ENCODING);
    if is_head {
        return Ok(());
    }
    match version {
        Version::HTTP_2 => {}
        Version::HTTP_11 => response.insert_header(header::TRANSFER_ENCODING, "chunked")?,
        _ => session.set_keepalive(None),
    }
    let gzip = response.headers.contains_key(header::CONTENT_ENCODING);
    context.rewriting = Some(Rewriting { kind, gzip, held: Vec::new(), passes: false });
    Ok(())
}

/// Which body this is, if it is one that names the repository and that can be read.
fn kind(response: &ResponseHeader, endpoint: &str) -> Option<Kind> {
    let text = |name| response.headers.get(name).map(|value| value.to_str().unwrap_or_default().to_ascii_lowercase());
    let readable = matches!(text(header::CONTENT_ENCODING).as_deref(), None | Some("gzip" | "x-gzip"));
    let json = text(header::CONTENT_TYPE).is_some_and(|value| value.contains("json"));
    if !readable || !json {
        return None;
    }
    match response.status.as_u16() {
        200 if endpoint == "tags" => Some(Kind::Tags),
        400.. => Some(Kind::Errors),
        _ => None,
    }
}

/// `response_body_filter`: holds such a body to its end, and lets every other one through.
pub fn body(session: &Session, body: &mut Option<Bytes>, end: bool, context: &mut Context) {
    let Some(mut rewriting) = context.rewriting.take() else {
        return;
    };
    if rewriting.passes {
        context.rewriting = Some(rewriting);
        return;
    }
    rewriting.held.extend_from_slice(&body.take().unwrap_or_default());
    if end {
        let request = session.req_header();
        let namespace = namespace(request.uri.query());
        *body = Some(rewriting.finish(&names(request.uri.path(), context, namespace.as_deref())).into());
        return;
    }
    if rewriting.held.len() > MAX_HELD {
        rewriting.passes = true;
        *body = Some(std::mem::take(&mut rewriting.held).into());
    }
    context.rewriting = Some(rewriting);
}

impl Rewriting {
    /// The body in the client's names, packed as it came; as it came altogether where it cannot be read.
    fn finish(self, names: &Renaming<'_>) -> Vec<u8> {
        let rename = |body: &[u8]| match self.kind {
            Kind::Tags => names.tags(body),
            Kind::Errors => names.errors(body),
        };
        let renamed = if self.gzip {
            unpacked(&self.held).and_then(|body| rename(&body)).and_then(|body| packed(&body))
        } else {
            rename(&self.held)
        };
        renamed.unwrap_or(self.held)
    }
}

/// `None` if it is no gzip or too long.
fn unpacked(body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    let length = GzDecoder::new(body).take(MAX_HELD as u64 + 1).read_to_end(&mut whole).ok()?;
    (length <= MAX_HELD).then_some(whole)
}

fn packed(body: &[u8]) -> Option<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(body).ok()?;
    packed.finish().ok()
}

fn names<'a>(path: &'a str, context: &'a Context, namespace: Option<&'a str>) -> Renaming<'a> {
    Renaming { from: context.repository(), to: context.client_name(path), namespace }
}

fn namespace(query: Option<&str>) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query?.as_bytes());
    pairs.find(|(name, _)| name == "ns").map(|(_, value)| value.into_owned()).filter(|value| !value.is_empty())
}
