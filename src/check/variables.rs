//! The variables of the service. A unit gives them to the proxy and to the `check` before its start; whoever runs `check` by hand
//! does not have them, so it takes them from the file `environment` beside the configuration, as `init` does.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::report::Status;
use crate::environment_file::Variables;
use crate::identity;

/// The file beside the configuration, as in the directory of the package.
const FILE: &str = "environment";
/// Hidden: this process has the variables of that file already.
pub(crate) const FLAG: &str = "variables-of";
/// How the sign-in reaches the network. No other variable is taken but these and those of the sign-in: the file may be anybody's where
/// the configuration is, and some variables lead programs to code, such as `LD_PRELOAD`.
const OF_THE_NETWORK: [&str; 8] =
    ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"];
/// The process that systemd has started, by itself (systemd.exec(5)).
const SYSTEMD: &str = "SYSTEMD_EXEC_PID";
/// The service whose script runs, in OpenRC.
const OPENRC: &str = "RC_SVCNAME";

/// Takes the variables of the file beside this configuration, unless the environment says who signs in: starts this program anew with them,
/// which returns only if that fails. `taken` is the file that they have been taken from. Gives what is to be told of it.
pub(super) fn take(config: Option<&str>, taken: Option<&Path>) -> Vec<(Status, String)> {
    let beside = || config.and_then(|config| Path::new(config).parent()).map(|directory| directory.join(FILE));
    let Some(path) = taken.map(Path::to_owned).or_else(beside).filter(|_| !is_of_service()) else { return Vec::new() };
    if taken.is_none() && identity::is_told() {
        return left(&path);
    }
    let variables = match Variables::read(&path) {
        Ok(variables) => variables,
        Err(wrong) => {
            let what = "what it gives to the service is not known here, so what follows is of a proxy without it";
            return vec![(Status::Warning, format!("{wrong}: {what}: run check as root"))];
        }
    };
    let ignored =
        variables.ignored().iter().map(|sentence| (Status::Warning, format!("{}: {sentence}", path.display())));
    let ignored = ignored.collect();
    if taken.is_some() {
        let text = format!("with the variables of {}, as the unit gives them to the service", path.display());
        return [vec![(Status::Ok, text)], ignored].concat();
    }
    let is_known = |name: &str| identity::VARIABLES.contains(&name) || OF_THE_NETWORK.contains(&name);
    let wanted: Vec<_> = variables.iter().filter(|(name, _)| is_known(name) && !identity::is_set(name)).collect();
    if wanted.is_empty() {
        return ignored;
    }
    let failed = std::env::current_exe().map_or_else(|cause| cause, |program| anew(program, &path).envs(wanted).exec());
    let text = format!("{}: not taken, because this program could not be started anew: {failed}", path.display());
    [vec![(Status::Warning, text)], ignored].concat()
}

/// Says that the file does not count, if it has what the environment lacks.
fn left(path: &Path) -> Vec<(Status, String)> {
    let lacks = |name: &str| identity::VARIABLES.contains(&name) && !identity::is_set(name);
    let counts = Variables::read(path).is_ok_and(|variables| variables.iter().any(|(name, _)| lacks(name)));
    let text = format!("without the variables of {}, because the environment says who signs in", path.display());
    if counts { vec![(Status::Ok, text)] } else { Vec::new() }
}

/// The same command line.
fn anew(program: PathBuf, path: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).arg(format!("--{FLAG}")).arg(path);
    command
}

/// Whether a service manager has started this process: then its environment is that of the service.
fn is_of_service() -> bool {
    let by_systemd = std::env::var(SYSTEMD).is_ok_and(|id| id == std::process::id().to_string());
    by_systemd || std::env::var_os(OPENRC).is_some()
}
