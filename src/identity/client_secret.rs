//! Signing in with a client secret.

use std::path::Path;
use std::sync::Arc;

use azure_core::credentials::{Secret as AzureSecret, TokenCredential};
use azure_identity::{ClientSecretCredential, ClientSecretCredentialOptions};

use super::azure::client_options;
use super::inputs::{Inputs, SourceError, client_id, missing, tenant_id};
use super::variables::SECRET;
use crate::value::Form;

/// Reads the secret, for one sign-in.
pub(crate) async fn credential(
    inputs: &Inputs,
    tenant: Option<&str>,
    client: Option<&str>,
    secret_file: Option<&Path>,
) -> Result<Arc<dyn TokenCredential>, SourceError> {
    let secret = inputs.secret("client_secret_file", secret_file, SECRET, Form::Secret).await?;
    let secret = secret.ok_or_else(|| missing("client_secret_file", SECRET))?;
    let (tenant_id, client_id) = (tenant_id(tenant)?, client_id(client)?);
    let options = ClientSecretCredentialOptions { client_options: client_options(inputs) };
    let secret = AzureSecret::new(secret.expose().to_owned());
    Ok(ClientSecretCredential::new(&tenant_id, client_id, secret, Some(options))?)
}
