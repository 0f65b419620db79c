//! A client's connection: HTTP/1 or, by prior knowledge, HTTP/2.
//!
//! Pingora tells them apart by the 24 bytes of HTTP/2's preface, and waits for so many without a limit; a request of
//! HTTP/1.0 can be shorter. Three are enough, for no method begins as the preface does.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp as _, HttpServerOptions, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, http_proxy};
use tokio::time::timeout;

use super::shutdown::{Arrival, Arriving};
use super::watched::Watched;
use crate::proxy::{CLIENT_KEEPALIVE, CLIENT_READ_LIMIT, Proxy, watched};

/// RFC 9113 section 3.4: how HTTP/2 begins, of 24 bytes.
const PREFACE: [u8; 3] = *b"PRI";
const PREFACE_LENGTH: usize = 24;
/// An HTTP/2 client keeps its connection for a pull; one without streams for this long has gone.
const H2_IDLE_LIMIT: Duration = Duration::from_secs(60);

/// What is done with each connection that is accepted.
pub struct Downstream {
    proxy: Arc<HttpProxy<Proxy>>,
    arriving: Arriving,
}

impl Downstream {
    /// Serves connections with this proxy; `arriving` counts those that have not had a request yet.
    pub fn new(settings: &Arc<ServerConf>, proxy: Proxy, arriving: Arriving) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        // Refused as every other method that is no pull, and not by Pingora with an empty body.
        options.allow_connect_method_proxying = true;
        options.h2_idle_timeout = Some(H2_IDLE_LIMIT);
        let mut proxy = http_proxy(settings, proxy);
        proxy.server_options = Some(options);
        Self { proxy: Arc::new(proxy), arriving }
    }

    /// Whether the connection speaks HTTP/2; `None` if it says nothing in time, or goes.
    async fn speaks_h2(stream: &mut Stream) -> Option<bool> {
        let mut first = [0; PREFACE.len()];
        stream.try_peek(&mut first).await.ok()?;
        if first != PREFACE {
            return Some(false);
        }
        // Pingora reads these again, and finds them there.
        stream.try_peek(&mut [0; PREFACE_LENGTH]).await.ok()?;
        Some(true)
    }

    async fn serve_http1(&self, stream: Stream, shutdown: &ShutdownWatch, arrival: Arrival) {
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive((!*shutdown.borrow()).then_some(CLIENT_KEEPALIVE.as_secs()));
        let mut reused = watched(self.proxy.process_new_http(session, shutdown)).await;
        // A connection that was of use may be closed: clients repeat on a new one what they send at that moment.
        drop(arrival);
        while let Some((stream, settings)) = reused.map(|reused| reused.consume()) {
            let mut session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            reused = watched(self.proxy.process_new_http(session, shutdown)).await;
        }
    }
}

#[async_trait]
impl ServerApp for Downstream {
    async fn process_new(self: &Arc<Self>, mut stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let arrival = self.arriving.enter();
        match timeout(CLIENT_READ_LIMIT, Self::speaks_h2(&mut stream)).await {
            Ok(Some(true)) => {
                drop(arrival);
                Arc::new(Watched(Arc::clone(&self.proxy))).process_new(stream, shutdown).await
            }
            Ok(Some(false)) => {
                self.serve_http1(stream, shutdown, arrival).await;
                None
            }
            Ok(None) | Err(_) => None,
        }
    }

    async fn cleanup(&self) {
        ServerApp::cleanup(&*self.proxy).await;
    }
}
