//! Policies that require signatures which are not looked for at the proxy. A client looks for them by the address that it asks, so what
//! `registries.d` says of the source does not count for the proxy.

use super::files::{Files, Signatures};
use super::{OFFICIAL, ROOTS, by_owner, covering, entries};
use crate::client_config::address::Verdict;
use crate::client_config::policy::{self, Policy, Requirements};
use crate::client_config::signatures::{self, LookedFor};
use crate::client_config::{Client, REGISTRIES_D, carries_marker};
use crate::doctor::expected::{Expected, INSTALL, by_hand, edit};
use crate::doctor::finding::{Code, Examined, Finding, Fix, REGISTRIES, Way};
use crate::host::Text;
use crate::shell::shell_word;
use oci::route::DOCKER_HUB;

/// A user, and what counts for what he pulls.
struct User<'a> {
    home: &'a str,
    /// Of the policy.
    path: &'a str,
    policy: Policy,
    /// He has a directory of his own, beside which the system's file is not read, and that is there.
    hides_ours: bool,
    /// Where signatures are looked for.
    texts: &'a [Text],
}

impl User<'_> {
    /// For sentences about the files of one that is not root.
    fn whose(&self) -> String {
        if self.home == ROOTS {
            String::new()
        } else {
            format!(" for {}", self.home.rsplit('/').next().unwrap_or_default())
        }
    }

    /// What is required of images of a source, or of a part of it; and whether of most of it.
    fn requires(&self, source: &str, is_such: fn(Requirements) -> bool) -> Option<bool> {
        let is_whole = is_such(self.policy.of(source)) || source == DOCKER_HUB && is_such(self.policy.of(OFFICIAL));
        let has_part = || self.policy.parts(source).any(|(_, part)| is_such(part));
        (is_whole || has_part()).then_some(is_whole)
    }
}

/// Pure: what is wrong, as each release that may be here reads the files.
pub(in crate::doctor) fn judge(all: &[Files], policies: &policy::Files, expected: &Expected<'_>, found: &mut Examined) {
    let by_release = all.iter().map(|files| {
        let mut judged = Examined::new(found.part);
        by_one(files, policies, expected, &mut judged);
        (files.release, judged)
    });
    // Where pulls go was said before, and is worse now or as it was.
    super::release::add(by_release.collect(), found);
}

fn by_one(files: &Files, policies: &policy::Files, expected: &Expected<'_>, found: &mut Examined) {
    let Ok(entries) = entries(&files.system, files.release) else { return };
    for Signatures { home, hides_ours, texts } in &files.signatures_of {
        let own = policies.users.iter().find(|(other, _)| other == home).map(|(_, text)| text);
        let Some(text) = own.or(policies.system.as_ref()) else { continue };
        let Some(policy) = text.content.as_ref().ok().and_then(|content| Policy::parse(content).ok()) else { continue };
        let user = User { home, path: &text.path, policy, hides_ours: *hides_ours, texts };
        for route in expected.routes.iter() {
            let (source, registry) = (route.source.to_string(), route.source.registry());
            let address = covering(&entries, &source).and_then(|entry| Some(&entry.places.first()?.address));
            let Some(address) = address.filter(|address| expected.here.judge(address) == Verdict::Ours) else {
                continue;
            };
            let asked = address.to_string();
            let Some(looked_for) = signatures::looked_for(texts, files.release, &asked) else { continue };
            of_route(&user, (&source, registry, &asked), looked_for, expected, found);
        }
    }
}

fn of_route(
    user: &User<'_>,
    (source, registry, asked): (&str, &str, &str),
    looked_for: LookedFor,
    expected: &Expected<'_>,
    found: &mut Examined,
) {
    let whose = user.whose();
    let why = format!(
        "podman, buildah and skopeo refuse such an image from the proxy{whose}: a signature was required, but no signature exists; nobody else is asked"
    );
    let mut find = |is_whole: bool, text: String, fix: Fix| {
        if is_whole && user.home == ROOTS {
            found.ways.insert(registry.to_owned(), Way::Nowhere);
        }
        found.find(Finding {
            registries: vec![registry.to_owned()],
            code: Code::Signature,
            file: Some(user.path.to_owned()),
            text,
            why: why.clone(),
            fix,
        });
    };
    if let Some(is_whole) = user.requires(source, |required| required.sigstore).filter(|_| !looked_for.attachments) {
        let text = format!(
            "it requires sigstore signatures of images of {REGISTRIES}, and none is looked for at the proxy{whose}"
        );
        find(is_whole, text, attach(user, expected));
    }
    if let Some(is_whole) = user.requires(source, |required| required.look_aside).filter(|_| !looked_for.look_aside) {
        let text = format!(
            "it requires GPG signatures of images of {REGISTRIES}, and no look-aside is named for {asked}{whose}"
        );
        let path = asked.split_once('/').map_or("", |(_, path)| path);
        let entry = format!(
            "  # docker: {{\"{asked}\": {{lookaside: URL}}}}, and what the look-aside of {source} has, below URL/{path} as well"
        );
        let directory = REGISTRIES_D.rsplit_once('/').map_or("", |(directory, _)| directory);
        find(is_whole, text, edit(&format!("{directory}/look-aside.yaml"), &entry));
    }
}

/// Has sigstore signatures looked for at the proxy.
fn attach(user: &User<'_>, expected: &Expected<'_>) -> Fix {
    let own = format!("{}/{}/50-acr-cache-proxy.yaml", user.home, signatures::USERS);
    let ours = user.texts.iter().find(|text| text.path == REGISTRIES_D);
    let is_foreign = |text: &Text| text.content.as_ref().is_ok_and(|content| !carries_marker(content));
    if ours.is_some_and(is_foreign) {
        return expected.beside(REGISTRIES_D, Client::Podman, "");
    }
    if !user.hides_ours && user.texts.iter().all(|text| text.path != own) {
        return expected.write(Client::Podman, "");
    }
    by_owner(&own, by_hand(format!("{INSTALL} -m 0644 {REGISTRIES_D} {}", shell_word(&own))))
}
