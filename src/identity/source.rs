//! One source of Entra tokens: what it needs, and how it fails.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{AccessToken, Secret as AzureSecret, TokenCredential};
use azure_core::http::{ClientMethodOptions, ClientOptions, RetryOptions, Transport};
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, AzureDeveloperCliCredential, AzureDeveloperCliCredentialOptions,
    ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential,
    ClientSecretCredentialOptions,
};
use oci::quote::quoted;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::azure_arc::ArcCredential;
use super::azure_cli::Tool;
use super::client_certificate::{Application, CertificateAssertion};
use super::managed_identity::{Endpoint, IMDS, ManagedCredential};
use super::transport::{BoundedTransport, Outcome};
use super::variables::{CERTIFICATE, CLIENT, PASSWORD, SECRET, TENANT, TOKEN_FILE, is_empty, variable};
use crate::answer::chain;
use crate::config::identity::Kind;
use crate::failure::{Failure, Hop};
use crate::file::{self, Reader};
use crate::secret::Secret;
use crate::value::{self, Form};

/// Whether IMDS is there is known within this time (DefaultAzureCredential's probe waits as long).
const IMDS_PROBE: Duration = Duration::from_secs(1);
/// A managed identity's endpoint is not asked again sooner, if it does not say when (entra-docs, how-to-use-vm-token).
const MANAGED_PAUSE: Duration = Duration::from_secs(1);
/// One source's whole try, of several calls or of a program: `az` starts in seconds.
const SOURCE_LIMIT: Duration = Duration::from_secs(15);
/// A secret or a password in a file is a line.
const MAX_SECRET_FILE: u64 = 4 << 10;
/// Kubernetes' tokens have 1 to 2 KiB; a header or a form with more than this is refused by servers.
const MAX_TOKEN_FILE: u64 = 64 << 10;
/// A certificate with its chain and key has a few KiB.
const MAX_CERTIFICATE_FILE: u64 = 1 << 20;

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
    reader: Arc<Reader>,
}

impl Source {
    /// `explicit` if its failure is not to be passed over.
    pub fn new(kind: Kind, explicit: bool, cloud: Cloud, transport: BoundedTransport) -> Self {
        Self { kind, explicit, cloud, transport: Arc::new(transport), reader: Arc::default() }
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
        let credential = self.build().await.map_err(|cause| self.failure(cause, true))?;
        self.transport.forget();
        let cause = match timeout(SOURCE_LIMIT, credential.get_token(&[&self.cloud.scope], None)).await {
            Ok(Ok(token)) => return Ok(token),
            Ok(Err(cause)) => quoted(&explained(&cause)).unwrap_or_default(),
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

    async fn build(&self) -> Result<Arc<dyn TokenCredential>, String> {
        let said = |cause: azure_core::Error| chain(&cause);
        Ok(match &self.kind {
            Kind::ClientSecret { tenant_id, client_id, secret_file } => {
                let secret = self.secret("client_secret_file", secret_file.as_deref(), SECRET, Form::Secret).await?;
                let secret = secret.ok_or_else(|| missing("client_secret_file", SECRET))?;
                let (tenant, client) = (tenant(tenant_id)?, client(client_id)?);
                let options = ClientSecretCredentialOptions { client_options: self.options() };
                let secret = AzureSecret::new(secret.expose().to_owned());
                ClientSecretCredential::new(&tenant, client, secret, Some(options)).map_err(said)?
            }
            Kind::ClientCertificate { tenant_id, client_id, certificate_file, password_file } => {
                let file = path(certificate_file, "certificate_file", CERTIFICATE)?;
                let key = "certificate_password_file";
                let password = self.secret(key, password_file.as_deref(), PASSWORD, Form::Line).await?;
                let password = password.unwrap_or_else(|| Secret::new(String::new()));
                let application = Application {
                    authority: self.cloud.authority.clone(),
                    tenant_id: tenant(tenant_id)?,
                    client_id: client(client_id)?,
                };
                let (tenant_id, client_id) = (application.tenant_id.clone(), application.client_id.clone());
                let parse = move |content: &[u8]| CertificateAssertion::parse(content, &password, application);
                let assertion = self.read(file, MAX_CERTIFICATE_FILE, parse).await?;
                let options = ClientAssertionCredentialOptions { client_options: self.options() };
                ClientAssertionCredential::new(tenant_id, client_id, assertion, Some(options)).map_err(said)?
            }
            Kind::WorkloadIdentity { tenant_id, client_id, token_file } => {
                let file = path(token_file, "token_file", TOKEN_FILE)?;
                let parse = |content: &[u8]| one_line(content, Form::Token).map(FederatedToken);
                let assertion = self.read(file, MAX_TOKEN_FILE, parse).await?;
                let options = ClientAssertionCredentialOptions { client_options: self.options() };
                let (tenant, client) = (tenant(tenant_id)?, client(client_id)?);
                ClientAssertionCredential::new(tenant, client, assertion, Some(options)).map_err(said)?
            }
            Kind::ManagedIdentity(assigned) => {
                Arc::new(ManagedCredential::new(Arc::clone(&self.transport), Endpoint::find()?, assigned)?)
            }
            Kind::AzureArc { key_directory } => {
                let (transport, reader) = (Arc::clone(&self.transport), Arc::clone(&self.reader));
                Arc::new(ArcCredential::new(transport, reader, key_directory.clone())?)
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

    /// A secret of one line: from the file if one is named, else from the variable.
    async fn secret(&self, key: &str, file: Option<&Path>, name: &str, form: Form) -> Result<Option<Secret>, String> {
        let Some(path) = file else { return Ok(variable(name, form)?.map(Secret::new)) };
        let file = (format!("identity.{key}"), path.to_owned());
        self.read(file, MAX_SECRET_FILE, move |content| one_line(content, form)).await.map(Some)
    }

    /// Reads and parses a file off the runtime. The error names what names the file, and the file.
    async fn read<T: Send + 'static>(
        &self,
        (name, path): (String, PathBuf),
        max: u64,
        parse: impl FnOnce(&[u8]) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let place = format!("{name} {}", path.display());
        let work = move || file::read(&path, max).and_then(|content| parse(&content));
        self.reader.run(work).await.map_err(|cause| format!("{place}: {cause}"))
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

/// A federated token, which proves who asks as it is.
struct FederatedToken(Secret);

#[async_trait]
impl ClientAssertion for FederatedToken {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        Ok(self.0.expose().to_owned())
    }
}

impl fmt::Debug for FederatedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FederatedToken").field(&self.0).finish()
    }
}

/// An error in words. JSON that is not as expected is not quoted, as serde does it: it may hold the token.
fn explained(error: &azure_core::Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn Error), |cause| (*cause).source());
    match causes.filter_map(|cause| cause.downcast_ref::<serde_json::Error>()).next() {
        Some(json) => {
            format!("the answer is not the JSON of a token: line {}, column {}", json.line(), json.column())
        }
        None => chain(error),
    }
}

fn tenant(setting: &Option<String>) -> Result<String, String> {
    id(setting, "tenant_id", TENANT)
}

fn client(setting: &Option<String>) -> Result<String, String> {
    id(setting, "client_id", CLIENT)
}

fn id(setting: &Option<String>, key: &str, name: &str) -> Result<String, String> {
    match setting {
        Some(id) => Ok(id.clone()),
        None => variable(name, Form::Id)?.ok_or_else(|| missing(key, name)),
    }
}

/// A file, and what names it.
fn path(setting: &Option<PathBuf>, key: &str, name: &str) -> Result<(String, PathBuf), String> {
    match setting {
        Some(path) => Ok((format!("identity.{key}"), path.clone())),
        None => {
            let path = variable(name, Form::Line)?.ok_or_else(|| missing(key, name))?;
            Ok((name.to_owned(), PathBuf::from(path)))
        }
    }
}

fn missing(key: &str, name: &str) -> String {
    let empty = if is_empty(name) { ", which is there and empty" } else { "" };
    format!("identity.{key} is not set: set it, or the variable {name}{empty}")
}

/// A file's one line. Only a password may be empty.
fn one_line(content: &[u8], form: Form) -> Result<Secret, String> {
    let line = value::clean(value::text(content)?, form)?;
    if line.is_empty() && form != Form::Line {
        return Err("it is empty".to_owned());
    }
    Ok(Secret::new(line.to_owned()))
}
