//! The way to the registry, tried by `check --online` as the service will go it: with the service's variables, not those of
//! whoever runs `init`.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use crate::environment_file::Variables;
use crate::service_variables;

/// Where `check` reads a configuration that is not written yet.
const STDIN: &str = "/dev/stdin";
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
pub(super) fn lacks(variables: &Variables, is_set: impl Fn(&str) -> bool) -> Vec<&'static str> {
    service_variables::names().filter(|name| is_set(name) && !variables.has(name)).collect()
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

    /// It had a list of its own, without ALL_PROXY, NO_PROXY and IMDS_ENDPOINT, and with what nobody reads.
    #[test]
    fn each_variable_that_the_proxy_reads_is_named_where_the_service_lacks_it_and_no_other() {
        let variables = Variables::parse("AZURE_TENANT_ID=a\nHTTPS_PROXY=http://192.0.2.1:3128");
        let mut expected: Vec<_> = service_variables::names().collect();
        assert_eq!(lacks(&variables, |_| false), Vec::<&str>::new());
        for name in ["ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "IMDS_ENDPOINT", "AZURE_CLIENT_SECRET"] {
            assert_eq!(lacks(&variables, |known| known == name), [name]);
        }
        expected.retain(|name| !["AZURE_TENANT_ID", "HTTPS_PROXY"].contains(name));
        assert_eq!(lacks(&variables, |_| true), expected);
    }
}
