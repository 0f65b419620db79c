//! The way to the registry, tried by `check --online` as the service will go it: with the service's variables, not those of
//! whoever runs `init`.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use crate::environment_file::Variables;

/// Where `check` reads a configuration that is not written yet.
const STDIN: &str = "/dev/stdin";
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

/// Names of variables that are set here and not for the service, and that matter to the way.
pub(super) fn lacks(variables: &Variables, here: impl Iterator<Item = String>) -> Vec<String> {
    let matters = |name: &String| MATTERS.iter().any(|known| name.starts_with(known));
    let mut names: Vec<_> = here.filter(matters).filter(|name| !variables.has(name)).collect();
    names.sort_unstable();
    names
}

/// Tries the way by this text, which the report calls `place`. The error is one sentence.
pub(super) fn go(text: &str, place: &str, variables: &Variables) -> Result<Trial, String> {
    let failed = |cause: io::Error| format!("check: {cause}");
    let program = std::env::current_exe().map_err(failed)?;
    let mut child = Command::new(program)
        .args(["check", "--online", "--config", STDIN])
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(variables.iter())
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
    let report = String::from_utf8_lossy(&report).replace(STDIN, place);
    Ok(Trial { report, is_open: output.status.success() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_here_and_not_for_the_service_is_found_where_it_matters() {
        let variables = Variables::parse("AZURE_TENANT_ID=a");
        let here = ["PATH", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET", "HTTPS_PROXY", "EDITOR"];
        assert_eq!(lacks(&variables, here.map(str::to_owned).into_iter()), ["AZURE_CLIENT_SECRET", "HTTPS_PROXY"]);
    }
}
