//! How a sign-in reaches the network: bounded in time and size, over the configured trust roots. The last response is
//! remembered, because azure_identity's errors do not contain it.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use azure_core::error::{Error, ErrorKind};
use http::Method;
use oci::quote::quoted;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::answer::{BodyError, MAX_BODY, read_body, retry_after, with_causes};
use crate::net;
use crate::net::addresses::{CALL_WAIT, Names, Resolver};
use crate::net::trust::TrustRoots;

/// A client for Entra ID and the metadata endpoints.
pub(crate) fn client(roots: &TrustRoots, names: &Arc<Names>) -> reqwest::Result<reqwest::Client> {
    net::client::builder(roots, Resolver(Arc::clone(names)))?.build()
}

/// What a response says besides a token.
#[derive(Clone, Debug)]
pub(crate) struct TokenResponse {
    pub status: u16,
    pub retry_after: Option<Duration>,
    /// OAuth's `error` and `error_description` (RFC 6749 section 5.2). The latter ends with Entra's ids of the call.
    pub error: Option<String>,
    pub description: Option<String>,
}

/// How the last call of a source ended.
#[derive(Clone, Debug)]
pub(crate) enum LastCall {
    /// With a response, good or bad.
    Answered(TokenResponse),
    /// Without one: what to do, and the cause.
    Unreachable(String),
}

/// The transport of one source.
#[derive(Debug)]
pub(crate) struct Transport {
    client: reqwest::Client,
    names: Arc<Names>,
    last: Mutex<Option<LastCall>>,
}

impl Transport {
    pub(crate) fn new(client: reqwest::Client, names: Arc<Names>) -> Self {
        Self { client, names, last: Mutex::new(None) }
    }

    pub(crate) fn forget(&self) {
        self.set(None);
    }

    pub(crate) fn last(&self) -> Option<LastCall> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a request, and reads the response to its end.
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> azure_core::Result<FullResponse> {
        let request = request.build().map_err(|cause| self.unreachable(cause))?;
        // Before the call, whose limit does not include it.
        let addresses = self.names.get(request.url().host_str().unwrap_or_default(), 0);
        addresses.resolve(CALL_WAIT).await.map_err(|unresolved| {
            self.set(Some(LastCall::Unreachable(unresolved.to_string())));
            Error::with_error(ErrorKind::Connection, unresolved, "the name is not resolved")
        })?;
        let call = addresses.track_call();
        let answer = self.client.execute(request).await.inspect(|answer| call.answered(answer));
        let answer = answer.map_err(|cause| self.unreachable(call.failed(cause)))?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = read_body(answer).await.map_err(|cause| match cause {
            BodyError::Connection(cause) => self.unreachable(call.failed(cause)),
            BodyError::TooLarge => {
                let cause = format!("an answer of more than {MAX_BODY} bytes: is a captive portal between?");
                self.set(Some(LastCall::Unreachable(cause.clone())));
                Error::with_message(ErrorKind::Io, cause)
            }
        })?;
        self.set(Some(LastCall::Answered(TokenResponse::read(status, retry_after(&headers), &body))));
        Ok(FullResponse { status, headers, body })
    }

    /// A request to build on.
    pub(crate) fn request(&self, method: Method, url: &str) -> reqwest::RequestBuilder {
        self.client.request(method, url)
    }

    fn unreachable(&self, cause: reqwest::Error) -> Error {
        let cause = cause.without_url();
        let (kind, advice) = if cause.is_timeout() {
            (ErrorKind::Io, "no answer in time, trying again")
        } else if cause.is_connect() {
            (ErrorKind::Connection, "no connection: check the network path, DNS and the CA")
        } else {
            (ErrorKind::Io, "the connection broke, trying again")
        };
        self.set(Some(LastCall::Unreachable(format!("{advice}: {}", with_causes(&cause)))));
        Error::with_error(kind, cause, advice)
    }

    fn set(&self, last: Option<LastCall>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }
}

/// A response, read to its end.
pub(crate) struct FullResponse {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Zeroizing<Vec<u8>>,
}

impl TokenResponse {
    fn read(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        struct OauthError {
            error: Option<String>,
            error_description: Option<String>,
        }
        let body: OauthError = serde_json::from_slice(body).unwrap_or_default();
        let quote = |text: Option<String>| text.and_then(|text| quoted(&text));
        Self { status, retry_after, error: quote(body.error), description: quote(body.error_description) }
    }

    /// Somebody has to act first.
    pub(crate) fn is_permanent(&self) -> bool {
        (400..500).contains(&self.status) && !matches!(self.status, 404 | 408 | 410 | 429)
    }

    /// Status, what to do, and the server's own description, last.
    pub(crate) fn explain(&self) -> String {
        let description = self.description.as_deref().unwrap_or_default();
        let advice = match description {
            _ if description.contains("AADSTS7000215") => "the client secret is wrong",
            _ if description.contains("AADSTS7000222") => "the client secret has expired, make a new one",
            _ if description.contains("AADSTS700016") => {
                "no such application in this tenant, check AZURE_CLIENT_ID and AZURE_TENANT_ID"
            }
            _ if description.contains("AADSTS90002") => "no such tenant, check AZURE_TENANT_ID",
            _ if description.contains("AADSTS700027") || description.contains("AADSTS50012") => {
                "the certificate is not registered with the application"
            }
            _ if description.contains("AADSTS70021") => {
                "no federated credential of the application matches issuer, subject and audience"
            }
            _ if description.contains("AADSTS500011") => "the tenant does not know the registry's audience",
            _ => match self.status {
                400 if description.to_ascii_lowercase().contains("identity") => {
                    "no such managed identity is assigned to this machine"
                }
                404 | 410 => "the identity endpoint is not ready, trying again",
                429 => "too many requests for tokens, waiting",
                200..=299 => "the answer is not a token: is a proxy or captive portal between?",
                400..=499 => "the sign-in was refused, check the identity's settings",
                _ => "the service has trouble, trying again",
            },
        };
        let mut text = self.status.to_string();
        if let Some(error) = &self.error {
            let _ = write!(text, " {error}");
        }
        let _ = write!(text, ": {advice}");
        if !description.is_empty() {
            let _ = write!(text, ": {description}");
        }
        text
    }
}
