//! Blobs through the proxy: the registry's redirect is followed here, once, for clients that cannot reach the storage.
//!
//! What signs the request is in the redirect's address, so the registry's token stays behind, and the address goes into
//! no log and to no client.

use std::sync::Arc;

use http::{HeaderValue, StatusCode, Uri, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;
use zeroize::Zeroizing;

use super::context::Context;
use super::fail::Trouble;
use super::forward::{self, MOVE_WAIT};
use super::relay;
use crate::answer;
use crate::net::addresses::{Attempt, LOOKUP_LIMIT};
use oci::rename::own_path;
use oci::route::Blobs;

/// Where Azure keeps blobs, in each of its clouds; the name in front is the storage account's.
const AZURE: [&str; 3] = [".blob.core.windows.net", ".blob.core.usgovcloudapi.net", ".blob.core.chinacloudapi.cn"];
/// The headers of a request that storage needs.
const FORWARDED: [header::HeaderName; 3] = [header::RANGE, header::IF_RANGE, header::USER_AGENT];
/// The headers of its answer that a client needs: of a registry's answer for a blob, the rest is unknown to it.
const RELAYED: [header::HeaderName; 6] = [
    header::ACCEPT_RANGES,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::DATE,
    header::LAST_MODIFIED,
    header::TRANSFER_ENCODING,
];
const DIGEST: &str = "docker-content-digest";

/// Where a redirect leads.
pub struct Storage {
    host: String,
    authority: String,
    port: u16,
    /// Path and query as they came: the signature covers them, and is in them.
    target: Zeroizing<Vec<u8>>,
    /// What the registry said of the blob.
    digest: Option<HeaderValue>,
    /// Tries to connect to it that came to nothing.
    refused: usize,
}

impl Storage {
    /// The storage's name, for the log.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// One more try to connect came to nothing: how many by now.
    pub fn refuse(&mut self) -> usize {
        self.refused += 1;
        self.refused
    }
}

/// Which hosts hold a registry's blobs.
#[derive(Clone, Debug)]
pub struct BlobHosts {
    /// The registry's own data endpoints, `<name>.<region>.data.azurecr.io`: how they begin and end.
    data: Option<(String, String)>,
    /// Further ones: whole, or as a suffix with a dot in front.
    further: Vec<String>,
}

impl BlobHosts {
    /// For a registry's login server, with what the settings add.
    pub fn new(login_server: &str, further: &[String]) -> Self {
        let zone = login_server.find(".azurecr.").map(|at| &login_server[at..]);
        let name = login_server.split('.').next();
        let data = name.zip(zone).map(|(name, zone)| (format!("{name}."), format!(".data{zone}")));
        Self { data, further: further.to_vec() }
    }

    /// Azure's own only at the port of `https`.
    fn allow(&self, host: &str, port: u16) -> bool {
        let authority = format!("{host}:{port}");
        let is_data = self.data.as_ref().is_some_and(|(name, zone)| host.starts_with(name) && host.ends_with(zone));
        let is_further = |known: &String| match known.strip_prefix('.') {
            Some(_) => port == HTTPS && host.ends_with(known.as_str()),
            None => *known == authority || (port == HTTPS && known == host),
        };
        let is_azures = AZURE.iter().any(|zone| host.ends_with(zone)) || is_data;
        (port == HTTPS && is_azures) || self.further.iter().any(is_further)
    }
}

const HTTPS: u16 = 443;

/// `upstream_response_filter`: takes the registry's redirect of a blob, and has the request sent again, to where it
/// leads.
pub fn follow(response: &ResponseHeader, context: &mut Context) -> Result<()> {
    let destination = Arc::clone(context.destination()?);
    if destination.blobs == Blobs::Redirect || !context.endpoint()?.is_blob() || !response.status.is_redirection() {
        return Ok(());
    }
    let Some(location) = response.headers.get(header::LOCATION).and_then(|value| value.to_str().ok()) else {
        return Ok(());
    };
    if own_path(location, destination.upstream.domain.authority()).is_some() {
        return Ok(());
    }
    let uri = location.parse::<Uri>().ok();
    let target = uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.host()?, uri.port_u16().unwrap_or(HTTPS))));
    let Some(("https", host, port)) = target else {
        return refused(context, "an address that is no https:// one".to_owned());
    };
    let host = host.to_ascii_lowercase();
    if !destination.upstream.blob_hosts.allow(&host, port) {
        return refused(
            context,
            format!("{host}:{port}, which is no storage that it is known by: blob_hosts can add it"),
        );
    }
    if !forward::has_time(context) {
        context.trouble = Some(Trouble::Silent);
        return Err(Error::explain(ErrorType::ReadTimedout, "the redirect came too late").into_up());
    }
    // The second leg has a replay of its own.
    (context.is_replayed, context.needs_fresh) = (false, false);
    context.storage = Some(Storage {
        authority: if port == HTTPS { host.clone() } else { format!("{host}:{port}") },
        target: Zeroizing::new(signed_target(location).into_bytes()),
        digest: response.headers.get(DIGEST).cloned(),
        refused: 0,
        host,
        port,
    });
    Err(relay::again(response))
}

/// Path and query of an address, byte for byte: a parser that writes them anew would break the signature. The address of
/// a data endpoint may have no path, only a query; a request needs one.
fn signed_target(location: &str) -> String {
    let rest = location.split_once("://").map_or(location, |(_, rest)| rest);
    let rest = rest.split('#').next().unwrap_or_default();
    let target = &rest[rest.find(['/', '?']).unwrap_or(rest.len())..];
    if target.starts_with('/') { target.to_owned() } else { format!("/{target}") }
}

fn refused(context: &mut Context, to: String) -> Result<()> {
    context.trouble = Some(Trouble::Storage(format!("the registry redirects to {to}")));
    let mut error = Error::explain(ErrorType::HTTPStatus(502), "a redirect that is not followed");
    error.as_up();
    Err(error)
}

/// `upstream_response_filter` for the second leg: the blob, a part of it, or the word that there is no such part, without
/// its body, goes to the client. So does the status of an error that clients act on, never its body: that is written for the storage
/// account's owner.
pub fn check(response: &ResponseHeader, session: &Session, context: &mut Context) -> Result<()> {
    if response.status.is_success() || response.status == StatusCode::RANGE_NOT_SATISFIABLE {
        return Ok(());
    }
    let status = response.status;
    if forward::repeat(session, context, Some(response)) {
        return Err(relay::again(response));
    }
    let host = context.storage.as_ref().map_or("", Storage::host).to_owned();
    let is_told = match status {
        // containerd repeats them on its last host, which it does not with 502, and podman waits.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => true,
        // Clients that want several ranges turn to single ones after these, and only after these.
        StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED => wants_several_ranges(session),
        _ => false,
    };
    context.trouble = Some(if is_told {
        Trouble::StorageSays { host, status, retry_after: answer::retry_after(&response.headers) }
    } else {
        Trouble::Storage(format!("storage {host} answers {} to the registry's own redirect", status.as_u16()))
    });
    Err(Error::explain(ErrorType::HTTPStatus(status.as_u16()), "the storage refuses").into_up())
}

/// `Range: bytes=0-1,4-5` (RFC 9110 section 14.2).
fn wants_several_ranges(session: &Session) -> bool {
    let ranges = session.req_header().headers.get_all(header::RANGE);
    ranges.iter().any(|value| value.as_bytes().contains(&b','))
}

/// `upstream_peer` for the second leg; `None` on the first. A name that was used before has addresses to go to at once.
pub async fn peer(context: &mut Context) -> Result<Option<Box<HttpPeer>>> {
    let Some(storage) = &context.storage else {
        return Ok(None);
    };
    let (host, server_name) = (storage.host.clone(), storage.host.trim_matches(['[', ']']).to_owned());
    let addresses = context.destination()?.upstream.storage_names.get(&host, storage.port);
    if storage.refused > 0 {
        addresses.renewed(MOVE_WAIT).await;
    }
    let resolved = addresses.resolve(LOOKUP_LIMIT.min(forward::spare(context.elapsed()))).await;
    let Some(attempt) = Attempt::new(&addresses) else {
        let cause = resolved.err().map_or_else(String::new, |unresolved| unresolved.to_string());
        context.trouble = Some(Trouble::Storage(format!("storage {host}: {cause}")));
        return Err(Error::explain(ErrorType::ConnectNoRoute, "the storage's name has no address").into_up());
    };
    Ok(Some(Box::new(forward::peer_of(attempt, &server_name, context))))
}

/// `upstream_request_filter` for the second leg; `None` on the first. No header of it comes from the registry's request.
pub fn request(session: &Session, method: &http::Method, context: &Context) -> Result<Option<RequestHeader>> {
    let Some(storage) = &context.storage else {
        return Ok(None);
    };
    let mut outgoing = RequestHeader::build_no_case(method.clone(), &storage.target, Some(FORWARDED.len() + 2))?;
    outgoing.insert_header(header::HOST, &storage.authority)?;
    for name in &FORWARDED {
        for value in session.req_header().headers.get_all(name) {
            outgoing.append_header(name, value)?;
        }
    }
    Ok(Some(outgoing))
}

/// `response_filter` for the second leg: the answer of a registry that serves its blobs itself. False on the first.
pub fn header(response: &mut ResponseHeader, context: &Context) -> Result<bool> {
    let Some(storage) = &context.storage else {
        return Ok(false);
    };
    let mut answer = ResponseHeader::build(response.status, Some(RELAYED.len() + 4))?;
    answer.set_version(response.version);
    for name in &RELAYED {
        if let Some(value) = response.headers.get(name) {
            answer.insert_header(name, value)?;
        }
    }
    // Several ranges come as one body, and the boundary between them is named here (RFC 9110 section 14.6).
    let kind = response.headers.get(header::CONTENT_TYPE).filter(|_| response.status == StatusCode::PARTIAL_CONTENT);
    match kind.filter(|kind| is_byte_ranges(kind)) {
        Some(kind) => answer.insert_header(header::CONTENT_TYPE, kind)?,
        None => answer.insert_header(header::CONTENT_TYPE, "application/octet-stream")?,
    }
    answer.insert_header(super::reply::API_VERSION.0, super::reply::API_VERSION.1)?;
    if let Some(digest) = &storage.digest {
        answer.insert_header(DIGEST, digest)?;
    }
    if let Some(correlation) = &context.correlation {
        answer.insert_header(&super::reply::CORRELATION_ID, correlation)?;
    }
    if withholds_body_of(response.status) {
        answer.remove_header(&header::TRANSFER_ENCODING);
        answer.insert_header(header::CONTENT_LENGTH, "0")?;
    }
    *response = answer;
    Ok(true)
}

/// `response_body_filter` for the second leg: whether this body goes to no client. The header of the answer says all that
/// one can use: how long the blob is.
pub fn withholds_body(context: &Context) -> bool {
    context.storage.is_some() && StatusCode::from_u16(context.status).is_ok_and(withholds_body_of)
}

fn withholds_body_of(status: StatusCode) -> bool {
    status == StatusCode::RANGE_NOT_SATISFIABLE
}

fn is_byte_ranges(kind: &HeaderValue) -> bool {
    const TYPE: &[u8] = b"multipart/byteranges";
    kind.as_bytes().get(..TYPE.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(TYPE))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Domain;
    use crate::load::Bound;
    use crate::net::addresses::{Addresses, Names};
    use crate::proxy::{Destination, Upstream};
    use crate::token::Tokens;
    use oci::route::OnFailure;

    /// A request for a blob of a route with `blobs: proxy`, as old as this.
    fn blob(age: Duration) -> Context {
        let domain = Domain::parse("example.azurecr.io").expect("a domain");
        let upstream = Arc::new(Upstream {
            host: domain.to_header(),
            addresses: Arc::new(Addresses::new(domain.host(), domain.port(), &[])),
            tokens: Arc::new(Tokens::default()),
            blob_hosts: BlobHosts::new(domain.host(), &[]),
            storage_names: Names::storage(),
            domain,
        });
        let mut context = Context::new(&Bound::new("tests", 1)).aged(age);
        let (on_failure, blobs) = (OnFailure::Fallback, Blobs::Proxy);
        context.destination = Some(Arc::new(Destination { upstream, on_failure, blobs }));
        context.endpoint = Some(crate::proxy::endpoint::Endpoint::Blob);
        context
    }

    fn redirect(location: &str) -> ResponseHeader {
        let mut response = ResponseHeader::build(307, None).expect("a status");
        response.insert_header(header::LOCATION, location).expect("a header");
        response
    }

    #[test]
    fn a_redirect_is_followed_while_there_is_time_for_it() {
        let location = "https://x.blob.core.windows.net/a//data?sig=s";
        for (age, is_followed) in [(0, true), (21, true), (23, false), (40, false)] {
            let mut context = blob(Duration::from_secs(age));
            let error = follow(&redirect(location), &mut context).expect_err("one leg ends");
            assert_eq!((error.retry(), context.storage.is_some()), (is_followed, is_followed), "{age}");
            assert_eq!(matches!(context.trouble, Some(Trouble::Silent)), !is_followed, "{age}");
        }
    }

    #[test]
    fn the_address_of_a_data_endpoint_that_has_no_path_keeps_its_query() {
        for (location, target) in [
            ("https://x.blob.core.windows.net/a//data?se=1&sig=a%2Fb", "/a//data?se=1&sig=a%2Fb"),
            ("https://x.westeurope.data.azurecr.io?r=a/b&d=sha256:0&s=c&v=1", "/?r=a/b&d=sha256:0&s=c&v=1"),
            ("https://x.westeurope.data.azurecr.io/?r=a/b&s=c", "/?r=a/b&s=c"),
            ("https://x.blob.core.windows.net/a?sig=b#part", "/a?sig=b"),
            ("https://x.blob.core.windows.net", "/"),
        ] {
            assert_eq!(signed_target(location), target, "{location}");
        }
    }

    #[test]
    fn a_redirect_of_the_registry_to_itself_goes_to_the_client_also_by_its_default_port() {
        for location in ["/v2/hub/x/blobs/y", "https://example.azurecr.io:443/v2/x", "https://EXAMPLE.azurecr.io/v2/x"]
        {
            let mut context = blob(Duration::ZERO);
            assert!(follow(&redirect(location), &mut context).is_ok(), "{location}");
            assert!(context.storage.is_none() && context.trouble.is_none(), "{location}");
        }
        for location in ["https://example.azurecr.io:8443/v2/x", "//example.azurecr.io/v2/x", "x"] {
            let mut context = blob(Duration::ZERO);
            assert!(follow(&redirect(location), &mut context).is_err(), "{location}");
            assert!(matches!(context.trouble, Some(Trouble::Storage(_))), "{location}");
        }
    }

    #[test]
    fn blobs_come_from_azures_storage_the_registrys_own_endpoints_and_what_is_added() {
        let hosts = BlobHosts::new("example.azurecr.io", &[".blob.internal".to_owned(), "127.0.0.1:9000".to_owned()]);
        for (host, port, allowed) in [
            ("wusmanaged91.blob.core.windows.net", 443, true),
            ("x.blob.core.chinacloudapi.cn", 443, true),
            ("x.blob.core.windows.net", 8443, false),
            ("blob.core.windows.net", 443, false),
            ("x.blob.core.windows.net.evil.example", 443, false),
            ("evilblob.core.windows.net", 443, false),
            ("example.westeurope.data.azurecr.io", 443, true),
            ("other.westeurope.data.azurecr.io", 443, false),
            ("example.azurecr.io", 443, false),
            ("a.blob.internal", 443, true),
            ("a.blob.internal", 80, false),
            ("127.0.0.1", 9000, true),
            ("127.0.0.1", 443, false),
            ("169.254.169.254", 443, false),
        ] {
            assert_eq!(hosts.allow(host, port), allowed, "{host}:{port}");
        }
        let regional = BlobHosts::new("example.westeurope.geo.azurecr.us", &[]);
        assert!(regional.allow("example.westeurope.data.azurecr.us", 443));
        assert!(!BlobHosts::new("registry.example", &[]).allow("registry.data.example", 443));
    }
}
