//! The connections of one worker, and requests on them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use tokio::time::timeout;

use super::connector::{Connector, Sender};
use super::idle::{Exchange, Idle};
use super::request::Request;
use super::response::Response;
use crate::failure::{Failure, with_causes};
use crate::meter::Meter;
use crate::phase::Phase;

/// The header of a response. The proxy sends its own within 30 s in any case, so this limit cuts none of them off.
const RESPONSE_LIMIT: Duration = Duration::from_secs(40);

/// Connections to any number of hosts. Requests may be sent at the same time.
pub struct Pool {
    connector: Arc<Connector>,
    idle: Idle,
}

impl Pool {
    /// Keeps up to `max_idle` idle connections to each host; with 0, every request has a connection of its own.
    pub fn new(connector: Arc<Connector>, max_idle: usize) -> Self {
        Self { connector, idle: Idle::new(max_idle, false) }
    }

    /// The same, and it remembers every exchange.
    pub fn recording(connector: Arc<Connector>, max_idle: usize) -> Self {
        Self { connector, idle: Idle::new(max_idle, true) }
    }

    /// What was remembered, in the order in which bodies ended.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.idle.exchanges()
    }

    /// Sends a request. If a kept connection ends before the response, the request is sent once more on a new one, as
    /// every client does.
    pub async fn send(&self, request: &Request<'_>, meter: &mut Meter) -> Result<Response<'_>, Failure> {
        let failed = |cause: String| Failure::new(format!("{}: {cause}", request.name()));
        while let Some(mut sender) = self.idle.take(request.origin) {
            let alive = sender.ready().await.is_ok();
            if alive && let Ok((response, sent)) = self.send_on(&mut sender, request).await {
                return Ok(Response::new(&self.idle, request, sender, response, sent));
            }
        }
        let (mut sender, took) = self.connector.connect(request.origin).await.map_err(failed)?;
        meter.time(Phase::Connect, took);
        let (response, sent) = self.send_on(&mut sender, request).await.map_err(failed)?;
        Ok(Response::new(&self.idle, request, sender, response, sent))
    }

    async fn send_on(
        &self,
        sender: &mut Sender,
        request: &Request<'_>,
    ) -> Result<(http::Response<Incoming>, Instant), String> {
        let request = request.build(self.idle.keeps())?;
        let sent = Instant::now();
        match timeout(RESPONSE_LIMIT, sender.send_request(request)).await {
            Ok(Ok(response)) => Ok((response, sent)),
            Ok(Err(cause)) => Err(with_causes(&cause)),
            Err(_) => Err(format!("no answer within {} s", RESPONSE_LIMIT.as_secs())),
        }
    }
}
