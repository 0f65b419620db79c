//! The registry: its token endpoints, its data plane, and what all of its answers have in common.

mod cache_rule;
mod data;
mod error;
mod front;
mod manifest;
mod oauth;
mod origin;
mod resource;
mod scope;

use std::time::Duration;

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::random;
use crate::rate_limits::Kind;
use crate::record::Hop;
use crate::request::Request;
use crate::state::State;
use crate::token::Expiry;

use error::{error, no_such_page, unauthorized};

/// The hop that a path belongs to.
pub(crate) fn hop(path: &str) -> Hop {
    match path {
        "/oauth2/exchange" => Hop::Exchange,
        "/oauth2/token" => Hop::Token,
        _ => Hop::Data,
    }
}

pub(crate) fn answer(state: &State, request: &Request, expiry: Expiry) -> Answer {
    if let Some(refusal) = front::refusal(&request.headers) {
        return refusal;
    }
    if hop(&request.path) != Hop::Data
        && let Some(left) = state.meter.refuse(&state.options.rate_limits, Kind::Token, "")
    {
        return throttled(request, left);
    }
    match hop(&request.path) {
        Hop::Exchange => dressed(oauth::exchange(state, request, expiry)),
        Hop::Token => dressed(oauth::token(state, request, expiry)),
        _ => dressed_as_data(data::answer(state, request)),
    }
}

/// The challenge for a request, as if it had no token.
pub(crate) fn challenge(state: &State, request: &Request) -> Answer {
    dressed_as_data(data::challenge(state, request))
}

/// The 429 of a rate limit, with the time that is left in whole seconds.
pub(crate) fn throttled(request: &Request, left: Duration) -> Answer {
    let answer = error::too_many_requests(left);
    if hop(&request.path) == Hop::Data { dressed_as_data(answer) } else { dressed(answer) }
}

/// The error of a cache rule whose source or credential set is in trouble.
pub(crate) fn cache_rule_failure(state: &State, status: u16, request: &Request) -> Answer {
    dressed_as_data(cache_rule::failure(state, status, request))
}

/// The error answer for a status that an injected fault asks for.
pub(crate) fn failure(state: &State, status: u16, request: &Request) -> Answer {
    let is_data = hop(&request.path) == Hop::Data;
    let answer = match status {
        401 if is_data => return challenge(state, request),
        401 => unauthorized(None),
        403 => {
            let message = format!(
                "client with IP '127.0.0.1' is not allowed access. Refer https://aka.ms/acr/firewall to grant access. CorrelationId: {}",
                random::guid()
            );
            error(403, "DENIED", &message, None)
        }
        404 if is_data => error(404, "MANIFEST_UNKNOWN", "manifest unknown", Some(Value::Null)),
        404 => no_such_page(),
        405 => error(405, "UNSUPPORTED", "The operation is unsupported.", None),
        429 => error::too_many_requests_without_time(),
        400 => Answer::new(400),
        _ => error(status, "UNKNOWN", "unknown error", Some(json!({}))),
    };
    if is_data { dressed_as_data(answer) } else { dressed(answer) }
}

fn dressed(answer: Answer) -> Answer {
    answer
        .header("Server", "AzureContainerRegistry")
        .header("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
        .header("X-Ms-Correlation-Request-Id", random::guid())
}

/// Every `/v2` answer has `Strict-Transport-Security` twice and four lines of exposed headers
/// (azure-sdk-for-net recordings of CanPullArtifactAsync).
fn dressed_as_data(answer: Answer) -> Answer {
    let answer = ["Docker-Content-Digest", "WWW-Authenticate", "Link", "X-Ms-Correlation-Request-Id"]
        .into_iter()
        .fold(answer, |answer, name| answer.header("Access-Control-Expose-Headers", name));
    dressed(answer)
        .header("Docker-Distribution-Api-Version", "registry/2.0")
        .header("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
        .header("X-Content-Type-Options", "nosniff")
}
