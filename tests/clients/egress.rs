//! Azure is behind a real squid: podman pulls through the proxy and squid, and squid's own refusals are understood.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use acr_emulator::Emulator;

use crate::containers;
use crate::daemon::{DAEMON_LIMIT, Daemon};
use crate::home::Home;
use crate::hub::{Site, TAG};
use crate::program::{installed, run};
use testkit::{PATIENCE, Proxy, Setup};

/// Where Debian's squid listens.
const ADDRESS: &str = "127.0.0.1:3128";
const USER: &str = "puller";
/// As it is and in an address.
const PASSWORD: (&str, &str) = ("p@ss:word", "p%40ss%3Aword");
/// Where Debian has squid's helper for Basic.
const HELPER: &str = "/usr/lib/squid/basic_ncsa_auth";
/// What is denied, and what squid's hosts do not know.
const DENIED: &str = "denied.azurecr.io";
const UNKNOWN: &str = "unknown.azurecr.io";

/// Writes squid's files. It looks names up in a file of its own: this host knows none of them.
fn configure(home: &Home, azure: &Emulator) {
    let path = |name: &str| home.path().join(name).display().to_string();
    home.file("squid-hosts", &format!("127.0.0.1 localhost example.azurecr.io {DENIED}\n"));
    let hash = run(Command::new("openssl").args(["passwd", "-apr1", PASSWORD.0]));
    home.file("passwords", &format!("{USER}:{hash}"));
    home.file("access.log", "");
    let ports = [azure.registry_addr(), azure.entra_addr(), azure.storage_addr()].map(|address| address.port());
    let ports = ports.map(|port| port.to_string()).join(" ");
    let log = path("access.log");
    home.file(
        "squid.conf",
        &format!(
            "http_port {ADDRESS}\nvisible_hostname forward\npid_filename none\ncache deny all\nshutdown_lifetime 0 seconds\n\
             hosts_file {}\ndns_nameservers 127.0.0.1\ndns_timeout 1 seconds\ncoredump_dir {}\n\
             cache_log stdio:/dev/stderr\naccess_log stdio:{log}\nlogfile_rotate 0\n\
             auth_param basic program {HELPER} {}\nauth_param basic realm forward\n\
             acl known proxy_auth REQUIRED\nacl tls port {ports}\nacl denied dstdomain {DENIED}\n\
             http_access deny !tls\nhttp_access deny denied\nhttp_access deny !known\nhttp_access allow known\n\
             http_access deny all\n",
            path("squid-hosts"),
            home.path().display(),
            path("passwords"),
        ),
    );
    // squid gives root up, and its own user has to get here.
    for name in [".", "squid-hosts", "passwords", "access.log", "squid.conf"] {
        let mode = std::fs::Permissions::from_mode(if name == "." || name == "access.log" { 0o777 } else { 0o644 });
        std::fs::set_permissions(home.path().join(name), mode).expect("ours");
    }
}

fn start(home: &Home) -> Daemon {
    let command = home.client(DAEMON_LIMIT, &format!("squid -N -f {}/squid.conf", home.path().display()));
    Daemon::start("squid", command, home, || TcpStream::connect(ADDRESS).is_ok())
}

/// The lines of squid's log for this target, of this kind.
fn logged(home: &Home, kind: &str, target: &str) -> usize {
    let log = std::fs::read_to_string(home.path().join("access.log")).expect("squid writes it");
    log.lines().filter(|line| line.contains(kind) && line.contains(&format!("CONNECT {target} "))).count()
}

fn behind(site: &Site, domain: &str, credentials: &str) -> Setup {
    let port = site.azure.registry_addr().port();
    let storage = site.azure.storage_addr();
    let route = format!(
        "  - {{source: docker.io, prefix: hub, domain: '{domain}:{port}', blobs: proxy, blob_hosts: ['{storage}'], \
         on_failure: closed}}\n"
    );
    let setup = Setup::new(&site.azure).only_routes(&route).cache("off");
    setup.flag("--log", "info").env("HTTPS_PROXY", &format!("http://{credentials}{ADDRESS}"))
}

fn pull(home: &Home, proxy: &Proxy, name: &str) {
    containers::configure(home, &containers::replaced("docker.io", &format!("{}/docker.io", proxy.address())));
    run(&mut containers::pull_into_new_root(home, PATIENCE, &format!("docker.io/{name}:{TAG}")));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn podman_pulls_through_squid_whose_refusals_are_understood() {
    assert!(
        Path::new(HELPER).exists() && installed("squid").exists(),
        "squid is not installed: run scripts/install test"
    );
    let site = Site::start().await;
    let home = site.home();
    configure(&home, &site.azure);
    let squid = start(&home);
    let credentials = format!("{USER}:{}@", PASSWORD.1);
    let client = site.home();

    let proxy = behind(&site, "example.azurecr.io", &credentials).start();
    for name in ["library/one", "library/two", "library/three"] {
        site.put("hub", name);
        pull(&client, &proxy, name);
    }
    // squid writes a line when a tunnel ends.
    drop(squid);
    let registry = format!("example.azurecr.io:{}", site.azure.registry_addr().port());
    let deadline = Instant::now() + PATIENCE;
    while logged(&home, "TCP_TUNNEL/200", &registry) == 0 {
        assert!(
            Instant::now() < deadline,
            "{}",
            std::fs::read_to_string(home.path().join("access.log")).expect("a log")
        );
        // Nothing depends on the step.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // One for tokens, and for each of two threads no more than podman's parallel requests.
    let tunnels = logged(&home, "TCP_TUNNEL/200", &registry);
    let requests = site.azure.requests().len();
    assert!(tunnels <= 12 && requests > 20, "{tunnels} tunnels for {requests} requests");

    // squid is gone, and comes back.
    let unreachable = proxy.address();
    let answer = testkit::wire::ask(unreachable, "GET /v2/library/one/manifests/9", "");
    assert!(
        answer.status == 502 && answer.body.contains("egress proxy 127.0.0.1:3128: no connection to it"),
        "{answer:?}"
    );
    let squid = start(&home);
    site.put("hub", "library/four");
    pull(&client, &proxy, "library/four");
    drop(proxy);

    for (domain, credentials, says) in [
        ("example.azurecr.io", format!("{USER}:wrong@"), "407: it refuses the user and the password in HTTPS_PROXY"),
        ("example.azurecr.io", String::new(), "407: it wants a user and a password: give them in HTTPS_PROXY"),
        (DENIED, credentials.clone(), "403 ERR_ACCESS_DENIED: it does not allow CONNECT to denied.azurecr.io:"),
        (UNKNOWN, credentials, "500 ERR_CANNOT_FORWARD: it cannot connect to unknown.azurecr.io:"),
    ] {
        let proxy = behind(&site, domain, &credentials).start();
        proxy.wait_for_log(says);
    }
    drop(squid);
    assert!(site.hub.requests().is_empty(), "{:#?}", site.hub.requests());
}
