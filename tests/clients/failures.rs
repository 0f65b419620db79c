//! What each client does with each failure, as the table in `failures.md` has it.

use std::fmt;
use std::process::Command;
use std::time::{Duration, Instant};

use acr_emulator::{Fault, Hop, Injection, Pushed, Recorded};
use tokio::sync::Semaphore;

use crate::containerd::{self, Containerd, Release};
use crate::containers;
use crate::docker::{Docker, Kind};
use crate::home::Home;
use crate::hub::{Site, TAG, of_repository, was_sent};
use crate::tree::Tree;
use testkit::Proxy;
use testkit::wire::Client;

/// The table itself.
const TABLE: &str = include_str!("failures.md");
/// The types of what is pushed here.
const ACCEPT: &str = "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json\r\n";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// No client has an answer to any failure that takes longer.
const LIMIT: Duration = Duration::from_secs(330);
/// What a machine under load may add to any bound, besides what the same client takes there when nothing fails. Other tests with
/// daemons of their own run beside this one, and 22 s more than the table says were seen then. It is less than what a client adds that
/// tries five times.
const SLACK: Duration = Duration::from_secs(45);
/// What takes longer waits for most of it, and needs no processor meanwhile.
const PATIENT: Duration = Duration::from_secs(15);
/// Pulls that take processor time at once.
static PLACES: Semaphore = Semaphore::const_new(6);

/// What a failure asks of clients, by their files and by the proxy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Fallback,
    Closed,
}

/// Who gave a client its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Giver {
    Proxy,
    Hub,
    /// Docker Hub what has failed, the proxy all else.
    Both,
    /// Docker Hub some of it, and for no reason.
    Mixed,
}

/// How a pull ends.
#[derive(Clone, Debug)]
enum End {
    From(Giver),
    /// What the user reads has these words. Docker Hub is not asked.
    Fails(String),
}

/// What a cell of the table says.
#[derive(Clone, Debug)]
struct Outcome {
    end: End,
    within: Duration,
}

/// A cell with its place in the table.
#[derive(Clone, Debug)]
struct Cell {
    client: &'static str,
    fault: &'static str,
    mode: Mode,
    expected: Outcome,
}

/// What became of a pull.
#[derive(Debug)]
struct Seen {
    /// `None` if it failed.
    giver: Option<Giver>,
    asked_hub: bool,
    took: Duration,
    printed: String,
}

impl Outcome {
    fn parse(text: &str) -> Option<Self> {
        let (text, words) = text.split_once(": ").unwrap_or((text, ""));
        let (end, within) = text.strip_suffix(" s")?.rsplit_once(" in ")?;
        let end = match end {
            "the proxy" => End::From(Giver::Proxy),
            "Hub" => End::From(Giver::Hub),
            "both" => End::From(Giver::Both),
            "fails" => End::Fails(words.trim_matches('`').to_owned()),
            _ => return None,
        };
        Some(Self { end, within: Duration::from_secs(within.parse().ok()?) })
    }

    fn holds(&self, seen: &Seen, unfailing: Duration) -> bool {
        let ends = match (&self.end, seen.giver) {
            (End::From(expected), Some(giver)) => *expected == giver,
            (End::Fails(words), None) => !words.is_empty() && seen.words().contains(words) && !seen.asked_hub,
            _ => false,
        };
        ends && seen.took <= self.within + SLACK + unfailing
    }
}

impl Seen {
    /// What the user reads last.
    fn words(&self) -> &str {
        // What gRPC has besides is the same message once more, in base64.
        let is_word = |line: &&str| !line.trim().is_empty() && !line.starts_with("grpc-status-details-bin");
        self.printed.lines().rfind(is_word).unwrap_or_default().trim()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match self.giver {
            Some(Giver::Proxy) => "the proxy",
            Some(Giver::Hub) => "Hub",
            Some(Giver::Both) => "both",
            Some(Giver::Mixed) => "both, more than what failed from Docker Hub",
            None if self.asked_hub => "fails with Docker Hub",
            None => "fails",
        };
        write!(f, "{end} in {:.1} s", self.took.as_secs_f32())?;
        if self.giver.is_none() { write!(f, ": {}", self.words()) } else { Ok(()) }
    }
}

/// All cells, row by row.
fn cells() -> Vec<Cell> {
    let lines = TABLE.lines().filter(|line| line.starts_with('|')).skip(2);
    let rows = lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    rows.flat_map(|row| {
        let [client, fault, fallback, closed] = row[..] else { panic!("no row: {row:?}") };
        [(Mode::Fallback, fallback), (Mode::Closed, closed)].map(|(mode, text)| {
            let expected = Outcome::parse(text).unwrap_or_else(|| panic!("no outcome: {text:?}"));
            Cell { client, fault, mode, expected }
        })
    })
    .collect()
}

impl Cell {
    /// A repository of its own, so that cells can run at once.
    fn repository(&self) -> String {
        let name = format!("{} {} {:?}", self.client, self.fault, self.mode).to_lowercase();
        format!("library/{}", name.replace(' ', "-"))
    }

    /// The failure: of all manifests of the image, or of its first layer.
    fn inject(&self, site: &Site, pushed: &Pushed) {
        let Some((part, what)) = self.fault.split_once(' ') else {
            assert_eq!(self.fault, "none");
            return;
        };
        let layer = &pushed.blobs[0];
        let (hop, path) = match (part, what) {
            ("manifest", _) => (Hop::Data, format!("/v2/hub/{}/manifests/", self.repository())),
            // What breaks off on its way from storage.
            ("layer", "cut" | "cut once" | "wrong") => (Hop::Storage, layer.trim_start_matches("sha256:").to_owned()),
            ("layer", _) => (Hop::Data, format!("/v2/hub/{}/blobs/{layer}", self.repository())),
            _ => panic!("a part that nobody knows: {part}"),
        };
        let fault = match what {
            // The registry refuses tokens that are fresh.
            "401" => Fault::Challenge401.into(),
            // Longer than what has no body, shorter than a manifest; every try breaks off.
            "cut" => Injection::from(Fault::CutBody(100)),
            "cut once" => Fault::CutBody(100).times(1),
            // Of the same form, and with the right digest in its header.
            "wrong" => {
                let media_type = if part == "manifest" { MANIFEST } else { "application/octet-stream" };
                let headers = [("Content-Type", media_type), ("Docker-Content-Digest", &pushed.index_digest)];
                let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
                let body = match part {
                    "manifest" => format!("{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST}\",\"layers\":[]}}"),
                    _ => "x".repeat(site.azure.blob(layer).expect("pushed").len()),
                };
                Fault::StatusWith { status: 200, headers, body }.into()
            }
            "stall" => Fault::Hang.into(),
            status => Fault::Status(status.parse().expect("a status")).into(),
        };
        site.azure.inject(hop, fault.on_path(path));
    }

    /// After a 429 the proxy leaves the registry alone for a while, whatever it is asked for.
    fn makes_the_proxy_pause(&self) -> bool {
        self.fault.ends_with(" 429")
    }

    /// Lets the proxy have all but what is to fail, which it then serves during a pause as well.
    fn warm(&self, site: &Site, proxy: &Proxy) {
        let pushed = site.put("hub", &self.repository());
        let manifests = [TAG].into_iter().chain(pushed.manifests.iter().map(|(_, digest)| digest.as_str()));
        let manifests = manifests.map(|reference| format!("manifests/{reference}"));
        let blobs = pushed.blobs.iter().map(|digest| format!("blobs/{digest}"));
        let fails = |rest: &String| match self.fault.split_once(' ') {
            Some(("manifest", _)) => rest.starts_with("manifests/"),
            _ => rest.ends_with(&pushed.blobs[0]),
        };
        for rest in manifests.chain(blobs).filter(|rest| !fails(rest)) {
            let path = format!("/v2/{}/{rest}", self.repository());
            let answer = Client::new(proxy.address()).ask("GET", &path, "HTTP/1.1", ACCEPT);
            assert!(answer.status() < 400, "{path}: {answer:?}");
        }
    }

    /// Runs the cell with a client's way to pull.
    fn run(&self, site: &Site, pull: &Pull<'_>) -> Seen {
        let pushed = site.put("hub", &self.repository());
        self.inject(site, &pushed);
        let mut command = (pull.command)(&format!("docker.io/{}:{TAG}", self.repository()));
        let begun = Instant::now();
        let output = command.output().expect("a command starts");
        let took = begun.elapsed();
        let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let hub = site.hub.requests();
        let asked = of_repository(&hub, &self.repository());
        let failed = |request: &Recorded| match self.fault.split_once(' ') {
            Some(("manifest", _)) => request.target.contains("/manifests/"),
            _ => request.target.contains(&pushed.blobs[0]),
        };
        let giver = (output.status.success() && (pull.succeeded)(&printed)).then(|| {
            if asked.is_empty() {
                Giver::Proxy
            } else if pushed.blobs.iter().all(|digest| was_sent(&hub, digest)) {
                Giver::Hub
            } else if asked.iter().all(failed) {
                Giver::Both
            } else {
                Giver::Mixed
            }
        });
        let asked_hub = !asked.is_empty();
        Seen { giver, asked_hub, took, printed }
    }
}

/// A client's way to pull an image.
struct Pull<'a> {
    client: &'static str,
    mode: Mode,
    command: Box<dyn Fn(&str) -> Command + Sync + 'a>,
    /// Whether what was printed, by a command that ended well, is a pull that succeeded.
    succeeded: fn(&str) -> bool,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn each_client_does_with_each_failure_what_the_table_says() {
    let site = Site::start().await;
    let mut configs = Vec::new();
    let proxies = [Mode::Fallback, Mode::Closed].map(|mode| {
        let on_failure = if mode == Mode::Fallback { "fallback" } else { "closed" };
        let setup = site.proxy(&[("docker.io", "hub")], on_failure);
        configs.push(setup.path("config.yaml"));
        (mode, setup.start())
    });
    let homes: Vec<Home> = (0..18).map(|_| site.home()).collect();
    let mut homes = homes.iter();
    let runtime = tokio::runtime::Handle::current();
    let mut home = || homes.next().expect("enough");
    let containerds = proxies.each_ref().map(|(mode, proxy)| {
        let address = proxy.address().to_string();
        let hosts = match mode {
            Mode::Fallback => containerd::mirrored(Some("registry-1.docker.io"), &address),
            Mode::Closed => containerd::closed(&address),
        };
        (*mode, Containerd::start(home(), "docker.io", &hosts))
    });
    // There is no way to take Docker Hub from dockerd.
    let [dockers, newer_dockers] = [Kind::Debian12, Kind::ContainerdStore].map(|kind| {
        let mut start = |proxy: &Proxy| Docker::start(home(), &proxy.address().to_string(), kind);
        proxies.each_ref().map(|(mode, proxy)| (*mode, start(proxy)))
    });
    let podmen = proxies.each_ref().map(|(mode, proxy)| {
        let address = proxy.address();
        let registries = match mode {
            Mode::Fallback => containers::mirrored(&address.to_string()),
            Mode::Closed => containers::replaced("docker.io", &format!("{address}/docker.io")),
        };
        let home = home();
        containers::configure(home, &registries);
        (*mode, home)
    });
    // These read what client-config writes, and the newest dockerd can be told to leave Docker Hub alone.
    let mut written = |client: &str, at: usize| {
        let home = home();
        home.write_client_config(client, &configs[at], &proxies[at].1);
        home
    };
    let newest =
        [0, 1].map(|at| (proxies[at].0, written("docker", at), written("containerd", at), written("podman", at)));
    let newest_dockers =
        newest.map(|(mode, home, ..)| (mode, Docker::start_by(home, home.path(), Kind::Debian14ContainerdStore)));
    let newest_containerds = newest.map(|(mode, _, home, _)| {
        let hosts = home.path().join("etc/containerd/certs.d");
        let config = format!(
            "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"{}\"\n",
            hosts.display()
        );
        (mode, Containerd::start_with(home, hosts, Release::Debian14, &config))
    });
    let newest_podmen = newest.map(|(mode, .., home)| {
        containers::configure(home, "");
        (mode, home, Tree::mount(home, 14))
    });
    // Those of other suites that come from no stable or testing Debian.
    let latest_containerds = [0, 1].map(|at| {
        let home = written("containerd", at);
        let hosts = home.path().join("etc/containerd/certs.d");
        (proxies[at].0, Containerd::start_release(home, Release::Newest, hosts))
    });
    let latest_podmen = [0, 1].map(|at| {
        let home = written("podman", at);
        containers::configure(home, "");
        (proxies[at].0, home, Tree::newest(home))
    });
    let mut pulls = Vec::new();
    for (mode, docker) in &newest_dockers {
        let pull = |reference: &str| docker.docker(LIMIT, &format!("pull {reference}"));
        pulls.push(Pull { client: "docker 28", mode: *mode, command: Box::new(pull), succeeded: |_| true });
    }
    for (client, containerds) in [("CRI of 2", &newest_containerds), ("CRI of 2.4", &latest_containerds)] {
        for (mode, containerd) in containerds {
            let pull = |reference: &str| containerd.cri_pull(LIMIT, reference);
            pulls.push(Pull { client, mode: *mode, command: Box::new(pull), succeeded: containerd::cri_succeeded });
        }
    }
    for (client, podmen) in [("podman 5", &newest_podmen), ("podman 6", &latest_podmen)] {
        for (mode, home, tree) in podmen {
            let pull = |reference: &str| containers::pull_into_new_root_by(home, Some(tree), LIMIT, reference);
            pulls.push(Pull { client, mode: *mode, command: Box::new(pull), succeeded: |_| true });
        }
    }
    for (mode, containerd) in &containerds {
        let pull = |reference: &str| containerd.pull(LIMIT, reference);
        pulls.push(Pull { client: "ctr", mode: *mode, command: Box::new(pull), succeeded: |_| true });
        let pull = |reference: &str| containerd.cri_pull(LIMIT, reference);
        pulls.push(Pull { client: "CRI", mode: *mode, command: Box::new(pull), succeeded: containerd::cri_succeeded });
    }
    for (mode, docker) in &dockers {
        let pull = |reference: &str| docker.docker(LIMIT, &format!("pull {reference}"));
        pulls.push(Pull { client: "docker", mode: *mode, command: Box::new(pull), succeeded: |_| true });
    }
    for (mode, docker) in &newer_dockers {
        let pull = |reference: &str| docker.docker(LIMIT, &format!("pull {reference}"));
        pulls.push(Pull {
            client: "docker with containerd",
            mode: *mode,
            command: Box::new(pull),
            succeeded: |_| true,
        });
        let pull = |reference: &str| docker.build(LIMIT, reference, "");
        pulls.push(Pull { client: "BuildKit", mode: *mode, command: Box::new(pull), succeeded: |_| true });
    }
    for (mode, home) in podmen {
        let pull = |reference: &str| containers::pull_into_new_root(home, LIMIT, reference);
        pulls.push(Pull { client: "podman", mode, command: Box::new(pull), succeeded: |_| true });
    }

    let (site, pulls, runtime) = (&site, &pulls, &runtime);
    let at_once = |cells: Vec<Cell>| -> Vec<(Cell, Seen)> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = cells
                .into_iter()
                .map(|cell| {
                    scope.spawn(move || {
                        let pull = pulls.iter().find(|pull| (pull.client, pull.mode) == (cell.client, cell.mode));
                        let pull = pull.expect("a client that somebody knows");
                        let waits = cell.expected.within > PATIENT;
                        let _place = (!waits).then(|| runtime.block_on(PLACES.acquire()).expect("never closed"));
                        let seen = cell.run(site, pull);
                        (cell, seen)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a cell that ends")).collect()
        })
    };
    let (pausing, others) = cells().into_iter().partition::<Vec<_>, _>(Cell::makes_the_proxy_pause);
    let mut seen = at_once(others);
    for cell in &pausing {
        let (_, proxy) = proxies.iter().find(|(mode, _)| *mode == cell.mode).expect("one of each");
        cell.warm(site, proxy);
    }
    seen.extend(at_once(pausing));
    let unfailing = |client: &str| {
        let pulls = seen.iter().filter(|(cell, _)| (cell.client, cell.fault) == (client, "none"));
        pulls.map(|(_, seen)| seen.took).max().expect("a row of the table")
    };
    let wrong: Vec<String> = seen
        .iter()
        .filter(|(cell, seen)| !cell.expected.holds(seen, unfailing(cell.client)))
        .map(|(cell, seen)| format!("{} × {} × {:?}: {seen}", cell.client, cell.fault, cell.mode))
        .collect();
    assert!(wrong.is_empty(), "{} of {} cells:\n{}", wrong.len(), seen.len(), wrong.join("\n"));
}
