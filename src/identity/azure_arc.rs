//! Azure Arc: the agent on a machine outside Azure gives tokens to whoever can read a file of its own.
//!
//! `GET …/metadata/identity/oauth2/token?api-version=2020-06-01` is answered with 401 and
//! `WWW-Authenticate: Basic realm=<file>`; the same with the file's content as `Authorization: Basic` gives the token
//! (Microsoft Learn, "Authenticate against Azure resources with Azure Arc-enabled servers").

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::{Error, ErrorKind};
use http::{HeaderMap, header};
use zeroize::Zeroizing;

use super::managed_identity::{access_token, resource};
use super::transport::{BoundedTransport, Whole};
use super::variables;
use crate::file::{self, Reader};
use crate::value::{self, Form};

const ENDPOINT: &str = "http://127.0.0.1:40342/metadata/identity/oauth2/token";
const VERSION: &str = "2020-06-01";
/// Microsoft's own libraries refuse a larger key.
const MAX_KEY: u64 = 4096;

/// The agent, as a credential.
#[derive(Debug)]
pub struct ArcCredential {
    transport: Arc<BoundedTransport>,
    reader: Arc<Reader>,
    endpoint: String,
    key_directory: PathBuf,
}

impl ArcCredential {
    /// The endpoint is `IDENTITY_ENDPOINT`'s or the agent's usual one.
    pub fn new(transport: Arc<BoundedTransport>, reader: Arc<Reader>, key_directory: PathBuf) -> Result<Self, String> {
        let endpoint = variables::endpoint()?.unwrap_or_else(|| ENDPOINT.to_owned());
        Ok(Self { transport, reader, endpoint, key_directory })
    }

    async fn ask(&self, resource: &str, key: Option<&str>) -> azure_core::Result<Whole> {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("api-version", VERSION)
            .append_pair("resource", resource)
            .finish();
        let mut request = self.transport.get(&format!("{}?{query}", self.endpoint)).header("Metadata", "true");
        if let Some(key) = key {
            request = request.header(header::AUTHORIZATION, Zeroizing::new(format!("Basic {key}")).as_str());
        }
        self.transport.send(request).await
    }

    /// The file that the challenge names, if it is one of the agent's: no other file's content is sent anywhere.
    async fn key(&self, headers: &HeaderMap) -> Result<Zeroizing<String>, String> {
        let challenge = headers.get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let path = challenge.split_once("realm=").map(|(_, path)| Path::new(path.trim_matches('"')));
        let path = path.ok_or("the agent's challenge names no file")?;
        if path.parent() != Some(&self.key_directory) || path.extension().is_none_or(|extension| extension != "key") {
            return Err(format!(
                "the agent's challenge names {}, which is no key in {}",
                path.display(),
                self.key_directory.display()
            ));
        }
        let path = path.to_owned();
        let name = path.display().to_string();
        let read = move || {
            let content = file::read(&path, MAX_KEY)
                .map_err(|cause| format!("{cause}: this program's user has to be in the group himds"))?;
            value::clean(value::text(&content)?, Form::Token).map(|key| Zeroizing::new(key.to_owned()))
        };
        self.reader.run(read).await.map_err(|cause| format!("{name}: {cause}"))
    }
}

#[async_trait]
impl TokenCredential for ArcCredential {
    async fn get_token(&self, scopes: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        let resource = resource(scopes);
        let challenge = self.ask(resource, None).await?;
        let answer = if challenge.status == 401 {
            let key = self.key(&challenge.headers).await.map_err(|cause| {
                // The challenge is no failure to report; this is.
                self.transport.forget();
                Error::with_message(ErrorKind::Credential, cause)
            })?;
            self.ask(resource, Some(&key)).await?
        } else {
            challenge
        };
        access_token(&answer)
    }
}
