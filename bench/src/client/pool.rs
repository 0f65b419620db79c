//! The connections of one worker, and requests on them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::connector::{Connector, Sender};
use super::request::Request;
use super::response::Response;
use crate::failure::{Failure, with_causes};
use crate::meter::Meter;
use crate::origin::Origin;
use crate::phase::Phase;

/// The header of a response. The proxy sends its own within 30 s in any case, so this limit cuts none of them off.
const RESPONSE_LIMIT: Duration = Duration::from_secs(40);

/// Connections to any number of hosts. Requests may be sent at the same time.
pub struct Pool {
    connector: Arc<Connector>,
    /// Idle connections that are kept to each host; 0 opens a connection for each request.
    max_idle: usize,
    idle: Mutex<HashMap<Origin, Vec<Sender>>>,
    /// Filled only if somebody wants to see it.
    exchanges: Option<Mutex<Vec<Exchange>>>,
}

/// A request and what came of it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The host.
    pub origin: Origin,
    /// Method and path, as `GET /v2/`, or method and storage host.
    pub request: String,
    /// The status.
    pub status: StatusCode,
    /// Bytes of the body.
    pub bytes: u64,
    /// From the request to the end of the body.
    pub took: Duration,
}

impl Pool {
    /// Keeps up to `max_idle` idle connections to each host; with 0, every request has a connection of its own.
    pub fn new(connector: Arc<Connector>, max_idle: usize) -> Self {
        Self { connector, max_idle, idle: Mutex::default(), exchanges: None }
    }

    /// The same, and it remembers every exchange.
    pub fn recording(connector: Arc<Connector>, max_idle: usize) -> Self {
        Self { exchanges: Some(Mutex::default()), ..Self::new(connector, max_idle) }
    }

    /// What was remembered, in the order in which bodies ended.
    pub fn exchanges(&self) -> Vec<Exchange> {
        let exchanges = self.exchanges.as_ref();
        exchanges.map_or_else(Vec::new, |all| all.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Sends a request. If a kept connection ends before the response, the request is sent once more on a new one, as
    /// every client does.
    pub async fn send(&self, request: &Request<'_>, meter: &mut Meter) -> Result<Response<'_>, Failure> {
        let failed = |cause: String| Failure::new(format!("{}: {cause}", request.name()));
        while let Some(mut sender) = self.take(request.origin) {
            let alive = sender.ready().await.is_ok();
            if alive && let Ok((response, sent)) = self.send_on(&mut sender, request).await {
                return Ok(Response::new(self, request, sender, response, sent));
            }
        }
        let (mut sender, took) = self.connector.connect(request.origin).await.map_err(failed)?;
        meter.time(Phase::Connect, took);
        let (response, sent) = self.send_on(&mut sender, request).await.map_err(failed)?;
        Ok(Response::new(self, request, sender, response, sent))
    }

    async fn send_on(
        &self,
        sender: &mut Sender,
        request: &Request<'_>,
    ) -> Result<(http::Response<Incoming>, Instant), String> {
        let request = request.build(self.max_idle > 0)?;
        let sent = Instant::now();
        match timeout(RESPONSE_LIMIT, sender.send_request(request)).await {
            Ok(Ok(response)) => Ok((response, sent)),
            Ok(Err(cause)) => Err(with_causes(&cause)),
            Err(_) => Err(format!("no answer within {} s", RESPONSE_LIMIT.as_secs())),
        }
    }

    fn take(&self, origin: &Origin) -> Option<Sender> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).get_mut(origin)?.pop()
    }

    pub(super) fn give_back(&self, origin: Origin, sender: Sender) {
        if self.max_idle == 0 || sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = idle.entry(origin).or_default();
        if idle.len() < self.max_idle {
            idle.push(sender);
        }
    }

    pub(super) fn record(&self, exchange: impl FnOnce() -> Exchange) {
        if let Some(exchanges) = &self.exchanges {
            exchanges.lock().unwrap_or_else(PoisonError::into_inner).push(exchange());
        }
    }
}
