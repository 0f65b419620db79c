//! The machine's identity: an Entra ID token, from whichever source this host has.
//!
//! azure_identity has no default chain, so it is built here, with `DefaultAzureCredential`'s order and
//! variables: client secret, client certificate, workload identity, managed identity, Azure CLI,
//! Azure Developer CLI. What the environment configures explicitly is not passed over when
//! it fails: pulling as somebody else would hide the mistake.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use azure_core::credentials::{AccessToken, Secret as AzureSecret, TokenCredential};
use azure_core::http::{ClientOptions, RetryOptions, Transport};
use azure_identity::{
    AzureCliCredential, AzureDeveloperCliCredential, ClientAssertionCredential, ClientAssertionCredentialOptions,
    ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use log::info;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::answer::{chain, quoted};
use crate::secret::Secret;
use crate::token::{Failure, Hop};
use crate::trust::TrustRoots;

mod certificate;
mod transport;

use certificate::CertificateAssertion;
use transport::{Answer, BoundedTransport};

/// The registry's own audience: the one that works on a registry whatever its policy for ARM tokens says
/// (Microsoft Learn, "Disable authentication as ARM template").
const SCOPE: &str = "https://containerregistry.azure.net/.default";
/// The instance metadata service of a virtual machine; not there, nothing answers.
const IMDS: &str = "169.254.169.254:80";
/// Whether it is there is known within this time (DefaultAzureCredential's probe waits as long).
const IMDS_PROBE: Duration = Duration::from_secs(1);
/// One source's whole try; azure_identity itself would go on for over a minute. `az` starts in seconds.
const SOURCE_LIMIT: Duration = Duration::from_secs(15);
/// An Entra token that is used at once needs no more life than this.
const MIN_LIFE: Duration = Duration::from_secs(30);
const AUTHORITY: &str = "https://login.microsoftonline.com";

/// One source of Entra tokens.
struct Source {
    name: &'static str,
    credential: Result<Arc<dyn TokenCredential>, String>,
    transport: Option<Arc<BoundedTransport>>,
    /// Configured on purpose: its failure is the chain's.
    explicit: bool,
    /// Ask first whether the metadata service is there.
    probe: bool,
}

/// The default chain. One winner is kept: later tokens come from the source that gave the first.
pub struct Identity {
    sources: Vec<Source>,
    winner: Mutex<Option<usize>>,
    last_good: Mutex<Option<AccessToken>>,
}

impl Identity {
    /// The default chain for this environment. Reads variables and the certificate file, does no network I/O;
    /// a source that is configured and cannot work is kept, to say why when it is its turn.
    pub fn default_chain(roots: &TrustRoots) -> reqwest::Result<Self> {
        let client = transport::client(roots)?;
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (tenant, client_id) = (variable("AZURE_TENANT_ID"), variable("AZURE_CLIENT_ID"));
        let mut sources = Vec::new();
        let mut add =
            |name: &'static str,
             explicit: bool,
             build: &dyn Fn(ClientOptions) -> azure_core::Result<Arc<dyn TokenCredential>>| {
                let transport = Arc::new(BoundedTransport::new(client.clone()));
                let options = ClientOptions {
                    retry: RetryOptions::none(),
                    transport: Some(Transport::new(Arc::clone(&transport) as _)),
                    ..ClientOptions::default()
                };
                let credential = build(options).map_err(|cause| chain(&cause));
                sources.push(Source { name, credential, transport: Some(transport), explicit, probe: false });
            };

        if let (Some(tenant), Some(client_id)) = (&tenant, &client_id) {
            if let Some(secret) = variable("AZURE_CLIENT_SECRET") {
                add("client secret", true, &|client_options| {
                    let options = ClientSecretCredentialOptions { client_options };
                    let secret = AzureSecret::new(secret.clone());
                    Ok(ClientSecretCredential::new(tenant, client_id.clone(), secret, Some(options))?)
                });
            } else if let Some(path) = variable("AZURE_CLIENT_CERTIFICATE_PATH") {
                let authority = variable("AZURE_AUTHORITY_HOST").unwrap_or_else(|| AUTHORITY.to_owned());
                add("client certificate", true, &|client_options| {
                    let assertion =
                        CertificateAssertion::read(path.as_ref(), &authority, tenant, client_id).map_err(|cause| {
                            azure_core::Error::with_message(azure_core::error::ErrorKind::Credential, cause)
                        })?;
                    let options = ClientAssertionCredentialOptions { client_options };
                    Ok(ClientAssertionCredential::new(tenant.clone(), client_id.clone(), assertion, Some(options))?)
                });
            }
            if variable("AZURE_FEDERATED_TOKEN_FILE").is_some() {
                add("workload identity", true, &|client_options| {
                    let options = WorkloadIdentityCredentialOptions {
                        credential_options: ClientAssertionCredentialOptions { client_options },
                        ..WorkloadIdentityCredentialOptions::default()
                    };
                    Ok(WorkloadIdentityCredential::new(Some(options))?)
                });
            }
        }
        add("managed identity", false, &|client_options| {
            let options = ManagedIdentityCredentialOptions {
                user_assigned_id: client_id.clone().map(UserAssignedId::ClientId),
                client_options,
            };
            Ok(ManagedIdentityCredential::new(Some(options))?)
        });
        let app_service = variable("IDENTITY_ENDPOINT").is_some();
        if let Some(managed) = sources.last_mut() {
            managed.probe = !app_service;
        }
        for (name, credential) in [
            ("Azure CLI", AzureCliCredential::new(None).map(|credential| credential as Arc<dyn TokenCredential>)),
            ("Azure Developer CLI", AzureDeveloperCliCredential::new(None).map(|credential| credential as _)),
        ] {
            let credential = credential.map_err(|cause| chain(&cause));
            sources.push(Source { name, credential, transport: None, explicit: false, probe: false });
        }
        Ok(Self { sources, winner: Mutex::new(None), last_good: Mutex::new(None) })
    }

    /// An Entra token for the registry's audience. `Err` names every source that was asked and what it said.
    pub async fn token(&self) -> Result<Secret, Failure> {
        let winner = *lock(&self.winner);
        let mut failures = Vec::new();
        for (index, source) in self.sources.iter().enumerate() {
            if winner.is_some_and(|winner| winner != index) {
                continue;
            }
            match source.token(winner.is_none()).await {
                Ok(token) => {
                    if winner.is_none() {
                        info!("entra: signed in by {}", source.name);
                        *lock(&self.winner) = Some(index);
                    }
                    let secret = Secret::new(token.token.secret().to_owned());
                    *lock(&self.last_good) = Some(token);
                    return Ok(secret);
                }
                Err(failure) => {
                    // azure_identity renews early and reports a failure of that although its old token is good.
                    if let Some(token) = self.last_good() {
                        return Ok(token);
                    }
                    let last = source.explicit;
                    failures.push(failure);
                    if last {
                        break;
                    }
                }
            }
        }
        Err(summary(failures))
    }

    fn last_good(&self) -> Option<Secret> {
        let last_good = lock(&self.last_good);
        let token = last_good.as_ref()?;
        let left = SystemTime::from(token.expires_on).duration_since(SystemTime::now()).ok()?;
        (left > MIN_LIFE).then(|| Secret::new(token.token.secret().to_owned()))
    }
}

impl Source {
    async fn token(&self, probe: bool) -> Result<AccessToken, Failure> {
        let credential = self.credential.as_ref().map_err(|cause| self.failure(cause.clone(), true))?;
        if probe && self.probe {
            match timeout(IMDS_PROBE, TcpStream::connect(IMDS)).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => {
                    return Err(
                        self.failure("not on a machine with one (no answer from 169.254.169.254)".to_owned(), false)
                    );
                }
            }
        }
        if let Some(transport) = &self.transport {
            transport.forget();
        }
        let cause = match timeout(SOURCE_LIMIT, credential.get_token(&[SCOPE], None)).await {
            Ok(Ok(token)) => return Ok(token),
            Ok(Err(cause)) => quoted(&chain(&cause)).unwrap_or_default(),
            Err(_) => format!("no token within {} s, trying again", SOURCE_LIMIT.as_secs()),
        };
        // What was on the wire says more than what the library makes of it.
        match self.transport.as_ref().and_then(|transport| transport.last()) {
            Some(answer) => Err(Failure {
                retry_after: answer.retry_after,
                ..self.failure(answer.explain(), answer.is_permanent())
            }),
            None => Err(self.failure(cause, false)),
        }
    }

    fn failure(&self, cause: String, permanent: bool) -> Failure {
        Failure {
            hop: Hop::Identity,
            message: format!("{}: {cause}", self.name),
            permanent,
            retry_after: None,
            signed_out: false,
        }
    }
}

/// One failure of all: permanent only if each is, and after the longest pause that was asked for.
fn summary(failures: Vec<Failure>) -> Failure {
    let mut message = "entra: ".to_owned();
    for (index, failure) in failures.iter().enumerate() {
        let _ = write!(message, "{}{failure}", if index == 0 { "" } else { "; " });
    }
    Failure {
        hop: Hop::Identity,
        message,
        permanent: failures.iter().all(|failure| failure.permanent),
        retry_after: failures.iter().filter_map(|failure| failure.retry_after).max(),
        signed_out: false,
    }
}

impl Answer {
    fn is_permanent(&self) -> bool {
        (400..500).contains(&self.status) && !matches!(self.status, 404 | 408 | 410 | 429)
    }

    /// Status, what to do, and the server's own words, last.
    fn explain(&self) -> String {
        let words = self.description.as_deref().unwrap_or_default();
        let advice = match words {
            _ if words.contains("AADSTS7000215") => "the client secret is wrong",
            _ if words.contains("AADSTS7000222") => "the client secret has ended, make a new one",
            _ if words.contains("AADSTS700016") => {
                "no such application in this tenant, check AZURE_CLIENT_ID and AZURE_TENANT_ID"
            }
            _ if words.contains("AADSTS90002") => "no such tenant, check AZURE_TENANT_ID",
            _ if words.contains("AADSTS700027") || words.contains("AADSTS50012") => {
                "the certificate is not registered with the application"
            }
            _ if words.contains("AADSTS70021") => {
                "no federated credential of the application matches issuer, subject and audience"
            }
            _ if words.contains("AADSTS500011") => "the tenant does not know the registry's audience",
            _ => match self.status {
                400 if words.to_ascii_lowercase().contains("identity") => {
                    "no such managed identity is assigned to this machine"
                }
                404 | 410 => "the identity endpoint is not ready, trying again",
                429 => "too many requests for tokens, waiting",
                200..=299 => "an answer that is no token: is a proxy or captive portal between?",
                400..=499 => "the sign-in was refused, check the identity's settings",
                _ => "the service has trouble, trying again",
            },
        };
        let mut text = self.status.to_string();
        if let Some(error) = &self.error {
            let _ = write!(text, " {error}");
        }
        let _ = write!(text, ": {advice}");
        if !words.is_empty() {
            let _ = write!(text, ": {words}");
        }
        text
    }
}

/// A poisoned lock guards plain values here, so what is in it is whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
