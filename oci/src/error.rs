//! The errors of the distribution specification ("Error Codes"): a status, a code, a sentence, a detail.

use std::borrow::Cow;

use http::StatusCode;
use serde_json::json;

/// Characters of the detail; a longer path would only fill logs.
const MAX_DETAIL: usize = 256;

/// The codes that this proxy uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The repository's name breaks the grammar.
    NameInvalid,
    /// There is no such repository here.
    NameUnknown,
    /// The tag breaks the grammar.
    TagInvalid,
    /// The reference of a manifest is missing.
    ManifestInvalid,
    /// There is no such manifest in the repository.
    ManifestUnknown,
    /// The digest breaks the grammar.
    DigestInvalid,
    /// `n` is not a number (from the Docker registry API, which the specification keeps compatible).
    PaginationNumberInvalid,
    /// The proxy does not support the operation.
    Unsupported,
    /// The registry refuses this proxy's identity, or this proxy the client.
    Denied,
    /// The registry or the sign-in to it does not work at the moment (from the Docker registry API).
    Unavailable,
    /// The registry's storage limits the rate of requests.
    TooManyRequests,
    /// This proxy has failed (from the Docker registry API).
    Unknown,
}

impl Code {
    /// The code as it is written in the body.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::TagInvalid => "TAG_INVALID",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::Unsupported => "UNSUPPORTED",
            Self::Denied => "DENIED",
            Self::Unavailable => "UNAVAILABLE",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// An error response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    code: Code,
    message: Cow<'static, str>,
    detail: String,
}

impl Refusal {
    /// An error without detail.
    pub fn new(status: StatusCode, code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), detail: String::new() }
    }

    /// Sets the detail to the first 256 characters of `about`, with control characters escaped.
    pub fn with_detail(mut self, about: &str) -> Self {
        self.detail = about.chars().take(MAX_DETAIL).flat_map(escaped).collect();
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What is wrong, as one sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The JSON body: `{"errors":[{"code":…,"message":…,"detail":…}]}`.
    pub fn body(&self) -> Vec<u8> {
        let error = json!({"code": self.code.as_str(), "message": self.message, "detail": self.detail});
        json!({ "errors": [error] }).to_string().into_bytes()
    }
}

fn escaped(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = escaped.is_none().then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_the_shape_of_the_specification_and_a_bounded_detail() {
        let refusal = Refusal::new(StatusCode::BAD_REQUEST, Code::NameInvalid, "no \"name\"")
            .with_detail(&format!("a\n\"b{}", "x".repeat(5000)));
        let body: serde_json::Value = serde_json::from_slice(&refusal.body()).expect("JSON");
        assert_eq!(body["errors"][0]["code"], "NAME_INVALID");
        assert_eq!(body["errors"][0]["message"], "no \"name\"");
        let detail = body["errors"][0]["detail"].as_str().expect("a detail");
        assert!(detail.starts_with("a\\n\"bxx") && detail.len() == MAX_DETAIL + 1, "{detail}");
    }
}
