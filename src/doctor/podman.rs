//! podman, buildah and skopeo, which read their files at each pull, and CRI-O, which reads them at its start.

use serde_json::Value;

use super::ask;
use super::expected::{Expected, by_hand};
use super::finding::{Code, Examined, Finding, PAST, Part, Way};
use super::forward_proxy;
use super::registries_conf::{self, Files};
use super::started;
use crate::host::{self, Host};
use crate::unit::Unit;

const CRIO_SOCKETS: [&str; 2] = ["/run/crio/crio.sock", "/var/run/crio/crio.sock"];

/// What was read of podman.
pub(super) struct Podman {
    files: Files,
    /// What `podman info` says, which has read the same files.
    info: Option<Value>,
    /// Its variable that names another file for root.
    variable: Option<String>,
}

/// `None` where there is none of them.
pub(super) async fn read(host: &Host) -> Option<Podman> {
    if !host.has_program(&["podman", "buildah", "skopeo"]) {
        return None;
    }
    let said = if host.is_this() && host.has_program(&["podman"]) {
        ask::program(&["podman", "info", "--format", "json"]).await
    } else {
        None
    };
    let info = said.and_then(|said| serde_json::from_str(&said).ok());
    let variable = if host.is_this() { std::env::var("CONTAINERS_REGISTRIES_CONF").ok() } else { None };
    Some(Podman { files: Files::read(host), info, variable: variable.filter(|path| !path.is_empty()) })
}

/// Pure: what is wrong with it.
pub(super) fn judge(facts: &Podman, expected: &Expected<'_>) -> Examined {
    let mut found = Examined::new(Part::Podman);
    found.version = facts.info.as_ref().and_then(|info| Some(info["version"]["Version"].as_str()?.to_owned()));
    registries_conf::judge(&facts.files, expected, "", &mut found);
    // What hides the files for whoever runs this hides them from podman info, too.
    let is_hidden = found.findings.iter().any(|finding| finding.code == Code::Hidden);
    let registries = facts.info.as_ref().and_then(|info| info["registries"].as_object()).filter(|_| !is_hidden);
    let Some(registries) = registries else { return found };
    for route in expected.routes.iter() {
        let source = route.source.to_string();
        let entries = registries.iter().filter(|(prefix, _)| registries_conf::covers(prefix, &source));
        let registry = entries.max_by_key(|(prefix, _)| prefix.len()).map_or(&Value::Null, |(_, entry)| entry);
        let mirrors = registry["Mirrors"].as_array().into_iter().flatten();
        let location = |place: &Value| place["Location"].as_str().map(str::to_owned);
        let loaded: Vec<_> = mirrors.filter_map(location).chain(location(registry)).collect();
        let is_right = found.ways.get(route.source.registry()) == Some(&Way::Proxy);
        if is_right && !registries_conf::leads_here(expected, &loaded) {
            let name = route.source.registry();
            let other = facts.variable.as_ref().map(|path| format!(": CONTAINERS_REGISTRIES_CONF names {path}"));
            found.find(Finding { registries: vec![name.to_owned()],
                code: Code::NotLoaded,
                file: None,
                text: format!("the files lead {source} to the proxy, and podman info does not{}", other.unwrap_or_default()),
                why: PAST.to_owned(),
                fix: by_hand("podman info --format '{{json .Registries}}'  # shows what it has read; a variable or a file of the user comes first"),
            });
            found.ways.insert(name.to_owned(), Way::Source);
        }
    }
    found
}

/// What was read of CRI-O.
pub(super) struct Crio {
    files: Files,
    unit: Unit,
    runs: bool,
    is_older: bool,
    version: Option<String>,
}

/// Where it listens, if it does.
pub(super) async fn crio_socket(host: &Host) -> Option<std::path::PathBuf> {
    ask::first_that_listens(host, &CRIO_SOCKETS).await
}

/// `None` where there is no CRI-O.
pub(super) async fn read_crio(host: &Host) -> Option<Crio> {
    let socket = crio_socket(host).await;
    if socket.is_none() && !host.has_program(&["crio"]) {
        return None;
    }
    // Files of users are nothing to it.
    let files = Files::read(host).of_system_only();
    let (mut started, mut version) = (None, None);
    if let Some(socket) = &socket {
        let pid = ask::listens(socket).await.ok().flatten().and_then(|listens| listens.pid);
        started = pid.and_then(host::started);
        if let Ok(answer) = ask::get_unix(socket, "/info").await {
            version = answer.json().and_then(|info| Some(info["version"].as_str()?.to_owned()));
        }
    }
    // It is told to read them again, too, which its process does not show and its unit does.
    let reloaded = if host.is_this() { changed_state().await } else { None };
    let changed = files.paths().filter_map(|path| host.changed(path)).max();
    let is_older = host::is_older(started.max(reloaded), changed);
    Some(Crio { files, unit: Unit::read(host, "crio.service"), runs: socket.is_some(), is_older, version })
}

/// When systemd saw the unit change its state last: a start, or the end of a reload.
async fn changed_state() -> Option<std::time::SystemTime> {
    let said =
        ask::program(&["systemctl", "show", "--property=StateChangeTimestamp", "--timestamp=unix", "crio.service"])
            .await?;
    let seconds: u64 = said.trim().strip_prefix("StateChangeTimestamp=@")?.parse().ok()?;
    Some(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
}

/// Pure: what is wrong with it.
pub(super) fn judge_crio(facts: &Crio, expected: &Expected<'_>) -> Examined {
    let mut found = Examined::new(Part::Crio);
    found.runs = Some(facts.runs);
    found.version.clone_from(&facts.version);
    if !started::is_known(&facts.unit, &mut found) {
        return found;
    }
    registries_conf::judge(&facts.files, expected, " && systemctl reload crio", &mut found);
    if facts.runs && facts.is_older {
        found.find(Finding {
            registries: Vec::new(),
            code: Code::NotLoaded,
            file: facts.files.paths().last().map(str::to_owned),
            text: "it was changed, or came to its place, after CRI-O was started or told to read it".to_owned(),
            why: "CRI-O goes by what it has read, which may lead past the proxy".to_owned(),
            fix: by_hand("systemctl reload crio"),
        });
    }
    forward_proxy::judge(&facts.unit, expected, &mut found);
    found
}
