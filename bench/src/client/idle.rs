//! Idle connections, kept for the next request, and a record of exchanges for those who want to see them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;

use super::connector::Sender;
use crate::origin::Origin;

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

/// The connections between requests.
pub(super) struct Idle {
    /// Connections that are kept to each host; 0 keeps none.
    max: usize,
    connections: Mutex<HashMap<Origin, Vec<Sender>>>,
    exchanges: Option<Mutex<Vec<Exchange>>>,
}

impl Idle {
    pub(super) fn new(max: usize, records: bool) -> Self {
        Self { max, connections: Mutex::default(), exchanges: records.then(Mutex::default) }
    }

    /// Whether connections are kept at all.
    pub(super) fn keeps(&self) -> bool {
        self.max > 0
    }

    pub(super) fn take(&self, origin: &Origin) -> Option<Sender> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).get_mut(origin)?.pop()
    }

    pub(super) fn give_back(&self, origin: Origin, sender: Sender) {
        if self.max == 0 || sender.is_closed() {
            return;
        }
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = connections.entry(origin).or_default();
        if idle.len() < self.max {
            idle.push(sender);
        }
    }

    pub(super) fn record(&self, exchange: impl FnOnce() -> Exchange) {
        if let Some(exchanges) = &self.exchanges {
            exchanges.lock().unwrap_or_else(PoisonError::into_inner).push(exchange());
        }
    }

    pub(super) fn exchanges(&self) -> Vec<Exchange> {
        let exchanges = self.exchanges.as_ref();
        exchanges.map_or_else(Vec::new, |all| all.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}
