//! Why there is no token: which call failed, and whether and when it is worth repeating.
//!
//! A leaf below `identity` and `token`, which both fail in these terms.

use std::fmt;
use std::time::Duration;

use http::HeaderValue;

use crate::metrics::labels;

/// The call, on the way to a registry token, that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    /// Entra ID or the machine's identity endpoint.
    Identity,
    /// `POST /oauth2/exchange`: an Entra token for the registry's refresh token.
    Exchange,
    /// `POST /oauth2/token`: the refresh token for an access token.
    Token,
}

impl From<Hop> for labels::Hop {
    fn from(hop: Hop) -> Self {
        match hop {
            Hop::Identity => Self::Identity,
            Hop::Exchange => Self::Exchange,
            Hop::Token => Self::Token,
        }
    }
}

/// Why there is no token. Displays as one sentence: hop, what to do, cause.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// The call that failed.
    pub hop: Hop,
    /// The whole sentence, hop first.
    pub message: String,
    /// Somebody has to act first: a wrong secret, a missing role. Such a call is repeated slowly.
    pub permanent: bool,
    /// The pause that the server asked for.
    pub retry_after: Option<Duration>,
    /// The server refused the token that the call was made with: a new sign-in may help.
    pub token_refused: bool,
    /// The server wants fewer calls of this kind, whatever they are for: a 429, or a `Retry-After`.
    pub limited: bool,
    /// The registry's id of the call (`X-Ms-Correlation-Request-Id`), if it answered.
    pub correlation: Option<HeaderValue>,
}

impl Failure {
    /// A failure that may pass by itself, soon.
    pub(crate) fn new(hop: Hop, message: String) -> Self {
        Self {
            hop,
            message,
            permanent: false,
            retry_after: None,
            token_refused: false,
            limited: false,
            correlation: None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
