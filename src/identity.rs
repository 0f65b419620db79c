//! The machine's identity: an Entra ID token, from whichever source this host has.
//!
//! azure_identity has no default chain, so it is built here, with `DefaultAzureCredential`'s order and
//! variables: client secret, client certificate, workload identity, managed identity, Azure CLI,
//! Azure Developer CLI. What the environment configures explicitly is not passed over when
//! it fails: pulling as somebody else would hide the mistake.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use azure_core::credentials::AccessToken;
use log::info;

use crate::config::identity::{ARC_KEY_DIRECTORY, Assigned, Identity as Settings, Kind};
use crate::secret::Secret;
use crate::token::{Failure, Hop};
use crate::trust::TrustRoots;

mod arc;
mod certificate;
mod managed;
mod source;
mod tool;
mod transport;

use source::{Cloud, Source};

/// An Entra token that is used at once needs no more life than this.
const MIN_LIFE: Duration = Duration::from_secs(30);
/// While the calls behind it fail, a token this young is not asked for again: each time would run `az`, or spend the
/// metadata service's few calls. Older, it may have been issued before somebody mended what fails.
const REUSE: Duration = Duration::from_secs(300);
/// No token is used for longer, whatever is said of its end: Entra's longest hold for a day or so, and a time of some ages
/// from now is more than a clock can count to.
const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY: &str = "https://login.microsoftonline.com";
/// Where Arc's agent is on a machine that has one (as Microsoft's own libraries look for it).
const ARC_AGENT: &str = "/opt/azcmagent/bin/himds";

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
    /// says so when it is its turn, and is tried again.
    pub fn new(settings: &Settings, roots: &TrustRoots) -> reqwest::Result<Self> {
        let authority = settings.authority().map(str::to_owned).or_else(|| variable("AZURE_AUTHORITY_HOST"));
        let cloud =
            Cloud { authority: authority.unwrap_or_else(|| AUTHORITY.to_owned()), scope: settings.scope().to_owned() };
        let client = transport::client(roots)?;
        let source = |kind, explicit| Source::new(kind, explicit, cloud.clone(), client.clone());
        let sources = match settings.kind() {
            Kind::Default => default_chain().into_iter().map(|(kind, explicit)| source(kind, explicit)).collect(),
            kind => vec![source(kind.clone(), true)],
        };
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

/// The sources that this environment has, and whether each was configured on purpose.
fn default_chain() -> Vec<(Kind, bool)> {
    let is_set = |name| variable(name).is_some();
    let mut chain = Vec::new();
    if is_set("AZURE_TENANT_ID") && is_set("AZURE_CLIENT_ID") {
        if is_set("AZURE_CLIENT_SECRET") {
            chain.push((Kind::ClientSecret { tenant_id: None, client_id: None, secret_file: None }, true));
        } else if is_set("AZURE_CLIENT_CERTIFICATE_PATH") {
            let (tenant_id, client_id) = (None, None);
            let kind = Kind::ClientCertificate { tenant_id, client_id, certificate_file: None, password_file: None };
            chain.push((kind, true));
        }
        if is_set("AZURE_FEDERATED_TOKEN_FILE") {
            chain.push((Kind::WorkloadIdentity { tenant_id: None, client_id: None, token_file: None }, true));
        }
    }
    // Arc sets an endpoint, too, but App Service's comes with a secret.
    let app_service = is_set("IDENTITY_ENDPOINT") && is_set("IDENTITY_HEADER");
    let arc = is_set("IMDS_ENDPOINT") || Path::new(ARC_AGENT).exists();
    chain.push(if arc && !app_service {
        (Kind::AzureArc { key_directory: PathBuf::from(ARC_KEY_DIRECTORY) }, false)
    } else {
        (Kind::ManagedIdentity(Assigned::System), false)
    });
    chain.extend([(Kind::AzureCli, false), (Kind::AzureDeveloperCli, false)]);
    chain
}

/// A variable; an empty one is as good as none.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
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
