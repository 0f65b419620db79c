//! How a sign-in reaches the network: bounded in time and size, over the configured trust roots. The last response is
//! remembered, because azure_identity's errors do not contain it.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use azure_core::error::{Error, ErrorKind};
use http::Method;
use oci::quote::{Sent, quoted};
use reqwest::Url;
use reqwest::dns::{Name, Resolve, Resolving};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::answer::{BodyError, MAX_BODY, read_body, retry_after, with_causes};
use crate::net;
use crate::net::addresses::{Names, Resolver, Single, Way};
use crate::net::egress::Egress;
use crate::net::trust::TrustRoots;

/// Fields of a sign-in's form that are no secrets.
const PUBLIC_FIELDS: [&str; 4] = ["client_id", "client_assertion_type", "grant_type", "scope"];

/// How the path of Entra ID's endpoint for tokens ends; those of machines have others.
const ENTRA_PATH: &str = "/oauth2/v2.0/token";

/// A client, and how the hosts that it calls are reached.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    client: reqwest::Client,
    names: Arc<Names>,
    egress: Arc<Egress>,
}

impl Network {
    /// For the metadata endpoints of this machine, which no proxy is between; and for Entra ID with the settings' `egress`.
    pub(crate) fn new(roots: &TrustRoots, names: &Arc<Names>, egress: &Arc<Egress>) -> reqwest::Result<Self> {
        let resolver = BehindProxy { names: Resolver(Arc::clone(names)), egress: Arc::clone(egress) };
        let mut client = net::client::builder(roots, resolver)?;
        if let Some(proxy) = egress.proxy() {
            let egress = Arc::clone(egress);
            client = net::client::through(client, proxy, move |url| !egress.is_direct(host(url), port(url)));
        }
        Ok(Self { client: client.build()?, names: Arc::clone(names), egress: Arc::clone(egress) })
    }

    fn way(&self, url: &Url) -> Way {
        // Names of the sign-in have port 0, see `Names::sign_in`.
        let direct = || self.names.get(host(url), 0);
        if url.scheme() == "https" { self.egress.way((host(url), port(url)), direct) } else { Way::direct(direct()) }
    }
}

/// The proxy's addresses for its name, and those of the table for all others.
struct BehindProxy {
    names: Resolver,
    egress: Arc<Egress>,
}

impl Resolve for BehindProxy {
    fn resolve(&self, name: Name) -> Resolving {
        match self.egress.addresses_of(name.as_str()) {
            Some(addresses) => Single(Arc::clone(addresses)).resolve(name),
            None => self.names.resolve(name),
        }
    }
}

fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

fn port(url: &Url) -> u16 {
    url.port_or_known_default().unwrap_or_default()
}

/// What a response says besides a token.
#[derive(Clone, Debug)]
pub(crate) struct TokenResponse {
    pub status: u16,
    pub retry_after: Option<Duration>,
    /// Who was asked, if it was to be Entra ID.
    entra: Option<String>,
    /// OAuth's `error` and `error_description` (RFC 6749 section 5.2). The latter ends with Entra's ids of the call.
    pub error: Option<String>,
    pub description: Option<String>,
}

/// How the last call of a source ended.
#[derive(Clone, Debug)]
pub(crate) enum LastCall {
    /// With a response, good or bad.
    Answered(TokenResponse),
    /// Without one: what to do, and the cause; and whether somebody has to act first.
    Unreachable(String, bool),
}

/// The transport of one source.
#[derive(Debug)]
pub(crate) struct Transport {
    network: Network,
    last: Mutex<Option<LastCall>>,
}

impl Transport {
    pub(crate) fn new(network: Network) -> Self {
        Self { network, last: Mutex::new(None) }
    }

    pub(crate) fn forget(&self) {
        self.set(None);
    }

    pub(crate) fn last(&self) -> Option<LastCall> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a request, and reads the response to its end.
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> azure_core::Result<FullResponse> {
        let request = request.build().map_err(|cause| self.unreachable("", cause))?;
        let sent = secrets(&request);
        let at = format!("{}:{}: ", host(request.url()), port(request.url()));
        let is_entra = request.url().path().ends_with(ENTRA_PATH);
        // Before the call, whose limit does not include it.
        let way = self.network.way(request.url());
        way.resolve().await.map_err(|unresolved| {
            self.set(Some(LastCall::Unreachable(unresolved, false)));
            Error::with_message(ErrorKind::Connection, "the name is not resolved")
        })?;
        let call = way.track_call();
        let answer = self.network.client.execute(request).await.inspect(|answer| call.answered(answer));
        let answer = match answer {
            Ok(answer) => answer,
            Err(cause) => return Err(self.not_sent(&way, &at, call.failed(cause)).await),
        };
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = read_body(answer).await.map_err(|cause| match cause {
            BodyError::Connection(cause) => self.unreachable(&at, call.failed(cause)),
            BodyError::TooLarge => {
                let cause = format!("an answer of more than {MAX_BODY} bytes: is a captive portal between?");
                self.set(Some(LastCall::Unreachable(cause.clone(), false)));
                Error::with_message(ErrorKind::Io, cause)
            }
        })?;
        let mut response = TokenResponse::read(status, retry_after(&headers), &body, &sent);
        response.entra = is_entra.then(|| at.trim_end_matches(": ").to_owned());
        self.set(Some(LastCall::Answered(response)));
        Ok(FullResponse { status, headers, body })
    }

    /// A request to build on.
    pub(crate) fn request(&self, method: Method, url: &str) -> reqwest::RequestBuilder {
        self.network.client.request(method, url)
    }

    /// A call has got no answer. If there was no connection, a proxy on the way may say why.
    async fn not_sent(&self, way: &Way, at: &str, cause: reqwest::Error) -> Error {
        let cause = cause.without_url();
        match if cause.is_connect() { way.explain(&cause).await } else { None } {
            Some(no_tunnel) => {
                self.set(Some(LastCall::Unreachable(no_tunnel.to_string(), no_tunnel.is_refusal())));
                Error::with_error(ErrorKind::Connection, no_tunnel, "no tunnel")
            }
            None => self.unreachable(at, cause),
        }
    }

    /// `at` is where the call went, in front of the cause.
    fn unreachable(&self, at: &str, cause: reqwest::Error) -> Error {
        let cause = cause.without_url();
        let (kind, advice) = if cause.is_timeout() {
            (ErrorKind::Io, "no answer in time, trying again")
        } else if cause.is_connect() {
            (ErrorKind::Connection, "no connection: check the network path, DNS and the CA")
        } else {
            (ErrorKind::Io, "the connection broke, trying again")
        };
        self.set(Some(LastCall::Unreachable(format!("{advice}: {at}{}", with_causes(&cause)), false)));
        Error::with_error(kind, cause, advice)
    }

    fn set(&self, last: Option<LastCall>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }
}

/// What a request has that its answer may repeat and nobody may see: values of the form whose names are not known, and headers that are
/// marked as sensitive.
fn secrets(request: &reqwest::Request) -> Vec<Zeroizing<String>> {
    let form = request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default();
    let values = form_urlencoded::parse(form).filter(|(name, _)| !PUBLIC_FIELDS.contains(&&**name));
    let headers = request.headers().values().filter(|value| value.is_sensitive());
    let headers = headers.filter_map(|value| value.to_str().ok());
    let values = values.map(|(_, value)| value.into_owned());
    values.chain(headers.map(str::to_owned)).map(Zeroizing::new).collect()
}

/// A response, read to its end.
pub(crate) struct FullResponse {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Zeroizing<Vec<u8>>,
}

impl TokenResponse {
    fn read(status: u16, retry_after: Option<Duration>, body: &[u8], sent: &[Zeroizing<String>]) -> Self {
        #[derive(Default, Deserialize)]
        struct OauthError {
            error: Option<String>,
            error_description: Option<String>,
        }
        let body: OauthError = serde_json::from_slice(body).unwrap_or_default();
        let sent: Vec<Sent<'_>> = sent.iter().map(|secret| secret.as_str().into()).collect();
        let quote = |text: Option<String>| text.and_then(|text| quoted(&text, &sent));
        Self { status, retry_after, entra: None, error: quote(body.error), description: quote(body.error_description) }
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
                200..=399 => "the answer is not a token: is a proxy or captive portal between?",
                400..=499 => "the sign-in was refused, check the identity's settings",
                _ => "the service has trouble, trying again",
            },
        };
        let mut text = self.status.to_string();
        if let Some(error) = &self.error {
            let _ = write!(text, " {error}");
        }
        match &self.entra {
            // Entra ID answers 400 where a tenant or an application is wrong.
            Some(host) if self.status == 404 && description.is_empty() => {
                let _ = write!(text, ": {host} is not Entra ID's sign-in");
            }
            _ => {
                let _ = write!(text, ": {advice}");
            }
        }
        if !description.is_empty() {
            let _ = write!(text, ": {description}");
        }
        text
    }
}
