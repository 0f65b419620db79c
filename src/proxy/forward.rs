//! The request to the registry: its peer, the limits on each wait, and its header.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderName, HeaderValue, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::Result;
use pingora_core::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use tokio::time::Instant;

use super::attempts::{Attempts, HANDSHAKE_LIMIT};
use super::context::Admitted;
use super::deadline::Registry;
use super::destination::Destination;
use super::fail::Trouble;
use super::relay::{bounds, framing};
use super::trace::Trace;
use super::{authorize, deadline, epoch, foreign, hop_by_hop, retry};
use crate::browser;
use crate::net::addresses::{Addresses, Connect, keepalive};
use crate::net::tunnel::Tunnel;

/// Where all addresses have failed, the time for DNS to say that the host has moved.
const MOVE_WAIT: Duration = Duration::from_secs(2);
/// A blob may stall for as long as with nginx (`proxy_read_timeout`). Clients resume where it breaks off, but not all do.
pub(crate) const BLOB_READ_LIMIT: Duration = Duration::from_secs(60);
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Azure's load balancers forget an idle connection after 4 minutes.
const IDLE_LIMIT: Duration = Duration::from_secs(90);

/// The headers of a request that the registry needs, beside its `Host`, which is replaced.
static FORWARDED: [HeaderName; 7] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::RANGE,
    header::USER_AGENT,
];

/// More fields than clients of registries send, also behind a balancer.
const USUAL_FIELDS: usize = 48;
/// What is read here besides, by Pingora too.
static READ: [HeaderName; 4] = [header::HOST, header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

/// Of [`FORWARDED`], the ones that may cause a part of a list, which cannot be read here.
static OF_PARTS: [HeaderName; 2] = [header::IF_RANGE, header::RANGE];

/// What is to be read here comes as it is: without the header it may come in any coding (RFC 9110 section 12.5.3).
pub(crate) const NOT_PACKED: HeaderValue = HeaderValue::from_static("identity");

/// `early_request_filter`: lets go of the fields that nothing here reads and that no registry gets, where there are unusually many. A
/// request waits for its client as long as that likes, and a map of 256 fields takes 40 KiB.
pub(crate) fn lighten(request: &mut RequestHeader) {
    if request.headers.len() <= USUAL_FIELDS {
        return;
    }
    let is_read = |name: &HeaderName| FORWARDED.contains(name) || READ.contains(name) || browser::SENT.contains(name);
    let others: Vec<_> = request.headers.keys().filter(|name| !is_read(name)).cloned().collect();
    for name in &others {
        request.remove_header(name);
    }
    // A map keeps the room that it once had; a copy of it has as much as it needs.
    *request = request.clone();
}

/// `request_filter`, as soon as a request is admitted: keeps only the headers that a registry needs, without those that
/// `Connection` lists. All others go no further, above all `Authorization`, `Cookie`, and what a proxy in front adds.
pub(crate) fn strip(request: &mut RequestHeader) {
    // Their names' letter case, which means nothing in HTTP, is dropped as well: it would be copied for each request.
    let mut parts = http::request::Parts::from(std::mem::replace(request, empty()));
    let is_kept = |name: &&HeaderName| **name == header::HOST || FORWARDED.contains(*name);
    let others = parts.headers.keys().filter(|name| !is_kept(name));
    let dropped: Vec<_> = others.chain(hop_by_hop::listed(&parts.headers)).cloned().collect();
    for name in dropped {
        parts.headers.remove(name);
    }
    *request = parts.into();
}

fn empty() -> RequestHeader {
    http::Request::new(()).into_parts().0.into()
}

/// `upstream_peer`: the registry's addresses, with limits on every wait.
pub(crate) async fn peer(admitted: &mut Admitted) -> Result<Box<HttpPeer>> {
    let upstream = &admitted.destination.upstream;
    admitted.attempts.ask();
    follow_move(upstream.way.addresses(), &admitted.attempts).await;
    let connect = Connect::new(&upstream.way).ok_or_else(|| Trouble::unresolved(&upstream.way).into_error())?;
    admitted.attempts.begin();
    Ok(Box::new(peer_of(connect, upstream.domain.server_name(), &mut admitted.attempts)))
}

/// Gives DNS [`MOVE_WAIT`] to say that a host has moved, where all of its addresses have failed: from this request's own
/// failure, or from an earlier request's.
pub(crate) async fn follow_move(addresses: &Arc<Addresses>, attempts: &Attempts) {
    if attempts.has_failed_to_connect() {
        addresses.renewed(MOVE_WAIT).await;
    } else {
        addresses.after_failure(MOVE_WAIT).await;
    }
}

/// A peer that connects by `connect`, with limits on every wait.
pub(crate) fn peer_of(connect: Arc<Connect>, server_name: &str, attempts: &mut Attempts) -> HttpPeer {
    let mut peer = HttpPeer::new(connect.of_socket(), true, server_name.to_owned());
    peer.options.custom_l4 = Some(Arc::<Connect>::clone(&connect));
    peer.group_key = epoch::current(connect.first(), connect.tunnel().map_or(0, Tunnel::id));
    attempts.connect_by(connect);
    limit(&mut peer, attempts);
    peer
}

/// A bound on every wait, and which pooled connections may be taken.
fn limit(peer: &mut HttpPeer, attempts: &Attempts) {
    let options = &mut peer.options;
    // Pingora's limit for TCP alone does not hold for `custom_l4`, which has its own.
    options.total_connection_timeout = Some(HANDSHAKE_LIMIT);
    // Pingora's one limit for each read of a header and of a body. See [`connected`] for the whole header.
    options.read_timeout = Some(match attempts.storage() {
        Some(_) => BLOB_READ_LIMIT,
        None => attempts.header_limit_after_handshake(),
    });
    options.write_timeout = Some(WRITE_LIMIT);
    options.idle_timeout = Some(IDLE_LIMIT);
    options.tcp_keepalive = Some(keepalive());
    // [`strip`] has left no other header about the connection.
    options.http_upstream_request_policy =
        HttpUpstreamRequestPolicy { strip_hop_by_hop: false, ..HttpUpstreamRequestPolicy::deny_upgrades() };
    if attempts.needs_fresh() {
        // A unique key finds no pooled connection: the one that broke may have been stale, and so may the next one.
        static FRESH: AtomicU64 = AtomicU64::new(1);
        // Counted down from the top, where no epoch comes.
        peer.group_key = !FRESH.fetch_add(1, Ordering::Relaxed);
        peer.options.idle_timeout = Some(Duration::ZERO);
    }
}

/// `connected_to_upstream`: from now on the response's header has a deadline, and a registry that takes long for it is told to
/// `when_slow`. Only a registry's first read has a limit of Pingora's that is as short.
pub(crate) fn connected(socket: RawFd, Admitted { destination, attempts, .. }: &Admitted, when_slow: fn(&Destination)) {
    let until = Instant::now() + attempts.header_limit();
    let is_registry = attempts.storage().is_none();
    let minds_health = is_registry && destination.minds_health();
    let registry = minds_health.then(|| Registry { destination: Arc::clone(destination), when_slow });
    deadline::begin(socket, until, is_registry, registry);
}

/// `upstream_request_filter`: what the registry is asked, with the token: the client's request after [`strip`], in the
/// registry's names.
pub(crate) fn upstream_request(request: &mut RequestHeader, admitted: &mut Admitted) -> Result<()> {
    admitted.destination.upstream.health.read(admitted.attempts.take_turn());
    request.set_raw_path(admitted.target.path().as_bytes())?;
    request.insert_header(header::HOST, &admitted.destination.upstream.host)?;
    if admitted.target.endpoint().is_list() {
        for name in &OF_PARTS {
            request.remove_header(name);
        }
        request.insert_header(header::ACCEPT_ENCODING, NOT_PACKED)?;
    }
    // Checked, so no credential can be in it; storage is asked by [`super::blob::storage`], without it.
    for (name, value) in admitted.attempts.trace().into_iter().flat_map(Trace::headers) {
        request.insert_header(name, value)?;
    }
    if let Some(bearer) = admitted.attempts.bearer() {
        request.insert_header(header::AUTHORIZATION, bearer.header())?;
    }
    Ok(())
}

/// `upstream_response_filter`: whether the registry's response is the client's answer. An error says whether the request
/// is sent again, with another token or after a pause.
pub(crate) async fn check_response(
    response: &ResponseHeader,
    client: &RequestHeader,
    admitted: &mut Admitted,
) -> Result<()> {
    admitted.attempts.heard();
    // Whoever is between has written it there, or the registry quotes the request; a client would have it, and the log a part.
    if admitted.attempts.bearer().is_some_and(|bearer| bearer.is_in(&response.headers)) {
        return Err(Trouble::Broken("a header of it repeats this proxy's token").into_error());
    }
    if let Some(why) = framing::unclear(response).or_else(|| bounds::of_header(response)) {
        return Err(Trouble::Broken(why).into_error());
    }
    // No client is to take it for the registry's, or to follow it.
    if let Some(why) = foreign::why(response, &admitted.target, &admitted.destination) {
        return Err(Trouble::of_answer(&response.headers, why).into_error());
    }
    authorize::check_response(response, admitted).await?;
    if retry::repeat(client, admitted, Some(response)) {
        return Err(retry::again(response));
    }
    Ok(())
}
