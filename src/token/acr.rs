//! The two calls that turn an Entra token into registry tokens.
//!
//! `POST /oauth2/exchange` gives the refresh token, `POST /oauth2/token` an access token for a scope (Azure/acr,
//! docs/AAD-OAuth.md). A response has only the token; its lifetime is read from its claims.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use oci::quote::{Sent, registry_error};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{Granted, Issuer, WILDCARD};
use crate::answer::{
    BodyError, FIREWALL, MAX_BODY, correlation, is_about_firewall, read_body, retry_after, server_time, with_causes,
};
use crate::config::Domain;
use crate::failure::{Failure, Hop};
use crate::identity::{Chain, EntraToken};
use crate::metrics::CallMeter;
use crate::metrics::labels::{self, CallResult};
use crate::net::addresses::{Single, Way};
use crate::net::certificate::Wrong;
use crate::net::trust::TrustRoots;
use crate::net::{NO_CONNECTION, USER_AGENT, client};
use crate::secret::Secret;
use crate::value::is_token;

/// Of a token that does not say when it ends; a 401 would end it sooner.
const ASSUMED_LIFETIME: Duration = Duration::from_secs(180);
/// Upper bound; it also keeps `Instant + lifetime` from overflowing. A registry's tokens are valid for hours.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Fields of the two calls that are tokens: the registry may quote them in its refusal.
const SECRET_FIELDS: [&str; 2] = ["access_token", "refresh_token"];
/// An anonymous sign-in is renewed as others are, at no cost.
const NOBODY_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Calls the token endpoints of one registry, over the given addresses and trust roots.
pub(crate) struct AcrIssuer {
    domain: Domain,
    /// `None` pulls anonymously.
    identity: Option<Chain>,
    way: Way,
    http: reqwest::Client,
    meter: Arc<CallMeter>,
}

impl AcrIssuer {
    /// Does no network I/O. `Err` if the TLS client cannot be built from these roots.
    pub(crate) fn new(
        domain: Domain,
        identity: Option<Chain>,
        way: Way,
        roots: &TrustRoots,
        meter: Arc<CallMeter>,
    ) -> reqwest::Result<Self> {
        let http = client::builder(roots, Single(Arc::clone(way.addresses())))?.user_agent(USER_AGENT).https_only(true);
        let http = match way.tunnel() {
            Some(tunnel) => client::through(http, tunnel.proxy(), |_| true),
            None => http,
        };
        Ok(Self { domain, identity, way, http: http.build()?, meter })
    }

    /// The first half of a sign-in: an Entra token; `None` where nobody signs in.
    pub(crate) async fn sign_in(&self) -> Result<Option<EntraToken>, Failure> {
        match &self.identity {
            Some(identity) => self.entra_token(identity).await.map(Some),
            None => Ok(None),
        }
    }

    async fn entra_token(&self, identity: &Chain) -> Result<EntraToken, Failure> {
        let measured = self.meter.begin(labels::Hop::Identity);
        let token = identity.token().await;
        match &token {
            Ok(token) if token.fresh => measured.ended(CallResult::Ok),
            Ok(_) => measured.was_none(),
            Err(failure) if failure.limited => measured.ended(CallResult::Limited),
            Err(failure) if failure.permanent => measured.ended(CallResult::Refused),
            Err(_) => measured.ended(CallResult::Failed),
        }
        token
    }

    /// The second half: the registry's refresh token for it.
    pub(crate) async fn exchange(&self, entra: &Secret) -> Result<Granted, Failure> {
        let service = self.domain.host();
        let form = [("grant_type", "access_token"), ("service", service), ("access_token", entra.expose())];
        self.post(Hop::Exchange, "/oauth2/exchange", &form).await
    }

    async fn post(&self, hop: Hop, path: &str, form: &[(&str, &str)]) -> Result<Granted, Failure> {
        let url = format!("https://{}{path}", self.domain.authority());
        // Before the call, whose limit does not include it.
        self.way.resolve().await.map_err(|unresolved| self.failure(hop, unresolved))?;
        let measured = self.meter.begin(hop.into());
        let call = self.way.track_call();
        let sent = self
            .http
            .post(url)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form_body(form))
            .send()
            .await
            .inspect(|answer| call.answered(answer));
        let answer = match sent {
            Ok(answer) => answer,
            Err(cause) => return Err(self.not_sent(hop, call.failed(cause)).await),
        };
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = read_body(answer).await;
        if status != StatusCode::OK {
            measured.ended(CallResult::of(status));
            let body = body.ok().unwrap_or_default();
            return Err(self.refused(hop, status, &headers, &body, form));
        }
        if body.is_ok() {
            measured.ended(CallResult::Ok);
        }
        let body = body.map_err(|cause| match cause {
            BodyError::Connection(cause) => self.unreachable(hop, call.failed(cause)),
            BodyError::TooLarge => {
                self.failure(hop, format!("the answer is larger than {MAX_BODY} bytes: is this an Azure registry?"))
            }
        })?;
        self.granted(hop, &headers, &body)
    }

    fn granted(&self, hop: Hop, headers: &HeaderMap, body: &[u8]) -> Result<Granted, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            refresh_token: Option<String>,
            access_token: Option<String>,
        }
        let malformed = |what: &str| self.failure(hop, format!("200 with {what}: is this an Azure registry?"));
        let answer: Answer =
            serde_json::from_slice(body).map_err(|_| malformed("a body that is not the JSON of a token"))?;
        let token = match hop {
            Hop::Exchange => answer.refresh_token,
            Hop::Identity | Hop::Token => answer.access_token,
        };
        let token = Secret::new(token.filter(|token| is_token(token)).ok_or_else(|| malformed("no token in it"))?);
        let claims = Claims::read(&token);
        let lifetime = claims.lifetime(server_time(headers)).ok_or_else(|| {
            self.failure(
                hop,
                "the registry gave a token that has ended already: check the clock of the registry's side".to_owned(),
            )
        })?;
        let per_repository = match hop {
            Hop::Exchange => claims.aad_identity.is_some(),
            Hop::Identity | Hop::Token => !claims.covers_all(),
        };
        Ok(Granted { token, lifetime, per_repository })
    }

    fn refused(
        &self,
        hop: Hop,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        form: &[(&str, &str)],
    ) -> Failure {
        let sent: Vec<_> =
            form.iter().filter(|(name, _)| SECRET_FIELDS.contains(name)).map(|(_, value)| Sent::from(*value)).collect();
        let (code, quote) = registry_error(body, &sent);
        let advice = match (hop, status.as_u16()) {
            (Hop::Token, 401 | 403) if self.identity.is_none() => "the registry does not allow anonymous pulls",
            (Hop::Exchange, 401) => {
                "the identity has no role on this registry (assign AcrPull), or the registry is of another tenant"
            }
            (_, 403) if is_about_firewall(body) => FIREWALL,
            (Hop::Exchange | Hop::Token, 403) => "the identity lacks AcrPull or a firewall rule denies this host",
            (Hop::Token, 401) => "the registry no longer accepts its refresh token, signing in again",
            (_, 404) => "no such endpoint: is this domain an Azure container registry?",
            (_, 429) => "the registry limits sign-ins, waiting",
            (_, 400..=499) => "the registry refused the call, check domain and identity",
            (_, 500..=599) => "the registry has trouble, trying again",
            _ => "an answer that the protocol does not know, trying again",
        };
        let mut cause = status.as_u16().to_string();
        for part in [code.as_deref(), Some(advice), quote.as_deref()].into_iter().flatten() {
            // Status and code belong together; the rest is separated.
            let separator = if Some(part) == code.as_deref() { " " } else { ": " };
            let _ = write!(cause, "{separator}{part}");
        }
        let signed_out = hop == Hop::Token && self.identity.is_some() && matches!(status.as_u16(), 400 | 401);
        Failure {
            permanent: status.is_client_error() && !matches!(status.as_u16(), 408 | 429) && !signed_out,
            token_refused: signed_out || (hop == Hop::Exchange && status == StatusCode::UNAUTHORIZED),
            retry_after: retry_after(headers),
            limited: status == StatusCode::TOO_MANY_REQUESTS || retry_after(headers).is_some(),
            correlation: correlation(headers),
            ..self.failure(hop, cause)
        }
    }

    /// The call has got no answer. If there was no connection, a proxy on the way may say why.
    async fn not_sent(&self, hop: Hop, cause: reqwest::Error) -> Failure {
        let cause = cause.without_url();
        match if cause.is_connect() { self.way.explain(&cause).await } else { None } {
            Some(no_tunnel) => {
                Failure { permanent: no_tunnel.is_refusal(), ..self.failure(hop, no_tunnel.to_string()) }
            }
            None => self.unreachable(hop, cause),
        }
    }

    fn unreachable(&self, hop: Hop, cause: reqwest::Error) -> Failure {
        let cause = cause.without_url();
        if let Some(wrong) = Wrong::of_error(&cause) {
            return self.failure(hop, wrong.to_string());
        }
        let advice = if cause.is_timeout() {
            "no answer in time, trying again"
        } else if cause.is_connect() {
            NO_CONNECTION
        } else {
            "the connection broke, trying again"
        };
        self.failure(hop, format!("{advice}: {}", with_causes(&cause)))
    }

    fn failure(&self, hop: Hop, cause: String) -> Failure {
        let call = match hop {
            Hop::Identity => "identity",
            Hop::Exchange => "token exchange",
            Hop::Token => "access token",
        };
        Failure::new(hop, format!("acr {}: {call}: {cause}", self.domain.authority()))
    }
}

#[async_trait]
impl Issuer for AcrIssuer {
    async fn login(&self) -> Result<Granted, Failure> {
        let Some(identity) = &self.identity else {
            // There is no call to make.
            return Ok(Granted { token: Secret::new(String::new()), lifetime: NOBODY_LIFETIME, per_repository: false });
        };
        let token = self.entra_token(identity).await?;
        let answer = self.exchange(&token.secret).await;
        if !answer.as_ref().is_err_and(|failure| failure.token_refused) {
            return answer;
        }
        identity.forget();
        if token.fresh {
            return answer;
        }
        // A 401 to a cached token may only mean that it is too old: once more, with a new one.
        let renewed = self.entra_token(identity).await?;
        if renewed.secret.expose() == token.secret.expose() {
            let cause = "401: the registry refuses the Entra token, and the identity's source still gives the same one: \
                         wait until the source renews it, or restart the source";
            return Err(Failure {
                permanent: true,
                token_refused: true,
                ..self.failure(Hop::Exchange, cause.to_owned())
            });
        }
        let answer = self.exchange(&renewed.secret).await;
        if answer.as_ref().is_err_and(|failure| failure.token_refused) {
            identity.forget();
        }
        answer
    }

    async fn access(&self, login: &Secret, repository: &str) -> Result<Granted, Failure> {
        let scope = format!("repository:{repository}:pull");
        let service = self.domain.host();
        // An anonymous pull is a password grant without a password (as azcontainerregistry does it).
        let grant = if self.identity.is_some() { "refresh_token" } else { "password" };
        let form = [("grant_type", grant), ("service", service), ("scope", &scope), ("refresh_token", login.expose())];
        let form = if self.identity.is_some() { &form[..] } else { &form[..3] };
        let mut granted = self.post(Hop::Token, "/oauth2/token", form).await?;
        granted.per_repository &= repository == WILDCARD;
        Ok(granted)
    }
}

/// A form as a body that is wiped after it is sent. (The copies that HTTP and TLS make of it are not ours to wipe.)
fn form_body(form: &[(&str, &str)]) -> reqwest::Body {
    // Encoded, a character takes three bytes at most, so the buffer never grows and leaves no copy behind.
    let length = form.iter().map(|(name, value)| 3 * (name.len() + value.len()) + "=&".len()).sum();
    let mut text = form_urlencoded::Serializer::new(String::with_capacity(length));
    Bytes::from_owner(Zeroizing::new(text.extend_pairs(form).finish().into_bytes())).into()
}

/// The claims that are read here. ACR writes the keys of `access` with or without a capital (both are on record).
#[derive(Default, Deserialize)]
struct Claims {
    iat: Option<i64>,
    exp: Option<i64>,
    aad_identity: Option<serde_json::Value>,
    access: Option<Vec<Access>>,
}

#[derive(Deserialize)]
struct Access {
    #[serde(alias = "Name", default)]
    name: String,
    #[serde(alias = "Actions", default)]
    actions: Vec<String>,
}

impl Claims {
    /// The claims of a JWT, unverified: they come from the registry, which decides about the token. Empty if it is no JWT:
    /// an opaque token is not an error.
    fn read(token: &Secret) -> Self {
        let payload = token.expose().split('.').nth(1).unwrap_or_default();
        let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).unwrap_or_default();
        serde_json::from_slice(&payload).unwrap_or_default()
    }

    /// The lifetime: `exp - iat`, or `exp` minus the server's time, whichever is less. This host's clock is not used, so its
    /// skew does no harm. `None` if the token has ended.
    fn lifetime(&self, server: Option<i64>) -> Option<Duration> {
        let Some(exp) = self.exp else {
            return Some(ASSUMED_LIFETIME);
        };
        let by_claims = self.iat.map(|iat| exp.saturating_sub(iat));
        let by_server = server.map(|now| exp.saturating_sub(now));
        let seconds = match (by_claims, by_server) {
            (Some(a), Some(b)) => a.min(b),
            (Some(seconds), None) | (None, Some(seconds)) => seconds,
            (None, None) => return Some(ASSUMED_LIFETIME),
        };
        let lifetime = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        lifetime.map(|lifetime| lifetime.min(MAX_LIFETIME))
    }

    /// The registry honoured the wildcard; a token without an `access` claim is taken to cover it.
    fn covers_all(&self) -> bool {
        self.access.as_ref().is_none_or(|access| {
            access.iter().any(|entry| {
                entry.name == WILDCARD && entry.actions.iter().any(|action| action == "pull" || action == "*")
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> Secret {
        Secret::new(format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims)))
    }

    #[test]
    fn a_lifetime_is_measured_by_the_servers_clock() {
        for (claims, server, expected) in [
            (r#"{"iat":1000,"exp":5500}"#, None, Some(4500)),
            (r#"{"iat":1000,"exp":5500}"#, Some(1000), Some(4500)),
            // The registry's clock is two hours ahead, or behind.
            (r#"{"iat":8200,"exp":12700}"#, Some(8200), Some(4500)),
            (r#"{"iat":-6200,"exp":-1700}"#, Some(-6200), Some(4500)),
            // The server gave a cached token: the time that is left counts.
            (r#"{"iat":1000,"exp":5500}"#, Some(5000), Some(500)),
            (r#"{"exp":5500}"#, Some(1000), Some(4500)),
            (r#"{"exp":5500}"#, None, Some(ASSUMED_LIFETIME.as_secs())),
            (r"{}", Some(1000), Some(ASSUMED_LIFETIME.as_secs())),
            (r#"{"iat":1000,"exp":5500}"#, Some(5500), None),
            (r#"{"iat":5500,"exp":1000}"#, None, None),
            (r#"{"iat":-9223372036854775808,"exp":9223372036854775807}"#, None, Some(MAX_LIFETIME.as_secs())),
            (r#"{"iat":0,"exp":9223372036854775807}"#, Some(0), Some(MAX_LIFETIME.as_secs())),
            ("not json", Some(1), Some(ASSUMED_LIFETIME.as_secs())),
        ] {
            let lifetime = Claims::read(&jwt(claims)).lifetime(server);
            assert_eq!(lifetime, expected.map(Duration::from_secs), "{claims} {server:?}");
        }
    }

    #[test]
    fn an_ignored_wildcard_is_recognized() {
        for (claims, covered) in [
            (r#"{"access":[{"Type":"repository","Name":"*","Actions":["pull"]}]}"#, true),
            (r#"{"access":[{"type":"repository","name":"*","actions":["pull","push"]}]}"#, true),
            (r#"{"access":[]}"#, false),
            (r#"{"access":[{"Type":"repository","Name":"hub/x","Actions":["pull"]}]}"#, false),
            (r#"{"access":[{"Type":"repository","Name":"*","Actions":["metadata_read"]}]}"#, false),
            (r"{}", true),
        ] {
            assert_eq!(Claims::read(&jwt(claims)).covers_all(), covered, "{claims}");
        }
    }
}
