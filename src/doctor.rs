//! `doctor`: whether the container engines of this host pull through the proxy, and what to do where they do not.
//!
//! A module for each engine reads its files and asks it what it has loaded; what is wrong follows from that, in functions
//! without any I/O. Nothing is changed but by `--fix`, which writes what `client-config` would.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use oci::image::Image;
use oci::printable;
use oci::route::DOCKER_HUB;

use crate::activation::Sockets;
use crate::client_config::{self, Client, How, Mirror, Task};
use crate::config::{Config, is_sample};
use crate::logger;

mod ask;
mod asked;
mod buildkitd;
mod containerd;
mod dockerd;
mod expected;
mod failed;
mod finding;
mod forward_proxy;
mod hosts_toml;
mod k3s;
mod podman;
mod policy;
mod proxy;
mod pull;
mod registries_conf;
mod report;
mod settings;
mod started;
mod trust;

use crate::host::Host;
pub(crate) use ask::{Answer, get};
use expected::Expected;
use finding::{Code, Examined, Finding, Part};
pub(crate) use proxy::answers_at as proxy_answers_at;
use report::Report;

/// Something is wrong.
const FOUND: u8 = 1;
/// One line about the limit of Docker Hub for whoever is not signed in.
const QUOTA: &str = "what Docker Hub leaves this host's address of its limit is not known, since no answer that comes here tells it: \
the page on troubleshooting has a command that asks, which costs no pull";

/// For whoever is not root.
const NOT_ROOT: &str = "what only root may read or ask was left out: run doctor as root";

/// What to look at.
#[derive(Debug)]
pub(crate) struct Options {
    /// The file of the settings, for commands that are shown.
    pub file: Option<String>,
    /// The flags of settings, likewise.
    pub given: Vec<(&'static str, String)>,
    /// The proxy's address for clients, where it is not what it listens on.
    pub mirror: Option<Mirror>,
    /// The report as JSON.
    pub json: bool,
    /// Write what `client-config` would.
    pub fix: bool,
    /// Have each engine that runs pull this image, and see whether the proxy is asked.
    pub pull: Option<Image>,
    /// Below which the host's files are.
    pub root: PathBuf,
}

/// Looks at the host, and prints what is wrong. Returns the exit status. The error is one sentence about flags or settings that do not
/// say where the proxy is.
pub(crate) fn run(options: &Options, load: impl FnOnce() -> Result<Config, String>) -> Result<u8, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|cause| format!("no runtime: {cause}"))?;
    let is_closed = |file: &&str| access(*file, AccessFlags::R_OK) == Err(Errno::EACCES);
    let closed = options.file.as_deref().filter(is_closed);
    let report = match (load(), closed) {
        (Err(_), Some(closed)) => Report {
            parts: vec![settings::unread(closed)],
            notes: vec!["the engines of this host are judged by these settings".to_owned()],
            has_looked: false,
        },
        (Ok(_), _) if options.file.as_deref().is_some_and(|file| is_sample(Path::new(file))) => {
            not_set_up(settings::with_sample(options.file.as_deref(), &options.root))
        }
        (Ok(config), _) => {
            let mirror = options.mirror.clone().map_or_else(|| Mirror::of(config.listeners()), Ok)?;
            if options.fix {
                let found = runtime.block_on(examine(options, &config, &mirror));
                // Of another host nobody knows whether its proxy will run.
                let is_here = options.root == Path::new("/");
                let lack = found.lack().map(|lack| ("that is not there", lack));
                let unread = || Some(("that does not serve them yet", found.unread(options.file.as_deref())?));
                let wrong = match lack.or_else(unread).filter(|_| is_here) {
                    Some((which, lack)) => vec![format!(
                        "no file is written, because engines would be sent to a proxy {which}: {lack}; put that right, and run doctor --fix again"
                    )],
                    None => runtime.block_on(fix(&found, &config, &mirror, options)),
                };
                wrong.iter().for_each(|wrong| logger::complain(wrong));
            }
            runtime.block_on(async {
                let mut report = examine(options, &config, &mirror).await;
                let host = Host::new(options.root.clone());
                if let Some(image) = &options.pull {
                    let settings = expected(options, &config, &mirror, &host).settings;
                    let counts_all = match &options.mirror {
                        Some(mirror) => proxy::is_own(&mirror.url(), &config, &host).await,
                        None => true,
                    };
                    pull::pull(&host, &config, (image, counts_all), &settings, &mut report).await;
                    if !host.is_this() {
                        do_on_its_host(&mut report.parts, &options.root, |_, finding| finding.code == Code::Pull);
                    }
                }
                for finding in report.parts.iter_mut().flat_map(|part| &mut part.findings) {
                    finding.fix = finding.fix.clone().on(&host);
                }
                report
            })
        }
        (Err(mistakes), None) => {
            let state = runtime.block_on(proxy::unit_state(&Host::new(options.root.clone())));
            not_set_up(settings::with_mistakes(&mistakes, options.file.as_deref(), &options.root, state.as_deref()))
        }
    };
    let text = if options.json { printable::json(&format!("{:#}\n", report.to_json())) } else { report.to_string() };
    // If standard output is closed, the exit status still tells.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(if report.findings().next().is_some() { FOUND } else { 0 })
}

/// Whether containerd is here for dockerd alone, as far as its files tell, and so needs none of the proxy's; for a host that has both.
pub(crate) fn is_only_dockers(root: &Path) -> bool {
    let host = Host::new(root.to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    // Without one nothing can be asked, and what is there most often is taken to be so.
    runtime.map_or(true, |runtime| runtime.block_on(containerd::is_only_dockers(&host)))
}

/// No engine is to come to a proxy that cannot serve it.
fn not_set_up(proxy: Examined) -> Report {
    let notes = vec!["the engines of this host are judged once the settings are right".to_owned()];
    Report { parts: vec![proxy], notes, has_looked: false }
}

/// Has `client-config` write what puts findings right; the files of somebody else are added to, and a copy is kept. Nothing is
/// restarted. The sentences are what went wrong.
async fn fix(found: &Report, config: &Config, mirror: &Mirror, options: &Options) -> Vec<String> {
    let mut clients: Vec<(Client, bool)> = Vec::new();
    for (_, finding) in found.findings() {
        let Some(client) = finding.fix.by else { continue };
        let is_leftover = finding.code == Code::Leftover;
        match clients.iter_mut().find(|(known, _)| *known == client) {
            Some((_, prune)) => *prune |= is_leftover,
            None => clients.push((client, is_leftover)),
        }
    }
    let (root, host) = (&options.root, Host::new(options.root.clone()));
    let expected = expected(options, config, mirror, &host);
    let podman = found.parts.iter().find(|part| part.part == Part::Podman);
    let version = podman.and_then(|podman| podman.version.as_deref());
    let mut wrong = Vec::new();
    for (client, prune) in clients {
        let setup = match client_config::setup(client, config, mirror, root) {
            Ok(setup) => setup,
            Err(why) => {
                wrong.push(why);
                continue;
            }
        };
        if let Some(lack) = trust::lack(&host, &expected, &setup, (client, version)).await {
            wrong.push(format!("no file of {} is written, because {lack}", client.name()));
            continue;
        }
        let how = How { prune, merge: true, dry: false };
        wrong.extend(client_config::run(&Task::Write { setup, root: root.clone(), how }).err());
    }
    wrong
}

/// What the settings ask of engines, and the flags of commands.
fn expected<'a>(options: &Options, config: &'a Config, mirror: &Mirror, host: &Host) -> Expected<'a> {
    let mut expected =
        Expected::new(config, options.file.as_deref(), &mirror.url(), options.mirror.is_some(), &host.names());
    expected.repeat(&options.given);
    if !host.is_this() {
        expected.below(&options.root);
    }
    expected
}

/// What client-config refuses to do is done with an editor. Of a client's files this asks client-config, which knows it best.
fn edit_what_is_refused(parts: &mut [Examined], config: &Config, mirror: &Mirror, root: &Path) {
    // Once for each file: a merge is tried for the answer.
    let mut refusals = BTreeMap::new();
    let refusal = |client, file: &str| client_config::setup(client, config, mirror, root).ok()?.refusal(root, file);
    for finding in parts.iter_mut().flat_map(|part| &mut part.findings) {
        let (Some(client), Some(file)) = (finding.fix.by, &finding.file) else { continue };
        let asked = refusals.entry((client.name(), file.clone())).or_insert_with(|| refusal(client, file));
        let Some(why) = asked else { continue };
        let then =
            finding.fix.command.split_once(" && ").map_or_else(String::new, |(_, then)| format!("; then: {then}"));
        finding.fix = expected::edit(file, &format!("  # it {why}{then}"));
    }
}

/// Says of the commands of these findings that they are for the host that the tree is of, as far as they do not write in the tree.
fn do_on_its_host(parts: &mut [Examined], root: &Path, is_meant: fn(Part, &Finding) -> bool) {
    for part in parts {
        for finding in part.findings.iter_mut().filter(|finding| is_meant(part.part, finding)) {
            finding.fix = finding.fix.clone().on_its_host(root);
        }
    }
}

async fn examine(options: &Options, config: &Config, mirror: &Mirror) -> Report {
    let host = Host::new(options.root.clone());
    let expected = expected(options, config, mirror, &host);
    let elsewhere = options.mirror.as_ref().map(Mirror::url);
    let sockets = Sockets::look(&host).await;
    // At once, so that engines that hang are waited for together.
    let (proxy, (dockerd, containerd), podman, crio, buildkitd) = tokio::join!(
        proxy::read(&host, config, &sockets, (options.file.as_deref(), &options.given), elsewhere.as_deref()),
        async {
            let dockerd = dockerd::read(&host, &sockets).await;
            let containerd = containerd::read(&host, &sockets, dockerd.is_some()).await;
            (dockerd, containerd)
        },
        podman::read(&host),
        podman::read_crio(&host),
        buildkitd::read(&host, &sockets),
    );
    if proxy.cannot_start() {
        return not_set_up(proxy::judge(&proxy, &expected));
    }
    let by_hosts_toml = trust::ByHostsToml {
        containerd: containerd.as_ref().map(containerd::Facts::hosts_tomls).unwrap_or_default(),
        dockerd: dockerd.as_ref(),
        started: [
            (Part::Dockerd, "docker", dockerd.as_ref().and_then(|facts| facts.started)),
            (Part::Containerd, "containerd", containerd.as_ref().and_then(|facts| facts.started)),
        ],
        unchecked: BTreeSet::new(),
    };
    let mut parts = vec![proxy::judge(&proxy, &expected)];
    parts.extend(dockerd.as_ref().map(|facts| dockerd::judge(facts, &expected)));
    parts.extend(containerd.as_ref().map(|facts| containerd::judge(facts, &expected)));
    parts.extend(podman.map(|facts| podman::judge(&facts, &expected)));
    parts.extend(crio.map(|facts| podman::judge_crio(&facts, &expected)));
    parts.extend(buildkitd.map(|facts| buildkitd::judge(&facts, &expected)));
    parts.extend(k3s::read(&host, &sockets).await.iter().map(|facts| k3s::judge(facts, &expected)));
    failed::find(&host, &mut parts).await;
    if host.has_program(&["kubelet"]) {
        let mut kubelet = Examined::new(Part::Kubelet);
        kubelet.notes.push(
            "the kubelet pulls through containerd or CRI-O, whichever its containerRuntimeEndpoint names".to_owned(),
        );
        parts.push(kubelet);
    }
    trust::judge(&host, &expected, by_hosts_toml, &mut parts).await;
    edit_what_is_refused(&mut parts, config, mirror, &options.root);
    proxy::first(&proxy, &mut parts);
    if !host.is_this() {
        do_on_its_host(&mut parts, &options.root, |part, finding| {
            // The proxy was asked from here, and from here one sees who answers at its address.
            let is_look = ["ss ", "curl "].iter().any(|program| finding.fix.command.starts_with(program));
            part != Part::Proxy || !is_look
        });
    }
    let mut report = Report { parts, notes: dockerd::rootless(&host), has_looked: true };
    if host.is_this() && !nix::unistd::geteuid().is_root() {
        report.notes.push(NOT_ROOT.to_owned());
    }
    if report.past().any(|(_, registry)| registry == DOCKER_HUB) {
        report.notes.push(QUOTA.to_owned());
    }
    report
}
