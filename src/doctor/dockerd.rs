//! dockerd: `daemon.json`, its flags, what it has loaded, and the `hosts.toml` that it reads since release 28.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use oci::members::Members;
use oci::route::DOCKER_HUB;
use serde_json::Value;

use super::ask;
use super::expected::{Expected, List, by_hand, misplaced, unreadable, without_mark};
use super::finding::{Examined, Part, Way};
use super::hosts_toml::{self, Directory, Reader};
use super::started;
use crate::activation::{Socket, Sockets};
use crate::client_config::address::{Address, Order, order};
use crate::client_config::text::MARK;
use crate::client_config::{self, DAEMON_JSON, DOCKER_CERTS_D as CERTS_D, unmarked};
use crate::host::{self, Host, Text};
use crate::unit::Unit;

mod former;
mod hub;
mod insecure;
mod others;
mod second;

pub(super) use second::rootless;

use hub::{edit_flag, hub};
use others::others;

const SOCKETS: [&str; 2] = ["/run/docker.sock", "/var/run/docker.sock"];
/// By which it takes another `daemon.json`.
const RELOAD: &str = " && systemctl reload docker";
/// The first release that reads `hosts.toml` for what client-config writes there.
const READS_HOSTS_TOML: u32 = 28;
/// A release that takes an empty `daemon.json` for none, where 20 does not start.
const TAKES_EMPTY: u32 = 28;

/// The first release that takes a file that begins with a byte order mark (moby's pull request 44777).
const TAKES_MARK: u32 = 23;
/// What is wrong with one for the others, and where the release is not known.
const MARKED: &str =
    "it begins with a byte order mark, which an editor does not show, and which dockerd takes since 23 only";

/// The first release that takes a mirror with a path (moby's pull request 46944).
const TAKES_PATH: [u32; 3] = [24, 0, 8];
/// How `dockerd --validate` begins to say why it does not start, before the path of the file.
const REFUSES: &str = "unable to configure the Docker daemon with file ";
/// What it says is quoted up to here.
const MAX_SAID: usize = 300;

/// For what a dockerd goes by `hosts.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    /// For pulls and builds.
    All,
    /// For builds; of one that does not run, no more is known.
    Builds,
    Nothing,
}

/// What was read of it.
#[derive(Default)]
pub(super) struct Facts {
    settings: Option<Text>,
    /// Why it does not start with them, as it says itself.
    refusal: Option<String>,
    /// What `dockerd --version` says, of one that could not be asked.
    installed: Option<String>,
    unit: Unit,
    certs: Vec<Directory>,
    runs: bool,
    /// When the one that runs was started, if that is known.
    pub(super) started: Option<SystemTime>,
    /// Why nobody has asked it, though systemd listens for it.
    stopped: Option<String>,
    /// The one that runs was started with other mirrors among its flags than its unit has by now, so it can only be started anew.
    has_old_flags: bool,
    /// This is the host that it was looked for on.
    is_this: bool,
    /// Why it could not be asked although it listens.
    silent: Option<String>,
    /// What `GET /info` says.
    info: Option<Value>,
    /// Mirrors of the file at which nobody listens.
    refusing: Vec<Address>,
    /// Other processes of the program, a sentence each.
    seconds: Vec<String>,
}

/// Where it listens, if it does.
pub(super) async fn socket(host: &Host, sockets: &Sockets) -> Option<PathBuf> {
    first(host, sockets, &all_sockets(host, &client_config::dockerd(host))).await
}

/// The first of these at which it listens itself.
async fn first(host: &Host, sockets: &Sockets, all: &[String]) -> Option<PathBuf> {
    let others: Vec<_> = all.iter().map(String::as_str).filter(|at| alone(host, sockets, at).is_none()).collect();
    ask::first_that_listens(host, &others).await
}

/// Where it may listen, the likeliest first.
fn all_sockets(host: &Host, unit: &Unit) -> Vec<String> {
    let settings = host.read(&client_config::dockerd_settings(unit)).and_then(|text| text.content.ok());
    let own = own_sockets(unit, settings.as_deref().unwrap_or_default());
    own.into_iter().chain(SOCKETS.map(str::to_owned)).collect()
}

/// systemd's socket at a path, in place of a dockerd that does not run.
fn alone<'a>(host: &Host, sockets: &'a Sockets, path: &str) -> Option<&'a Socket> {
    sockets.alone_at_path(&host.at(path).ok()?)
}

/// Its settings, as far as they can be read: what is wrong with them is told elsewhere.
fn parsed(settings: &str) -> Value {
    client_config::parse_daemon_json(settings).unwrap_or_default()
}

/// Unix sockets that flags or `hosts` of its settings name. Where they name others than the usual one, systemd may still listen at that for
/// a dockerd that does not take it.
fn own_sockets(unit: &Unit, settings: &str) -> Vec<String> {
    let settings = parsed(settings);
    let in_file = settings["hosts"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    let by_flag = ["host", "H"].into_iter().flat_map(|name| unit.flag(name));
    by_flag
        .chain(in_file)
        .filter_map(|at| at.strip_prefix("unix://").filter(|at| at.starts_with('/')).map(str::to_owned))
        .collect()
}

/// `None` where there is no dockerd.
pub(super) async fn read(host: &Host, sockets: &Sockets) -> Option<Facts> {
    let mut unit = client_config::dockerd(host);
    let all = all_sockets(host, &unit);
    let socket = first(host, sockets, &all).await;
    let stopped = all.iter().find_map(|at| alone(host, sockets, at)).filter(|_| socket.is_none());
    if socket.is_none() && stopped.is_none() && !host.has_program(&["dockerd"]) {
        return None;
    }
    let (mut info, mut silent, mut has_old_flags, mut main, mut started) = (None, None, false, None, None);
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
        // Of a socket that systemd has opened, this is no process.
        let pid = ask::listens(socket).await.ok().flatten().and_then(|listens| listens.pid);
        let of_this = || host::processes("dockerd").first().filter(|_| host.is_this()).map(|(pid, _)| *pid);
        started = pid.or_else(of_this).and_then(host::started);
        let command = pid.and_then(|pid| host::command_line(pid, "dockerd"));
        if let Some(command) = command.or_else(|| client_config::running_dockerd(host)) {
            main = Some(command.clone());
            client_config::believe(&mut unit, &command);
            has_old_flags = unit.differs_from(&command, "registry-mirror");
            if !has_old_flags {
                unit.runs_as(command);
            }
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
    let (runs, is_this) = (socket.is_some(), host.is_this());
    let refusing = if is_this { former::refusing(settings.as_ref(), sockets) } else { Vec::new() };
    let main = main.or_else(|| client_config::running_dockerd(host));
    let seconds = if is_this { second::find(main.as_deref(), runs) } else { Vec::new() };
    let stopped = stopped.map(Socket::note);
    Some(Facts {
        settings,
        refusal,
        installed,
        unit,
        certs,
        runs,
        started,
        stopped,
        has_old_flags,
        is_this,
        silent,
        info,
        refusing,
        seconds,
    })
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

    /// Of the one that runs, or would.
    fn release(&self) -> Option<u32> {
        self.version().or(self.installed.as_deref())?.split('.').next()?.parse().ok()
    }

    /// What comes of a file that it cannot read.
    fn why_unreadable(&self) -> &'static str {
        match self.loaded() {
            Some(_) => "dockerd goes on with what it has loaded, and does not reload, nor start again",
            None => "dockerd does not start with it, nor reload",
        }
    }

    /// Where its pulls of Docker Hub go while it runs beside such a file.
    fn goes_on(&self, expected: &Expected<'_>) -> Way {
        match self.loaded().map(|loaded| self.living(&expected.here, loaded)) {
            Some(loaded) if matches!(order(&expected.here, &loaded), Order::First(_)) => Way::Proxy,
            Some(_) => Way::Source,
            None => Way::Nowhere,
        }
    }

    /// The last list of the file counts.
    fn has_two_lists(&self) -> bool {
        let content = self.settings.as_ref().and_then(|text| text.content.as_ref().ok());
        let members = content.and_then(|content| serde_json::from_str::<Members<'_>>(unmarked(content)).ok());
        members.is_some_and(|Members(all)| all.iter().filter(|(key, _)| key == "registry-mirrors").count() > 1)
    }

    fn reader(&self) -> Reader<'_> {
        Reader { name: "dockerd", is_dockerd: true, release: self.version().and_then(Reader::release) }
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

    /// What it asks by `hosts.toml`, and what is in the directory of these.
    pub(super) fn hosts_tomls(&self) -> (Reads, &[Directory]) {
        let reads = match self.release() >= Some(READS_HOSTS_TOML) {
            true if self.has_containerds_store() => Reads::All,
            true => Reads::Builds,
            false => Reads::Nothing,
        };
        (reads, &self.certs)
    }

    /// The mirrors that it has loaded; `None` where it could not be asked. Since release 28 an empty list is null.
    fn loaded(&self) -> Option<Vec<Address>> {
        let registries = self.info.as_ref()?["RegistryConfig"].as_object()?;
        let mirrors = registries.get("Mirrors").and_then(Value::as_array).into_iter().flatten();
        Some(mirrors.filter_map(Value::as_str).map(Address::parse).collect())
    }
}

/// Pure: what is wrong with it. Of another one nothing is known.
pub(super) fn judge(facts: &Facts, expected: &Expected<'_>) -> Examined {
    let mut found = judge_service(facts, expected);
    found.is_blind |= !facts.seconds.is_empty();
    found
}

fn judge_service(facts: &Facts, expected: &Expected<'_>) -> Examined {
    let mut found = Examined::new(Part::Dockerd);
    found.version = facts.version().or(facts.installed.as_deref()).map(str::to_owned);
    found.runs = Some(facts.runs);
    found.is_silent = facts.silent.is_some();
    found.notes = facts.stopped.iter().chain(&facts.seconds).cloned().collect();
    if let Some(cause) = &facts.silent {
        found.notes.push(format!("dockerd does not tell what it has loaded: {cause}"));
    }
    if !started::is_known(&facts.unit, &mut found) {
        as_loaded(facts, expected, &mut found);
        return found;
    }
    let file = &client_config::dockerd_settings(&facts.unit);
    let is_nothing = |text: &str| unmarked(text).trim().is_empty() && facts.release() >= Some(TAKES_EMPTY);
    let parse = |text: String| match text.starts_with(MARK) {
        true if facts.release() < Some(TAKES_MARK) => Err(MARKED.to_owned()),
        _ if is_nothing(&text) => Ok(Value::Null),
        _ => client_config::parse_daemon_json(&text),
    };
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
            let mut finding = unreadable(file, &wrong, facts.why_unreadable());
            if wrong == MARKED {
                finding.fix = by_hand(without_mark(file));
            }
            found.find(finding);
            found.lead_all(vec![DOCKER_HUB], facts.goes_on(expected));
            return found;
        }
    };
    hub(facts, &settings, file, expected, &mut found);
    if let Some(refusal) = facts.refusal.as_ref().filter(|_| found.ways.get(DOCKER_HUB) != Some(&Way::Nowhere)) {
        let wrong = format!("dockerd --validate says: {refusal}");
        found.find(unreadable(file, &wrong, facts.why_unreadable()));
        found.ways.insert(DOCKER_HUB.to_owned(), Way::Nowhere);
    }
    if found.ways.get(DOCKER_HUB) == Some(&Way::Nowhere) {
        found.ways.insert(DOCKER_HUB.to_owned(), facts.goes_on(expected));
    }
    others(facts, expected, &mut found);
    if !facts.unit.flag("registry-mirror").is_empty() {
        // client-config writes mirrors into daemon.json, and with both dockerd does not start.
        for finding in found.findings.iter_mut().filter(|finding| finding.fix.by.is_some()) {
            let write = finding.fix.command.trim_end_matches(RELOAD);
            finding.fix = edit_flag(&facts.unit, "take --registry-mirror out", &format!("{write} && "));
        }
    }
    for finding in &mut found.findings {
        let Some(write) = finding.fix.command.strip_suffix(RELOAD) else { continue };
        if facts.is_this && !facts.runs {
            // There is nobody who could take it.
            finding.fix.command = write.to_owned();
        } else if facts.has_old_flags {
            // With a mirror among its flags it refuses one of the file.
            finding.fix.command = format!("{write} && {}", facts.unit.restart());
        }
    }
    found
}

/// By what it says itself that it has loaded, where it is not known which files and flags that is from. So nothing is written.
fn as_loaded(facts: &Facts, expected: &Expected<'_>, found: &mut Examined) {
    let Some(loaded) = facts.loaded().filter(|_| expected.registries.contains_key(DOCKER_HUB)) else { return };
    let file = &facts.unit.file_of("registry-mirror");
    let list = List { file, key: "the list of mirrors that dockerd has loaded", registry: DOCKER_HUB, is_there: true };
    let fix = edit_flag(&facts.unit, &format!("{} has to be dockerd's first mirror", expected.here.url), "");
    let wrong = misplaced(&expected.here, order(&expected.here, &loaded), &list, fix);
    found.ways.insert(DOCKER_HUB.to_owned(), if wrong.is_none() { Way::Proxy } else { Way::Source });
    wrong.into_iter().for_each(|finding| found.find(finding));
    let doubt = facts.unit.doubt().map(|doubt| format!("{doubt}: dockerd is judged by the mirrors that it has loaded"));
    found.notes = facts.stopped.iter().chain(&facts.seconds).cloned().chain(doubt).collect();
}
