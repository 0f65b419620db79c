//! The variables of the service. A unit gives them to the proxy and to the `check` before its start; whoever runs `check` or `bench` by
//! hand does not have them, so these take them from the unit's files, or from `environment` beside the configuration where no unit is known,
//! as `init` does, and leave out what the shell has in their place.

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
    let Some(unit) = own_unit() else { return of_file(path) };
    let value = |name: &str| unit.given(name).map(|(value, _)| value.into());
    let signs_in = identity::VARIABLES.into_iter().map(|name| (name, value(name).unwrap_or_default()));
    // Of the others the service manager may have some that stand in no file.
    signs_in.chain(OF_THE_NETWORK.into_iter().filter_map(|name| Some((name, value(name)?)))).collect()
}

/// The file by which the unit of this host's own service has this variable.
pub(crate) fn file_of(name: &str) -> Option<String> {
    own_unit()?.given(name).map(|(_, file)| file.to_owned())
}

fn own_unit() -> Option<Unit> {
    let unit = Unit::read(&Host::new(PathBuf::from("/")), OWN_UNIT);
    (!unit.command.is_empty() && unit.is_known_whole()).then_some(unit)
}

/// What a service has at its next start.
pub(crate) struct Given {
    pub variables: Variables,
    /// The files that they are of.
    pub files: Vec<String>,
    /// All that the unit gives it is known, and not only what the file has.
    is_by_unit: bool,
    /// Why secrets of the file are none.
    exposed: Option<String>,
}

impl Given {
    /// What the service has that is started with this configuration: by its unit, if that is the host's own, else by the file `environment`
    /// at `path`. The error is one sentence.
    pub(crate) fn read(config: Option<&Path>, path: &Path) -> Result<Self, String> {
        let own = config.and_then(|config| Unit::own_of(&Host::new(PathBuf::from("/")), config));
        Self::of(own.as_ref(), path)
    }

    fn of(unit: Option<&Unit>, path: &Path) -> Result<Self, String> {
        let of_file = Variables::read(path)?;
        let exposed = exposed(path, &of_file);
        let is_there = !matches!(fs::exists(path), Ok(false));
        let mut files: Vec<_> = is_there.then(|| path.display().to_string()).into_iter().collect();
        for (_, file) in unit.into_iter().flat_map(|unit| names().filter_map(|name| unit.given(name))) {
            if !files.iter().any(|known| known == file) {
                files.push(file.to_owned());
            }
        }
        let variables = match unit {
            Some(unit) => of_file.with(unit.gives()),
            None => of_file,
        };
        Ok(Self { variables, files, is_by_unit: unit.is_some(), exposed })
    }
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

/// Takes the variables of the service that is started with this configuration, unless the environment says who signs in: starts this program anew with them,
/// and without others that do the same, which returns only if that fails. `taken` is what has been taken already. Gives what is to be told
/// of it.
pub(crate) fn take(config: Option<&Path>, taken: Option<&Taken>) -> Vec<Told> {
    let beside = || config.and_then(Path::parent).map(|directory| directory.join(BESIDE));
    let path = taken.map(|taken| taken.file.clone()).or_else(beside).filter(|_| !is_of_service());
    let Some(path) = path else { return Vec::new() };
    let given = match Given::read(config, &path) {
        // Where there is none, as in a container, the environment is the proxy's.
        Ok(given) if given.files.is_empty() && !given.is_by_unit => return Vec::new(),
        Ok(given) if taken.is_none() && identity::is_told() => return left(&given),
        Err(_) if taken.is_none() && identity::is_told() => return Vec::new(),
        Ok(given) => given,
        Err(wrong) => return vec![unread(&path, &wrong)],
    };
    let ignored = given.variables.ignored().iter().chain(&given.exposed);
    let ignored: Vec<_> = ignored.map(|sentence| Told::Warning(format!("{}: {sentence}", path.display()))).collect();
    if let Some(taken) = taken {
        return told(taken, &given.files).chain(ignored).collect();
    }
    let is_known = |name: &str| names().any(|known| known == name);
    let differs = |name: &str, value: &str| std::env::var_os(name).is_none_or(|here| here != value);
    let all = given.variables.iter();
    let wanted: Vec<_> = all.filter(|(name, value)| is_known(name) && differs(name, value)).collect();
    let foreign = names().filter(|name| std::env::var_os(name).is_some() && !given.variables.has(name));
    let foreign: Vec<&str> = foreign.collect();
    if wanted.is_empty() && foreign.is_empty() {
        return ignored;
    }
    let failed =
        std::env::current_exe().map_or_else(|cause| cause, |program| anew(program, &path, wanted, &foreign).exec());
    let text = format!("{}: not taken, because this program could not be started anew: {failed}", path.display());
    std::iter::once(Told::Warning(text)).chain(ignored).collect()
}

/// That the file cannot be read, and why.
fn unread(path: &Path, wrong: &str) -> Told {
    let what = "what it gives to the service is not known here, so what follows is of a proxy without it";
    // What a file is, or has in it, is no better for root.
    let is_denied = |cause: &io::Error| cause.kind() == io::ErrorKind::PermissionDenied;
    let by_root = matches!(file::access(path), Err(FileError::Io(cause)) if is_denied(&cause));
    Told::Warning(format!("{wrong}: {what}{}", if by_root { ": run this as root" } else { "" }))
}

/// Why the secrets in it are none.
fn exposed(path: &Path, variables: &Variables) -> Option<String> {
    let is_open = path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & EVERYBODY != 0);
    let secret = identity::SECRETS.into_iter().find(|name| variables.has(name)).filter(|_| is_open)?;
    Some(format!("everybody on this host may read it, and so {secret}: make it root's alone, by chmod 600"))
}

/// Says whose variables count.
fn told(taken: &Taken, files: &[String]) -> impl Iterator<Item = Told> {
    let with = format!("with the variables of {}, as the service gets them at its next start", files.join(" and "));
    let (names, path) = (taken.left_out.join(", "), taken.file.display());
    let without = format!(
        "without {names}, set here and not for the service: what it needs of them goes into {path}, a line NAME=value each"
    );
    let lines = [Some(with).filter(|_| !files.is_empty()), Some(without).filter(|_| !names.is_empty())];
    lines.into_iter().flatten().map(Told::Fact)
}

/// Says that those of the service do not count, if it has what the environment lacks.
fn left(given: &Given) -> Vec<Told> {
    let lacks = |name: &str| identity::VARIABLES.contains(&name) && !identity::is_set(name);
    let counts = given.variables.iter().any(|(name, _)| lacks(name));
    let files = given.files.join(" and ");
    let text = format!("without the variables of {files}, because the environment says who signs in");
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

    /// `check` and `init` took only the file: a certificate by a drop-in was "not used", and a proxy by a drop-in was not gone through.
    #[test]
    fn variables_of_a_drop_in_are_the_services_as_well_as_those_of_the_file() {
        let root = tempfile::tempdir().expect("a directory");
        let put = |path: &str, content: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("in a directory")).expect("made");
            fs::write(&path, content).expect("written");
            path
        };
        let unit = "[Service]\nExecStart=/usr/bin/acr-cache-proxy --config /etc/acr-cache-proxy/config.yaml\n\
                    EnvironmentFile=-/etc/acr-cache-proxy/environment\n";
        put("usr/lib/systemd/system/acr-cache-proxy.service", unit);
        let drop_in = "[Service]\nEnvironment=HTTPS_PROXY=http://proxy:3128 AZURE_TENANT_ID=other\n\
                       Environment=AZURE_CLIENT_CERTIFICATE_PATH=%d/client.pem\n";
        put("etc/systemd/system/acr-cache-proxy.service.d/a.conf", drop_in);
        let file = put("etc/acr-cache-proxy/environment", "AZURE_TENANT_ID=tenant\nfoo\n");
        let host = Host::new(root.path().to_owned());
        let certificate = "/run/credentials/acr-cache-proxy.service/client.pem";
        for (config, expected) in [
            ("/etc/acr-cache-proxy/config.yaml", [Some("tenant"), Some("http://proxy:3128"), Some(certificate)]),
            ("/srv/other.yaml", [Some("tenant"), None, None]),
        ] {
            let unit = Unit::started_with(&host, config.as_ref());
            let given = Given::of(unit.as_ref(), &file).expect("read");
            let value = |name: &str| given.variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
            let values = ["AZURE_TENANT_ID", "HTTPS_PROXY", "AZURE_CLIENT_CERTIFICATE_PATH"].map(value);
            assert_eq!((values, given.is_by_unit), (expected, expected[1].is_some()), "{config}");
            assert_eq!(given.variables.ignored().len(), 1);
            assert_eq!(given.files.iter().any(|file| file.ends_with(".d/a.conf")), given.is_by_unit, "{config}");
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
