//! Where a blob is, asked before Pingora's own request: that one would end the registry's connection with each redirect
//! that is followed, and the next request would pay for a new one, three round trips.

use std::time::Duration;

use http::{Method, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::v1::Connector;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;
use tokio::time::timeout;

use super::context::Context;
use super::{authorize, forward, relay, storage};
use oci::route::Blobs;

/// A redirect's body is a link of half a KiB, and that of an error is no longer. Of what has more the connection is let go.
const MAX_REDIRECT_BODY: usize = 4 << 10;
/// It is in the packet of its head.
const REST_LIMIT: Duration = Duration::from_millis(200);

/// Connections to registries, kept for this question.
pub struct Locator {
    connector: Connector,
}

impl Locator {
    /// Does no network I/O.
    pub fn new(options: ConnectorOptions) -> Self {
        Self { connector: Connector::new(Some(options)) }
    }

    /// Whether a request is for a blob that is served from here.
    pub fn is_for(session: &Session, context: &Context) -> Result<bool> {
        let proxies = context.destination()?.blobs == Blobs::Proxy && context.endpoint()?.is_blob();
        Ok(proxies && session.req_header().method == Method::GET)
    }

    /// `request_filter`, third part, for such a request: the registry's redirect becomes its destination, and what else
    /// the registry answers is the client's answer, as it would be the usual way. True if that is given. A request that
    /// died is sent once more the usual way, on another connection.
    pub async fn locate(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        loop {
            forward::pause(context).await;
            let peer = forward::peer(context).await?;
            let (mut upstream, response) = match self.ask(&peer, session, context).await {
                Ok(answered) => answered,
                Err(error) if error.retry() => return Ok(false),
                Err(error) => return Err(error),
            };
            let next = match authorize::check(&response, context).await {
                Ok(()) if forward::repeat(session, context, Some(&response)) => Err(relay::again(&response)),
                Ok(()) => storage::follow(&response, context),
                Err(error) => Err(error),
            };
            let Err(error) = next else {
                self.hand_over(upstream, &peer, response, session, context).await?;
                return Ok(true);
            };
            upstream.read_timeout = Some(REST_LIMIT);
            // A rest that does not come is no reason to wait: the connection ends then, and nothing else.
            let _ = timeout(REST_LIMIT, self.keep(upstream, &peer)).await;
            match error.retry() {
                true if context.storage.is_some() => return Ok(false),
                // Each of those that say so is bounded: a fresh token and one of the repository's own, once each, and the repeats.
                true => {}
                false => return Err(error),
            }
        }
    }

    /// The final header. An error says whether the usual way is to try again.
    async fn ask(
        &self,
        peer: &HttpPeer,
        session: &Session,
        context: &mut Context,
    ) -> Result<(HttpSession, ResponseHeader)> {
        let mut request = session.req_header().clone();
        request.set_version(Version::HTTP_11);
        forward::aim(&mut request, context)?;
        let (mut upstream, was_pooled) = match self.connector.get_http_session(peer).await {
            Ok(connected) => connected,
            Err(error) => return Err(forward::connect_failed(session, context, error.into_up())),
        };
        upstream.read_timeout = peer.options.read_timeout;
        upstream.write_timeout = peer.options.write_timeout;
        let limit = forward::header_limit(context.elapsed());
        let answered = timeout(limit, exchange(&mut upstream, request)).await.unwrap_or_else(|_| Err(forward::late()));
        match answered {
            Ok(response) => Ok((upstream, response)),
            Err(error) => Err(forward::replay_once(peer, session, context, error.into_up(), was_pooled)),
        }
    }

    /// The client's answer, through the same filters as the usual way has.
    async fn hand_over(
        &self,
        mut upstream: HttpSession,
        peer: &HttpPeer,
        mut response: ResponseHeader,
        session: &mut Session,
        context: &mut Context,
    ) -> Result<()> {
        upstream.read_timeout = Some(forward::BLOB_READ_LIMIT);
        let mut is_done = upstream.is_body_done();
        let has_framing =
            [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].iter().any(|name| response.headers.contains_key(name));
        if !is_done && !has_framing {
            // A body that ends with the registry's connection, as Pingora has it for the client.
            response.set_version(Version::HTTP_11);
            response.insert_header(header::TRANSFER_ENCODING, "chunked")?;
        }
        relay::header(session, &mut response, context)?;
        session.write_response_header(Box::new(response), is_done).await.map_err(|error| error.into_down())?;
        while !is_done {
            let mut part = upstream.read_body_bytes().await.map_err(|error| error.into_up())?;
            is_done = part.is_none() || upstream.is_body_done();
            relay::body(session, &mut part, is_done, context)?;
            // An empty part in the middle would be the last chunk.
            if is_done || part.as_ref().is_some_and(|part| !part.is_empty()) {
                session.write_response_body(part, is_done).await.map_err(|error| error.into_down())?;
            }
        }
        self.connector.release_http_session(upstream, peer, peer.options.idle_timeout).await;
        Ok(())
    }

    /// For the next blob, if the rest of the answer is as short as it is of a redirect.
    async fn keep(&self, mut upstream: HttpSession, peer: &HttpPeer) {
        upstream.respect_keepalive();
        let mut length = 0;
        loop {
            match upstream.read_body_ref().await {
                Ok(Some(part)) => length += part.len(),
                Ok(None) => break,
                Err(_) => return,
            }
            if length > MAX_REDIRECT_BODY {
                return;
            }
        }
        self.connector.release_http_session(upstream, peer, peer.options.idle_timeout).await;
    }
}

/// Sends the request and waits for the final header.
async fn exchange(upstream: &mut HttpSession, request: RequestHeader) -> Result<ResponseHeader> {
    upstream.write_request_header(Box::new(request)).await?;
    loop {
        upstream.read_response().await?;
        let header = upstream.resp_header().cloned();
        let header = header.ok_or_else(|| Error::explain(ErrorType::ReadError, "an answer without a head"))?;
        if !relay::is_interim(&header)? {
            return Ok(header);
        }
    }
}
