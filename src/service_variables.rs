//! The variables of the service. A unit gives them to the proxy and to the `check` before its start; whoever runs `check` or `bench` by
//! hand does not have them, so these take them from the file `environment` beside the configuration, as `init` does, and leave out what
//! the shell has in their place.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::environment_file::{BESIDE, Variables};
use crate::file::{self, FileError};
use crate::host::Host;
use crate::identity;
use crate::installed::OWN_UNIT;
use crate::unit::Unit;

/// Hidden: this process has the variables of that file already.
pub(crate) const FLAG: &str = "variables-of";
/// Hidden: the names of those that were left out, because that file does not have them.
pub(crate) const LEFT_OUT: &str = "left-out";
/// How the sign-in reaches the network. No other variable is taken but these and those of the sign-in: the file may be anybody's where
/// the configuration is, and some variables lead programs to code, such as `LD_PRELOAD`.
const OF_THE_NETWORK: [&str; 8] =
    ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"];
/// The bit of a file's mode by which everybody reads it.
const EVERYBODY: u32 = 0o004;
/// The variable in which systemd tells `ExecReload=` the service's process.
pub(crate) const MAIN_PID: &str = "MAINPID";
/// What systemd gives to each process of a unit (systemd.exec(5)), and to all that such a process starts.
const INVOCATION: &str = "INVOCATION_ID";
/// The process that systemd has started, by itself (systemd.exec(5)), since release 248.
const SYSTEMD: &str = "SYSTEMD_EXEC_PID";
/// The service whose script runs, in OpenRC.
const OPENRC: &str = "RC_SVCNAME";

/// The file whose variables this process was started anew with.
#[derive(Debug)]
pub(crate) struct Taken {
    pub file: PathBuf,
    /// What the environment had and the file has not.
    pub left_out: Vec<String>,
}

/// Variables that the service has at its next start, or has by now; an empty one is none.
pub(crate) type Values<'a> = Vec<(&'a str, OsString)>;

/// The names of those that matter: by which a sign-in is configured, and by which it reaches the network.
pub(crate) fn names() -> impl Iterator<Item = &'static str> + Clone {
    identity::VARIABLES.into_iter().chain(OF_THE_NETWORK)
}

/// Those that this file gives to the service. What it does not have the unit may have elsewhere. Empty if it cannot be read.
pub(crate) fn of_file(path: &Path) -> Values<'static> {
    let Ok(variables) = Variables::read(path) else { return Vec::new() };
    // The last one counts.
    let value = |name: &str| variables.iter().filter(|(known, _)| *known == name).last().map(|(_, value)| value.into());
    names().filter_map(|name| Some((name, value(name)?))).collect()
}

/// The same of this host's own service: those of the sign-in are what its unit gives it, here or elsewhere; none is an empty one.
pub(crate) fn of_next_start(path: &Path) -> Values<'static> {
    let values = of_file(path);
    let unit = Unit::read(&Host::new(PathBuf::from("/")), OWN_UNIT);
    if unit.command.is_empty() || !unit.unknown.is_empty() {
        return values;
    }
    let value = |name: &str| unit.variable(name).map(|(value, _)| value.into()).unwrap_or_default();
    // Of the others the service manager may have some that stand in no file.
    let others = values.into_iter().filter(|(name, _)| !identity::VARIABLES.contains(name));
    identity::VARIABLES.into_iter().map(|name| (name, value(name))).chain(others).collect()
}

/// All of them, if systemd has started this process for the service whose main process is this one: it reads the files anew for each.
pub(crate) fn of_reload(main: u32) -> Option<Values<'static>> {
    let is_of_main = std::env::var(MAIN_PID).is_ok_and(|pid| pid == main.to_string());
    let all = || names().map(|name| (name, std::env::var_os(name).unwrap_or_default())).collect();
    (is_of_main && is_of_service()).then(all)
}

/// That a process has others than the service gets at its next start, a clause.
pub(crate) fn older(names: &[&str]) -> String {
    let value = if names.len() == 1 { "another value" } else { "other values" };
    format!("the process that runs was started with {value} of {}", names.join(", "))
}

/// What is to be told of the variables, a sentence.
#[derive(Debug)]
pub(crate) enum Told {
    /// Whose they are.
    Fact(String),
    /// Something that the file does not do as it seems to.
    Warning(String),
}

#[cfg(feature = "bench")]
impl Told {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Fact(text) | Self::Warning(text) => text,
        }
    }
}

/// Takes the variables of the file beside this configuration, unless the environment says who signs in: starts this program anew with them,
/// and without others that do the same, which returns only if that fails. `taken` is what has been taken already. Gives what is to be told
/// of it.
pub(crate) fn take(config: Option<&Path>, taken: Option<&Taken>) -> Vec<Told> {
    let beside = || config.and_then(Path::parent).map(|directory| directory.join(BESIDE));
    let path = taken.map(|taken| taken.file.clone()).or_else(beside).filter(|_| !is_of_service());
    // Where there is none, as in a container, the environment is the proxy's.
    let Some(path) = path.filter(|path| !matches!(fs::exists(path), Ok(false))) else { return Vec::new() };
    if taken.is_none() && identity::is_told() {
        return left(&path);
    }
    let variables = match Variables::read(&path) {
        Ok(variables) => variables,
        Err(wrong) => {
            let what = "what it gives to the service is not known here, so what follows is of a proxy without it";
            // What a file is, or has in it, is no better for root.
            let is_denied = |cause: &io::Error| cause.kind() == io::ErrorKind::PermissionDenied;
            let by_root = matches!(file::access(&path), Err(FileError::Io(cause)) if is_denied(&cause));
            return vec![Told::Warning(format!("{wrong}: {what}{}", if by_root { ": run this as root" } else { "" }))];
        }
    };
    let ignored = variables.ignored().iter().cloned().chain(exposed(&path, &variables));
    let ignored = ignored.map(|sentence| Told::Warning(format!("{}: {sentence}", path.display())));
    if let Some(taken) = taken {
        return told(taken).chain(ignored).collect();
    }
    let is_known = |name: &str| names().any(|known| known == name);
    let differs = |name: &str, value: &str| std::env::var_os(name).is_none_or(|here| here != value);
    let wanted: Vec<_> = variables.iter().filter(|(name, value)| is_known(name) && differs(name, value)).collect();
    let foreign = names().filter(|name| std::env::var_os(name).is_some() && !variables.has(name));
    let foreign: Vec<&str> = foreign.collect();
    if wanted.is_empty() && foreign.is_empty() {
        return ignored.collect();
    }
    let failed =
        std::env::current_exe().map_or_else(|cause| cause, |program| anew(program, &path, wanted, &foreign).exec());
    let text = format!("{}: not taken, because this program could not be started anew: {failed}", path.display());
    std::iter::once(Told::Warning(text)).chain(ignored).collect()
}

/// Why the secrets in it are none.
fn exposed(path: &Path, variables: &Variables) -> Option<String> {
    let is_open = path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & EVERYBODY != 0);
    let secret = identity::SECRETS.into_iter().find(|name| variables.has(name)).filter(|_| is_open)?;
    Some(format!("everybody on this host may read it, and so {secret}: make it root's alone, by chmod 600"))
}

/// Says whose variables count.
fn told(taken: &Taken) -> impl Iterator<Item = Told> {
    let path = taken.file.display();
    let with = format!("with the variables of {path}, as the unit gives them to the service at its next start");
    let names = taken.left_out.join(", ");
    let without = format!(
        "without {names}, set here and not for the service: what it needs of them goes into {path}, a line NAME=value each"
    );
    let lines = [Some(with), Some(without).filter(|_| !names.is_empty())];
    lines.into_iter().flatten().map(Told::Fact)
}

/// Says that the file does not count, if it has what the environment lacks.
fn left(path: &Path) -> Vec<Told> {
    let lacks = |name: &str| identity::VARIABLES.contains(&name) && !identity::is_set(name);
    let counts = Variables::read(path).is_ok_and(|variables| variables.iter().any(|(name, _)| lacks(name)));
    let text = format!("without the variables of {}, because the environment says who signs in", path.display());
    if counts { vec![Told::Fact(text)] } else { Vec::new() }
}

/// The command line as it was given, without what [`take`] has added at its end.
#[cfg(feature = "bench")]
pub(crate) fn given(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let added = format!("--{FLAG}");
    arguments.take_while(move |argument| *argument != *added)
}

/// The same command line with these variables, and without those.
fn anew(program: PathBuf, path: &Path, wanted: Vec<(&str, &str)>, foreign: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).arg(format!("--{FLAG}")).arg(path);
    command.envs(wanted);
    for name in foreign {
        command.env_remove(name);
        // Without a value it counts for nothing here either.
        if identity::is_set(name) {
            command.arg(format!("--{LEFT_OUT}={name}"));
        }
    }
    command
}

/// Whether a service manager has started this process: then its environment is that of the service.
fn is_of_service() -> bool {
    is_by_manager(|name| std::env::var_os(name), std::process::id(), std::os::unix::process::parent_id())
}

/// The same of a process with these variables, of this id and this parent.
fn is_by_manager(variable: impl Fn(&str) -> Option<OsString>, id: u32, parent: u32) -> bool {
    let by_systemd = match variable(SYSTEMD) {
        Some(started) => *started == *id.to_string(),
        // Before release 248 there is none. What is in the terminal of a desktop has the invocation of its session, and a shell as parent.
        None => parent == 1 && variable(INVOCATION).is_some(),
    };
    by_systemd || variable(OPENRC).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Root was told to run it as root.
    #[test]
    fn who_runs_it_matters_only_where_the_file_may_not_be_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let text = directory.path().join("latin1");
        fs::write(&text, b"A=\xe9\n").expect("written");
        for file in [directory.path().to_owned(), text, PathBuf::from("/dev/null")] {
            let told = take(None, Some(&Taken { file: file.clone(), left_out: Vec::new() }));
            let [Told::Warning(text)] = told.as_slice() else { panic!("{told:?}") };
            assert!(text.starts_with(&*file.to_string_lossy()) && !text.contains("root"), "{text}");
        }
    }

    /// Debian 11 has systemd 247: `check` of its unit took a file that it may not read for one that it lacks, at each start.
    #[test]
    fn a_systemd_that_does_not_tell_whom_it_has_started_is_known_by_its_invocation_and_as_the_parent() {
        for (variables, parent, expected) in [
            (&[][..], 1, false),
            (&[("SYSTEMD_EXEC_PID", "7"), ("INVOCATION_ID", "a")], 1, true),
            (&[("SYSTEMD_EXEC_PID", "6"), ("INVOCATION_ID", "a")], 1, false),
            (&[("INVOCATION_ID", "a")], 1, true),
            (&[("INVOCATION_ID", "a")], 6, false),
            (&[("RC_SVCNAME", "acr-cache-proxy")], 6, true),
        ] {
            let of = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
            assert_eq!(is_by_manager(of, 7, parent), expected, "{variables:?} {parent}");
        }
    }
}
