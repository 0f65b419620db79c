//! A managed identity: from a virtual machine's metadata service (IMDS), or from App Service and Container Apps.
//!
//! IMDS: `GET http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=…` with
//! `Metadata: true` (entra-docs, how-to-use-vm-token). App Service: `GET $IDENTITY_ENDPOINT?api-version=2019-08-01&resource=…`
//! with `X-IDENTITY-HEADER` (azure-docs, overview-managed-identity). azure_identity knows both, but takes no resource id
//! for App Service, and repeats its calls to IMDS for more than a minute whatever it is told.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Once};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_core::time::OffsetDateTime;
use http::{HeaderValue, Method};
use log::warn;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::inputs::MAX_LIFE;
use super::inputs::{Inputs, SourceError};
use super::transport::{FullResponse, Transport};
use super::variables::{self, CLIENT, HEADER, VariableError, variable};
use crate::answer::server_time;
use crate::config::identity::Assigned;
use crate::value::Form;

/// Where IMDS is on every virtual machine. Elsewhere nothing answers.
const IMDS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);
const IMDS_PATH: &str = "/metadata/identity/oauth2/token";
const IMDS_VERSION: &str = "2018-02-01";
const APP_SERVICE_VERSION: &str = "2019-08-01";
/// Whether IMDS is there is known within this time (DefaultAzureCredential's probe waits as long).
const PROBE: Duration = Duration::from_secs(1);
/// The endpoint is not asked again sooner, if it does not say when (entra-docs, how-to-use-vm-token).
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
/// For a token that does not say when it ends.
const ASSUMED_LIFE: Duration = Duration::from_secs(300);

/// A credential for one of the machine's identities.
pub(crate) fn credential(inputs: &Inputs, assigned: &Assigned) -> Result<Arc<dyn TokenCredential>, SourceError> {
    let endpoint = Endpoint::find().map_err(|cause| SourceError::Endpoint(Box::new(cause)))?;
    Ok(Arc::new(ManagedCredential::new(Arc::clone(&inputs.transport), endpoint, assigned)?))
}

/// Whether this machine has no endpoint at all, which is known only where that would be IMDS.
pub(crate) async fn is_absent() -> bool {
    matches!(Endpoint::find(), Ok(Endpoint::Imds))
        && !matches!(timeout(PROBE, TcpStream::connect(IMDS)).await, Ok(Ok(_)))
}

/// Why this machine's identity endpoint cannot be used.
#[derive(Debug)]
enum EndpointError {
    Variable(VariableError),
    /// The platform is Service Fabric.
    ServiceFabric,
    /// The variables are Azure Arc's.
    AzureArc,
    /// `IDENTITY_HEADER` has a character that no header may carry.
    Header(http::header::InvalidHeaderValue),
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(cause) => cause.fmt(f),
            Self::ServiceFabric => f.write_str("Service Fabric's managed identity is not supported"),
            Self::AzureArc => {
                f.write_str("IDENTITY_ENDPOINT without IDENTITY_HEADER is Azure Arc's: set identity.kind to azure_arc")
            }
            Self::Header(_) => f.write_str("IDENTITY_HEADER is not fit for a header"),
        }
    }
}

impl Error for EndpointError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Variable(cause) => Some(cause),
            Self::Header(cause) => Some(cause),
            Self::ServiceFabric | Self::AzureArc => None,
        }
    }
}

impl From<VariableError> for EndpointError {
    fn from(cause: VariableError) -> Self {
        Self::Variable(cause)
    }
}

/// Where tokens come from on this machine.
#[derive(Debug)]
enum Endpoint {
    /// A virtual machine's metadata service, if this is one.
    Imds,
    /// App Service or Container Apps: an address, and a secret that proves that it is the app that asks.
    AppService { url: String, header: HeaderValue },
}

impl Endpoint {
    /// By the variables that the platform sets.
    fn find() -> Result<Self, EndpointError> {
        let (url, header) = (variables::endpoint()?, variable(HEADER, Form::Token)?);
        match (url, header) {
            _ if variables::is_set("IDENTITY_SERVER_THUMBPRINT") => Err(EndpointError::ServiceFabric),
            (Some(url), Some(header)) => {
                let mut header = HeaderValue::try_from(header).map_err(EndpointError::Header)?;
                header.set_sensitive(true);
                Ok(Self::AppService { url, header })
            }
            (Some(_), None) => Err(EndpointError::AzureArc),
            (None, _) => Ok(Self::Imds),
        }
    }
}

/// One of the machine's identities.
#[derive(Debug)]
struct ManagedCredential {
    transport: Arc<Transport>,
    endpoint: Endpoint,
    /// The parameter that selects it, if it is not the system's.
    id: Option<(&'static str, String)>,
}

impl ManagedCredential {
    /// Without an assigned id it is the identity of `AZURE_CLIENT_ID`, or the system's.
    fn new(transport: Arc<Transport>, endpoint: Endpoint, assigned: &Assigned) -> Result<Self, VariableError> {
        let id = match assigned {
            Assigned::System => variable(CLIENT, Form::Id)?.map(|id| ("client_id", id)),
            Assigned::ClientId(id) => Some(("client_id", id.clone())),
            Assigned::ObjectId(id) => Some(("object_id", id.clone())),
            Assigned::ResourceId(id) => match endpoint {
                Endpoint::Imds => Some(("msi_res_id", id.clone())),
                Endpoint::AppService { .. } => Some(("mi_res_id", id.clone())),
            },
        };
        Ok(Self { transport, endpoint, id })
    }

    fn query(&self, resource: &str) -> String {
        let version = match self.endpoint {
            Endpoint::Imds => IMDS_VERSION,
            Endpoint::AppService { .. } => APP_SERVICE_VERSION,
        };
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("api-version", version).append_pair("resource", resource);
        if let Some((name, id)) = &self.id {
            query.append_pair(name, id);
        }
        query.finish()
    }
}

#[async_trait]
impl TokenCredential for ManagedCredential {
    async fn get_token(&self, scopes: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        let query = self.query(resource(scopes));
        let request = match &self.endpoint {
            Endpoint::Imds => {
                let url = format!("http://{IMDS}{IMDS_PATH}?{query}");
                self.transport.request(Method::GET, &url).header("Metadata", "true")
            }
            Endpoint::AppService { url, header } => {
                self.transport.request(Method::GET, &format!("{url}?{query}")).header("X-IDENTITY-HEADER", header)
            }
        };
        access_token(&self.transport.send(request).await?)
    }
}

/// The audience that a scope is for, in the older terms of these endpoints.
pub(crate) fn resource<'a>(scopes: &[&'a str]) -> &'a str {
    scopes.first().map(|scope| scope.trim_end_matches("/.default")).unwrap_or_default()
}

/// The token in an endpoint's response. Its end is a time of this host's clock, as azure_identity's credentials give it,
/// computed from the time that is left by the issuer's clock.
pub(crate) fn access_token(response: &FullResponse) -> azure_core::Result<AccessToken> {
    let failed = |cause: String| azure_core::Error::with_message(ErrorKind::Credential, cause);
    if response.status != 200 {
        return Err(failed(format!("status {}", response.status)));
    }
    let token: Token = serde_json::from_slice(&response.body).map_err(|_| failed("no token in it".to_owned()))?;
    let life = token.life(server_time(&response.headers));
    Ok(AccessToken::new(token.access_token, OffsetDateTime::now_utc() + life))
}

/// Numbers are strings here, on every platform; App Service gives `expires_on` alone.
#[derive(Deserialize)]
struct Token {
    access_token: String,
    expires_in: Option<Value>,
    expires_on: Option<Value>,
}

impl Token {
    /// The time that is left; zero if it has ended, for the registry decides about that.
    fn life(&self, server: Option<i64>) -> Duration {
        let seconds = |value: &Option<Value>| value.as_ref().and_then(seconds);
        let this_host = || UNIX_EPOCH.elapsed().ok().and_then(|since| i64::try_from(since.as_secs()).ok());
        let left = seconds(&self.expires_in).or_else(|| {
            let ends: i64 = seconds(&self.expires_on)?;
            Some(ends.saturating_sub(server.or_else(this_host)?))
        });
        if let (None, Some(name)) = (left, self.unclear()) {
            // Once: the endpoint says it each time.
            static TOLD: Once = Once::new();
            TOLD.call_once(|| {
                let assumed = ASSUMED_LIFE.as_secs();
                warn!("managed identity: {name} of its endpoint's token is no number of seconds: it counts for {assumed} s");
            });
        }
        let life = left.map(|left| Duration::from_secs(u64::try_from(left).unwrap_or(0)));
        life.unwrap_or(ASSUMED_LIFE).min(MAX_LIFE)
    }

    /// What should say when it ends, and says nothing that is understood.
    fn unclear(&self) -> Option<&'static str> {
        let is_there = |value: &Option<Value>| value.as_ref().is_some_and(|value| !value.is_null());
        let named = [("expires_in", &self.expires_in), ("expires_on", &self.expires_on)];
        named.into_iter().find(|(_, value)| is_there(value)).map(|(name, _)| name)
    }
}

fn seconds(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_i64(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokens_life_is_measured_by_the_issuers_clock() {
        for (body, server, expected) in [
            (r#"{"access_token":"x","expires_in":"3599","expires_on":"1"}"#, Some(5), 3599),
            (r#"{"access_token":"x","expires_in":3599}"#, None, 3599),
            // App Service's; this host's clock, decades away, plays no part.
            (r#"{"access_token":"x","expires_on":"8600"}"#, Some(5000), 3600),
            (r#"{"access_token":"x","expires_on":8600}"#, Some(5000), 3600),
            (r#"{"access_token":"x","expires_on":"4000"}"#, Some(5000), 0),
            (r#"{"access_token":"x"}"#, Some(5000), ASSUMED_LIFE.as_secs()),
            (r#"{"access_token":"x","expires_on":"9223372036854775807"}"#, Some(-1), MAX_LIFE.as_secs()),
            (
                r#"{"access_token":"x","expires_on":"99/99/9999 99:99:99 PM +99:99"}"#,
                Some(5000),
                ASSUMED_LIFE.as_secs(),
            ),
            (r#"{"access_token":"x","expires_in":"-9223372036854775808"}"#, None, 0),
        ] {
            let token: Token = serde_json::from_str(body).expect("a token");
            assert_eq!(token.life(server), Duration::from_secs(expected), "{body} {server:?}");
        }
    }
}
