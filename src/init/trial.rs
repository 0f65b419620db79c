//! The way to the registry, tried by `check --online` as the service will go it: with the service's variables, not those of
//! whoever runs `init`.

use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::environment_file;
use crate::file::{self, FileError};

/// Where `check` reads a configuration that is not written yet.
const STDIN: &str = "/dev/stdin";
/// The longest file of variables that is read; one line of it holds a secret.
const LONGEST: u64 = 1 << 20;
/// Beginnings and names of variables by which the sign-in and its connections are configured.
const MATTERS: [&str; 6] = ["AZURE_", "IDENTITY_", "HTTPS_PROXY", "https_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Hops of the table whose failure does not pass by itself, as one does for want of a role that is new.
const BASIS: [&str; 2] = ["dns", "identity"];

/// What came of it.
pub(super) struct Trial {
    /// The table of `check`.
    pub report: String,
    /// No hop fails.
    pub is_open: bool,
}

impl Trial {
    /// The registry's name is not known, or there is no identity, without which nothing can be served.
    pub(super) fn lacks_basis(&self) -> bool {
        let failed = |line: &str| {
            let mut words = line.split_whitespace();
            words.next() == Some("failed") && words.next().is_some_and(|hop| BASIS.contains(&hop))
        };
        self.report.lines().any(failed)
    }
}

/// The variables that the unit gives to the service.
pub(super) struct Variables(Vec<(String, String)>);

impl Variables {
    /// Of a file as systemd's `EnvironmentFile=` has it; none, if there is no file. The error is one sentence.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let at = path.to_owned();
        let wrong = |cause: &dyn std::fmt::Display| format!("{}: {cause}", path.display());
        match file::at_start(move || file::read(&at, LONGEST)).and_then(|content| content) {
            Ok(content) => match std::str::from_utf8(&content) {
                Ok(text) => Ok(Self(environment_file::parse(text))),
                Err(cause) => Err(wrong(&cause)),
            },
            Err(FileError::Io(cause)) if cause.kind() == ErrorKind::NotFound => Ok(Self(Vec::new())),
            Err(cause) => Err(wrong(&cause)),
        }
    }

    /// Names of variables that are set here and not there, and that matter to the way.
    pub(super) fn lacks(&self, here: impl Iterator<Item = String>) -> Vec<String> {
        let matters = |name: &String| MATTERS.iter().any(|known| name.starts_with(known));
        let mut names: Vec<_> =
            here.filter(matters).filter(|name| !self.0.iter().any(|(known, _)| known == name)).collect();
        names.sort_unstable();
        names
    }
}

/// Tries the way by this text, which is or will be at the path. The error is one sentence.
pub(super) fn go(text: &str, path: &Path, variables: &Variables) -> Result<Trial, String> {
    let failed = |cause: io::Error| format!("check: {cause}");
    let program = std::env::current_exe().map_err(failed)?;
    let mut child = Command::new(program)
        .args(["check", "--online", "--config", STDIN])
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(variables.0.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        // If it has ended, its report tells why.
        let _ = input.write_all(text.as_bytes());
    }
    // It ends within the limit of `check`.
    let output = child.wait_with_output().map_err(failed)?;
    let report = [output.stdout, output.stderr].concat();
    let report = String::from_utf8_lossy(&report).replace(STDIN, &path.display().to_string());
    Ok(Trial { report, is_open: output.status.success() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_variables_that_is_a_fifo_or_endless_is_no_wait_without_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("environment");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("made");
        let read =
            |path: &Path| Variables::read(path).map(|variables| variables.0).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(
            Variables::read(&path)
                .is_err_and(|wrong| wrong.ends_with("environment: it is a FIFO: name a regular file"))
        );
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(read(&path), []);
        std::fs::write(&path, "A=1\n").expect("written");
        assert_eq!(read(&path), [("A".to_owned(), "1".to_owned())]);
        assert!(Variables::read(Path::new("/dev/zero")).is_err());
    }

    #[test]
    fn what_is_set_here_and_not_for_the_service_is_found_where_it_matters() {
        let variables = Variables(environment_file::parse("AZURE_TENANT_ID=a"));
        let here = ["PATH", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET", "HTTPS_PROXY", "EDITOR"];
        assert_eq!(variables.lacks(here.map(str::to_owned).into_iter()), ["AZURE_CLIENT_SECRET", "HTTPS_PROXY"]);
    }
}
