//! One call to the registry, or to storage, on connections that are kept here: a request of this proxy's own, not one that
//! Pingora passes on.

use std::time::Duration;

use http::Version;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use tokio::time::timeout;

use super::blob::storage;
use super::connections::Connections;
use super::context::Admitted;
use super::{deadline, forward, measure, probe, relay, retry};

/// A redirect's body is a link of half a KiB, and that of an error is no longer. A connection with more to read is closed.
const MAX_REST: usize = 4 << 10;
/// How long the rest of such a response may take; it usually comes in the packet of its header.
const REST_LIMIT: Duration = Duration::from_millis(200);

/// Asks the registry once, or the storage to which it has redirected, and reads the final header, which is given with the
/// connection. `request` is in the client's names, and whether its client is still without an answer. An error says whether to
/// ask again.
pub(crate) async fn ask(
    connections: &Connections,
    peer: &HttpPeer,
    request: (&RequestHeader, bool),
    admitted: &mut Admitted,
) -> Result<HttpSession> {
    let connected = match connections.kept(peer) {
        Some(kept) => Ok((kept, true)),
        // In a box: it is rare, and its state is larger than all else here.
        None => Box::pin(connections.open(peer)).await.map(|new| (new, false)),
    };
    let (mut upstream, was_pooled) = match connected {
        Ok(connected) => connected,
        Err(error) => {
            measure::connect_failed(admitted);
            probe::connect_failed(admitted);
            return Err(retry::connect_failed(request.0, admitted, error.into_up()));
        }
    };
    let mut outgoing = request.0.clone();
    outgoing.set_version(Version::HTTP_11);
    match admitted.attempts.storage() {
        Some(storage) => storage::upstream_request(request.0, &mut outgoing, storage)?,
        None => forward::upstream_request(&mut outgoing, admitted)?,
    }
    admitted.attempts.goes_out();
    upstream.read_timeout = peer.options.read_timeout;
    upstream.write_timeout = peer.options.write_timeout;
    let limit = admitted.attempts.header_limit();
    let answered = probe::within(limit, admitted, exchange(&mut upstream, outgoing)).await;
    match answered.unwrap_or_else(|| Err(deadline::late())) {
        Ok(()) => {
            let response = header_of(&upstream)?;
            measure::answered(admitted, response.status);
            probe::answered(admitted, response);
            Ok(upstream)
        }
        Err(error) => {
            measure::failed(admitted, &error);
            let error = retry::request_failed(peer, request, admitted, error.into_up(), was_pooled);
            probe::failed(admitted, &error, was_pooled);
            Err(error)
        }
    }
}

/// The header of the response that a connection has brought.
pub(crate) fn header_of(upstream: &HttpSession) -> Result<&ResponseHeader> {
    upstream.resp_header().ok_or_else(|| Error::explain(ErrorType::ReadError, "a response without a header"))
}

/// Sends the request and waits for the final header.
async fn exchange(upstream: &mut HttpSession, request: RequestHeader) -> Result<()> {
    upstream.write_request_header(Box::new(request)).await?;
    loop {
        upstream.read_response().await?;
        if !relay::is_interim(header_of(upstream)?)? {
            return Ok(());
        }
    }
}

/// Reads what is left of a response that goes to no client, and keeps the connection, if it is as short as that of a redirect.
/// Returns what has come of it.
pub(crate) async fn finish(
    connections: &Connections,
    mut upstream: HttpSession,
    peer: &HttpPeer,
    admitted: &Admitted,
) -> Vec<u8> {
    upstream.read_timeout = Some(REST_LIMIT);
    let mut rest = Vec::new();
    let read = async {
        while let Ok(part) = upstream.read_body_ref().await {
            let Some(part) = part else {
                release(connections, upstream, peer, admitted).await;
                return;
            };
            rest.extend_from_slice(part);
            if rest.len() > MAX_REST {
                return;
            }
        }
    };
    // If the rest does not come in time, only this connection ends.
    let _ = timeout(REST_LIMIT, read).await;
    rest
}

/// Keeps the connection for the next call. The whole body has been read.
pub(crate) async fn release(connections: &Connections, upstream: HttpSession, peer: &HttpPeer, admitted: &Admitted) {
    if may_be_kept(admitted) {
        connections.keep(upstream, peer).await;
    }
}

/// A connection to another address than the first is used once: the next call tries that address first.
pub(crate) fn may_be_kept(admitted: &Admitted) -> bool {
    admitted.attempts.connect().is_some_and(|connect| connect.is_to_first())
}
