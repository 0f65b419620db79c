//! The proxy itself: Pingora's phases of a request, in their order. Each is a few lines that call the module which does
//! the work.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Version;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use crate::access::{Gate, Reason};
use crate::load::Load;
use crate::metrics::Meters;
#[cfg(feature = "otlp")]
use crate::otlp::Spans;
use crate::peer::Peer;

mod admit;
mod attempts;
mod authorize;
mod behind;
mod blob;
mod cache_status;
mod call;
mod connections;
mod context;
mod deadline;
mod destination;
mod endpoint;
mod epoch;
mod fail;
mod fetch;
mod foreign;
mod forward;
mod health;
mod held_body;
mod hop_by_hop;
mod log;
mod measure;
mod pace;
mod probe;
mod refused;
mod registry_error;
mod relay;
mod reply;
mod retry;
pub(crate) mod room;
mod served;
mod shield;
#[cfg(feature = "otlp")]
mod span;
mod target;
mod trace;
pub(crate) mod trial;

use admit::Admission;
use attempts::{MAX_CONNECTS, REPEATS};
use blob::locate::{self, Located};
use blob::storage;
use context::ClientRequest;
use trace::Trace;

pub(crate) use self::log::{
    no_answer as log_no_answer, refused_bodiless as log_refused_bodiless, refused_header as log_refused_header,
};
pub(crate) use blob::hosts::BlobHosts;
pub(crate) use blob::redirect::Storage;
#[cfg(feature = "hot-path")]
pub(crate) use cache_status::CacheStatus;
pub(crate) use connections::Connections;
pub(crate) use context::Context;
pub(crate) use destination::{CacheOfProcess, Destination, Kept, Table, Upstream, has_kept, upstreams};
pub(crate) use fail::Trouble;
pub(crate) use health::{Call, Health};
pub(crate) use hop_by_hop::is_token_byte;
pub(crate) use probe::unreached;
pub(crate) use refused::Refused;
pub(crate) use served::{Ended, served};
#[cfg(feature = "hot-path")]
pub(crate) use shield::with_digest;
pub(crate) use target::{Target, parts_within};

/// For so long a client may take next to nothing of what is ready for it: the time of `limits.slow_reader_bytes_per_second`. Without
/// that setting it is the time of each piece over HTTP/2.
pub(crate) const CLIENT_WRITE_LIMIT: Duration = Duration::from_secs(60);
/// A client that is refused has this long to take the answer. With the limit of the others, closed windows of HTTP/2 would let as
/// many of these wait as there are streams, each with its memory.
const REFUSAL_WRITE_LIMIT: Duration = Duration::from_secs(1);
/// Tries of one request, by Pingora's count. Each round of [`REPEATS`] has its connects and one that gets through; besides
/// there are a replay and two tries with other tokens. Each of these has a bound of its own: this one only replaces
/// Pingora's 16.
pub(crate) const MAX_TRIES: usize = (1 + REPEATS.len()) * (MAX_CONNECTS + 1) + 3;

/// The `ProxyHttp` of this program. It holds no state of a request; that is [`Context`].
pub(crate) struct Proxy {
    routes: Arc<Table>,
    load: Arc<Load>,
    meters: Arc<Meters>,
    /// Where spans of requests go, if to anybody.
    #[cfg(feature = "otlp")]
    spans: Option<Arc<Spans>>,
}

impl Proxy {
    /// `load` counts the requests under way and bounds them, and those of each client; each adds to one of `meters` when it is
    /// over.
    pub(crate) fn new(routes: Arc<Table>, load: &Arc<Load>, meters: Arc<Meters>) -> Self {
        Self {
            routes,
            load: Arc::clone(load),
            meters,
            #[cfg(feature = "otlp")]
            spans: None,
        }
    }

    /// Each request has a span, if it is one that is sampled.
    #[cfg(feature = "otlp")]
    pub(crate) fn with_spans(self, spans: Option<Arc<Spans>>) -> Self {
        Self { spans, ..self }
    }
}

/// Answers a request for which nothing is done. It gives back its place first, or a client that takes no refusals would hold as
/// many places as it may not have.
async fn turn_away(gate: &Gate, session: &mut Session, context: &mut Context, why: Trouble) -> Result<bool> {
    context.release();
    session.set_write_timeout(Some(REFUSAL_WRITE_LIMIT));
    match gate.tell() {
        Some(_told) => reply::trouble(session, context, why).await?,
        None => reply::trouble_without_words(session, context, why).await?,
    }
    Ok(true)
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        served::begin();
        Context::new(&self.load.requests)
    }

    /// None: bodies are passed on in the encoding that they have. Pingora's default is its compression module, switched off,
    /// which would still look at each request.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, context: &mut Context) -> Result<()> {
        let request = session.req_header();
        let client = session.client_addr().and_then(|address| address.as_inet().copied());
        let trace = Trace::of(&request.headers);
        #[cfg(feature = "otlp")]
        let trace = match &self.spans {
            Some(spans) => {
                let (trace, begun) = span::begin(spans, trace);
                context.begin_span(begun);
                trace
            }
            None => trace,
        };
        context.begin(ClientRequest { method: request.method.clone(), uri: request.uri.clone(), client }, trace);
        // A connection of HTTP/1 looks after the pace of its client by itself.
        let is_stream = session.req_header().version == Version::HTTP_2;
        session.set_write_timeout(is_stream.then_some(CLIENT_WRITE_LIMIT));
        if is_stream {
            context.keep_pace(self.load.gate.bounds().reader_rate);
        }
        // No client of ours waits for an interim response, HTTP/1.0 has none, and after one a request that fails could
        // neither be sent again nor get an answer of its own.
        session.set_ignore_info_resp(true);
        if !session.is_body_empty() {
            // No request is served behind a body, so it does not matter where the body ends.
            session.set_keepalive(None);
        }
        // Behind what reads the whole of it: its trace, and where its body ends.
        forward::lighten(session.req_header_mut());
        Ok(())
    }

    /// Admits the request as one of the pull API or refuses it, and answers it if it can be kept. Nothing before the answer
    /// waits for a token.
    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        if context.is_too_many() {
            return Box::pin(turn_away(&self.load.gate, session, context, Trouble::Busy)).await;
        }
        let names = || session.digest().and_then(Peer::of).map(|peer| peer.names.as_slice());
        let places = (served::place(), context.places_left());
        match self.load.gate.request(context.client(), names, places, context.started()) {
            Ok(under_way) => context.hold(under_way),
            Err(denial) => {
                return Box::pin(turn_away(&self.load.gate, session, context, Trouble::Denied(denial))).await;
            }
        }
        // In boxes, as what is rare is in all of these: each request has room made for the largest step of a phase.
        match admit::admit(session, &self.routes).await {
            Ok(Admission::Pull(target, destination)) => {
                context.admit(target, destination);
                if hop_by_hop::is_valid(&session.req_header().headers) {
                    forward::strip(session.req_header_mut());
                    return shield::answer(session, context).await;
                }
                // Somebody may have put it together to mislead a proxy, so nothing else of this connection is served.
                session.set_keepalive(None);
                Box::pin(reply::trouble(session, context, Trouble::Malformed)).await?;
            }
            Ok(Admission::Ping) => Box::pin(reply::ping(session, context)).await?,
            Err(refusal) => Box::pin(reply::refusal(session, context, refusal)).await?,
        }
        Ok(true)
    }

    /// On the way to the registry, once: a token, and for a blob that comes through here, where it is.
    async fn proxy_upstream_filter(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        let admitted = context.admitted()?;
        // The registry is not asked: its redirect was kept, or a flight has brought it.
        if admitted.attempts.storage().is_some() {
            return Ok(true);
        }
        if let Err(trouble) = authorize::ready(admitted).await {
            Box::pin(reply::trouble(session, context, trouble)).await?;
            return Ok(false);
        }
        Ok(!locate::is_for(admitted) || Box::pin(locate::locate(session, context)).await? == Located::InStorage)
    }

    async fn upstream_peer(&self, _: &mut Session, context: &mut Context) -> Result<Box<HttpPeer>> {
        let admitted = context.admitted()?;
        retry::pause(&mut admitted.attempts).await;
        match storage::peer(admitted).await? {
            Some(peer) => Ok(peer),
            None => {
                if admitted.attempts.count() > 0 {
                    // What has failed may have shown that it is down.
                    admitted.destination.may_ask(admitted.target.endpoint()).map_err(Trouble::into_error)?;
                }
                forward::peer(admitted).await
            }
        }
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        context: &mut Context,
        error: Box<Error>,
    ) -> Box<Error> {
        match context.admitted() {
            Ok(admitted) => {
                measure::connect_failed(admitted);
                probe::connect_failed(admitted);
                retry::connect_failed(session.req_header(), admitted, error)
            }
            Err(error) => error,
        }
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
        forward::connected(socket, context.admitted()?, probe::slow);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Context,
    ) -> Result<()> {
        let admitted = context.admitted()?;
        admitted.attempts.goes_out();
        match admitted.attempts.storage() {
            Some(storage) => storage::upstream_request(session.req_header(), request, storage),
            None => forward::upstream_request(request, admitted),
        }
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
        if let Some(why) = deadline::end() {
            return Err(why.into_error());
        }
        let admitted = context.admitted()?;
        measure::answered(admitted, response.status);
        match admitted.attempts.storage() {
            Some(_) => shield::check_response(response, session.req_header(), context).await,
            None => {
                probe::answered(admitted, response);
                probe::limited(admitted, response, None);
                forward::check_response(response, session.req_header(), admitted).await?;
                let contradiction = foreign::contradicts(response, &session.req_header().headers, &admitted.target);
                contradiction.map_or(Ok(()), |why| Err(Trouble::Broken(why).into_error()))
            }
        }
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
        relay::header(session, response, context)
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        context: &mut Context,
    ) -> Result<Option<Duration>> {
        relay::body(session, body, end_of_stream, context)?;
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
        match context.admitted() {
            Ok(admitted) => {
                let request = (session.req_header(), session.response_written().is_none());
                measure::failed(admitted, &error);
                let error = retry::request_failed(peer, request, admitted, error, was_pooled);
                probe::failed(admitted, &error, was_pooled);
                error
            }
            Err(error) => error,
        }
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
        reply::failure(session, error, context).await
    }

    /// [`ProxyHttp::logging`] writes one line a request; with Pingora's own there would be two.
    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Context, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Context) {
        measure::ended(session, error, context, &self.meters);
        fetch::passed(error, context);
        if error.is_some_and(log::is_slow_reader) {
            self.load.gate.refusals().count(Reason::SlowReader);
        }
        if context.is_too_many() {
            // They are counted instead: a line for each would add to the load.
            context.take_client_request();
            return;
        }
        // Whoever leaves without its refusal was refused all the same.
        if context.is_released() && !self.load.gate.may_be_logged(context.client(), context.started()) {
            context.take_client_request();
            return;
        }
        log::line(session, error, context);
    }
}
