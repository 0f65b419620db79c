//! A proxy that does not answer: why, as far as systemd tells it, and what has it answer.

use std::io;
use std::path::Path;

use super::super::ask::{self, Properties};
use super::super::expected::{Expected, by_hand};
use super::super::failed::failure;
use super::super::finding::{Code, Finding, Fix, listed};
use super::{Facts, quoted, stranger, told, who_listens};
use crate::activation::{Socket, Sockets};
use crate::client_config::Registry;
use crate::config::{Config, Endpoint};
use crate::environment_file::Variables;
use crate::host::Host;
use crate::installed::{OWN_SOCKET as SOCKET, OWN_UNIT as UNIT, RELOAD, is_replaced, runs_systemd};
use crate::shell::shell_word;
use crate::unit::Unit;
use crate::unit::own::{self, Other};

/// What the service has written last.
pub(super) const JOURNAL: &str = "journalctl --unit acr-cache-proxy --lines 20 --no-pager";

/// Says what of its unit systemd refuses, before what is to be done then.
pub(super) const VERIFY: &str =
    "systemd-analyze verify acr-cache-proxy.service  # put right what it says; then: systemctl daemon-reload && ";
/// Statuses from here on are systemd's own, of a program that it could not start (systemd.exec(5)).
const SYSTEMDS: u16 = 200;

/// What systemd knows of the service.
#[derive(Debug, Default)]
pub(super) struct Service {
    /// systemd can start it.
    pub has_unit: bool,
    /// `active`, `failed` and so on.
    pub state: Option<String>,
    /// The unit that keeps its sockets.
    pub socket: Option<Socket>,
    /// The addresses of that for which the settings have no listener, with which it does not start.
    pub lacks: Vec<Endpoint>,
    /// It is not started with the settings that doctor goes by.
    pub other: Option<Other>,
    /// What came of its last start or reload.
    pub last: Last,
    /// The program of the unit, if the process that runs was started from another file than that is by now.
    pub replaced: Option<String>,
}

/// What systemd and the journal tell of the last start or reload.
#[derive(Debug, Default)]
pub(super) struct Last {
    pub is_masked: bool,
    /// What systemd calls its unit if it starts nothing by it, such as `bad-setting`.
    pub refusal: Option<String>,
    /// How it has failed, a clause.
    pub failure: Option<String>,
    /// The last line that it has written, if it has failed.
    pub line: Option<String>,
    pub is_reload_refused: bool,
    pid: Option<u32>,
}

impl Last {
    async fn read() -> Self {
        const ALL: &str = "--property=LoadState,ActiveState,SubState,NRestarts,Result,ExecMainStatus,ReloadResult,InvocationID,MainPID";
        let Some(shown) = Properties::show(&[ALL, UNIT]).await else { return Self::default() };
        let mut last = Self::of(&shown);
        if last.failure.is_some()
            && let Some(journal) = journal(&shown)
        {
            let words: Vec<_> = journal.iter().map(String::as_str).collect();
            let lines = ask::program(&words).await.unwrap_or_default();
            last.line = lines.lines().find(|line| !line.is_empty()).map(quoted);
        }
        last
    }

    /// Pure.
    pub(super) fn of(shown: &Properties) -> Self {
        let failure = failure(shown).map(|how| match (shown.get("Result"), shown.get("ExecMainStatus")) {
            ("exit-code", status) => format!("{how} with status {status}"),
            ("" | "success", _) => how,
            (result, _) => format!("{how} ({result})"),
        });
        let is_reload_refused = !matches!(shown.get("ReloadResult"), "" | "success");
        let load = shown.get("LoadState");
        let refusal = matches!(load, "bad-setting" | "error").then(|| load.to_owned());
        let pid = shown.get("MainPID").parse().ok().filter(|pid| *pid != 0);
        Self { is_masked: load == "masked", refusal, failure, line: None, is_reload_refused, pid }
    }
}

/// Pure: the command whose first line says why a start has failed that has these properties. Lines of other starts say nothing of it.
pub(super) fn journal(shown: &Properties) -> Option<Vec<String>> {
    // Who was killed has not written why.
    let id = Some(shown.get("InvocationID")).filter(|id| !id.is_empty() && shown.get("Result") == "exit-code")?;
    let is_systemds = shown.get("ExecMainStatus").parse().is_ok_and(|status: u16| status >= SYSTEMDS);
    let which = match is_systemds {
        // It says its first mistake first, and then that the start has failed.
        true => ["--priority=err".to_owned(), format!("INVOCATION_ID={id}")],
        // What systemd itself writes of the unit has another identifier.
        false => ["--identifier=acr-cache-proxy".to_owned(), format!("_SYSTEMD_INVOCATION_ID={id}")],
    };
    let all = ["journalctl", "--quiet", "--no-pager", "--output=cat"].map(str::to_owned).into_iter().chain(which);
    Some(all.chain((!is_systemds).then(|| "--lines=1".to_owned())).collect())
}

impl Service {
    pub(super) async fn read(
        host: &Host,
        config: &Config,
        sockets: &Sockets,
        (file, given): (Option<&str>, &[(&'static str, String)]),
    ) -> Self {
        let has_unit = host.is_this() && host.has_unit(UNIT) && runs_systemd();
        if !has_unit {
            return Self::default();
        }
        let socket = sockets.own().cloned();
        let lacks = socket.as_ref().map(|socket| socket.lacks(config)).unwrap_or_default();
        let (state, last) = (unit_state(host).await, Last::read().await);
        let program = Unit::read(host, UNIT).command.first().cloned();
        let replaced = program.filter(|program| last.pid.is_some_and(|pid| is_replaced(Path::new(program), pid)));
        Self { has_unit, state, socket, lacks, other: own::other(host, file, given), last, replaced }
    }

    pub(super) fn is_active(&self) -> bool {
        self.state.as_deref() == Some("active")
    }

    /// Starts what is enabled: with the service alone, its socket unit could not be started after it.
    fn start(&self) -> String {
        let units = if self.socket.is_some() { format!("{SOCKET} {UNIT}") } else { UNIT.to_owned() };
        format!("systemctl enable --now {units} && systemctl status --no-pager {UNIT}")
    }

    /// Why it does not answer, as its last start or reload tells, and what to do; nothing if that tells nothing.
    fn by_last(&self, is_older: bool) -> Option<(String, String)> {
        let start = self.start();
        match &self.last {
            Last { is_masked: true, .. } => {
                Some(("its unit is masked".to_owned(), format!("systemctl unmask {UNIT} && {start}")))
            }
            Last { refusal: Some(refusal), .. } => {
                Some((format!("systemd refuses its unit ({refusal})"), format!("{VERIFY}{start}")))
            }
            Last { failure: Some(how), line, .. } => {
                let line = line.as_ref().map(|line| format!(": {line}")).unwrap_or_default();
                Some((
                    format!("its service {how}{line}"),
                    format!("{JOURNAL}  # put right what it says, if that is not done; then: {start}"),
                ))
            }
            Last { is_reload_refused: true, .. } if is_older => Some((
                "its service runs with earlier settings, because its last reload has failed".to_owned(),
                format!("{JOURNAL}  # put right what it says, if that is not done; then: {RELOAD}"),
            )),
            _ => None,
        }
    }
}

impl Facts {
    /// The service runs and has not read where it is to listen by now.
    pub(super) fn is_older(&self) -> bool {
        let Service { other, lacks, .. } = &self.service;
        !self.is_there && self.answers.is_err() && self.service.is_active() && other.is_none() && lacks.is_empty()
    }

    /// The service cannot start with these settings, so no engine can be judged by them.
    pub(in super::super) fn cannot_start(&self) -> bool {
        !self.is_there && !self.service.lacks.is_empty()
    }
}

/// What systemd says of the service: `active`, `failed` and so on; `None` where it has none.
pub(in super::super) async fn unit_state(host: &Host) -> Option<String> {
    if !host.is_this() || !host.has_unit(UNIT) || !runs_systemd() {
        return None;
    }
    let (_, said, _) = ask::run(&["systemctl", "is-active", UNIT], ask::PROGRAM_LIMIT).await.ok()?;
    Some(said.trim().to_owned()).filter(|state| !state.is_empty() && *state != "unknown")
}

/// Whether it runs, as far as is known, and why it does not answer.
pub(super) fn unanswered(
    facts: &Facts,
    cause: &io::Error,
    expected: &Expected<'_>,
    all: &str,
) -> (Option<bool>, Finding) {
    let at = &facts.at;
    if cause.kind() == io::ErrorKind::InvalidData {
        return (None, stranger(at, format!("what answers at {at} is not this proxy: {cause}"), expected));
    }
    let told = told(cause);
    if facts.is_there {
        // A second process would find the address in use.
        let who = who_listens(at);
        let command = match facts.service.has_unit {
            true => format!("{who}; systemctl restart {UNIT}"),
            false => format!(
                "{who}  # if that is the proxy and it stands still: kill -CONT its process, or end it and start it again"
            ),
        };
        let text = format!("at {at} somebody takes connections, and does not answer: {told}");
        return (None, down(text, format!("pulls of {all} wait for it, and then go to the source or fail"), command));
    }
    if let Some(finding) = by_service(&facts.service, facts, &told, expected) {
        return (Some(facts.service.is_active()), finding);
    }
    if let Some((why, command)) = facts.service.by_last(facts.is_older()) {
        let runs = facts.service.is_active();
        return (
            Some(runs),
            down(format!("nothing answers at {at}: {told}, and {why}"), without_it(expected), command),
        );
    }
    if facts.is_older() {
        let text = format!("nothing answers at {at}: {told}, and its service runs: it has earlier settings");
        let why = "until it reads its settings again, an engine that is sent there gets no answer".to_owned();
        return (Some(true), down(text, why, format!("{RELOAD} && systemctl status --no-pager {UNIT}")));
    }
    let start = if facts.is_elsewhere {
        format!("curl --verbose --max-time 10 {}/v2/", shell_word(at))
    } else if facts.service.has_unit {
        facts.service.start()
    } else {
        let program = format!("acr-cache-proxy{}", expected.settings);
        facts.variables.as_ref().map_or(program.clone(), |(path, variables)| {
            Variables::command(variables, &shell_word(&path.display().to_string()), &program)
        })
    };
    (Some(false), down(format!("nothing answers at {at}: {told}"), without_it(expected), start))
}

/// The service answers, and its socket unit has other addresses, or does not keep its sockets although it is enabled.
pub(super) fn beside_socket(facts: &Facts, expected: &Expected<'_>) -> Option<Finding> {
    let socket = facts.service.socket.as_ref().filter(|_| facts.service.is_active())?;
    if !facts.service.lacks.is_empty() {
        return Some(lacking(&facts.service, expected));
    }
    if socket.is_active {
        return None;
    }
    Some(Finding {
        code: Code::Failed,
        ..down(
            format!("the proxy runs, and {SOCKET}, which is enabled, keeps no socket for it"),
            "while the proxy restarts, clients are refused in place of waiting, and go to the source or fail"
                .to_owned(),
            format!("systemctl restart {SOCKET} {UNIT}"),
        )
    })
}

/// Why the service, as systemd has it, does not answer by these settings.
fn by_service(service: &Service, facts: &Facts, told: &str, expected: &Expected<'_>) -> Option<Finding> {
    let at = &facts.at;
    if !service.lacks.is_empty() {
        return Some(lacking(service, expected));
    }
    let is_asked = |socket: &Socket| socket.is_alone() && socket.at.iter().any(|one| one.to_string() == *at);
    if service.socket.as_ref().is_some_and(is_asked) {
        let state = service.state.as_deref().unwrap_or("inactive");
        return Some(down(
            format!("nothing serves at {at}: {UNIT} is {state}, and {SOCKET} starts it for whoever connects"),
            "the next pull waits for its start, and for its first sign-in; doctor does not connect, which would start it"
                .to_owned(),
            format!("systemctl start {UNIT} && systemctl status --no-pager {UNIT}"),
        ));
    }
    let other = service.other.as_ref().filter(|_| service.is_active())?;
    let Other { file, flags, is_former } = other;
    let (text, command) = match is_former {
        true => (
            format!("nothing answers at {at}: {told}, and its service runs with flags of before: {flags}"),
            format!("systemctl daemon-reload && systemctl restart {UNIT}"),
        ),
        false => (
            format!(
                "nothing answers at {at}: {told}, and its service runs with other settings: ExecStart= has {flags}"
            ),
            format!(
                "${{EDITOR:-vi}} {} && systemctl daemon-reload && systemctl restart {UNIT}  # ExecStart= with{}; or judge by what it has: acr-cache-proxy doctor {flags}",
                shell_word(file),
                expected.settings
            ),
        ),
    };
    let settings = expected.file.as_deref().unwrap_or("the settings");
    let why = format!("the proxy does not go by {settings}: an engine that is sent where that says gets no answer");
    Some(Finding { file: (!is_former).then(|| file.clone()), ..down(text, why, command) })
}

/// The socket unit has an address that the settings do not have.
fn lacking(service: &Service, expected: &Expected<'_>) -> Finding {
    let settings = expected.file.as_deref().unwrap_or("the settings");
    let lacks: Vec<_> = service.lacks.iter().map(ToString::to_string).collect();
    let lacks = listed(&lacks.iter().map(String::as_str).collect::<Vec<_>>());
    let is_kept = service.socket.as_ref().is_some_and(|socket| socket.is_active);
    let goes_on = match (service.is_active(), is_kept) {
        (true, true) => {
            "the proxy that runs goes on with its earlier settings, and takes these at no reload and no start"
        }
        (true, false) => "the proxy runs while that unit does not, and does not start with it, as after the next boot",
        (false, _) => "the proxy does not start with it: engines get no answer, and pulls go to the source or fail",
    };
    Finding {
        code: Code::Settings,
        ..down(
            format!("{SOCKET} has ListenStream= of {lacks}, and no listener of {settings} has this address"),
            goes_on.to_owned(),
            format!(
                "systemctl edit --full {SOCKET} && systemctl restart {SOCKET} {UNIT}  # or change listen and admin of {settings}: both are to be the same"
            ),
        )
    }
}

fn down(text: String, why: String, command: impl Into<String>) -> Finding {
    let fix: Fix = by_hand(command);
    Finding { registries: Vec::new(), code: Code::Down, file: None, text, why, fix }
}

/// What comes of pulls while no proxy answers.
pub(super) fn without_it(expected: &Expected<'_>) -> String {
    let of = |is_meant: fn(&Registry) -> bool| -> Vec<&str> {
        let meant = expected.registries.iter().filter(|(_, routed)| is_meant(routed));
        meant.map(|(name, _)| *name).collect()
    };
    let (open, closed) = (of(|routed| routed.open), of(|routed| routed.closed));
    // They have no setting against it, or one for all registries together.
    let fail = format!(
        "pulls of {} fail, because their routes are closed, but for those of engines that ask the source all the same: dockerd by daemon.json, BuildKit, and k3s and RKE2 as they are by default",
        listed(&closed)
    );
    let past = format!("pulls of {} go to the source, and nobody is told", listed(&open));
    match (open.is_empty(), closed.is_empty()) {
        (false, true) => past,
        (true, _) => fail,
        (false, false) => format!("{past}; {fail}"),
    }
}
