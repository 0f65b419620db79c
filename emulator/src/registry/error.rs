//! Error bodies of the registry (distribution specification, and recordings of ACR's own).

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::answer::Answer;
use crate::random;

/// The body, whose fields come in the order of the recordings.
#[derive(Serialize)]
struct Errors<'a> {
    errors: [Entry<'a>; 1],
}

#[derive(Serialize)]
struct Entry<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Detail<'a>>,
}

/// What an error is about.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Detail<'a> {
    /// The access that is missing.
    Access([Missing<'a>; 1]),
    /// Anything else, including `null`.
    Value(Value),
}

/// An entry of the access that a request lacks.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Missing<'a> {
    #[serde(rename = "Type")]
    pub(super) kind: &'a str,
    pub(super) name: &'a str,
    pub(super) action: &'a str,
}

/// One error in the form of the specification, with a line feed at the end as ACR writes it.
pub(super) fn error(status: u16, code: &str, message: &str, detail: Option<Value>) -> Answer {
    errors(status, code, message, detail.map(Detail::Value))
}

fn errors(status: u16, code: &str, message: &str, detail: Option<Detail<'_>>) -> Answer {
    let errors = Errors { errors: [Entry { code, message, detail }] };
    let mut body = serde_json::to_string(&errors).unwrap_or_default();
    body.push('\n');
    Answer::new(status).header("Content-Type", "application/json; charset=utf-8").body(body)
}

/// 401 `UNAUTHORIZED`; `detail` is left out by the token endpoints (Azure/acr#893).
pub(super) fn unauthorized(detail: Option<Detail<'_>>) -> Answer {
    let message = format!(
        "authentication required, visit https://aka.ms/acr/authorization for more information. CorrelationId: {}",
        random::guid()
    );
    errors(401, "UNAUTHORIZED", &message, detail)
}

/// The 429 of a rate limit; `Retry-After` counts down in whole seconds (MicrosoftDocs container-registry-skus).
pub(super) fn too_many_requests(left: Duration) -> Answer {
    let seconds = left.as_nanos().div_ceil(1_000_000_000);
    too_many_requests_without_time().header("Retry-After", seconds.to_string())
}

/// The text is that of microsoft/containerregistry#108.
pub(super) fn too_many_requests_without_time() -> Answer {
    let message = "Too many requests. Please visit https://aka.ms/acr/skus#sku-feature-matrix for more information.";
    error(429, "TOOMANYREQUESTS", message, None)
}

/// The answer of Go's router to an unknown path.
pub(super) fn no_such_page() -> Answer {
    Answer::new(404).header("Content-Type", "text/plain; charset=utf-8").body("404 page not found\n")
}
