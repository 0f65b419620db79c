//! Entra ID: the token endpoint of the client credentials grant, and its discovery documents.
//!
//! Source: entra-docs v2-oauth2-client-creds-grant-flow, and the AADSTS codes of
//! entra-docs reference-error-codes.

mod assertion;
mod refusal;

use hyper::Method;
use serde_json::{Map, Value, json};

use crate::answer::Answer;
use crate::clock::iso_date;
use crate::options::Client;
use crate::query::value;
use crate::random;
use crate::request::Request;
use crate::state::State;
use crate::token::{Expiry, seconds, set_times};
use refusal::Refusal;

/// The registry's own audience.
pub(crate) const REGISTRY_AUDIENCE: &str = "https://containerregistry.azure.net";
/// Azure Resource Manager's, which a registry accepts unless it is told not to.
pub(crate) const ARM_AUDIENCE: &str = "https://management.azure.com";

pub(crate) fn answer(state: &State, request: &Request, expiry: Expiry) -> Answer {
    let path: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    match (&request.method, path.as_slice()) {
        (&Method::POST, [tenant, "oauth2", "v2.0", "token"]) => match token(state, request, tenant, expiry) {
            Ok(body) => dressed(Answer::json(200, &body)),
            Err(refusal) => refused(state, &refusal),
        },
        (_, [_, "oauth2", "v2.0", "token"]) => refused(
            state,
            &Refusal::new(
                400,
                "invalid_request",
                900_561,
                format!("The endpoint only accepts POST requests. Received a {} request.", request.method),
            ),
        ),
        (&Method::GET, ["common", "discovery", "instance"]) => discovery(request),
        (&Method::GET, [tenant, "v2.0", ".well-known", "openid-configuration"]) => match known_tenant(state, tenant) {
            Ok(()) => configuration(request, tenant),
            Err(refusal) => refused(state, &refusal),
        },
        _ => dressed(Answer::new(404)),
    }
}

/// The error answer for a status that an injected fault asks for.
pub(crate) fn failure(state: &State, status: u16) -> Answer {
    let (error, code, message) = match status {
        401 => ("invalid_client", 7_000_215, "Invalid client secret provided."),
        429 => ("invalid_request", 90_055, "The server is busy: too many requests."),
        500.. => ("temporarily_unavailable", 90_033, "A transient error has occurred. Please try again."),
        _ => ("invalid_request", 90_014, "The request is malformed."),
    };
    refused(state, &Refusal::new(status, error, code, message))
}

fn dressed(answer: Answer) -> Answer {
    answer
        .header("Cache-Control", "no-store, no-cache")
        .header("Pragma", "no-cache")
        .header("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
        .header("X-Content-Type-Options", "nosniff")
        .header("x-ms-request-id", random::guid())
        .header("x-ms-ests-server", "2.1.0 - emulator")
}

fn refused(state: &State, refusal: &Refusal) -> Answer {
    let Refusal { status, error, code, message } = refusal;
    let (trace, correlation) = (random::guid(), random::guid());
    let timestamp = iso_date(state.clock.now()).replace('T', " ");
    dressed(Answer::json(
        *status,
        &json!({
            "error": error,
            "error_description": format!(
                "AADSTS{code}: {message} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {timestamp}"
            ),
            "error_codes": [code],
            "timestamp": timestamp,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": format!("https://{}/error?code={code}", "login.microsoftonline.com"),
        }),
    ))
}

fn known_tenant(state: &State, tenant: &str) -> Result<(), Refusal> {
    let clients = state.options.clients.iter().map(|client| &client.tenant);
    let identities = state.options.managed_identities.iter().map(|identity| &identity.tenant);
    if clients.chain(identities).any(|known| known.eq_ignore_ascii_case(tenant)) {
        return Ok(());
    }
    let message = format!(
        "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud."
    );
    Err(Refusal::new(400, "invalid_request", 90_002, message))
}

fn token(state: &State, request: &Request, tenant: &str, expiry: Expiry) -> Result<Value, Refusal> {
    known_tenant(state, tenant)?;
    let content_type = request.header("content-type").unwrap_or_default();
    if !content_type.starts_with("application/x-www-form-urlencoded") {
        return Err(Refusal::missing("grant_type"));
    }
    let form = request.form();
    let field = |name: &str| value(&form, name).filter(|value| !value.is_empty());
    match field("grant_type") {
        None => return Err(Refusal::missing("grant_type")),
        Some("client_credentials") => {}
        Some(other) => {
            let message = format!("The app requested an unsupported grant type '{other}'.");
            return Err(Refusal::new(400, "unsupported_grant_type", 70_003, message));
        }
    }
    let client_id = field("client_id").ok_or_else(|| Refusal::missing("client_id"))?;
    let scope = field("scope").ok_or_else(|| Refusal::missing("scope"))?;
    let audience = audience_of(scope)?;
    let client = state
        .options
        .clients
        .iter()
        .find(|client| client.client_id.eq_ignore_ascii_case(client_id) && client.tenant.eq_ignore_ascii_case(tenant))
        .ok_or_else(|| {
            let message =
                format!("Application with identifier '{client_id}' was not found in the directory '{tenant}'.");
            Refusal::new(400, "unauthorized_client", 700_016, message)
        })?;
    authenticate(state, request, tenant, client, &form)?;
    let lifetime = seconds(state.options.entra_lifetime);
    let access_token = access_token(state, audience, tenant, &client.client_id, &client.client_id, expiry);
    let mut body = json!({"token_type": "Bearer", "access_token": access_token});
    if expiry != Expiry::Unstated {
        let left = if expiry == Expiry::Past { 0 } else { lifetime };
        body["expires_in"] = json!(left);
        body["ext_expires_in"] = json!(left);
    }
    Ok(body)
}

/// A scope of this grant is one resource and `/.default`.
fn audience_of(scope: &str) -> Result<&'static str, Refusal> {
    let Some(resource) = scope.strip_suffix("/.default") else {
        let message = format!(
            "The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid. The scope {scope} is not valid."
        );
        return Err(Refusal::new(400, "invalid_scope", 70_011, message));
    };
    audience(resource).ok_or_else(|| {
        let message = format!("The resource principal named {resource} was not found in the tenant.");
        Refusal::new(400, "invalid_resource", 500_011, message)
    })
}

/// The audience that a resource identifier stands for.
pub(crate) fn audience(resource: &str) -> Option<&'static str> {
    let resource = resource.trim_end_matches('/');
    [REGISTRY_AUDIENCE, ARM_AUDIENCE].into_iter().find(|known| *known == resource)
}

fn authenticate(
    state: &State,
    request: &Request,
    tenant: &str,
    client: &Client,
    form: &[(String, String)],
) -> Result<(), Refusal> {
    if let Some(assertion) = value(form, "client_assertion") {
        if value(form, "client_assertion_type") != Some(assertion::TYPE) {
            return Err(Refusal::missing("client_assertion_type"));
        }
        let audiences = [
            format!("https://{}/{tenant}/oauth2/v2.0/token", request.host()),
            format!("https://{}/{tenant}/v2.0", request.host()),
        ];
        return assertion::verify(assertion, client, &audiences, state.clock.now());
    }
    match value(form, "client_secret").filter(|secret| !secret.is_empty()) {
        Some(secret) if client.secret.as_deref() == Some(secret) => Ok(()),
        Some(_) => Err(Refusal::new(
            401,
            "invalid_client",
            7_000_215,
            format!(
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{}'.",
                client.client_id
            ),
        )),
        None => Err(Refusal::new(
            401,
            "invalid_client",
            7_000_216,
            "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type.",
        )),
    }
}

/// A token of Entra's first version, which is what registries get.
pub(crate) fn access_token(
    state: &State,
    audience: &str,
    tenant: &str,
    client_id: &str,
    object_id: &str,
    expiry: Expiry,
) -> String {
    let mut claims = Map::new();
    claims.insert("aud".to_owned(), json!(audience));
    claims.insert("iss".to_owned(), json!(issuer(tenant)));
    set_times(&mut claims, state.clock.now(), seconds(state.options.entra_lifetime), expiry);
    claims.insert("appid".to_owned(), json!(client_id));
    claims.insert("idtyp".to_owned(), json!("app"));
    claims.insert("oid".to_owned(), json!(object_id));
    claims.insert("sub".to_owned(), json!(object_id));
    claims.insert("tid".to_owned(), json!(tenant));
    // The identifier ends in a serial number, by which a session can be revoked.
    let random = random::guid();
    claims.insert("uti".to_owned(), json!(format!("{}-{:012x}", &random[..23], state.sessions.next_serial())));
    claims.insert("ver".to_owned(), json!("1.0"));
    state.entra_signer.sign(&claims)
}

/// Who issues tokens of the first version.
pub(crate) fn issuer(tenant: &str) -> String {
    format!("https://sts.windows.net/{tenant}/")
}

fn discovery(request: &Request) -> Answer {
    let host = request.host();
    dressed(Answer::json(
        200,
        &json!({
            "tenant_discovery_endpoint": format!("https://{host}/common/v2.0/.well-known/openid-configuration"),
            "api-version": "1.1",
            "metadata": [{
                "preferred_network": host,
                "preferred_cache": host,
                "aliases": [host],
            }],
        }),
    ))
}

fn configuration(request: &Request, tenant: &str) -> Answer {
    let base = format!("https://{}/{tenant}", request.host());
    dressed(Answer::json(
        200,
        &json!({
            "token_endpoint": format!("{base}/oauth2/v2.0/token"),
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
            "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
            "jwks_uri": format!("{base}/discovery/v2.0/keys"),
            "issuer": format!("{base}/v2.0"),
            "response_types_supported": ["code", "id_token"],
            "tenant_region_scope": "WW",
        }),
    ))
}
