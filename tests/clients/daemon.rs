//! Daemons that end with their test.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::home::Home;
use testkit::PATIENCE;

/// No test takes longer, not even a long run of `churn`. What is left when a test is killed ends with its namespace.
pub(crate) const DAEMON_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// A daemon. Dropping it ends the process, and shows its log if the test has failed.
pub(crate) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it in its home, by a command that has a limit, and waits until it is ready.
    pub(crate) fn start(name: &str, mut command: Command, home: &Home, ready: impl Fn() -> bool) -> Self {
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
        // `timeout` passes the signal on, and has the last word after its own limit.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}---", self.name, std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}
