//! Why a pull failed.

use std::error::Error;

/// One sentence: the request and what went wrong. It does not name the side.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The sentence.
    pub sentence: String,
    /// Requests are limited: the status was 429, or the code TOOMANYREQUESTS.
    pub throttled: bool,
}

impl Failure {
    /// Anything but a limit.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), throttled: false }
    }
}

/// An error and its causes, the innermost last.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
