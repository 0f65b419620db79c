//! Connections whose packets nobody answers any more.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use acr_emulator::{Emulator, Hop, Image, Options};

use crate::client::{Client, Seen};
use testkit::{AT_ONCE, Proxy, Setup};

/// Requests at once, and so connections that are kept.
const CLIENTS: usize = 4;
/// The proxy's limit for what is not acknowledged: who waits less has met no dead connection.
const UNACKNOWLEDGED: Duration = Duration::from_secs(4);

/// From now on the packets of all connections to these servers are dropped, on their way there, as by a firewall that has
/// forgotten them; new connections work.
fn forget_connections(servers: &[SocketAddr]) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("proc(5)");
    let port = |field: &str| u16::from_str_radix(field.split(':').nth(1)?, 16).ok();
    let established = table.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (local, remote) = (port(fields.get(1)?)?, port(fields.get(2)?)?);
        (fields.get(3) == Some(&"01") && servers.iter().any(|server| server.port() == remote))
            .then_some((local, remote))
    });
    let ports: BTreeSet<_> = established.collect();
    for (local, remote) in &ports {
        // With the server's port: a client's later connection to the proxy may come from the same port.
        let (local, remote) = (local.to_string(), remote.to_string());
        let rule = ["-A", "INPUT", "-p", "tcp", "--sport", &local, "--dport", &remote, "-j", "DROP"];
        assert!(Command::new("iptables").args(rule).status().expect("iptables runs").success());
    }
    ports.len()
}

/// The same request of several clients at once.
fn ask_together(proxy: &Proxy, path: &str) -> Vec<Seen> {
    std::thread::scope(|scope| {
        let ask = || Client::new(proxy.address()).get(path).expect("an answer");
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn kept_connections_that_died_in_silence_cost_one_request_four_seconds_and_no_other() {
    // So long that requests at once need connections of their own.
    let latency = Duration::from_millis(500);
    let azure = Emulator::start(Options { latency, ..testkit::options() }).await.expect("the emulator starts");
    let pushed = azure.push(Image::small("hub/library/busybox", "latest"));
    let servers = [azure.registry_addr(), azure.storage_addr()];
    let hosts = format!("  blobs: proxy\n  blob_hosts: ['{}']\n", azure.storage_addr());
    let manifest = "/v2/library/busybox/manifests/latest".to_owned();
    let blob = format!("/v2/library/busybox/blobs/{}", pushed.blobs[1]);
    // A blob has two connections, and each may be dead once.
    for (path, hop, legs) in [(&manifest, Hop::Data, 1), (&blob, Hop::Storage, 2)] {
        let proxy = Setup::new(&azure).cache("off").upstream(&hosts).start();
        let mut client = Client::new(proxy.address());
        assert_eq!(client.get(path).expect("an answer").status, 200);
        azure.clear_requests();
        assert!(ask_together(&proxy, path).iter().all(|seen| seen.status == 200));
        let requests = azure.take_requests();
        let used: BTreeSet<_> =
            requests.iter().filter(|request| request.hop == hop).map(|request| request.connection).collect();
        assert!(used.len() > 1, "one connection only: {path}");
        assert!(forget_connections(&servers) >= legs * used.len(), "{path}");

        let first = client.get(path).expect("an answer");
        assert_eq!(first.status, 200, "{path}: {first:?}\n{}", proxy.log());
        assert!(first.took >= UNACKNOWLEDGED && first.took < AT_ONCE, "{path}: {first:?}");
        for _ in 0..CLIENTS {
            let next = client.get(path).expect("an answer");
            assert_eq!(next.status, 200, "{path}: {next:?}\n{}", proxy.log());
            assert!(next.took < UNACKNOWLEDGED, "{path}: {next:?}\n{}", proxy.log());
        }

        // All notice together, each by its own connection: they wait as long as one.
        assert!(ask_together(&proxy, path).iter().all(|seen| seen.status == 200));
        forget_connections(&servers);
        for seen in ask_together(&proxy, path) {
            assert!(seen.status == 200 && seen.took < AT_ONCE, "{path}: {seen:?}\n{}", proxy.log());
        }
        assert!(ask_together(&proxy, path).iter().all(|seen| seen.status == 200 && seen.took < UNACKNOWLEDGED));
        let renewed = proxy.log().lines().filter(|line| line.contains("tries=1 ")).count();
        assert!(renewed > CLIENTS, "{}", proxy.log());
    }
}
