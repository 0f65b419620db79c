//! A run: preflight, the levels one after the other, report.

use std::any::Any;
use std::future::Future;
use std::io::Write as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::client::{Connector, Pool};
use crate::load;
use crate::options::Options;
use crate::plan::Plan;
use crate::progress;
use crate::pull::{Job, Layers, Order, inspect};
use crate::report::{self, Report};
use crate::route::Route;
use crate::tally::Ledger;

/// After so long without an answer to the first requests it is said what is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// `timeout` and service managers signal a process and its group: two signals within this time are one.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// What is measured.
pub struct Subject {
    /// One side, or both: first the proxy, then the registry.
    pub routes: Vec<Route>,
    /// Opens connections to all hosts.
    pub connector: Connector,
    /// The round-trip time, if the registry is an emulator.
    pub rtt: Option<Duration>,
    /// Whatever has to live until the run ends, such as that emulator.
    pub guard: Box<dyn Any + Send>,
}

/// How the program was called, for the report.
pub struct Invocation {
    /// In UTC (RFC 3339).
    pub date: String,
    /// The command line, ready to be pasted into a shell.
    pub command: String,
    /// Whose variables sign in, a sentence each.
    pub variables: Vec<String>,
}

/// Measures and writes the report; `prepare` runs inside the runtime. Ctrl-C or SIGTERM ends the load and leads to the report;
/// a second one ends everything at once. The error is one sentence.
pub fn run(
    options: &Options,
    invocation: Invocation,
    prepare: impl Future<Output = Result<Subject, String>>,
) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|cause| format!("runtime: {cause}"))?;
    let outcome = runtime.block_on(until_interrupted_twice(options, invocation, prepare));
    // Tasks that are left were abandoned by the end of the load.
    runtime.shutdown_background();
    outcome
}

async fn until_interrupted_twice(
    options: &Options,
    invocation: Invocation,
    prepare: impl Future<Output = Result<Subject, String>>,
) -> Result<(), String> {
    let (sender, stop) = watch::channel(false);
    let listen = |kind| signal(kind).map_err(|cause| format!("signals: {cause}"));
    let (mut interrupts, mut terminations) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut signalled = async move || {
        tokio::select! {
            _ = interrupts.recv() => {}
            _ = terminations.recv() => {}
        }
    };
    let interrupted_twice = async move {
        signalled().await;
        sender.send_replace(true);
        let first = Instant::now();
        while first.elapsed() < SAME_SIGNAL {
            signalled().await;
        }
    };
    tokio::select! {
        outcome = measure_and_report(options, invocation, prepare, stop) => outcome,
        () = interrupted_twice => Err("interrupted".to_owned()),
    }
}

async fn measure_and_report(
    options: &Options,
    invocation: Invocation,
    prepare: impl Future<Output = Result<Subject, String>>,
    stop: watch::Receiver<bool>,
) -> Result<(), String> {
    let mut interrupted = stop.clone();
    let ready = async { Ready::new(options, invocation, prepare.await?).await };
    let ready = tokio::select! {
        ready = ready => ready?,
        _ = interrupted.wait_for(|stop| *stop) => return Err("interrupted before the first pull".to_owned()),
    };
    let report = ready.measure(options, stop).await;
    let outputs = options.outputs.clone();
    // Percentiles and bootstraps take some processor time.
    tokio::task::spawn_blocking(move || report.write(&outputs)).await.map_err(|cause| format!("report: {cause}"))?
}

/// A run whose preflight succeeded.
struct Ready {
    plan: Arc<Plan>,
    connector: Arc<Connector>,
    about: report::About,
    _guard: Box<dyn Any + Send>,
}

impl Ready {
    async fn new(options: &Options, invocation: Invocation, subject: Subject) -> Result<Self, String> {
        let connector = Arc::new(subject.connector);
        let plan = Plan {
            routes: subject.routes,
            mix: options.mix.clone(),
            platform: options.platform.clone(),
            layers: options.layers,
            pulls: options.pulls,
            duration: options.duration,
            seed: rand::random(),
        };
        let images = preflight(&plan, &connector).await?;
        let about = report::About {
            date: invocation.date,
            command: invocation.command,
            variables: invocation.variables,
            images,
            platform: plan.platform.to_string(),
            layers: plan.layers,
            sides: plan.routes.iter().map(|route| (route.side, route.name())).collect(),
            rtt: subject.rtt,
        };
        Ok(Self { plan: Arc::new(plan), connector, about, _guard: subject.guard })
    }

    /// All levels, or those before the signal to end.
    async fn measure(&self, options: &Options, stop: watch::Receiver<bool>) -> Report {
        let mut runs = Vec::new();
        for &level in &options.levels {
            if *stop.borrow() {
                break;
            }
            let ledger = Arc::new(Ledger::new(&self.plan));
            let elapsed = tokio::select! {
                elapsed = load::run(&self.plan, &self.connector, level, &ledger, stop.clone()) => elapsed,
                () = progress::show(&self.plan, level, &ledger) => Duration::ZERO,
            };
            let tally = ledger.close();
            runs.push(report::Run { level, elapsed, tally });
        }
        let interrupted = *stop.borrow();
        Report { about: self.about.clone(), runs, interrupted }
    }
}

/// Pulls each image once on each side, without its layers, so that a wrong image, host or credential is an error before the
/// run. It also makes the registry fetch what it has not cached yet.
async fn preflight(plan: &Plan, connector: &Arc<Connector>) -> Result<Vec<report::Sized>, String> {
    let mut images = Vec::new();
    for image in plan.mix.images() {
        let mut size = None;
        for route in &plan.routes {
            let job = Job { image, platform: &plan.platform, layers: Layers::None, order: Order::Docker };
            let pool = Pool::new(Arc::clone(connector), 1);
            let late = || {
                // Nobody can be told that standard error is closed.
                let _ =
                    writeln!(std::io::stderr(), "bench: {route}: no answer yet, waiting for the manifest of {image}");
            };
            let inspected = if_late(inspect(route, &pool, job), late).await;
            size = Some(inspected.map_err(|failure| format!("{route}: {}", failure.sentence))?);
        }
        let size = size.unwrap_or_default();
        images.push(report::Sized { name: image.to_string(), layers: size.layers, bytes: size.bytes });
    }
    Ok(images)
}

/// Calls `late` if the future takes longer than [`PATIENCE`], and goes on waiting.
async fn if_late<T>(future: impl Future<Output = T>, late: impl FnOnce()) -> T {
    let mut future = pin!(future);
    tokio::select! {
        value = &mut future => return value,
        () = tokio::time::sleep(PATIENCE) => late(),
    }
    future.await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_side_that_is_silent_is_named_while_it_is_waited_for() {
        for (seconds, is_said) in [(2, false), (40, true)] {
            let said = Cell::new(false);
            if_late(tokio::time::sleep(Duration::from_secs(seconds)), || said.set(true)).await;
            assert_eq!(said.get(), is_said, "{seconds}");
        }
    }
}
