//! `/oauth2/exchange` and `/oauth2/token`.
//!
//! Sources: Azure/acr AAD-OAuth.md and Token-BasicAuth.md, recordings of azure-sdk-for-net and azure-sdk-for-go. The
//! answers to malformed forms and to a wrong `service` are inferred: there is no published source.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::error::{error, no_such_page, unauthorized};
use super::scope::{Access, grant};
use crate::answer::Answer;
use crate::entra::{ARM_AUDIENCE, REGISTRY_AUDIENCE, issuer};
use crate::jwt::{Claims, holds, text};
use crate::query::value;
use crate::random;
use crate::request::Request;
use crate::state::State;
use crate::token::{Expiry, seconds, set_times};

/// The user name with which a token is sent in place of a password.
const NULL_GUID: &str = "00000000-0000-0000-0000-000000000000";
/// Life of an anonymous token, in seconds (azure-sdk-for-net CanDeleteRepository_Anonymous).
const ANONYMOUS_LIFETIME: i64 = 20 * 60;
/// Who issues the registry's tokens.
const ISSUER: &str = "Azure Container Registry";

/// Exchanges a token of Entra for the registry's refresh token.
pub(super) fn exchange(state: &State, request: &Request, expiry: Expiry) -> Answer {
    if request.method != Method::POST {
        return no_such_page();
    }
    let Some(form) = form(request) else {
        return Answer::new(400);
    };
    let field = |name: &str| value(&form, name).filter(|value| !value.is_empty());
    // The second one is deprecated, but Kubernetes' credential provider still sends it.
    if !matches!(field("grant_type"), Some("access_token" | "access_token_refresh_token")) {
        return Answer::new(400);
    }
    let (Some(service), Some(token)) = (field("service"), field("access_token")) else {
        return Answer::new(400);
    };
    if service != state.options.login_server {
        return unauthorized(None);
    }
    let Some(claims) = entra_claims(state, token) else {
        return unauthorized(None);
    };
    if !is_audience(state, text(&claims, "aud")) {
        return error(401, "UNAUTHORIZED", "token validation failed", None);
    }
    let tenant = text(&claims, "tid");
    if field("tenant").is_some_and(|given| !given.eq_ignore_ascii_case(tenant)) {
        return silent_refusal();
    }
    if !may_pull(state, text(&claims, "appid")) {
        return unauthorized(None);
    }
    given("refresh_token", &refresh_token(state, &claims, expiry))
}

/// Gives an access token for a refresh token, for a service principal, or for nothing at all.
pub(super) fn token(state: &State, request: &Request, expiry: Expiry) -> Answer {
    match request.method {
        Method::GET => token_by_basic(state, request, expiry),
        Method::POST => token_by_form(state, request, expiry),
        _ => no_such_page(),
    }
}

fn token_by_form(state: &State, request: &Request, expiry: Expiry) -> Answer {
    let Some(form) = form(request) else {
        return Answer::new(400);
    };
    let field = |name: &str| value(&form, name).filter(|value| !value.is_empty());
    let Some(service) = field("service") else {
        return Answer::new(400);
    };
    let is_ours = service == state.options.login_server;
    match field("grant_type") {
        Some("refresh_token") => {
            if !is_ours {
                return unauthorized(None);
            }
            let Some(claims) = field("refresh_token").and_then(|token| refresh_claims(state, token)) else {
                return silent_refusal();
            };
            access_answer(state, text(&claims, "sub"), &form, expiry)
        }
        // Names and passwords are accepted with GET only; POST answers 400 without a body (Azure/acr#104).
        Some("password") if field("username").is_none() && field("password").is_none() => {
            if is_ours {
                anonymous(state, &form, expiry)
            } else {
                unauthorized(None)
            }
        }
        _ => Answer::new(400),
    }
}

fn token_by_basic(state: &State, request: &Request, expiry: Expiry) -> Answer {
    let is_ours = request.parameter("service") == Some(&state.options.login_server);
    if !is_ours {
        return unauthorized(None);
    }
    let Some(credentials) = request.header("authorization") else {
        return anonymous(state, &request.query, expiry);
    };
    let refused = || error(401, "UNAUTHORIZED", "Invalid clientid or client secret.", None);
    let Some((user, password)) = basic(credentials) else {
        return refused();
    };
    if user == NULL_GUID {
        return match refresh_claims(state, &password) {
            Some(claims) => access_answer(state, text(&claims, "sub"), &request.query, expiry),
            None => refused(),
        };
    }
    let principal = state.options.clients.iter().find(|client| {
        client.client_id.eq_ignore_ascii_case(&user)
            && client.secret.as_deref() == Some(password.as_str())
            && client.may_pull
    });
    match principal {
        Some(client) => access_answer(state, &client.client_id, &request.query, expiry),
        None => refused(),
    }
}

/// An invalid refresh token, and a tenant that is not the token's, get neither a body nor a challenge
/// (azure-sdk-for-go recordings of the `_fail` tests of its authentication client, 2024-01).
fn silent_refusal() -> Answer {
    Answer::new(401)
}

fn form(request: &Request) -> Option<Vec<(String, String)>> {
    let content_type = request.header("content-type")?;
    content_type.starts_with("application/x-www-form-urlencoded").then(|| request.form())
}

fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, credentials) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(credentials).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Signature, issuer, time and session of a token of Entra.
fn entra_claims(state: &State, token: &str) -> Option<Claims> {
    let claims = state.entra_signer.verify(token)?;
    let is_issued = text(&claims, "iss") == issuer(text(&claims, "tid"));
    let is_current = holds(&claims, state.clock.now()) && !state.sessions.is_revoked(text(&claims, "uti"));
    (is_issued && is_current).then_some(claims)
}

fn is_audience(state: &State, audience: &str) -> bool {
    audience == REGISTRY_AUDIENCE || audience == ARM_AUDIENCE && state.options.accept_arm_audience
}

fn may_pull(state: &State, client_id: &str) -> bool {
    let options = &state.options;
    options.clients.iter().any(|client| client.may_pull && client.client_id == client_id)
        || options.managed_identities.iter().any(|identity| identity.may_pull && identity.client_id == client_id)
}

/// The answers of both endpoints have one field and are chunked.
fn given(field: &str, token: &str) -> Answer {
    Answer::json(200, &json!({ field: token })).header("x-ms-ratelimit-remaining-calls-per-second", "166.4").chunked()
}

fn own_claims(state: &State, subject: &str, jti: String, grant_type: &str) -> Claims {
    let mut claims = Map::new();
    claims.insert("jti".to_owned(), json!(jti));
    claims.insert("sub".to_owned(), json!(subject));
    claims.insert("iss".to_owned(), json!(ISSUER));
    claims.insert("aud".to_owned(), json!(state.options.login_server));
    claims.insert("version".to_owned(), json!("1.0"));
    claims.insert("rid".to_owned(), json!(state.registry_id));
    claims.insert("roles".to_owned(), json!([]));
    claims.insert("grant_type".to_owned(), json!(grant_type));
    claims
}

fn refresh_token(state: &State, entra: &Claims, expiry: Expiry) -> String {
    let subject = text(entra, "appid");
    let mut claims = own_claims(state, subject, random::guid(), "refresh_token");
    let lifetime = seconds(state.options.refresh_lifetime);
    set_times(&mut claims, state.clock.now(), lifetime, expiry);
    claims.insert("tenant".to_owned(), json!(text(entra, "tid")));
    claims.insert("permissions".to_owned(), json!({"actions": ["read"], "notActions": null}));
    if state.options.abac {
        // By this claim Azure/acr-cli recognises an ABAC registry.
        claims.insert("aad_identity".to_owned(), json!(text(entra, "oid")));
    }
    state.registry_signer.sign(&claims)
}

/// The claims of a refresh token that this registry issued and that is valid now.
fn refresh_claims(state: &State, token: &str) -> Option<Claims> {
    own_current(state, token, "refresh_token")
}

fn own_current(state: &State, token: &str, grant_type: &str) -> Option<Claims> {
    let claims = state.registry_signer.verify(token)?;
    let is_ours = text(&claims, "aud") == state.options.login_server
        && text(&claims, "iss") == ISSUER
        && text(&claims, "grant_type") == grant_type;
    (is_ours && holds(&claims, state.clock.now())).then_some(claims)
}

fn anonymous(state: &State, fields: &[(String, String)], expiry: Expiry) -> Answer {
    if !state.options.anonymous_pull {
        return unauthorized(None);
    }
    let token = access_token(state, "acr_anon_pull", fields, ANONYMOUS_LIFETIME, expiry);
    given("access_token", &token)
}

fn access_answer(state: &State, subject: &str, fields: &[(String, String)], expiry: Expiry) -> Answer {
    let lifetime = seconds(state.options.access_lifetime);
    given("access_token", &access_token(state, subject, fields, lifetime, expiry))
}

fn access_token(state: &State, subject: &str, fields: &[(String, String)], lifetime: i64, expiry: Expiry) -> String {
    let scopes = fields.iter().filter(|(name, _)| name == "scope").map(|(_, value)| value.as_str());
    let mut access = grant(scopes, state.options.abac);
    access.retain(|granted| !state.is_revoked(&granted.name));
    // The identifier ends in a serial number, by which a token can be revoked.
    let random = random::guid();
    let jti = format!("{}-{:012x}", &random[..23], state.access_tokens.next_serial());
    let mut claims = own_claims(state, subject, jti, "access_token");
    set_times(&mut claims, state.clock.now(), lifetime, expiry);
    claims.insert("access".to_owned(), json!(access));
    state.registry_signer.sign(&claims)
}

/// The identity of an access token and the access that it grants; `None` if the token is invalid.
pub(super) fn access_of(state: &State, token: &str) -> Option<(String, Vec<Access>)> {
    let claims = own_current(state, token, "access_token")?;
    if state.access_tokens.is_revoked(text(&claims, "jti")) {
        return None;
    }
    let access = serde_json::from_value(claims.get("access").cloned().unwrap_or(Value::Null)).ok()?;
    Some((text(&claims, "sub").to_owned(), access))
}
