//! Managed identity endpoints: a virtual machine's, App Service's and Azure Arc's.
//!
//! Sources: entra-docs how-to-use-vm-token, azure-docs overview-managed-identity (App Service),
//! MSAL's managed identity sources (Arc).

use std::fs;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::Method;
use serde_json::json;

use crate::answer::Answer;
use crate::entra;
use crate::options::ManagedIdentity;
use crate::request::Request;
use crate::state::State;
use crate::token::{Expiry, seconds};

/// The version that names Azure Arc's agent; the metadata service shares the path.
const ARC_VERSION: &str = "2020-06-01";

pub(crate) fn answer(state: &State, request: &Request, expiry: Expiry) -> Answer {
    let answer = match request.path.as_str() {
        "/metadata/identity/oauth2/token"
            if state.options.arc_key_directory.is_some() && request.parameter("api-version") == Some(ARC_VERSION) =>
        {
            arc(state, request, expiry)
        }
        "/metadata/identity/oauth2/token" => metadata(state, request, expiry),
        "/msi/token" => app_service(state, request, expiry),
        _ => Answer::new(404),
    };
    answer.header("Server", "IMDS/150.870.65.1475")
}

/// The error answer for a status that an injected fault asks for.
pub(crate) fn failure(status: u16) -> Answer {
    let (error, message) = match status {
        400 => ("invalid_request", "Identity not found"),
        404 => ("not_found", "The identity endpoint is being updated"),
        410 => ("gone", "The service is being updated"),
        429 => ("too_many_requests", "Too many requests"),
        _ => ("unknown", "Failed to retrieve token from the Active directory"),
    };
    refused(status, error, message)
}

fn refused(status: u16, error: &str, message: &str) -> Answer {
    Answer::json(status, &json!({"error": error, "error_description": message}))
}

fn metadata(state: &State, request: &Request, expiry: Expiry) -> Answer {
    if request.method != Method::GET {
        return refused(405, "method_not_allowed", "Method not allowed");
    }
    if request.header("metadata").is_none_or(|value| !value.eq_ignore_ascii_case("true")) {
        return refused(400, "bad_request_102", "Required metadata header not specified");
    }
    if request.header("x-forwarded-for").is_some() {
        return refused(400, "invalid_request", "Requests with an X-Forwarded-For header are not served");
    }
    let mut names: Vec<&str> = request.query.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return refused(400, "invalid_request", "Duplicate query parameters are not supported");
    }
    match request.parameter("api-version") {
        Some(version) if version >= "2018-02-01" => issue(state, request, expiry),
        _ => refused(400, "invalid_request", "Required query variable 'api-version' is missing or not supported"),
    }
}

fn app_service(state: &State, request: &Request, expiry: Expiry) -> Answer {
    if request.header("x-identity-header") != Some(&state.options.identity_header) {
        return Answer::json(401, &json!({"statusCode": 401, "message": "Unauthorized"}));
    }
    if request.parameter("api-version") != Some("2019-08-01") {
        return Answer::json(400, &json!({"statusCode": 400, "message": "The api-version is not supported"}));
    }
    issue(state, request, expiry)
}

/// The caller proves that it is on this machine: it reads a file that only the agent's group may read.
fn arc(state: &State, request: &Request, expiry: Expiry) -> Answer {
    let Some(directory) = &state.options.arc_key_directory else {
        return Answer::new(404);
    };
    if request.header("metadata").is_none_or(|value| !value.eq_ignore_ascii_case("true")) {
        return refused(400, "bad_request_102", "Required metadata header not specified");
    }
    // The account key serves as the agent's key: it is random, and known only to those who can read the file.
    let key = BASE64_STANDARD.encode(state.account_key);
    match request.header("authorization") {
        Some(value) if value.strip_prefix("Basic ") == Some(&key) => issue(state, request, expiry),
        Some(_) => refused(401, "unauthorized", "The challenge key does not match"),
        None => {
            let file = directory.join("emulator.key");
            if let Err(error) = fs::write(&file, &key) {
                return refused(500, "unknown", &format!("{}: {error}", file.display()));
            }
            Answer::new(401).header("Www-Authenticate", format!("Basic realm={}", file.display()))
        }
    }
}

fn issue(state: &State, request: &Request, expiry: Expiry) -> Answer {
    let Some(resource) = request.parameter("resource") else {
        return refused(400, "invalid_request", "Required query variable 'resource' is missing");
    };
    let Some(audience) = entra::audience(resource) else {
        let message = format!("AADSTS500011: The resource principal named {resource} was not found in the tenant.");
        return refused(400, "invalid_resource", &message);
    };
    let Some(identity) = chosen(state, request) else {
        return refused(400, "invalid_request", "Identity not found");
    };
    let token =
        entra::access_token(state, audience, &identity.tenant, &identity.client_id, &identity.object_id, expiry);
    let lifetime = seconds(state.options.entra_lifetime);
    let now = state.clock.now();
    let mut body = json!({
        "access_token": token,
        "refresh_token": "",
        "client_id": identity.client_id,
        "not_before": now.to_string(),
        "resource": resource,
        "token_type": "Bearer",
    });
    // Numbers are strings here; App Service gives `expires_on` alone.
    if expiry != Expiry::Unstated {
        let ends = if expiry == Expiry::Past { now - 3_600 } else { now + lifetime };
        body["expires_on"] = json!(ends.to_string());
        if request.path != "/msi/token" {
            body["expires_in"] = json!((ends - now).max(0).to_string());
            body["ext_expires_in"] = body["expires_in"].clone();
        }
    }
    Answer::json(200, &body)
}

/// The identity that the request names. Each of the two services has its own parameters and ignores the other's.
fn chosen<'a>(state: &'a State, request: &Request) -> Option<&'a ManagedIdentity> {
    let (object_ids, resource_id): (&[&str], &str) = match request.path.as_str() {
        "/msi/token" => (&["object_id", "principal_id"], "mi_res_id"),
        _ => (&["object_id"], "msi_res_id"),
    };
    let identities = &state.options.managed_identities;
    if let Some(id) = request.parameter("client_id") {
        return identities.iter().find(|identity| identity.client_id.eq_ignore_ascii_case(id));
    }
    if let Some(id) = object_ids.iter().find_map(|name| request.parameter(name)) {
        return identities.iter().find(|identity| identity.object_id.eq_ignore_ascii_case(id));
    }
    if let Some(id) = request.parameter(resource_id) {
        return identities
            .iter()
            .find(|identity| identity.resource_id.as_deref().is_some_and(|known| known.eq_ignore_ascii_case(id)));
    }
    identities.first()
}
