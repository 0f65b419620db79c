//! Flags of dockerd that keep `registry-mirrors` out of `daemon.json`: `--registry-mirror`, because with both dockerd does not start, and
//! `--config-file`, because dockerd reads another file then.

use std::path::Path;

use serde_json::Value;

use super::address::Here;
use super::docker::{self, DAEMON_JSON};
use super::merge::{Addition, is};
use super::{Client, File};
use crate::host::{self, Host};
use crate::unit::{Unit, flag};

const FLAG: &str = "registry-mirror";
const CONFIG_FILE: &str = "config-file";
const KEY: &str = "registry-mirrors";
/// Where init scripts of distributions have dockerd's flags: Debian's and Alpine's.
const SCRIPTS: [&str; 2] = ["/etc/default/docker", "/etc/conf.d/docker"];
const PROGRAM: &str = "dockerd";
const VARIABLE: &str = "DOCKER_OPTS";

const SERVICE: &str = "docker.service";
/// Where dockerd has its process; one of release 28 that systemd has started, nowhere.
const PID_FILE: &str = "/run/docker.pid";

/// What dockerd of a host is started with. Where a script or a shell starts it, or the one that runs has flags that no file explains, its
/// own command line is taken.
pub(crate) fn dockerd(host: &Host) -> Unit {
    let mut unit = Unit::read_or_script(host, SERVICE, &SCRIPTS, VARIABLE);
    let Some(command) = running_dockerd(host) else { return unit };
    // The variable of an init script need not have all flags: another script or a supervisor may start it.
    if unit.is_for_its_process() || unit.is_script() && unit.flag(FLAG).is_empty() {
        unit.runs_as(command);
    } else {
        believe(&mut unit, &command);
    }
    unit
}

/// Takes the flags of the dockerd that runs where its unit's files have no mirror and it has, or another file of settings: with a mirror in
/// its file beside one among its flags it would not start again. Another mirror in the place of the unit's is an earlier state of the unit.
pub(crate) fn believe(unit: &mut Unit, command: &[String]) {
    let has_mirror = !flag(command, FLAG).is_empty() && unit.flag(FLAG).is_empty();
    let file = flag(command, CONFIG_FILE).pop();
    if has_mirror || file.is_some_and(|file| file != DAEMON_JSON && file != settings(unit)) {
        unit.runs_unexplained_as(command.to_vec());
    }
}

/// The command line of the dockerd that runs on this host.
pub(crate) fn running_dockerd(host: &Host) -> Option<Vec<String>> {
    if !host.is_this() {
        return None;
    }
    let by_file = || host::command_line(host.read(PID_FILE)?.content.ok()?.trim().parse().ok()?, PROGRAM);
    host::command_of(SERVICE, PROGRAM).or_else(by_file)
}

/// The file of settings that it reads.
pub(crate) fn settings(unit: &Unit) -> String {
    unit.flag(CONFIG_FILE).pop().unwrap_or_else(|| DAEMON_JSON.to_owned())
}

/// The mirrors that a dockerd below `root` may have of this proxy after its other files are removed, and how they go, a sentence: its file
/// of settings has no comment by which it is known, and a flag is no file.
pub(super) fn left(root: &Path) -> Option<String> {
    let host = Host::new(root.to_owned());
    let unit = dockerd(&host);
    let file = settings(&unit);
    let take_out = "if the proxy is there, take it out, then:";
    if !unit.flag(FLAG).is_empty() {
        return Some(format!("{} gives dockerd --{FLAG}: {take_out} {}", unit.file_of(FLAG), unit.restart()));
    }
    names_mirrors(&host, root, &file, "take it out, then: systemctl reload docker")
}

/// That this `daemon.json` below `root` stays although the proxy may be in it, and what to do if it is; `None` if it has no mirrors.
pub(super) fn names_mirrors(host: &Host, root: &Path, file: &str, take_out: &str) -> Option<String> {
    let text = host.read(file)?.content.ok();
    // Of what cannot be read it is not known.
    let parsed = text.and_then(|text| docker::parse(&text).ok());
    let names_none = |settings: &Value| settings.get(KEY).is_none_or(|mirrors| *mirrors == Value::Array(Vec::new()));
    if parsed.as_ref().is_some_and(names_none) {
        return None;
    }
    let (what, place) = match parsed {
        Some(_) => (format!("has {KEY} and no comment by which it would be known"), format!("in {KEY} there")),
        None => ("cannot be read as JSON".to_owned(), format!("in its {KEY}")),
    };
    let at = root.join(file.trim_start_matches('/'));
    let at = at.display();
    Some(format!("{at} is left as it is, because it {what}: if the proxy is {place}, {take_out}"))
}

/// Such a flag.
pub(super) struct ByFlag {
    file: String,
    restart: String,
    /// The mirror that is to be the first one.
    url: String,
    kind: Kind,
}

enum Kind {
    /// `--registry-mirror`, and whether the mirror is the first of them.
    Mirror { is_first: bool },
    /// `--config-file`, and the file that is read.
    ConfigFile(String),
}

impl ByFlag {
    /// The flag that excludes this file, if it is dockerd's and there is such a flag below the root.
    /// The error is a sentence: nobody can say.
    pub(super) fn beside(file: &File, root: &Path, here: Option<&Here>) -> Result<Option<Self>, String> {
        let Some(Addition::DaemonJson(url)) = &file.addition else { return Ok(None) };
        if file.path != DAEMON_JSON {
            return Ok(None);
        }
        let unit = dockerd(&Host::new(root.to_owned()));
        if let Some(doubt) = unit.doubt() {
            return Err(format!(
                "{}: whether dockerd reads it, and starts with {KEY} in it, is not known: {doubt}: if dockerd has neither --{FLAG} nor --{CONFIG_FILE}, put {url} first in {KEY} there, then: {}",
                root.join(DAEMON_JSON.trim_start_matches('/')).display(),
                unit.restart()
            ));
        }
        let is_same = |one: &str, other: &str| here.is_some_and(|here| here.is_same(one, other));
        let (flag, kind) = match unit.flag(FLAG).first() {
            Some(mirror) => (FLAG, Kind::Mirror { is_first: is(mirror, url, &is_same) }),
            None => (CONFIG_FILE, Kind::ConfigFile(settings(&unit))),
        };
        if matches!(&kind, Kind::ConfigFile(path) if path == DAEMON_JSON) {
            return Ok(None);
        }
        Ok(Some(Self { file: unit.file_of(flag), restart: unit.restart(), url: url.clone(), kind }))
    }

    /// How the flag already does what the file would, a clause, or why the file may not say it. `text` is what it says, if it is there.
    pub(super) fn judge(&self, text: Option<&str>) -> Result<String, String> {
        let Self { file, restart, url, kind } = self;
        let is_first = match kind {
            Kind::Mirror { is_first } => *is_first,
            Kind::ConfigFile(other) => {
                return Err(format!(
                    "{file} gives dockerd --{CONFIG_FILE}, so that it reads {other} and not this file: put {url} first in {KEY} there, then: {restart}"
                ));
            }
        };
        let settings = text.and_then(|text| docker::parse(text).ok());
        if settings.is_some_and(|settings| settings.get(KEY).is_some()) {
            return Err(format!(
                "it has {KEY}, and {file} gives dockerd --{FLAG}, and dockerd does not start with both: take one of the two out, then: {restart}"
            ));
        }
        if is_first {
            return Ok(format!("dockerd has {url} by --{FLAG} in {file}"));
        }
        Err(format!(
            "{file} gives dockerd --{FLAG}, and dockerd does not start with {KEY} beside it: put --{FLAG}={url} first there, then: {restart}; or take the flag out there, and run client-config {} again",
            Client::Docker.name()
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The mirror of `systemctl set-environment` was not seen, and one was written beside it: dockerd did not start again.
    #[test]
    fn flags_of_the_dockerd_that_runs_and_that_no_file_explains_keep_a_mirror_out_of_the_file() {
        let ours = "--registry-mirror=http://127.0.0.1:8080";
        for (unit, runs, unexplained, mirrors) in [
            ("dockerd -H fd://", "dockerd -H fd:// --registry-mirror=http://a", true, &["http://a"][..]),
            ("dockerd $DOCKER_OPTS", "dockerd --registry-mirror http://a", true, &["http://a"]),
            ("dockerd", "dockerd --config-file=/etc/other.json", true, &[]),
            ("dockerd --config-file=/etc/a.json", "dockerd --config-file=/etc/b.json", true, &[]),
            ("dockerd", "dockerd --config-file=/etc/docker/daemon.json --debug", false, &[]),
            ("dockerd", "dockerd -H fd://", false, &[]),
            // The unit is newer than the process, and its flags count at the next start.
            (ours, "dockerd", false, &["http://127.0.0.1:8080"]),
            (ours, "dockerd --registry-mirror=http://a", false, &["http://127.0.0.1:8080"]),
        ] {
            let root = tempfile::tempdir().expect("a directory");
            let directory = root.path().join("etc/systemd/system");
            fs::create_dir_all(&directory).expect("made");
            let content = format!("[Service]\nExecStart=/usr/bin/{}\n", unit.replace(ours, &format!("dockerd {ours}")));
            fs::write(directory.join("docker.service"), content).expect("written");
            let mut read = Unit::read(&Host::new(root.path().to_owned()), SERVICE);
            let words: Vec<_> = runs.split(' ').map(str::to_owned).collect();
            believe(&mut read, &words);
            assert_eq!(read.is_by_process(), unexplained, "{unit}: {runs}");
            assert_eq!(read.flag(FLAG), mirrors, "{unit}: {runs}");
            let by = read.file_of(FLAG);
            assert_eq!(by == "what starts docker", unexplained, "{by}");
        }
    }

    /// The mirrors of a file with a byte order mark, which dockerd takes, were not seen, and of one without mirrors it was said that it cannot
    /// be read.
    #[test]
    fn a_byte_order_mark_hides_nothing_of_daemon_json() {
        let by_flag = ByFlag {
            file: "/etc/default/docker".to_owned(),
            restart: "service docker restart".to_owned(),
            url: "http://127.0.0.1:8080".to_owned(),
            kind: Kind::Mirror { is_first: true },
        };
        let root = tempfile::tempdir().expect("a directory");
        let host = Host::new(root.path().to_owned());
        for (content, has_mirrors) in [(r#"{"registry-mirrors": ["http://a"]}"#, true), (r#"{"debug": true}"#, false)] {
            for text in [content.to_owned(), format!("\u{feff}{content}")] {
                assert_eq!(by_flag.judge(Some(&text)).is_err(), has_mirrors, "{text:?}");
                fs::write(root.path().join("daemon.json"), &text).expect("written");
                let said = names_mirrors(&host, root.path(), "/daemon.json", "take it out");
                let is_told = said.as_ref().is_some_and(|said| said.contains("has registry-mirrors and no comment"));
                assert_eq!((said.is_some(), is_told), (has_mirrors, has_mirrors), "{text:?}: {said:?}");
            }
        }
    }
}
