//! containerd as a kubelet or nerdctl uses it: `config.toml` says where `hosts.toml` are, which are read at each pull.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use super::ask;
use super::expected::{self, Expected, List, by_hand, leftover, misplaced};
use super::finding::{Code, Examined, Finding, Fix, PAST, Part, Way};
use super::forward_proxy;
use super::hosts_toml::{self, Directory, Reader};
use super::started::{self, Running, broken, not_loaded};
use crate::activation::Sockets;
use crate::client_config::address::{Order, order};
use crate::client_config::text;
use crate::client_config::{CONTAINERD_CERTS_D as CERTS_D, Client};
use crate::host::{self, Host, Text};
use crate::shell::shell_word;
use crate::unit::Unit;

mod enable;
mod settings;

use enable::not_enabled;
use settings::{FIRST, NEW, OLD, Settings};

const CONFIG: &str = "/etc/containerd/config.toml";
const UNIT: &str = "containerd.service";
const SOCKET: &str = "/run/containerd/containerd.sock";
const RESTART: &str = "systemctl restart containerd";
/// A file has a few imports.
const MAX_IMPORTS: usize = 64;

/// What was read of it.
pub(super) struct Facts {
    config: Option<Text>,
    imports: Vec<Text>,
    unit: Unit,
    /// Every directory with registries that a file names, or that client-config writes.
    certs: Vec<(String, Vec<Directory>)>,
    running: Running,
    /// When the one that runs was started, if that is known.
    pub(super) started: Option<SystemTime>,
    /// It was started before its settings were changed last.
    is_older: bool,
    version: Option<String>,
    /// dockerd is here, and nothing else that pulls through it.
    is_dockers: bool,
    /// nerdctl is here, which reads the files itself, and nothing that needs the CRI plugin.
    is_nerdctls: bool,
}

/// Its file of settings: the one that a flag of its unit names, or the usual one.
fn settings(host: &Host, unit: &Unit) -> Option<Text> {
    let path = ["config", "c"].iter().find_map(|name| unit.flag(name).pop()).unwrap_or_else(|| CONFIG.to_owned());
    host.read(&path)
}

/// Where it listens: as a flag says, or `[grpc]` of its settings.
pub(super) fn socket(host: &Host) -> io::Result<PathBuf> {
    let unit = Unit::read(host, UNIT);
    let by_flag = ["address", "a"].iter().find_map(|name| unit.flag(name).pop());
    let by_file = || address(settings(host, &unit).as_ref()?);
    host.at(&by_flag.or_else(by_file).unwrap_or_else(|| SOCKET.to_owned()))
}

fn address(config: &Text) -> Option<String> {
    let table = text::toml(config.content.as_ref().ok()?).ok()?;
    let address = text::text(text::table(&table, &["grpc"])?, "address")?;
    address.starts_with('/').then(|| address.to_owned())
}

impl Facts {
    /// The directories in which it looks for `hosts.toml`, as its settings say, in their order, and what is there.
    pub(super) fn hosts_tomls(&self) -> Vec<(&str, &[Directory])> {
        let set = Settings::of(self).ok().and_then(|settings| settings.path);
        let paths = set.as_deref().unwrap_or(CERTS_D).split(':').map(|path| path.trim_end_matches('/'));
        let found = paths.filter_map(|path| self.certs.iter().find(|(known, _)| known == path));
        found.map(|(path, all)| (path.as_str(), &all[..])).collect()
    }

    /// Nobody but dockerd uses it: it has no mirrors of its own, neither the proxy's nor another's.
    fn is_only_dockers(&self, settings: &Settings, is_ours: impl Fn(&Directory) -> bool) -> bool {
        let knows_the_proxy = || self.certs.iter().flat_map(|(_, all)| all).any(is_ours);
        self.is_dockers
            && (settings.cri_is_off || settings.path.is_none() && settings.mirrors.is_empty() && !knows_the_proxy())
    }
}

/// `None` where there is no containerd.
pub(super) async fn read(host: &Host, sockets: &Sockets, has_dockerd: bool) -> Option<Facts> {
    let running = Running::at(sockets, socket(host)).await;
    if running.runs != Some(true) && !host.has_program(&["containerd"]) {
        return None;
    }
    let unit = running.unit(host, "containerd", UNIT);
    let config = settings(host, &unit);
    let version = if host.is_this() { ask::program(&["containerd", "--version"]).await } else { None };
    let version = version.and_then(|said| Some(said.split_whitespace().nth(2)?.trim_start_matches('v').to_owned()));
    let is_first = version.as_ref().is_some_and(|version| version.starts_with("1."));
    let imports = config.as_ref().map(|config| imports(host, config, is_first)).unwrap_or_default();
    let started = running.started();
    let files = config.iter().chain(&imports);
    let changed = files.filter_map(|file| host.changed(&file.path)).max();
    let mut directories = vec![CERTS_D.to_owned()];
    let texts: Vec<_> = config.iter().chain(&imports).collect();
    directories
        .extend(texts.iter().flat_map(|text| text.content.as_ref().map_or(Vec::new(), |text| config_paths(text))));
    let mut known = std::collections::BTreeSet::new();
    directories.retain(|path| known.insert(path.clone()));
    let certs: Vec<_> = directories.into_iter().map(|path| (path.clone(), hosts_toml::read(host, &path))).collect();
    let is_dockers = has_dockerd && !host.has_program(&["kubelet", "nerdctl", "crictl"]);
    Some(Facts {
        started,
        is_older: host::is_older(started, changed),
        version,
        config,
        imports,
        unit,
        certs,
        running,
        is_dockers,
        is_nerdctls: host.has_program(&["nerdctl"]) && !host.has_program(&["kubelet", "crictl"]),
    })
}

/// Whether the containerd beside a dockerd is there for it alone. Of the proxy's files, those of client-config are known without
/// settings.
pub(super) async fn is_only_dockers(host: &Host) -> bool {
    let Some(facts) = read(host, &Sockets::look(host).await, true).await else { return true };
    Settings::of(&facts).is_ok_and(|settings| facts.is_only_dockers(&settings, |one| !hosts_toml::is_foreign(one)))
}

/// By which ctr, which reads no `config.toml`, pulls as a kubelet does. `None` where no flag does that.
pub(super) async fn ctr_flags(host: &Host) -> Option<Vec<String>> {
    let settings = Settings::of(&read(host, &Sockets::look(host).await, false).await?).ok()?;
    let path = settings.path.filter(|path| !path.contains(':'));
    settings.mirrors.is_empty().then(|| path.into_iter().flat_map(|path| ["--hosts-dir".to_owned(), path]).collect())
}

/// The files that it imports: paths, which may begin where the file is, with stars in their last part. Those with a star begin for
/// containerd 1 where it was started, which is `/` for a service.
fn imports(host: &Host, config: &Text, is_first: bool) -> Vec<Text> {
    let Ok(Ok(table)) = config.content.as_ref().map(|content| text::toml(content)) else { return Vec::new() };
    let beside = config.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let patterns = text::texts(&table, "imports").unwrap_or_default();
    let files = patterns.iter().flat_map(|pattern| {
        let pattern = match pattern.starts_with('/') {
            true => pattern.clone(),
            false if is_first && pattern.contains('*') => format!("/{pattern}"),
            false => format!("{beside}/{pattern}"),
        };
        match host.glob(&pattern) {
            Ok(paths) => paths.iter().filter_map(|path| host.read(path)).collect::<Vec<_>>(),
            Err((path, cause)) => vec![Text { path, content: Err(cause) }],
        }
    });
    files.take(MAX_IMPORTS).collect()
}

/// Wherever a file names directories.
fn config_paths(content: &str) -> Vec<String> {
    let Ok(table) = text::toml(content) else { return Vec::new() };
    let tables = [&NEW[..], &OLD, &FIRST].into_iter().filter_map(|way| text::table(&table, way));
    let found = tables.filter_map(|table| text::text(table, "config_path")).flat_map(|paths| paths.split(':'));
    found.filter(|path| path.starts_with('/')).map(|path| path.trim_end_matches('/').to_owned()).collect()
}

/// Pure: what is wrong with it.
pub(super) fn judge(facts: &Facts, expected: &Expected<'_>) -> Examined {
    let mut found = Examined::new(Part::Containerd);
    found.version.clone_from(&facts.version);
    facts.running.tell("its files", &mut found);
    if !started::is_known(&facts.unit, &mut found) {
        return found;
    }
    let file = facts.config.as_ref().map_or(CONFIG, |config| config.path.as_str());
    let settings = match Settings::of(facts) {
        Ok(settings) => settings,
        Err((path, wrong)) => {
            broken(&path, &wrong, facts.running.runs, expected, &mut found);
            return found;
        }
    };
    if facts.is_only_dockers(&settings, |one| hosts_toml::is_ours(&expected.here, one)) {
        found.notes.push("containerd is here for dockerd, which does not use its mirrors".to_owned());
        return found;
    }
    if settings.cri_is_off && !facts.is_nerdctls {
        found.find(Finding {
            registries: Vec::new(),
            code: Code::NotEnabled,
            file: Some(file.to_owned()),
            text: "disabled_plugins has the CRI plugin".to_owned(),
            why: "whoever asks containerd for images as a kubelet does gets no answer, so every pull fails".to_owned(),
            fix: expected::edit(file, &format!(" && {RESTART}")),
        });
        found.lead_all(expected.names(), Way::Nowhere);
        return found;
    }
    if settings.mirrors.is_empty() {
        by_files(facts, &settings, file, expected, &mut found);
    } else {
        by_mirrors(&settings, file, expected, &mut found);
    }
    if facts.running.runs == Some(true) && facts.is_older {
        found.find(not_loaded(
            Some(file),
            "the containerd that runs was started",
            "containerd reads it at its start only, so it may not look for hosts.toml where it says",
            RESTART,
        ));
    }
    forward_proxy::judge(&facts.unit, expected, &mut found);
    found
}

/// By the directory that `config_path` names.
fn by_files(facts: &Facts, settings: &Settings, file: &str, expected: &Expected<'_>, found: &mut Examined) {
    let empty = Vec::new();
    let of = |path: &str| facts.certs.iter().find(|(known, _)| known == path).map_or(&empty, |(_, all)| all);
    let ours_is_used = of(CERTS_D).iter().any(|one| hosts_toml::is_ours(&expected.here, one));
    let read_from = match not_enabled(facts, settings, file, ours_is_used) {
        Ok(path) => path,
        Err(finding) => {
            found.find(*finding);
            found.lead_all(expected.names(), Way::Source);
            // What is wrong with the files themselves is told, too, so that one look suffices.
            CERTS_D.to_owned()
        }
    };
    let directories = of(&read_from);
    let is_its_own = read_from != CERTS_D;
    let release = facts.version.as_deref().and_then(Reader::release);
    let reader = Reader { name: "containerd", is_dockerd: false, release };
    let write = if is_its_own {
        // What is there already stays as it is.
        let copy = format!(" && cp -Rn {CERTS_D}/. {}/", shell_word(&read_from));
        Fix { by: None, ..expected.write(Client::Containerd, &copy) }
    } else {
        expected.write(Client::Containerd, "")
    };
    let fix = |path: &str| if is_its_own { expected::edit(path, "") } else { write.clone() };
    for name in expected.names() {
        let way = match hosts_toml::of(directories, name) {
            Some(directory) => {
                let (way, findings) = hosts_toml::judge(expected, name, directory, reader, &fix(directory.path()));
                findings.into_iter().for_each(|finding| found.find(finding));
                if directory.is_denied() {
                    continue;
                }
                found.asked.extend(hosts_toml::url(expected, directory).map(|url| (name.to_owned(), url)));
                way
            }
            None => {
                found.find(misnamed(directories, name, expected, &write).unwrap_or_else(|| {
                    hosts_toml::missing(directories, &read_from, &expected.here, name, write.clone())
                }));
                Way::Source
            }
        };
        found.ways.entry(name.to_owned()).or_insert(way);
    }
    for directory in directories {
        let registry = hosts_toml::registry(&directory.name);
        let is_known = registry == "_default" || expected.registries.contains_key(registry.as_str());
        if !is_known && !is_hub_by_another_name(&registry) && hosts_toml::is_ours(&expected.here, directory) {
            let fix = if is_its_own || hosts_toml::is_foreign(directory) {
                by_hand(expected::aside(directory.path()))
            } else {
                expected.prune(Client::Containerd, "")
            };
            found.find(leftover(directory.path(), &registry, fix));
        }
    }
}

/// Whether it is a name of Docker Hub that no directory may have.
fn is_hub_by_another_name(registry: &str) -> bool {
    ["registry-1.docker.io", "index.docker.io", "registry.hub.docker.com", "hub.docker.com"].contains(&registry)
}

/// A directory whose name is Docker Hub's host and not its name.
fn misnamed(directories: &[Directory], registry: &str, expected: &Expected<'_>, fix: &Fix) -> Option<Finding> {
    if registry != oci::route::DOCKER_HUB {
        return None;
    }
    let is_it = |one: &&Directory| is_hub_by_another_name(&one.name) && hosts_toml::is_ours(&expected.here, one);
    let directory = directories.iter().find(is_it)?;
    Some(Finding {
        registries: vec![registry.to_owned()],
        code: Code::Directory,
        file: Some(directory.path().to_owned()),
        text: format!("its directory is {}, and containerd looks for docker.io", directory.name),
        why: PAST.to_owned(),
        fix: fix.clone(),
    })
}

/// By `registry.mirrors`, which releases before hosts.toml had, and which containerd 1 still reads.
fn by_mirrors(settings: &Settings, file: &str, expected: &Expected<'_>, found: &mut Examined) {
    if settings.path.is_some() {
        found.find(Finding {
            registries: Vec::new(),
            code: Code::Conflict,
            file: Some(file.to_owned()),
            text: "config_path and registry.mirrors are both set".to_owned(),
            why: "containerd does not start its CRI plugin with both, so the kubelet has no runtime".to_owned(),
            fix: expected::edit(file, &format!("  # take registry.mirrors and registry.configs out; then: {RESTART}")),
        });
        found.lead_all(expected.names(), Way::Nowhere);
        return;
    }
    let fix = expected::edit(file, &format!(" && {RESTART}"));
    for name in expected.names() {
        let endpoints =
            settings.mirrors.iter().find(|(known, _)| known == name || known == "*").map(|(_, all)| all.as_slice());
        let order = order(&expected.here, endpoints.unwrap_or_default());
        let list = List { file, key: &format!("registry.mirrors.{name:?}"), registry: name, is_there: true };
        let way = if matches!(order, Order::First(_)) { Way::Proxy } else { Way::Source };
        misplaced(&expected.here, order, &list, fix.clone()).into_iter().for_each(|finding| found.find(finding));
        found.ways.insert(name.to_owned(), way);
    }
    for (name, endpoints) in &settings.mirrors {
        let leads_here = matches!(order(&expected.here, endpoints), Order::First(_));
        if name != "*" && leads_here && !expected.registries.contains_key(name.as_str()) {
            found.find(leftover(file, name, fix.clone()));
        }
    }
}
