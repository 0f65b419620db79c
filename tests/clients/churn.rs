//! Three instances behind HAProxy and nginx change all the time, and no pull fails.
//!
//! - `balancer`: HAProxy and nginx, by the files in `conf`
//! - `instance`: an instance, and each kind of change
//! - `host`: a host of the load, with an address of its own
//! - `run`: until when all of them work, and what they count
//!
//! Real clients pull beside the load, and two hosts are refused: one by its address, one by its rate. Nothing tells them from the
//! others but the address that the balancer passes on.

mod balancer;
mod host;
mod instance;
mod run;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::TryLockError;
use std::time::{Duration, Instant};

use acr_emulator::{Fault, Hop, Options};
use rand::seq::SliceRandom as _;
use rustls::ClientConfig;
use testkit::PATIENCE;
use testkit::certificates::Authority;

use crate::containerd::Containerd;
use crate::containers;
use crate::daemon::DAEMON_LIMIT;
use crate::home::Home;
use crate::hub::{Site, TAG};
use crate::program;
use balancer::{INSTANCES, LANES, Lane};
use host::Host;
use instance::{CHANGES, Change, Instance};
use run::Run;

/// All clients are in this network of 256 addresses, and no balancer and no instance is.
const CLIENTS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 0);
/// Asks instances without a balancer.
const WATCHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
/// May not pull.
const DENIED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 66);
/// Asks for more than a client may.
const GREEDY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
/// The addresses of the load's hosts begin with this one.
const FIRST_HOST: u8 = 101;
/// Hosts of each lane.
const HOSTS: usize = 3;
/// How the two real clients reach docker.io and ghcr.io: each over one balancer in plain text and over the other one with TLS.
const CTR: [Lane; 2] = [LANES[0], LANES[5]];
const PODMAN: [Lane; 2] = [LANES[3], LANES[4]];
/// Images of the load, and of each real client.
const IMAGES: usize = 4;
/// So long takes an answer of Azure's, and so long rests storage amid each layer, for changes to come amid many.
const LATENCY: Duration = Duration::from_millis(40);
const PAUSE: Duration = Duration::from_millis(500);
/// A host of the load rests between two pulls, so that it stays far below the limit of one client.
const REST: Duration = Duration::from_millis(200);
/// The greedy host asks so often at once, which is more than three instances give, and then rests.
const GREED: (usize, Duration) = (600, Duration::from_secs(3));

/// How long the load lasts, at least.
fn duration() -> Duration {
    let seconds = std::env::var("CHURN_SECONDS").ok();
    let seconds = seconds.map_or(60, |text| text.parse().expect("CHURN_SECONDS is a number"));
    let duration = Duration::from_secs(seconds);
    assert!(duration + PATIENCE < DAEMON_LIMIT, "CHURN_SECONDS is less than a day");
    duration
}

/// What hosts and clients ask for.
#[derive(Clone, Debug)]
struct Image {
    /// The source that clients name.
    source: &'static str,
    name: String,
    /// Clients fetch its layers from storage; else the proxy does.
    is_redirected: bool,
}

impl Image {
    /// An image of so many layers of this size in both sources, the second of which may move to another repository.
    fn push(site: &Site, name: &str, layers: usize, bytes: usize) -> [Self; 2] {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        for prefix in ["hub", "ghcr", "ghcr2"] {
            let image = acr_emulator::Image::small(&format!("{prefix}/{name}"), TAG);
            site.azure.push(image.with_layers(layers, bytes).with_arches(&[arch]).copy_of(name));
        }
        [("docker.io", true), ("ghcr.io", false)].map(|(source, is_redirected)| Self {
            source,
            name: name.to_owned(),
            is_redirected,
        })
    }

    fn reference(&self) -> String {
        format!("{}/{}:{TAG}", self.source, self.name)
    }
}

/// Changes one instance, in random order and each kind as often as the others.
fn change(run: &Run, instance: &mut Instance<'_>, trust: &Arc<ClientConfig>) {
    let mut deck: Vec<Change> = Vec::new();
    run.repeat(instance.address, || {
        if deck.is_empty() {
            deck.extend(CHANGES);
            deck.shuffle(&mut rand::rng());
        }
        let change = deck.pop().expect("it has some");
        let _away = match (change == Change::Restart).then(|| run.away.try_lock()) {
            Some(Err(TryLockError::WouldBlock)) => {
                // Another one is away: this one goes later.
                deck.insert(0, change);
                run.rest(Duration::from_millis(100));
                return Ok(());
            }
            guard => guard,
        };
        instance.change(change, trust);
        run.count(&format!("change: {change:?}"), 1);
        run.rest(Duration::from_millis(rand::random_range(0..1000)));
        Ok(())
    });
}

/// One host of the load: two pulls by one connection, then two by another.
fn load(run: &Run, mut host: Host, images: &[Image]) {
    let mut pulls = usize::from(host.source.octets()[3]);
    run.repeat("load", || {
        host.pull(&images[pulls % images.len()])?;
        run.count(&format!("pulls: load, {}", host.lane.name), 1);
        pulls += 1;
        if pulls % 2 == 0 {
            host.disconnect();
        }
        run.rest(REST);
        Ok(())
    });
    run.count("requests of the load", host.answers);
    run.count("requests of the load that were sent again, as a kept connection had ended", host.repeated);
}

/// The host that may not pull is told so at each address.
fn denied(run: &Run, trust: &Arc<ClientConfig>) {
    let mut lanes = LANES.iter().cycle();
    run.repeat("denied", || {
        let lane = lanes.next().expect("it goes round");
        match Host::new(DENIED, *lane, trust).ask("GET", "/v2/") {
            Ok(answer) if answer.status() == 403 && !lane.has_tls => run.count("refused by address: 403", 1),
            Err(cause) if lane.has_tls && cause.contains("AccessDenied") => run.count("refused by address: alert", 1),
            Ok(answer) => return Err(format!("{}: {}", lane.name, answer.head.head)),
            Err(cause) => return Err(cause),
        }
        run.rest(Duration::from_millis(500));
        Ok(())
    });
}

/// The host that asks for too much gets 200 and 429.
fn greedy(run: &Run, trust: &Arc<ClientConfig>) {
    let (most, rest) = GREED;
    let mut host = Host::new(GREEDY, LANES[1], trust);
    run.repeat("greedy", || {
        for _ in 0..most {
            let answer = host.ask("GET", "/v2/")?;
            match answer.status() {
                200 => {}
                429 if answer.header("retry-after").is_some() => {
                    run.count("refused by rate: 429", 1);
                    break;
                }
                _ => return Err(answer.head.head),
            }
        }
        run.rest(rest);
        Ok(())
    });
}

/// containerd pulls images by this lane and forgets them.
fn ctr(run: &Run, lane: &Lane, containerd: &Containerd<'_>, images: &[Image]) {
    let (name, mut images) = (format!("ctr, {}", lane.name), images.iter().cycle());
    run.repeat(&name, || {
        let reference = images.next().expect("it goes round").reference();
        program::run(&mut containerd.pull(PATIENCE, &reference));
        run.count(&format!("pulls: {name}"), 1);
        program::run(&mut containerd.ctr(PATIENCE, &format!("images rm --sync {reference}")));
        Ok(())
    });
}

/// podman pulls images by this lane, each into a new store.
fn podman(run: &Run, lane: &Lane, home: &Home, images: &[Image]) {
    let (name, mut images) = (format!("podman, {}", lane.name), images.iter().cycle());
    run.repeat(&name, || {
        let reference = images.next().expect("it goes round").reference();
        let mut command = containers::pull_into_new_root(home, PATIENCE, &reference);
        program::run(&mut command);
        run.count(&format!("pulls: {name}"), 1);
        let graph = command.get_args().skip_while(|word| *word != "--root").nth(1).expect("it has one");
        let store = PathBuf::from(graph);
        // A long run would fill the disk. What is left goes with the home.
        let _ = std::fs::remove_dir_all(store.parent().expect("below the home"));
        Ok(())
    });
}

/// What every run comes to, beside pulls.
fn awaited() -> impl Iterator<Item = String> {
    let refused = ["refused by rate: 429", "refused by address: 403", "refused by address: alert"];
    CHANGES.iter().map(|change| format!("change: {change:?}")).chain(refused.map(str::to_owned))
}

/// A `hosts.toml` with this lane and nobody else.
fn hosts_toml(lane: &Lane) -> String {
    let url = format!("{}://{}", if lane.has_tls { "https" } else { "http" }, lane.address);
    format!("server = \"{url}\"\n[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
}

/// A registry of podman's in whose place this lane is asked, and nobody else.
fn registry(source: &str, lane: &Lane) -> String {
    let replaced = containers::replaced(source, &format!("{}/{source}", lane.address));
    if lane.has_tls { replaced.replace("insecure = true\n", "") } else { replaced }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes CHURN_SECONDS, a minute by default; run by scripts/test in a network namespace of its own"]
async fn no_pull_fails_while_instances_change() {
    let site = Site::start_with(Options { latency: LATENCY, ..testkit::options() }).await;
    let hosts = FIRST_HOST..FIRST_HOST + u8::try_from(LANES.len() * HOSTS).expect("a few");
    let sources = hosts.clone().map(|host| Ipv4Addr::new(198, 51, 100, host));
    let addresses = INSTANCES.map(|address| address.parse().expect("an address")).into_iter();
    let addresses = addresses.chain(LANES.map(|lane| *lane.address.ip())).chain([WATCHER, DENIED, GREEDY]);
    for address in addresses.chain(sources.clone()) {
        program::run(Command::new("ip").args(["address", "replace", &format!("{address}/32"), "dev", "lo"]));
    }
    let ca = Authority::new("mirror CA");
    let trust = host::trust(&ca);
    let mut instances = INSTANCES.map(|address| Instance::start(&site, &ca, address));
    let balancers_home = site.home();
    let balancers = balancer::start(&balancers_home);

    let load_images: Vec<_> =
        (0..IMAGES).flat_map(|n| Image::push(&site, &format!("library/load-{n}"), 3, 150_000)).collect();
    let real = |client: &str| {
        let images: Vec<_> =
            (0..IMAGES).flat_map(|n| Image::push(&site, &format!("library/{client}-{n}"), 2, 20_000)).collect();
        images.into_iter().partition::<Vec<_>, _>(|image| image.is_redirected)
    };
    let (ctr_images, podman_images) = (real("ctr"), real("podman"));
    let [containerd_home, podman_home] = [site.home(), site.home()];
    for home in [&containerd_home, &podman_home] {
        home.file("ca.pem", &(std::fs::read_to_string(home.ca()).expect("the CAs") + ca.pem()));
    }
    containerd_home.file("certs/ghcr.io/hosts.toml", &hosts_toml(&CTR[1]));
    let containerd = Containerd::start(&containerd_home, "docker.io", &hosts_toml(&CTR[0]));
    containers::configure(&podman_home, &(registry("docker.io", &PODMAN[0]) + &registry("ghcr.io", &PODMAN[1])));

    site.azure.inject(Hop::Storage, Fault::PauseMidBody(PAUSE));
    let run = Run::default();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let (run, trust) = (&run, &trust);
        for instance in &mut instances {
            scope.spawn(move || change(run, instance, trust));
        }
        for (number, source) in sources.clone().enumerate() {
            let host = Host::new(source, LANES[number / HOSTS], trust);
            let images = &load_images;
            scope.spawn(move || load(run, host, images));
        }
        scope.spawn(move || denied(run, trust));
        scope.spawn(move || greedy(run, trust));
        let (containerd, home) = (&containerd, &podman_home);
        for (lane, images) in CTR.iter().zip([&ctr_images.0, &ctr_images.1]) {
            scope.spawn(move || ctr(run, lane, containerd, images));
        }
        for (lane, images) in PODMAN.iter().zip([&podman_images.0, &podman_images.1]) {
            scope.spawn(move || podman(run, lane, home, images));
        }
        let is_complete = || awaited().all(|what| run.counted(&what) > 0);
        // A loaded machine gets more time for one change of each kind.
        let is_due = || match begun.elapsed().checked_sub(duration()) {
            Some(more) => more > PATIENCE || is_complete(),
            None => false,
        };
        while run.goes_on() && !is_due() {
            // Nobody looks at them.
            site.azure.clear_requests();
            run.rest(Duration::from_millis(200));
        }
        run.end();
    });
    let took = begun.elapsed();
    let failures = run.failures();
    println!("{} s of pulls by {} hosts and 4 clients:", took.as_secs(), hosts.len());
    println!("{}{:>8}  pulls in all\n{:>8}  failed\n", run.table(), run.counted_all("pulls: "), failures.len());
    if let Some(first) = failures.first() {
        let logs: String = instances.iter().map(|instance| instance.lines_around(first.second)).collect();
        drop(instances);
        let causes: Vec<_> = failures.iter().map(|failure| failure.cause.as_str()).collect();
        panic!("{logs}--- what has failed\n{}", causes.join("\n"));
    }
    let pulls = LANES.iter().map(|lane| format!("pulls: load, {}", lane.name));
    let pulls = pulls.chain(CTR.iter().map(|lane| format!("pulls: ctr, {}", lane.name)));
    let pulls = pulls.chain(PODMAN.iter().map(|lane| format!("pulls: podman, {}", lane.name)));
    for what in pulls.chain(awaited()) {
        assert!(run.counted(&what) > 0, "never: {what}");
    }
    drop(balancers);
    let mut seen = BTreeSet::new();
    for instance in &mut instances {
        instance.end();
        seen.extend(instance.clients.iter().copied());
    }
    for source in sources.chain([DENIED, GREEDY]) {
        assert!(seen.contains(&source), "{source} is in no log: {seen:?}");
    }
    assert!(site.hub.requests().is_empty(), "{:#?}", site.hub.requests());
}
