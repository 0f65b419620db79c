//! `bench`: pulls through the proxy against direct pulls, in turns, in one run.
//!
//! ```text
//! flags -> options     texts become values that cannot be wrong
//! emulated, wire       the stand-in for Azure and a proxy, a round trip away
//! load                 closed and open loop; which side first is chance
//!   pull               one pull: its phases, on either side
//!     direct           challenge and token, as docker answers them
//!     connection       HTTP over connections that are timed by themselves; origin: whom to ask
//!   record, pairs      histograms by side and phase; the difference, pull by pull
//! report               table, page, JSON, plots; output: where they go
//! ```

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::Config;
use crate::config::identity::Kind;
use crate::identity::Identity;
use crate::logger;
use crate::net::addresses::{Addresses, Names};
use crate::net::trust::TrustRoots;
use crate::token::acr::Registry;
use oci::route::Source;

pub mod chance;
pub mod connection;
pub mod direct;
pub mod emulated;
pub mod flags;
pub mod image;
pub mod load;
pub mod options;
pub mod origin;
pub mod output;
pub mod pairs;
pub mod phase;
mod progress;
pub mod pull;
pub mod record;
pub mod report;
pub mod wire;

use connection::{Connector, Pool};
use direct::SignIn;
use emulated::Emulated;
use image::{Image, Mix};
use load::{Ledger, Plan};
use options::{Options, Target};
use origin::Origin;
use pull::{Layers, Order, Route, Side, What};
use report::{Report, Run};

/// Measures, and writes the report. The error is one sentence.
pub fn run(options: &Options) -> Result<(), String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new().map_err(|cause| format!("bench: runtime: {cause}"))?;
    let outcome = runtime.block_on(bench(options));
    // What is under way was given up, and nobody waits for it.
    runtime.shutdown_background();
    outcome
}

/// `timeout` and service managers signal a process and its group, which is one wish told twice.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// Ctrl-C or SIGTERM ends the load and leads to the report; a second one ends everything at once.
async fn bench(options: &Options) -> Result<(), String> {
    let (sender, stop) = watch::channel(false);
    let listen = |kind| signal(kind).map_err(|cause| format!("bench: signals: {cause}"));
    let (mut interrupts, mut terminations) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut told = async move || {
        tokio::select! {
            _ = interrupts.recv() => {}
            _ = terminations.recv() => {}
        }
    };
    let interrupted_twice = async move {
        told().await;
        sender.send_replace(true);
        let first = Instant::now();
        while first.elapsed() < SAME_SIGNAL {
            told().await;
        }
    };
    tokio::select! {
        outcome = measure_and_report(options, stop) => outcome,
        () = interrupted_twice => Err("bench: interrupted".to_owned()),
    }
}

async fn measure_and_report(options: &Options, stop: watch::Receiver<bool>) -> Result<(), String> {
    let mut interrupted = stop.clone();
    let setup = tokio::select! {
        setup = Setup::new(options) => setup?,
        _ = interrupted.wait_for(|stop| *stop) => return Err("bench: interrupted before the first pull".to_owned()),
    };
    let report = setup.measure(options, stop).await;
    let outputs = options.outputs.clone();
    // Percentiles and bootstraps take a moment of one processor.
    tokio::task::spawn_blocking(move || report.write(&outputs))
        .await
        .map_err(|cause| format!("bench: report: {cause}"))?
}

/// Everything that has to be right before the first pull counts.
struct Setup {
    plan: Arc<Plan>,
    connector: Arc<Connector>,
    about: report::About,
    _emulated: Option<Emulated>,
}

impl Setup {
    async fn new(options: &Options) -> Result<Self, String> {
        let (mix, via, direct, ca_file, emulated, rtt) = match &options.target {
            Target::Named { mix, via, direct, ca_file } => {
                (mix.clone(), via.clone(), direct.as_deref().cloned(), ca_file.clone(), None, None)
            }
            Target::Emulated { blobs, rtt } => {
                let emulated = Emulated::start(*rtt, *blobs).await.map_err(|cause| format!("bench: {cause}"))?;
                let image = Image::parse(emulated::IMAGE).map_err(|wrong| format!("bench: {wrong}"))?;
                let config = emulated.config.clone();
                let ca_file = config.ca_file().map(Path::to_owned);
                let mix = Mix::new(vec![(image, 1)])?;
                (mix, Some(emulated.via.clone()), Some(config), ca_file, Some(emulated), Some(*rtt))
            }
        };
        let roots = TrustRoots::load(ca_file.as_deref()).map_err(|cause| format!("bench: {cause}"))?;
        let connector = Arc::new(Connector::new(&roots).map_err(|cause| format!("bench: TLS client: {cause}"))?);
        let mut routes = Vec::new();
        if let Some(origin) = via {
            routes.push(Route { side: Side::Via, origin, prefix: String::new(), sign_in: None });
        }
        if let Some(config) = direct {
            routes.push(direct_route(&config, &connector, &roots).await?);
        }
        let plan = Plan {
            routes,
            mix,
            platform: options.platform.clone(),
            layers: options.layers,
            pulls: options.pulls,
            duration: options.duration,
            seed: rand::random(),
        };
        let images = preflight(&plan, &connector).await?;
        let sides = plan.routes.iter().map(|route| (route.side, route_name(route))).collect();
        let about = report::About {
            date: date(),
            command: command_line(std::env::args_os().skip(1)),
            images,
            platform: plan.platform.to_string(),
            layers: plan.layers,
            sides,
            rtt,
        };
        Ok(Self { plan: Arc::new(plan), connector, about, _emulated: emulated })
    }

    /// All levels, or those up to the signal to end.
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
            runs.push(Run { level, elapsed, tally });
        }
        let interrupted = *stop.borrow();
        Report { about: self.about.clone(), runs, interrupted }
    }
}

/// When the run began, as `2026-11-25T14:18:00Z`.
fn date() -> String {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}Z", logger::stamp(since_1970.as_secs()))
}

/// The arguments as a shell takes them. None is a secret: an address with a password was refused as a flag.
fn command_line(arguments: impl Iterator<Item = OsString>) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:,=+@%".contains(&byte);
    arguments.fold("acr-cache-proxy".to_owned(), |line, argument| {
        let argument = argument.to_string_lossy();
        if !argument.is_empty() && argument.bytes().all(plain) {
            format!("{line} {argument}")
        } else {
            format!("{line} '{}'", argument.replace('\'', "'\\''"))
        }
    })
}

/// As the report names a side: with the prefix.
fn route_name(route: &Route) -> String {
    match route.side {
        Side::Via => route.origin.to_string(),
        Side::Direct => format!("{}/{}", route.origin.authority(), route.prefix).trim_end_matches('/').to_owned(),
    }
}

async fn direct_route(config: &Config, connector: &Connector, roots: &TrustRoots) -> Result<Route, String> {
    // Images are Docker Hub's, as docker names them; a file of other routes only has its first one measured.
    let hub = Source::docker_hub();
    let route = config.routes().iter().find(|route| route.source == hub).or(config.routes().iter().next());
    let route = route.ok_or("bench: the settings have no route to pull by")?;
    let upstream = &route.destination.upstream;
    let domain = upstream.domain();
    let origin = Origin::registry(domain);
    let failed = |cause: String| format!("bench: direct {}: {cause}", domain.authority());
    connector.resolver().fix(&origin, upstream.addresses());
    let found = connector.resolver().addresses(&origin).await.map_err(failed)?;
    let found: Vec<_> = found.iter().map(std::net::SocketAddr::ip).collect();
    let addresses = Arc::new(Addresses::new(domain.host(), domain.port(), &found));
    let client = |cause: reqwest::Error| failed(format!("TLS client: {cause}"));
    let identity = match upstream.identity().kind() {
        Kind::Anonymous => None,
        _ => Some(
            Identity::new(upstream.identity(), roots, &Names::sign_in()).map_err(|cause| failed(cause.to_string()))?,
        ),
    };
    let anonymous = identity.is_none();
    let registry = Registry::new(domain.clone(), identity, addresses, roots).map_err(client)?;
    let prefix = match route.prefix.as_str() {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    };
    Ok(Route { side: Side::Direct, origin, prefix, sign_in: Some(SignIn::new(registry, anonymous)) })
}

/// Each image once on each side, without its layers: what is wrong with an image, a host or a credential is said
/// before the run. It also makes the registry fetch what it has not cached yet.
async fn preflight(plan: &Plan, connector: &Arc<Connector>) -> Result<Vec<report::Sized>, String> {
    let mut images = Vec::new();
    for image in plan.mix.images() {
        let mut sized = None;
        for route in &plan.routes {
            let what = What { image, platform: &plan.platform, layers: Layers::None, order: Order::Docker };
            let pool = Pool::new(Arc::clone(connector), true);
            let size = pull::look(route, &pool, what)
                .await
                .map_err(|failure| format!("bench: {route}: {}", failure.sentence))?;
            sized = Some(size);
        }
        let size = sized.unwrap_or_default();
        images.push(report::Sized { name: image.to_string(), layers: size.layers, bytes: size.bytes });
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_can_be_pasted_into_a_shell() {
        let arguments = ["bench", "--image", "library/nginx:1.27", "--html", "my report's.html", ""];
        assert_eq!(
            command_line(arguments.into_iter().map(OsString::from)),
            r"acr-cache-proxy bench --image library/nginx:1.27 --html 'my report'\''s.html' ''"
        );
    }
}
