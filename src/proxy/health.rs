//! How a registry does, as the requests to it tell: what is asked of it, and what the log says while stale answers stand in.
//!
//! One for each registry and identity, because ACR meters and refuses by identity. A hit looks at none of it.

use std::fmt::{self, Display, Formatter};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use log::{info, warn};
use oci::quote::registry_error;

use super::fail::Trouble;
use crate::cache::Fetched;
use crate::config::Domain;

mod breaker;
mod stale;

use breaker::{Breaker, Verdict};
use stale::Stale;

/// The state of one registry.
pub(crate) struct Health {
    /// The registry's name in the log.
    name: String,
    reads: AtomicU64,
    breaker: Breaker,
    stale: Stale,
}

impl Health {
    /// Of a registry of which nothing is known.
    pub(crate) fn new(domain: &Domain) -> Self {
        Self {
            name: domain.authority().to_owned(),
            reads: AtomicU64::new(0),
            breaker: Breaker::default(),
            stale: Stale::default(),
        }
    }

    /// Requests that have gone out to the registry, each try counted. Token calls are not among them: ACR counts those apart.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// A request goes out to the registry.
    pub(crate) fn read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the registry may be asked; if not, why not.
    pub(crate) fn may_ask(&self) -> Result<(), Trouble> {
        match self.breaker.down() {
            Some(cause) => Err(Trouble::Down(cause)),
            None => Ok(()),
        }
    }

    /// A request has failed for want of the registry, or takes long. True if a probe is to be started, see [`super::probe`].
    pub(crate) fn suspected(&self, has_failed: bool) -> bool {
        self.breaker.suspected(has_failed)
    }

    /// Something has failed since the last good answer.
    pub(crate) fn is_suspected(&self) -> bool {
        self.breaker.is_suspected()
    }

    /// The registry has answered something, whatever it is.
    pub(crate) fn works(&self) {
        if let Some(lasted) = self.breaker.works() {
            info!("acr {}: it answers again, after {}", self.name, Lasted(lasted));
        }
    }

    /// What a probe has found.
    pub(crate) fn probed(&self, found: Result<(), Trouble>) {
        let cause = match found {
            Ok(()) => return self.works(),
            // This process has no descriptors left, or the like.
            Err(Trouble::Internal(_)) => return,
            Err(trouble) => trouble.to_string(),
        };
        if self.breaker.probe_failed(&cause) == Verdict::IsDown {
            warn!("acr {}: it is down, and probed once a second until it answers: {cause}", self.name);
        }
    }

    /// Nobody probes any more.
    pub(crate) fn probes_end(&self) {
        self.breaker.probes_end();
    }

    /// Something stale was the answer to a request for this path, for this reason.
    pub(crate) fn answered_stale(&self, path: &str, why: &Fetched<Trouble>) {
        let Some(cause) = Cause::of(why) else { return };
        if self.stale.answered(path, cause.is_registrys()) {
            warn!("acr {}: answers are stale from now on, the first of them {path}: {cause}", self.name);
        }
    }

    /// The registry has given an answer to the request for this path.
    pub(crate) fn answered_fresh(&self, path: &str) {
        if let Some(over) = self.stale.answered_fresh(path) {
            info!("acr {}: answers are fresh again: {over}", self.name);
        }
    }
}

/// A time, for people.
struct Lasted(Duration);

impl Display for Lasted {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds / 60 {
            0 => write!(f, "{seconds} s"),
            minutes => write!(f, "{minutes} min {} s", seconds % 60),
        }
    }
}

/// Why something stale is a better answer.
enum Cause<'a> {
    Trouble(&'a Trouble),
    /// The registry's status, with code and message of its body.
    Answer(u16, Option<String>, Option<String>),
}

impl<'a> Cause<'a> {
    fn of(why: &'a Fetched<Trouble>) -> Option<Self> {
        match why {
            Fetched::Failed { trouble, .. } => Some(Self::Trouble(trouble)),
            Fetched::Answer { content, .. } => {
                let (code, message) = registry_error(&content.body);
                Some(Self::Answer(content.status.as_u16(), code, message))
            }
            Fetched::Kept { .. } | Fetched::Pass(_) => None,
        }
    }

    /// It concerns all of the registry. Any other may be one repository's, while others are served.
    fn is_registrys(&self) -> bool {
        match self {
            Self::Trouble(trouble) => trouble.is_registrys(),
            Self::Answer(..) => false,
        }
    }
}

impl Display for Cause<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trouble(trouble) => trouble.fmt(f),
            Self::Answer(status, code, message) => {
                write!(f, "the registry answers {status}")?;
                code.iter().try_for_each(|code| write!(f, " {code}"))?;
                message.iter().try_for_each(|message| write!(f, ": {message}"))
            }
        }
    }
}
