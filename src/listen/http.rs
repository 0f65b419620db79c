//! A client's connection from its first byte to its last: requests of HTTP/1 one after the other or, by prior knowledge,
//! HTTP/2.
//!
//! A request's header is gathered here, with one deadline and one cap, before Pingora sees any of it: left to itself,
//! Pingora has a deadline for each read, takes 1 MiB, parses anew after each read, and does not serve a request that was sent
//! before the answer to the one before.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use pingora_core::apps::{HttpServerApp, ServerApp as _};
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_timeout::timeout;
use tokio::sync::Notify;

use super::HEADER_LIMIT;
use super::connection::{Connection, Stream};
use super::h2::Watched;
use super::header::{Header, Malformed};
use super::refusal::{self, NoRequest};
use super::signal::{Arrival, Arriving};
use crate::load::Load;
use crate::proxy::watched;

/// A header is this large at most, here and over HTTP/2; real ones have less than 1 KiB.
pub const MAX_HEADER: usize = 64 << 10;
/// How HTTP/2 begins (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// For this long after a request its connection counts as in use and does not listen for [`Downstream::make_room`]. The
/// requests of a pull follow each other at once, and each would pay for listening.
const IN_USE: Duration = Duration::from_secs(1);

/// What is done with each connection that is accepted.
pub struct Downstream<A> {
    app: Arc<A>,
    keepalive: Duration,
    speaks_h2: bool,
    arriving: Arriving,
    load: Arc<Load>,
    /// Ends the connection that has been idle for the longest time.
    make_room: Notify,
}

/// What a connection brings next.
enum Next {
    /// The header of a request, and of its body what is there.
    Request(BytesMut),
    /// HTTP/2, from its first byte.
    Http2,
    /// Nothing that can be served.
    Nothing(NoRequest),
    /// Its end.
    End,
}

impl<A: HttpServerApp + Send + Sync + 'static> Downstream<A> {
    /// Serves connections with this app; an idle one ends after `keepalive`. `arriving` counts those that may still bring
    /// a request.
    pub fn new(app: A, keepalive: Duration, speaks_h2: bool, arriving: &Arriving, load: &Arc<Load>) -> Self {
        let (arriving, load) = (arriving.clone(), Arc::clone(load));
        Self { app: Arc::new(app), keepalive, speaks_h2, arriving, load, make_room: Notify::new() }
    }

    /// One of the idle connections ends, now or as soon as there is one.
    pub fn make_room(&self) {
        self.make_room.notify_one();
    }

    /// Serves a connection to its end. `arrival` counts it until its first request has ended: a client whose first request
    /// on a connection fails does not repeat it.
    pub async fn serve<S: Stream>(
        &self,
        mut connection: Box<Connection<S>>,
        mut arrival: Arrival,
        shutdown: &ShutdownWatch,
    ) {
        let mut next = self.first(&mut connection).await;
        loop {
            match next {
                Next::Request(bytes) => {
                    let mut session = ServerSession::new_http1(connection);
                    session.set_pipelined_prefix(bytes);
                    let Some(reused) = watched(self.app.process_new_http(session, shutdown)).await else {
                        return;
                    };
                    // It is the one that was given.
                    let Ok(same) = reused.consume().0.into_any().downcast() else {
                        return;
                    };
                    connection = same;
                }
                Next::Http2 => {
                    Arc::new(Watched(Arc::clone(&self.app))).process_new(connection, shutdown).await;
                    return;
                }
                Next::Nothing(why) => {
                    drop(arrival);
                    self.load.bad_headers.fetch_add(1, Ordering::Relaxed);
                    refusal::refuse(connection.stream(), why).await;
                    return;
                }
                Next::End => return,
            }
            arrival = self.arriving.enter();
            next = self.further(&mut connection).await;
        }
    }

    /// A new connection has as long for all of its first header as any header has from its first byte.
    async fn first(&self, connection: &mut Connection<impl Stream>) -> Next {
        match timeout(HEADER_LIMIT, Self::gather(connection, self.speaks_h2)).await {
            Ok(next) => next,
            Err(_) => too_slow(connection),
        }
    }

    async fn further(&self, connection: &mut Connection<impl Stream>) -> Next {
        if connection.buffer().is_empty() {
            // What is there is served before the connection goes.
            let in_use = self.keepalive.min(IN_USE);
            let has_more = match timeout(in_use, connection.fill(MAX_HEADER)).await {
                Ok(filled) => filled.is_ok_and(|length| length > 0),
                Err(_) => {
                    let idle = async {
                        tokio::select! {
                            biased;
                            filled = connection.fill(MAX_HEADER) => filled.is_ok_and(|length| length > 0),
                            () = self.make_room.notified() => false,
                        }
                    };
                    timeout(self.keepalive.saturating_sub(in_use), idle).await.unwrap_or(false)
                }
            };
            if !has_more {
                return Next::End;
            }
        }
        match timeout(HEADER_LIMIT, Self::gather(connection, false)).await {
            Ok(next) => next,
            Err(_) => too_slow(connection),
        }
    }

    async fn gather(connection: &mut Connection<impl Stream>, speaks_h2: bool) -> Next {
        let mut header = Header::default();
        loop {
            let bytes = connection.buffer();
            if speaks_h2 && bytes.starts_with(PREFACE) {
                connection.start_frames(PREFACE.len());
                return Next::Http2;
            }
            if !(speaks_h2 && PREFACE.starts_with(bytes)) {
                match header.end(bytes) {
                    Ok(Some(length)) => return Next::Request(connection.take_request(length, header.has_body())),
                    Err(Malformed) => return Next::Nothing(NoRequest::Malformed),
                    Ok(None) if bytes.len() >= MAX_HEADER => return Next::Nothing(NoRequest::TooLarge),
                    Ok(None) => {}
                }
            }
            match connection.fill(MAX_HEADER).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Next::End,
            }
        }
    }
}

/// Who has said nothing is told nothing: a client may have the connection in stock, and would take it for an answer.
fn too_slow(connection: &mut Connection<impl Stream>) -> Next {
    if connection.buffer().is_empty() { Next::End } else { Next::Nothing(NoRequest::TooSlow) }
}
