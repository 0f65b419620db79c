//! `registries.conf`, which podman, buildah, skopeo and CRI-O share: whose file counts, and which entry.

use std::collections::BTreeSet;

use oci::route::{DOCKER_HUB, Route};
use toml::{Table, Value};

use super::expected::{Expected, List, aside, by_hand, edit, leftover, misplaced, unreadable};
use super::finding::{Code, Examined, Finding, Fix, PAST, REGISTRIES, Way};
pub(super) use crate::client_config::Release;
use crate::client_config::address::{Address, Verdict, order};
use crate::client_config::policy::covers;
use crate::client_config::signatures::{self, Wrong};
use crate::client_config::text;
use crate::client_config::{Client, REGISTRIES_CONF as OURS, carries_marker};
use crate::config::Destination;
use crate::host::Text;
use crate::shell::shell_word;

mod aliases;
mod blocking;
mod certificates;
mod fault;
mod files;
mod owner;
mod release;
mod shape;
mod signed;
mod users;

pub(super) use certificates::directory_of;
use fault::fault;
pub(super) use files::Files;
pub(super) use owner::by_owner;
pub(super) use signed::judge as judge_signed;

use blocking::{Blocking, blocking, keep_blocks, of_blocking, of_official, official};
use owner::of_owner;
use users::{of_addition, of_user};

/// A user's own, below the home directory.
const USERS: &str = ".config/containers/registries.conf";

/// The home of whoever pulls for the system.
pub(super) const ROOTS: &str = "/root";
/// The part of Docker Hub that a name without a registry and without a `/` is of, such as `busybox`.
pub(super) const OFFICIAL: &str = "docker.io/library";

/// A `[[registry]]`.
struct Entry {
    file: String,
    prefix: String,
    is_blocked: bool,
    /// The mirrors and the location itself, in the order in which they are asked.
    places: Vec<Place>,
}

impl Entry {
    /// Whether one of its places is the proxy.
    fn names_proxy(&self, expected: &Expected<'_>) -> bool {
        self.places.iter().any(|place| expected.here.judge(&place.address) == Verdict::Ours)
    }

    /// Where pulls go if the first place gives nothing.
    fn way_without_first(&self) -> Way {
        if self.places.len() > 1 { Way::Source } else { Way::Nowhere }
    }
}

/// A location.
struct Place {
    address: Address,
    is_insecure: bool,
    /// Only what is asked for by digest comes here.
    is_by_digest: bool,
}

/// What follows where nobody else is asked.
const FAIL: &str = "pulls of {registries} fail";
/// What follows from a file that is wrong.
const WHY: &str = "podman, buildah, skopeo and CRI-O read no file then, and every pull fails";

/// All entries that count; of two for one prefix that of the later file, and in one file the first. The error is about a file that none of
/// the programs can read.
fn entries(files: &[Text], release: Release) -> Result<Vec<Entry>, Box<Finding>> {
    let mut all: Vec<Entry> = Vec::new();
    for Text { path, content } in files {
        let content = content.as_deref().map_err(|wrong| Box::new(of_owner(unreadable(path, wrong, WHY))))?;
        let table = shape::parse(content).map_err(|wrong| Box::new(of_owner(unreadable(path, &wrong, WHY))))?;
        if let Some(fault) = fault(path, &table).or_else(|| fault::fault_since(release, &table)) {
            return Err(Box::new(fault.into_finding(path, content)));
        }
        let mut prefixes = BTreeSet::new();
        let own = text::tables(&table, "registry").into_iter().map(|table| entry(path, table));
        let own: Vec<_> = own.filter(|entry| prefixes.insert(entry.prefix.clone())).collect();
        all.retain(|known| !prefixes.contains(&known.prefix));
        all.extend(own);
    }
    Ok(all)
}

fn entry(path: &str, table: &Table) -> Entry {
    let location = text::text(table, "location").unwrap_or_default();
    let prefix = text::text(table, "prefix").filter(|prefix| !prefix.is_empty()).unwrap_or(location);
    // As `parseLocation` in containers/image does.
    let prefix = prefix.trim_end_matches('/').to_owned();
    let only_digests = text::is_set(table, "mirror-by-digest-only");
    let mirrors = text::tables(table, "mirror").into_iter().map(|mirror| {
        let pulls = mirror.get("pull-from-mirror").and_then(Value::as_str);
        (mirror, only_digests || pulls == Some("digest-only"))
    });
    let mut places = Vec::new();
    for (place, is_by_digest) in mirrors.chain([(table, false)]) {
        let location = text::text(place, "location").unwrap_or(&prefix);
        let address = Address::parse(location.trim_end_matches('/'));
        // Without a scheme the port is what tells: TLS by default.
        places.push(Place { address, is_insecure: text::is_set(place, "insecure"), is_by_digest });
    }
    Entry { file: path.to_owned(), prefix, is_blocked: text::is_set(table, "blocked"), places }
}

/// The entry that counts for a source: the one with the longest prefix that covers it.
fn covering<'a>(entries: &'a [Entry], source: &str) -> Option<&'a Entry> {
    // The port of an address without one is not looked at (`refMatchingPrefix` in containers/image).
    let is_host = |entry: &Entry| source.strip_prefix(&entry.prefix).is_some_and(|rest| rest.starts_with(':'));
    let fits = entries.iter().filter(|entry| covers(&entry.prefix, source) || is_host(entry));
    fits.max_by_key(|entry| entry.prefix.len())
}

/// Pure: what is wrong with the files, as each release that may be here reads them. `reload` is what has to follow a change.
pub(super) fn judge(all: &[Files], expected: &Expected<'_>, reload: &str, found: &mut Examined) {
    let by_release = all.iter().map(|files| {
        let mut judged = Examined::new(found.part);
        by_one(files, expected, reload, &mut judged);
        (files.release, judged)
    });
    release::add(by_release.collect(), found);
    keep_blocks(found);
}

fn by_one(files: &Files, expected: &Expected<'_>, reload: &str, found: &mut Examined) {
    let is_foreign = |ours: &Text| ours.content.as_ref().is_ok_and(|content| !carries_marker(content));
    let fix = match files.ours.as_ref().is_some_and(is_foreign) {
        // client-config leaves a file alone that it did not write.
        true => expected.beside(OURS, Client::Podman, reload),
        false => expected.write(Client::Podman, reload),
    };
    of_system(files, expected, &fix, reload, found);
    of_signatures(files, expected, found);
    for (home, own) in &files.users {
        of_user(home, own, files.release, expected, found);
    }
    for addition in &files.additions {
        of_addition(addition, files, expected, found);
    }
}

/// The files that say where signatures are looked for.
fn of_signatures(files: &Files, expected: &Expected<'_>, found: &mut Examined) {
    let Some(wrong) = signatures::wrong(&files.signatures, files.release).into_iter().next() else { return };
    found.lead_all(expected.names(), Way::Nowhere);
    found.find(match wrong {
        Wrong::Refused { path, cause } => unreadable(&path, &cause, signatures::WHY),
        Wrong::Twice { path, other, entry } => Finding {
            registries: Vec::new(),
            code: Code::Conflict,
            file: Some(path.clone()),
            text: format!("it has an entry for {entry}, and so has {other}"),
            why: signatures::WHY.to_owned(),
            fix: take_out(&path, &entry),
        },
    });
}

fn of_system(files: &Files, expected: &Expected<'_>, fix: &Fix, reload: &str, found: &mut Examined) {
    let entries = match entries(&files.system, files.release) {
        Ok(entries) => entries,
        Err(finding) => {
            found.find(*finding);
            found.lead_all(expected.names(), Way::Nowhere);
            return;
        }
    };
    for route in expected.routes.iter() {
        of_route(route, &entries, files, expected, fix, found);
    }
    let other = official(&entries, expected);
    if let Some(entry) = other {
        let (way, finding) = of_official(entry, expected, "");
        if found.ways.get(DOCKER_HUB) != Some(&Way::Nowhere) {
            found.ways.insert(DOCKER_HUB.to_owned(), way);
        }
        found.find(finding);
    }
    for Blocking { entry, all_of } in blocking(&entries, expected) {
        for (registry, way) in &all_of {
            if found.ways.get(*registry) == Some(&Way::Proxy) {
                found.ways.insert((*registry).to_owned(), *way);
            }
        }
        found.find(of_blocking(entry, &all_of, ""));
    }
    for route in expected.routes.iter() {
        let (source, below) = (route.source.to_string(), format!("{}/", route.source));
        let is_routed = |entry: &&Entry| expected.routes.iter().any(|other| other.source.to_string() == entry.prefix);
        let more = entries.iter().filter(|entry| entry.prefix.starts_with(&below) && !is_routed(entry));
        let more = more.filter(|entry| other.is_none_or(|other| other.prefix != entry.prefix));
        for entry in more {
            let Entry { file, prefix, is_blocked, .. } = entry;
            if entry.names_proxy(expected) {
                let (_, findings) = judge_entry(entry, route.source.registry(), expected, fix);
                findings.into_iter().for_each(|finding| found.find(finding));
                continue;
            }
            if !is_blocked && expected.is_closed(route.source.registry()) {
                found.find(of_part(file, prefix, &source));
                continue;
            }
            let what =
                if *is_blocked { "every pull of these images is refused" } else { "these images do not come here" };
            found.notes.push(format!(
                "{file} has an entry for {prefix}, which counts there in place of that for {source}: {what}"
            ));
        }
    }
    for entry in entries.iter().filter(|entry| entry.names_proxy(expected)) {
        let registry = entry.prefix.split('/').next().unwrap_or_default();
        if !expected.registries.contains_key(registry) && !registry.starts_with("*.") && !is_proxys(registry, expected)
        {
            let fix = match entry.file == OURS {
                true if fix.by.is_some() => expected.prune(Client::Podman, reload),
                true => fix.clone(),
                false => edit(&entry.file, ""),
            };
            found.find(leftover(&entry.file, registry, fix));
        }
    }
}

/// The one file that a variable has podman read lacks an entry. `client-config` writes a drop-in, which would not be read.
fn of_alone(registry: &str, files: &Files) -> Finding {
    let (variable, file) = (files.alone.unwrap_or_default(), files.system.iter().map(|text| text.path.clone()).next());
    let shown = shell_word(file.as_deref().unwrap_or_default());
    Finding {
        registries: vec![registry.to_owned()],
        code: Code::Hidden,
        file,
        text: format!(
            "{variable} names it, so podman 6 reads it alone and no drop-in, and it has no entry for {REGISTRIES}"
        ),
        why: PAST.to_owned(),
        fix: by_hand(format!("unset {variable}  # where it is set; or put the entries of {OURS} into {shown}")),
    }
}

/// Where pulls of a route go, and what is wrong with the entry for them.
fn of_route(
    route: &Route<Destination>,
    entries: &[Entry],
    files: &Files,
    expected: &Expected<'_>,
    fix: &Fix,
    found: &mut Examined,
) {
    let (source, registry) = (route.source.to_string(), route.source.registry());
    let counts = covering(entries, &source);
    let (way, findings) = match counts {
        Some(entry) => match (judge_entry(entry, registry, expected, fix), failing(entry, registry, files, expected)) {
            ((Way::Proxy, mut findings), Some((way, finding))) => {
                findings.push(finding);
                (way, findings)
            }
            (judged, _) => judged,
        },
        None if files.alone.is_some() => (Way::Source, vec![of_alone(registry, files)]),
        None => {
            let absent =
                if files.ours.is_some() { "it has no entry for" } else { "it is not there, so there is no entry for" };
            let missing = Finding {
                registries: vec![registry.to_owned()],
                code: Code::NoMirror,
                file: Some(OURS.to_owned()),
                text: format!("{absent} {REGISTRIES}"),
                why: PAST.to_owned(),
                fix: fix.clone(),
            };
            (Way::Source, vec![missing])
        }
    };
    if let Some(place) = counts.and_then(|entry| entry.places.first()).filter(|_| way == Way::Proxy) {
        // With `insecure` no certificate is verified.
        found.asked.insert(registry.to_owned(), expected.url(&place.address, !place.is_insecure));
    }
    let has_entry = |content: &String| content.contains(&format!("prefix = \"{source}\""));
    let is_hidden = files.ours.as_ref().and_then(|ours| ours.content.as_ref().ok()).is_some_and(has_entry);
    let by_other = counts.filter(|entry| entry.file != OURS && !entry.is_blocked && !entry.names_proxy(expected));
    let in_its_place = files
        .in_its_place
        .as_ref()
        .filter(|path| way == Way::Source && counts.is_none_or(|entry| entry.file == **path));
    match (in_its_place, by_other.filter(|_| is_hidden)) {
        (Some(path), _) => found.find(Finding {
            registries: vec![registry.to_owned()],
            code: Code::Hidden,
            file: Some(path.clone()),
            text: format!("it is read in place of {OURS}, which has the same name"),
            why: PAST.to_owned(),
            fix: by_hand(aside(path)),
        }),
        (None, Some(entry)) => found.find(Finding {
            registries: vec![registry.to_owned()],
            code: Code::Hidden,
            file: Some(entry.file.clone()),
            text: format!("its entry for {} comes after that of {OURS}, and counts in its place", entry.prefix),
            why: PAST.to_owned(),
            fix: take_out(&entry.file, &entry.prefix),
        }),
        (None, None) => findings.into_iter().for_each(|finding| found.find(finding)),
    }
    if found.ways.get(registry).is_none_or(|known| *known == Way::Proxy) {
        found.ways.insert(registry.to_owned(), way);
    }
}

/// An entry takes a part of what this closed route is for elsewhere.
fn of_part(file: &str, prefix: &str, source: &str) -> Finding {
    Finding {
        registries: Vec::new(),
        code: Code::NotClosed,
        file: Some(file.to_owned()),
        text: format!(
            "its entry for {prefix} counts there in place of that for {source}, whose route is on_failure: closed"
        ),
        why: "these images come from elsewhere, and nobody is told".to_owned(),
        fix: take_out(file, prefix),
    }
}

/// An entry has to go.
fn take_out(file: &str, prefix: &str) -> Fix {
    edit(file, &format!("  # take the entry for {prefix} out"))
}

/// Whether an entry of this prefix counts for what is asked of the proxy itself.
fn is_proxys(prefix: &str, expected: &Expected<'_>) -> bool {
    !prefix.starts_with("*.") && expected.here.judge(&Address::parse(prefix)) == Verdict::Ours
}

/// Where pulls of a registry go by this entry, and what is wrong with it.
fn judge_entry(entry: &Entry, registry: &str, expected: &Expected<'_>, fix: &Fix) -> (Way, Vec<Finding>) {
    let Entry { file, prefix, is_blocked, places } = entry;
    let here = &expected.here;
    // Another file than client-config's is edited by hand.
    let fix = if file == OURS { fix.clone() } else { edit(file, "") };
    let finding = |code, text: String, why: String| Finding {
        code,
        file: Some(file.clone()),
        text,
        why,
        registries: vec![registry.to_owned()],
        fix: fix.clone(),
    };
    if *is_blocked {
        let text = format!("{prefix} has blocked = true");
        return (
            Way::Nowhere,
            vec![finding(Code::Blocked, text, format!("every pull of {registry} is refused on this host"))],
        );
    }
    let addresses: Vec<_> = places.iter().map(|place| place.address.clone()).collect();
    let list = List { file, key: &format!("the entry for {prefix}"), registry, is_there: true };
    let asked = order(here, &addresses);
    if let Some(finding) = misplaced(here, asked, &list, fix.clone()) {
        return (Way::Source, vec![finding]);
    }
    let Some(place) = places.first() else { return (Way::Source, Vec::new()) };
    let mut findings = Vec::new();
    let mut way = Way::Proxy;
    let without_first = entry.way_without_first();
    let past = if without_first == Way::Nowhere { FAIL } else { PAST };
    let path = place.address.path.trim_start_matches('/');
    let below = prefix.split_once('/').map_or("", |(_, below)| below);
    let is_right = path == prefix || path == below && expected.is_meant(registry, &place.address);
    if !is_right && !prefix.starts_with("*.") {
        let text =
            format!("{} does not end with /{prefix}, by which the proxy knows whose image is meant", place.address);
        findings.push(finding(
            Code::Path,
            text,
            format!("the proxy refuses these requests or takes them for another registry's: {past}"),
        ));
        way = without_first;
    }
    if here.is_plain(&place.address) && !place.is_insecure {
        let text = format!("{} has no insecure = true, and the proxy speaks plain HTTP there", place.address);
        findings.push(finding(Code::Insecure, text, format!("TLS with the proxy fails, and {past}")));
        way = without_first;
    }
    if place.is_by_digest {
        let text = "mirror-by-digest-only or pull-from-mirror keeps tags from the proxy".to_owned();
        findings.push(finding(Code::Capabilities, text, format!("of images that are named by a tag, {PAST}")));
        way = without_first;
    }
    let next = next_one(prefix, registry, &addresses, expected);
    findings.extend(next.map(|(code, text, why)| finding(code, text, why)));
    (way, findings)
}

/// Where pulls of a registry go by an entry that leads to the proxy, if a certificate for the proxy's address cannot be loaded.
fn failing(entry: &Entry, registry: &str, files: &Files, expected: &Expected<'_>) -> Option<(Way, Finding)> {
    let address = entry.places.first()?.address.to_string();
    let (file, wrong) = files.certificates.fault(address.split('/').next().unwrap_or_default())?;
    let why = format!("no request to the proxy is sent then: {PAST}; of a closed route every pull fails");
    let finding = Finding {
        registries: vec![registry.to_owned()],
        code: Code::Unreadable,
        file: Some(file.clone()),
        text: wrong.clone(),
        why,
        fix: by_hand(aside(file)),
    };
    Some((expected.way_without_proxy(registry), finding))
}

/// What is wrong with who is asked after the proxy, for these routes of the registry.
fn next_one(
    prefix: &str,
    registry: &str,
    addresses: &[Address],
    expected: &Expected<'_>,
) -> Option<(Code, String, String)> {
    let routed = expected.registries.get(registry).copied().unwrap_or_default();
    match addresses.iter().find(|address| expected.here.judge(address) != Verdict::Ours) {
        Some(other) if routed.closed && !routed.open => Some((
            Code::NotClosed,
            format!("after the proxy it names {other}, and the route is on_failure: closed"),
            format!("when a pull of {registry} fails at the proxy, podman goes to the source all the same"),
        )),
        None if !routed.closed => Some((
            Code::NoFallback,
            format!("the entry for {prefix} names nobody but the proxy, and the route is on_failure: fallback"),
            format!("while the proxy is down, pulls of {registry} fail that the source would answer"),
        )),
        _ => None,
    }
}
