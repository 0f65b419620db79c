//! The proxy as a child process of this same program, for `demo` and `bench --emulated`.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::notify;

/// The child listens within milliseconds; this limit is for a very busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How often a child that is not ready is checked for its end.
const START_STEP: Duration = Duration::from_millis(50);
/// Limit of a notification, which has two or three lines.
const MAX_NOTIFICATION: usize = 8 << 10;
/// Lines at the end of the log that are shown if the child does not start: they have the reason.
const LAST_LINES: usize = 4;

/// A running proxy, killed when this value is dropped. If this process is killed first, the child sees the end of its
/// standard input and exits.
pub(crate) struct ProxyProcess {
    child: Child,
    address: SocketAddr,
}

impl ProxyProcess {
    /// Starts the proxy and blocks until it is ready. The notify socket is created at `path`; `on_line` gets every line of
    /// the log.
    pub(crate) fn start(
        arguments: &[String],
        variables: &[(&str, String)],
        path: &Path,
        on_line: impl Fn(&str) + Send + 'static,
    ) -> Result<Self, String> {
        let socket = UnixDatagram::bind(path).and_then(|socket| {
            socket.set_read_timeout(Some(START_STEP))?;
            Ok(socket)
        });
        let socket = socket.map_err(|cause| format!("{}: {cause}", path.display()))?;
        let binary = std::env::current_exe().map_err(|cause| format!("path of this program: {cause}"))?;
        let mut child = Command::new(binary)
            .args(["serve", "--exit-with-stdin"])
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .env(notify::SOCKET, path)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C then signals the parent only, which stops the child.
            .process_group(0)
            .spawn()
            .map_err(|cause| not_started(&cause))?;
        let stderr = child.stderr.take();
        // From here on, the child is killed on every return.
        let mut process = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let last_lines = std::thread::spawn(move || {
            let mut last = Vec::new();
            for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines()).map_while(Result::ok) {
                on_line(&line);
                if last.len() == LAST_LINES {
                    last.remove(0);
                }
                last.push(line.trim_start_matches("acr-cache-proxy: ").to_owned());
            }
            last
        });
        process.address = process.wait_until_ready(&socket, last_lines)?;
        Ok(process)
    }

    fn wait_until_ready(
        &mut self,
        socket: &UnixDatagram,
        last_lines: JoinHandle<Vec<String>>,
    ) -> Result<SocketAddr, String> {
        let deadline = Instant::now() + START_LIMIT;
        let mut buffer = vec![0; MAX_NOTIFICATION];
        while Instant::now() < deadline {
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    if let Some(address) = address(&String::from_utf8_lossy(&buffer[..length])) {
                        return Ok(address);
                    }
                }
                Err(cause) if matches!(cause.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if let Ok(Some(_)) = self.child.try_wait() {
                        let last = last_lines.join().unwrap_or_default();
                        return Err(format!("the proxy did not start: {}", last.join("; ")));
                    }
                }
                Err(cause) => return Err(format!("notify socket: {cause}")),
            }
        }
        Err(format!("the proxy was not ready within {} s", START_LIMIT.as_secs()))
    }

    /// The address it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Why this program could not be started a second time.
fn not_started(cause: &io::Error) -> String {
    let hint = if cause.raw_os_error() == Some(Errno::ENOEXEC as i32) {
        "it is for another processor than this machine's, and the emulator that runs it is not registered with binfmt_misc, so it cannot start itself again: "
    } else {
        ""
    };
    format!("proxy: {hint}{cause}")
}

/// The address in a notification that says that the proxy is ready.
fn address(notification: &str) -> Option<SocketAddr> {
    let value = |name| notification.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value("READY").filter(|ready| *ready == "1")?;
    value(notify::LISTEN_ADDRESS)?.split(' ').next()?.parse().ok()
}

impl Drop for ProxyProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory that only this user can read; removed when this value is dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Creates it; the error names its path.
    pub(crate) fn new(purpose: &str) -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!(
            "acr-cache-proxy-{purpose}-{}-{:08x}",
            std::process::id(),
            rand::random::<u32>()
        ));
        DirBuilder::new().mode(0o700).create(&path).map_err(|cause| format!("{}: {cause}", path.display()))?;
        Ok(Self(path))
    }

    /// The path of a file in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file into it.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<PathBuf, String> {
        let path = self.path(name);
        let write = || -> io::Result<()> {
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?.write_all(content.as_bytes())
        };
        write().map_err(|cause| format!("{}: {cause}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Under qemu it was "Exec format error" alone.
    #[test]
    fn a_program_for_another_processor_says_why_it_cannot_start_itself_again() {
        for (errno, says) in [
            (Errno::ENOEXEC, "proxy: it is for another processor than this machine's, "),
            (Errno::EAGAIN, "proxy: Resource temporarily unavailable"),
        ] {
            let said = not_started(&io::Error::from_raw_os_error(errno as i32));
            assert!(said.starts_with(says) && said.ends_with(&format!("(os error {})", errno as i32)), "{said}");
        }
    }

    #[test]
    fn only_the_notification_of_a_ready_proxy_gives_an_address() {
        for (notification, expected) in [
            ("READY=1\nX_LISTEN_ADDRESS=127.0.0.1:40123\nSTATUS=listening\n", Some("127.0.0.1:40123")),
            ("X_LISTEN_ADDRESS=[::1]:8080\nREADY=1", Some("[::1]:8080")),
            ("X_LISTEN_ADDRESS=127.0.0.1:40123\n", None),
            ("STATUS=READY=1\nX_LISTEN_ADDRESS=127.0.0.1:40123\n", None),
            ("READY=1\n", None),
            ("READY=1\nX_LISTEN_ADDRESS=localhost\n", None),
        ] {
            assert_eq!(address(notification).map(|address| address.to_string()).as_deref(), expected, "{notification}");
        }
    }
}
