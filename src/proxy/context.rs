//! What one request carries from phase to phase.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::fail::Trouble;
use crate::token::Bearer;

/// The state of one request.
pub struct Context {
    started: Instant,
    /// Which part of the API, for the log; set when the request is accepted.
    pub endpoint: &'static str,
    /// Path and query in the registry; set when the request is accepted.
    pub target: String,
    /// Length of the repository's name in `target`, behind `/v2/`.
    pub name_length: usize,
    /// The token that the request goes with.
    pub bearer: Option<Arc<Bearer>>,
    /// A 401 was answered with a fresh token once.
    pub renewed: bool,
    /// Which of the registry's addresses was tried first.
    pub first_address: Option<usize>,
    /// Addresses that took no connection.
    pub refused: usize,
    /// Replays on a fresh connection.
    pub replays: u32,
    /// Where the request went.
    pub address: Option<SocketAddr>,
    /// Why the request fails, where a phase knows better than Pingora's error.
    pub trouble: Option<Trouble>,
    /// ACR's id of the request, for its support.
    pub correlation: Option<http::HeaderValue>,
    _in_flight: InFlight,
}

/// `/v2/` comes before every repository name.
const NAME_START: usize = 4;

impl Context {
    pub(super) fn new(in_flight: &Arc<AtomicUsize>) -> Self {
        Self {
            started: Instant::now(),
            endpoint: "",
            target: String::new(),
            name_length: 0,
            bearer: None,
            renewed: false,
            first_address: None,
            refused: 0,
            replays: 0,
            address: None,
            trouble: None,
            correlation: None,
            _in_flight: InFlight::enter(in_flight),
        }
    }

    /// The repository's whole name in the registry, prefix included; empty before the request is accepted.
    pub fn repository(&self) -> &str {
        self.target.get(NAME_START..NAME_START + self.name_length).unwrap_or_default()
    }

    /// Time since the request's header was read.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Counts a request for as long as it lives.
struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    fn enter(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
