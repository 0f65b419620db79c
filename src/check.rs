//! `check`: what is wrong with the configuration; with `--online`, where the way to each registry and its storage breaks.
//!
//! It is another process than the proxy, which may run meanwhile: it opens no listener, writes nothing, and asks each registry
//! for a few objects. Every hop is tried by the code that the proxy goes by, so both say the same of the same fault.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
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
use report::{Group, Hop, Kind, Line, Report, Status};

/// All of it, however much hangs. A person waits; every hop has a shorter limit of its own, and the longest that are likely
/// together, a sign-in of 15 s and a manifest of 20 s that ACR imports, fit into it.
const CHECK_LIMIT: Duration = Duration::from_secs(60);
/// A hop of a registry fails.
const FAILED: u8 = 1;
/// A mistake in the configuration, as the start of the proxy has it.
const WRONG: u8 = 2;
/// What is told of a registry whose check has panicked.
const CRASHED: &str = "this program failed, and not by the settings: standard error has the line to report";
/// Connections that are kept from one request to the next, to each registry and its storage.
const MAX_IDLE: usize = 8;

/// What to check.
#[derive(Debug)]
pub(crate) struct Options {
    /// The file of the settings, for the report; `None` where flags alone give them.
    pub file: Option<String>,
    /// The settings that flags give beside it.
    pub given: Vec<(&'static str, String)>,
    /// Below which the host's settings are.
    pub root: PathBuf,
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
                // Not a mistake in the settings.
                Err(wrong) => groups.push(not_tried("all registries".to_owned(), wrong)),
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
    let ways = way::ways(parts, images, &calls).into_iter().map(|way| (way.name(), way.go(until)));
    let groups = runtime.block_on(all(ways));
    // A look-up that hangs is not waited for.
    runtime.shutdown_background();
    Ok(groups)
}

/// What comes of each of these, in their order. Of one that crashes nothing is known, and the others are told all the same.
async fn all<Going>(ways: impl Iterator<Item = (String, Going)>) -> Vec<Group>
where
    Going: Future<Output = Vec<Group>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut under_way: HashMap<_, _> =
        ways.enumerate().map(|(at, (name, way))| (tasks.spawn(way).id(), (at, name))).collect();
    let mut ended = Vec::new();
    while let Some(task) = tasks.join_next_with_id().await {
        let (id, groups) = match task {
            Ok((id, groups)) => (id, Some(groups)),
            // The panic has its own line, with its place.
            Err(crash) => (crash.id(), None),
        };
        if let Some((at, name)) = under_way.remove(&id) {
            ended.push((at, groups.unwrap_or_else(|| vec![not_tried(name, CRASHED.to_owned())])));
        }
    }
    ended.sort_by_key(|(at, _)| *at);
    ended.into_iter().flat_map(|(_, groups)| groups).collect()
}

/// A registry whose way could not be tried, for a cause that is not in the settings.
fn not_tried(name: String, text: String) -> Group {
    let line = Line { hop: Hop::Registry, status: Status::Failed, elapsed: None, text, value: None };
    Group { kind: Kind::Registry, name, lines: vec![line] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_crash_was_told_as_a_mistake_in_the_configuration_and_hid_what_the_others_had_found() {
        let ways = [("first", false), ("second", true), ("third", false)].map(|(name, crashes)| {
            (name.to_owned(), async move {
                tokio::task::yield_now().await;
                assert!(!crashes, "on purpose");
                vec![Group { kind: Kind::Registry, name: name.to_owned(), lines: Vec::new() }]
            })
        });
        let groups = all(ways.into_iter()).await;
        assert_eq!(groups.iter().map(|group| &*group.name).collect::<Vec<_>>(), ["first", "second", "third"]);
        assert_eq!(groups[1].lines[0].text, CRASHED);
        let report = Report { groups, elapsed: Duration::ZERO, is_online: true };
        assert_eq!((report.mistakes(), report.status()), (0, Status::Failed));
    }
}
