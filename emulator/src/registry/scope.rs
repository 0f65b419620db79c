//! Requested scopes, and granted access.

use serde::{Deserialize, Serialize};

/// One entry of the `access` claim; ACR's keys are capitalised (azure-sdk-for-net recordings).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Access {
    #[serde(rename = "Type")]
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) actions: Vec<String>,
}

impl Access {
    /// Parses `repository:library/busybox:pull,push`; `None` if it is no scope.
    fn parse(scope: &str) -> Option<Access> {
        let (kind, rest) = scope.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        Some(Access {
            kind: kind.to_owned(),
            name: name.to_owned(),
            actions: actions.split(',').map(str::to_owned).collect(),
        })
    }

    /// Whether the entry is for exactly this name, not for all names.
    pub(super) fn names(&self, name: &str) -> bool {
        self.name == name
    }

    /// Whether this entry allows an action; `*` as a name stands for all repositories.
    pub(super) fn covers(&self, kind: &str, name: &str, action: &str) -> bool {
        self.kind == kind
            && (self.name == name || kind == "repository" && self.name == "*")
            && self.actions.iter().any(|allowed| allowed == action)
    }
}

/// The access that an identity with pull permission gets of the scopes that it requests.
///
/// Several scopes come in several parameters (Azure/acr AAD-OAuth.md) or in one, joined by
/// spaces (Azure/acr-cli). An ABAC registry ignores wildcards and the catalog without an error.
pub(super) fn grant<'a>(scopes: impl Iterator<Item = &'a str>, is_abac: bool) -> Vec<Access> {
    let asked = scopes.flat_map(str::split_whitespace).filter_map(Access::parse);
    let mut granted = Vec::new();
    for mut access in asked {
        let wants = |action: &str| access.actions.iter().any(|asked| asked == action || asked == "*");
        let allowed: &[&str] = match (access.kind.as_str(), access.name.as_str()) {
            ("repository", "*") | ("registry", _) if is_abac => &[],
            ("repository", _) if wants("pull") => &["pull"],
            ("registry", "catalog") if wants("*") => &["*"],
            _ => &[],
        };
        if !allowed.is_empty() {
            access.actions = allowed.iter().map(|action| (*action).to_owned()).collect();
            granted.push(access);
        }
    }
    granted
}

#[cfg(test)]
mod tests {
    use super::grant;

    #[test]
    fn a_grant_is_what_is_asked_cut_down_to_pull() {
        let granted = grant(["repository:hub/a:pull,push repository:*:*"].into_iter(), false);
        let granted: Vec<_> = granted.iter().map(|access| (access.name.as_str(), access.actions.join(","))).collect();
        assert_eq!(granted, [("hub/a", "pull".to_owned()), ("*", "pull".to_owned())]);
    }

    #[test]
    fn abac_ignores_wildcards_and_keeps_the_rest() {
        let scopes = ["repository:*:pull", "registry:catalog:*", "repository:hub/a:pull"];
        let granted = grant(scopes.into_iter(), true);
        assert_eq!(granted.len(), 1);
        assert!(granted[0].covers("repository", "hub/a", "pull"));
        assert!(!granted[0].covers("repository", "hub/b", "pull"));
    }
}
