//! Docker Hub, by `registry-mirrors` of `daemon.json` or by `--registry-mirror`, which are for no other registry.

use oci::route::DOCKER_HUB;
use serde_json::Value;

use super::{Facts, READS_HOSTS_TOML, RELOAD, former};
use crate::client_config::address::{Address, Here, Order, Verdict, order};
use crate::client_config::{Client, DAEMON_JSON};
use crate::doctor::expected::{Expected, List, by_hand, edit, leftover, misplaced, unreadable, with_path};
use crate::doctor::finding::{Code, Examined, Finding, Fix, PAST, Way};
use crate::doctor::{forward_proxy, hosts_toml};
use crate::unit::Unit;

/// Says what is wrong with the mirrors, and where pulls go by them.
pub(super) fn hub(facts: &Facts, settings: &Value, file: &str, expected: &Expected<'_>, found: &mut Examined) {
    let here = &expected.here;
    let in_file: Option<Vec<_>> = match &settings["registry-mirrors"] {
        Value::Null => None,
        Value::Array(mirrors) => Some(mirrors.iter().filter_map(Value::as_str).collect()),
        _ => {
            found.find(unreadable(file, "registry-mirrors is not a list of addresses", facts.why_unreadable()));
            found.ways.insert(DOCKER_HUB.to_owned(), facts.goes_on(expected));
            return;
        }
    };
    let flags = facts.unit.flag("registry-mirror");
    if in_file.is_some() && !flags.is_empty() {
        found.find(Finding {
            registries: Vec::new(),
            code: Code::Conflict,
            file: Some(file.to_owned()),
            text: "registry-mirrors is here, and --registry-mirror is among dockerd's flags".to_owned(),
            why: "dockerd takes a setting from one of the two, and does not start with both".to_owned(),
            fix: edit_flag(&facts.unit, "take --registry-mirror out", ""),
        });
    }
    // A file with mirrors beside a flag with mirrors is one that dockerd does not start with.
    let by_flag = (in_file.is_none() && !flags.is_empty()).then(|| facts.unit.file_of("registry-mirror"));
    let mirrors: Vec<_> =
        in_file.into_iter().flatten().chain(flags.iter().map(String::as_str)).map(Address::parse).collect();
    let set = Set { facts, file, by_flag: by_flag.as_deref(), url: &here.url };
    let list = set.list();
    let living = facts.living(here, mirrors.clone());
    former::find(&mirrors, &living, &list, here, |gone| set.taking_out(gone), found);
    // Its own hosts.toml goes before the mirrors of daemon.json.
    let by_hosts = expected.registries.contains_key(DOCKER_HUB) && leads_here_by_hosts_toml(facts, expected);
    for address in &living {
        if by_hosts && facts.starts_with(address) == Some(true) {
            continue;
        }
        if let Some(why) = why_refused(facts, here, address) {
            // What is there already stays where client-config adds to the file.
            found.find(with_path(address, &list, true, why, set.by_editing()));
        }
    }
    if !expected.registries.contains_key(DOCKER_HUB) {
        if living.iter().any(|address| here.judge(address) == Verdict::Ours) {
            found.find(leftover(list.file, DOCKER_HUB, set.by_editing()));
        }
        return;
    }
    let way = way(&set, settings, &living, by_hosts, expected, found);
    let first = living.first().filter(|first| here.judge(first) == Verdict::Ours);
    found.asked.extend(first.map(|first| (DOCKER_HUB.to_owned(), expected.url(first, first.has_tls()))));
    if expected.is_closed(DOCKER_HUB) && !by_hosts {
        found.never_close(&[DOCKER_HUB], "and dockerd's own mirrors always fall back");
    }
    let starts: Vec<_> = living.iter().map(|mirror| facts.starts_with(mirror)).collect();
    if starts.contains(&Some(false)) {
        found.ways.insert(DOCKER_HUB.to_owned(), Way::Nowhere);
    } else if !starts.contains(&None) {
        found.ways.insert(DOCKER_HUB.to_owned(), way);
    }
}

/// Where the mirrors are set.
struct Set<'a> {
    facts: &'a Facts,
    /// dockerd's file of settings.
    file: &'a str,
    /// A flag has them, in this file.
    by_flag: Option<&'a str>,
    /// The proxy's address.
    url: &'a str,
}

impl Set<'_> {
    fn list(&self) -> List<'_> {
        let (file, key) = self.by_flag.map_or((self.file, "registry-mirrors"), |file| (file, "--registry-mirror"));
        List { file, key, registry: DOCKER_HUB, is_there: self.by_flag.is_some() || self.facts.settings.is_some() }
    }

    /// Puts the proxy first. client-config knows no other file that --config-file may name, and adds to no list that is there twice.
    fn by_command(&self, expected: &Expected<'_>) -> Fix {
        match self.by_flag {
            None if self.file == DAEMON_JSON && !self.facts.has_two_lists() => expected.write(Client::Docker, RELOAD),
            _ => self.by_editing(),
        }
    }

    /// The same by an editor.
    fn by_editing(&self) -> Fix {
        let Self { facts, file, url, .. } = *self;
        let edited = |what: &str| edit(file, &format!("  # {what}; then: systemctl reload docker"));
        if self.by_flag.is_some() {
            edit_flag(&facts.unit, &format!("--registry-mirror={url} comes first"), "")
        } else if file != DAEMON_JSON {
            edited(&format!("put {url} first in registry-mirrors"))
        } else if facts.has_two_lists() {
            edited(&format!("leave one registry-mirrors, with {url} first"))
        } else {
            edit(file, RELOAD)
        }
    }

    /// Takes an address out that may have been the proxy's.
    fn taking_out(&self, gone: &Address) -> Fix {
        let url = self.url;
        let what = format!("if {gone} was the proxy's, take it out; if it is another registry's, put it behind {url}");
        match self.by_flag {
            Some(_) => edit_flag(&self.facts.unit, &what, ""),
            None => edit(self.file, &format!("  # {what}; then: systemctl reload docker")),
        }
    }
}

/// What comes of a mirror that dockerd does not take as it is written.
fn why_refused(facts: &Facts, here: &Here, mirror: &Address) -> Option<String> {
    match facts.starts_with(mirror) {
        Some(true) if mirror.is_bare() || here.judge(mirror) != Verdict::Ours => None,
        Some(true) => Some(format!("dockerd asks for a path that the proxy refuses, and {PAST}")),
        Some(false) => Some("dockerd does not start with such a mirror, nor reload".to_owned()),
        None => Some("dockerd before 24.0.8 does not start with such a mirror, nor reload; a later one asks for that path, which this proxy refuses".to_owned()),
    }
}

/// Whether dockerd's own `hosts.toml` leads to the proxy.
fn leads_here_by_hosts_toml(facts: &Facts, expected: &Expected<'_>) -> bool {
    facts.release().is_some_and(|release| release >= READS_HOSTS_TOML)
        && facts.has_containerds_store()
        && hosts_toml::of(&facts.certs, DOCKER_HUB)
            .is_some_and(|directory| hosts_toml::leads_here(expected, DOCKER_HUB, directory, facts.reader()))
}

/// Where pulls go by these mirrors, if dockerd starts with them. `by_hosts` is whether `hosts.toml` leads to the proxy anyway.
fn way(
    set: &Set<'_>,
    settings: &Value,
    mirrors: &[Address],
    by_hosts: bool,
    expected: &Expected<'_>,
    found: &mut Examined,
) -> Way {
    let (facts, list, here) = (set.facts, set.list(), &expected.here);
    let asked = order(here, mirrors);
    let fix = if matches!(asked, Order::Behind(..)) { set.by_editing() } else { set.by_command(expected) };
    if let Some(finding) = misplaced(here, asked, &list, fix).filter(|_| !by_hosts) {
        found.find(finding);
        return Way::Source;
    }
    let Some(ours) = mirrors.iter().find(|address| here.judge(address) == Verdict::Ours) else { return Way::Proxy };
    if !ours.is_bare() {
        return if by_hosts { Way::Proxy } else { Way::Source };
    }
    let unmeant = (!expected.is_meant(DOCKER_HUB, ours)).then(|| Finding {
        registries: vec![DOCKER_HUB.to_owned()],
        code: Code::Path,
        file: Some(list.file.to_owned()),
        text: format!("{} has {ours}, and a request there that names no registry is not for docker.io", list.key),
        why: format!(
            "dockerd cannot say that it means docker.io, so the proxy takes it for another registry or refuses: {PAST}"
        ),
        fix: set.by_command(expected),
    });
    let by_mirrors = [unmeant, not_loaded(facts, &list, ours, expected)].into_iter().flatten().filter(|_| !by_hosts);
    let wrong: Vec<_> = by_mirrors.chain(forward_proxy(facts, settings, ours, list.file, expected)).collect();
    let way = if wrong.is_empty() { Way::Proxy } else { Way::Source };
    wrong.into_iter().for_each(|finding| found.find(finding));
    way
}

/// A unit or a file of its variables gives the flag, and is edited.
pub(super) fn edit_flag(unit: &Unit, what: &str, then: &str) -> Fix {
    let (file, restart) = (&unit.file_of("registry-mirror"), unit.restart());
    let edited = format!("  # {what}; then: {then}{restart}");
    match unit.is_edited(file) {
        true => edit(file, &edited),
        // No file is known to have it, and its parent may tell.
        false if unit.is_script() => by_hand(format!("ps -o pid,ppid,args -C dockerd{edited}")),
        // systemd has it from elsewhere, or had it at the start.
        false if unit.is_by_process() => by_hand(format!(
            "systemctl cat docker && systemctl show-environment  # find what gives dockerd --registry-mirror. If nothing does any more: {restart}. Else: {what}; then: {then}{restart}"
        )),
        false => by_hand(format!("systemctl edit --full docker{edited}")),
    }
}

/// The file is right, and dockerd goes by an earlier one.
fn not_loaded(facts: &Facts, list: &List<'_>, ours: &Address, expected: &Expected<'_>) -> Option<Finding> {
    let loaded = facts.living(&expected.here, facts.loaded()?);
    if matches!(order(&expected.here, &loaded), Order::First(_)) {
        return None;
    }
    let has: Vec<_> = loaded.iter().map(ToString::to_string).collect();
    let has = if has.is_empty() { "no mirror".to_owned() } else { has.join(", ") };
    Some(Finding {
        registries: vec![DOCKER_HUB.to_owned()],
        code: Code::NotLoaded,
        file: Some(list.file.to_owned()),
        text: format!("it has {ours}, and the dockerd that runs has loaded {has}"),
        why: format!("until dockerd reads the file again, {PAST}"),
        // Flags count at a start only, and with a mirror among them dockerd refuses one of the file.
        fix: by_hand(if list.key.starts_with("--") || facts.has_old_flags {
            facts.unit.restart()
        } else {
            "systemctl reload docker".to_owned()
        }),
    })
}

/// By the unit's environment, or by `proxies` of `daemon.json`.
fn forward_proxy(
    facts: &Facts,
    settings: &Value,
    ours: &Address,
    file: &str,
    expected: &Expected<'_>,
) -> Option<Finding> {
    let proxies = &settings["proxies"];
    let key = if expected.here.is_plain(ours) { "http-proxy" } else { "https-proxy" };
    if !proxies[key].is_string() {
        return forward_proxy::of_unit(&facts.unit, expected, ours);
    }
    let exempt = proxies["no-proxy"].as_str().unwrap_or_default();
    if ours.is_loopback() || forward_proxy::is_exempt(exempt, ours) {
        return None;
    }
    Some(Finding {
        registries: vec![DOCKER_HUB.to_owned()],
        code: Code::ForwardProxy,
        file: Some(file.to_owned()),
        text: format!("proxies.{key} is set, and proxies.no-proxy does not have {}, where the proxy is", ours.host),
        why: format!("dockerd sends its requests for the proxy to that forward proxy, which cannot reach it: {PAST}"),
        fix: edit(file, " && systemctl restart docker"),
    })
}
