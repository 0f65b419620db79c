//! The proxy itself: Pingora's phases of a request, in their order, each a few lines that call the
//! module that does the work.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use crate::load::Bound;
use oci::route::Routes;

mod accept;
mod authorize;
mod context;
mod deadline;
mod destination;
mod endpoint;
mod epoch;
mod fail;
mod forward;
mod locate;
mod log;
mod relay;
mod reply;
mod storage;

use context::Asked;
use fail::Trouble;

pub use context::Context;
pub use deadline::watched;
pub use destination::{Destination, Upstream};
pub use locate::Locator;
pub use storage::BlobHosts;

/// A client that takes no byte for this long is gone.
pub const CLIENT_WRITE_LIMIT: Duration = Duration::from_secs(60);
/// A client has this long to take the word that there are too many requests. If those that are refused could wait as others
/// do, closed windows of HTTP/2 would make them as many as there are streams, each with its memory.
const REFUSAL_WRITE_LIMIT: Duration = Duration::from_secs(1);
/// Connect tries to a registry and to its storage, a replay of a request that died at each, two after a 401, and one to
/// follow a redirect, and that for each repeat; each has a bound of its own, this one only replaces Pingora's 16.
pub const MAX_TRIES: usize = (1 + forward::REPEATS.len()) * (2 * forward::MAX_CONNECTS + 5);

/// The `ProxyHttp` of this program. It holds no state of a request; that is [`Context`].
pub struct Proxy {
    routes: Routes<Arc<Destination>>,
    /// Where a route has its blobs served from here.
    locator: Option<Locator>,
    requests: Arc<Bound>,
}

impl Proxy {
    /// `requests` counts those under way and bounds them.
    pub fn new(routes: Routes<Arc<Destination>>, locator: Option<Locator>, requests: &Arc<Bound>) -> Self {
        Self { routes, locator, requests: Arc::clone(requests) }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(&self.requests)
    }

    /// None: what comes is passed on as it is packed. Pingora's own choice is its compression, switched off, which still
    /// looks at each request.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, context: &mut Context) -> Result<()> {
        let request = session.req_header();
        let client = session.client_addr().and_then(|address| address.as_inet().copied());
        context.asked = Some(Asked { method: request.method.clone(), uri: request.uri.clone(), client });
        // Each stream of HTTP/2; a connection of HTTP/1 has the same limit by itself.
        let limit = if context.is_too_many() { REFUSAL_WRITE_LIMIT } else { CLIENT_WRITE_LIMIT };
        session.set_write_timeout(Some(limit));
        // No client of ours waits for an interim answer, HTTP/1.0 knows none, and once one is written a request that
        // fails could neither be sent again nor get an answer of its own.
        session.set_ignore_info_resp(true);
        if !session.is_body_empty() {
            // Nothing is served behind a body: where it ends is no question here.
            session.set_keepalive(None);
        }
        Ok(())
    }

    /// Parses the request into the closed set of the pull API or refuses it, then makes sure of a token.
    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        if context.is_too_many() {
            return fail::refuse(session, context, Trouble::Busy).await;
        }
        if !accept::accept(session, context, &self.routes).await? {
            return Ok(true);
        }
        forward::strip(session.req_header_mut());
        if authorize::authorize(session, context).await? {
            return Ok(true);
        }
        if let Some(locator) = &self.locator
            && Locator::is_for(session, context)?
        {
            // In a box, as what is rare is in all of these: each request has room made for the largest step of a phase.
            return Box::pin(locator.locate(session, context)).await;
        }
        Ok(false)
    }

    async fn upstream_peer(&self, _: &mut Session, context: &mut Context) -> Result<Box<HttpPeer>> {
        forward::pause(context).await;
        match storage::peer(context).await? {
            Some(peer) => Ok(peer),
            None => forward::peer(context).await,
        }
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        context: &mut Context,
        error: Box<Error>,
    ) -> Box<Error> {
        forward::connect_failed(session, context, error)
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        _reused: bool,
        _: &HttpPeer,
        socket: RawFd,
        _: Option<&Digest>,
        context: &mut Context,
    ) -> Result<()> {
        forward::connected(socket, context);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Context,
    ) -> Result<()> {
        forward::rewrite(session, request, context)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        if relay::is_interim(response)? {
            return Ok(());
        }
        if deadline::end() {
            return Err(forward::late());
        }
        if context.storage.is_some() {
            return storage::check(response, session, context);
        }
        authorize::check(response, context).await?;
        if forward::repeat(session, context, Some(response)) {
            return Err(relay::again(response));
        }
        storage::follow(response, context)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        if response.status.is_informational() {
            return Ok(());
        }
        relay::header(session, response, context)?;
        context.status = response.status.as_u16();
        Ok(())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        context: &mut Context,
    ) -> Result<Option<Duration>> {
        relay::body(session, body, end_of_stream, context)?;
        context.body_bytes += body.as_ref().map_or(0, Bytes::len);
        Ok(None)
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        context: &mut Context,
        was_pooled: bool,
    ) -> Box<Error> {
        forward::replay_once(peer, session, context, error, was_pooled)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
        fail::answer(session, error, context).await
    }

    /// [`ProxyHttp::logging`] writes one line a request; Pingora's own would say it twice.
    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Context, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Context) {
        if context.is_too_many() {
            // They are counted: a line for each would be another load.
            context.asked = None;
            return;
        }
        log::line(session, error, context);
    }
}
