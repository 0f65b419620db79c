//! Files that count for some users alone, beside the system's or in place of them.

use std::collections::BTreeSet;

use oci::route::DOCKER_HUB;

use super::Release;
use super::blocking::{Blocking, blocking, of_blocking, of_official, official};
use super::files::{Addition, Files};
use super::owner::by_owner;
use super::{Entry, OURS, ROOTS, USERS, covering, entries, judge_entry, take_out};
use crate::doctor::expected::{Expected, INSTALL, aside, by_hand};
use crate::doctor::finding::{Code, Examined, Finding, REGISTRIES, Way, listed};
use crate::host::Text;
use crate::shell::shell_word;

/// Where the pulls of these registries go by a file in this home, as far as they are the system's.
fn lead_root(home: &str, registries: Vec<&str>, way: Way, found: &mut Examined) {
    if home == ROOTS {
        found.lead_all(registries, way);
    }
}

/// A user's own file, beside which none of the system's is read.
pub(super) fn of_user(home: &str, own: &[Text], release: Release, expected: &Expected<'_>, found: &mut Examined) {
    let path = format!("{home}/{USERS}");
    let user = home.rsplit('/').next().unwrap_or_default();
    let entries = match entries(own, release) {
        Ok(entries) => entries,
        Err(finding) => {
            lead_root(home, expected.names(), Way::Nowhere, found);
            return found.find(*finding);
        }
    };
    for Blocking { entry, all_of } in blocking(&entries, expected) {
        all_of.iter().for_each(|(registry, way)| lead_root(home, vec![registry], *way, found));
        found.find(of_blocking(entry, &all_of, &format!(" for {user}")));
    }
    if let Some(entry) = official(&entries, expected) {
        let (way, finding) = of_official(entry, expected, &format!(" for {user}"));
        lead_root(home, vec![DOCKER_HUB], way, found);
        found.find(finding);
    }
    let missing: BTreeSet<_> = expected
        .routes
        .iter()
        .filter(|route| {
            let entry = covering(&entries, &route.source.to_string());
            !entry.is_some_and(|entry| {
                judge_entry(entry, route.source.registry(), expected, &by_hand("")).0 == Way::Proxy
            })
        })
        .map(|route| route.source.registry())
        .collect();
    if missing.is_empty() {
        return;
    }
    lead_root(home, missing.iter().copied().collect(), Way::Source, found);
    let registries = listed(&missing.into_iter().collect::<Vec<_>>());
    found.find(Finding {
        registries: Vec::new(),
        code: Code::Hidden,
        file: Some(path.clone()),
        text: format!("for {user} it hides all files of /etc/containers, and does not lead {registries} to the proxy"),
        why: format!("what {user} pulls of {registries} goes past the proxy, and nobody is told"),
        fix: by_owner(
            &path,
            by_hand(format!("{INSTALL} -m 0644 {OURS} {}", shell_word(&format!("{path}.d/50-acr-cache-proxy.conf")))),
        ),
    });
}

/// Files that count beside the system's for some, and whose entries count in place of the system's for the same prefix.
pub(super) fn of_addition(addition: &Addition, files: &Files, expected: &Expected<'_>, found: &mut Examined) {
    let who = &addition.who;
    let lead = |registries: Vec<&str>, way: Way, found: &mut Examined| {
        if addition.is_root {
            found.lead_all(registries, way);
        }
    };
    let entries_of_all = match entries(&files.with(addition), files.release) {
        Ok(entries) => entries,
        // One of the system's has been told.
        Err(finding) if finding.file.as_ref().is_none_or(|file| !addition.has(file)) => return,
        Err(finding) => {
            lead(expected.names(), Way::Nowhere, found);
            return found.find(*finding);
        }
    };
    for Blocking { entry, all_of } in blocking(&entries_of_all, expected) {
        if addition.has(&entry.file) {
            all_of.iter().for_each(|(registry, way)| lead(vec![registry], *way, found));
            found.find(of_blocking(entry, &all_of, &format!(" for {who}")));
        }
    }
    if let Some(entry) = official(&entries_of_all, expected).filter(|entry| addition.has(&entry.file)) {
        let (way, finding) = of_official(entry, expected, &format!(" for {who}"));
        lead(vec![DOCKER_HUB], way, found);
        found.find(finding);
    }
    let systems = entries(&files.system, files.release).unwrap_or_default();
    for route in expected.routes.iter() {
        let (source, registry) = (route.source.to_string(), route.source.registry());
        let counts = covering(&entries_of_all, &source);
        let leads = |entry: &Entry| judge_entry(entry, registry, expected, &by_hand("")).0 == Way::Proxy;
        if counts.is_some_and(leads) {
            continue;
        }
        let (file, text, fix) = match counts.filter(|entry| addition.has(&entry.file)) {
            Some(Entry { file, prefix, .. }) => (
                file,
                format!(
                    "for {who} its entry for {prefix} counts in place of that of /etc/containers, and does not lead to the proxy"
                ),
                take_out(file, prefix),
            ),
            // What leads others to the proxy is not read.
            None => {
                let Some(theirs) = covering(&systems, &source).filter(|entry| leads(entry)) else { continue };
                let Some(hides) = addition.in_place_of(&theirs.file) else { continue };
                let (file, theirs) = (&hides.path, &theirs.file);
                (
                    file,
                    format!("for {who} it is read in place of {theirs}, and does not lead {REGISTRIES} to the proxy"),
                    by_hand(aside(file)),
                )
            }
        };
        lead(vec![registry], Way::Source, found);
        // A file that hides all of them alike is one finding.
        let (registries, pulled) = match text.contains(REGISTRIES) {
            true => (vec![registry.to_owned()], REGISTRIES),
            false => (Vec::new(), registry),
        };
        found.find(Finding {
            registries,
            code: Code::Hidden,
            file: Some(file.clone()),
            text,
            why: format!("for {who}, pulls of {pulled} go past the proxy, and nobody is told"),
            fix: by_owner(file, fix),
        });
    }
}
