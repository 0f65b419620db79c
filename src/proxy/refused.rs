//! What the registry's 401 or 403 is about: a right that has ended, after which nothing that is kept may be used, or a fault
//! elsewhere, which something stale survives.
//!
//! ACR says `insufficient_scope` in the challenge of a token that does not reach a repository (recorded), and answers a
//! request whose right is denied with 403 `DENIED`. A cache rule whose credential set is not healthy answers 401, 403 or 424
//! although the identity may pull, and names the rule in its sentence (Azure/acr#599, #772, #892), or asks for a sign-in in
//! general words (#893). Something between this host and the registry answers 403 as well, with a page or with nothing.

use std::fmt;

use http::{HeaderMap, StatusCode};
use oci::quote::registry_error;

use crate::answer::{FIREWALL, challenge, is_about_firewall, says};

/// In every sentence about a cache rule's source or its credential set, or in Docker Hub's own, which a registry may pass on. No
/// name of a client's has a blank.
const OF_A_RULE: [&str; 2] = ["cache rule ", "pull rate limit"];

/// The code of a refusal of ACR's that is about a right.
const DENIED: &str = "DENIED";
/// Words by which a refusal is about the source of a cache rule, if it does not name the rule.
const OF_A_SOURCE: [&str; 5] = ["credential", "credentials", "rule", "source", "upstream"];
/// The same, about the address of this host.
const OF_AN_ADDRESS: [&str; 2] = ["firewall", "ip"];

/// What a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The identity's right to this repository.
    Right,
    /// The source of a cache rule, or its credential set.
    Source,
    /// This host's address, whatever is asked for.
    Address,
    /// It does not say, or the registry has not said it. The registry would say so of a right, so it is not taken for one.
    Unclear,
}

impl Refused {
    /// What a 401 to a fresh token or a 403 is about; `None` for any other status. `body` may be empty or cut off.
    ///
    /// In doubt it is no matter of rights: what is kept of a whole repository is forgotten for one, and for whoever has lost his
    /// right the registry says so in one of two ways.
    pub(crate) fn of(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<Self> {
        if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return None;
        }
        let is_too_narrow = || challenge(headers).is_some_and(|challenge| challenge.is_too_narrow());
        Some(if Self::is_about_rule(body) {
            Self::Source
        } else if is_about_firewall(body) {
            Self::Address
        } else if is_too_narrow() {
            Self::Right
        } else if status == StatusCode::FORBIDDEN {
            Self::of_error(body)
        } else {
            Self::Unclear
        })
    }

    /// Whether an answer is neither what was asked for nor about the identity's right to it.
    pub(crate) fn is_trouble(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> bool {
        !status.is_success() && Self::of(status, headers, body) != Some(Self::Right)
    }

    /// What a 403 is about by the registry's own error, if it has one.
    fn of_error(body: &[u8]) -> Self {
        let (code, message) = registry_error(body, &[]);
        if code.as_deref() != Some(DENIED) {
            return Self::Unclear;
        }
        // Only whole words: the name of a repository, which a client chooses, is a part of one.
        let message = message.unwrap_or_default().to_ascii_lowercase();
        let has = |words: &[&str]| {
            message.split_ascii_whitespace().any(|word| words.contains(&word.trim_end_matches(['.', ',', ':', ';'])))
        };
        if has(&OF_A_SOURCE) {
            Self::Source
        } else if has(&OF_AN_ADDRESS) {
            Self::Address
        } else {
            Self::Right
        }
    }

    /// Whether an error is one of a cache rule's source, not of the registry itself.
    pub(crate) fn is_about_rule(body: &[u8]) -> bool {
        OF_A_RULE.iter().any(|words| says(body, words))
    }
}

impl fmt::Display for Refused {
    /// What lacks, and where.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Right => "the identity lacks AcrPull on this repository",
            Self::Source => "the cache rule's credential set is unhealthy, or its account may not pull this image",
            Self::Address => FIREWALL,
            Self::Unclear => "the identity lacks AcrPull on this repository, the cache rule's credential set is unhealthy, or a firewall rule denies this host",
        })
    }
}

#[cfg(test)]
mod tests {
    use http::header::WWW_AUTHENTICATE;

    use super::*;

    #[test]
    fn a_right_that_has_ended_is_told_from_trouble_elsewhere() {
        const SCOPE: &str = r#"Bearer realm="https://r/oauth2/token",service="r",scope="repository:hub/x:pull""#;
        let narrow = format!(r#"{SCOPE},error="insufficient_scope""#);
        let code = |code: &str, words: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"{words}"}}]}}"#);
        let sentence = |words: &str| code("UNAUTHORIZED", words);
        let general = sentence("authentication required, visit https://aka.ms/acr/authorization for more information.");
        let rule = sentence("authentication required with source registry for cache rule 'hub'. CorrelationId: 1");
        let denied =
            sentence("requested access to pull from source 'docker.io/x' for cache rule 'hub' has been denied");
        let firewall = sentence("client with IP '192.0.2.1' is not allowed access. Refer https://aka.ms/acr/firewall");
        // A name that a client chooses is in the detail of some errors.
        let named =
            r#"{"errors":[{"code":"DENIED","message":"denied","detail":{"name":"cache/rule/is-not-allowed"}}]}"#;
        for (status, challenge, body, expected) in [
            (401, narrow.as_str(), general.as_str(), Some(Refused::Right)),
            (401, narrow.as_str(), "", Some(Refused::Right)),
            (401, SCOPE, general.as_str(), Some(Refused::Unclear)),
            (401, "", "", Some(Refused::Unclear)),
            (401, SCOPE, rule.as_str(), Some(Refused::Source)),
            (401, narrow.as_str(), rule.as_str(), Some(Refused::Source)),
            (403, "", denied.as_str(), Some(Refused::Source)),
            (403, "", firewall.as_str(), Some(Refused::Address)),
            (403, "", named, Some(Refused::Right)),
            (403, "", "", Some(Refused::Unclear)),
            (403, "", "<html>blocked by your firewall</html>", Some(Refused::Unclear)),
            (403, "", general.as_str(), Some(Refused::Unclear)),
            (403, narrow.as_str(), "", Some(Refused::Right)),
            (403, "", &code("FORBIDDEN", "denied"), Some(Refused::Unclear)),
            (403, "", &code("", "denied"), Some(Refused::Unclear)),
            (403, "", &code("DENIED", ""), Some(Refused::Right)),
            (403, "", &code("DENIED", "requested access to the resource is denied"), Some(Refused::Right)),
            (403, "", &code("DENIED", "access to hub/source is denied"), Some(Refused::Right)),
            (403, "", &code("DENIED", "The credential set is unhealthy"), Some(Refused::Source)),
            (403, "", &code("DENIED", "upstream registry denied access"), Some(Refused::Source)),
            (403, "", &code("DENIED", "Access is blocked by the firewall."), Some(Refused::Address)),
            (404, narrow.as_str(), rule.as_str(), None),
            (424, "", rule.as_str(), None),
        ] {
            let mut headers = HeaderMap::new();
            if !challenge.is_empty() {
                headers.insert(WWW_AUTHENTICATE, challenge.parse().expect("a header"));
            }
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(Refused::of(status, &headers, body.as_bytes()), expected, "{status} {challenge} {body}");
        }
    }
}
