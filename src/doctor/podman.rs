//! podman, buildah and skopeo, which read their files at each pull, and CRI-O, which reads them at its start.

use std::path::PathBuf;

use super::ask;
use super::expected::{Expected, by_hand};
use super::finding::{Code, Examined, Finding, Part};
use super::forward_proxy;
use super::policy::{self, Policies};
use super::registries_conf::{self, Files, Release};
use super::started;
use crate::host::{self, Host};
use crate::unit::Unit;

const CRIO_SOCKETS: [&str; 2] = ["/run/crio/crio.sock", "/var/run/crio/crio.sock"];

/// What was read of podman.
pub(super) struct Podman {
    files: Vec<Files>,
    policies: Policies,
    version: Option<String>,
    /// Its variable that names another file for root.
    variable: Option<String>,
}

/// `None` where there is none of them.
pub(super) async fn read(host: &Host) -> Option<Podman> {
    if !host.has_program(&["podman", "buildah", "skopeo"]) {
        return None;
    }
    // All else that it could be asked makes its store and its databases, where they are not there yet.
    let said = if host.is_this() && host.has_program(&["podman"]) {
        ask::program(&["podman", "--version"]).await
    } else {
        None
    };
    let version = said.and_then(|said| Some(said.split_whitespace().nth(2)?.to_owned()));
    let variable = if host.is_this() { std::env::var("CONTAINERS_REGISTRIES_CONF").ok() } else { None };
    let variable = variable.filter(|path| !path.is_empty());
    let releases = Release::of(version.as_deref()).into_iter();
    let files = releases.map(|release| Files::read(host, release)).collect();
    Some(Podman { files, policies: Policies::read(host), version, variable })
}

/// Pure: what is wrong with it.
pub(super) fn judge(facts: &Podman, expected: &Expected<'_>) -> Examined {
    let mut found = Examined::new(Part::Podman);
    found.version.clone_from(&facts.version);
    registries_conf::judge(&facts.files, expected, "", &mut found);
    policy::judge(&facts.policies, expected, &mut found);
    if let Some(path) = &facts.variable {
        found.notes.push(format!(
            "CONTAINERS_REGISTRIES_CONF is set here: podman reads {path} in place of /etc/containers/registries.conf, which is not judged"
        ));
    }
    found
}

/// What was read of CRI-O.
pub(super) struct Crio {
    files: Vec<Files>,
    unit: Unit,
    /// `None` where that cannot be seen.
    runs: Option<bool>,
    is_older: bool,
    version: Option<String>,
}

/// Where it listens, if it does.
pub(super) async fn crio_socket(host: &Host) -> Option<PathBuf> {
    let seen: Vec<_> = CRIO_SOCKETS.into_iter().filter(|path| !is_hidden(host, path)).collect();
    ask::first_that_listens(host, &seen).await
}

/// A directory on the way to a socket is closed to whoever runs this: whether something is there is not known.
fn is_hidden(host: &Host, socket: &str) -> bool {
    host::is_hidden(&host.at(socket))
}

/// `None` where there is no CRI-O.
pub(super) async fn read_crio(host: &Host) -> Option<Crio> {
    let socket = crio_socket(host).await;
    if socket.is_none() && !host.has_program(&["crio"]) {
        return None;
    }
    // Files of users are nothing to it.
    let files: Vec<_> =
        Release::of(None).into_iter().map(|release| Files::read(host, release).of_system_only()).collect();
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
    let changed = files.iter().flat_map(Files::paths).filter_map(|path| host.changed(path)).max();
    let is_older = host::is_older(started.max(reloaded), changed);
    let is_known = socket.is_some() || !CRIO_SOCKETS.iter().any(|path| is_hidden(host, path));
    let runs = is_known.then_some(socket.is_some());
    Some(Crio { files, unit: Unit::read(host, "crio.service"), runs, is_older, version })
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
    found.runs = facts.runs;
    found.version.clone_from(&facts.version);
    if !started::is_known(&facts.unit, &mut found) {
        return found;
    }
    registries_conf::judge(&facts.files, expected, " && systemctl reload crio", &mut found);
    if facts.runs == Some(true) && facts.is_older {
        found.find(Finding {
            registries: Vec::new(),
            code: Code::NotLoaded,
            file: facts.files.iter().flat_map(Files::paths).last().map(str::to_owned),
            text: "it was changed, or came to its place, after CRI-O was started or told to read it".to_owned(),
            why: "CRI-O goes by what it has read, which may lead past the proxy".to_owned(),
            fix: by_hand("systemctl reload crio"),
        });
    }
    forward_proxy::judge(&facts.unit, expected, &mut found);
    found
}
