//! Ending well: signals, and a drain that takes as long as the last request and no longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use log::{error, info, warn};
use pingora_core::server::{ExecutionPhase, Server, ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;

/// Requests under way may finish for this long after SIGTERM; a kubelet kills after 30 s.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(25);
/// How often the drain looks whether the last request has ended.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// SIGTERM and SIGQUIT drain, SIGINT ends at once. SIGHUP, which would kill a process that ignores the matter,
/// is answered in the log: there is no reload yet.
pub struct Signals;

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let (mut terminate, mut quit) = (
            Watched::new(SignalKind::terminate()),
            Watched::new(SignalKind::quit()),
        );
        let (mut interrupt, mut hangup) = (
            Watched::new(SignalKind::interrupt()),
            Watched::new(SignalKind::hangup()),
        );
        loop {
            tokio::select! {
                () = terminate.recv() => return ShutdownSignal::GracefulTerminate,
                () = quit.recv() => return ShutdownSignal::GracefulTerminate,
                () = interrupt.recv() => return ShutdownSignal::FastShutdown,
                () = hangup.recv() => warn!("SIGHUP: settings are read at the start only, restart to change them"),
            }
        }
    }
}

/// A signal that never comes if the system refuses the handler, which is said once.
struct Watched(Option<Signal>);

impl Watched {
    fn new(kind: SignalKind) -> Self {
        Self(
            signal(kind)
                .inspect_err(|cause| error!("signal handler: {cause}"))
                .ok(),
        )
    }

    async fn recv(&mut self) {
        match &mut self.0 {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    }
}

/// Ends the process as soon as nothing is under way after a shutdown began, or at a second signal. Pingora would
/// sleep through the whole grace period, requests or not.
pub fn exit_when_drained(server: &Server, in_flight: Arc<AtomicUsize>) {
    let mut phases = server.watch_execution_phase();
    std::thread::spawn(move || {
        loop {
            match phases.blocking_recv() {
                Ok(ExecutionPhase::ShutdownGracePeriod) => break,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        else {
            return;
        };
        runtime.block_on(async {
            let waiting = in_flight.load(Ordering::Acquire);
            info!(
                "stopping: {waiting} requests under way, at most {} s",
                DRAIN_LIMIT.as_secs()
            );
            let drained = async {
                // The step first: a request whose header has just come in is counted by then.
                loop {
                    tokio::time::sleep(DRAIN_STEP).await;
                    if in_flight.load(Ordering::Acquire) == 0 {
                        break;
                    }
                }
            };
            let (mut terminate, mut interrupt) = (
                Watched::new(SignalKind::terminate()),
                Watched::new(SignalKind::interrupt()),
            );
            tokio::select! {
                () = drained => info!("stopped"),
                () = terminate.recv() => warn!("stopped by a second signal"),
                () = interrupt.recv() => warn!("stopped by a second signal"),
            }
        });
        std::process::exit(0);
    });
}
