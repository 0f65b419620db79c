//! Entries that block what is asked of the proxy, or have all official images elsewhere.

use oci::route::DOCKER_HUB;

use super::owner::of_owner;
use super::{Entry, OFFICIAL, OURS, Place, covering, of_part, take_out};
use crate::client_config::Client;
use crate::client_config::address::Verdict;
use crate::doctor::expected::{Expected, by_hand};
use crate::doctor::finding::{Code, Examined, Finding, Way, listed};

/// An entry that keeps requests from the proxy.
pub(super) struct Blocking<'a> {
    pub entry: &'a Entry,
    /// The registries of which no request comes here, and where their pulls go; none if it is for a part of what is asked.
    pub all_of: Vec<(&'a str, Way)>,
}

/// Each place that is asked is looked up among the entries again, by what it is asked for (`newDockerClient` in containers/image).
pub(super) fn blocking<'a>(entries: &'a [Entry], expected: &'a Expected<'_>) -> Vec<Blocking<'a>> {
    let mut found: Vec<Blocking<'a>> = Vec::new();
    let mut add = |entry: &'a Entry, all_of: Option<(&'a str, Way)>| match found
        .iter_mut()
        .find(|known| known.entry.prefix == entry.prefix)
    {
        Some(known) => known.all_of.extend(all_of),
        None => found.push(Blocking { entry, all_of: all_of.into_iter().collect() }),
    };
    for route in expected.routes.iter() {
        let Some(counts) = covering(entries, &route.source.to_string()) else { continue };
        let ours = |place: &&Place| expected.here.judge(&place.address) == Verdict::Ours;
        let Some(place) = counts.places.first().filter(ours) else { continue };
        let asked = place.address.to_string();
        if let Some(entry) = covering(entries, &asked).filter(|entry| entry.is_blocked) {
            add(entry, Some((route.source.registry(), counts.way_without_first())));
        }
        let below = format!("{asked}/");
        let parts = entries.iter().filter(|entry| entry.is_blocked && entry.prefix.starts_with(&below));
        parts.for_each(|entry| add(entry, None));
    }
    found
}

/// That a registry is blocked is somebody's decision, and the entry that client-config has for it would take its place: nothing is written
/// there without asking.
pub(super) fn keep_blocks(found: &mut Examined) {
    // Of two entries that of the file whose name is later counts.
    let is_before = |finding: &&Finding| finding.file.as_deref().is_some_and(|file| file < OURS);
    let blocks = found.findings.iter().filter(|finding| finding.code == Code::Blocked).filter(is_before);
    let blocked: Vec<_> = blocks.flat_map(|finding| finding.registries.clone()).collect();
    let blocked = listed(&blocked.iter().map(String::as_str).collect::<Vec<_>>());
    for fix in found.findings.iter_mut().map(|finding| &mut finding.fix).filter(|_| !blocked.is_empty()) {
        if fix.by == Some(Client::Podman) {
            *fix = by_hand(format!("{}  # this lifts the block of {blocked}, too", fix.command));
        }
    }
}

/// `whose` is for whom, if it is not the system's.
pub(super) fn of_blocking(Entry { file, prefix, .. }: &Entry, all_of: &[(&str, Way)], whose: &str) -> Finding {
    let what = if all_of.is_empty() {
        "where the proxy is asked for a part of the images"
    } else {
        "where the proxy is asked"
    };
    of_owner(Finding {
        registries: Vec::new(),
        code: Code::Blocked,
        file: Some(file.clone()),
        text: format!("{prefix}, {what}, has blocked = true"),
        why: format!(
            "these pulls go past the proxy{whose}, to the source, and nobody is told; of a closed route they fail"
        ),
        fix: take_out(file, prefix),
    })
}

/// The entry that has all of Docker Hub that has a name without a registry refused or sent elsewhere, where all of Docker Hub is routed.
pub(super) fn official<'a>(entries: &'a [Entry], expected: &Expected<'_>) -> Option<&'a Entry> {
    let routes = |source: &str| expected.routes.iter().any(|route| route.source.to_string() == source);
    // An entry for what has a route is judged by that.
    let is_asked = routes(DOCKER_HUB) && !routes(OFFICIAL);
    let is_other = |entry: &&Entry| entry.prefix == OFFICIAL && (entry.is_blocked || !entry.names_proxy(expected));
    covering(entries, OFFICIAL).filter(|entry| is_asked && is_other(entry))
}

/// Where official images go by this entry. `whose` is for whom, if it is not the system's.
pub(super) fn of_official(entry: &Entry, expected: &Expected<'_>, whose: &str) -> (Way, Finding) {
    let Entry { file, prefix, is_blocked, .. } = entry;
    if !is_blocked && expected.is_closed(DOCKER_HUB) {
        return (Way::Source, of_owner(of_part(file, prefix, DOCKER_HUB)));
    }
    let (way, code, text, why) = match is_blocked {
        true => (
            Way::Nowhere,
            Code::Blocked,
            format!("{prefix} has blocked = true"),
            format!("every pull of an official image of Docker Hub is refused{whose}: busybox is {prefix}/busybox"),
        ),
        false => (
            Way::Source,
            Code::Hidden,
            format!(
                "its entry for {prefix} counts there in place of that for {DOCKER_HUB}, and does not name the proxy"
            ),
            format!(
                "every official image of Docker Hub goes past the proxy{whose}, and nobody is told: busybox is {prefix}/busybox"
            ),
        ),
    };
    let fix = take_out(file, prefix);
    (way, of_owner(Finding { registries: Vec::new(), code, file: Some(file.clone()), text, why, fix }))
}
