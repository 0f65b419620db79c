//! Names that DNS gives late, wrongly or not at all, and addresses that are dead.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use acr_emulator::{Emulator, Image, Options};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::client::{Client, Seen};
use crate::dns::{Dns, Hole, Zone};
use testkit::{Proxy, Setup};

const REGISTRY: &str = "example.azurecr.io";
const STORAGE: &str = "account.blob.test";
const ENTRA: &str = "login.test";
const MANIFEST: &str = "/v2/library/busybox/manifests/latest";
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Azure by its names, which DNS gives; each is here until it is set otherwise.
struct Scene {
    dns: Dns,
    azure: Emulator,
    blob: String,
}

impl Scene {
    async fn new(options: Options) -> Self {
        let dns = Dns::start();
        for name in [REGISTRY, STORAGE, ENTRA] {
            dns.set(name, Zone::Has(vec![HERE]));
        }
        let (storage_host, extra_names) = (STORAGE.to_owned(), vec![ENTRA.to_owned()]);
        let azure = Emulator::start(Options { storage_host, extra_names, ..options }).await;
        let azure = azure.expect("the emulator starts");
        let pushed = azure.push(Image::small("hub/library/busybox", "latest"));
        let blob = format!("/v2/library/busybox/blobs/{}", pushed.blobs[1]);
        Self { dns, azure, blob }
    }

    /// A proxy that knows Azure by its names only.
    fn proxy(&self) -> Proxy {
        self.proxy_with("")
    }

    fn proxy_with(&self, settings: &str) -> Proxy {
        let setup = Setup::new(&self.azure);
        let ca = setup.file("names-ca.pem", self.azure.ca_pem());
        let config = format!(
            "upstream: {{domain: '{REGISTRY}:{}', prefix: hub, blobs: proxy, blob_hosts: ['{STORAGE}:{}']}}\n\
             listen: 127.0.0.1:0\ncache: off\nlog: info\nca_file: {}\n{settings}\n",
            self.azure.registry_addr().port(),
            self.azure.storage_addr().port(),
            ca.display()
        );
        let config = setup.file("names.yaml", config);
        setup
            .env("AZURE_AUTHORITY_HOST", &format!("https://{ENTRA}:{}", self.azure.entra_addr().port()))
            .flag("--config", &config.to_string_lossy())
            .start()
    }
}

/// Asks once, on a thread for it: what is asked for may take seconds.
fn get(proxy: &Proxy, path: &str) -> impl Future<Output = Seen> + use<> {
    let (address, path) = (proxy.address(), path.to_owned());
    let asked = tokio::task::spawn_blocking(move || Client::new(address).get(&path).expect("an answer"));
    async move { asked.await.expect("no panic") }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_lost_dns_packet_fails_no_pull_whichever_name_it_was_for() {
    let scene = Scene::new(testkit::options()).await;
    for name in [REGISTRY, ENTRA, STORAGE] {
        scene.dns.set(name, Zone::Loses(1, HERE));
        let proxy = scene.proxy();
        for path in [MANIFEST, &scene.blob] {
            let seen = get(&proxy, path).await;
            assert_eq!((seen.status, seen.cut), (200, false), "{name} {path}: {seen:?}\n{}", proxy.log());
        }
        // A name that is known is used whatever DNS does.
        scene.dns.set(name, Zone::Fails);
        let seen = get(&proxy, &scene.blob).await;
        assert_eq!((seen.status, seen.cut), (200, false), "{name}: {seen:?}\n{}", proxy.log());
        scene.dns.set(name, Zone::Has(vec![HERE]));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_resolvers_error_is_asked_again_before_a_pull_fails() {
    let scene = Scene::new(testkit::options()).await;
    for name in [REGISTRY, ENTRA, STORAGE] {
        scene.dns.set(name, Zone::Fails);
        let proxy = scene.proxy_with("token_wait: 20s");
        let blob = get(&proxy, &scene.blob);
        scene.dns.wait_until_asked(name);
        proxy.wait_for_log("DNS look-up: check the name and this host's resolver");
        scene.dns.set(name, Zone::Has(vec![HERE]));
        let seen = blob.await;
        assert_eq!((seen.status, seen.cut), (200, false), "{name}: {seen:?}\n{}", proxy.log());
        proxy.wait_for_log("DNS look-up works again");
    }
    // One that lasts is told, with the name and the resolver's own words.
    scene.dns.set(STORAGE, Zone::Fails);
    let proxy = scene.proxy();
    let seen = get(&proxy, &scene.blob).await;
    assert_eq!((seen.status, seen.code.as_deref()), (502, Some("UNAVAILABLE")), "{seen:?}\n{}", proxy.log());
    let says = format!("storage {STORAGE}: DNS look-up of {STORAGE}: check the name and this host's resolver: ");
    proxy.wait_for_log(&says);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_resolver_that_hangs_holds_a_handful_of_threads_and_is_named() {
    /// Pingora's, the upkeep's and the two look-ups of each of three names; one for each request would be hundreds.
    const MAX_THREADS: usize = 40;
    const REQUESTS: usize = 300;
    let scene = Scene::new(testkit::options()).await;
    for (name, path, status, says) in [
        (ENTRA, MANIFEST, 503, format!("no registry token: entra: client secret: DNS look-up of {ENTRA}: ")),
        (REGISTRY, MANIFEST, 503, format!("no registry token: acr {REGISTRY}:")),
        (STORAGE, &scene.blob, 502, format!("storage {STORAGE}: DNS look-up of {STORAGE}: ")),
    ] {
        scene.dns.set(name, Zone::Hangs);
        let proxy = scene.proxy();
        let mut requests = JoinSet::new();
        for _ in 0..REQUESTS {
            requests.spawn(get(&proxy, path));
        }
        scene.dns.wait_until_asked(name);
        let mut threads = proxy.threads();
        while let Some(seen) = requests.join_next().await {
            let seen = seen.expect("no panic");
            assert_eq!((seen.status, seen.code.as_deref()), (status, Some("UNAVAILABLE")), "{name}: {seen:?}");
            threads = threads.max(proxy.threads());
        }
        assert!(threads <= MAX_THREADS, "{name}: {threads} threads");
        let line = proxy.wait_for_log(&says);
        assert!(line.contains("no answer within "), "{name}: {line}");
        scene.dns.set(name, Zone::Has(vec![HERE]));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn three_dead_ipv6_addresses_and_a_good_ipv4_one_are_an_answer_of_the_first_try() {
    let scene = Scene::new(testkit::options()).await;
    let _hole = Hole::dig();
    let dead = (1..=3).map(|last| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)));
    let addresses: Vec<_> = dead.chain([HERE]).collect();
    // The signing in goes to a good one, so that the registry is met by pulls first.
    for name in [REGISTRY, STORAGE] {
        scene.dns.set(name, Zone::Has(addresses.clone()));
    }
    let proxy = scene.proxy();
    for path in [MANIFEST, &scene.blob, MANIFEST, &scene.blob] {
        let seen = get(&proxy, path).await;
        assert_eq!((seen.status, seen.cut), (200, false), "{path}: {seen:?}\n{}", proxy.log());
    }
    let log = proxy.end();
    let lines: Vec<_> = log.lines().filter(|line| line.contains(" access] GET ")).collect();
    assert_eq!(lines.len(), 4, "{log}");
    for line in lines {
        assert!(line.contains(" upstream=127.0.0.1:") && line.contains(" tries=1"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn where_all_addresses_are_dead_a_pull_is_told_so_and_dns_asked_again() {
    let scene = Scene::new(testkit::options()).await;
    let _hole = Hole::dig();
    let hole = IpAddr::from([192, 0, 2, 1]);
    scene.dns.set(STORAGE, Zone::Has(vec![hole]));
    let proxy = scene.proxy();
    let seen = get(&proxy, &scene.blob).await;
    assert_eq!((seen.status, seen.code.as_deref()), (502, Some("UNAVAILABLE")), "{seen:?}\n{}", proxy.log());
    // It moves while a request tries: that request has its answer.
    scene.dns.set(STORAGE, Zone::Has(vec![HERE]));
    let seen = get(&proxy, &scene.blob).await;
    assert_eq!((seen.status, seen.cut), (200, false), "{seen:?}\n{}", proxy.log());
}

/// The registry at a second address: passes everything on, until it is gone or swallows what comes.
struct Relay {
    mode: Arc<Mode>,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Mode {
    is_mute: AtomicBool,
}

impl Relay {
    async fn start(listen: SocketAddr, to: SocketAddr) -> Self {
        let listener = TcpListener::bind(listen).await.expect("the second address");
        let mode = Arc::new(Mode::default());
        let known = Arc::clone(&mode);
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(pass(stream, to, Arc::clone(&known)));
            }
        });
        Self { mode, server }
    }

    /// Takes connections on and their TLS handshakes, and no request.
    fn mute(&self) {
        self.mode.is_mute.store(true, Ordering::SeqCst);
    }

    /// Ends its connections and takes no more.
    async fn end(self) {
        self.server.abort();
        let _ = self.server.await;
    }
}

async fn pass(mut client: TcpStream, to: SocketAddr, mode: Arc<Mode>) {
    let Ok(mut server) = TcpStream::connect(to).await else {
        return;
    };
    let (mut client_reads, mut client_writes) = client.split();
    let (mut server_reads, mut server_writes) = server.split();
    let there = async {
        // RFC 8446 section 5.1: type, version, length. The first encrypted one ends the handshake.
        const ENCRYPTED: u8 = 23;
        let (mut record, mut encrypted) = (vec![0; 5], 0);
        while client_reads.read_exact(&mut record[..5]).await.is_ok() {
            encrypted += usize::from(record[0] == ENCRYPTED);
            record.resize(5 + usize::from(u16::from_be_bytes([record[3], record[4]])), 0);
            let is_whole = client_reads.read_exact(&mut record[5..]).await.is_ok();
            if encrypted > 1 && mode.is_mute.load(Ordering::SeqCst) {
                // The kernel has taken it, and the connection stays.
                std::future::pending::<()>().await;
            }
            if !is_whole || server_writes.write_all(&record).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = there => {}
        _ = copy(&mut server_reads, &mut client_writes) => {}
    }
}

/// A registry at an address that DNS does not know yet, the relay to it at the one that DNS knows, and a proxy that has pulled
/// by that way.
async fn pulled_through_a_relay() -> (Scene, SocketAddr, Relay, Proxy) {
    let at = |last, port| SocketAddr::from(([127, 0, 0, last], port));
    let scene = Scene::new(Options { registry_listen: at(3, 0), ..testkit::options() }).await;
    let registry = scene.azure.registry_addr();
    let relay = Relay::start(at(1, registry.port()), registry).await;
    let proxy = scene.proxy();
    assert_eq!(get(&proxy, MANIFEST).await.status, 200, "{}", proxy.log());
    (scene, registry, relay, proxy)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_registry_that_moves_costs_no_pull() {
    let (scene, registry, relay, proxy) = pulled_through_a_relay().await;
    scene.dns.set(REGISTRY, Zone::Has(vec![registry.ip()]));
    relay.end().await;
    let seen = get(&proxy, MANIFEST).await;
    assert_eq!((seen.status, seen.cut), (200, false), "{seen:?}\n{}", proxy.log());
    proxy.wait_for_log(&format!(" upstream={registry} "));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn an_address_that_is_mute_after_tls_costs_one_pull_whatever_order_dns_gives() {
    let (scene, registry, relay, proxy) = pulled_through_a_relay().await;
    relay.mute();
    scene.dns.set(REGISTRY, Zone::Has(vec![HERE, registry.ip()]));
    let seen = get(&proxy, MANIFEST).await;
    assert_eq!((seen.status, seen.code.as_deref()), (504, Some("UNAVAILABLE")), "{seen:?}\n{}", proxy.log());
    // The look-up that the failure began gives both addresses, the mute one first.
    scene.dns.wait_until_asked(REGISTRY);
    for _ in 0..3 {
        let seen = get(&proxy, MANIFEST).await;
        assert_eq!((seen.status, seen.cut), (200, false), "{seen:?}\n{}", proxy.log());
    }
    proxy.wait_for_log(&format!(" upstream={registry} "));
}
