//! The machine's identity: an Entra ID token, from whichever source this host has.
//!
//! azure_identity has no default chain, so it is built here, with `DefaultAzureCredential`'s order and
//! variables: client secret, client certificate, workload identity, managed identity, Azure CLI,
//! Azure Developer CLI. What the environment configures explicitly is not passed over when
//! it fails: pulling as somebody else would hide the mistake.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use azure_core::credentials::AccessToken;
use log::info;

use crate::config::identity::{Identity as Settings, Kind};
use crate::failure::{Failure, Hop};
use crate::net::addresses::Names;
use crate::net::trust::TrustRoots;
use crate::secret::Secret;

mod azure_arc;
mod azure_cli;
mod client_certificate;
mod managed_identity;
mod source;
mod transport;
mod variables;

use source::{Cloud, Source};
use transport::BoundedTransport;
pub use variables::passed_over;

/// An Entra token that is used at once needs no more life than this.
const MIN_LIFE: Duration = Duration::from_secs(30);
/// While the calls behind it fail, a token this young is not asked for again: each time would run `az`, or spend the
/// metadata service's few calls. Older, it may have been issued before somebody mended what fails.
const REUSE: Duration = Duration::from_secs(300);
/// No token is used for longer, whatever is said of its end: Entra's longest hold for a day or so, and a time of some ages
/// from now is more than a clock can count to.
const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY: &str = "https://login.microsoftonline.com";

/// Why nobody can sign in with these settings, whatever Azure says; prints as one sentence.
#[derive(Debug)]
pub enum IdentityError {
    /// A variable that cannot be right: which, and why.
    Variable(String),
    /// The TLS client cannot be made.
    Client(reqwest::Error),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(wrong) => f.write_str(wrong),
            Self::Client(cause) => write!(f, "TLS client: {cause}"),
        }
    }
}

impl std::error::Error for IdentityError {}

/// Who signs in: one source, or the default chain. One winner is kept: later tokens come from the source that gave the
/// first.
pub struct Identity {
    sources: Vec<Source>,
    winner: Mutex<Option<usize>>,
    last_good: Mutex<Option<Good>>,
}

/// An Entra token for the registry's audience.
pub struct EntraToken {
    /// The token itself.
    pub secret: Secret,
    /// Its source gave it just now; else it was kept from an earlier sign-in.
    pub fresh: bool,
}

/// A token and its time. Once it is here no clock that somebody sets has a say in it.
struct Good {
    token: Secret,
    since: Instant,
    ends: Instant,
}

impl Identity {
    /// Reads variables, does no network I/O. A source that cannot work yet, because a file is missing or a variable,
    /// says so when it is its turn, and is tried again; a variable that cannot be right is an error at once.
    pub fn new(settings: &Settings, roots: &TrustRoots, names: &Arc<Names>) -> Result<Self, IdentityError> {
        let kinds = match settings.kind() {
            Kind::Default => variables::default_chain().map_err(IdentityError::Variable)?,
            kind => vec![(kind.clone(), true)],
        };
        // What was not configured on purpose, as a platform's variables, says what is wrong when it is its turn.
        for (kind, _) in kinds.iter().filter(|(_, explicit)| *explicit) {
            variables::check(kind).map_err(IdentityError::Variable)?;
        }
        let authority = match settings.authority() {
            None if kinds.iter().any(|(kind, _)| kind.asks_entra()) => variables::authority(),
            setting => Ok(setting.map(str::to_owned)),
        };
        let authority = authority.map_err(IdentityError::Variable)?.unwrap_or_else(|| AUTHORITY.to_owned());
        let cloud = Cloud { authority, scope: settings.scope().to_owned() };
        let client = transport::client(roots, names).map_err(IdentityError::Client)?;
        let transport = || BoundedTransport::new(client.clone(), Arc::clone(names));
        let source = |(kind, explicit)| Source::new(kind, explicit, cloud.clone(), transport());
        let sources = kinds.into_iter().map(source).collect();
        Ok(Self { sources, winner: Mutex::new(None), last_good: Mutex::new(None) })
    }

    /// An Entra token for the registry's audience. `Err` names every source that was asked and what it said.
    pub async fn token(&self) -> Result<EntraToken, Failure> {
        if let Some(secret) = self.last_good(REUSE) {
            return Ok(EntraToken { secret, fresh: false });
        }
        let winner = *lock(&self.winner);
        let mut failures = Vec::new();
        for (index, source) in self.sources.iter().enumerate() {
            if winner.is_some_and(|winner| winner != index) {
                continue;
            }
            match source.token(winner.is_none()).await {
                Ok(token) => {
                    let good = Good::new(&token);
                    let secret = good.token.clone();
                    *lock(&self.last_good) = Some(good);
                    *lock(&self.winner) = Some(index);
                    if winner.is_none() {
                        info!("entra: signed in by {}", source.name());
                    }
                    return Ok(EntraToken { secret, fresh: true });
                }
                Err(failure) => {
                    // A failed renewal is none while the old token is good.
                    if let Some(secret) = self.last_good(Duration::MAX) {
                        return Ok(EntraToken { secret, fresh: false });
                    }
                    failures.push(failure);
                    if source.is_explicit() {
                        break;
                    }
                }
            }
        }
        Err(summary(failures))
    }

    /// Drops the token that is kept: the registry refused it. A session that was revoked or a host that slept makes a
    /// token useless before the end that was stated for it.
    pub fn forget(&self) {
        *lock(&self.last_good) = None;
    }

    /// The last token, if it still holds and is not older than `age`.
    fn last_good(&self, age: Duration) -> Option<Secret> {
        let last_good = lock(&self.last_good);
        let good = last_good.as_ref()?;
        let left = good.ends.saturating_duration_since(Instant::now());
        (left > MIN_LIFE && good.since.elapsed() <= age).then(|| good.token.clone())
    }
}

impl Good {
    /// Its end is a time on this host's clock as that is now.
    fn new(token: &AccessToken) -> Self {
        let left = SystemTime::from(token.expires_on).duration_since(SystemTime::now()).unwrap_or_default();
        let since = Instant::now();
        Self { token: Secret::new(token.token.secret().to_owned()), since, ends: since + left.min(MAX_LIFE) }
    }
}

/// One failure of all: permanent only if each is, and after the longest pause that was asked for.
fn summary(failures: Vec<Failure>) -> Failure {
    let mut message = "entra: ".to_owned();
    for (index, failure) in failures.iter().enumerate() {
        let _ = write!(message, "{}{failure}", if index == 0 { "" } else { "; " });
    }
    Failure {
        permanent: failures.iter().all(|failure| failure.permanent),
        retry_after: failures.iter().filter_map(|failure| failure.retry_after).max(),
        ..Failure::new(Hop::Identity, message)
    }
}

/// A poisoned lock guards plain values here, so what is in it is whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
