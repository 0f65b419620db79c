//! Failures that the servers play on demand.

use std::sync::Mutex;
use std::time::Duration;

use crate::lock::lock;
use crate::record::Hop;

/// A way for one hop to fail.
///
/// Each is something that clients of Azure have met: the statuses and bodies of
/// Azure/acr's issues, and what networks do to connections.
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
    /// The right answer, one byte of body every 250 milliseconds.
    SlowDrip,
    /// The right answer, called `text/html`.
    WrongContentType,
    /// The right answer, but the token says nothing of its end, and neither does the answer. The
    /// registry, which knows its own tokens, takes it all the same.
    TokenWithoutExp,
    /// The right answer, but the token ended an hour ago.
    TokenExpired,
    /// The connection is closed (FIN) once the request has been read.
    DieBeforeResponse,
    /// The connection is closed (FIN) after so many bytes of a body that promises more.
    CutBody(u64),
    /// The registry's challenge, whatever token came with the request.
    Challenge401,
    /// No fault but a liberty: the right answer in chunks, without its length.
    Chunked,
    /// Another one: the right answer as HTTP/1.0 has it, without its length and not in chunks. It ends with the connection.
    UntilClose,
    /// A third one: the right answer, its body packed by gzip whether or not the client asked for it.
    Gzip,
    /// The right answer, the first half of its body, silence for so long, then the rest.
    PauseMidBody(Duration),
    /// The head of the right answer, one byte every three seconds.
    DripHead,
    /// An interim answer of this status (RFC 9110 section 15.2), then the right one, then the connection is closed.
    Interim(u16),
    /// The same, but the connection is closed (FIN) in place of the right answer.
    InterimThenClose(u16),
    /// An interim answer of this status every second, and never a final one.
    InterimForever(u16),
    /// 101 to a request that asked for no other protocol; what comes in after it is not read.
    SwitchProtocols,
}

impl Fault {
    /// Plays the fault for the next `count` requests only.
    pub fn times(self, count: u32) -> Injection {
        Injection::from(self).times(count)
    }

    /// Plays the fault only for requests whose path and query contain `part`.
    pub fn on_path(self, part: impl Into<String>) -> Injection {
        Injection::from(self).on_path(part)
    }
}

/// A [`Fault`] with the requests that it is meant for.
///
/// Without limits it stays until [`crate::Emulator::clear_faults`]. Of several that match,
/// the one injected first is played; when its count is used up the next one follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// What goes wrong.
    pub fault: Fault,
    /// How many more times; for ever when there is no number.
    pub times: Option<u32>,
    /// Only requests whose path and query contain this.
    pub path_contains: Option<String>,
}

impl Injection {
    /// Plays the fault for the next `count` requests only.
    pub fn times(mut self, count: u32) -> Injection {
        self.times = Some(count);
        self
    }

    /// Plays the fault only for requests whose path and query contain `part`.
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

/// The faults that wait to be played.
#[derive(Default)]
pub(crate) struct Faults {
    injections: Mutex<Vec<(Hop, Injection)>>,
}

impl Faults {
    pub(crate) fn add(&self, hop: Hop, injection: Injection) {
        lock(&self.injections).push((hop, injection));
    }

    pub(crate) fn clear(&self) {
        lock(&self.injections).clear();
    }

    /// The fault for a request, counted as played.
    pub(crate) fn next(&self, hop: Hop, target: &str) -> Option<Fault> {
        self.play(|at, injection| {
            at == hop && injection.path_contains.as_deref().is_none_or(|part| target.contains(part))
        })
    }

    /// Whether a new connection to a server with this one hop is to be reset.
    pub(crate) fn refuses(&self, hop: Hop) -> bool {
        self.play(|at, injection| {
            at == hop && injection.fault == Fault::RefuseConnections && injection.path_contains.is_none()
        })
        .is_some()
    }

    fn play(&self, matches: impl Fn(Hop, &Injection) -> bool) -> Option<Fault> {
        let mut injections = lock(&self.injections);
        let at =
            injections.iter().position(|(hop, injection)| injection.times != Some(0) && matches(*hop, injection))?;
        let injection = &mut injections[at].1;
        if let Some(times) = &mut injection.times {
            *times -= 1;
        }
        Some(injection.fault.clone())
    }
}
