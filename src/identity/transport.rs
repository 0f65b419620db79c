//! How azure_identity reaches the network: bounded in time and size, over our trust roots, and
//! remembering the last answer, because its errors do not say what was on the wire.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::error::{Error, ErrorKind};
use azure_core::http::headers::Headers;
use azure_core::http::{AsyncRawResponse, HttpClient, Request, StatusCode};
use bytes::Bytes;
use oci::quote::quoted;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::answer::{BodyError, MAX_BODY, chain, read_body, retry_after};
use crate::net::addresses::{CALL_WAIT, Names, Resolver, UNACKNOWLEDGED_LIMIT};
use crate::net::trust::TrustRoots;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A whole call; so much less than a request waits that one that hangs is reported to those who do.
const CALL_LIMIT: Duration = Duration::from_secs(8);

/// A client for Entra ID and the metadata endpoints: no redirects, no proxy from the environment
/// (the metadata service refuses proxied requests), no retries of its own.
pub fn client(roots: &TrustRoots, names: &Arc<Names>) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_LIMIT)
        .timeout(CALL_LIMIT)
        .tcp_user_timeout(UNACKNOWLEDGED_LIMIT)
        .dns_resolver(Arc::new(Resolver(Arc::clone(names))))
        .tls_certs_only(roots.reqwest_certificates()?)
        .build()
}

/// What a server said that gave no token.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    /// OAuth's `error` and `error_description` (RFC 6749 section 5.2). The latter ends with Entra's ids of the call.
    pub error: Option<String>,
    pub description: Option<String>,
}

/// How the last request of a source ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// With an answer, good or bad.
    Answer(Answer),
    /// Without one: what to do, and why.
    Unreachable(String),
}

/// The transport of one source.
#[derive(Debug)]
pub struct BoundedTransport {
    client: reqwest::Client,
    names: Arc<Names>,
    last: Mutex<Option<Outcome>>,
}

impl BoundedTransport {
    pub fn new(client: reqwest::Client, names: Arc<Names>) -> Self {
        Self { client, names, last: Mutex::new(None) }
    }

    pub fn forget(&self) {
        self.set(None);
    }

    pub fn last(&self) -> Option<Outcome> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a request for azure_identity, or for a source of our own.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> azure_core::Result<Whole> {
        let request = request.build().map_err(|cause| self.unreachable(cause))?;
        // Not a part of the call, which has a limit of its own.
        let addresses = self.names.get(request.url().host_str().unwrap_or_default(), 0);
        addresses.resolve(CALL_WAIT).await.map_err(|unresolved| {
            self.set(Some(Outcome::Unreachable(unresolved.to_string())));
            Error::with_error(ErrorKind::Connection, unresolved, "the name is not resolved")
        })?;
        let call = addresses.call();
        let answer = self.client.execute(request).await.inspect(|answer| call.answered(answer));
        let answer = answer.map_err(|cause| self.unreachable(call.failed(cause)))?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = read_body(answer).await.map_err(|cause| match cause {
            BodyError::Connection(cause) => self.unreachable(call.failed(cause)),
            BodyError::TooLarge => {
                let words = format!("an answer of more than {MAX_BODY} bytes: is a captive portal between?");
                self.set(Some(Outcome::Unreachable(words.clone())));
                Error::with_message(ErrorKind::Io, words)
            }
        })?;
        self.set(Some(Outcome::Answer(Answer::read(status, retry_after(&headers), &body))));
        Ok(Whole { status, headers, body })
    }

    /// A GET to build on.
    pub fn get(&self, url: &str) -> reqwest::RequestBuilder {
        self.client.get(url)
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
        self.set(Some(Outcome::Unreachable(format!("{advice}: {}", chain(&cause)))));
        Error::with_error(kind, cause, advice)
    }

    fn set(&self, outcome: Option<Outcome>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    }
}

/// An answer, read to its end.
pub struct Whole {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Zeroizing<Vec<u8>>,
}

#[async_trait]
impl HttpClient for BoundedTransport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let unsendable = |cause: String| Error::with_message(ErrorKind::Other, cause);
        let method = http::Method::from_bytes(request.method().as_ref().as_bytes())
            .map_err(|cause| unsendable(cause.to_string()))?;
        let mut outgoing = self.client.request(method, request.url().clone());
        for (name, value) in request.headers().iter() {
            outgoing = outgoing.header(name.as_str(), value.as_str());
        }
        let azure_core::http::Body::Bytes(body) = request.body() else {
            return Err(unsendable("a sign-in request has no streamed body".to_owned()));
        };
        let Whole { status, headers, body } = self.send(outgoing.body(body.clone())).await?;
        let mut copied = Headers::new();
        for (name, value) in &headers {
            if let Ok(value) = value.to_str() {
                copied.insert(name.as_str().to_owned(), value.to_owned());
            }
        }
        Ok(AsyncRawResponse::from_bytes(StatusCode::from(status), copied, Bytes::from_owner(body)))
    }
}

impl Answer {
    fn read(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        struct OauthError {
            error: Option<String>,
            error_description: Option<String>,
        }
        let body: OauthError = serde_json::from_slice(body).unwrap_or_default();
        let words = |text: Option<String>| text.and_then(|text| quoted(&text));
        Self { status, retry_after, error: words(body.error), description: words(body.error_description) }
    }
}

impl Answer {
    /// Will not mend by itself.
    pub fn is_permanent(&self) -> bool {
        (400..500).contains(&self.status) && !matches!(self.status, 404 | 408 | 410 | 429)
    }

    /// Status, what to do, and the server's own words, last.
    pub fn explain(&self) -> String {
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
