//! The service: whether systemd runs here and knows the unit, and its start.

use std::io;
use std::path::Path;
use std::process::Command;

use super::served::Running;
use crate::host::Host;
use crate::installed::{self, OWN_UNIT};
use crate::unit::own::{self, Other};

/// Starts the service now and at each boot.
pub(super) const ENABLE: &str = "systemctl enable --now acr-cache-proxy";

/// How the service can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Manager {
    /// By systemd.
    Systemd {
        /// It runs already.
        is_active: bool,
    },
    /// By somebody on another host, whose files these are.
    Elsewhere,
    /// Not from here; the words say why.
    Absent(&'static str),
}

impl Manager {
    /// Why the service is not started from here.
    pub(super) fn why_not(&self) -> Option<&'static str> {
        match self {
            Self::Systemd { .. } => None,
            Self::Elsewhere => Some("the files are those of another host"),
            Self::Absent(why) => Some(why),
        }
    }

    /// What to do for its start, by this `command`, where that is not done from here, a sentence.
    pub(super) fn by_hand(&self, running: &Running, command: &str, config: &str) -> String {
        let why = self.why_not().unwrap_or_default();
        let command = format!("have this run now and at each boot: {command}");
        match (self, running) {
            (Self::Elsewhere, _) => format!("The service is not started, because {why}. On that host: {ENABLE}"),
            (_, Running::Same) => {
                format!("The proxy runs already, and is not started at each boot from here, because {why}.")
            }
            (_, Running::Other(ways)) => format!(
                "the service is not started, because {why}, and the acr-cache-proxy that runs serves {ways}: if it was started with /{config}, have it read that again: acr-cache-proxy reload; else end it, and {command}"
            ),
            (_, Running::Nothing | Running::Unknown | Running::Elsewhere) => {
                format!("the service is not started, because {why}: {command}")
            }
        }
    }

    /// The one of the host whose files are below `root`.
    pub(super) fn find(root: &Path) -> Self {
        if root != Path::new("/") {
            return Self::Elsewhere;
        }
        if !installed::runs_systemd() {
            return Self::Absent("systemd does not run here");
        }
        if !installed::has_unit(root, OWN_UNIT) {
            return Self::Absent("the unit is not installed");
        }
        let is_active = run(&format!("systemctl --quiet is-active {OWN_UNIT}")).is_ok();
        Self::Systemd { is_active }
    }
}

/// Why a service that runs does not serve what this configuration says, a sentence; `instead` says what it does, a
/// clause.
pub(super) fn elsewhere(root: &Path, config: &Path, instead: &str) -> String {
    let config = config.display().to_string();
    let why = match own::other(&Host::new(root.to_owned()), Some(&config), &[]) {
        Some(Other { file, flags, .. }) => {
            format!("ExecStart= in {file} has {flags}: have it name {config} alone")
        }
        None => "the journal may say why: journalctl --unit acr-cache-proxy --lines 20".to_owned(),
    };
    format!("the service runs, and {instead}: {why}")
}

/// Runs a command, as [`ENABLE`] is one, whose output is shown. The error is one sentence.
pub(super) fn run(words: &str) -> Result<(), String> {
    let mut parts = words.split(' ');
    let status = match parts.next() {
        Some(program) => Command::new(program).args(parts).status(),
        None => Err(io::ErrorKind::InvalidInput.into()),
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{words}: {status}")),
        Err(cause) => Err(format!("{words}: {cause}")),
    }
}
