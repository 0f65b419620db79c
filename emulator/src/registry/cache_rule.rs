//! Errors of a cache rule: its source registry refuses, or its credential set is not healthy.
//!
//! Sources: Azure/acr#599 (401), #772 (403), #754 (429), #891 and #892 (424, with `UNKNOWN`). Statuses are inferred where
//! an issue quotes the message alone, and so is that a 401 has the challenge of every other 401.

use serde_json::json;

use super::data;
use super::error::error;
use super::resource::Resource;
use crate::answer::Answer;
use crate::random;
use crate::request::Request;
use crate::state::State;

/// The error for a repository, whose first part names the rule.
pub(super) fn failure(state: &State, status: u16, request: &Request) -> Answer {
    let repository = Resource::parse(&request.path).and_then(Resource::repository).unwrap_or_default();
    let (rule, image) = repository.split_once('/').unwrap_or((repository, repository));
    let source = format!("docker.io/{image}");
    let (code, message, detail) = match status {
        401 => ("UNAUTHORIZED", format!("authentication required with source registry for cache rule '{rule}'"), None),
        403 => (
            "DENIED",
            format!("requested access to pull from source '{source}' for cache rule '{rule}' has been denied"),
            None,
        ),
        429 => ("TOOMANYREQUESTS", format!("too many requests to source registry for cache rule '{rule}'"), None),
        _ => (
            "UNKNOWN",
            format!("request to pull from source '{source}' for cache rule '{rule}' has failed"),
            Some(json!({})),
        ),
    };
    let answer = error(status, code, &format!("{message}. CorrelationId: {}", random::guid()), detail);
    match status {
        401 => answer.header("WWW-Authenticate", data::challenge_header(state, request)),
        _ => answer,
    }
}
