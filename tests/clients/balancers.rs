//! Two proxies behind a balancer: one of them restarts, or a thousand hosts pull through both.

use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use acr_emulator::{Image, Options};

use crate::containerd::{self, Containerd};
use crate::containers;
use crate::daemon::{DAEMON_LIMIT, Daemon};
use crate::hub::{Site, TAG};
use crate::program::run;
use testkit::pulls::{Named, objects, pull_by_all, raise_descriptors};
use testkit::{PATIENCE, Proxy};

/// What both files in `conf` have: where clients ask, and where the two instances are.
const ADDRESS: &str = "127.0.0.1:8080";
const INSTANCES: [&str; 2] = ["192.0.2.11", "192.0.2.12"];
/// Clients of each kind that pull at once.
const EACH: usize = 2;
/// Pulls of every client between one event and the next.
const PULLS: usize = 2;
/// So long takes an answer of Azure's, for a stop to come amid many.
const LATENCY: Duration = Duration::from_millis(40);

/// A client's command that pulls.
type Pull<'a> = &'a (dyn Fn(&str) -> Command + Sync);

/// Gives this host the addresses of the instances.
fn add_addresses() {
    for address in INSTANCES {
        run(Command::new("ip").args(["address", "replace", &format!("{address}/32"), "dev", "lo"]));
    }
}

/// An instance of the proxy: its settings are the other one's. It keeps what it has got for as long as a test takes.
fn start(site: &Site, address: &str) -> Proxy {
    let setup = site.proxy(&[("docker.io", "hub")], "closed").cache("{tags: 1h, redirects: 10m}");
    setup
        .flag("--listen-address", &format!("{address}:8080"))
        .flag("--admin-address", &format!("{address}:8081"))
        .start()
}

/// Waits until `/readyz` says so.
async fn wait_until_ready(address: &str) {
    // A second call finds the first one's provider and is no error.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = reqwest::get(format!("http://{address}:8081/readyz")).await.expect("it listens");
        if answer.status().is_success() {
            return;
        }
        assert!(Instant::now() < deadline, "{address} is not ready: {answer:?}");
        // Nothing depends on the step.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Clients pull all the time, image after image; each of the two instances is stopped and comes back.
async fn no_pull_fails_while_instances_restart(words: &str) {
    let site = Site::start_with(Options { latency: LATENCY, ..testkit::options() }).await;
    add_addresses();
    let mut instances = INSTANCES.map(|address| start(&site, address));
    let home = site.home();
    let words = words.replace("conf/", concat!(env!("CARGO_MANIFEST_DIR"), "/conf/"));
    let mut command = home.client(DAEMON_LIMIT, &words);
    if words.starts_with("nginx") {
        command.arg("-g").arg(format!("daemon off; pid {}/pid;", home.path().display()));
    }
    let _balancer = Daemon::start("balancer", command, &home, || TcpStream::connect(ADDRESS).is_ok());

    // Clients that have nobody else to ask.
    let containerd_home = site.home();
    let containerd = Containerd::start(&containerd_home, "docker.io", &containerd::closed(ADDRESS));
    let podman_home = site.home();
    containers::configure(&podman_home, &containers::replaced("docker.io", &format!("{ADDRESS}/docker.io")));
    let ctr = |reference: &str| containerd.pull(PATIENCE, reference);
    let podman = |reference: &str| containers::pull_into_new_root(&podman_home, PATIENCE, reference);
    let kinds: [(&str, Pull<'_>); 2] = [("ctr", &ctr), ("podman", &podman)];

    let (done, counts) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; 2 * EACH]);
    std::thread::scope(|scope| {
        let clients: Vec<_> = counts
            .iter()
            .enumerate()
            .map(|(number, count)| {
                let (kind, pull) = kinds[number % kinds.len()];
                let (site, done) = (&site, &done);
                scope.spawn(move || {
                    while !done.load(Ordering::SeqCst) {
                        let name = format!("library/{kind}-{number}-{}", count.load(Ordering::SeqCst));
                        site.put("hub", &name);
                        run(&mut pull(&format!("docker.io/{name}:{TAG}")));
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        // Whatever fails here, the clients end before it is told.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let pulls = || {
                let goals = counts.each_ref().map(|count| count.load(Ordering::SeqCst) + PULLS);
                let deadline = Instant::now() + PATIENCE;
                while counts.iter().zip(goals).any(|(count, goal)| count.load(Ordering::SeqCst) < goal) {
                    assert!(!clients.iter().any(|client| client.is_finished()), "a client gave up");
                    assert!(Instant::now() < deadline, "clients got stuck: {counts:?}");
                    // Nothing depends on the step.
                    std::thread::sleep(Duration::from_millis(20));
                }
            };
            pulls();
            for (instance, address) in instances.iter_mut().zip(INSTANCES) {
                instance.wait_for_log(" access] GET /v2/");
                instance.signal("TERM");
                assert!(instance.wait().success(), "{}", instance.log());
                pulls();
                *instance = start(&site, address);
                // The balancer has found it again.
                instance.wait_for_log(" access] GET /v2/");
                pulls();
            }
        }));
        done.store(true, Ordering::SeqCst);
        for client in clients {
            client.join().expect("no pull fails");
        }
        outcome.expect("the instances stop and come back");
    });
    assert!(site.hub.requests().is_empty(), "{:#?}", site.hub.requests());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn behind_haproxy_no_pull_fails_while_instances_restart() {
    no_pull_fails_while_instances_restart("haproxy -db -f conf/haproxy.cfg").await;
}

/// Instances share nothing, so each asks once.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_thousand_hosts_behind_haproxy_cost_the_registry_what_two_do() {
    const HOSTS: usize = 1000;
    const IMAGE: Named = Named { name: "library/shared", tag: TAG };
    raise_descriptors();
    let site = Site::start_with(Options { latency: LATENCY, ..testkit::options() }).await;
    add_addresses();
    let instances = INSTANCES.map(|address| start(&site, address));
    // The balancer's first check takes an instance out at once if it is not ready, and then one serves all of them.
    for address in INSTANCES {
        wait_until_ready(address).await;
    }
    let home = site.home();
    let words = concat!("haproxy -db -f ", env!("CARGO_MANIFEST_DIR"), "/conf/haproxy.cfg");
    let command = home.client(DAEMON_LIMIT, words);
    let _balancer = Daemon::start("balancer", command, &home, || TcpStream::connect(ADDRESS).is_ok());
    let pushed = site.azure.push(Image::small(&format!("hub/{}", IMAGE.name), TAG).with_layers(10, 1_000));
    let balancer = [ADDRESS.parse().expect("an address")];

    let pulls = pull_by_all(HOSTS, &balancer, IMAGE, "amd64").await;
    assert!(pulls.iter().all(|pull| pull.index == pulls[0].index && pull.manifest == pulls[0].manifest));
    let reads = site.azure.reads();
    for object in objects(&site.azure, IMAGE, &pushed, "amd64").keys() {
        assert!((1..=2).contains(reads.get(object).unwrap_or(&0)), "{object}: {reads:?}");
    }
    assert!(reads.values().all(|count| *count <= 2), "{reads:?}");
    for instance in &instances {
        instance.wait_for_log(" cache=hit");
    }
    site.azure.clear_requests();
    assert_eq!(pull_by_all(HOSTS, &balancer, IMAGE, "amd64").await.len(), HOSTS);
    assert!(site.azure.requests().is_empty(), "warm: {:?}", site.azure.reads());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn behind_nginx_no_pull_fails_while_instances_restart() {
    no_pull_fails_while_instances_restart("nginx -e stderr -c conf/nginx-stream.conf").await;
}
