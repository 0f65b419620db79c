//! Requests of one connection, from its first byte to its last: HTTP/1, one after the other, or HTTP/2 by prior knowledge.
//!
//! A request's header is gathered here, with one deadline and one size limit, before Pingora sees any of it. Left to itself,
//! Pingora has a deadline for each read, accepts 1 MiB, parses again after each read, and does not serve a request that was
//! sent before the answer to the one before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pingora_core::apps::{HttpServerApp, ServerApp as _};
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_timeout::timeout;
use tokio::sync::{Notify, watch};

use super::connection::{Connection, Stream};
use super::h2::WithDeadlines;
use super::header::{Header, Malformed, is_understood};
use super::near_timer::NearTimer;
use super::refusal::{self, NoRequest};
use super::tls::Revocation;
use super::{Kind, drain};
use crate::access::{Bounds, Denial, Place};
use crate::load::Load;
use crate::load::opening::RefusedProxyHeader;
use crate::peer::Peer;
use crate::proxy::room::Share;
use crate::proxy::{self, Ended, served};

/// How HTTP/2 begins (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// For this long after a request its connection counts as in use and does not wait for [`Http::close_idle`]. The requests of a
/// pull follow each other at once, and each would pay for that wait.
const IN_USE: Duration = Duration::from_secs(1);

/// What serves the connections of one kind of listener.
pub(crate) struct Http<A> {
    kind: Kind,
    app: Arc<A>,
    keepalive: Arc<Keepalive>,
    load: Arc<Load>,
    /// Ends the connection that has been idle for the longest time.
    close_idle: Notify,
    near_timer: NearTimer,
}

/// How long an idle connection is kept, in milliseconds; for connections that are idle from now on, also of HTTP/1 connections
/// that are open.
pub(crate) struct Keepalive(AtomicU64);

impl Keepalive {
    pub(crate) fn new(time: Duration) -> Arc<Self> {
        let keepalive = Self(AtomicU64::default());
        keepalive.set(time);
        Arc::new(keepalive)
    }

    /// Settings have been read again.
    pub(crate) fn set(&self, time: Duration) {
        self.0.store(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// Which versions of HTTP a connection may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// HTTP/1, or HTTP/2 by prior knowledge: without TLS, clients say nothing in advance.
    Either,
    /// HTTP/1 over TLS.
    Http1,
    /// HTTP/2 over TLS, as agreed by ALPN.
    Http2,
}

/// A connection was not let in, and answered.
pub(crate) struct Denied;

/// What a connection brings next.
enum Next {
    /// The header of a request, and what has come of its body; and what of the room for headers it takes until it is over, for Pingora
    /// keeps all of it.
    Request(BytesMut, Share),
    /// HTTP/2, from its first byte.
    Http2,
    /// Bytes that are refused before they become a request, and how long they took.
    Refused(NoRequest, Duration),
    /// Its end.
    End,
}

impl<A: HttpServerApp + Send + Sync + 'static> Http<A> {
    /// Serves connections with this app; an idle one ends after `keepalive`. Clients may speak HTTP/2, too, and have a line
    /// in the access log for each request.
    pub(crate) fn new(kind: Kind, app: A, keepalive: &Arc<Keepalive>, load: &Arc<Load>) -> Self {
        Self {
            kind,
            app: Arc::new(app),
            keepalive: Arc::clone(keepalive),
            load: Arc::clone(load),
            close_idle: Notify::new(),
            near_timer: NearTimer::default(),
        }
    }

    /// Of whose listeners this serves the connections.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// From now on each answer is the last of its connection, also of a request that is under way.
    pub(crate) async fn answer_last(&self) {
        self.app.http_cleanup().await;
    }

    /// What the runtime does beside the connections that this serves, for ever.
    pub(crate) async fn attend(&self) {
        self.near_timer.keep().await;
    }

    /// One of the idle connections ends, now or as soon as there is one.
    pub(crate) fn close_idle(&self) {
        self.close_idle.notify_one();
    }

    /// Lets in a connection without TLS, or answers why not.
    pub(crate) async fn admit(&self, connection: &mut Connection<impl Stream>) -> Result<Option<Arc<Place>>, Denied> {
        if self.kind != Kind::Clients {
            return Ok(None);
        }
        let (gate, client) = (&self.load.gate, connection.client().map(|address| address.ip()));
        match gate.connect(client).and_then(|place| gate.certificate(client, None).map(|()| place)) {
            Ok(place) => Ok(place),
            Err(denial) => Err(self.deny(connection, denial).await),
        }
    }

    /// The same for the certificate of one with TLS, whose client has been let in. Over HTTP/2 an answer needs a request, so
    /// each of them is refused.
    pub(crate) async fn admit_certificate(
        &self,
        connection: &mut Connection<impl Stream>,
        speaks: Speaks,
    ) -> Result<(), Denied> {
        if speaks == Speaks::Http2 {
            return Ok(());
        }
        let client = connection.client().map(|address| address.ip());
        match self.load.gate.certificate(client, connection.peer().map(|peer| peer.names.as_slice())) {
            Ok(()) => Ok(()),
            Err(denial) => Err(self.deny(connection, denial).await),
        }
    }

    /// Serves a connection to its end, which comes soon after its `revocation`. It was let in, and has this place.
    pub(crate) async fn serve<S: Stream>(
        &self,
        mut connection: Box<Connection<S>>,
        place: Option<Arc<Place>>,
        speaks: Speaks,
        shutdown: &ShutdownWatch,
        mut revocation: Revocation,
    ) {
        let shutdown = &mut revocation.shutdown(shutdown);
        let mut is_first = true;
        loop {
            self.near_timer.request();
            let bounds = self.load.gate.bounds();
            let next = tokio::select! {
                biased;
                () = revocation.wait() => return,
                next = self.next(&mut connection, speaks, is_first, bounds, shutdown) => next,
            };
            is_first = false;
            match next {
                Next::Request(bytes, _share) => {
                    let (client, peer) = (connection.client(), connection.peer_digest());
                    let mut session = ServerSession::new_http1(connection);
                    session.set_pipelined_prefix(bytes);
                    let request = self.app.process_new_http(session, shutdown);
                    let Ended { output, has_begun } = served(place.clone(), request).await;
                    if !has_begun && self.kind == Kind::Clients {
                        let peer = peer.as_deref().and_then(Peer::in_digest);
                        refusal::tell_bodiless(&self.load, client, peer, NoRequest::Invalid);
                    }
                    let Some(reused) = output else {
                        return;
                    };
                    // Pingora gives back the stream that it was given.
                    let Ok(same) = reused.consume().0.into_any().downcast() else {
                        return;
                    };
                    connection = same;
                }
                Next::Http2 => {
                    let (idle, header) = (self.keepalive.get(), bounds.header_size);
                    let app = Arc::new(WithDeadlines::new(&self.app, &self.load, place, idle, header));
                    if revocation.may_come() {
                        // Pingora looks at one thing that ends a connection.
                        let (end, ended) = watch::channel(false);
                        let ending = async {
                            tokio::select! {
                                () = revocation.wait() => {}
                                // An error means that nobody is left who could end it: that is an end, too.
                                _ = shutdown.wait_for(|stop| *stop) => {}
                            }
                            end.send_replace(true);
                            std::future::pending::<()>().await;
                        };
                        tokio::select! {
                            _ = app.process_new(connection, &ended) => {}
                            () = ending => {}
                        }
                    } else {
                        app.process_new(connection, shutdown).await;
                    }
                    return;
                }
                Next::Refused(why, elapsed) => {
                    self.refuse(&mut connection, why, elapsed).await;
                    return;
                }
                Next::End => return,
            }
        }
    }

    async fn next(
        &self,
        connection: &mut Connection<impl Stream>,
        speaks: Speaks,
        is_first: bool,
        bounds: Bounds,
        shutdown: &ShutdownWatch,
    ) -> Next {
        if is_first {
            self.first(connection, speaks, bounds, shutdown).await
        } else {
            self.further(connection, bounds, shutdown).await
        }
    }

    /// The time of the first header of a connection begins when that is accepted.
    async fn first(
        &self,
        connection: &mut Connection<impl Stream>,
        speaks: Speaks,
        bounds: Bounds,
        shutdown: &ShutdownWatch,
    ) -> Next {
        let speaks = if self.kind == Kind::Clients { speaks } else { Speaks::Http1 };
        let first = async {
            tokio::select! {
                biased;
                filled = connection.fill(bounds.header_size) => if !filled.is_ok_and(|length| length > 0) { return Next::End },
                () = drain::ends_idle(shutdown) => return Next::End,
            }
            self.gather(connection, speaks, bounds).await
        };
        match timeout(bounds.header_time, first).await {
            Ok(next) => next,
            Err(_) => too_slow(connection, bounds),
        }
    }

    async fn further(
        &self,
        connection: &mut Connection<impl Stream>,
        bounds: Bounds,
        shutdown: &ShutdownWatch,
    ) -> Next {
        if connection.buffer().is_empty() {
            // In this order: a request that has come is served before its connection is closed to make room.
            let keepalive = self.keepalive.get();
            let in_use = keepalive.min(IN_USE);
            let has_more = match timeout(in_use, connection.fill(bounds.header_size)).await {
                Ok(filled) => filled.is_ok_and(|length| length > 0),
                Err(_) => {
                    let idle = async {
                        tokio::select! {
                            biased;
                            filled = connection.fill(bounds.header_size) => filled.is_ok_and(|length| length > 0),
                            () = self.close_idle.notified() => false,
                            () = drain::ends_idle(shutdown) => false,
                        }
                    };
                    timeout(keepalive.saturating_sub(in_use), idle).await.unwrap_or(false)
                }
            };
            if !has_more {
                return Next::End;
            }
        }
        match timeout(bounds.header_time, self.gather(connection, Speaks::Http1, bounds)).await {
            Ok(next) => next,
            Err(_) => too_slow(connection, bounds),
        }
    }

    async fn gather(&self, connection: &mut Connection<impl Stream>, speaks: Speaks, bounds: Bounds) -> Next {
        let (mut header, mut share) = (Header::default(), Share::of_header());
        let malformed = if connection.is_secured() { NoRequest::NotHttp } else { NoRequest::Malformed };
        // Since the first bytes, if these were not the whole header: most are, and need no clock.
        let mut begun: Option<Instant> = None;
        let refused =
            |why, begun: Option<Instant>| Next::Refused(why, begun.map_or(Duration::ZERO, |begun| begun.elapsed()));
        loop {
            let bytes = connection.buffer();
            if speaks != Speaks::Http1 && bytes.starts_with(PREFACE) {
                connection.start_frames(PREFACE.len(), bounds.header_time);
                return Next::Http2;
            }
            if speaks == Speaks::Http1 || !PREFACE.starts_with(bytes) {
                match header.end(bytes) {
                    _ if speaks == Speaks::Http2 => return refused(malformed, begun),
                    Ok(Some(length)) if self.kind == Kind::Admin && !is_understood(&bytes[..length]) => {
                        return refused(NoRequest::NotHttp, begun);
                    }
                    Ok(Some(length)) if !share.grow_header(length) => return refused(NoRequest::NoRoom, begun),
                    Ok(Some(length)) => {
                        return Next::Request(connection.take_request(length, header.has_body()), share);
                    }
                    Err(Malformed) if proxy_protocol::is_begun(bytes) => {
                        return refused(NoRequest::ProxyHeader(RefusedProxyHeader::Untrusted), begun);
                    }
                    Err(Malformed) => return refused(malformed, begun),
                    Ok(None) if bytes.len() >= bounds.header_size => return refused(NoRequest::TooLarge, begun),
                    Ok(None) if !share.grow_header(bytes.len()) => return refused(NoRequest::NoRoom, begun),
                    Ok(None) => {}
                }
            }
            if !bytes.is_empty() {
                begun.get_or_insert_with(Instant::now);
            }
            match connection.fill(bounds.header_size).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Next::End,
            }
        }
    }

    /// Answers a connection that is not let in, without reading a request of it; where many are answered already, it only ends.
    async fn deny(&self, connection: &mut Connection<impl Stream>, denial: Denial) -> Denied {
        let (client, gate, why) = (connection.client(), &self.load.gate, NoRequest::Denied(denial));
        if gate.may_be_logged(client.map(|address| address.ip()), Instant::now()) {
            proxy::log_refused_header(client, connection.peer(), &why.refusal(), Duration::ZERO);
        }
        if let Some(_answer) = gate.answer() {
            refusal::refuse_after_first_bytes(connection.stream(), why).await;
        }
        Denied
    }

    /// Answers and ends what never becomes a request. That is counted and, for clients, logged as requests are.
    async fn refuse(&self, connection: &mut Connection<impl Stream>, why: NoRequest, elapsed: Duration) {
        match why {
            NoRequest::ProxyHeader(why) => self.load.openings.refuse_proxy_header(why),
            why => self.load.refuse_header(why.reason()),
        }
        if self.kind == Kind::Clients {
            proxy::log_refused_header(connection.client(), connection.peer(), &why.refusal(), elapsed);
        }
        refusal::refuse(connection.stream(), why).await;
    }
}

/// A client that has sent nothing gets no answer: it may keep the connection for a later request, and would take the answer
/// for that one's.
fn too_slow(connection: &mut Connection<impl Stream>, bounds: Bounds) -> Next {
    if connection.buffer().is_empty() { Next::End } else { Next::Refused(NoRequest::TooSlow, bounds.header_time) }
}

#[cfg(test)]
mod tests {
    use http::{Response, StatusCode};
    use pingora_core::apps::HttpServerOptions;
    use pingora_core::apps::http_app::{HttpServer, ServeHttp};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;
    use tokio::task::JoinHandle;

    use super::super::socket::Socket;
    use super::*;

    /// Answers with the path of the request.
    struct Echo;

    #[async_trait::async_trait]
    impl ServeHttp for Echo {
        async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
            let body = session.req_header().uri.path().as_bytes().to_vec();
            let mut response = Response::new(body);
            let length = response.body().len();
            response.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
            response
        }
    }

    /// The client's end of a Unix socket that is served as a client's connection, by a task that ends with it.
    fn served(load: &Arc<Load>) -> (UnixStream, JoinHandle<()>) {
        let (server, client) = UnixStream::pair().expect("a pair");
        let peer = pingora_core::protocols::l4::socket::SocketAddr::from(
            std::os::unix::net::SocketAddr::from_pathname("client").expect("a path"),
        );
        let mut app = HttpServer::new_app(Echo);
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        app.server_options = Some(options);
        let http = Http::new(Kind::Clients, app, &Keepalive::new(Duration::from_secs(60)), load);
        let connection = Box::new(Connection::new(Socket::new(server, None), peer));
        let served = tokio::spawn(async move {
            let (_shutdown, watch) = watch::channel(false);
            http.serve(connection, None, Speaks::Either, &watch, Revocation::never()).await;
        });
        (client, served)
    }

    /// Requests that come at once and in pieces, pipelined and one after the other, and one that closes the connection.
    #[tokio::test]
    async fn requests_over_a_unix_socket_are_served_one_after_the_other() {
        for step in [1, 7, 1000] {
            let (mut client, served) = served(&Arc::new(Load::new(8, 8)));
            let requests = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\nGET /c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            for piece in requests.as_bytes().chunks(step) {
                client.write_all(piece).await.expect("sent");
            }
            let mut answers = String::new();
            client.read_to_string(&mut answers).await.expect("answers, and the end");
            let bodies: Vec<_> = answers.split("\r\n\r\n").skip(1).map(|rest| rest.get(..2)).collect();
            assert_eq!(bodies, [Some("/a"), Some("/b"), Some("/c")], "{answers}");
            served.await.expect("no panic");
        }
    }

    #[tokio::test]
    async fn http2_over_a_unix_socket_is_served() {
        let (client, _served) = served(&Arc::new(Load::new(8, 8)));
        let (mut client, connection) = h2::client::handshake(client).await.expect("HTTP/2");
        let driver = tokio::spawn(connection);
        let request = http::Request::get("http://x/a").body(()).expect("a request");
        let (answer, _) = client.send_request(request, true).expect("sent");
        let mut answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.body_mut().data().await.expect("a body").expect("whole"), b"/a"[..]);
        driver.abort();
    }

    #[tokio::test]
    async fn bytes_that_are_not_a_request_are_refused_over_a_unix_socket_too() {
        let large = [&b"GET / HTTP/1.1\r\nX: "[..], &vec![b'x'; Bounds::default().header_size]].concat();
        for (bytes, status) in [(&b"\x16\x03\x01"[..], "400"), (&large, "431")] {
            let load = Arc::new(Load::new(8, 8));
            let (mut client, served) = served(&load);
            client.write_all(bytes).await.expect("sent");
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.expect("an answer");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            drop(client);
            served.await.expect("no panic");
            assert_eq!(load.bad_headers.load(Ordering::Relaxed), 1);
        }
    }
}
