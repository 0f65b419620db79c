//! The sources of this host in order, asked until one gives a token.
//!
//! azure_identity has no default chain, so it is built here, with `DefaultAzureCredential`'s order and variables: client
//! secret, client certificate, workload identity, managed identity, Azure CLI, Azure Developer CLI. A source that the
//! environment configures explicitly is not passed over when it fails: pulling as somebody else would hide the error.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use azure_core::credentials::AccessToken;
use log::info;
use reqwest::Url;

use super::inputs::{Cloud, MAX_LIFE};
use super::remedy::{with_authority, with_remedy};
use super::source::TokenSource;
use super::transport::{Network, Transport};
use super::variables::{self, VariableError};
use crate::config::identity::{Identity, Kind};
use crate::failure::{Failure, Hop};
use crate::net::addresses::Names;
use crate::net::egress::Egress;
use crate::net::trust::TrustRoots;
use crate::secret::Secret;

/// An Entra token with less life left than this is not used: it is exchanged at once, and the call takes its time.
const MIN_LIFE: Duration = Duration::from_secs(30);
/// While the calls behind it fail, a token younger than this is used again: a new one would run `az`, or spend the
/// metadata service's few calls. An older one may date from before somebody mended what fails.
const REUSE: Duration = Duration::from_secs(300);
const AUTHORITY: &str = "https://login.microsoftonline.com";

/// Why nobody can sign in with these settings, whatever Azure says; displays as one sentence.
#[derive(Debug)]
pub(crate) enum IdentityError {
    /// A variable cannot be right.
    Variable(VariableError),
    /// The TLS client cannot be made.
    Client(reqwest::Error),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(cause) => cause.fmt(f),
            Self::Client(cause) => write!(f, "TLS client: {cause}"),
        }
    }
}

impl Error for IdentityError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Variable(cause) => Some(cause),
            Self::Client(cause) => Some(cause),
        }
    }
}

impl From<VariableError> for IdentityError {
    fn from(cause: VariableError) -> Self {
        Self::Variable(cause)
    }
}

/// The sources that are asked: one, or the default chain. Later tokens come from the source that gave the first.
pub(crate) struct Chain {
    sources: Vec<TokenSource>,
    /// As the settings have it.
    kind: Kind,
    /// The host that somebody has named in Entra ID's place.
    named_host: Option<String>,
    winner: Mutex<Option<usize>>,
    last: Mutex<Option<CachedToken>>,
}

/// An Entra token for the registry's audience.
pub(crate) struct EntraToken {
    /// The token itself.
    pub secret: Secret,
    /// Its source gave it just now; else it is from an earlier sign-in.
    pub fresh: bool,
    /// The source's name.
    pub by: &'static str,
}

/// A token and its end, by a clock that nobody sets.
struct CachedToken {
    secret: Secret,
    since: Instant,
    ends: Instant,
}

impl Chain {
    /// Reads variables, does no network I/O; `None` if nobody is to sign in. A source that cannot work yet, because a file
    /// or a variable is missing, fails when it is asked, and is asked again; a variable that cannot be right is an error
    /// at once.
    pub(crate) fn new(
        settings: &Identity,
        roots: &TrustRoots,
        names: &Arc<Names>,
        egress: &Arc<Egress>,
    ) -> Result<Option<Self>, IdentityError> {
        let kinds = match settings.kind() {
            Kind::Anonymous => return Ok(None),
            Kind::Default => variables::default_chain()?,
            kind @ (Kind::ClientSecret { .. }
            | Kind::ClientCertificate { .. }
            | Kind::WorkloadIdentity { .. }
            | Kind::ManagedIdentity(_)
            | Kind::AzureArc { .. }
            | Kind::AzureCli
            | Kind::AzureDeveloperCli) => vec![(kind.clone(), true)],
        };
        // What nobody configured on purpose, such as a platform's variables, is checked when its source is asked.
        for (kind, _) in kinds.iter().filter(|(_, explicit)| *explicit) {
            variables::check(kind)?;
        }
        let authority = match settings.authority() {
            None if kinds.iter().any(|(kind, _)| kind.asks_entra()) => variables::authority()?,
            setting => setting.map(str::to_owned),
        };
        let host = |authority: &str| Url::parse(authority).ok()?.host_str().map(str::to_owned);
        let named_host = authority.as_deref().and_then(host);
        let authority = authority.unwrap_or_else(|| AUTHORITY.to_owned());
        let cloud = Cloud { authority, scope: settings.scope().to_owned() };
        let network = |egress| Network::new(roots, names, egress).map_err(IdentityError::Client);
        let (outside, machine) = (network(egress)?, network(&Egress::direct())?);
        let source = |(kind, explicit): (Kind, bool)| {
            let network = if kind.asks_entra() { &outside } else { &machine };
            TokenSource::new(kind, explicit, cloud.clone(), Transport::new(network.clone()))
        };
        let sources = kinds.into_iter().map(source).collect();
        let kind = settings.kind().clone();
        Ok(Some(Self { sources, kind, named_host, winner: Mutex::new(None), last: Mutex::new(None) }))
    }

    /// An Entra token for the registry's audience. `Err` names every source that was asked, with its failure.
    pub(crate) async fn token(&self) -> Result<EntraToken, Failure> {
        let winner = *lock(&self.winner);
        let by = || winner.and_then(|winner| self.sources.get(winner)).map_or("nobody", TokenSource::name);
        if let Some(secret) = self.cached(REUSE) {
            return Ok(EntraToken { secret, fresh: false, by: by() });
        }
        let mut failures = Vec::new();
        for (index, source) in self.sources.iter().enumerate() {
            if winner.is_some_and(|winner| winner != index) {
                continue;
            }
            match source.token(winner.is_none()).await {
                Ok(token) => {
                    let token = CachedToken::new(&token);
                    let secret = token.secret.clone();
                    *lock(&self.last) = Some(token);
                    *lock(&self.winner) = Some(index);
                    if winner.is_none() {
                        info!("entra: signed in by {}", source.name());
                    }
                    return Ok(EntraToken { secret, fresh: true, by: source.name() });
                }
                Err(failure) => {
                    // A failed renewal does not matter while the last token is valid.
                    if let Some(secret) = self.cached(Duration::MAX) {
                        return Ok(EntraToken { secret, fresh: false, by: by() });
                    }
                    failures.push(failure);
                    if source.is_explicit() {
                        break;
                    }
                }
            }
        }
        Err(summary(failures, &self.kind, self.named_host.as_deref()))
    }

    /// Drops the cached token, which the registry refused: a session that was revoked, or a host that slept, makes a token
    /// useless before its stated end.
    pub(crate) fn forget(&self) {
        *lock(&self.last) = None;
    }

    /// The last token, if it is still valid and not older than `age`.
    fn cached(&self, age: Duration) -> Option<Secret> {
        let last = lock(&self.last);
        let token = last.as_ref()?;
        let left = token.ends.saturating_duration_since(Instant::now());
        (left > MIN_LIFE && token.since.elapsed() <= age).then(|| token.secret.clone())
    }
}

impl CachedToken {
    /// The stated end is a time of this host's clock as that is now.
    fn new(token: &AccessToken) -> Self {
        let left = SystemTime::from(token.expires_on).duration_since(SystemTime::now()).unwrap_or_default();
        let since = Instant::now();
        Self { secret: Secret::new(token.token.secret().to_owned()), since, ends: since + left.min(MAX_LIFE) }
    }
}

/// One failure of all, with what to do: permanent only if each is, and with the longest pause that was asked for.
fn summary(failures: Vec<Failure>, kind: &Kind, named_host: Option<&str>) -> Failure {
    let mut message = "entra: ".to_owned();
    for (index, failure) in failures.iter().enumerate() {
        let _ = write!(message, "{}{failure}", if index == 0 { "" } else { "; " });
    }
    let message = with_remedy(&message, kind);
    let message = match named_host {
        Some(host) => with_authority(message, host),
        None => message,
    };
    Failure {
        permanent: failures.iter().all(|failure| failure.permanent),
        retry_after: failures.iter().filter_map(|failure| failure.retry_after).max(),
        limited: failures.iter().any(|failure| failure.limited),
        ..Failure::new(Hop::Identity, message)
    }
}

/// The values behind these locks are replaced whole, so a poisoned lock is used as it is.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
