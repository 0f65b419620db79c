//! The sign-in of a direct pull, as docker does it: the registry's challenge, and the token that answers it.

use std::time::Instant;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::connection::{Ask, Failure, Pool};
use super::origin::Origin;
use super::record::Meter;
use crate::secret::Secret;
use crate::token::acr::Registry;
use crate::token::{Granted, Issuer as _};
use oci;

/// Real answers with a token have 1 to 4 KiB.
const MAX_TOKEN_BODY: u64 = 64 << 10;

/// What docker has from `docker login`: the registry's refresh token, signed in for before the first pull and again
/// long before it ends, outside of what is measured.
pub struct SignIn {
    registry: Registry,
    anonymous: bool,
    login: Mutex<Option<(Granted, Instant)>>,
}

impl SignIn {
    /// Nothing is called before the first [`SignIn::refresh_token`].
    pub fn new(registry: Registry, anonymous: bool) -> Self {
        Self { registry, anonymous, login: Mutex::new(None) }
    }

    /// The refresh token; a call only if there is none in the first half of its life.
    pub async fn refresh_token(&self) -> Result<Secret, Failure> {
        let mut login = self.login.lock().await;
        if let Some((granted, since)) = &*login
            && since.elapsed() < granted.lifetime / 2
        {
            return Ok(granted.token.clone());
        }
        let granted = self.registry.login().await.map_err(|failure| Failure::new(failure.message))?;
        let token = granted.token.clone();
        *login = Some((granted, Instant::now()));
        Ok(token)
    }

    /// `POST` to the challenge's realm: a token that pulls from one repository.
    pub async fn access(
        &self,
        pool: &Pool,
        challenge: &Challenge,
        origin: &Origin,
        repository: &str,
        refresh_token: &Secret,
        meter: &mut Meter,
    ) -> Result<(Secret, std::time::Duration), Failure> {
        #[derive(Deserialize)]
        struct Token {
            access_token: String,
        }
        let form = form(self.anonymous, &challenge.service, repository, refresh_token);
        let ask = Ask { form: Some(form), ..Ask::new(origin, Method::POST, &challenge.path) };
        let answer = pool.ask(&ask, meter).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.refused().await);
        }
        let sent = answer.sent;
        let wrong = answer.wrong("200 with a body that is not the JSON of a token");
        let mut body = Zeroizing::new(Vec::new());
        answer.read(MAX_TOKEN_BODY, |part| body.extend_from_slice(part)).await?;
        let token: Token = serde_json::from_slice(&body).map_err(|_| wrong)?;
        Ok((Secret::new(token.access_token), sent.elapsed()))
    }
}

/// The form in a buffer that is wiped.
fn form(anonymous: bool, service: &str, repository: &str, refresh_token: &Secret) -> Bytes {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("service", service).append_pair("scope", &format!("repository:{repository}:pull"));
    if anonymous {
        form.append_pair("grant_type", "password");
    } else {
        form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", refresh_token.expose());
    }
    Bytes::from_owner(Zeroizing::new(form.finish().into_bytes()))
}

/// A challenge that may be followed.
#[derive(Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Path and query of the realm.
    path: String,
    service: String,
}

impl Challenge {
    /// Of this registry. The refresh token goes to no other host, and to none in plain HTTP.
    pub fn parse(header: &str, registry: &Origin) -> Result<Self, String> {
        let oci::challenge::Challenge { realm, service, .. } = oci::challenge::Challenge::parse(header)?;
        match Origin::parse_url(realm) {
            Some((origin, path)) if origin.is_tls() && origin == *registry => {
                Ok(Self { path, service: service.to_owned() })
            }
            _ => Err(format!(
                "the challenge leads to {}, which is not this registry",
                oci::quote::quoted(realm).unwrap_or_default()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_followed_to_its_own_registry_only() {
        let registry = Origin::parse_url("https://example.azurecr.io").expect("a URL").0;
        let good = Challenge { path: "/oauth2/token".to_owned(), service: "example.azurecr.io".to_owned() };
        for header in [
            r#"Bearer realm="https://example.azurecr.io/oauth2/token",service="example.azurecr.io""#,
            r#"bearer scope="repository:a,b:pull", service=example.azurecr.io, realm="https://EXAMPLE.azurecr.io:443/oauth2/token""#,
        ] {
            assert_eq!(Challenge::parse(header, &registry).expect(header), good, "{header}");
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
            let wrong = Challenge::parse(header, &registry).expect_err(header);
            assert!(wrong.contains(says), "{header}: {wrong}");
        }
    }

    #[test]
    fn the_form_is_dockers() {
        let form = |anonymous| {
            let form = form(anonymous, "example.azurecr.io", "hub/a", &Secret::new("a+b".to_owned()));
            String::from_utf8(form.to_vec()).expect("text")
        };
        let common = "service=example.azurecr.io&scope=repository%3Ahub%2Fa%3Apull&grant_type=";
        assert_eq!(form(false), format!("{common}refresh_token&refresh_token=a%2Bb"));
        assert_eq!(form(true), format!("{common}password"));
    }
}
