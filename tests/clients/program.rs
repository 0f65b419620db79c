use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::home::Home;
use testkit::PATIENCE;

/// Where daemons are is not in every PATH.
const SYSTEM: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";
/// No test takes longer, so that a daemon is not left behind even if its test is killed.
pub const DAEMON_LIMIT: Duration = Duration::from_secs(600);
/// What ignores SIGTERM for so long is killed.
const TERM_LIMIT: Duration = Duration::from_secs(10);

/// A client's command that ends in time, with nothing of this process' environment: not its proxies, its CA, its
/// sign-ins.
pub fn client(program: &str, home: &Path, limit: Duration) -> Command {
    let mut command = Command::new("timeout");
    command
        .arg(format!("--kill-after={}", TERM_LIMIT.as_secs()))
        .arg(limit.as_secs().to_string())
        .arg(installed(program));
    command.env_clear().env("PATH", SYSTEM).env("HOME", home).current_dir(home).stdin(Stdio::null());
    command
}

/// Where a program is. A missing one fails the test, whose outcome would otherwise say less than it seems to.
pub fn installed(program: &str) -> PathBuf {
    let mut places = SYSTEM.split(':').map(|directory| Path::new(directory).join(program));
    places
        .find(|place| place.exists())
        .unwrap_or_else(|| panic!("{program} is not installed: run scripts/install test"))
}

/// Runs a command to its end, which has to be a good one; gives what it printed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().expect("a command starts");
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{printed}", output.status);
    printed
}

/// Runs a command to its end, which has to be a bad one; gives what it printed.
pub fn fail(command: &mut Command) -> String {
    let output = command.output().expect("a command starts");
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    // 124 is `timeout`'s own: it has not failed by itself.
    assert!(!matches!(output.status.code(), Some(0 | 124) | None), "{command:?}: {}\n{printed}", output.status);
    printed
}

/// A daemon. Dropping it ends the process, and shows its log if the test has failed.
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it in its home, by a command that has a limit, and waits until it is ready.
    pub fn start(name: &str, mut command: Command, home: &Home, ready: impl Fn() -> bool) -> Self {
        let log = home.path().join(format!("{name}.log"));
        let output = File::create(&log).expect("a log");
        let child = command
            .stdout(output.try_clone().expect("one file for both"))
            .stderr(output)
            .spawn()
            .expect("a daemon starts");
        let mut daemon = Self { name: name.to_owned(), child, log };
        let deadline = Instant::now() + PATIENCE;
        while !ready() {
            let ended = daemon.child.try_wait().expect("wait");
            assert!(ended.is_none() && Instant::now() < deadline, "{} does not listen: {ended:?}", daemon.name);
            // A socket of another process can only be tried; nothing depends on the step.
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // `timeout` passes the signal on, and has the last word after TERM_LIMIT.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}---", self.name, std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}
