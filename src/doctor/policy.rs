//! `policy.json`, by which podman, buildah and skopeo accept an image or reject it: whose file counts, and what it says of the registries
//! that have routes. CRI-O may have a file of its own (`signature_policy`), so it is not judged by this one.

use std::collections::BTreeSet;

use oci::route::DOCKER_HUB;

use super::expected::{Expected, by_hand, edit, unreadable};
use super::finding::{Code, Examined, Finding, Way, listed};
use super::registries_conf::{OFFICIAL, ROOTS, by_owner};
use crate::client_config;
use crate::client_config::policy::{FILES, Policy, USERS};
use crate::host::{DENIED, Host, Text};
use crate::shell::shell_word;

/// What distributions have there.
const USUAL: &str = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;

/// What was read.
pub(super) struct Policies {
    pub files: client_config::policy::Files,
    /// Whether root has one cannot be seen.
    is_roots_closed: bool,
    has_podman: bool,
}

impl Policies {
    pub(super) fn read(host: &Host) -> Self {
        let mut files = client_config::policy::Files::read(host);
        // Of a home that is closed to whoever runs this nothing is known.
        let is_closed = |text: &Text| text.content == Err(DENIED.to_owned());
        let is_roots_closed = files.users.iter().any(|(home, text)| home == ROOTS && is_closed(text));
        files.users.retain(|(_, text)| !is_closed(text));
        Self { files, is_roots_closed, has_podman: host.has_program(&["podman"]) }
    }
}

/// Pure: what is wrong with them.
pub(super) fn judge(policies: &Policies, expected: &Expected<'_>, found: &mut Examined) {
    let Policies { files: client_config::policy::Files { system, users, .. }, is_roots_closed, has_podman } = policies;
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
        let official = (source == DOCKER_HUB && !policy.of(&source).rejects).then(|| OFFICIAL.to_owned());
        for source in [source].into_iter().chain(official) {
            let is_rejected = policy.of(&source).rejects;
            let others = policy.parts(&source).filter(|(_, part)| part.rejects != is_rejected);
            let others: Vec<_> = others.map(|(scope, _)| scope.to_owned()).collect();
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
