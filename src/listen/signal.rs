//! Signals: which ones end the process, and when.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use log::{info, warn};
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::drain::{Drained, drained};
use crate::config::Drain;
use crate::load::Load;
use crate::notify;

/// Another signal within this is the same one: supervisors signal the process and its group.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// SIGTERM, SIGINT and SIGQUIT start the drain; a second one, more than [`SAME_SIGNAL`] later, ends the process at once. SIGHUP
/// has the settings read again.
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

    async fn end(&mut self, mut on_hangup: impl FnMut()) {
        let [terminate, interrupt, quit] = &mut self.end;
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                _ = quit.recv() => return,
                _ = self.hangup.recv() => on_hangup(),
            }
        }
    }

    /// Waits for a signal that is not a repetition of the one at `first`.
    async fn second(&mut self, first: Instant) {
        loop {
            self.end(|| warn!("SIGHUP: the process is ending, settings are not read any more")).await;
            if first.elapsed() > SAME_SIGNAL {
                return;
            }
        }
    }
}

/// Tells Pingora to end at once, once the drain is over. The requests that are left then are dropped, and each has its line in
/// the log. Pingora itself would sleep through the whole time of a drain, and end the upkeep of tokens at its beginning.
pub(crate) struct End(watch::Receiver<bool>);

#[async_trait]
impl ShutdownSignalWatch for End {
    async fn recv(&self) -> ShutdownSignal {
        // An error means that the thread of the signals is gone, and nobody else could end the process.
        let _ = self.0.clone().wait_for(|end| *end).await;
        ShutdownSignal::GracefulTerminate
    }
}

/// Handles the process's signals from its return on, in a thread of its own. The first value tells those who take in work when
/// to take no more; the second is for Pingora. `reload` must not block.
pub(crate) fn on_signals(
    load: Arc<Load>,
    settings: Arc<ArcSwap<Drain>>,
    reload: impl Fn() + Send + 'static,
) -> io::Result<(ShutdownWatch, End)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::new()?
    };
    let ((stop, stopping), (end, ended)) = (watch::channel(false), watch::channel(false));
    std::thread::spawn(move || {
        let drained = runtime.block_on(async {
            signals.end(reload).await;
            let first = Instant::now();
            tokio::select! {
                drained = drain(&load, **settings.load(), &stop) => drained,
                () = signals.second(first) => {
                    warn!("stopped by a second signal: {} requests under way are cut off", load.requests.count());
                    // For those of whom the notice kept this: nobody is to take them for ended by themselves.
                    stop.send_replace(true);
                    Drained::CutOff
                }
            }
        });
        match drained {
            Drained::Whole => {
                log::logger().flush();
                std::process::exit(0);
            }
            Drained::CutOff => end.send_replace(true),
        }
    });
    Ok((stopping, End(ended)))
}

/// The end of the process, step by step: it is not ready any more, then takes in no more work, then has none left.
async fn drain(load: &Load, Drain { notice, timeout }: Drain, stop: &watch::Sender<bool>) -> Drained {
    load.stop();
    notify::stopping(load.requests.count(), notice + timeout);
    if !notice.is_zero() {
        info!("stopping: not ready any more, and serving for another {} s", notice.as_secs());
        sleep(notice).await;
    }
    stop.send_replace(true);
    drained(load, timeout).await
}
