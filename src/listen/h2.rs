//! HTTP/2: Pingora runs each of a connection's requests in a task of its own, and this gives each its deadlines and its place, and
//! bounds its header as that of an HTTP/1 request.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use http::header;
use pingora::http::RequestHeader;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::server::ShutdownWatch;

use super::header::MAX_FIELDS;
use super::refusal::{self, NoRequest};
use crate::access::{Place, Reason};
use crate::load::Load;
use crate::peer::Peer;
use crate::proxy::room::Share;
use crate::proxy::served;

/// An app, each of whose requests runs with the watch of its deadlines and its connection's place.
pub(crate) struct WithDeadlines<A> {
    app: Arc<A>,
    load: Arc<Load>,
    options: HttpServerOptions,
    h2_options: H2Options,
    place: Option<Arc<Place>>,
}

impl<A: HttpServerApp> WithDeadlines<A> {
    /// For one connection, which has this place and ends when it has been idle for so long. A header has at most so many bytes.
    pub(crate) fn new(
        app: &Arc<A>,
        load: &Arc<Load>,
        place: Option<Arc<Place>>,
        idle: Duration,
        header: usize,
    ) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        options.h2_idle_timeout = Some(idle);
        let mut h2_options = app.h2_options().unwrap_or_default();
        h2_options.max_header_list_size(u32::try_from(header).unwrap_or(u32::MAX));
        Self { app: Arc::clone(app), load: Arc::clone(load), options, h2_options, place }
    }
}

/// Whether the client has taken its request back before anything was done for it. Requests that are reset with the same write do
/// not count as open at once, so a client may send any number of them ("rapid reset"): the registry hears of none.
async fn is_reset(session: &mut ServerSession) -> bool {
    let ServerSession::H2(stream) = session else { return false };
    poll_fn(|context| Poll::Ready(Pin::new(&mut stream.idle()).poll(context).is_ready())).await
}

/// What a header takes, by the lengths of its parts.
fn length(request: &RequestHeader) -> usize {
    let fields = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    fields.fold(request.uri.path_and_query().map_or(0, |path| path.as_str().len()), usize::saturating_add)
}

/// A length of zero says that no body comes, but not that nothing does: trailers may, and would be held as long as their request.
/// Without it the end of the stream decides.
fn forget_length_of_zero(request: &mut RequestHeader) {
    if request.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0") {
        request.remove_header(&header::CONTENT_LENGTH);
    }
}

impl<A> WithDeadlines<A> {
    /// Answers with status and header alone, which wait for no window. That is counted and logged as over HTTP/1.
    async fn refuse(&self, mut session: ServerSession, why: NoRequest) {
        let client = session.client_addr().and_then(SocketAddr::as_inet).copied();
        refusal::tell_bodiless(&self.load, client, session.digest().and_then(Peer::of), why);
        // It fails if the client has left, and then nobody waits for it.
        let _ = session.respond_error(why.refusal().status().as_u16()).await;
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for WithDeadlines<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if is_reset(&mut session).await {
            self.load.gate.refusals().count(Reason::Reset);
            return None;
        }
        if session.req_header().headers.len() > MAX_FIELDS {
            self.refuse(session, NoRequest::TooManyFields).await;
            return None;
        }
        let mut share = Share::of_header();
        if !share.grow_header(length(session.req_header())) {
            self.refuse(session, NoRequest::NoRoom).await;
            return None;
        }
        forget_length_of_zero(session.req_header_mut());
        served(self.place.clone(), self.app.process_new_http(session, shutdown)).await.output
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.h2_options.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
