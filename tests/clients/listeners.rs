//! Listeners with TLS and with the PROXY protocol, as real clients and balancers use them.

use std::net::TcpStream;
use std::process::Command;

use testkit::certificates::{Authority, Pair};
use testkit::{PATIENCE, Proxy, Setup};

use crate::containerd::Containerd;
use crate::containers;
use crate::daemon::{DAEMON_LIMIT, Daemon};
use crate::docker::{Docker, Kind};
use crate::home::Home;
use crate::hub::{Site, TAG};
use crate::namespace::Bound;
use crate::program::{fail, run};

/// Where clients ask. No loopback address: dockerd verifies no certificate there.
const MIRROR: &str = "192.0.2.20:8443";
/// Behind a balancer, as both files in `conf` have it.
const BALANCER: &str = "127.0.0.1:8080";
const INSTANCES: [&str; 2] = ["192.0.2.11", "192.0.2.12"];

fn add_address(address: &str) {
    run(Command::new("ip").args(["address", "replace", &format!("{address}/32"), "dev", "lo"]));
}

/// What a client needs for TLS, as files of its home.
struct Credentials {
    ca: Authority,
    nodes: Authority,
}

impl Credentials {
    fn new() -> Self {
        Self { ca: Authority::new("mirror CA"), nodes: Authority::new("nodes") }
    }

    /// A proxy that asks every client for a certificate.
    fn proxy(&self, site: &Site) -> Proxy {
        add_address("192.0.2.20");
        let setup = site.proxy(&[("docker.io", "hub")], "closed");
        let Pair { certificate, key } = self.ca.server(&["192.0.2.20"]);
        for (name, content) in [("tls.crt", certificate.as_str()), ("tls.key", &key), ("ca.crt", self.nodes.pem())] {
            setup.file(name, content);
        }
        let tls = "{certificate: {}/tls.crt, key: {}/tls.key, client_ca: {}/ca.crt, client_auth: required}";
        setup.listen(&format!("[{{address: '{MIRROR}', tls: {tls}}}]")).start()
    }

    /// The files that dockerd and podman look for in a directory of a registry.
    fn write(&self, home: &Home, directory: &str) -> String {
        let Pair { certificate, key } = self.nodes.client("node-7", "spiffe://example.org/node/7");
        for (name, content) in [("ca.crt", self.ca.pem()), ("client.cert", &certificate), ("client.key", &key)] {
            home.file(&format!("{directory}/{name}"), content);
        }
        home.path().join(directory).display().to_string()
    }
}

/// A pull of a new image succeeds, with the client's certificate and from nowhere else.
fn check(site: &Site, proxy: &Proxy, name: &str, pull: impl Fn(&str) -> Command) {
    site.put("hub", name);
    run(&mut pull(&format!("docker.io/{name}:{TAG}")));
    proxy.wait_until("a pull with a certificate", |log| {
        let is_pull =
            |line: &&str| line.contains(&format!("{name}/manifests/")) && line.contains(" certificate=node-7");
        log.lines().find(is_pull).map(drop)
    });
    assert!(site.hub.requests().is_empty(), "{:#?}", site.hub.requests());
}

async fn dockerd_pulls(kind: Kind) {
    let site = Site::start().await;
    let credentials = Credentials::new();
    let proxy = credentials.proxy(&site);
    let home = site.home();
    home.file("etc/docker/daemon.json", &format!("{{\"registry-mirrors\": [\"https://{MIRROR}\"]}}"));
    credentials.write(&home, &format!("etc/docker/certs.d/{MIRROR}"));
    // This machine's dockerd has no tree of its own.
    let _own = (kind == Kind::Debian12).then(|| Bound::directory(home.path().join("etc/docker"), "/etc/docker"));
    let docker = Docker::start_by(&home, home.path(), kind);
    check(&site, &proxy, "library/app", |reference| docker.docker(PATIENCE, &format!("pull {reference}")));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn dockerd_pulls_with_a_client_certificate() {
    dockerd_pulls(Kind::Debian12).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_newer_dockerd_pulls_with_a_client_certificate() {
    dockerd_pulls(Kind::Debian13).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn dockerd_with_containerds_store_pulls_with_a_client_certificate() {
    dockerd_pulls(Kind::ContainerdStore).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn containerd_pulls_with_a_client_certificate() {
    let site = Site::start().await;
    let credentials = Credentials::new();
    let proxy = credentials.proxy(&site);
    let home = site.home();
    let files = credentials.write(&home, "tls");
    let host = format!(
        "server = \"https://{MIRROR}\"\n[host.\"https://{MIRROR}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"{files}/ca.crt\"\n"
    );
    let hosts = format!("{host}  client = [[\"{files}/client.cert\", \"{files}/client.key\"]]\n");
    let containerd = Containerd::start(&home, "docker.io", &hosts);
    check(&site, &proxy, "library/app", |reference| containerd.pull(PATIENCE, reference));
    // The files are read anew for each pull.
    home.file("certs/docker.io/hosts.toml", &host);
    site.put("hub", "library/other");
    fail(&mut containerd.pull(PATIENCE, &format!("docker.io/library/other:{TAG}")));
    proxy.wait_for_log("error=TLS handshake: the client has no certificate");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn podman_pulls_with_a_client_certificate() {
    let site = Site::start().await;
    let credentials = Credentials::new();
    let proxy = credentials.proxy(&site);
    let home = site.home();
    let replaced = format!("[[registry]]\nprefix = \"docker.io\"\nlocation = \"{MIRROR}/docker.io\"\n");
    containers::configure(&home, &replaced);
    let files = credentials.write(&home, "tls");
    let pull = |reference: &str| {
        let mut command = containers::pull_into_new_root(&home, PATIENCE, reference);
        command.args(["--cert-dir", &files]);
        command
    };
    check(&site, &proxy, "library/app", pull);
    std::fs::remove_file(home.path().join("tls/client.cert")).expect("removed");
    std::fs::remove_file(home.path().join("tls/client.key")).expect("removed");
    site.put("hub", "library/other");
    fail(&mut pull(&format!("docker.io/library/other:{TAG}")));
    proxy.wait_for_log("error=TLS handshake: the client has no certificate");
}

/// Two instances behind a balancer that sends the PROXY protocol's header; `words` start it with this file.
async fn the_log_has_true_addresses(balancer: &str, has_tls: bool) {
    let site = Site::start().await;
    INSTANCES.iter().for_each(|address| add_address(address));
    let ca = Authority::new("mirror CA");
    let Pair { certificate, key } = ca.server(&["127.0.0.1"]);
    let instances = INSTANCES.map(|address| {
        let setup: Setup = site.proxy(&[("docker.io", "hub")], "closed");
        setup.file("tls.crt", &certificate);
        setup.file("tls.key", &key);
        let tls = if has_tls { ", tls: {certificate: {}/tls.crt, key: {}/tls.key}" } else { "" };
        setup
            .listen(&format!("[{{address: '{address}:8080', proxy_protocol: {{trusted: [192.0.2.0/24]}}{tls}}}]"))
            .flag("--admin-address", &format!("{address}:8081"))
            .start()
    });
    let home = site.home();
    let words = if balancer.contains("nginx") {
        let conf = home.file("balancer.conf", balancer);
        format!("nginx -e stderr -c {}", conf.display())
    } else {
        let conf = home.file("balancer.cfg", balancer);
        format!("haproxy -db -f {}", conf.display())
    };
    let mut command = home.client(DAEMON_LIMIT, &words);
    if words.starts_with("nginx") {
        command.arg("-g").arg(format!("daemon off; pid {}/pid;", home.path().display()));
    }
    let _balancer = Daemon::start("balancer", command, &home, || TcpStream::connect(BALANCER).is_ok());

    let scheme = if has_tls { "https" } else { "http" };
    let pem = home.file("mirror.pem", ca.pem());
    let containerd_home = site.home();
    let trust = if has_tls { format!("  ca = \"{}\"\n", pem.display()) } else { String::new() };
    let hosts = format!(
        "server = \"{scheme}://{BALANCER}\"\n[host.\"{scheme}://{BALANCER}\"]\n  capabilities = [\"pull\", \"resolve\"]\n{trust}"
    );
    let containerd = Containerd::start(&containerd_home, "docker.io", &hosts);
    site.put("hub", "library/app");
    run(&mut containerd.pull(PATIENCE, &format!("docker.io/library/app:{TAG}")));
    let curl = |source: &str| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--interface", source, "--cacert"]).arg(&pem);
        run(curl.arg(format!("{scheme}://{BALANCER}/v2/")));
    };
    // Whichever of the two gets them.
    let sources = ["127.0.0.7", "127.0.0.8", "127.0.0.9", "127.0.0.10"];
    sources.iter().for_each(|source| curl(source));
    let log: String = instances.into_iter().map(Proxy::end).collect();
    for source in sources {
        assert_eq!(log.matches(&format!(" client={source}:")).count(), 1, "{source}: {log}");
    }
    assert!(log.contains(" access] GET /v2/library/app/"), "{log}");
    let others = log.lines().filter(|line| line.contains(" access] ") && !line.contains(" client=127.0.0."));
    assert_eq!(others.count(), 0, "{log}");
}

/// `conf/haproxy.cfg` with a word more for each of its servers.
fn haproxy(word: &str) -> String {
    let conf = include_str!("../../conf/haproxy.cfg");
    let changed = conf.replace(":8080\n  server", &format!(":8080 {word}\n  server"));
    let changed = changed.trim_end().to_owned() + &format!(" {word}\n");
    assert_eq!(changed.matches(word).count(), INSTANCES.len(), "{changed}");
    changed
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn behind_haproxy_the_log_has_the_true_addresses() {
    for (word, has_tls) in
        [("send-proxy", false), ("send-proxy-v2", false), ("send-proxy", true), ("send-proxy-v2", true)]
    {
        the_log_has_true_addresses(&haproxy(word), has_tls).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn behind_nginx_the_log_has_the_true_addresses() {
    let conf = include_str!("../../conf/nginx-stream.conf");
    let changed = conf.replace("proxy_pass instances;", "proxy_pass instances;\n    proxy_protocol on;");
    assert_ne!(conf, changed);
    for has_tls in [false, true] {
        the_log_has_true_addresses(&changed, has_tls).await;
    }
}
