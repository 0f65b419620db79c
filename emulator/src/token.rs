//! When a token ends, and whether it says so.

use serde_json::Value;

use crate::jwt::Claims;

/// What a token says about its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// When it really ends.
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
