//! The service: whether systemd runs here and knows the unit, and its start.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ask::{Manner, Stop};
use super::served::{self, Running, Unread};
use super::{CONFIG, ENVIRONMENT, Init, Step};
use crate::config::Config;
use crate::config::service_user::ServiceUser;
use crate::environment_file::Variables;
use crate::host::Host;
use crate::installed::{self, OWN_UNIT, RELOAD, RESTART};
use crate::service_variables;
use crate::unit::Unit;
use crate::unit::own::{self, Other};

/// Starts the service now and at each boot.
const ENABLE: &str = "systemctl enable --now acr-cache-proxy";
/// The same where systemd keeps its sockets.
const ENABLE_BOTH: &str = "systemctl enable --now acr-cache-proxy.socket acr-cache-proxy";

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

    /// What to do for its start, by this `command`, where that is not done from here, a sentence. `remedy` has one that runs go by the
    /// configuration.
    fn by_hand(&self, running: &Running, command: &str, remedy: &str) -> String {
        let why = self.why_not().unwrap_or_default();
        let command = format!("have this run now and at each boot: {command}");
        match (self, running) {
            (Self::Elsewhere, _) => format!("The service is not started, because {why}. On that host: {ENABLE}"),
            (_, Running::Same) => {
                format!("The proxy runs already, and is not started at each boot from here, because {why}.")
            }
            (_, Running::Other(ways)) => format!(
                "the service is not started, because {why}, and the acr-cache-proxy that runs serves {ways}: if it was started with /{CONFIG}, have it read that again: {remedy}; else end it, and {command}"
            ),
            (_, Running::Former) => format!(
                "the service is not started, because {why}, and the acr-cache-proxy that runs does not listen where /{CONFIG} says: have it read that again: {remedy}"
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

impl<R: BufRead, W: Write> Init<'_, R, W> {
    /// Whether engines may be sent to the proxy without a start from here: it serves what the configuration says, or the host is another one.
    pub(super) fn is_served(&self) -> bool {
        self.running == Running::Same || self.host.manager == Manager::Elsewhere
    }

    /// Returns whether engines may be sent to the proxy.
    pub(super) fn start(&mut self, config: &Config, is_new: bool) -> Result<bool, Stop> {
        let Manager::Systemd { is_active } = self.host.manager else {
            let how = self.host.manager.by_hand(&self.running, &self.command(), &self.remedy());
            let is_left = self.host.is_root && self.talk.manner() != Manner::Show && !self.is_served();
            // What is told at the end is told before only to whoever is asked about engines in between.
            let asks = self.talk.manner() == Manner::Ask && self.does(Step::Engines) && !self.host.clients.is_empty();
            if !is_left || asks {
                self.talk.say(&format!("\n{how}\n"))?;
            }
            self.left.extend(is_left.then_some(how));
            return Ok(self.is_served());
        };
        // Not beside a service that runs, for which systemd opens no socket.
        let has_socket = !is_active && self.host.sockets.own().is_some_and(|socket| socket.is_enabled);
        let mut commands = vec![if has_socket { ENABLE_BOTH } else { ENABLE }];
        let older = config.admin().filter(|_| is_active).map(|at| served::older_variables(at, &self.host.environment));
        let older = older.unwrap_or_default();
        let is_stale = is_new || self.unread.is_some() || matches!(self.running, Running::Other(_));
        let needs_start = !older.is_empty() || matches!(self.unread, Some(Unread::Restart(..)));
        let renew = if needs_start { RESTART } else { RELOAD };
        commands.extend((is_active && (is_stale || needs_start)).then_some(renew));
        if !older.is_empty() {
            let environment = self.host.environment.display();
            self.talk.say(&format!("\n{environment}: {}.\n", service_variables::older(&older)))?;
        }
        self.talk.say(&format!("\nTo start the service, now and at each boot:\n  {}\n", commands.join("\n  ")))?;
        if !self.agrees("Do it?", true)? {
            return Ok(self.is_served());
        }
        for command in commands {
            if let Err(cause) = run(command) {
                self.left.push(format!("{cause}: {}", unstarted(&said_of("LoadState"))));
                return Ok(false);
            }
        }
        let (running, instead) = served::after_start(config);
        self.running = running;
        self.unread = None;
        if let Some(instead) = instead {
            self.left.push(elsewhere(&self.options.root, &self.host.config, &instead));
            return Ok(false);
        }
        self.talk.say("The service runs.\n")?;
        self.left.extend(replaced());
        Ok(true)
    }

    /// Says which files its user may not read: root has tried the way with all of them.
    pub(super) fn tell_closed(&mut self, config: &Config) {
        let file = self.host.config.display().to_string();
        let user = ServiceUser::of(&Host::new(self.options.root.clone()), Some(&file), &[]);
        let closed = user.map(|user| user.closed(Some(&file), config)).unwrap_or_default();
        self.left.extend(closed.iter().map(ToString::to_string));
    }

    /// The command that runs the proxy where no unit does, with the variables that the unit would have given it.
    fn command(&self) -> String {
        let plain = format!("acr-cache-proxy --config /{CONFIG}");
        Variables::command(&Variables::read(&self.host.environment), &format!("/{ENVIRONMENT}"), &plain)
    }

    /// Says it if the proxy that is to serve the engines cannot yet. It may run with other variables than the way was tried with.
    pub(super) fn look_whether_ready(&mut self, config: &Config) -> Result<(), Stop> {
        let Some(why) = config.admin().filter(|_| self.host.is_this && self.is_open).and_then(served::unready) else {
            return Ok(());
        };
        self.is_doubtful = true;
        if self.talk.manner() == Manner::Ask {
            self.talk.say(&format!("\nThe proxy that runs is not ready: {why}\n"))?;
        }
        self.left.push(format!(
            "the proxy that runs is not ready, and pulls go to the source or fail until it is: {why}; if it was started without the variables of {}, restart it with them",
            self.host.environment.display()
        ));
        Ok(())
    }
}

/// What systemd says of the service under this key.
fn said_of(key: &str) -> String {
    let words = ["show", "--value", "--property", key, OWN_UNIT];
    let output = Command::new("systemctl").args(words).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Why a command for the service has failed, by how systemd has loaded its unit; a clause.
fn unstarted(load: &str) -> String {
    match load {
        "masked" => format!("its unit is masked: systemctl unmask {OWN_UNIT}, and run init again"),
        "bad-setting" | "error" => format!(
            "systemd refuses its unit ({load}), and says why: systemd-analyze verify {OWN_UNIT}; put that right, systemctl daemon-reload, and run init again"
        ),
        _ => "the journal says why: journalctl --unit acr-cache-proxy --lines 20".to_owned(),
    }
}

/// That the service runs an earlier program than is installed, a sentence.
fn replaced() -> Option<String> {
    let (pid, unit) = (said_of("MainPID").parse().ok()?, Unit::read(&Host::new(PathBuf::from("/")), OWN_UNIT));
    let program = unit.command.first().filter(|program| installed::is_replaced(Path::new(program), pid))?;
    Some(format!(
        "the service runs, by an earlier program than {program} is by now, which has not taken over; the journal says why: journalctl --unit acr-cache-proxy --lines 20; {RESTART} starts it"
    ))
}

/// What a unit that is started with other settings has, and what to do, a clause; `None` if it has these.
pub(super) fn other_settings(root: &Path, config: &Path) -> Option<String> {
    let config = config.display().to_string();
    let Other { file, flags, .. } = own::other(&Host::new(root.to_owned()), Some(&config), &[])?;
    Some(format!("ExecStart= in {file} has {flags}: have it name {config} alone"))
}

/// Why a service that runs does not serve what this configuration says, a sentence; `instead` says what it does, a
/// clause.
fn elsewhere(root: &Path, config: &Path, instead: &str) -> String {
    let why = other_settings(root, config)
        .unwrap_or_else(|| "the journal may say why: journalctl --unit acr-cache-proxy --lines 20".to_owned());
    format!("the service runs, and {instead}: {why}")
}

/// Runs a command, as [`ENABLE`] is one, whose output is shown. The error is one sentence.
fn run(words: &str) -> Result<(), String> {
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
