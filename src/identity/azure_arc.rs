//! Azure Arc: the agent on a machine outside Azure gives tokens to whoever can read a file of its own.
//!
//! `GET …/metadata/identity/oauth2/token?api-version=2020-06-01` is answered with 401 and
//! `WWW-Authenticate: Basic realm=<file>`; the same with the file's content as `Authorization: Basic` gives the token
//! (Microsoft Learn, "Authenticate against Azure resources with Azure Arc-enabled servers").

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use http::{HeaderMap, HeaderValue, Method, header};
use zeroize::Zeroizing;

use super::inputs::{Inputs, LineError, SourceError, one_line};
use super::managed_identity::{access_token, resource};
use super::transport::{FullResponse, Transport};
use super::variables;
use crate::file::{self, FileError, Reader};
use crate::secret::Secret;
use crate::value::Form;

const ENDPOINT: &str = "http://127.0.0.1:40342/metadata/identity/oauth2/token";
const VERSION: &str = "2020-06-01";
/// Microsoft's own libraries refuse a larger key.
const MAX_KEY: u64 = 4096;

/// A credential that asks the agent.
pub(crate) fn credential(inputs: &Inputs, key_directory: &Path) -> Result<Arc<dyn TokenCredential>, SourceError> {
    let endpoint = variables::endpoint()?.unwrap_or_else(|| ENDPOINT.to_owned());
    let (transport, reader) = (Arc::clone(&inputs.transport), Arc::clone(&inputs.reader));
    Ok(Arc::new(ArcCredential { transport, reader, endpoint, key_directory: key_directory.to_owned() }))
}

/// Why the agent's challenge cannot be answered.
#[derive(Debug)]
enum ChallengeError {
    /// It names no file.
    NoFile,
    /// It names this file, which is no key in this directory.
    OtherFile(PathBuf, PathBuf),
    /// The key cannot be read.
    Unreadable(PathBuf, FileError),
    /// The key's content cannot be one.
    Content(PathBuf, LineError),
}

impl fmt::Display for ChallengeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile => f.write_str("the agent's challenge names no file"),
            Self::OtherFile(path, directory) => {
                write!(f, "the agent's challenge names {}, which is no key in {}", path.display(), directory.display())
            }
            Self::Unreadable(path, cause) => {
                write!(f, "{}: this program's user has to be in the group himds: {cause}", path.display())
            }
            Self::Content(path, cause) => write!(f, "{}: {cause}", path.display()),
        }
    }
}

impl Error for ChallengeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NoFile | Self::OtherFile(..) => None,
            Self::Unreadable(_, cause) => Some(cause),
            Self::Content(_, cause) => Some(cause),
        }
    }
}

#[derive(Debug)]
struct ArcCredential {
    transport: Arc<Transport>,
    reader: Arc<Reader>,
    endpoint: String,
    key_directory: PathBuf,
}

impl ArcCredential {
    async fn ask(&self, resource: &str, key: Option<&Secret>) -> azure_core::Result<FullResponse> {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("api-version", VERSION)
            .append_pair("resource", resource)
            .finish();
        let mut request = self.transport.request(Method::GET, &format!("{}?{query}", self.endpoint));
        request = request.header("Metadata", "true");
        if let Some(key) = key {
            let value = Zeroizing::new(format!("Basic {}", key.expose()));
            let value = HeaderValue::from_str(&value);
            let mut value = value.map_err(|cause| azure_core::Error::new(ErrorKind::Credential, cause))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        self.transport.send(request).await
    }

    /// The content of the file that the challenge names, if that is one of the agent's: no other file's content is sent.
    async fn key(&self, headers: &HeaderMap) -> Result<Secret, ChallengeError> {
        let challenge = headers.get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let path = challenge.split_once("realm=").map(|(_, path)| Path::new(path.trim_matches('"')));
        let path = path.ok_or(ChallengeError::NoFile)?.to_owned();
        if path.parent() != Some(&self.key_directory) || path.extension().is_none_or(|extension| extension != "key") {
            return Err(ChallengeError::OtherFile(path, self.key_directory.clone()));
        }
        let read = {
            let path = path.clone();
            move || file::read(&path, MAX_KEY)
        };
        match self.reader.run(read).await.flatten() {
            Ok(content) => one_line(&content, Form::Token).map_err(|cause| ChallengeError::Content(path, cause)),
            Err(cause) => Err(ChallengeError::Unreadable(path, cause)),
        }
    }
}

#[async_trait]
impl TokenCredential for ArcCredential {
    async fn get_token(&self, scopes: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        let resource = resource(scopes);
        let challenge = self.ask(resource, None).await?;
        let response = if challenge.status == 401 {
            let key = self.key(&challenge.headers).await.map_err(|cause| {
                // This failure is reported, and not the challenge.
                self.transport.forget();
                azure_core::Error::new(ErrorKind::Credential, cause)
            })?;
            self.ask(resource, Some(&key)).await?
        } else {
            challenge
        };
        access_token(&response)
    }
}
