//! containerd as a kubelet or nerdctl uses it: `config.toml` says where `hosts.toml` are, which are read at each pull.

use std::io;
use std::path::PathBuf;

use toml::Table;

use super::ask;
use super::dockerd::missing;
use super::expected::{self, Expected, List, by_hand, leftover, misplaced, shell_word, unreadable};
use super::finding::{Code, Examined, Finding, Fix, PAST, Part, Way};
use super::forward_proxy;
use super::hosts_toml::{self, Directory};
use super::started;
use super::text;
use crate::client_config::Client;
use crate::client_config::address::{Address, Order, order};
use crate::host::{self, Host, Text};
use crate::unit::Unit;

mod enable;

use enable::not_enabled;

const CONFIG: &str = "/etc/containerd/config.toml";
const SOCKET: &str = "/run/containerd/containerd.sock";
/// Where client-config writes.
const CERTS_D: &str = "/etc/containerd/certs.d";
/// The table of the mirrors, by the version of the file: from 3 on, of 2, and before.
const NEW: [&str; 3] = ["plugins", "io.containerd.cri.v1.images", "registry"];
const OLD: [&str; 3] = ["plugins", "io.containerd.grpc.v1.cri", "registry"];
const FIRST: [&str; 3] = ["plugins", "cri", "registry"];
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
    runs: bool,
    /// It was started before its settings were changed last.
    is_older: bool,
    version: Option<String>,
    /// dockerd is here, and nothing else that pulls through it.
    is_dockers: bool,
}

/// Where it listens.
pub(super) fn socket(host: &Host) -> io::Result<PathBuf> {
    host.at(SOCKET)
}

/// `None` where there is no containerd.
pub(super) async fn read(host: &Host, has_dockerd: bool) -> Option<Facts> {
    let listens = ask::listens_at(socket(host)).await;
    let runs = !matches!(listens, Ok(None));
    if !runs && !host.has_program(&["containerd"]) {
        return None;
    }
    let mut unit = Unit::read(host, "containerd.service");
    let pid = listens.ok().flatten().and_then(|listens| listens.pid);
    if let Some(command) = pid.and_then(|pid| host::command_line(pid, "containerd")) {
        unit.runs_as(command);
    }
    let path = ["config", "c"].iter().find_map(|name| unit.flag(name).pop()).unwrap_or_else(|| CONFIG.to_owned());
    let config = host.read(&path);
    let imports = config.as_ref().map(|config| imports(host, config)).unwrap_or_default();
    let started = pid.and_then(host::started);
    let files = config.iter().chain(&imports);
    let changed = files.filter_map(|file| host.changed(&file.path)).max();
    let mut directories = vec![CERTS_D.to_owned()];
    let texts: Vec<_> = config.iter().chain(&imports).collect();
    directories
        .extend(texts.iter().flat_map(|text| text.content.as_ref().map_or(Vec::new(), |text| config_paths(text))));
    let mut known = std::collections::BTreeSet::new();
    directories.retain(|path| known.insert(path.clone()));
    let certs: Vec<_> = directories.into_iter().map(|path| (path.clone(), hosts_toml::read(host, &path))).collect();
    let version = if host.is_this() { ask::program(&["containerd", "--version"]).await } else { None };
    let is_dockers = has_dockerd && !host.has_program(&["kubelet", "nerdctl", "crictl"]);
    Some(Facts {
        is_older: host::is_older(started, changed),
        version: version.and_then(|said| Some(said.split_whitespace().nth(2)?.trim_start_matches('v').to_owned())),
        config,
        imports,
        unit,
        certs,
        runs,
        is_dockers,
    })
}

/// By which ctr, which reads no `config.toml`, pulls as a kubelet does. `None` where no flag does that.
pub(super) async fn ctr_flags(host: &Host) -> Option<Vec<String>> {
    let settings = Settings::of(&read(host, false).await?).ok()?;
    let path = settings.path.filter(|path| !path.contains(':'));
    settings.mirrors.is_empty().then(|| path.into_iter().flat_map(|path| ["--hosts-dir".to_owned(), path]).collect())
}

/// The files that it imports: paths, which may begin where the file is, with stars in their last part.
fn imports(host: &Host, config: &Text) -> Vec<Text> {
    let Ok(Ok(table)) = config.content.as_ref().map(|content| text::toml(content)) else { return Vec::new() };
    let beside = config.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let patterns = text::texts(&table, "imports").unwrap_or_default();
    let files = patterns.iter().flat_map(|pattern| {
        let pattern = if pattern.starts_with('/') { pattern.clone() } else { format!("{beside}/{pattern}") };
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

/// What the settings say together.
#[derive(Default)]
struct Settings {
    /// That of containerd, where it is known; the file's version tells else.
    release: Option<u32>,
    version: i64,
    /// Of the table that counts, and of one that does not.
    path: Option<String>,
    ignored: Option<&'static str>,
    /// The mirrors of `docker.io` and so on, as they were set before `hosts.toml`.
    mirrors: Vec<(String, Vec<Address>)>,
    cri_is_off: bool,
}

impl Settings {
    /// The error is about a file, which it names first.
    fn of(facts: &Facts) -> Result<Self, (String, String)> {
        Self::with(facts, None)
    }

    /// The same if one file, by its path, had this content.
    fn with(facts: &Facts, other: Option<(&str, &str)>) -> Result<Self, (String, String)> {
        let release = facts.version.as_ref().and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        let mut settings = Self { release, ..Self::default() };
        let config = facts.config.iter().map(|text| (true, text));
        for (is_main, text) in config.chain(facts.imports.iter().map(|text| (false, text))) {
            let content = match other.filter(|(path, _)| *path == text.path) {
                Some((_, content)) => Ok(content.to_owned()),
                None => text.content.clone(),
            };
            let table = content.and_then(|content| text::toml(&content));
            let table = table.map_err(|wrong| (text.path.clone(), wrong))?;
            if is_main {
                // containerd 2 takes a file that names none for one of the newest.
                let unnamed = if settings.release >= Some(2) { 3 } else { 1 };
                settings.version = table.get("version").and_then(toml::Value::as_integer).unwrap_or(unnamed);
            }
            settings.take(&table);
        }
        if let (Some(1), Some(path)) = (release, &settings.path) {
            // containerd 1 looks into each of several directories, and 2 into none of them.
            let has_files = |path: &&str| facts.certs.iter().any(|(known, all)| known == path && !all.is_empty());
            let one = path.split(':').find(has_files).or(path.split(':').next());
            settings.path = one.map(str::to_owned);
        }
        Ok(settings)
    }

    /// The table that counts, as it is written.
    fn section(&self) -> &'static str {
        match (self.release, self.version) {
            (Some(1), _) | (_, ..=2) => r#"[plugins."io.containerd.grpc.v1.cri".registry]"#,
            _ => r#"[plugins."io.containerd.cri.v1.images".registry]"#,
        }
    }

    fn take(&mut self, table: &Table) {
        let off = text::texts(table, "disabled_plugins").unwrap_or_default();
        self.cri_is_off |= off
            .iter()
            .any(|name| matches!(name.as_str(), "cri" | "io.containerd.grpc.v1.cri" | "io.containerd.cri.v1.images"));
        let version = table.get("version").and_then(toml::Value::as_integer).unwrap_or(self.version);
        let counts: &[_] = match (self.release, version) {
            // It takes files of versions that came after it, and knows its own tables.
            (Some(1), 2..) => &[OLD],
            (_, 3..) => &[NEW],
            // containerd 2 moves what is in the old table to the new one, and leaves what is there.
            (Some(2..), 2) => &[OLD, NEW],
            (_, 2) => &[OLD],
            _ => &[FIRST],
        };
        for (way, shown) in [
            (NEW, r#"[plugins."io.containerd.cri.v1.images".registry]"#),
            (OLD, r#"[plugins."io.containerd.grpc.v1.cri".registry]"#),
            (FIRST, "[plugins.cri.registry]"),
        ] {
            let Some(registry) = text::table(table, &way) else { continue };
            let path = text::text(registry, "config_path").filter(|path| !path.is_empty());
            let path = path.map(|path| path.trim_end_matches('/').to_owned());
            if counts.contains(&way) {
                self.path = path.or_else(|| self.path.take());
                for (name, mirror) in text::entries(registry, "mirrors") {
                    let endpoints = text::texts(mirror, "endpoint").unwrap_or_default();
                    let endpoints = endpoints.iter().map(|url| Address::parse(url).or_tls(true));
                    self.mirrors.push((name.to_owned(), endpoints.collect()));
                }
            } else if path.is_some() {
                self.ignored = Some(shown);
            }
        }
    }
}

/// Pure: what is wrong with it.
pub(super) fn judge(facts: &Facts, expected: &Expected<'_>) -> Examined {
    let mut found = Examined::new(Part::Containerd);
    found.version.clone_from(&facts.version);
    found.runs = Some(facts.runs);
    if !started::is_known(&facts.unit, &mut found) {
        return found;
    }
    let file = facts.config.as_ref().map_or(CONFIG, |config| config.path.as_str());
    let settings = match Settings::of(facts) {
        Ok(settings) => settings,
        Err((path, wrong)) => {
            found.find(unreadable(&path, &wrong, "containerd does not start with it"));
            found.lead_all(expected.names(), Way::Nowhere);
            return found;
        }
    };
    let knows_the_proxy =
        facts.certs.iter().flat_map(|(_, all)| all).any(|one| hosts_toml::is_ours(&expected.here, one));
    if facts.is_dockers
        && (settings.cri_is_off || !knows_the_proxy && settings.path.is_none() && settings.mirrors.is_empty())
    {
        found.notes.push("containerd is here for dockerd, which does not use its mirrors".to_owned());
        return found;
    }
    if settings.mirrors.is_empty() {
        by_files(facts, &settings, file, expected, &mut found);
    } else {
        by_mirrors(&settings, file, expected, &mut found);
    }
    if facts.runs && facts.is_older {
        found.find(Finding {
            registries: Vec::new(),
            code: Code::NotLoaded,
            file: Some(file.to_owned()),
            text: "it was changed after the containerd that runs was started".to_owned(),
            why: "containerd reads it at its start only, so it may not look for hosts.toml where it says".to_owned(),
            fix: by_hand(RESTART),
        });
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
                let leads_here = hosts_toml::leads_here(&expected.here, directory);
                let findings = hosts_toml::judge(expected, name, directory, "containerd", &fix(directory.path()));
                findings.into_iter().for_each(|finding| found.find(finding));
                if directory.is_denied() {
                    continue;
                }
                if leads_here { Way::Proxy } else { Way::Source }
            }
            None => {
                found.find(
                    misnamed(directories, name, expected, &write)
                        .unwrap_or_else(|| missing(&read_from, name, write.clone())),
                );
                Way::Source
            }
        };
        found.ways.entry(name.to_owned()).or_insert(way);
    }
    for directory in directories {
        let registry = hosts_toml::registry(&directory.name);
        let is_known = registry == "_default" || expected.registries.contains_key(&registry);
        if !is_known && hub_by_another_name(&registry).is_none() && hosts_toml::is_ours(&expected.here, directory) {
            let fix = if is_its_own || hosts_toml::is_foreign(directory) {
                by_hand(expected::aside(directory.path()))
            } else {
                expected.prune(Client::Containerd, "")
            };
            found.find(leftover(directory.path(), &registry, fix));
        }
    }
}

/// Names of Docker Hub that are no directory's.
fn hub_by_another_name(registry: &str) -> Option<&'static str> {
    ["registry-1.docker.io", "index.docker.io", "registry.hub.docker.com", "hub.docker.com"]
        .into_iter()
        .find(|name| *name == registry)
}

/// A directory whose name is Docker Hub's host and not its name.
fn misnamed(directories: &[Directory], registry: &str, expected: &Expected<'_>, fix: &Fix) -> Option<Finding> {
    if registry != oci::route::DOCKER_HUB {
        return None;
    }
    let is_it = |one: &&Directory| hub_by_another_name(&one.name).is_some() && hosts_toml::is_ours(&expected.here, one);
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
        let list = List { file, key: &format!("registry.mirrors.{name:?}"), registry: name };
        let way = if matches!(order, Order::First(_)) { Way::Proxy } else { Way::Source };
        misplaced(&expected.here, order, &list, fix.clone()).into_iter().for_each(|finding| found.find(finding));
        found.ways.insert(name.to_owned(), way);
    }
    for (name, endpoints) in &settings.mirrors {
        let leads_here = matches!(order(&expected.here, endpoints), Order::First(_));
        if name != "*" && leads_here && !expected.registries.contains_key(name) {
            found.find(leftover(file, name, fix.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As containerd 1.6 and 2.1 have shown.
    #[test]
    fn which_table_counts_is_a_matter_of_the_release_and_of_the_files_version() {
        let table =
            |way: &[&str; 3], path: &str| format!("[plugins.\"{}\".{}]\nconfig_path = \"{path}\"\n", way[1], way[2]);
        let [old, new] = [OLD, NEW].map(|way| table(&way, "/certs"));
        let both = table(&OLD, "/none:/certs");
        for (release, version, lines, path) in [
            ("1.6.20", "version = 2\n", &old, Some("/certs")),
            ("1.6.20", "version = 2\n", &new, None),
            ("1.6.20", "version = 3\n", &old, Some("/certs")),
            ("1.6.20", "version = 3\n", &new, None),
            ("1.6.20", "", &old, None),
            ("1.6.20", "version = 2\n", &both, Some("/certs")),
            ("2.1.9", "version = 2\n", &old, Some("/certs")),
            ("2.1.9", "version = 2\n", &new, Some("/certs")),
            ("2.1.9", "version = 3\n", &old, None),
            ("2.1.9", "version = 3\n", &new, Some("/certs")),
            ("2.1.9", "", &old, None),
            ("2.1.9", "", &new, Some("/certs")),
            ("2.1.9", "version = 2\n", &both, Some("/none:/certs")),
        ] {
            let root = tempfile::tempdir().expect("a directory");
            let hub = root.path().join("certs/docker.io");
            std::fs::create_dir_all(&hub).expect("made");
            std::fs::write(hub.join("hosts.toml"), "").expect("written");
            let certs = vec![("/certs".to_owned(), hosts_toml::read(&Host::new(root.path().to_owned()), "/certs"))];
            let content = Ok(format!("{version}{lines}"));
            let facts = Facts {
                config: Some(Text { path: CONFIG.to_owned(), content }),
                imports: Vec::new(),
                unit: Unit::default(),
                certs,
                runs: true,
                is_older: false,
                version: Some(release.to_owned()),
                is_dockers: false,
            };
            let settings = Settings::of(&facts).expect("TOML");
            assert_eq!(settings.path.as_deref(), path, "{release}: {version}{lines}");
        }
    }
}
