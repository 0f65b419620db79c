//! dockerd: `daemon.json`, its flags, what it has loaded, and the `hosts.toml` that it reads since release 28.

use std::time::Duration;

use oci::route::DOCKER_HUB;
use serde_json::Value;

use super::ask;
use super::expected::{Expected, List, aside, by_hand, edit, leftover, misplaced, unreadable, with_path};
use super::finding::{Code, Examined, Finding, Fix, PAST, Part, REGISTRIES, Way, listed};
use super::forward_proxy;
use super::hosts_toml::{self, Directory};
use super::started;
use super::text;
use crate::client_config::address::{Address, Order, Verdict, order};
use crate::client_config::{self, Client, DAEMON_JSON};
use crate::host::{self, Host, Text};
use crate::unit::Unit;

const CERTS_D: &str = "/etc/docker/certs.d";
const SOCKETS: [&str; 2] = ["/run/docker.sock", "/var/run/docker.sock"];
/// By which it takes another `daemon.json`.
const RELOAD: &str = " && systemctl reload docker";
/// The first release that reads `hosts.toml` for what client-config writes there.
const READS_HOSTS_TOML: u32 = 28;
/// A release that takes an empty `daemon.json` for none, where 20 does not start.
const TAKES_EMPTY: u32 = 28;

/// The first release that takes a mirror with a path (moby's pull request 46944).
const TAKES_PATH: [u32; 3] = [24, 0, 8];
/// How `dockerd --validate` begins to say why it does not start, before the path of the file.
const REFUSES: &str = "unable to configure the Docker daemon with file ";
/// What it says is quoted up to here.
const MAX_SAID: usize = 300;

/// What was read of it.
pub(super) struct Facts {
    settings: Option<Text>,
    /// Why it does not start with them, as it says itself.
    refusal: Option<String>,
    /// What `dockerd --version` says, of one that could not be asked.
    installed: Option<String>,
    unit: Unit,
    certs: Vec<Directory>,
    runs: bool,
    /// Why it could not be asked although it listens.
    silent: Option<String>,
    /// What `GET /info` says.
    info: Option<Value>,
}

/// Where it listens, if it does.
pub(super) async fn socket(host: &Host) -> Option<std::path::PathBuf> {
    ask::first_that_listens(host, &SOCKETS).await
}

/// `None` where there is no dockerd.
pub(super) async fn read(host: &Host) -> Option<Facts> {
    let socket = socket(host).await;
    if socket.is_none() && !host.has_program(&["dockerd"]) {
        return None;
    }
    let mut unit = client_config::dockerd(host);
    let (mut info, mut silent) = (None, None);
    if let Some(socket) = &socket {
        match ask::get_unix(socket, "/info").await {
            Ok(answer) => info = answer.json().filter(|_| answer.status == 200),
            Err(cause) if cause.kind() == std::io::ErrorKind::PermissionDenied => {
                silent = Some(format!("{}: run doctor as root", cause.to_string().to_lowercase()));
            }
            // systemd may listen for one that does not start.
            Err(cause) => {
                let cause = cause.to_string().to_lowercase();
                silent = Some(format!("{cause}: whether it starts, tells systemctl status --no-pager docker"));
            }
        }
        let pid = ask::listens(socket).await.ok().flatten().and_then(|listens| listens.pid);
        if let Some(command) = pid.and_then(|pid| host::command_line(pid, "dockerd")) {
            unit.runs_as(command);
        }
    }
    let path = client_config::dockerd_settings(&unit);
    let certs = hosts_toml::read(host, CERTS_D);
    let settings = host.read(&path);
    let can_run = host.is_this() && host.has_program(&["dockerd"]);
    let is_read = settings.as_ref().is_some_and(|settings| settings.content.is_ok());
    let refusal = if can_run && is_read { refusal(&path).await } else { None };
    let installed = if can_run && info.is_none() { ask::program(&["dockerd", "--version"]).await } else { None };
    let installed =
        installed.and_then(|said| Some(said.strip_prefix("Docker version ")?.split(',').next()?.to_owned()));
    Some(Facts { settings, refusal, installed, unit, certs, runs: socket.is_some(), silent, info })
}

/// What dockerd has against a file, which it only looks at. One before release 23 cannot be asked.
async fn refusal(path: &str) -> Option<String> {
    const LIMIT: Duration = Duration::from_secs(5);
    let (succeeds, _, said) = ask::run(&["dockerd", "--validate", "--config-file", path], LIMIT).await.ok()?;
    let said = said.lines().find_map(|line| line.strip_prefix(REFUSES)?.strip_prefix(path)?.strip_prefix(": "))?;
    (!succeeds).then(|| said.chars().take(MAX_SAID).collect())
}

impl Facts {
    fn version(&self) -> Option<&str> {
        self.info.as_ref()?["ServerVersion"].as_str()
    }

    fn release(&self) -> Option<u32> {
        self.version()?.split('.').next()?.parse().ok()
    }

    /// Whether it starts with a mirror that has a path; `None` where its release is not known.
    fn takes_path(&self) -> Option<bool> {
        let version = self.version().or(self.installed.as_deref())?;
        let numbers = version.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
        Some(numbers.take(3).collect::<Vec<u32>>().as_slice() >= TAKES_PATH.as_slice())
    }

    /// Whether it starts with this mirror; `None` where that is a matter of its release, which is not known.
    fn starts_with(&self, mirror: &Address) -> Option<bool> {
        if !mirror.has_scheme() || mirror.has_user() || mirror.path.contains(['?', '#']) {
            return Some(false);
        }
        if mirror.is_bare() { Some(true) } else { self.takes_path() }
    }

    fn has_containerds_store(&self) -> bool {
        let status = self.info.as_ref().and_then(|info| info["DriverStatus"].as_array());
        let is_it = |pair: &Value| pair[1].as_str() == Some("io.containerd.snapshotter.v1");
        status.is_some_and(|pairs| pairs.iter().any(is_it))
    }

    /// The mirrors that it has loaded; `None` where it could not be asked. Since release 28 an empty list is null.
    fn loaded(&self) -> Option<Vec<Address>> {
        let registries = self.info.as_ref()?["RegistryConfig"].as_object()?;
        let mirrors = registries.get("Mirrors").and_then(Value::as_array).into_iter().flatten();
        Some(mirrors.filter_map(Value::as_str).map(Address::parse).collect())
    }
}

/// Pure: what is wrong with it.
pub(super) fn judge(facts: &Facts, expected: &Expected<'_>) -> Examined {
    let mut found = Examined::new(Part::Dockerd);
    found.version = facts.version().or(facts.installed.as_deref()).map(str::to_owned);
    found.runs = Some(facts.runs);
    if let Some(cause) = &facts.silent {
        found.notes.push(format!("dockerd does not tell what it has loaded: {cause}"));
    }
    if !started::is_known(&facts.unit, &mut found) {
        return found;
    }
    let file = &client_config::dockerd_settings(&facts.unit);
    let is_nothing = |text: &str| text.trim().is_empty() && facts.release() >= Some(TAKES_EMPTY);
    let parse = |text: String| if is_nothing(&text) { Ok(Value::Null) } else { text::json(&text) };
    let settings = match facts.settings.as_ref().map(|text| text.content.clone().and_then(parse)) {
        None if file != DAEMON_JSON => {
            let wrong = "--config-file names it, and it is not there";
            found.find(unreadable(file, wrong, "dockerd does not start without it"));
            found.lead_all(vec![DOCKER_HUB], Way::Nowhere);
            return found;
        }
        None => Value::Null,
        Some(Ok(settings)) => settings,
        Some(Err(wrong)) => {
            found.find(unreadable(file, &wrong, "dockerd does not start with it, nor reload"));
            found.lead_all(vec![DOCKER_HUB], Way::Nowhere);
            return found;
        }
    };
    hub(facts, &settings, file, expected, &mut found);
    if let Some(refusal) = facts.refusal.as_ref().filter(|_| found.ways.get(DOCKER_HUB) != Some(&Way::Nowhere)) {
        let wrong = format!("dockerd --validate says: {refusal}");
        found.find(unreadable(file, &wrong, "dockerd does not start with it, nor reload"));
        found.ways.insert(DOCKER_HUB.to_owned(), Way::Nowhere);
    }
    others(facts, expected, &mut found);
    if !facts.unit.flag("registry-mirror").is_empty() {
        // client-config writes mirrors into daemon.json, and with both dockerd does not start.
        for finding in found.findings.iter_mut().filter(|finding| finding.fix.by.is_some()) {
            let write = finding.fix.command.trim_end_matches(RELOAD);
            finding.fix = edit_flag(&facts.unit, "take --registry-mirror out", &format!("{write} && "));
        }
    }
    found
}

/// `registry-mirrors`, which are for Docker Hub only.
fn hub(facts: &Facts, settings: &Value, file: &str, expected: &Expected<'_>, found: &mut Examined) {
    let here = &expected.here;
    let in_file =
        settings["registry-mirrors"].as_array().map(|mirrors| mirrors.iter().filter_map(Value::as_str).collect());
    let in_file: Option<Vec<_>> = in_file;
    if in_file.is_none() && !settings["registry-mirrors"].is_null() {
        let why = "dockerd does not start with it, nor reload";
        found.find(unreadable(file, "registry-mirrors is not a list of addresses", why));
        found.ways.insert(DOCKER_HUB.to_owned(), Way::Nowhere);
        return;
    }
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
    let mirrors: Vec<_> =
        in_file.iter().flatten().copied().chain(flags.iter().map(String::as_str)).map(Address::parse).collect();
    // A file with mirrors beside a flag with mirrors is one that dockerd does not start with.
    let by_flag = in_file.is_none() && !flags.is_empty();
    let by_editing = || {
        if by_flag {
            edit_flag(&facts.unit, &format!("--registry-mirror={} comes first", here.url), "")
        } else if file == DAEMON_JSON {
            edit(file, RELOAD)
        } else {
            edit(file, &format!("  # put {} first in registry-mirrors; then: systemctl reload docker", here.url))
        }
    };
    // client-config knows no other file that --config-file may name.
    let by_command = !by_flag && file == DAEMON_JSON;
    let fix = if by_command { expected.write(Client::Docker, RELOAD) } else { by_editing() };
    let (file, key) = match by_flag {
        true => (facts.unit.file_of("registry-mirror"), "--registry-mirror"),
        false => (file, "registry-mirrors"),
    };
    let list = List { file, key, registry: DOCKER_HUB };
    let is_ours = |address: &&Address| here.judge(address) == Verdict::Ours;
    for address in &mirrors {
        let why = match facts.starts_with(address) {
            Some(true) if address.is_bare() || !is_ours(&address) => continue,
            Some(true) => format!("dockerd asks for a path that the proxy refuses, and {PAST}"),
            Some(false) => "dockerd does not start with such a mirror, nor reload".to_owned(),
            None => "dockerd before 24.0.8 does not start with such a mirror, nor reload; a later one asks for that path, which this proxy refuses".to_owned(),
        };
        // What is there already stays where client-config adds to the file.
        found.find(with_path(address, &list, true, why, by_editing()));
    }
    let ours = mirrors.iter().find(is_ours);
    let is_routed = expected.registries.contains_key(DOCKER_HUB);
    if !is_routed {
        if ours.is_some() {
            found.find(leftover(file, DOCKER_HUB, by_editing()));
        }
        return;
    }
    let by_hosts = facts.release().is_some_and(|release| release >= READS_HOSTS_TOML)
        && facts.has_containerds_store()
        && hosts_toml::of(&facts.certs, DOCKER_HUB).is_some_and(|directory| hosts_toml::leads_here(here, directory));
    let asked = order(here, &mirrors);
    let to_front = matches!(asked, Order::Behind(..));
    let wrong = misplaced(here, asked, &list, if to_front { by_editing() } else { fix.clone() });
    let mut way = if wrong.is_none() || by_hosts { Way::Proxy } else { Way::Source };
    // Its own hosts.toml goes before the mirrors of daemon.json.
    if let Some(finding) = wrong.filter(|_| !by_hosts) {
        found.find(finding);
    } else if ours.is_some_and(|ours| !ours.is_bare()) {
        way = Way::Source;
    } else if let Some(ours) = ours {
        if !by_hosts && !expected.is_meant(DOCKER_HUB, ours) {
            found.find(Finding { registries: vec![DOCKER_HUB.to_owned()],
                code: Code::Path,
                file: Some(file.to_owned()),
                text: format!("{key} has {ours}, and a request there that names no registry is not for docker.io"),
                why: format!("dockerd cannot say that it means docker.io, so the proxy takes it for another registry or refuses: {PAST}"),
                fix: fix.clone(),
            });
            way = Way::Source;
        }
        if let Some(finding) = not_loaded(facts, &list, ours, expected).filter(|_| !by_hosts) {
            found.find(finding);
            way = Way::Source;
        }
        if let Some(finding) = forward_proxy(facts, settings, ours, file, expected) {
            found.find(finding);
            way = Way::Source;
        }
    }
    let is_closed = expected.registries.get(DOCKER_HUB).is_some_and(|routed| routed.closed);
    if is_closed && !by_hosts {
        found.notes.push(
            "docker.io is closed, and dockerd's own mirrors always fall back: reject registry-1.docker.io in the firewall"
                .to_owned(),
        );
    }
    let starts: Vec<_> = mirrors.iter().map(|mirror| facts.starts_with(mirror)).collect();
    if starts.contains(&Some(false)) {
        way = Way::Nowhere;
    }
    if way == Way::Nowhere || !starts.contains(&None) {
        found.ways.insert(DOCKER_HUB.to_owned(), way);
    }
}

/// A unit or a file of its variables gives the flag, and is edited.
fn edit_flag(unit: &Unit, what: &str, then: &str) -> Fix {
    let file = unit.file_of("registry-mirror");
    // A package replaces its own units.
    let then = format!("  # {what}; then: {then}{}", unit.restart());
    match file.starts_with("/etc/") {
        true => edit(file, &then),
        false => by_hand(format!("systemctl edit --full docker{then}")),
    }
}

/// The file is right, and dockerd goes by an earlier one.
fn not_loaded(facts: &Facts, list: &List<'_>, ours: &Address, expected: &Expected<'_>) -> Option<Finding> {
    let loaded = facts.loaded()?;
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
        // Flags count at a start only.
        fix: by_hand(if list.key.starts_with("--") { "systemctl restart docker" } else { "systemctl reload docker" }),
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

/// Other registries, by `hosts.toml`.
fn others(facts: &Facts, expected: &Expected<'_>, found: &mut Examined) {
    let reads = facts.release().map(|release| release >= READS_HOSTS_TOML && facts.has_containerds_store());
    let fix = expected.write(Client::Docker, "");
    let mut past = Vec::new();
    for name in expected.names() {
        let directory = hosts_toml::of(&facts.certs, name);
        match (reads, directory) {
            // With daemon.json alone it pulls through the proxy as well.
            (Some(true), None) if name == DOCKER_HUB => {}
            (Some(true), Some(directory)) => {
                let findings = hosts_toml::judge(expected, name, directory, "dockerd", &fix);
                if !findings.is_empty() && !hosts_toml::leads_here(&expected.here, directory) {
                    found.ways.insert(name.to_owned(), Way::Source);
                }
                findings.into_iter().for_each(|finding| found.find(finding));
                if directory.is_denied() {
                    found.ways.remove(name);
                    continue;
                }
                found.ways.entry(name.to_owned()).or_insert(Way::Proxy);
            }
            (Some(true), None) => {
                found.find(missing(CERTS_D, name, fix.clone()));
                found.ways.insert(name.to_owned(), Way::Source);
            }
            _ if name == DOCKER_HUB => {}
            (Some(false), _) => {
                found.ways.insert(name.to_owned(), Way::Source);
                past.push(name);
            }
            (None, _) => {}
        }
    }
    if !past.is_empty() {
        found.notes.push(format!(
            "this dockerd has mirrors of docker.io alone: what it pulls of {} comes from the source",
            listed(&past)
        ));
    }
    for directory in &facts.certs {
        let registry = hosts_toml::registry(&directory.name);
        if registry != "_default"
            && !expected.registries.contains_key(&registry)
            && hosts_toml::is_ours(&expected.here, directory)
        {
            let fix = if hosts_toml::is_foreign(directory) {
                by_hand(aside(directory.path()))
            } else {
                expected.prune(Client::Docker, "")
            };
            found.find(leftover(directory.path(), &registry, fix));
        }
    }
}

/// A `hosts.toml` that is not there.
pub(super) fn missing(certs: &str, registry: &str, fix: Fix) -> Finding {
    let finding = Finding {
        code: Code::NoMirror,
        file: Some(certs.to_owned()),
        text: format!("there is no hosts.toml for {REGISTRIES}"),
        why: PAST.to_owned(),
        registries: Vec::new(),
        fix,
    };
    finding.of(registry)
}
