//! Programs that end in time.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where daemons are is not in every PATH.
const SYSTEM: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";
/// What ignores SIGTERM for so long is killed.
const TERM_LIMIT: Duration = Duration::from_secs(10);

/// A client's command that ends in time, with nothing of this process' environment: not its proxies, its CA, its
/// sign-ins.
pub(crate) fn client(program: &str, home: &Path, limit: Duration) -> Command {
    let mut command = Command::new("timeout");
    command
        .arg(format!("--kill-after={}", TERM_LIMIT.as_secs()))
        .arg(limit.as_secs().to_string())
        .arg(installed(program));
    command.env_clear().env("PATH", SYSTEM).env("HOME", home).current_dir(home).stdin(Stdio::null());
    command
}

/// Where a program is. A missing one fails the test, whose outcome would otherwise say less than it seems to.
pub(crate) fn installed(program: &str) -> PathBuf {
    let mut places = SYSTEM.split(':').map(|directory| Path::new(directory).join(program));
    places
        .find(|place| place.exists())
        .unwrap_or_else(|| panic!("{program} is not installed: run scripts/install test"))
}

/// Runs a command to its end, which has to be a good one; gives what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().expect("a command starts");
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{printed}", output.status);
    printed
}

/// Runs a command to its end, which has to be a bad one; gives what it printed.
pub(crate) fn fail(command: &mut Command) -> String {
    let output = command.output().expect("a command starts");
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    // 124 is `timeout`'s own: it has not failed by itself.
    assert!(!matches!(output.status.code(), Some(0 | 124) | None), "{command:?}: {}\n{printed}", output.status);
    printed
}
