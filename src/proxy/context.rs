//! What one request carries from phase to phase.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Uri};
use pingora_core::{Error, ErrorType, Result};

use super::destination::Destination;
use super::endpoint::Endpoint;
use super::fail::Trouble;
use super::log;
use super::storage::Storage;
use crate::load::{Bound, Place};
use crate::net::addresses::Attempt;
use crate::token::Bearer;
use oci::error::Refusal;
use oci::rewrite::Rewriting;

/// The state of one request.
pub struct Context {
    started: Instant,
    /// Which part of the API; set when the request is accepted.
    pub endpoint: Option<Endpoint>,
    /// Where the request goes; set when it is accepted.
    pub destination: Option<Arc<Destination>>,
    /// Path and query in the registry; set when the request is accepted.
    pub target: String,
    /// Length of the repository's name in `target`, behind `/v2/`.
    pub name_length: usize,
    /// Length of the client's name for it, behind the `/v2/` of its path.
    pub client_name_length: usize,
    /// Where the registry's redirect of a blob leads, if it is followed here.
    pub storage: Option<Storage>,
    /// What of the answer's body is to be put in the client's names.
    pub rewriting: Option<Rewriting>,
    /// The token that the request goes with.
    pub bearer: Option<Arc<Bearer>>,
    /// A 401 was answered with a fresh token once.
    pub renewed: bool,
    /// A 401 to a fresh token was answered with one of the repository's own.
    pub narrowed: bool,
    /// Tries to connect to the registry that came to nothing.
    pub refused: usize,
    /// How often it was sent again after a connection that died or a failure that may be short.
    pub replays: u32,
    /// One of these was the replay after a connection that died, which each leg has once.
    pub is_replayed: bool,
    /// The next try takes no pooled connection.
    pub needs_fresh: bool,
    /// How often a part of a blob was asked for again after a failure that may be short.
    pub repeats: usize,
    /// The next try begins after this.
    pub pause: Duration,
    /// The way to the registry or to storage, whichever was asked last.
    pub attempt: Option<Arc<Attempt>>,
    /// Why the request was not accepted.
    pub refusal: Option<Refusal>,
    /// Why the request fails, where a phase knows better than Pingora's error.
    pub trouble: Option<Trouble>,
    /// ACR's id of the request, for its support.
    pub correlation: Option<http::HeaderValue>,
    /// What the client asks for, until its line is in the log.
    pub asked: Option<Asked>,
    /// Status of the answer, 0 before there is one.
    pub status: u16,
    /// Bytes of the answer's body that came.
    pub body_bytes: usize,
    place: Place,
}

/// A request, as its line in the log has it.
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// What it is for.
    pub uri: Uri,
    /// Whose it is.
    pub client: Option<SocketAddr>,
}

/// A request that is dropped before its end, as at the end of a drain, has its line, too.
impl Drop for Context {
    fn drop(&mut self) {
        if let Some(asked) = self.asked.take() {
            log::cut_off(&asked, self);
        }
    }
}

/// `/v2/` comes before every repository name.
const NAME_START: usize = 4;

impl Context {
    pub(super) fn new(requests: &Arc<Bound>) -> Self {
        Self {
            started: Instant::now(),
            endpoint: None,
            destination: None,
            target: String::new(),
            name_length: 0,
            client_name_length: 0,
            storage: None,
            rewriting: None,
            bearer: None,
            renewed: false,
            narrowed: false,
            refused: 0,
            replays: 0,
            is_replayed: false,
            needs_fresh: false,
            repeats: 0,
            pause: Duration::ZERO,
            attempt: None,
            refusal: None,
            trouble: None,
            correlation: None,
            asked: None,
            status: 0,
            body_bytes: 0,
            place: requests.enter(),
        }
    }

    /// The repository's whole name in the registry, prefix included; empty before the request is accepted.
    pub fn repository(&self) -> &str {
        self.target.get(NAME_START..NAME_START + self.name_length).unwrap_or_default()
    }

    /// The repository's name as the client writes it, out of the path of its request.
    pub fn client_name<'a>(&self, path: &'a str) -> &'a str {
        path.get(NAME_START..NAME_START + self.client_name_length).unwrap_or_default()
    }

    /// Where the request went last.
    pub fn address(&self) -> Option<SocketAddr> {
        self.attempt.as_ref().map(|attempt| attempt.address())
    }

    /// Where the request goes. Pingora comes to no phase that asks before the request is accepted.
    pub fn destination(&self) -> Result<&Arc<Destination>> {
        self.destination.as_ref().ok_or_else(|| Error::explain(ErrorType::InternalError, "no route was chosen"))
    }

    /// Which part of the API the request is for. See [`Self::destination`].
    pub fn endpoint(&self) -> Result<Endpoint> {
        self.endpoint.ok_or_else(|| Error::explain(ErrorType::InternalError, "no route was chosen"))
    }

    /// There are more requests under way than there may be, and this one is to be refused.
    pub fn is_too_many(&self) -> bool {
        self.place.over() > 0
    }

    /// As if the request had come so much earlier.
    #[cfg(test)]
    pub fn aged(mut self, by: Duration) -> Self {
        self.started = self.started.checked_sub(by).expect("this machine runs for longer than that");
        self
    }

    /// Time since the request's header was read.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}
