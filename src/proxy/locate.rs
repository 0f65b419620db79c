//! Where a blob is, asked before Pingora's own request: that one would end the registry's connection with each redirect
//! that is followed, and the next request would pay for a new one, three round trips.

use std::time::Duration;

use http::{Method, Version};
use pingora::http::ResponseHeader;
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::v1::Connector;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;
use tokio::time::timeout;

use super::context::Context;
use super::reply::CORRELATION_ID;
use super::{forward, storage};
use crate::route::Blobs;

/// A redirect's body is a link of half a KiB. What has more is the blob itself, or a page; its connection is let go.
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
        let proxies = context.destination()?.blobs == Blobs::Proxy && context.endpoint == "blob";
        Ok(proxies && session.req_header().method == Method::GET)
    }

    /// `request_filter`, third part, for such a request: the registry's redirect becomes its destination. Any other
    /// answer, and a connection that fails, is for the usual way, which asks again and knows all of them. `Err` if the redirect is refused, or if the registry is silent: there is no time to ask again.
    pub async fn locate(&self, session: &Session, context: &mut Context) -> Result<()> {
        match self.ask(session, context).await {
            Ok(response) => {
                context.correlation = response.headers.get(&CORRELATION_ID).cloned();
                match storage::follow(&response, context) {
                    // A redirect that is not to be followed.
                    Err(error) if context.storage.is_none() => Err(error),
                    _ => Ok(()),
                }
            }
            Err(error) if matches!(error.etype(), ErrorType::ReadTimedout) => Err(error.into_up()),
            Err(_) => {
                context.trouble = None;
                Ok(())
            }
        }
    }

    async fn ask(&self, session: &Session, context: &mut Context) -> Result<ResponseHeader> {
        let peer = forward::peer(context)?;
        let mut request = session.req_header().clone();
        request.set_version(Version::HTTP_11);
        forward::aim(&mut request, context)?;
        let (mut upstream, _) = self.connector.get_http_session(&*peer).await?;
        upstream.read_timeout = peer.options.read_timeout;
        upstream.write_timeout = peer.options.write_timeout;
        upstream.write_request_header(Box::new(request)).await?;
        upstream.read_response().await?;
        let header = upstream.resp_header().cloned();
        let header = header.ok_or_else(|| Error::explain(ErrorType::ReadError, "an answer without a head"))?;
        if header.status.is_redirection() {
            // A rest that does not come is no reason to wait: the connection ends then, and nothing else.
            let _ = timeout(REST_LIMIT, self.keep(upstream, &peer)).await;
        }
        Ok(header)
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
