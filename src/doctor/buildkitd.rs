//! BuildKit as a daemon of its own: `buildkitd.toml`, which it reads at its start.

use toml::Table;

use super::expected::{Expected, List, edit, leftover, misplaced, with_path};
use super::finding::{Code, Examined, Finding, Fix, PAST, Part, REGISTRIES, Way};
use super::forward_proxy;
use super::started::{self, Running, broken, not_loaded};
use crate::activation::Sockets;
use crate::client_config::address::{Address, Order, Verdict, order};
use crate::client_config::text;
use crate::client_config::{BUILDKITD_TOML, Client};
use crate::host::{self, Host, Text};
use crate::unit::Unit;

const SOCKET: &str = "/run/buildkit/buildkitd.sock";
const RESTART: &str = " && systemctl restart buildkit";

/// What was read of it.
pub(super) struct Facts {
    settings: Option<Text>,
    path: String,
    unit: Unit,
    running: Running,
    is_older: bool,
}

/// `None` where there is no buildkitd.
pub(super) async fn read(host: &Host, sockets: &Sockets) -> Option<Facts> {
    let running = Running::at(sockets, host.at(SOCKET)).await;
    if running.runs != Some(true) && !host.has_program(&["buildkitd"]) {
        return None;
    }
    let unit = running.unit(host, "buildkitd", "buildkit.service");
    let path = unit.flag("config").pop().unwrap_or_else(|| BUILDKITD_TOML.to_owned());
    let is_older = host::is_older(running.started(), host.changed(&path));
    Some(Facts { settings: host.read(&path), path, unit, running, is_older })
}

/// Pure: what is wrong with it.
pub(super) fn judge(facts: &Facts, expected: &Expected<'_>) -> Examined {
    let mut found = Examined::new(Part::Buildkitd);
    facts.running.tell("its file", &mut found);
    let file = facts.path.as_str();
    if !started::is_known(&facts.unit, &mut found) {
        return found;
    }
    let fix = if file == BUILDKITD_TOML { expected.write(Client::Buildkit, RESTART) } else { edit(file, RESTART) };
    let content = facts.settings.as_ref().map(|text| text.content.clone()).unwrap_or_else(|| Ok(String::new()));
    let table = match content.and_then(|content| text::toml(&content)) {
        Ok(table) => table,
        Err(wrong) => {
            broken(file, &wrong, facts.running.runs, expected, &mut found);
            return found;
        }
    };
    let registries = text::entries(&table, "registry");
    for name in expected.names() {
        let way = judge_registry(facts, &registries, name, &fix, expected, &mut found);
        found.ways.insert(name.to_owned(), way);
    }
    let asked = |name: &&str| found.ways.get(*name) == Some(&Way::Proxy);
    let closed: Vec<_> = expected.names().into_iter().filter(|name| expected.is_closed(name)).filter(asked).collect();
    found.never_close(&closed, "and buildkitd always asks the source when the proxy fails");
    let is_ours = |address: &Address| expected.here.judge(address) == Verdict::Ours;
    for (name, entry) in &registries {
        if !is_ours(&Address::parse(name))
            && !expected.registries.contains_key(*name)
            && mirrors(entry).iter().any(is_ours)
        {
            found.find(leftover(file, name, fix.clone()));
        }
    }
    if facts.running.runs == Some(true) && facts.is_older {
        found.find(not_loaded(
            Some(file),
            "the buildkitd that runs was started",
            "buildkitd reads it at its start only, so builds may go past the proxy",
            "systemctl restart buildkit",
        ));
    }
    forward_proxy::judge(&facts.unit, expected, &mut found);
    found
}

fn mirrors(entry: &Table) -> Vec<Address> {
    let mirrors = text::texts(entry, "mirrors").unwrap_or_default();
    mirrors.iter().map(|mirror| Address::parse(mirror)).collect()
}

/// Where pulls of a registry go by this file, and what is wrong with its mirrors.
fn judge_registry(
    facts: &Facts,
    registries: &[(&str, &Table)],
    name: &str,
    fix: &Fix,
    expected: &Expected<'_>,
    found: &mut Examined,
) -> Way {
    let (file, here) = (facts.path.as_str(), &expected.here);
    let entry = registries.iter().find(|(known, _)| *known == name);
    let all = entry.map_or_else(Vec::new, |(_, entry)| mirrors(entry));
    let key = format!("the list of mirrors of {REGISTRIES}");
    let list = List { file, key: &key, registry: name, is_there: facts.settings.is_some() };
    let asked = order(here, &all);
    let Order::First(ours) = asked else {
        let to_front = matches!(asked, Order::Behind(..));
        let fix = if to_front { edit(file, RESTART) } else { fix.clone() };
        misplaced(here, asked, &list, fix).into_iter().for_each(|finding| found.find(finding));
        return Way::Source;
    };
    let mut way = Way::Proxy;
    let said = registries.iter().find(|(known, _)| Address::parse(known).is_at(ours));
    let http = said.and_then(|(_, table)| table.get("http")?.as_bool());
    // It takes plain HTTP for granted at loopback addresses only.
    if here.is_plain(ours) && !http.unwrap_or(ours.is_loopback()) {
        found.find(Finding {
            registries: vec![name.to_owned()],
            code: Code::Insecure,
            file: Some(file.to_owned()),
            text: format!("[registry.\"{ours}\"] has no http = true, and the proxy speaks plain HTTP there"),
            why: format!("TLS with the proxy fails, and {PAST}"),
            fix: if http.is_some() { edit(file, RESTART) } else { fix.clone() },
        });
        way = Way::Source;
    }
    if ours.has_scheme() {
        let why = format!("buildkitd takes the scheme for a host, and {PAST}");
        found.find(with_path(ours, &list, false, why, fix.clone()));
        way = Way::Source;
    }
    way
}
