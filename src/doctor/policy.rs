//! `policy.json`, by which podman, buildah and skopeo accept an image or reject it: whose file counts, and what it says of the registries
//! that have routes. CRI-O may have a file of its own (`signature_policy`), so it is not judged by this one.

use std::collections::BTreeSet;

use oci::route::DOCKER_HUB;
use serde_json::{Map, Value};

use super::expected::{Expected, by_hand, edit, unreadable};
use super::finding::{Code, Examined, Finding, Way, listed};
use super::registries_conf::{OFFICIAL, ROOTS, by_owner, covers};
use crate::client_config::text;
use crate::host::{DENIED, Host, Text};
use crate::shell::shell_word;

mod requirement;

use requirement::rejects_of;

/// Of the system: the first of them that is there counts. Only a podman that came after 5 knows the second.
const FILES: [&str; 2] = ["/etc/containers/policy.json", "/usr/share/containers/policy.json"];
/// A user's own, below the home directory, which counts in place of the system's.
const USERS: &str = ".config/containers/policy.json";
/// What distributions have there.
const USUAL: &str = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;

/// What was read.
pub(super) struct Policies {
    system: Option<Text>,
    /// Of users who have one, with the home.
    users: Vec<(String, Text)>,
    /// Whether root has one cannot be seen.
    is_roots_closed: bool,
    has_podman: bool,
}

impl Policies {
    pub(super) fn read(host: &Host) -> Self {
        let own = |home: String| host.read(&format!("{home}/{USERS}")).map(|text| (home, text));
        // Of a home that is closed to whoever runs this nothing is known.
        let (closed, users): (Vec<_>, Vec<_>) =
            host.homes().into_iter().filter_map(own).partition(|(_, text)| text.content == Err(DENIED.to_owned()));
        Self {
            system: FILES.iter().find_map(|path| host.read(path)),
            users,
            is_roots_closed: closed.iter().any(|(home, _)| home == ROOTS),
            has_podman: host.has_program(&["podman"]),
        }
    }
}

/// What a file says of images of registries.
struct Policy {
    /// Without a scope that fits.
    rejects: bool,
    /// What is rejected of the transport `docker`, and what is not.
    scopes: Vec<(String, bool)>,
}

impl Policy {
    /// The error says why the programs refuse the file; it quotes nothing of it.
    fn parse(content: &str) -> Result<Self, String> {
        let parsed = text::json(content)?;
        text::once(content)?;
        let all = parsed.as_object().map_or_else(Map::new, Clone::clone);
        if all.keys().any(|key| !["default", "transports"].contains(&key.as_str())) {
            return Err("it has another key than default and transports".to_owned());
        }
        let Some(default) = all.get("default") else { return Err("it has no default".to_owned()) };
        let rejects = rejects_of(default, "its default")?;
        let mut scopes = Vec::new();
        for (transport, all) in all.get("transports").and_then(Value::as_object).into_iter().flatten() {
            for (scope, list) in all.as_object().into_iter().flatten() {
                let rejects = rejects_of(list, "a scope of its transports")?;
                if transport == "docker" {
                    scopes.push((scope.clone(), rejects));
                }
            }
        }
        Ok(Self { rejects, scopes })
    }

    /// Whether what no narrower scope is for is rejected of a source: the narrowest scope that has all of it counts, one with a star after
    /// the others, and one without a name after those.
    fn rejects(&self, source: &str) -> bool {
        let fits = self.scopes.iter().filter(|(scope, _)| covers(scope, source));
        let fit = fits.max_by_key(|(scope, _)| (!scope.starts_with("*."), scope.len()));
        let unnamed = || self.scopes.iter().find(|(scope, _)| scope.is_empty());
        fit.or_else(unnamed).map_or(self.rejects, |(_, rejects)| *rejects)
    }

    /// Scopes for a part of a source, of which the other is said.
    fn others<'a>(&'a self, source: &'a str) -> impl Iterator<Item = &'a str> {
        let rejects = self.rejects(source);
        let is_part = move |scope: &str| scope.strip_prefix(source).is_some_and(|rest| rest.starts_with(['/', ':']));
        let others = self.scopes.iter().filter(move |(scope, other)| is_part(scope) && *other != rejects);
        others.map(|(scope, _)| scope.as_str())
    }
}

/// Pure: what is wrong with them.
pub(super) fn judge(policies: &Policies, expected: &Expected<'_>, found: &mut Examined) {
    let Policies { system, users, is_roots_closed, has_podman } = policies;
    let is_roots = users.iter().all(|(home, _)| home != ROOTS);
    match system {
        Some(text) => judge_file(text, None, is_roots, *has_podman && text.path == FILES[0], expected, found),
        None if is_roots && (!is_roots_closed || users.is_empty()) => {
            let path = FILES[0];
            found.find(Finding {
                registries: Vec::new(),
                code: Code::Unreadable,
                file: Some(path.to_owned()),
                text: format!("it is not there, nor are {} and {ROOTS}/{USERS}", FILES[1]),
                why: "podman, buildah and skopeo take no image without one: every pull by root fails, and by every user who has none of his own"
                    .to_owned(),
                // As the package of the distribution has it.
                fix: by_hand(format!("mkdir -p /etc/containers && printf '{USUAL}\\n' > {path}")),
            });
            found.lead_all(expected.names(), Way::Nowhere);
        }
        None => found.notes.push(format!(
            "{} is not there: podman, buildah and skopeo take no image for a user without a policy.json of his own",
            FILES[0]
        )),
    }
    for (home, text) in users {
        let user = home.rsplit('/').next().unwrap_or_default();
        judge_file(text, Some(user), home == ROOTS, false, expected, found);
    }
}

/// `user` is whose file it is, if it is not the system's; `is_roots` is whether root pulls by it; `is_trusts` whether podman has a command
/// that changes it.
fn judge_file(
    Text { path, content }: &Text,
    user: Option<&str>,
    is_roots: bool,
    is_trusts: bool,
    expected: &Expected<'_>,
    found: &mut Examined,
) {
    let whose = user.map(|user| format!(" for {user}")).unwrap_or_default();
    let policy = match content.as_deref().map_err(Clone::clone).and_then(Policy::parse) {
        Ok(policy) => policy,
        Err(wrong) => {
            let finding = unreadable(
                path,
                &wrong,
                &format!("podman, buildah and skopeo take no image then, and every pull fails{whose}"),
            );
            let fix = by_owner(path, finding.fix.clone());
            found.find(Finding { fix, ..finding });
            if is_roots {
                found.lead_all(expected.names(), Way::Nowhere);
            }
            return;
        }
    };
    let mut rejected: Vec<String> = Vec::new();
    let mut registries: BTreeSet<&str> = BTreeSet::new();
    let mut notes = Vec::new();
    for route in expected.routes.iter() {
        let source = route.source.to_string();
        // What a name without a registry stands for is most of what is pulled of Docker Hub.
        let official = (source == DOCKER_HUB && !policy.rejects(&source)).then(|| OFFICIAL.to_owned());
        for source in [source].into_iter().chain(official) {
            let is_rejected = policy.rejects(&source);
            let others: Vec<_> = policy.others(&source).map(str::to_owned).collect();
            if is_rejected && others.is_empty() {
                registries.insert(route.source.registry());
                rejected.push(source);
            } else {
                notes.push((source, is_rejected, others));
            }
        }
    }
    for (source, is_rejected, mut others) in notes {
        others.retain(|other| !rejected.contains(other));
        if others.is_empty() || source == OFFICIAL && !is_rejected {
            continue;
        }
        let (what, other) = if is_rejected { ("rejects", "takes") } else { ("takes", "rejects") };
        found.notes.push(format!("{path} {what} images of {source}, and {other} those of {}", others.join(", ")));
    }
    if rejected.is_empty() {
        return;
    }
    rejected.sort_unstable();
    rejected.dedup();
    let registries: Vec<String> = registries.into_iter().map(str::to_owned).collect();
    if is_roots {
        found.lead_all(registries.iter().map(String::as_str).collect(), Way::Nowhere);
    }
    let accept = rejected.iter().map(|source| format!("podman image trust set --type accept {}", shell_word(source)));
    let fix = if is_trusts {
        by_hand(accept.collect::<Vec<_>>().join(" && "))
    } else {
        let hint = r#"  # [{"type": "insecureAcceptAnything"}] into transports.docker for "#;
        edit(path, &format!("{hint}{}", rejected.join(", ")))
    };
    let images = listed(&rejected.iter().map(String::as_str).collect::<Vec<_>>());
    found.find(Finding {
        code: Code::Blocked,
        file: Some(path.clone()),
        text: format!("it rejects the images of {images}"),
        why: format!(
            "every pull of {images} by podman, buildah and skopeo fails{whose}: the image is rejected by policy"
        ),
        fix: by_owner(path, fix),
        registries,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_scope_that_has_all_of_a_source_says_whether_it_is_rejected() {
        let accept = r#"[{"type": "insecureAcceptAnything"}]"#;
        let reject = r#"[{"type": "reject"}]"#;
        for (default, scopes, source, rejects, others) in [
            (accept, String::new(), "docker.io", false, ""),
            (reject, String::new(), "docker.io", true, ""),
            (reject, format!(r#""docker.io": {accept}"#), "docker.io", false, ""),
            (reject, format!(r#""docker.io": {accept}"#), "docker.io/library", false, ""),
            (accept, format!(r#""*.io": {reject}"#), "docker.io", true, ""),
            (accept, format!(r#""*.io": {reject}, "docker.io": {accept}"#), "docker.io", false, ""),
            (accept, format!(r#""": {reject}"#), "docker.io", true, ""),
            (accept, format!(r#""ghcr.io": {reject}"#), "docker.io", false, ""),
            // An entry of registries.conf counts for each port, and a scope does not.
            (accept, format!(r#""localhost": {reject}"#), "localhost:5000", false, ""),
            (accept, format!(r#""docker.io/a": {reject}"#), "docker.io", false, "docker.io/a"),
            (reject, format!(r#""docker.io/a": {accept}"#), "docker.io", true, "docker.io/a"),
        ] {
            let text = format!(r#"{{"default": {default}, "transports": {{"docker": {{{scopes}}}}}}}"#);
            let policy = Policy::parse(&text).expect("a policy");
            assert_eq!(policy.rejects(source), rejects, "{text}");
            assert_eq!(policy.others(source).collect::<Vec<_>>().join(" "), others, "{text}");
        }
    }

    #[test]
    fn a_policy_that_podman_cannot_read_is_told() {
        for (text, expected) in [
            ("{", "it is not JSON, line 1, column 1"),
            ("[]", "it is not a JSON object"),
            ("{}", "it has no default"),
            (r#"{"default": []}"#, "its default has no list of requirements"),
            (r#"{"default": [{"type": "reject"}], "comment": 1}"#, "it has another key than default and transports"),
            (
                r#"{"default": [{"type": "reject"}], "transports": {"docker": {"a": []}}}"#,
                "a scope of its transports has no list of requirements",
            ),
            (
                r#"{"default": [{"type": "reject"}], "transports": {"docker-daemon": {"": []}}}"#,
                "a scope of its transports has no list of requirements",
            ),
            (r#"{"default": [{"type": "reject"}], "default": [{"type": "reject"}]}"#, "it has a key twice, line 1"),
            (
                "{\"default\": [{\"type\": \"reject\"}],\n\"transports\": {\"docker\": {\"a\": [{\"type\": \"reject\",\n\"type\": \"reject\"}]}}}",
                "it has a key twice, line 3",
            ),
            (r#"{"default": [{"type": "nope"}]}"#, "a requirement of its default is of no known type"),
        ] {
            assert_eq!(Policy::parse(text).err().as_deref(), Some(expected), "{text}");
        }
    }
}
