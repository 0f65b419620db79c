//! Notifications to the service manager, by the protocol of sd_notify(3). Without `NOTIFY_SOCKET`, nothing is sent.
//!
//! - `READY=1`: the proxy listens. With it comes `X_LISTEN_ADDRESS=`, the addresses of the listeners for clients, separated
//!   by spaces, for a parent process that asked for port 0. systemd ignores variables whose names begin with `X_`.
//! - `RELOADING=1` with `MONOTONIC_USEC=`, then `READY=1`: the settings are read again.
//! - `STATUS=`: the addresses, and for each registry whether there is a token and whether it is down; `systemctl status` shows it.
//! - `WATCHDOG=1`, if it wants that: all that serves has answered, see [`watchdog`].
//! - `STOPPING=1`: a signal was received; the proxy ends after the requests under way. `EXTEND_TIMEOUT_USEC=` is how long that
//!   may take.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{self as unix, UnixDatagram};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use log::warn;
use pingora_core::server::ShutdownWatch;
use sd_notify::NotifyState;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use crate::load::Load;
use crate::proxy::{Table, upstreams};

pub(crate) mod watchdog;

use watchdog::Watchdog;

/// Set by the service manager, or by a parent process: a datagram socket of the file system, or with `@` before its name an
/// abstract one.
pub(crate) const SOCKET: &str = "NOTIFY_SOCKET";
/// The addresses of the listeners, sent with `READY=1`.
pub(crate) const LISTEN_ADDRESS: &str = "X_LISTEN_ADDRESS";
/// How often the status is compared with the last one sent. It depends on the clock, too: a token that is not renewed ends
/// without an event. People read the status, so a second is soon enough, and more is where all is well.
const STATUS_STEP: Duration = Duration::from_secs(1);
const CALM_STEP: Duration = Duration::from_secs(5);
/// A service manager that reads its socket makes room within this. Who does not read holds up neither start nor stop.
const SEND_LIMIT: Duration = Duration::from_millis(200);
/// What is cut off at the end of a drain is gone within this.
const EXIT_LIMIT: Duration = Duration::from_secs(5);

/// The addresses of the listeners for clients, and all listeners as a person reads them, with what they are for.
pub(crate) type Addresses = Box<dyn Fn() -> (Vec<SocketAddr>, Vec<String>) + Send + Sync>;

/// Sends the status to the service manager.
pub(crate) struct Notifier {
    listen: Addresses,
    begun: watch::Receiver<bool>,
    takes_over: bool,
    routes: Arc<Table>,
    load: Arc<Load>,
    /// Locked while the service runs, because Pingora starts a service by a shared reference.
    watchdog: Mutex<Option<Watchdog>>,
}

impl Notifier {
    /// Sends `READY=1` when clients are served (`begun`), and the status from then on; from a process that takes another's place
    /// (`takes_over`) a moment later, because systemd listens to it only when the other one has said so. `None` without a notify
    /// socket.
    pub(crate) fn new(
        listen: Addresses,
        begun: watch::Receiver<bool>,
        takes_over: bool,
        routes: Arc<Table>,
        load: Arc<Load>,
        watchdog: Option<Watchdog>,
    ) -> Option<Self> {
        name_of_socket()?;
        Some(Self { listen, begun, takes_over, routes, load, watchdog: Mutex::new(watchdog) })
    }

    /// Does all of it, from when clients are served until the process ends.
    pub(crate) async fn run(&self, shutdown: ShutdownWatch) {
        // An error means that the process ends.
        if self.begun.clone().wait_for(|begun| *begun).await.is_err() {
            return;
        }
        let feed = async {
            if let Some(watchdog) = &mut *self.watchdog.lock().await {
                watchdog.run().await;
            }
        };
        // Also during a drain.
        tokio::join!(self.tell(shutdown), feed);
    }

    fn send_ready(&self) -> io::Result<()> {
        let address = listen_address(&(self.listen)().0);
        send(&[NotifyState::Ready, NotifyState::Custom(&address), NotifyState::Status(&self.status().0)])
    }

    /// The second value is whether all is well.
    fn status(&self) -> (String, bool) {
        let mut is_well = true;
        let mut status = format!("listening on {}", (self.listen)().1.join(", "));
        for upstream in upstreams(&self.routes) {
            let (registry, state) = (upstream.domain.authority(), upstream.tokens.readiness());
            let down = upstream.health.why_down();
            is_well &= state.ready && state.failure.is_none() && down.is_none();
            status += &match (state.ready, state.failure, down) {
                (true, None, None) => format!("; {registry}: ready"),
                (true, None, Some(cause)) => {
                    format!("; {registry}: signed in, but it is down, and only what is kept is served: {cause}")
                }
                (true, Some(failure), _) => format!("; {registry}: ready, renewal fails: {}", failure.message),
                (false, None, _) => format!("; {registry}: the first sign-in is under way"),
                (false, Some(failure), _) => format!("; {registry}: no token: {}", failure.message),
            };
        }
        // A line break would begin a new variable.
        (status.replace(char::is_control, " "), is_well)
    }

    /// Tells that the proxy is ready, and its status from then on.
    async fn tell(&self, mut shutdown: ShutdownWatch) {
        let mut is_ready_due = self.takes_over
            || self.send_ready().is_err_and(|cause| {
                warn!("{SOCKET}: the service manager is not told that the proxy listens: {cause}");
                is_full(&cause)
            });
        let mut sent = String::new();
        // Errors are ignored from here on: a lost status does no harm.
        let mut step = STATUS_STEP;
        while timeout(step, shutdown.wait_for(|stop| *stop)).await.is_err() {
            if self.load.is_stopping() {
                return;
            }
            if is_ready_due {
                is_ready_due = self.send_ready().is_err_and(|cause| is_full(&cause));
                continue;
            }
            let (status, is_well) = self.status();
            step = if is_well { CALM_STEP } else { STATUS_STEP };
            if status != sent {
                let _ = send(&[NotifyState::Status(&status)]);
                sent = status;
            }
        }
    }
}

/// Sends `RELOADING=1`: the settings are read again. To be followed by [`reloaded`].
pub(crate) fn reloading() {
    // Both in one datagram, as systemd wants it.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        let _ = send(&[NotifyState::Reloading, now]);
    }
}

/// Sends `READY=1`: they have been, whatever came of it; and the addresses of the listeners for clients.
pub(crate) fn reloaded(listen: &[SocketAddr]) {
    let _ = send(&[NotifyState::Ready, NotifyState::Custom(&listen_address(listen))]);
}

fn listen_address(addresses: &[SocketAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    format!("{LISTEN_ADDRESS}={}", addresses.join(" "))
}

/// Sends `MAINPID=`: that process has taken the place of this one, and the service manager's messages are for it from now on.
pub(crate) fn replaced_by(pid: u32) {
    let _ = send(&[NotifyState::MainPid(pid)]);
}

/// Sends `STOPPING=1`: the proxy ends after the requests under way, within this time. systemd waits for it also if its own
/// `TimeoutStopSec=` is shorter.
pub(crate) fn stopping(requests: usize, within: Duration) {
    let status = format!("stopping: {requests} requests under way");
    let within = u32::try_from((within + EXIT_LIMIT).as_micros()).unwrap_or(u32::MAX);
    let _ = send(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(within), NotifyState::Status(&status)]);
}

/// Sends these states in one datagram. The crate's own `notify` knows no abstract socket, and waits for room without end.
fn send(states: &[NotifyState<'_>]) -> io::Result<()> {
    let Some(name) = name_of_socket() else { return Ok(()) };
    let mut datagram = String::new();
    for state in states {
        let _ = writeln!(datagram, "{state}");
    }
    socket()?.send_to_addr(datagram.as_bytes(), &address(&name)?).map(drop)
}

/// Where the service manager, or a parent process, listens.
fn name_of_socket() -> Option<OsString> {
    std::env::var_os(SOCKET).filter(|name| !name.is_empty())
}

/// One for all messages: where the process has no file descriptor left, the watchdog is fed all the same.
fn socket() -> io::Result<&'static UnixDatagram> {
    static SENDER: OnceLock<UnixDatagram> = OnceLock::new();
    if let Some(socket) = SENDER.get() {
        return Ok(socket);
    }
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_LIMIT))?;
    Ok(SENDER.get_or_init(|| socket))
}

fn address(name: &OsStr) -> io::Result<unix::SocketAddr> {
    if let Some(name) = name.as_bytes().strip_prefix(b"@") {
        return unix::SocketAddr::from_abstract_name(name);
    }
    unix::SocketAddr::from_pathname(name)
}

fn is_full(cause: &io::Error) -> bool {
    matches!(cause.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
