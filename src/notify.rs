//! What the service manager is told, by the protocol of sd_notify(3). Without `NOTIFY_SOCKET`, nothing is sent.
//!
//! - `READY=1`: the proxy listens. `X_LISTEN_ADDRESS=` comes with it: the address of each listener, separated by
//!   blanks, for a parent process that asked for port 0. systemd ignores variables whose names begin with `X_`.
//! - `STATUS=`: the address, and for each registry whether there is a token; `systemctl status` shows it.
//! - `STOPPING=1`: a signal has come, and requests under way are finished.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use log::warn;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use sd_notify::NotifyState;
use tokio::time::timeout;

use crate::proxy::{Table, upstreams};

/// Set by the service manager, or by a parent process: a datagram socket of the file system.
pub(crate) const SOCKET: &str = "NOTIFY_SOCKET";
/// The addresses of the listeners, sent with `READY=1`.
pub(crate) const LISTEN_ADDRESS: &str = "X_LISTEN_ADDRESS";
/// Between two looks at the tokens. The status is read by people.
const STATUS_STEP: Duration = Duration::from_secs(1);

/// Tells the service manager how the proxy is.
pub(crate) struct Notifier {
    listen: Vec<SocketAddr>,
    routes: Arc<Table>,
}

impl Notifier {
    /// Says that the proxy listens. `None` without a notify socket; otherwise, the value
    /// runs as a service and reports the status.
    pub(crate) fn ready(listen: Vec<SocketAddr>, routes: Arc<Table>) -> Option<Self> {
        std::env::var_os(SOCKET).filter(|socket| !socket.is_empty())?;
        let notifier = Self { listen, routes };
        let addresses: Vec<_> = notifier.listen.iter().map(ToString::to_string).collect();
        let address = format!("{LISTEN_ADDRESS}={}", addresses.join(" "));
        let states = [NotifyState::Ready, NotifyState::Custom(&address), NotifyState::Status(&notifier.status())];
        if let Err(cause) = sd_notify::notify(&states) {
            warn!("{SOCKET}: the service manager is not told that the proxy listens: {cause}");
        }
        Some(notifier)
    }

    fn status(&self) -> String {
        let addresses: Vec<_> = self.listen.iter().map(|address| format!("http://{address}")).collect();
        let mut status = format!("listening on {}", addresses.join(", "));
        for upstream in upstreams(&self.routes) {
            let (registry, state) = (upstream.domain.authority(), upstream.tokens.readiness());
            status += &match (state.ready, state.failure) {
                (true, None) => format!("; {registry}: ready"),
                (true, Some(failure)) => format!("; {registry}: ready, renewal fails: {}", failure.message),
                (false, None) => format!("; {registry}: the first sign-in is under way"),
                (false, Some(failure)) => format!("; {registry}: no token: {}", failure.message),
            };
        }
        // A line break would begin another variable.
        status.replace(char::is_control, " ")
    }
}

#[async_trait]
impl BackgroundService for Notifier {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut sent = String::new();
        // A status that is not received is of no consequence, so errors are ignored from here on.
        while timeout(STATUS_STEP, shutdown.wait_for(|stop| *stop)).await.is_err() {
            let status = self.status();
            if status != sent {
                let _ = sd_notify::notify(&[NotifyState::Status(&status)]);
                sent = status;
            }
        }
    }
}

/// Says that the proxy stops as soon as the requests under way are finished.
pub(crate) fn stopping(requests: usize) {
    let status = format!("stopping: {requests} requests under way");
    let _ = sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status(&status)]);
}
