//! Ten minutes without a registry, sixty times as fast, while fifty hosts pull images that are warm.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Fault, Hop, Image, Server};
use testkit::{PATIENCE, Setup};

use crate::client::Client;

const HOSTS: usize = 50;
const IMAGES: usize = 20;
/// All lifetimes: half of the outage is spent with what is stale. `stale` is an hour as it is, sixty times as fast.
const LIFETIME: Duration = Duration::from_secs(5);
const CACHE: &str = "{tags: 5s, manifests: 5s, lists: 5s, redirects: 5s, missing: 5s, stale: 60s}";
/// Each of its two halves.
const HALF: Duration = Duration::from_secs(10);

/// What a pull of each image asks for.
fn push(azure: &Emulator) -> Vec<Vec<String>> {
    let images = (0..IMAGES).map(|number| {
        let name = format!("library/image{number}");
        let pushed = azure.push(Image::small(&format!("hub/{name}"), "latest").with_arches(&["amd64"]));
        let manifest =
            [format!("/v2/{name}/manifests/latest"), format!("/v2/{name}/manifests/{}", pushed.manifests[0].1)];
        manifest.into_iter().chain(pushed.blobs.iter().map(|blob| format!("/v2/{name}/blobs/{blob}"))).collect()
    });
    images.collect()
}

/// Hosts that pull one image after the other, until they are told to stop.
struct Hosts {
    pulls: AtomicUsize,
    is_over: AtomicBool,
}

impl Hosts {
    fn pull(&self, host: usize, address: std::net::SocketAddr, images: &[Vec<String>]) {
        let mut client = Client::new(address);
        for number in host.. {
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            for path in &images[number % images.len()] {
                let seen = client.get(path).unwrap_or_else(|error| panic!("{path}: {error}"));
                let expected = if path.contains("/blobs/") { 307 } else { 200 };
                assert_eq!(seen.status, expected, "{path}: {seen:?}");
            }
            self.pulls.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Waits until the hosts have pulled so many more images together.
    fn wait(&self, more: usize) {
        let (goal, deadline) = (self.pulls.load(Ordering::SeqCst) + more, Instant::now() + PATIENCE);
        while self.pulls.load(Ordering::SeqCst) < goal {
            assert!(Instant::now() < deadline && !self.is_over.load(Ordering::SeqCst), "the hosts do not pull");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// However a test ends, its hosts stop.
struct Stop<'a>(&'a Hosts);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

/// How often the registry was asked for each object.
fn reads(azure: &Emulator) -> BTreeMap<String, usize> {
    azure.reads().into_iter().filter(|(read, _)| read != "GET /v2/").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_ten_minutes_fails_no_warm_pull_and_ends_without_a_stampede() {
    let azure = testkit::azure().await;
    let images = push(&azure);
    let objects: usize = images.iter().map(Vec::len).sum();
    let proxy = Setup::new(&azure).flag("--log", "info").cache(CACHE).start();
    let (address, hosts) = (proxy.address(), Hosts { pulls: AtomicUsize::new(0), is_over: AtomicBool::new(false) });
    std::thread::scope(|scope| {
        let _stop = Stop(&hosts);
        let running: Vec<_> = (0..HOSTS)
            .map(|host| {
                scope.spawn({
                    let (hosts, images) = (&hosts, &images);
                    move || hosts.pull(host, address, images)
                })
            })
            .collect();
        // Each host has seen every image, so all of them are warm.
        hosts.wait(HOSTS * IMAGES);
        // First it is silent, then it is gone.
        azure.inject(Hop::Data, Fault::Hang);
        std::thread::sleep(HALF);
        azure.refuse_connections(Server::Registry, true);
        azure.close_connections(Server::Registry);
        std::thread::sleep(HALF);
        proxy.wait_for_log("answers are stale from now on");
        proxy.wait_for_log("it is down, and probed until it answers");
        azure.clear_faults();
        azure.clear_requests();
        let begun = Instant::now();
        azure.refuse_connections(Server::Registry, false);
        proxy.wait_for_log("it answers again, after ");
        hosts.wait(HOSTS * IMAGES);
        let (reads, elapsed) = (reads(&azure), begun.elapsed());
        // Everything was stale, and hosts want all of it at once: each object is asked for once in its lifetime.
        assert_eq!(reads.len(), objects, "{reads:?}");
        // A redirect is replaced after half of it.
        let most = |read: &str| {
            let lifetime = if read.contains("/blobs/") { LIFETIME / 2 } else { LIFETIME };
            1 + elapsed.as_secs_f64().div_euclid(lifetime.as_secs_f64()) as usize
        };
        assert!(reads.iter().all(|(read, count)| *count <= most(read)), "in {elapsed:?}: {reads:?}");
        hosts.is_over.store(true, Ordering::SeqCst);
        for host in running {
            host.join().expect("no pull has failed");
        }
    });
    let log = proxy.end();
    let lines = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    for once in ["answers are stale from now on", "it is down, and probed", "it answers again, after "] {
        assert_eq!(lines(once), 1, "{once}");
    }
}
