//! Whether the proxy was asked for an image, by what its admin listener tells before and after a pull. Others may ask it meanwhile.

use std::time::Duration;

use serde_json::Value;

use super::proxy;
use crate::config::Config;

/// What a request adds to the counts is added after its answer, so the engine may be through before.
const SETTLED: Duration = Duration::from_millis(500);
/// A sentence of the proxy's is quoted up to here.
const MAX_SAID: usize = 400;

/// What the proxy knows of an image at one moment.
#[derive(Debug)]
pub(super) struct Count {
    /// Requests for anything.
    requests: u64,
    /// Pulls of the image; not known of a proxy of an earlier version.
    pulls: Option<u64>,
    /// Its requests that failed lately.
    failures: Vec<Value>,
}

/// Whether the proxy was asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// For the image, which it has served.
    Served,
    /// For the image, and it has refused: status and cause.
    Refused(String),
    /// For nothing.
    Not,
    /// For other images alone, or it has none of this name.
    NotServed,
    /// Why nobody knows.
    Unknown(&'static str),
}

/// Asks for the count of an image. The error is why there is none.
pub(super) async fn count(
    config: &Config,
    registry: &str,
    repository: &str,
    image: &str,
) -> Result<Count, &'static str> {
    if config.admin().is_none() {
        return Err("it has no admin listener");
    }
    let status = proxy::status_of(config, image).await.ok_or("its admin listener does not answer")?;
    Ok(Count::of(&status, registry, repository))
}

/// The same after a pull, when the requests of the pull are counted.
pub(super) async fn since(
    config: &Config,
    (registry, repository, image): (&str, &str, &str),
    before: &Result<Count, &'static str>,
    is_by_digest: bool,
) -> Asked {
    let judge = async || Asked::judge(before, &count(config, registry, repository, image).await, is_by_digest);
    match judge().await {
        Asked::Not | Asked::NotServed => {
            tokio::time::sleep(SETTLED).await;
            judge().await
        }
        known => known,
    }
}

impl Count {
    fn of(status: &Value, registry: &str, repository: &str) -> Self {
        // A client names the registry beside the name, or in front of it.
        let begins = [format!("/v2/{repository}/"), format!("/v2/{registry}/{repository}/")];
        let is_its = |failure: &&Value| {
            let path = failure["path"].as_str().unwrap_or_default();
            begins.iter().any(|begin| path.starts_with(begin))
        };
        let failures = status["failures"].as_array().into_iter().flatten().filter(is_its);
        Self {
            requests: status["requests"]["total"].as_u64().unwrap_or_default(),
            pulls: status["asked"]["pulls"].as_u64(),
            failures: failures.cloned().collect(),
        }
    }
}

impl Asked {
    /// Pulls by digest that begin with GET are not counted as such.
    fn judge(before: &Result<Count, &'static str>, after: &Result<Count, &'static str>, is_by_digest: bool) -> Self {
        let (before, after) = match (before, after) {
            (Ok(before), Ok(after)) => (before, after),
            (Err(why), _) | (_, Err(why)) => return Self::Unknown(why),
        };
        // The later ones come first; those of before may have given their places away.
        let mut known = before.failures.clone();
        let new = after.failures.iter().find(|failure| match known.iter().position(|one| one == *failure) {
            Some(at) => {
                known.swap_remove(at);
                false
            }
            None => true,
        });
        if let Some(failure) = new {
            let (status, error) = (&failure["status"], failure["error"].as_str().unwrap_or_default());
            let said = if error.is_empty() { status.to_string() } else { format!("{status}, {error}") };
            return Self::Refused(said.chars().take(MAX_SAID).collect());
        }
        match before.pulls.zip(after.pulls) {
            Some((before, after)) if after > before => Self::Served,
            _ if after.requests == before.requests => Self::Not,
            Some(_) if !is_by_digest => Self::NotServed,
            _ => Self::Unknown("its admin listener does not tell apart who was asked for"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_of_somebody_else_is_no_sign_that_the_engine_has_asked() {
        const NO_ADMIN: &str = "it has no admin listener";
        let status = |requests: u64, pulls: Value, failures: &[Value]| {
            let status = json!({"requests": {"total": requests}, "asked": {"pulls": pulls}, "failures": failures});
            Ok(Count::of(&status, "docker.io", "library/hello-world"))
        };
        let failure =
            |path: &str, id: u64| json!({"path": path, "status": 503, "error": "no token", "correlation": id});
        let own = |id| failure("/v2/library/hello-world/manifests/latest", id);
        let named = failure("/v2/docker.io/library/hello-world/manifests/latest", 3);
        let other = failure("/v2/library/hello-worlds/manifests/latest", 4);
        let refused = || Asked::Refused("503, no token".to_owned());
        for (what, before, after, is_by_digest, expected) in [
            ("nobody has asked", status(7, json!(1), &[]), status(7, json!(1), &[]), false, Asked::Not),
            ("somebody else has", status(7, json!(1), &[]), status(9, json!(1), &[]), false, Asked::NotServed),
            ("it has", status(7, json!(1), &[]), status(9, json!(2), &[]), false, Asked::Served),
            (
                "of an earlier version, nobody",
                status(7, Value::Null, &[]),
                status(7, Value::Null, &[]),
                false,
                Asked::Not,
            ),
            (
                "of an earlier version, somebody",
                status(7, Value::Null, &[]),
                status(8, Value::Null, &[]),
                false,
                Asked::Unknown("its admin listener does not tell apart who was asked for"),
            ),
            (
                "GET by digest",
                status(7, json!(0), &[]),
                status(8, json!(0), &[]),
                true,
                Asked::Unknown("its admin listener does not tell apart who was asked for"),
            ),
            ("refused", status(7, json!(1), &[]), status(8, json!(1), &[own(1)]), false, refused()),
            ("again", status(7, json!(1), &[own(1)]), status(8, json!(1), &[own(2), own(1)]), false, refused()),
            ("by name", status(7, json!(1), &[]), status(8, json!(1), &[named]), false, refused()),
            ("a layer", status(7, json!(1), &[]), status(9, json!(2), &[own(1)]), false, refused()),
            ("earlier", status(7, json!(1), &[own(1), own(1)]), status(7, json!(1), &[own(1)]), false, Asked::Not),
            ("another image", status(7, json!(1), &[]), status(8, json!(1), &[other]), false, Asked::NotServed),
            ("no admin listener", Err(NO_ADMIN), Err(NO_ADMIN), false, Asked::Unknown(NO_ADMIN)),
        ] {
            assert_eq!(Asked::judge(&before, &after, is_by_digest), expected, "{what}");
        }
    }
}
