//! What becomes of the end of a token.

use serde_json::Value;

use crate::jwt::Claims;

/// Whether a token says when it ends, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// The truth.
    Stated,
    /// Nothing: the claim is missing.
    Unstated,
    /// An hour ago.
    Past,
}

/// Writes `nbf`, `iat` and `exp`, as Azure does in all its tokens.
pub(crate) fn set_times(claims: &mut Claims, now: i64, lifetime: i64, expiry: Expiry) {
    let issued = if expiry == Expiry::Past { now - lifetime - 3_600 } else { now };
    claims.insert("nbf".to_owned(), Value::from(issued));
    claims.insert("iat".to_owned(), Value::from(issued));
    if expiry != Expiry::Unstated {
        claims.insert("exp".to_owned(), Value::from(issued + lifetime));
    }
}

/// A lifetime in whole seconds.
pub(crate) fn seconds(lifetime: std::time::Duration) -> i64 {
    i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX / 4)
}
