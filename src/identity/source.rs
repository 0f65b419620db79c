//! One source of Entra tokens: its kind, and how it fails. What each kind does is in a file of its own.

use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::{AccessToken, TokenCredential};
use oci::quote::quoted;
use tokio::time::timeout;

use super::azure::explain;
use super::inputs::{Cloud, Inputs, SourceError};
use super::managed_identity::{self, PAUSE};
use super::transport::{LastCall, Transport};
use super::{azure_arc, azure_cli, client_certificate, client_secret, workload_identity};
use crate::config::identity::Kind;
use crate::failure::{Failure, Hop};
use crate::value::is_token;

/// One try of a source, of several calls or of a program: `az` starts in seconds.
const LIMIT: Duration = Duration::from_secs(15);
/// Of a tool; an endpoint's answer is told with its status.
const NO_TOKEN: &str = "it gave no token: a token has visible ASCII characters only, one at least";

/// One source.
pub(crate) struct TokenSource {
    kind: Kind,
    explicit: bool,
    inputs: Inputs,
}

impl TokenSource {
    /// `explicit` if the chain ends where it fails.
    pub(crate) fn new(kind: Kind, explicit: bool, cloud: Cloud, transport: Transport) -> Self {
        Self { kind, explicit, inputs: Inputs { cloud, transport: Arc::new(transport), reader: Arc::default() } }
    }

    /// Its name in messages.
    pub(crate) fn name(&self) -> &'static str {
        self.kind.told().0
    }

    /// It was configured on purpose, so the chain ends where it fails.
    pub(crate) fn is_explicit(&self) -> bool {
        self.explicit
    }

    /// A token within [`LIMIT`]. `first` if it is not known yet whether this host has this source at all.
    pub(crate) async fn token(&self, first: bool) -> Result<AccessToken, Failure> {
        let is_managed = matches!(self.kind, Kind::ManagedIdentity(_));
        if first && is_managed && managed_identity::is_absent().await {
            return Err(self.failure("not on a machine with one (no answer from 169.254.169.254)".to_owned(), false));
        }
        // A credential is made for each sign-in, some two hours apart: a file that was missing, was mended or has rotated
        // is read anew, and no cache of azure_identity's judges a token by this host's clock.
        let credential = self.credential().await.map_err(|cause| self.failure(cause.to_string(), true))?;
        self.inputs.transport.forget();
        let cause = match timeout(LIMIT, credential.get_token(&[&self.inputs.cloud.scope], None)).await {
            Ok(Ok(token)) if is_token(token.token.secret()) => return Ok(token),
            // azure_identity makes a token without content of `{}`, and the registry would say that the identity has no role.
            Ok(Ok(_)) => NO_TOKEN.to_owned(),
            Ok(Err(cause)) => quoted(&explain(&cause), &[]).unwrap_or_default(),
            Err(_) => format!("no token within {} s, trying again", LIMIT.as_secs()),
        };
        // The response itself says more than azure_identity's error.
        match self.inputs.transport.last() {
            Some(LastCall::Answered(response)) => Err(Failure {
                retry_after: response.retry_after.or(is_managed.then_some(PAUSE)),
                limited: response.status == 429,
                ..self.failure(response.explain(), response.is_permanent())
            }),
            Some(LastCall::Unreachable(cause, is_permanent)) => Err(self.failure(cause, is_permanent)),
            None => Err(self.failure(cause, false)),
        }
    }

    async fn credential(&self) -> Result<Arc<dyn TokenCredential>, SourceError> {
        let inputs = &self.inputs;
        match &self.kind {
            Kind::ClientSecret { tenant_id, client_id, secret_file } => {
                client_secret::credential(inputs, tenant_id.as_deref(), client_id.as_deref(), secret_file.as_deref())
                    .await
            }
            Kind::ClientCertificate { tenant_id, client_id, certificate_file, password_file } => {
                let (tenant, client) = (tenant_id.as_deref(), client_id.as_deref());
                let (certificate, password) = (certificate_file.as_deref(), password_file.as_deref());
                client_certificate::credential(inputs, tenant, client, certificate, password).await
            }
            Kind::WorkloadIdentity { tenant_id, client_id, token_file } => {
                let (tenant, client) = (tenant_id.as_deref(), client_id.as_deref());
                workload_identity::credential(inputs, tenant, client, token_file.as_deref()).await
            }
            Kind::ManagedIdentity(assigned) => managed_identity::credential(inputs, assigned),
            Kind::AzureArc { key_directory } => azure_arc::credential(inputs, key_directory),
            Kind::AzureCli => azure_cli::azure(),
            Kind::AzureDeveloperCli => azure_cli::developer(),
            Kind::Default | Kind::Anonymous => Err(SourceError::NoSource),
        }
    }

    fn failure(&self, cause: String, permanent: bool) -> Failure {
        Failure { permanent, ..Failure::new(Hop::Identity, format!("{}: {cause}", self.name())) }
    }
}
