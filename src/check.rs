//! `check`: what is wrong with the configuration; with `--online`, where the way to each registry and its storage breaks.
//!
//! It is another process than the proxy, which may run meanwhile: it opens no listener, writes nothing, and asks each registry
//! for a few objects. Every hop is tried by the code that the proxy goes by, so both say the same of the same fault.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oci::image::Image;
use oci::printable;
use pingora_core::connectors::ConnectorOptions;
use pingora_core::server::configuration::ServerConf;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::Config;
use crate::proxy::Connections;
use crate::service_variables::{self, Taken};

mod certificate;
mod configuration;
mod images;
mod pull;
mod reach;
mod registry;
mod report;
mod steps;
mod warnings;
mod way;

use configuration::Parts;
use images::Images;
use report::{Group, Report, Status};

/// All of it, however much hangs. A person waits; every hop has a shorter limit of its own, and the longest that are likely
/// together, a sign-in of 15 s and a manifest of 20 s that ACR imports, fit into it.
const CHECK_LIMIT: Duration = Duration::from_secs(60);
/// A hop of a registry fails.
const FAILED: u8 = 1;
/// A mistake in the configuration, as the start of the proxy has it.
const WRONG: u8 = 2;
/// Connections that are kept from one request to the next, to each registry and its storage.
const MAX_IDLE: usize = 8;

/// What to check.
#[derive(Debug)]
pub(crate) struct Options {
    /// The file of the settings, for the report; `None` where flags alone give them.
    pub file: Option<String>,
    /// The variables that this process was started anew with.
    pub taken: Option<Taken>,
    /// Also try the way to the registries.
    pub online: bool,
    /// The report as JSON.
    pub json: bool,
    /// Images to ask for, in place of those that are known of a route's source.
    pub images: Vec<Image>,
    /// Of the command line.
    pub warnings: Vec<String>,
}

/// Checks the settings that `load` gives, or what is wrong with them, and prints the report. Returns the exit status.
pub(crate) fn run(options: &Options, load: impl FnOnce() -> Result<Config, String>) -> u8 {
    let begun = std::time::Instant::now();
    let of_variables = service_variables::take(options.file.as_deref().map(Path::new), options.taken.as_ref());
    let (mut configuration, parts) = configuration::check(options, of_variables, load);
    let mut groups = Vec::new();
    if let Some(parts) = parts.filter(|_| options.online) {
        match Images::new(&options.images, parts.config.routes()) {
            Ok(images) => match online(parts, &images) {
                Ok(found) => groups = found,
                Err(wrong) => configuration.failed(wrong),
            },
            Err(mistakes) => mistakes.into_iter().for_each(|mistake| configuration.failed(mistake)),
        }
    }
    groups.insert(0, configuration.into_group());
    let report = Report { groups, elapsed: begun.elapsed(), is_online: options.online };
    let text = if options.json { printable::json(&report.to_json()) + "\n" } else { report.to_string() };
    // If standard output is closed, the exit status still tells.
    let _ = io::stdout().write_all(text.as_bytes());
    match (report.mistakes(), report.status()) {
        (0, Status::Failed) => FAILED,
        (0, _) => 0,
        _ => WRONG,
    }
}

/// Tries the way to every registry, all at the same time.
fn online(parts: Parts, images: &Images) -> Result<Vec<Group>, String> {
    let until = Instant::now() + CHECK_LIMIT;
    let bundle = parts.roots.bundle().map_err(|cause| cause.to_string())?;
    let settings = ServerConf { ca_file: Some(bundle.path()), ..ServerConf::default() };
    let calls = Arc::new(Connections::new(Some(ConnectorOptions::from_server_conf(&settings)), MAX_IDLE));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|cause| format!("no runtime: {cause}"))?;
    let ways = way::ways(parts, images, &calls);
    let groups = runtime.block_on(async {
        let mut tasks: JoinSet<_> =
            ways.into_iter().enumerate().map(|(at, way)| async move { (at, way.go(until).await) }).collect();
        let mut ended = HashMap::new();
        while let Some(task) = tasks.join_next().await {
            let (at, groups) = task.map_err(|crash| format!("this program failed: {crash}"))?;
            ended.insert(at, groups);
        }
        let mut ended: Vec<_> = ended.into_iter().collect();
        ended.sort_by_key(|(at, _)| *at);
        Ok(ended.into_iter().flat_map(|(_, groups)| groups).collect())
    });
    // A look-up that hangs is not waited for.
    runtime.shutdown_background();
    groups
}
