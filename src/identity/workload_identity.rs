//! Signing in with a federated token, as Kubernetes puts it into a pod.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use azure_core::http::ClientMethodOptions;
use azure_identity::{ClientAssertion, ClientAssertionCredential};

use super::azure::assertion_options;
use super::inputs::{Inputs, SourceError, client_id, file, one_line, tenant_id};
use super::variables::TOKEN_FILE;
use crate::secret::Secret;
use crate::value::Form;

/// Kubernetes' tokens have 1 to 2 KiB; a header or a form with more than this is refused by servers.
const MAX_FILE: u64 = 64 << 10;

/// Reads the token, which rotates, for one sign-in.
pub(crate) async fn credential(
    inputs: &Inputs,
    tenant: Option<&str>,
    client: Option<&str>,
    token_file: Option<&Path>,
) -> Result<Arc<dyn TokenCredential>, SourceError> {
    let file = file(token_file, "token_file", TOKEN_FILE)?;
    let parse = |content: &[u8]| one_line(content, Form::Token).map(FederatedToken);
    let assertion = inputs.read(file, MAX_FILE, parse).await?;
    let (tenant_id, client_id) = (tenant_id(tenant)?, client_id(client)?);
    Ok(ClientAssertionCredential::new(tenant_id, client_id, assertion, Some(assertion_options(inputs)))?)
}

/// A federated token: it is the assertion itself.
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
