//! Signals: which ones end the process, and when.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use log::warn;
use pingora_core::server::{ExecutionPhase, Server, ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio::time::Instant;

use super::drain::{Drained, drained};
use crate::load::Load;

/// Another signal within this is the same one: supervisors signal the process and its group.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// SIGTERM, SIGINT and SIGQUIT start the drain; a second one, more than [`SAME_SIGNAL`] later, ends the process at once. SIGHUP
/// would kill a process without a handler; there is no reload, so it only gets a line in the log.
struct Signals {
    end: [Signal; 3],
    hangup: Signal,
}

impl Signals {
    /// Needs a runtime around it.
    fn new() -> io::Result<Self> {
        let end = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()].map(signal);
        let [terminate, interrupt, quit] = end;
        Ok(Self { end: [terminate?, interrupt?, quit?], hangup: signal(SignalKind::hangup())? })
    }

    async fn end(&mut self) {
        let [terminate, interrupt, quit] = &mut self.end;
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                _ = quit.recv() => return,
                _ = self.hangup.recv() => warn!("SIGHUP: settings are read at the start only, restart to change them"),
            }
        }
    }

    /// Waits for a signal that is not a repetition of the one at `first`.
    async fn second(&mut self, first: Instant) {
        loop {
            self.end().await;
            if first.elapsed() > SAME_SIGNAL {
                return;
            }
        }
    }
}

/// Tells Pingora to end.
pub(crate) struct Shutdown(watch::Receiver<bool>);

#[async_trait]
impl ShutdownSignalWatch for Shutdown {
    async fn recv(&self) -> ShutdownSignal {
        // An error means that the thread of the signals is gone, and nobody else could end the process.
        let _ = self.0.clone().wait_for(|end| *end).await;
        ShutdownSignal::GracefulTerminate
    }
}

/// Handles the process's signals from its return on, in a thread of its own. After the first one the process ends as soon as
/// nothing is under way; Pingora itself would sleep through the whole grace period.
pub(crate) fn on_signals(server: &Server, load: Arc<Load>) -> io::Result<Shutdown> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::new()?
    };
    let (end, shutdown) = watch::channel(false);
    let mut phases = server.watch_execution_phase();
    std::thread::spawn(move || {
        let exits = runtime.block_on(async {
            signals.end().await;
            let first = Instant::now();
            end.send_replace(true);
            let drain = async {
                listeners_are_told(&mut phases).await;
                drained(&load).await
            };
            tokio::select! {
                end = drain => end == Drained::Whole,
                () = signals.second(first) => {
                    warn!("stopped by a second signal");
                    true
                }
            }
        });
        if exits {
            log::logger().flush();
            std::process::exit(0);
        }
    });
    Ok(Shutdown(shutdown))
}

/// Waits until Pingora has told all services to stop.
async fn listeners_are_told(phases: &mut broadcast::Receiver<ExecutionPhase>) {
    loop {
        match phases.recv().await {
            Ok(ExecutionPhase::ShutdownGracePeriod) | Err(RecvError::Closed) => return,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
        }
    }
}
