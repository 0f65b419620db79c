//! How a direct pull signs in, as docker does: the registry's challenge, and the token that answers it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use zeroize::Zeroizing;

use super::Session;
use oci::media_type::ManifestType;

use crate::client::{Request, Response};
use crate::failure::Failure;
use crate::meter::Meter;
use crate::origin::Origin;
use crate::phase::Phase;

/// Real responses with a token have 1 to 4 KiB.
const MAX_TOKEN_BODY: u64 = 64 << 10;

/// The credentials of an engine, as after `docker login`. The program that measures implements it: it keeps the secrets.
#[async_trait]
pub trait SignIn: Send + Sync {
    /// A login that outlasts a pull. It is not part of what is measured. The error is one sentence.
    async fn log_in(&self) -> Result<Arc<dyn Login>, String>;
}

/// The registry's refresh token.
pub trait Login: Send + Sync {
    /// The form of `POST /oauth2/token`, for pulls from `repository`.
    fn token_form(&self, service: &str, repository: &str) -> Bytes;
    /// `Bearer <token>` of the response's body, marked sensitive. The error says what is wrong with the body.
    fn bearer(&self, body: &[u8]) -> Result<HeaderValue, &'static str>;
}

/// The registry's own endpoint for tokens, from its challenge.
#[derive(Debug, PartialEq, Eq)]
struct TokenEndpoint {
    /// Path and query of the realm.
    path: String,
    service: String,
}

impl TokenEndpoint {
    /// An error if the challenge leads to another host or to plain HTTP: the refresh token goes to the registry only.
    fn parse(header: &str, registry: &Origin) -> Result<Self, String> {
        let oci::challenge::Challenge { realm, service, .. } = oci::challenge::Challenge::parse(header)?;
        match Origin::parse_url(realm) {
            Some((origin, path)) if origin.is_tls() && origin == *registry => {
                Ok(Self { path, service: service.to_owned() })
            }
            _ => Err(format!(
                "the challenge leads to {}, which is not this registry",
                oci::quote::quoted(realm, &[]).unwrap_or_default()
            )),
        }
    }
}

impl Session<'_> {
    /// `GET /v2/`: 200, or a challenge.
    pub(super) async fn ping(&mut self, meter: &mut Meter) -> Result<(), Failure> {
        let response = self.pool.send(&self.request(Method::GET, "/v2/"), meter).await?;
        if response.status == StatusCode::OK {
            let sent = response.sent;
            response.discard().await?;
            meter.time(Phase::Ping, sent.elapsed());
            return Ok(());
        }
        let (endpoint, took) = self.challenge(response).await?;
        meter.time(Phase::Ping, took);
        let took = self.answer(&endpoint, meter).await?;
        meter.time(Phase::Token, took);
        Ok(())
    }

    /// Requests a manifest. A session without a token answers the challenge and requests it again.
    pub(super) async fn ask_manifest<'t>(
        &mut self,
        method: Method,
        target: &'t str,
        meter: &mut Meter,
    ) -> Result<Response<'t>, Failure>
    where
        Self: 't,
    {
        let request = Request { accept: Some(ManifestType::ACCEPT_OF_ENGINES), ..self.request(method.clone(), target) };
        let response = self.pool.send(&request, meter).await?;
        let signs_in = self.bearer.is_none() && self.login.is_some();
        if !signs_in || response.status != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let (endpoint, challenged) = self.challenge(response).await?;
        let took = self.answer(&endpoint, meter).await?;
        meter.time(Phase::Token, challenged + took);
        let request = Request { accept: Some(ManifestType::ACCEPT_OF_ENGINES), ..self.request(method, target) };
        self.pool.send(&request, meter).await
    }

    /// The challenge of a 401, and how long that response took.
    async fn challenge(&self, response: Response<'_>) -> Result<(TokenEndpoint, Duration), Failure> {
        if response.status != StatusCode::UNAUTHORIZED || self.login.is_none() {
            return Err(response.into_failure().await);
        }
        let header = response.header("www-authenticate").unwrap_or_default();
        let endpoint = TokenEndpoint::parse(header, &self.route.origin).map_err(|wrong| response.failure(&wrong))?;
        let sent = response.sent;
        response.discard().await?;
        Ok((endpoint, sent.elapsed()))
    }

    /// Gets a token for the repository; returns how long that took.
    async fn answer(&mut self, endpoint: &TokenEndpoint, meter: &mut Meter) -> Result<Duration, Failure> {
        let Some(login) = &self.login else { return Ok(Duration::ZERO) };
        let form = login.token_form(&endpoint.service, &self.repository);
        let request = Request { form: Some(form), ..Request::new(&self.route.origin, Method::POST, &endpoint.path) };
        let response = self.pool.send(&request, meter).await?;
        if response.status != StatusCode::OK {
            return Err(response.into_failure().await);
        }
        let sent: Instant = response.sent;
        let failure = |wrong: &str| Failure::new(format!("POST {}: 200 with {wrong}", endpoint.path));
        let mut body = Zeroizing::new(Vec::with_capacity(MAX_TOKEN_BODY as usize));
        response.read(MAX_TOKEN_BODY, |part| body.extend_from_slice(part)).await?;
        self.bearer = Some(login.bearer(&body).map_err(failure)?);
        Ok(sent.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_answered_to_its_own_registry_only() {
        let registry = Origin::parse_url("https://example.azurecr.io").expect("a URL").0;
        let good = TokenEndpoint { path: "/oauth2/token".to_owned(), service: "example.azurecr.io".to_owned() };
        for header in [
            r#"Bearer realm="https://example.azurecr.io/oauth2/token",service="example.azurecr.io""#,
            r#"bearer scope="repository:a,b:pull", service=example.azurecr.io, realm="https://EXAMPLE.azurecr.io:443/oauth2/token""#,
        ] {
            assert_eq!(TokenEndpoint::parse(header, &registry).expect(header), good, "{header}");
        }
        for (header, says) in [
            (r#"Bearer realm="http://example.azurecr.io/oauth2/token",service="a""#, "not this registry"),
            (r#"Bearer realm="https://evil.example/oauth2/token",service="a""#, "not this registry"),
            (r#"Bearer realm="https://example.azurecr.io:444/oauth2/token",service="a""#, "not this registry"),
            (r#"Bearer realm="https://example.azurecr.io@evil.example/",service="a""#, "not this registry"),
            (r#"Bearer service="a""#, "no realm"),
            (r#"Basic realm="https://example.azurecr.io/""#, "not for a bearer token"),
            ("Bearer", "not for a bearer token"),
        ] {
            let wrong = TokenEndpoint::parse(header, &registry).expect_err(header);
            assert!(wrong.contains(says), "{header}: {wrong}");
        }
    }
}
