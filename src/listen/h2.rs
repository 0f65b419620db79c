//! HTTP/2: Pingora runs each of a connection's requests in a task of its own, and this gives each its deadlines.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::ShutdownWatch;

use crate::proxy::watched;

/// An app, each of whose requests runs with the watch of its deadlines.
pub(crate) struct WithDeadlines<A> {
    app: Arc<A>,
    options: HttpServerOptions,
}

impl<A> WithDeadlines<A> {
    /// For one connection, which ends when it has been idle for so long.
    pub(crate) fn new(app: &Arc<A>, idle: Duration) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        options.h2_idle_timeout = Some(idle);
        Self { app: Arc::clone(app), options }
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for WithDeadlines<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        watched(self.app.process_new_http(session, shutdown)).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.app.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
