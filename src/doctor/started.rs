//! Whether an engine runs, how it is started, and what follows for files that it reads at its start. Where it is not known how it is started,
//! nothing of it is judged.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use super::ask;
use super::expected::{Expected, by_hand, unreadable};
use super::finding::{Code, Examined, Finding, Way};
use crate::activation::Sockets;
use crate::host::{self, DENIED, Host};
use crate::shell::shell_word;
use crate::unit::{Unit, Unknown};

/// An engine, as its socket shows it.
#[derive(Default)]
pub(super) struct Running {
    /// `None` where that cannot be seen.
    pub runs: Option<bool>,
    /// Why nobody could ask whether it listens.
    silent: Option<String>,
    pid: Option<u32>,
}

impl Running {
    /// Where it listens, or would.
    pub(super) async fn at(sockets: &Sockets, socket: io::Result<PathBuf>) -> Self {
        let is_hidden = host::is_hidden(&socket);
        let listens = ask::listens_at(sockets, socket).await;
        Self {
            runs: (!is_hidden).then_some(!matches!(listens, Ok(None))),
            silent: listens.as_ref().err().map(|cause| cause.to_string().to_lowercase()),
            pid: listens.ok().flatten().and_then(|listens| listens.pid),
        }
    }

    /// How it is started: as its unit says, and if it runs, as it was.
    pub(super) fn unit(&self, host: &Host, program: &str, name: &str) -> Unit {
        let mut unit = Unit::read(host, name);
        if let Some(command) = self.pid.and_then(|pid| host::command_line(pid, program)) {
            unit.runs_as(command);
        }
        unit
    }

    /// When it was started, if that is known.
    pub(super) fn started(&self) -> Option<SystemTime> {
        self.pid.and_then(host::started)
    }

    /// Says whether it runs, or why that is not known. `files` is what it reads at its start.
    pub(super) fn tell(&self, files: &str, found: &mut Examined) {
        found.runs = self.runs;
        if let Some(cause) = &self.silent {
            let name = found.part.name();
            found.is_silent = true;
            found.notes.push(format!("{name} was not asked ({cause}): whether it has loaded {files} is not known"));
        }
    }
}

/// A file with which an engine does not start. One that runs was started before the file was so, and nobody knows by what it goes.
pub(super) fn broken(path: &str, wrong: &str, runs: Option<bool>, expected: &Expected<'_>, found: &mut Examined) {
    let name = found.part.name();
    let why = match runs {
        Some(true) => format!("{name} goes on with what it has read at its start, and does not start with it again"),
        Some(false) => format!("{name} does not start with it"),
        None => format!("{name} does not start with it; one that runs goes on with what it has read at its start"),
    };
    found.find(unreadable(path, wrong, &why));
    if runs == Some(false) {
        found.lead_all(expected.names(), Way::Nowhere);
    }
}

/// A file that an engine reads at certain times, and that was changed after the last of them.
pub(super) fn not_loaded(file: Option<&str>, after: &str, why: &str, command: &str) -> Finding {
    Finding {
        registries: Vec::new(),
        code: Code::NotLoaded,
        file: file.map(str::to_owned),
        text: format!("it was changed, or came to its place, after {after}"),
        why: why.to_owned(),
        fix: by_hand(command),
    }
}

/// Says what is not known of it, if there is something.
pub(super) fn is_known(unit: &Unit, found: &mut Examined) -> bool {
    let engine = found.part.name();
    for unknown in &unit.unknown {
        match unknown {
            Unknown::Unread { path, cause } => found.find(Finding {
                code: Code::Unreadable,
                file: Some(path.clone()),
                text: if cause == DENIED { cause.clone() } else { format!("it could not be read: {cause}") },
                why: format!(
                    "{engine} may be started with flags and variables from it, so where its pulls go is not known"
                ),
                registries: Vec::new(),
                fix: by_hand(format!("namei -l {}", shell_word(path))),
            }),
            Unknown::Shell { .. } | Unknown::Specifier { .. } | Unknown::Passed { .. } => found.notes.push(format!(
                "{unknown}: where {engine} pulls from is not judged; while it runs, doctor sees its flags"
            )),
        }
    }
    found.is_blind |= !unit.unknown.is_empty();
    unit.unknown.is_empty()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Flags};
    use crate::doctor::finding::Part;

    /// Of one that runs, or that nobody can see, it was said that it pulls nothing.
    #[test]
    fn a_broken_file_says_nothing_of_the_pulls_of_an_engine_that_may_run() {
        let text = "routes: [{source: docker.io, domain: a.azurecr.io, prefix: hub}]\n";
        let config = Config::load(&Flags::default().with_text(Path::new("a.yaml"), text)).expect("right");
        let expected = Expected::new(&config, None, "http://127.0.0.1:8080", false, &[]);
        for (runs, why, ways) in [
            (Some(true), "k3s goes on with what it has read at its start, and does not start with it again", 0),
            (Some(false), "k3s does not start with it", 1),
            (None, "k3s does not start with it; one that runs goes on with what it has read at its start", 0),
        ] {
            let mut found = Examined::new(Part::K3s);
            broken("/etc/rancher/k3s/registries.yaml", "it is not YAML", runs, &expected, &mut found);
            let whys: Vec<_> = found.findings.iter().map(Finding::why).collect();
            assert_eq!((whys, found.ways.len()), (vec![why.to_owned()], ways), "{runs:?}");
        }
    }
}
