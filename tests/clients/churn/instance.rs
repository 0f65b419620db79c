//! One instance and what changes at it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use testkit::certificates::Authority;
use testkit::{PATIENCE, Proxy, Setup};

use super::balancer::{LANES, PORTS};
use super::host::{connect_from, secure};
use super::{CLIENTS, DENIED, WATCHER};
use crate::hub::Site;

/// What happens to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// SIGTERM, and a start when it has ended.
    Restart,
    /// SIGUSR2: another process takes its place.
    Upgrade,
    /// SIGHUP, and nothing is different.
    Reload,
    /// Another certificate in place of the old one, as Kubernetes swaps it.
    Certificate,
    /// SIGHUP with one of [`VARIANTS`].
    Configuration,
    /// SIGHUP with a configuration that has a mistake.
    Mistake,
}

pub(super) const CHANGES: [Change; 6] =
    [Change::Restart, Change::Upgrade, Change::Reload, Change::Certificate, Change::Configuration, Change::Mistake];

/// What a configuration has in place of the first one's text. `REGISTRY` is the emulator's: with one that does not answer, an
/// instance is not ready.
const VARIANTS: [(&str, &str); 9] = [
    ("", ""),
    ("cache: {}", "cache: off"),
    ("request_burst_per_client: 60", "request_burst_per_client: 70"),
    ("deny: [198.51.100.66]", "deny: [198.51.100.66, 203.0.113.0/24]"),
    // One more source, and another repository.
    ("source: docker.io,", "source: quay.io, prefix: quay, REGISTRY}\n  - {source: docker.io,"),
    ("prefix: ghcr,", "prefix: ghcr2,"),
    // Its connections are closed, too.
    ("trusted: [192.0.2.0/24]", "trusted: [192.0.2.0/24, 203.0.113.0/24]"),
    ("listen: [", "listen: [{address: '0.0.0.0:0'}, "),
    ("token_wait: 20s", "token_wait: 10s"),
];

/// An instance of the proxy, whatever process that is just now.
pub(super) struct Instance<'a> {
    site: &'a Site,
    ca: &'a Authority,
    pub address: &'static str,
    proxy: Proxy,
    /// The process that serves; not the one that was started, after an upgrade.
    pid: u32,
    /// The first configuration.
    config: String,
    variant: usize,
    certificates: usize,
    /// The log up to the last restart.
    earlier: String,
    /// Who was seen in the log.
    pub clients: BTreeSet<Ipv4Addr>,
}

/// The keys of a route that say where the registry is.
fn registry(site: &Site) -> String {
    format!("domain: 'example.azurecr.io:{}', addresses: [127.0.0.1]", site.azure.registry_addr().port())
}

fn start(site: &Site, ca: &Authority, address: &str) -> Proxy {
    let route = |source: &str, prefix: &str, more: &str| {
        format!("  - {{source: {source}, prefix: {prefix}, {}, on_failure: closed{more}}}\n", registry(site))
    };
    let routes = route("docker.io", "hub", "")
        + &route("ghcr.io", "ghcr", &format!(", blobs: proxy, blob_hosts: ['{}']", site.azure.storage_addr()));
    let header = "proxy_protocol: {trusted: [192.0.2.0/24]}";
    let [plain, tls] = PORTS;
    let setup = Setup::new(&site.azure).only_routes(&routes).flag("--log", "info").cache("{}").listen(&format!(
        "[{{address: '{address}:{plain}', {header}}}, {{address: '{address}:{tls}', {header}, \
         tls: {{certificate: {{}}/tls/tls.crt, key: {{}}/tls/tls.key}}}}]"
    ));
    put_certificate(&setup.path(""), 0, ca);
    setup
        .settings(&format!("admin: '{address}:8081'"))
        .settings("access: {allow: [198.51.100.0/24], deny: [198.51.100.66]}")
        .settings("limits: {requests_per_second_per_client: 30, request_burst_per_client: 60}")
        .settings("drain: {notice: 5s}")
        .settings("token_wait: 20s")
        .start()
}

/// Puts a new pair below `tls`, a link that is replaced. Returns the certificate.
fn put_certificate(files: &Path, number: usize, ca: &Authority) -> String {
    let names = LANES.map(|lane| lane.address.ip().to_string());
    let names: Vec<_> = names.iter().map(String::as_str).chain(super::balancer::INSTANCES).collect();
    let pair = ca.server(&names);
    let folder = files.join(format!("tls-{number}"));
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("tls.crt"), &pair.certificate).expect("written");
    std::fs::write(folder.join("tls.key"), &pair.key).expect("written");
    symlink(&folder, files.join("tls.new")).expect("a link");
    std::fs::rename(files.join("tls.new"), files.join("tls")).expect("swapped");
    pair.certificate
}

/// Whether a process has ended; one that nobody has waited for has, too.
fn has_ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may contain anything (proc(5)).
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

impl<'a> Instance<'a> {
    pub(super) fn start(site: &'a Site, ca: &'a Authority, address: &'static str) -> Self {
        let proxy = start(site, ca, address);
        let config = std::fs::read_to_string(proxy.config()).expect("a configuration");
        let (pid, clients) = (proxy.id(), BTreeSet::new());
        Self { site, ca, address, proxy, pid, config, variant: 0, certificates: 0, earlier: String::new(), clients }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.pid.to_string()]).status().expect("kill runs");
        assert!(sent.success(), "{}: process {} is not there:\n{}", self.address, self.pid, self.proxy.log());
    }

    /// Does it and returns when it is done.
    pub(super) fn change(&mut self, change: Change, trust: &Arc<ClientConfig>) {
        match change {
            Change::Restart => {
                self.end();
                self.proxy = start(self.site, self.ca, self.address);
                self.pid = self.proxy.id();
                self.config = std::fs::read_to_string(self.proxy.config()).expect("a configuration");
                (self.variant, self.certificates) = (0, 0);
            }
            Change::Upgrade => {
                let line = self.after("USR2", &[" serves from now on", "this process goes on: "]);
                let successor = line.split_once("upgrade: process ").and_then(|(_, rest)| rest.split_once(" serves"));
                let successor = successor.and_then(|(pid, _)| pid.parse().ok());
                let successor = successor.unwrap_or_else(|| panic!("{}: {line}", self.address));
                self.wait_for_end();
                self.pid = successor;
            }
            Change::Reload => {
                let line = self.after("HUP", &["reload: "]);
                assert!(line.ends_with("reload: no setting has changed"), "{line}");
            }
            Change::Certificate => {
                self.certificates += 1;
                let length = self.proxy.log().len();
                let new = put_certificate(&self.proxy.path(""), self.certificates, self.ca);
                self.wait_behind(length, &["the certificate files have changed, and what is in them is in use"]);
                self.has_certificate(&new, trust);
                let old = self.proxy.path(&format!("tls-{}", self.certificates - 1));
                std::fs::remove_dir_all(old).expect("removed");
            }
            Change::Configuration => {
                self.variant = (self.variant + rand::random_range(1..VARIANTS.len())) % VARIANTS.len();
                std::fs::write(self.proxy.config(), self.current()).expect("written");
                let line = self.after("HUP", &["reload: "]);
                assert!(line.contains("reload: in effect: ") && !line.contains("restart"), "{line}");
            }
            Change::Mistake => {
                let wrong = self.current().replace("prefix: hub", "prefix: Hub");
                std::fs::write(self.proxy.config(), wrong).expect("written");
                let line = self.after("HUP", &["reload: "]);
                assert!(line.contains("reload: nothing has changed: "), "{line}");
                std::fs::write(self.proxy.config(), self.current()).expect("written");
            }
        }
    }

    fn current(&self) -> String {
        let (from, to) = VARIANTS[self.variant];
        assert!(self.config.contains(from), "{}", self.config);
        if from.is_empty() {
            return self.config.clone();
        }
        self.config.replace(from, &to.replace("REGISTRY", &registry(self.site)))
    }

    /// Sends a signal and waits for the line that answers it.
    fn after(&self, signal: &str, needles: &[&str]) -> String {
        let length = self.proxy.log().len();
        self.signal(signal);
        self.wait_behind(length, needles)
    }

    /// The first line behind this part of the log that contains one of these.
    fn wait_behind(&self, length: usize, needles: &[&str]) -> String {
        self.proxy.wait_until(needles[0], |log| {
            let mut lines = log[length..].lines().filter(|line| !line.contains(" access] "));
            lines.find(|line| needles.iter().any(|needle| line.contains(needle))).map(str::to_owned)
        })
    }

    /// Waits until the process has ended, as one that was told to.
    fn wait_for_end(&mut self) {
        if self.pid == self.proxy.id() {
            let status = self.proxy.wait();
            assert!(status.success(), "{}: {status}", self.address);
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        while !has_ended(self.pid) {
            assert!(Instant::now() < deadline, "{}: still running:\n{}", self.address, self.proxy.log());
            // It is no child of this process, so there is nothing to wait for; nothing depends on the step.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A host that is no balancer is shown this certificate. It needs no header.
    fn has_certificate(&self, pem: &str, trust: &Arc<ClientConfig>) {
        let address = SocketAddrV4::new(self.address.parse().expect("an address"), PORTS[1]);
        let mut stream = secure(trust, address, connect_from(WATCHER, address).expect("it listens"));
        stream.conn.complete_io(&mut stream.sock).expect("a handshake");
        let shown = stream.conn.peer_certificates().and_then(|chain| chain.first()).expect("a certificate");
        assert_eq!(*shown, CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM"), "{}", self.address);
    }

    /// Ends it, by SIGTERM, and looks at what it has logged.
    pub(super) fn end(&mut self) {
        self.signal("TERM");
        self.wait_for_end();
        self.earlier = self.proxy.end_of_log();
        for line in self.earlier.lines() {
            assert!(!line.contains("panicked") && !line.contains("are cut off"), "{}: {line}", self.address);
            let Some(client) = line.split_once(" access] ").and_then(|(_, rest)| rest.split_once(" client=")) else {
                continue;
            };
            let client = client.1.split([':', ' ']).next().and_then(|address| address.parse::<Ipv4Addr>().ok());
            let is_known = client.is_some_and(|client| client.octets()[..3] == CLIENTS.octets()[..3]);
            assert!(is_known, "{}: not the client's address: {line}", self.address);
            let client = client.expect("it is known");
            assert!(client != DENIED || !line.contains(" 200 "), "{}: served: {line}", self.address);
            self.clients.insert(client);
        }
    }

    /// The lines of a second of the day and of those beside it.
    pub(super) fn lines_around(&self, second: u64) -> String {
        let times = (second.saturating_sub(1)..second + 2)
            .map(|second| format!("T{:02}:{:02}:{:02}.", second / 3600, second / 60 % 60, second % 60));
        let times: Vec<_> = times.collect();
        let log = self.proxy.log();
        let lines = self.earlier.lines().chain(log.lines());
        let lines = lines.filter(|line| times.iter().any(|time| line.contains(time)));
        format!("--- {}\n{}\n", self.address, lines.collect::<Vec<_>>().join("\n"))
    }
}

impl Drop for Instance<'_> {
    fn drop(&mut self) {
        // The process that was started is ended by its value; one that took its place is not.
        if self.pid != self.proxy.id() && !has_ended(self.pid) {
            let _ = Command::new("kill").args(["-s", "KILL", &self.pid.to_string()]).status();
        }
    }
}
