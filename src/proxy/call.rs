//! One call to the registry, or to storage, on connections that are kept here: a request of this proxy's own, not one that
//! Pingora passes on.

use std::time::Duration;

use http::Version;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::connectors::http::v1::Connector;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use tokio::time::timeout;

use super::blob::storage;
use super::context::Admitted;
use super::{deadline, forward, measure, probe, relay, retry};

/// A redirect's body is a link of half a KiB, and that of an error is no longer. A connection with more to read is closed.
const MAX_REST: usize = 4 << 10;
/// How long the rest of such a response may take; it usually comes in the packet of its header.
const REST_LIMIT: Duration = Duration::from_millis(200);

/// Asks the registry once, or the storage to which it has redirected, and reads the final header. `request` is in the
/// client's names, and whether its client is still without an answer. An error says whether to ask again.
pub(crate) async fn ask(
    connector: &Connector,
    peer: &HttpPeer,
    request: (&RequestHeader, bool),
    admitted: &mut Admitted,
) -> Result<(HttpSession, ResponseHeader)> {
    let connected = match connector.reused_http_session(peer).await {
        Some(kept) => Ok((kept, true)),
        // In a box: it is rare, and its state is larger than all else here.
        None => Box::pin(connector.get_http_session(peer)).await,
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
    let answered = timeout(limit, probe::unless_slow(admitted, exchange(&mut upstream, outgoing))).await;
    match answered.unwrap_or_else(|_| Err(deadline::late())) {
        Ok(response) => {
            measure::answered(admitted, response.status);
            probe::answered(admitted, &response);
            Ok((upstream, response))
        }
        Err(error) => {
            measure::failed(admitted, &error);
            let error = retry::request_failed(peer, request, admitted, error.into_up(), was_pooled);
            probe::failed(admitted, &error, was_pooled);
            Err(error)
        }
    }
}

/// Sends the request and waits for the final header.
async fn exchange(upstream: &mut HttpSession, request: RequestHeader) -> Result<ResponseHeader> {
    upstream.write_request_header(Box::new(request)).await?;
    loop {
        upstream.read_response().await?;
        let header = upstream.resp_header().cloned();
        let header = header.ok_or_else(|| Error::explain(ErrorType::ReadError, "a response without a header"))?;
        if !relay::is_interim(&header)? {
            return Ok(header);
        }
    }
}

/// Reads what is left of a response that goes to no client, and keeps the connection, if it is as short as that of a redirect.
/// Returns what has come of it.
pub(crate) async fn finish(connector: &Connector, mut upstream: HttpSession, peer: &HttpPeer) -> Vec<u8> {
    upstream.read_timeout = Some(REST_LIMIT);
    let mut rest = Vec::new();
    let read = async {
        while let Ok(part) = upstream.read_body_ref().await {
            let Some(part) = part else {
                release(connector, upstream, peer).await;
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
pub(crate) async fn release(connector: &Connector, mut upstream: HttpSession, peer: &HttpPeer) {
    upstream.respect_keepalive();
    connector.release_http_session(upstream, peer, peer.options.idle_timeout).await;
}
