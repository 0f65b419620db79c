//! A running proxy.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::log::Log;
use crate::{PATIENCE, program};

/// How often a process is checked.
const STEP: Duration = Duration::from_millis(10);
/// Limit of a notification, which has two or three lines.
const MAX_NOTIFICATION: usize = 8 << 10;

/// A running proxy. Dropping it kills the process.
pub struct Proxy {
    child: Child,
    log: Arc<Log>,
    /// `None` until it is ready.
    addresses: Option<Vec<SocketAddr>>,
    /// The temporary directory, removed with this value.
    files: tempfile::TempDir,
}

impl Proxy {
    pub(crate) fn new(child: Child, log: Arc<Log>, files: tempfile::TempDir) -> Self {
        Self { child, log, addresses: None, files }
    }

    /// Waits for the notification `READY=1`, which comes with the addresses.
    pub(crate) fn wait_until_ready(&mut self, notifications: &UnixDatagram) {
        notifications.set_read_timeout(Some(STEP)).expect("a socket");
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; MAX_NOTIFICATION];
        while self.addresses.is_none() {
            if let Ok(length) = notifications.recv(&mut buffer) {
                let notification = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let value = |name: &str| notification.lines().find_map(|line| line.strip_prefix(name));
                let addresses = value("X_LISTEN_ADDRESS=")
                    .and_then(|list| list.split_whitespace().map(|address| address.parse().ok()).collect());
                self.addresses = addresses.filter(|_| value("READY=") == Some("1"));
            } else {
                assert!(self.is_running() && Instant::now() < deadline, "it is not ready:\n{}", self.log());
            }
        }
    }

    /// The first address it listens on.
    pub fn address(&self) -> SocketAddr {
        *self.addresses().first().expect("it has a listener with an address")
    }

    /// All addresses it listens on for clients, in the order of the settings.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.addresses.as_deref().expect("started with Setup::start")
    }

    /// The path of a file in its temporary directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// `http://<address><path>`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits for the first line that contains `needle`.
    pub fn wait_for_log(&self, needle: &str) -> String {
        self.wait_until(needle, |log| log.lines().find(|line| line.contains(needle)).map(str::to_owned))
    }

    /// Waits for the first line that contains all of these.
    pub fn wait_for_line(&self, parts: &[&str]) -> String {
        self.wait_until(&parts.join(" ... "), |log| crate::line(log, parts).map(str::to_owned))
    }

    /// Waits until `look` returns `Some` for the log so far; the panic names `what` if it never does.
    pub fn wait_until<T>(&self, what: &str, look: impl Fn(&str) -> Option<T>) -> T {
        self.log.wait_until(what, look)
    }

    /// Stops it with SIGTERM and returns the whole log.
    pub fn end(mut self) -> String {
        self.signal("TERM");
        self.wait();
        self.log.wait_for_end()
    }

    /// The whole log of a process that has ended.
    pub fn end_of_log(&self) -> String {
        self.log.wait_for_end()
    }

    /// Its configuration file, to be read or changed.
    pub fn config(&self) -> PathBuf {
        self.files.path().join("config.yaml")
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Runs `acr-cache-proxy reload` for it: whether it has taken its settings, and what it says.
    pub fn reload(&self) -> (bool, String) {
        let reload = ["reload", "--pid", &self.id().to_string()];
        let output = Command::new(program::binary()).env_clear().args(reload).output().expect("the binary starts");
        let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
        (output.status.success(), said)
    }

    /// The same with this text as its configuration file.
    pub fn reload_with(&self, config: &str) -> (bool, String) {
        std::fs::write(self.config(), config).expect("written");
        self.reload()
    }

    /// Sends a signal by its name, as `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Waits for the process to end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(Instant::now() < deadline, "still running:\n{}", self.log());
            // The standard library has no wait with a time limit.
            std::thread::sleep(STEP);
        }
    }

    /// The number of its threads.
    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs").count()
    }

    /// Its peak resident memory, in bytes, as the kernel counts it.
    pub fn peak_resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("proc(5)");
        let kilobytes = line.trim().strip_suffix(" kB").and_then(|number| number.parse::<usize>().ok());
        kilobytes.expect("a number of kB") << 10
    }

    /// Its resident memory, in bytes, without the pages of the program, which are many in a debug build.
    pub fn resident_bytes(&self) -> usize {
        const PAGE: usize = 4096;
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).expect("it runs");
        let mut pages = statm.split(' ').skip(1).map(|pages| pages.parse::<usize>().expect("a number of pages"));
        let (resident, of_files) = (pages.next().expect("resident"), pages.next().expect("shared"));
        resident.saturating_sub(of_files) * PAGE
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the proxy\n{}---", self.log());
        }
    }
}
