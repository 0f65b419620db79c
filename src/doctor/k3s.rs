//! k3s and RKE2, which make the `hosts.toml` of a containerd of their own out of `registries.yaml` when they start.

use serde_json::Value;

use super::expected::{Expected, List, by_hand, edit, leftover, misplaced, unreadable, with_path};
use super::finding::{Code, Examined, Finding, Fix, PAST, Part, REGISTRIES, Way};
use super::forward_proxy;
use super::started;
use crate::client_config::Client;
use crate::client_config::address::{Address, Order, Verdict, order};
use crate::config::takes_too_long;
use crate::host::{Host, Text};
use crate::unit::Unit;

/// One of the two.
struct Kind {
    part: Part,
    programs: &'static [&'static str],
    file: &'static str,
    /// What it makes of the file.
    generated: &'static str,
    services: [&'static str; 2],
}

/// By which the file of mirrors is another one.
const FLAG: &str = "private-registry";

const KINDS: [Kind; 2] = [
    Kind {
        part: Part::K3s,
        programs: &["k3s"],
        file: "/etc/rancher/k3s/registries.yaml",
        generated: "/var/lib/rancher/k3s/agent/etc/containerd",
        services: ["k3s", "k3s-agent"],
    },
    Kind {
        part: Part::Rke2,
        programs: &["rke2"],
        file: "/etc/rancher/rke2/registries.yaml",
        generated: "/var/lib/rancher/rke2/agent/etc/containerd",
        services: ["rke2-server", "rke2-agent"],
    },
];

/// What was read of one.
pub(super) struct Facts {
    kind: &'static Kind,
    /// The file of its mirrors.
    file: String,
    settings: Option<Text>,
    /// All that it has made, if it has ever run.
    generated: Option<String>,
    /// What has it read its file again.
    restart: String,
    unit: Unit,
}

/// Those that are here.
pub(super) fn read(host: &Host) -> Vec<Facts> {
    let facts = |kind: &'static Kind| {
        if !host.has_program(kind.programs) {
            return None;
        }
        let (service, restart) = service(host, kind);
        let certs = format!("{}/certs.d", kind.generated);
        let hosts = host
            .list(&certs)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|name| host.read(&format!("{certs}/{name}/hosts.toml")));
        // Before it knew hosts.toml, they were in this one.
        let config = host.read(&format!("{}/config.toml", kind.generated));
        let generated: Vec<_> = config.into_iter().chain(hosts).filter_map(|text| text.content.ok()).collect();
        let generated = (!generated.is_empty()).then(|| generated.join("\n"));
        let unit = Unit::read(host, &format!("{service}.service"));
        let file = file(host, kind, &unit);
        Some(Facts { kind, settings: host.read(&file), file, generated, restart, unit })
    };
    KINDS.iter().filter_map(facts).collect()
}

/// Where it reads its mirrors: by its flag, else by the same key of its configuration, of whose files the last by name wins.
fn file(host: &Host, kind: &Kind, unit: &Unit) -> String {
    let directory = kind.file.rsplit_once('/').map_or("", |(directory, _)| directory);
    let main = host.read(&format!("{directory}/config.yaml"));
    let files = main.into_iter().chain(host.read_all(&format!("{directory}/config.yaml.d"), ".yaml"));
    let mut by_file = files.filter_map(|text| {
        let content = text.content.ok().filter(|content| takes_too_long(content).is_none())?;
        serde_yaml::from_str::<Value>(&content).ok()?[FLAG].as_str().map(str::to_owned)
    });
    unit.flag(FLAG).pop().or_else(|| by_file.next_back()).unwrap_or_else(|| kind.file.to_owned())
}

/// The service of this node, and what restarts it. RKE2's archive has both units, and a start of either ends the other, so the
/// one that boots counts, and where none does, what runs is restarted.
fn service(host: &Host, kind: &'static Kind) -> (&'static str, String) {
    let boots = host.list("/etc/systemd/system/multi-user.target.wants").unwrap_or_default();
    let is_enabled = |name: &&str| boots.contains(&format!("{name}.service"));
    let has_unit = |name: &&str| host.has_unit(&format!("{name}.service"));
    let of = |is_it: &dyn Fn(&&str) -> bool| kind.services.into_iter().filter(is_it).collect::<Vec<_>>();
    match (of(&is_enabled).as_slice(), of(&has_unit).as_slice()) {
        ([name], _) | ([], [name]) => (name, format!("systemctl restart {name}")),
        ([], []) => (kind.services[0], format!("systemctl restart {}", kind.services[0])),
        _ => (kind.services[0], format!("systemctl try-restart {}", kind.services.join(" "))),
    }
}

/// Pure: what is wrong with one.
pub(super) fn judge(facts: &Facts, expected: &Expected<'_>) -> Examined {
    let mut found = Examined::new(facts.kind.part);
    if !started::is_known(&facts.unit, &mut found) {
        return found;
    }
    let file = facts.file.as_str();
    let restart = facts.restart.clone();
    let content = facts.settings.as_ref().map(|text| text.content.clone()).unwrap_or_else(|| Ok(String::new()));
    let parsed = content.and_then(|content| {
        if let Some(why) = takes_too_long(&content) {
            return Err(format!("it is not YAML: {why}"));
        }
        serde_yaml::from_str::<Value>(&content).map_err(|wrong| {
            let at = wrong.location().map(|at| format!(", line {}", at.line())).unwrap_or_default();
            format!("it is not YAML{at}")
        })
    });
    let settings = match parsed {
        Ok(settings) => settings,
        Err(wrong) => {
            found.find(unreadable(file, &wrong, &format!("{} does not start with it", facts.kind.part.name())));
            found.lead_all(expected.names(), Way::Nowhere);
            return found;
        }
    };
    let here = &expected.here;
    let endpoints = |name: &str| -> Vec<Address> {
        let all = settings["mirrors"][name]["endpoint"].as_array().into_iter().flatten();
        all.filter_map(Value::as_str).map(|url| Address::parse(url).or_tls(true)).collect()
    };
    let mut is_right = true;
    for name in expected.names() {
        let by_name = endpoints(name);
        let all = if settings["mirrors"][name].is_object() { by_name } else { endpoints("*") };
        let key = format!("the list of endpoints of {REGISTRIES}");
        let list = List { file, key: &key, registry: name };
        let asked = order(here, &all);
        let fix = by_settings(expected, facts, &restart);
        if let Order::First(ours) = asked {
            if !ours.is_bare() {
                let why = format!(
                    "requests go to another path than /v2/, which the proxy refuses, and then to the source of {name}"
                );
                found.find(with_path(ours, &list, why, fix.clone()));
            }
            let entry = if settings["mirrors"][name].is_object() { name } else { "*" };
            let rewrites = settings["mirrors"][entry]["rewrite"].as_object().is_some_and(|rules| !rules.is_empty());
            if rewrites {
                found.find(rewritten(
                    file,
                    name,
                    edit(file, &format!("  # take the rewrite of {entry} out; then: {restart}")),
                ));
            }
            found.ways.insert(name.to_owned(), if rewrites { Way::Source } else { Way::Proxy });
        } else {
            is_right = false;
            found.ways.insert(name.to_owned(), Way::Source);
        }
        let to_front = matches!(asked, Order::Behind(..));
        let fix = if to_front { edit(file, &format!(" && {restart}")) } else { fix };
        misplaced(here, asked, &list, fix).into_iter().for_each(|finding| found.find(finding));
    }
    for name in settings["mirrors"].as_object().into_iter().flat_map(serde_json::Map::keys) {
        let is_ours = endpoints(name).iter().any(|one| here.judge(one) == Verdict::Ours);
        if name != "*" && is_ours && !expected.registries.contains_key(name) {
            found.find(leftover(file, name, edit(file, &format!(" && {restart}"))));
        }
    }
    let authority = here.url.split_once("://").map_or(here.url.as_str(), |(_, authority)| authority);
    if is_right && facts.generated.as_ref().is_some_and(|generated| !generated.contains(authority)) {
        found.find(Finding {
            registries: Vec::new(),
            code: Code::NotLoaded,
            file: Some(file.to_owned()),
            text: format!(
                "it names the proxy, and what {} has made of it at its last start does not",
                facts.kind.part.name()
            ),
            why: "it is read at the start only, so pulls go past the proxy until the next one".to_owned(),
            fix: by_hand(restart),
        });
        found.ways.values_mut().for_each(|way| *way = Way::Source);
    }
    forward_proxy::judge(&facts.unit, expected, &mut found);
    found
}

/// Names are changed on the way to the proxy, which knows images by those that a pull has.
fn rewritten(file: &str, name: &str, fix: Fix) -> Finding {
    Finding {
        registries: vec![name.to_owned()],
        code: Code::Path,
        file: Some(file.to_owned()),
        text: format!("rewrite changes the names of images of {REGISTRIES} before the proxy is asked for them"),
        why: format!(
            "the proxy puts its prefix before a name that is another one already, and has no such image: {PAST}"
        ),
        fix,
    }
}

/// Puts the mirrors into the file.
fn by_settings(expected: &Expected<'_>, facts: &Facts, restart: &str) -> Fix {
    if facts.file != facts.kind.file {
        // client-config knows the usual place only.
        return edit(&facts.file, &format!(" && {restart}"));
    }
    let client = if facts.kind.part == Part::K3s { Client::K3s } else { Client::Rke2 };
    expected.write(client, &format!(" && {restart}"))
}
