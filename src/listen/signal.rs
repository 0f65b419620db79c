//! Ending well: signals, and a drain that takes as long as the last request and no longer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use log::{error, info, warn};
use pingora_core::server::{ExecutionPhase, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;

use crate::load::Load;

/// Requests under way may finish for this long after a signal; a kubelet kills after 30 s.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(25);
/// A client that is connected when the signal comes has this long to send a request to its header's end. On a new
/// connection it sends it at once, and gets no second chance: no client repeats what fails on a connection that was never
/// of use. On a kept one it may be on its way; it is answered, too, and told that the connection ends.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(1);
/// Another signal within this is the same one: supervisors signal the process and its group.
const SAME_SIGNAL: Duration = Duration::from_secs(1);
/// How often the drain looks whether the last request has ended.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// Counts what may still bring a request that nobody counts yet: listeners that are open, connections whose next request
/// has not come to the end of its header, and those of HTTP/2.
#[derive(Clone, Default)]
pub struct Arriving(Arc<AtomicUsize>);

impl Arriving {
    /// One more, until the value that is returned is dropped.
    pub fn enter(&self) -> Arrival {
        self.0.fetch_add(1, Ordering::AcqRel);
        Arrival(Arc::clone(&self.0))
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// One of them.
pub struct Arrival(Arc<AtomicUsize>);

impl Drop for Arrival {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// SIGTERM, SIGINT and SIGQUIT drain; a second one, more than a second later, ends at once. SIGHUP, which would kill a process that ignores
/// the matter, is answered in the log: there is no reload yet.
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
}

/// A signal that is not the one at `first` over again.
async fn another(signals: &mut Signals, first: Instant) {
    loop {
        signals.end().await;
        if first.elapsed() > SAME_SIGNAL {
            return;
        }
    }
}

/// Tells Pingora to end.
pub struct Shutdown(watch::Receiver<bool>);

#[async_trait]
impl ShutdownSignalWatch for Shutdown {
    async fn recv(&self) -> ShutdownSignal {
        // An error means that the sender is gone, and with it who could ever end this.
        let _ = self.0.clone().wait_for(|end| *end).await;
        ShutdownSignal::GracefulTerminate
    }
}

/// Takes over the process's signals; they are handled from its return on. After the first one the process ends as
/// soon as nothing is under way. Pingora itself would sleep through the whole grace period, requests or not.
pub fn on_signals(server: &Server, load: Arc<Load>, arriving: Arriving) -> io::Result<Shutdown> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::new()?
    };
    let (end, shutdown) = watch::channel(false);
    let mut phases = server.watch_execution_phase();
    std::thread::spawn(move || {
        let ends = runtime.block_on(async {
            signals.end().await;
            let first = Instant::now();
            end.send_replace(true);
            tokio::select! {
                ends = drained(&mut phases, &load, &arriving) => ends,
                () = another(&mut signals, first) => {
                    warn!("stopped by a second signal");
                    true
                }
            }
        });
        if ends {
            log::logger().flush();
            std::process::exit(0);
        }
    });
    Ok(Shutdown(shutdown))
}

/// True when no listener is open and no request is under way. False at the end of [`DRAIN_LIMIT`]: Pingora now drops the
/// requests that are left, each of which has its line in the log, and the process ends by itself.
async fn drained(phases: &mut broadcast::Receiver<ExecutionPhase>, load: &Load, arriving: &Arriving) -> bool {
    loop {
        match phases.recv().await {
            Ok(ExecutionPhase::ShutdownGracePeriod) | Err(RecvError::Closed) => break,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
        }
    }
    let begun = Instant::now();
    let waiting = load.requests.count();
    info!("stopping: {waiting} requests under way, at most {} s", DRAIN_LIMIT.as_secs());
    let (mut last, mut seen) = (begun, arriving.count());
    // The step first: a request whose header has just come in is counted by then.
    loop {
        tokio::time::sleep(DRAIN_STEP).await;
        let elapsed = begun.elapsed();
        // On a host that is short of processor, what has come long ago is still to be read: while some of it is, the time
        // of the others has not begun.
        let awaited = arriving.count();
        if awaited != seen {
            (last, seen) = (Instant::now(), awaited);
        }
        let left = load.requests.count();
        if left == 0 && (awaited == 0 || last.elapsed() > ARRIVAL_LIMIT) {
            info!("stopped");
            return true;
        }
        // Before Pingora's own clock has come so far.
        if elapsed + 2 * DRAIN_STEP > DRAIN_LIMIT {
            warn!("stopped after {} s: {left} requests under way are cut off", DRAIN_LIMIT.as_secs());
            return false;
        }
    }
}

/// Ends the process if a part of it that is for ever ends by itself, a panic included: without a listener, or with
/// nobody to renew tokens, it would look alive to whoever watches it.
pub struct MustNotEnd {
    part: &'static str,
    shutdown: ShutdownWatch,
}

impl MustNotEnd {
    /// Held by `part` for as long as it runs.
    pub fn new(part: &'static str, shutdown: ShutdownWatch) -> Self {
        Self { part, shutdown }
    }
}

impl Drop for MustNotEnd {
    fn drop(&mut self) {
        if !*self.shutdown.borrow() {
            error!("{} ended by itself, exiting", self.part);
            log::logger().flush();
            std::process::exit(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use tokio::sync::watch;

    use super::MustNotEnd;

    /// Set for this test program when a test runs it again, to see it end.
    const STOPPING: &str = "MUST_NOT_END_STOPPING";

    /// A part that panics; before the shutdown, or amid it.
    async fn part(stopping: bool) {
        let (_shutdown, watch) = watch::channel(stopping);
        let _alive = MustNotEnd::new("a part", watch);
        panic!("as a defect does");
    }

    #[test]
    fn a_part_that_panics_ends_the_process_unless_that_ends_anyway() {
        if let Ok(stopping) = std::env::var(STOPPING) {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let ended = runtime.block_on(runtime.spawn(part(stopping == "true")));
            assert!(ended.is_err_and(|cause| cause.is_panic()), "the panic was survived");
            return;
        }
        // 1 is the program's own word; 101 would be that of a failed test.
        for (stopping, status) in [("false", 1), ("true", 0)] {
            let this = std::env::current_exe().expect("a test program");
            let name = "listen::signal::tests::a_part_that_panics_ends_the_process_unless_that_ends_anyway";
            let output = Command::new(this).args(["--exact", name]).env(STOPPING, stopping).output().expect("it runs");
            assert_eq!(output.status.code(), Some(status), "{stopping}: {output:?}");
            assert_eq!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), status == 0, "{output:?}");
        }
    }
}
