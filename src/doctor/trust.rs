//! Whether engines trust the certificate of a proxy that speaks TLS. One that does not goes past the proxy without a word, or fails where
//! nobody else may be asked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::ask;
use super::dockerd::Reads;
use super::expected::{Expected, by_hand, edit};
use super::finding::{Code, Examined, Finding, Fix, PAST, Part, Way};
use super::hosts_toml::{self, Directory};
use crate::client_config::Client;
use crate::client_config::address::Address;
use crate::host::{self, Host};
use crate::net::trust::{SYSTEM_BUNDLES, TrustRoots};
use crate::shell::shell_word;

/// From the connection to the end of the handshake, which takes milliseconds on one host and a second between continents.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Directories with a directory for each address, in which files that end so are authorities.
const CERTS_D: [&str; 6] = [
    "/root/.config/containers/certs.d",
    "/etc/containers/certs.rootful.d",
    "/etc/containers/certs.d",
    "/usr/share/containers/certs.rootful.d",
    "/usr/share/containers/certs.d",
    DOCKER_CERTS_D,
];
const DOCKER_CERTS_D: &str = "/etc/docker/certs.d";
/// Where an administrator puts authorities, from which the bundle is made.
const ANCHORS: [&str; 2] = ["/usr/local/share/ca-certificates/*.crt", "/etc/pki/ca-trust/source/anchors/*"];
/// Those that Debian brings. Each run of its program makes the bundle anew, so the time of that says little.
const OF_SYSTEM: &str = "/usr/share/ca-certificates/mozilla/*.crt";
/// The end of a command.
const FILE: &str = "  # CA.pem: the certificate of the authority that has signed the proxy's";

/// Who goes by `hosts.toml`, which names authorities for each registry.
pub(super) struct ByHostsToml<'a> {
    /// The directories in which containerd looks for them, and what is there.
    pub containerd: Vec<(&'a str, &'a [Directory])>,
    /// For what dockerd does, and what is in its own directory; `None` where there is no dockerd.
    pub dockerd: Option<(Reads, &'a [Directory])>,
    /// The two, their services, and when those that run were started, if that is known.
    pub started: [(Part, &'static str, Option<SystemTime>); 2],
}

/// What an engine trusts for a registry besides the CA certificates of the host.
enum Own {
    /// Files of authorities, and how it gets one more.
    Files(Vec<String>, Fix),
    /// Every certificate.
    Everything,
    /// Nobody knows.
    Unknown,
}

/// Adds what is wrong to the engines that pull through the proxy. Where nobody answers at its address, that is told of the proxy.
pub(super) async fn judge(host: &Host, expected: &Expected<'_>, by: &ByHostsToml<'_>, parts: &mut [Examined]) {
    let url = Address::parse(&expected.here.url);
    if !url.has_tls() {
        return;
    }
    let mut shown = Shown { host, url, known: BTreeMap::new() };
    let Some(wrong) = shown.refusal(&[]).await else {
        not_loaded(&shown, expected, by, parts).await;
        return;
    };
    let url = shown.url.clone();
    for part in parts.iter_mut().filter(|part| part.part != Part::Proxy) {
        let through: Vec<_> = part.ways.iter().filter(|(_, way)| **way == Way::Proxy).map(|(name, _)| name).collect();
        for name in through.into_iter().cloned().collect::<Vec<_>>() {
            let (own, fix) = match authorities(part.part, host, expected, by, &name) {
                Own::Files(own, fix) => (own, fix),
                Own::Everything => continue,
                Own::Unknown => {
                    part.notes.push(format!(
                        "the certificate of {url} is not accepted with the CA certificates of this host: {wrong}: what its own settings trust is not judged"
                    ));
                    break;
                }
            };
            let Some(wrong) = shown.refusal(&own).await else { continue };
            part.ways.insert(name.clone(), expected.way_without_proxy(&name));
            let why = format!("TLS with the proxy fails, and {PAST}; of a closed route every pull fails");
            part.find(untrusted(&url, &wrong, &name, why, fix));
        }
        if let (Part::Dockerd, Some((Reads::Builds, directories))) = (part.part, by.dockerd) {
            builds(&mut shown, expected, directories, part).await;
        }
    }
}

/// Daemons that read the CA certificates of the host at their start, before the one that counts came among them.
async fn not_loaded(shown: &Shown<'_>, expected: &Expected<'_>, by: &ByHostsToml<'_>, parts: &mut [Examined]) {
    let Some(added) = shown.added().await else { return };
    let is_older = |started: &Option<SystemTime>| host::is_older(*started, Some(added));
    for (part, service, _) in by.started.iter().filter(|(_, _, started)| is_older(started)) {
        let Some(part) = parts.iter_mut().find(|one| one.part == *part) else { continue };
        let (name, url) = (part.part.name(), &shown.url);
        for registry in expected.names() {
            let Own::Files(own, _) = authorities(part.part, shown.host, expected, by, registry) else { continue };
            if part.ways.get(registry) != Some(&Way::Proxy) || shown.refusal_by(&own).await.is_none() {
                continue;
            }
            part.ways.insert(registry.to_owned(), expected.way_without_proxy(registry));
            part.find(Finding {
                registries: vec![registry.to_owned()],
                code: Code::NotLoaded,
                file: None,
                text: format!("it was started before the CA of {url} came among the CA certificates of the host"),
                why: format!("{name} reads these at its start only: until then TLS with the proxy fails, and {PAST}; of a closed route every pull fails"),
                fix: by_hand(format!("systemctl restart {service}")),
            });
        }
    }
}

fn untrusted(url: &Address, wrong: &str, registry: &str, why: String, fix: Fix) -> Finding {
    let text = format!("it does not trust the certificate of {url}: {wrong}");
    Finding { registries: vec![registry.to_owned()], code: Code::Untrusted, file: None, text, why, fix }
}

/// What dockerd builds with its own image store goes by `hosts.toml`, whatever it trusts when it pulls.
async fn builds(shown: &mut Shown<'_>, expected: &Expected<'_>, directories: &[Directory], part: &mut Examined) {
    for name in expected.names() {
        let is_meant = match hosts_toml::of(directories, name) {
            Some(directory) => hosts_toml::is_ours(&expected.here, directory),
            // By daemon.json, with the CA certificates of the host.
            None => part.ways.get(name) == Some(&Way::Proxy),
        };
        let is_told =
            part.findings.iter().any(|one| one.code == Code::Untrusted && one.registries.iter().any(|of| of == name));
        let Own::Files(own, fix) = by_hosts_toml(directories, expected, name) else { continue };
        if !is_meant || is_told {
            continue;
        }
        let Some(wrong) = shown.refusal(&own).await else { continue };
        let why = "builds go by hosts.toml, and by the files that it names: TLS with the proxy fails, so what they need of {registries} comes from the source; of a closed route they fail";
        part.find(untrusted(&shown.url, &wrong, name, why.to_owned(), fix));
    }
}

/// What an engine trusts when it asks the proxy for a registry.
fn authorities(part: Part, host: &Host, expected: &Expected<'_>, by: &ByHostsToml<'_>, registry: &str) -> Own {
    let at = authority(expected);
    let below = |directories: &[&str]| -> Vec<String> {
        let directories = directories.iter().map(|directory| format!("{directory}/{at}"));
        let files = directories.flat_map(|directory| {
            let names = host.list(&directory).unwrap_or_default().into_iter().filter(|name| name.ends_with(".crt"));
            names.map(|name| format!("{directory}/{name}")).collect::<Vec<_>>()
        });
        files.collect()
    };
    match part {
        Part::Podman => Own::Files(below(&CERTS_D), by_hand(put("/etc/containers/certs.d", at, FILE))),
        Part::Crio => {
            let then = format!(" && systemctl restart crio{FILE}");
            Own::Files(below(&CERTS_D), by_hand(put("/etc/containers/certs.d", at, &then)))
        }
        Part::Dockerd => match by.dockerd {
            Some((Reads::All, directories)) => by_hosts_toml(directories, expected, registry),
            Some((Reads::Builds, _)) => Own::Files(below(&[DOCKER_CERTS_D]), by_client_config(expected)),
            Some((Reads::Nothing, _)) | None => {
                Own::Files(below(&[DOCKER_CERTS_D]), by_hand(put(DOCKER_CERTS_D, at, FILE)))
            }
        },
        Part::Containerd => {
            let update =
                "install -m 0644 CA.pem /usr/local/share/ca-certificates/acr-cache-proxy.crt && update-ca-certificates";
            let fix = by_hand(format!("{update} && systemctl restart containerd{FILE}"));
            let mut own = Vec::new();
            for place in &by.containerd {
                match hosts_toml::authorities(expected, *place, registry) {
                    Some(files) => own.extend(files),
                    None => return Own::Everything,
                }
            }
            Own::Files(own, fix)
        }
        _ => Own::Unknown,
    }
}

/// What dockerd trusts by its `hosts.toml` of a registry. client-config names the file there once it is in its place.
fn by_hosts_toml(directories: &[Directory], expected: &Expected<'_>, registry: &str) -> Own {
    let Some(files) = hosts_toml::authorities(expected, (DOCKER_CERTS_D, directories), registry) else {
        return Own::Everything;
    };
    let foreign = hosts_toml::of(directories, registry).filter(|directory| hosts_toml::is_foreign(directory));
    let fix = foreign.map_or_else(
        || by_client_config(expected),
        |directory| {
            let (at, url) = (authority(expected), &expected.here.url);
            let edit = format!(
                " && {}{FILE}; below [host.\"{url}\"]: ca = \"{DOCKER_CERTS_D}/{at}/ca.crt\"",
                edit(directory.path(), "").command
            );
            by_hand(put(DOCKER_CERTS_D, at, &edit))
        },
    );
    Own::Files(files, fix)
}

fn by_client_config(expected: &Expected<'_>) -> Fix {
    let write = expected.write(Client::Docker, FILE);
    by_hand(put(DOCKER_CERTS_D, authority(expected), &format!(" && {}", write.command)))
}

/// Puts the certificate where an engine looks for that of a host, and then something more.
fn put(directory: &str, at: &str, then: &str) -> String {
    format!("install -D -m 0644 CA.pem {}{then}", shell_word(&format!("{directory}/{at}/ca.crt")))
}

/// `mirror.internal:8443`
fn authority<'a>(expected: &'a Expected<'_>) -> &'a str {
    let url = &expected.here.url;
    url.split_once("://").map_or(url.as_str(), |(_, authority)| authority)
}

/// The certificate that the proxy shows.
struct Shown<'a> {
    host: &'a Host,
    url: Address,
    /// Why it was refused, by the files that were trusted.
    known: BTreeMap<Vec<String>, Option<String>>,
}

impl Shown<'_> {
    /// Why a client that trusts the host's authorities and those of these files does not accept it; `None` if it does, or nobody shows one.
    async fn refusal(&mut self, own: &[String]) -> Option<String> {
        if let Some(known) = self.known.get(own) {
            return known.clone();
        }
        let files = SYSTEM_BUNDLES.iter().copied().chain(own.iter().map(String::as_str));
        let files: Vec<_> = files.filter_map(|path| self.host.at(path).ok()).collect();
        let wrong = refusal(&self.url, &files).await;
        self.known.insert(own.to_vec(), wrong.clone());
        wrong
    }

    /// The same of one that trusts these files alone.
    async fn refusal_by(&self, files: &[String]) -> Option<String> {
        let files: Vec<_> = files.iter().filter_map(|path| self.host.at(path).ok()).collect();
        refusal(&self.url, &files).await
    }

    /// When somebody gave the host the authority by which it accepts the certificate; `None` for one that came with the system, or may have.
    async fn added(&self) -> Option<SystemTime> {
        // Where no certificate is shown, nobody refuses it.
        self.refusal_by(&[]).await?;
        let files = |pattern: &str| self.host.glob(pattern).unwrap_or_default();
        let newest = |files: &[String]| files.iter().filter_map(|path| self.host.changed(path)).max();
        for given in ANCHORS.map(files) {
            if !given.is_empty() && self.refusal_by(&given).await.is_none() {
                return newest(&given);
            }
        }
        let of_system = files(OF_SYSTEM);
        if of_system.is_empty() || self.refusal_by(&of_system).await.is_none() {
            return None;
        }
        newest(&SYSTEM_BUNDLES.map(str::to_owned))
    }
}

/// Why a client that trusts the authorities of these files does not accept the certificate; `None` if it does, or nobody shows one.
async fn refusal(url: &Address, files: &[PathBuf]) -> Option<String> {
    let config = TrustRoots::of_files(files.to_vec()).client().ok()?;
    let name = ServerName::try_from(url.host.trim_matches(['[', ']']).to_owned()).ok()?;
    let address = ask::resolve(&format!("{}:{}", url.host, url.port())).await.ok()?;
    let shake = async {
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    let cause = timeout(HANDSHAKE_LIMIT, shake).await.ok()?.err()?;
    match cause.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(why) => Some(why.to_string()),
        _ => None,
    }
}
