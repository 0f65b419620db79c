//! Signals: which ones end the process, and when; which ones have its settings read again, or another process in its place.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use log::{error, info, warn};
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::drain::{Drained, drained};
use crate::config::Drain;
use crate::load::Load;
use crate::notify;

/// Another signal within this is the same one: supervisors signal the process and its group.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// SIGTERM, SIGINT, SIGQUIT: the drain. A second one, more than [`SAME_SIGNAL`] later, ends the process at once.
    End,
    /// SIGHUP: the settings are to be read again.
    Reload,
    /// SIGUSR2: another process is to take this one's place.
    Upgrade,
    /// SIGUSR1, by which other programs open their logs again. It would end the process without a drain.
    Nothing,
}

struct Signals {
    end: [Signal; 3],
    reload: Signal,
    upgrade: Signal,
    nothing: Signal,
}

impl Signals {
    /// Needs a runtime around it.
    fn new() -> io::Result<Self> {
        let end = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()].map(signal);
        let [terminate, interrupt, quit] = end;
        Ok(Self {
            end: [terminate?, interrupt?, quit?],
            reload: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
            nothing: signal(SignalKind::user_defined1())?,
        })
    }

    /// The next one. Cancel safe.
    async fn next(&mut self) -> Wish {
        let [terminate, interrupt, quit] = &mut self.end;
        tokio::select! {
            _ = terminate.recv() => Wish::End,
            _ = interrupt.recv() => Wish::End,
            _ = quit.recv() => Wish::End,
            _ = self.reload.recv() => Wish::Reload,
            _ = self.upgrade.recv() => Wish::Upgrade,
            _ = self.nothing.recv() => Wish::Nothing,
        }
    }

    /// Waits for an end that is not a repetition of the signal at `first`.
    async fn second_end(&mut self, first: Instant) {
        loop {
            match self.next().await {
                Wish::End if first.elapsed() > SAME_SIGNAL => return,
                Wish::End | Wish::Nothing => {}
                Wish::Reload | Wish::Upgrade => warn!("SIGHUP and SIGUSR2 do nothing any more: this process is ending"),
            }
        }
    }
}

type Upgrade = dyn Fn(&AtomicBool) -> Result<(), String> + Send + Sync;

/// What the process does at a signal.
pub(crate) struct Handlers {
    /// Reads the settings again. Must not block.
    pub reload: Box<dyn Fn() + Send>,
    /// Puts another process in this one's place and returns when that serves, or why it does not. Blocks, and gives up soon after
    /// the flag is set.
    pub upgrade: Arc<Upgrade>,
    /// The process is going to end: nobody is to ask it for anything but what its clients ask. Must not block.
    pub ending: Box<dyn Fn() + Send>,
    /// Takes in no more work from now on; true if another process does that. Must not block.
    pub stop: Box<dyn Fn(bool) + Send>,
    /// The drain is over, and nobody is told any more how this process does. Must not block.
    pub close: Box<dyn Fn() + Send>,
    /// Nothing is under way any more, and the process ends when this returns. May block for a moment.
    pub last: Box<dyn Fn() + Send>,
}

impl Handlers {
    /// Handles signals until the process is to end. True if another one has taken its place.
    async fn run(&self, signals: &mut Signals) -> bool {
        let cancelled = Arc::new(AtomicBool::new(false));
        let mut upgrade = None;
        loop {
            let replaced = async {
                match &mut upgrade {
                    Some(attempt) => attempt.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                wish = signals.next() => match wish {
                    Wish::End => break,
                    Wish::Reload => (self.reload)(),
                    Wish::Nothing => {
                        warn!("SIGUSR1 does nothing: SIGHUP has the settings read again, SIGUSR2 starts a new process");
                    }
                    Wish::Upgrade if upgrade.is_some() => warn!("SIGUSR2: a new process is being started already"),
                    Wish::Upgrade => {
                        let (replace, cancelled) = (Arc::clone(&self.upgrade), Arc::clone(&cancelled));
                        upgrade = Some(spawn_blocking(move || replace(&cancelled)));
                    }
                },
                outcome = replaced => {
                    upgrade = None;
                    match outcome.unwrap_or_else(|cause| Err(cause.to_string())) {
                        Ok(()) => return true,
                        Err(cause) => error!("upgrade: this process goes on: {cause}"),
                    }
                }
            }
        }
        cancelled.store(true, Ordering::Release);
        // The new process must not be left behind without anybody who tells it to serve.
        match upgrade {
            Some(attempt) => match attempt.await.unwrap_or_else(|cause| Err(cause.to_string())) {
                Ok(()) => true,
                Err(cause) => {
                    warn!("upgrade: {cause}");
                    false
                }
            },
            None => false,
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

/// Handles the process's signals from its return on, in a thread of its own. The value is for Pingora.
pub(crate) fn on_signals(load: Arc<Load>, settings: Arc<ArcSwap<Drain>>, handlers: Handlers) -> io::Result<End> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::new()?
    };
    let (end, ended) = watch::channel(false);
    std::thread::spawn(move || {
        let drained = runtime.block_on(async {
            let is_replaced = handlers.run(&mut signals).await;
            let first = Instant::now();
            (handlers.ending)();
            tokio::select! {
                drained = drain(&load, **settings.load(), is_replaced, &handlers) => drained,
                () = signals.second_end(first) => {
                    warn!("stopped by a second signal: {} requests under way are cut off", load.requests.count());
                    // For those of whom the notice kept this: nobody is to take them for ended by themselves.
                    (handlers.stop)(is_replaced);
                    Drained::CutOff
                }
            }
        });
        (handlers.close)();
        match drained {
            Drained::Whole => {
                (handlers.last)();
                log::logger().flush();
                std::process::exit(0);
            }
            Drained::CutOff => end.send_replace(true),
        }
    });
    Ok(End(ended))
}

/// The end of the process, step by step: it is not ready any more, then takes in no more work, then has none left. Where another
/// process has taken its place, balancers need no notice, and the service manager has heard of it.
async fn drain(load: &Load, Drain { notice, timeout }: Drain, is_replaced: bool, handlers: &Handlers) -> Drained {
    load.stop();
    if !is_replaced {
        notify::stopping(load.requests.count(), notice + timeout);
        if !notice.is_zero() {
            info!("stopping: not ready any more, and serving for another {} s", notice.as_secs());
            sleep(notice).await;
        }
    }
    (handlers.stop)(is_replaced);
    drained(load, timeout).await
}
