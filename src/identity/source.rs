//! One source of Entra tokens: what it needs, and how it fails.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{AccessToken, Secret as AzureSecret, TokenCredential};
use azure_core::http::{ClientOptions, RetryOptions, Transport};
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, AzureDeveloperCliCredential, AzureDeveloperCliCredentialOptions,
    ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use tokio::net::TcpStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::arc::ArcCredential;
use super::certificate::{Application, CertificateAssertion};
use super::managed::{Endpoint, IMDS, ManagedCredential};
use super::tool::Tool;
use super::transport::{BoundedTransport, Outcome};
use super::variable;
use crate::answer::{chain, quoted};
use crate::config::identity::Kind;
use crate::secret::Secret;
use crate::token::{Failure, Hop};

/// Whether IMDS is there is known within this time (DefaultAzureCredential's probe waits as long).
const IMDS_PROBE: Duration = Duration::from_secs(1);
/// A managed identity's endpoint is not asked again sooner, if it does not say when (entra-docs, how-to-use-vm-token).
const MANAGED_PAUSE: Duration = Duration::from_secs(1);
/// One source's whole try, of several calls or of a program: `az` starts in seconds.
const SOURCE_LIMIT: Duration = Duration::from_secs(15);
/// A secret or a password in a file is a line.
const MAX_SECRET_FILE: u64 = 4 << 10;

/// Where tokens come from and what they are for.
#[derive(Clone)]
pub struct Cloud {
    /// Entra ID's address.
    pub authority: String,
    /// What a token is asked for.
    pub scope: String,
}

/// One source.
pub struct Source {
    kind: Kind,
    explicit: bool,
    cloud: Cloud,
    transport: Arc<BoundedTransport>,
}

impl Source {
    /// `explicit` if its failure is not to be passed over.
    pub fn new(kind: Kind, explicit: bool, cloud: Cloud, client: reqwest::Client) -> Self {
        let transport = Arc::new(BoundedTransport::new(client));
        Self { kind, explicit, cloud, transport }
    }

    /// As messages call it.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Default => "default chain",
            Kind::ClientSecret { .. } => "client secret",
            Kind::ClientCertificate { .. } => "client certificate",
            Kind::WorkloadIdentity { .. } => "workload identity",
            Kind::ManagedIdentity(_) => "managed identity",
            Kind::AzureArc { .. } => "Azure Arc",
            Kind::AzureCli => "Azure CLI",
            Kind::AzureDeveloperCli => "Azure Developer CLI",
            Kind::Anonymous => "nobody",
        }
    }

    /// Configured on purpose: its failure is the chain's.
    pub fn is_explicit(&self) -> bool {
        self.explicit
    }

    /// A token within [`SOURCE_LIMIT`]. `first` if it is not known yet whether this source is there at all.
    pub async fn token(&self, first: bool) -> Result<AccessToken, Failure> {
        let is_managed = matches!(self.kind, Kind::ManagedIdentity(_));
        let asks_imds = is_managed && matches!(Endpoint::find(), Ok(Endpoint::Imds));
        if first && asks_imds && !matches!(timeout(IMDS_PROBE, TcpStream::connect(IMDS)).await, Ok(Ok(_))) {
            return Err(self.failure("not on a machine with one (no answer from 169.254.169.254)".to_owned(), false));
        }
        // A credential of azure_identity is made for each sign-in, some two hours apart: a file that was missing, was
        // mended or has rotated is read anew, and no cache of its own judges a token by this host's clock.
        let credential = self.build().map_err(|cause| self.failure(cause, true))?;
        self.transport.forget();
        let cause = match timeout(SOURCE_LIMIT, credential.get_token(&[&self.cloud.scope], None)).await {
            Ok(Ok(token)) => return Ok(token),
            Ok(Err(cause)) => quoted(&chain(&cause)).unwrap_or_default(),
            Err(_) => format!("no token within {} s, trying again", SOURCE_LIMIT.as_secs()),
        };
        // What was on the wire says more than what the library makes of it.
        match self.transport.last() {
            Some(Outcome::Answer(answer)) => Err(Failure {
                retry_after: answer.retry_after.or(is_managed.then_some(MANAGED_PAUSE)),
                ..self.failure(answer.explain(), answer.is_permanent())
            }),
            Some(Outcome::Unreachable(words)) => Err(self.failure(words, false)),
            None => Err(self.failure(cause, false)),
        }
    }

    fn build(&self) -> Result<Arc<dyn TokenCredential>, String> {
        let said = |cause: azure_core::Error| chain(&cause);
        Ok(match &self.kind {
            Kind::ClientSecret { tenant_id, client_id, secret_file } => {
                let secret = secret("client_secret_file", secret_file.as_deref(), "AZURE_CLIENT_SECRET")?;
                let secret = secret.ok_or_else(|| missing("client_secret_file", "AZURE_CLIENT_SECRET"))?;
                let (tenant, client) = (tenant(tenant_id)?, client(client_id)?);
                let options = ClientSecretCredentialOptions { client_options: self.options() };
                let secret = AzureSecret::new(secret.expose().to_owned());
                ClientSecretCredential::new(&tenant, client, secret, Some(options)).map_err(said)?
            }
            Kind::ClientCertificate { tenant_id, client_id, certificate_file, password_file } => {
                let path = or_variable(certificate_file.clone(), "AZURE_CLIENT_CERTIFICATE_PATH");
                let path = path.ok_or_else(|| missing("certificate_file", "AZURE_CLIENT_CERTIFICATE_PATH"))?;
                let variable = "AZURE_CLIENT_CERTIFICATE_PASSWORD";
                let password = secret("certificate_password_file", password_file.as_deref(), variable)?;
                let application = Application {
                    authority: self.cloud.authority.clone(),
                    tenant_id: tenant(tenant_id)?,
                    client_id: client(client_id)?,
                };
                let password = password.unwrap_or_else(|| Secret::new(String::new()));
                let assertion = CertificateAssertion::read(&path, &password, &application)?;
                let Application { tenant_id, client_id, .. } = application;
                let options = ClientAssertionCredentialOptions { client_options: self.options() };
                ClientAssertionCredential::new(tenant_id, client_id, assertion, Some(options)).map_err(said)?
            }
            Kind::WorkloadIdentity { tenant_id, client_id, token_file } => {
                let path = or_variable(token_file.clone(), "AZURE_FEDERATED_TOKEN_FILE");
                let path = path.ok_or_else(|| missing("token_file", "AZURE_FEDERATED_TOKEN_FILE"))?;
                let options = WorkloadIdentityCredentialOptions {
                    credential_options: ClientAssertionCredentialOptions { client_options: self.options() },
                    tenant_id: Some(tenant(tenant_id)?),
                    client_id: Some(client(client_id)?),
                    token_file_path: Some(path),
                };
                WorkloadIdentityCredential::new(Some(options)).map_err(said)?
            }
            Kind::ManagedIdentity(assigned) => {
                Arc::new(ManagedCredential::new(Arc::clone(&self.transport), Endpoint::find()?, assigned))
            }
            Kind::AzureArc { key_directory } => {
                Arc::new(ArcCredential::new(Arc::clone(&self.transport), key_directory.clone()))
            }
            Kind::AzureCli => {
                let options = AzureCliCredentialOptions {
                    executor: Some(Arc::new(Tool)),
                    ..AzureCliCredentialOptions::default()
                };
                AzureCliCredential::new(Some(options)).map_err(said)?
            }
            Kind::AzureDeveloperCli => {
                let options = AzureDeveloperCliCredentialOptions {
                    executor: Some(Arc::new(Tool)),
                    ..AzureDeveloperCliCredentialOptions::default()
                };
                AzureDeveloperCliCredential::new(Some(options)).map_err(said)?
            }
            Kind::Default | Kind::Anonymous => return Err("has no token of its own".to_owned()),
        })
    }

    fn options(&self) -> ClientOptions {
        let mut cloud = CustomConfiguration::default();
        cloud.authority_host.clone_from(&self.cloud.authority);
        ClientOptions {
            // The store repeats, by a plan of its own.
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::clone(&self.transport) as _)),
            cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))),
            ..ClientOptions::default()
        }
    }

    fn failure(&self, cause: String, permanent: bool) -> Failure {
        Failure { permanent, ..Failure::new(Hop::Identity, format!("{}: {cause}", self.name())) }
    }
}

fn tenant(setting: &Option<String>) -> Result<String, String> {
    or_variable(setting.clone(), "AZURE_TENANT_ID").ok_or_else(|| missing("tenant_id", "AZURE_TENANT_ID"))
}

fn client(setting: &Option<String>) -> Result<String, String> {
    or_variable(setting.clone(), "AZURE_CLIENT_ID").ok_or_else(|| missing("client_id", "AZURE_CLIENT_ID"))
}

fn or_variable<T: From<String>>(setting: Option<T>, name: &str) -> Option<T> {
    setting.or_else(|| variable(name).map(T::from))
}

fn missing(key: &str, name: &str) -> String {
    format!("identity.{key} is not set: set it, or the variable {name}")
}

/// From the file if one is named, without the line break at its end, else from the variable.
fn secret(key: &str, file: Option<&Path>, name: &str) -> Result<Option<Secret>, String> {
    let Some(path) = file else { return Ok(variable(name).map(Secret::new)) };
    let said = |cause: String| format!("identity.{key} {}: {cause}", path.display());
    let size = std::fs::metadata(path).map_err(|cause| said(cause.to_string()))?.len();
    if size > MAX_SECRET_FILE {
        return Err(said(format!("{size} bytes are no secret of one line")));
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|cause| said(cause.to_string()))?);
    Ok(Some(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned())))
}
