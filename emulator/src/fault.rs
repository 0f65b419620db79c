//! Failures that a test injects into the servers.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;
use crate::record::Hop;

/// A way for one hop to fail.
///
/// Each has been seen by clients of Azure: the statuses and bodies in Azure/acr's issues, and what networks do to
/// connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This status, with the error body that the hop would use for it.
    Status(u16),
    /// This status with these headers and this body.
    StatusWith {
        /// The status.
        status: u16,
        /// Headers, beside those that every answer has. `Transfer-Encoding: chunked` and `Connection: close` take the
        /// place of its `Content-Length`, and the body is framed so.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
    /// 429 with a `Retry-After` that counts down in seconds, until this much time has passed since the injection; correct
    /// answers from then on.
    Throttled(Duration),
    /// The error of a cache rule with this status, though the registry itself is well: 401, 403 or 424 for a credential set
    /// that is not healthy, 429 from the source registry (Azure/acr#599, #754, #772, #891, #892, #893).
    CacheRule(u16),
    /// The connection is reset at once. Entra, storage and the identity endpoint reset it when
    /// they accept it; the registry, whose listener serves three hops, when it has read which
    /// one is meant. To refuse all of the registry see [`crate::Emulator::refuse_connections`].
    RefuseConnections,
    /// The head and half of the body are sent, then the connection is reset (RST).
    ResetMidBody,
    /// No answer ever comes.
    Hang,
    /// Status 200, the right content type, and a body that is no JSON.
    GarbageJson,
    /// Status 200, the right content type, and 256 MiB of JSON white space.
    HugeBody,
    /// The correct answer, one byte of body every 250 milliseconds.
    SlowDrip,
    /// The correct answer, called `text/html`.
    WrongContentType,
    /// The correct answer, but neither the token nor the answer says when the token ends. The registry accepts its own
    /// tokens all the same.
    TokenWithoutExp,
    /// The correct answer, but the token ended an hour ago.
    TokenExpired,
    /// The connection is closed (FIN) once the request has been read.
    DieBeforeResponse,
    /// The connection is closed (FIN) after this many bytes of a body that promises more.
    CutBody(u64),
    /// The registry's challenge, whatever token came with the request.
    Challenge401,
    /// Not a failure, but allowed by HTTP: the correct answer in chunks, without its length.
    Chunked,
    /// Also allowed: the correct answer as in HTTP/1.0, without its length and not in chunks. It ends with the connection.
    UntilClose,
    /// Also allowed: the correct answer, its body compressed by gzip whether or not the client asked for it.
    Gzip,
    /// The correct answer with a pause of this length after the first half of its body.
    PauseMidBody(Duration),
    /// The head of the correct answer, one byte every three seconds.
    DripHead,
    /// An interim answer of this status (RFC 9110 section 15.2), then the correct one, then the connection is closed.
    Interim(u16),
    /// The same, but the connection is closed (FIN) in place of the correct answer.
    InterimThenClose(u16),
    /// An interim answer of this status every second, and never a final one.
    InterimForever(u16),
    /// The correct answer, and these bytes behind it, which nobody has asked for. The connection stays open.
    Surplus(String),
    /// 101 to a request that asked for no other protocol; what comes in after it is not read.
    SwitchProtocols,
    /// The correct answer, with its length and in this transfer coding by its head, which it is not. The connection stays open.
    Coding(String),
    /// Bytes that are no HTTP, and the end of the connection (FIN).
    NotHttp,
    /// These bytes in place of an answer, and the end of the connection (FIN). `{token}` in them is the token that came with the request.
    Raw(String),
}

impl Fault {
    /// Injects the fault into the next `count` requests only.
    pub fn times(self, count: u32) -> Injection {
        Injection::from(self).times(count)
    }

    /// Injects the fault only into requests whose path and query contain `part`.
    pub fn on_path(self, part: impl Into<String>) -> Injection {
        Injection::from(self).on_path(part)
    }
}

/// A [`Fault`] with the requests that it is meant for.
///
/// Without limits it stays until [`crate::Emulator::clear_faults`]. Of several that match, the one injected first is used;
/// when its count is used up, the next one follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// What goes wrong.
    pub fault: Fault,
    /// How many more times; `None` is without end.
    pub times: Option<u32>,
    /// Only requests whose path and query contain this.
    pub path_contains: Option<String>,
}

impl Injection {
    /// Injects the fault into the next `count` requests only.
    pub fn times(mut self, count: u32) -> Injection {
        self.times = Some(count);
        self
    }

    /// Injects the fault only into requests whose path and query contain `part`.
    pub fn on_path(mut self, part: impl Into<String>) -> Injection {
        self.path_contains = Some(part.into());
        self
    }
}

impl From<Fault> for Injection {
    fn from(fault: Fault) -> Injection {
        Injection { fault, times: None, path_contains: None }
    }
}

/// The injected faults.
#[derive(Default)]
pub(crate) struct Faults {
    injections: Mutex<Vec<Injected>>,
}

struct Injected {
    hop: Hop,
    injection: Injection,
    since: Instant,
}

impl Injected {
    /// The fault as it is now; `None` once it is over.
    fn fault(&self) -> Option<Fault> {
        if self.injection.times == Some(0) {
            return None;
        }
        match &self.injection.fault {
            Fault::Throttled(time) => {
                let left = time.saturating_sub(self.since.elapsed());
                (!left.is_zero()).then_some(Fault::Throttled(left))
            }
            fault => Some(fault.clone()),
        }
    }
}

impl Faults {
    pub(crate) fn add(&self, hop: Hop, injection: Injection) {
        lock(&self.injections).push(Injected { hop, injection, since: Instant::now() });
    }

    pub(crate) fn clear(&self) {
        lock(&self.injections).clear();
    }

    /// The fault for a request; it counts as used.
    pub(crate) fn next(&self, hop: Hop, target: &str) -> Option<Fault> {
        self.take(|at, injection| {
            at == hop && injection.path_contains.as_deref().is_none_or(|part| target.contains(part))
        })
    }

    /// Whether a new connection to a server with this one hop is to be reset.
    pub(crate) fn refuses(&self, hop: Hop) -> bool {
        self.take(|at, injection| {
            at == hop && injection.fault == Fault::RefuseConnections && injection.path_contains.is_none()
        })
        .is_some()
    }

    fn take(&self, matches: impl Fn(Hop, &Injection) -> bool) -> Option<Fault> {
        let mut injections = lock(&self.injections);
        let mut matching = injections.iter_mut().filter(|injected| matches(injected.hop, &injected.injection));
        let (injected, fault) = matching.find_map(|injected| injected.fault().map(|fault| (injected, fault)))?;
        if let Some(times) = &mut injected.injection.times {
            *times -= 1;
        }
        Some(fault)
    }
}
