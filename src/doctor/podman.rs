//! podman, buildah and skopeo, which read their files at each pull, and CRI-O, which reads them at its start.

use std::path::PathBuf;

use super::ask::{self, Properties};
use super::expected::Expected;
use super::finding::{Examined, Part};
use super::forward_proxy;
use super::policy::{self, Policies};
use super::registries_conf::{self, Files, Release};
use super::started::{self, not_loaded};
use crate::client_config::{Client, REGISTRIES_D, carries_marker};
use crate::host::{self, Host, Text};
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
    let files = releases.map(|release| files_of(host, release, variable.as_deref())).collect();
    Some(Podman { files, policies: Policies::read(host), version, variable })
}

/// What a release reads; `variable` is what names another file.
fn files_of(host: &Host, release: Release, variable: Option<&str>) -> Files {
    match (release, variable) {
        (Release::Podman6, Some(path)) => Files::alone(host, path),
        _ => Files::read(host, release),
    }
}

/// Pure: what is wrong with it.
pub(super) fn judge(facts: &Podman, expected: &Expected<'_>) -> Examined {
    let mut found = Examined::new(Part::Podman);
    found.version.clone_from(&facts.version);
    registries_conf::judge(&facts.files, expected, "", &mut found);
    policy::judge(&facts.policies, expected, &mut found);
    registries_conf::judge_signed(&facts.files, &facts.policies.files, expected, &mut found);
    unwanted(&facts.files, &facts.policies, expected, &mut found);
    if let Some(path) = &facts.variable {
        let releases: Vec<_> = facts.files.iter().map(|files| files.release).collect();
        let before = format!("podman reads {path} in place of /etc/containers/registries.conf, which is not judged");
        let since = format!("podman 6 reads {path} alone, and no drop-in");
        let how = match (releases.contains(&Release::Podman6), releases.len()) {
            (false, _) => before,
            (true, 1) => since,
            (true, _) => format!("{before}; {since}"),
        };
        found.notes.push(format!("CONTAINERS_REGISTRIES_CONF is set here: {how}"));
    }
    found
}

/// The file of signatures is from here, as each host had it once, and no policy needs it.
fn unwanted(files: &[Files], policies: &Policies, expected: &Expected<'_>, found: &mut Examined) {
    let of_all = files.iter().flat_map(|files| &files.signatures);
    let is_ours =
        |text: &&Text| text.path == REGISTRIES_D && text.content.as_ref().is_ok_and(|text| carries_marker(text));
    if !of_all.into_iter().any(|text| is_ours(&text)) || policies.files.want_sigstore(expected.routes) {
        return;
    }
    let command = expected.prune(Client::Podman, "").command;
    found.notes.push(format!(
        "{REGISTRIES_D} is not needed, because no policy.json here requires a sigstore signature, and keeps signed images from being pushed and copied: {command}"
    ));
}

/// What was read of CRI-O.
pub(super) struct Crio {
    files: Vec<Files>,
    unit: Unit,
    /// `None` where that cannot be seen.
    runs: Option<bool>,
    is_older: bool,
    version: Option<String>,
    /// Why it could not be asked, a clause.
    silent: Option<String>,
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
    let is_known = socket.is_some() || !CRIO_SOCKETS.iter().any(|path| is_hidden(host, path));
    let (mut started, mut version, mut silent) = (None, None, None);
    match &socket {
        Some(socket) => {
            let pid = ask::listens(socket).await.ok().flatten().and_then(|listens| listens.pid);
            started = pid.and_then(host::started);
            match ask::get_unix(socket, "/info").await {
                Ok(answer) => version = answer.json().and_then(|info| Some(info["version"].as_str()?.to_owned())),
                Err(cause) => silent = Some(cause.to_string().to_lowercase()),
            }
        }
        None if !is_known => silent = Some("permission denied".to_owned()),
        None => {}
    }
    // It is told to read them again, too, which its process does not show and its unit does.
    let reloaded = if host.is_this() { changed_state().await } else { None };
    let changed = files.iter().flat_map(Files::paths).filter_map(|path| host.changed(path)).max();
    let is_older = host::is_older(started.max(reloaded), changed);
    let runs = is_known.then_some(socket.is_some());
    Some(Crio { files, unit: Unit::read(host, "crio.service"), runs, is_older, version, silent })
}

/// When systemd saw the unit change its state last: a start, or the end of a reload.
async fn changed_state() -> Option<std::time::SystemTime> {
    let shown = Properties::show(&["--property=StateChangeTimestamp", "--timestamp=unix", "crio.service"]).await?;
    let seconds: u64 = shown.get("StateChangeTimestamp").strip_prefix('@')?.parse().ok()?;
    Some(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
}

/// Pure: what is wrong with it.
pub(super) fn judge_crio(facts: &Crio, expected: &Expected<'_>) -> Examined {
    let mut found = Examined::new(Part::Crio);
    found.runs = facts.runs;
    found.version.clone_from(&facts.version);
    if let Some(cause) = &facts.silent {
        found.is_silent = true;
        found.notes.push(format!("CRI-O was not asked ({cause}): whether it has loaded its files is not known"));
    }
    if !started::is_known(&facts.unit, &mut found) {
        return found;
    }
    registries_conf::judge(&facts.files, expected, " && systemctl reload crio", &mut found);
    if facts.runs == Some(true) && facts.is_older {
        found.find(not_loaded(
            facts.files.iter().flat_map(Files::paths).last(),
            "CRI-O was started or told to read it",
            "CRI-O goes by what it has read, which may lead past the proxy",
            "systemctl reload crio",
        ));
    }
    forward_proxy::judge(&facts.unit, expected, &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::super::finding::{Code, Way};
    use super::*;
    use crate::config::{Config, Flags};

    /// It was said that pulls come through the proxy by its drop-in, which podman 6 does not read then.
    #[test]
    fn podman_6_reads_no_drop_in_where_its_variable_names_a_file() {
        const ENTRY: &str = "[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"127.0.0.1:8080/docker.io\"\ninsecure = true\n";
        let settings = "upstream: {domain: example.azurecr.io, prefix: hub}\n";
        let config = Config::load(&Flags::default().with_text("config.yaml".as_ref(), settings)).expect("valid");
        let expected = Expected::new(&config, None, "http://127.0.0.1:8080", false, &[]);
        let root = tempfile::tempdir().expect("a directory");
        let put = |path: &str, content: &str| {
            let at = root.path().join(path);
            std::fs::create_dir_all(at.parent().expect("a directory")).expect("made");
            std::fs::write(at, content).expect("written");
        };
        put("etc/containers/registries.conf.d/50-acr-cache-proxy.conf", ENTRY);
        put("etc/containers/policy.json", "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}");
        put("srv/empty.conf", "");
        put("srv/full.conf", ENTRY);
        let host = Host::new(root.path().to_owned());
        for (path, codes, way) in [
            (None, &[][..], Way::Proxy),
            (Some("/srv/empty.conf"), &[Code::Hidden], Way::Source),
            (Some("/srv/full.conf"), &[], Way::Proxy),
            (Some("/srv/none.conf"), &[Code::Unreadable], Way::Nowhere),
        ] {
            let variable = path.map(str::to_owned);
            let files = vec![files_of(&host, Release::Podman6, variable.as_deref())];
            let facts = Podman { files, policies: Policies::read(&host), version: Some("6.0.1".to_owned()), variable };
            let found = judge(&facts, &expected);
            let is: Vec<_> = found.findings.iter().map(|finding| finding.code).collect();
            assert_eq!((is.as_slice(), found.ways.get("docker.io")), (codes, Some(&way)), "{path:?}: {found:?}");
            let notes: Vec<_> =
                path.map(|path| format!("podman 6 reads {path} alone, and no drop-in")).into_iter().collect();
            assert!(found.notes.iter().zip(&notes).all(|(is, says)| is.ends_with(says)), "{found:?}");
            assert_eq!(found.notes.len(), notes.len());
        }
    }
}
