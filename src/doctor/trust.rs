//! Whether engines trust the certificate of a proxy that speaks TLS. One that does not goes past the proxy without a word, or fails where
//! nobody else may be asked.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::dockerd::{self, Reads};
use super::expected::{Expected, by_hand, edit};
use super::finding::{Code, Examined, Finding, Fix, PAST, Part, Way};
use super::hosts_toml::{self, Directory};
use crate::client_config::address::Address;
use crate::client_config::{self, Client};
use crate::host::{self, Host};
use crate::net::certificate::Wrong;
use crate::shell::shell_word;

mod clients;
mod presented;
mod shown;

use clients::{PAIR, pairs_below, put_pair};
use presented::Door;
use shown::{Refusal, Shown};

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
/// The end of a command.
const FILE: &str = "  # CA.pem: the certificate of the authority that has signed the proxy's";

/// Who goes by `hosts.toml`, which names authorities for each registry.
pub(super) struct ByHostsToml<'a> {
    /// The directories in which containerd looks for them, and what is there.
    pub containerd: Vec<(&'a str, &'a [Directory])>,
    /// `None` where there is no dockerd.
    pub dockerd: Option<&'a dockerd::Facts>,
    /// The two, their services, and when those that run were started, if that is known.
    pub started: [(Part, &'static str, Option<SystemTime>); 2],
}

impl ByHostsToml<'_> {
    /// For what dockerd goes by the files, and what is in its own directory.
    fn of_dockerd(&self) -> Option<(Reads, &[Directory])> {
        self.dockerd.map(dockerd::Facts::hosts_tomls)
    }

    /// For what it does not, it verifies no certificate of the proxy, and presents none.
    fn checks_nothing(&self, expected: &Expected<'_>) -> bool {
        self.dockerd.is_some_and(|dockerd| dockerd.checks_nothing_of(&Address::parse(&expected.here.url)))
    }
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
    for part in parts.iter_mut() {
        let names: Vec<_> = part.ways.keys().filter(|name| !part.asked.contains_key(*name)).cloned().collect();
        part.asked.extend(names.into_iter().map(|name| (name, expected.here.url.clone())));
    }
    let all: BTreeSet<_> = parts.iter().flat_map(|part| part.asked.values().cloned()).collect();
    for url in all {
        let at = expected.at(&url);
        servers(host, &at, by, parts).await;
        clients::judge(host, &at, by, parts).await;
    }
    let dockerd = parts.iter_mut().find(|part| part.part == Part::Dockerd);
    if let (Some(part), Some((Reads::Builds, directories))) = (dockerd, by.of_dockerd()) {
        builds(host, expected, directories, part).await;
    }
}

/// The registries for which an engine asks the proxy by this URL.
fn through(part: &Examined, url: &str) -> Vec<String> {
    let is_asked = |name: &String| part.asked.get(name).is_some_and(|asked| asked == url);
    let through = part.ways.iter().filter(|(name, way)| **way == Way::Proxy && is_asked(name));
    through.map(|(name, _)| name.clone()).collect()
}

/// What is wrong with whom engines trust.
async fn servers(host: &Host, expected: &Expected<'_>, by: &ByHostsToml<'_>, parts: &mut [Examined]) {
    let url = Address::parse(&expected.here.url);
    if !url.has_tls() {
        return;
    }
    let mut shown = Shown::new(host, url);
    let Some(wrong) = shown.refusal(&[]).await else {
        not_loaded(&shown, expected, by, parts).await;
        return;
    };
    let url = shown.url.clone();
    for part in parts.iter_mut().filter(|part| part.part != Part::Proxy) {
        for name in through(part, &expected.here.url) {
            let (own, fix) = match authorities(part.part, host, expected, by, &name) {
                Own::Files(own, fix) => (own, fix),
                Own::Everything => continue,
                Own::Unknown => {
                    part.notes.push(format!(
                        "the certificate of {url} is not accepted with the CA certificates of this host: {}: what its own settings trust is not judged",
                        wrong.text
                    ));
                    break;
                }
            };
            let Some(wrong) = shown.refusal(&own).await else { continue };
            part.ways.insert(name.clone(), expected.way_without_proxy(&name));
            let why = format!("TLS with the proxy fails, and {PAST}; of a closed route every pull fails");
            part.find(untrusted(expected, &wrong, &name, why, fix));
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
        for registry in through(part, &expected.here.url) {
            let Own::Files(own, _) = authorities(part.part, shown.host, expected, by, &registry) else { continue };
            if shown.refusal_by(&own).await.is_none() {
                continue;
            }
            part.ways.insert(registry.clone(), expected.way_without_proxy(&registry));
            part.find(Finding {
                registries: vec![registry],
                code: Code::NotLoaded,
                file: None,
                text: format!("it was started before the CA of {url} came among the CA certificates of the host"),
                why: format!("{name} reads these at its start only: until then TLS with the proxy fails, and {PAST}; of a closed route every pull fails"),
                fix: by_hand(format!("systemctl restart {service}")),
            });
        }
    }
}

/// `fix` gives the engine one more authority.
fn untrusted(expected: &Expected<'_>, wrong: &Refusal, registry: &str, why: String, fix: Fix) -> Finding {
    let text = format!("it does not trust the certificate of {}: {}", expected.here.url, wrong.text);
    let fix = instead(expected, wrong).unwrap_or(fix);
    Finding { registries: vec![registry.to_owned()], code: Code::Untrusted, file: None, text, why, fix }
}

/// What to do where one more authority does not help.
fn instead(expected: &Expected<'_>, refusal: &Refusal) -> Option<Fix> {
    let at = authority(expected);
    let host = Address::parse(&expected.here.url).host;
    let renewed = |what: &str| match &expected.certificate {
        Some(file) => format!(
            "cp CERTIFICATE.pem {}  # CERTIFICATE.pem: {what}, of the same key; the proxy reads it within 5 s",
            shell_word(file)
        ),
        None => format!(
            "openssl s_client -connect {at} </dev/null | openssl x509 -noout -subject -dates  # who runs the proxy gives it {what}"
        ),
    };
    let command = match (refusal.wrong, &refusal.name) {
        (Wrong::UnknownIssuer, _) => return None,
        (Wrong::OtherName, Some(name)) => {
            let mirror = shell_word(&format!("https://{name}{}", &at[host.len()..]));
            format!(
                "acr-cache-proxy doctor{} --mirror {mirror}  # a name of its certificate, by which engines are to know it",
                expected.settings
            )
        }
        (Wrong::OtherName, None) => renewed(&format!("a certificate for {host}")),
        (Wrong::Expired | Wrong::NotYet, _) => format!("date; {}", renewed("one that is valid today")),
        (Wrong::Revoked | Wrong::VersionOne | Wrong::OfAuthority | Wrong::Unusable, _) => {
            renewed("one that clients accept")
        }
    };
    Some(by_hand(command))
}

/// Why a client would not trust the proxy by the files that `client-config` writes for it, and what to do first. With these files, pulls
/// would go past the proxy as they do without, but of a closed route they would fail.
pub(super) async fn lack(
    host: &Host,
    expected: &Expected<'_>,
    client: Client,
    setup: &client_config::Setup,
) -> Option<String> {
    let url = Address::parse(&expected.here.url);
    if !url.has_tls() {
        return None;
    }
    let (certs_d, mut own) = (client.certs_d()?, setup.authorities());
    let at = authority(expected);
    let directories = match client {
        Client::Podman => &CERTS_D[..],
        // For daemon.json.
        Client::Docker => &[DOCKER_CERTS_D],
        _ => &[],
    };
    own.extend(below(host, directories, at));
    let Some(refusal) = Shown::new(host, url.clone()).refusal(&own).await else {
        let mut pairs = setup.pairs();
        pairs.extend(pairs_below(host, directories, at));
        let away = Door::new(host, url).away(&own, &pairs).await?;
        let fix = put_pair(certs_d, at, PAIR);
        return Some(format!(
            "with them {} would not take what it presents, and pulls of closed routes would fail: {away}; do this, and run doctor --fix again: {}",
            expected.here.url, fix.command
        ));
    };
    let fix = instead(expected, &refusal).unwrap_or_else(|| by_hand(put(certs_d, at, FILE)));
    Some(format!(
        "with them it would not trust the certificate of {}, and pulls of closed routes would fail: {}; do this, and run doctor --fix again: {}",
        expected.here.url, refusal.text, fix.command
    ))
}

/// The authorities in the directories of this address.
fn below(host: &Host, directories: &[&str], at: &str) -> Vec<String> {
    let files = directories.iter().flat_map(|directory| {
        let directory = format!("{directory}/{at}");
        let names = host.list(&directory).unwrap_or_default().into_iter().filter(|name| name.ends_with(".crt"));
        names.map(|name| format!("{directory}/{name}")).collect::<Vec<_>>()
    });
    files.collect()
}

/// What dockerd builds with its own image store goes by `hosts.toml`, whatever it trusts when it pulls.
async fn builds(host: &Host, expected: &Expected<'_>, directories: &[Directory], part: &mut Examined) {
    let mut shown = Shown::new(host, Address::parse(&expected.here.url));
    if !shown.url.has_tls() || shown.refusal(&[]).await.is_none() {
        return;
    }
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
        part.find(untrusted(expected, &wrong, name, why.to_owned(), fix));
    }
}

/// What an engine trusts when it asks the proxy for a registry.
fn authorities(part: Part, host: &Host, expected: &Expected<'_>, by: &ByHostsToml<'_>, registry: &str) -> Own {
    let at = authority(expected);
    let below = |directories: &[&str]| below(host, directories, at);
    match part {
        Part::Podman => Own::Files(below(&CERTS_D), by_hand(put("/etc/containers/certs.d", at, FILE))),
        Part::Crio => {
            let then = format!(" && systemctl restart crio{FILE}");
            Own::Files(below(&CERTS_D), by_hand(put("/etc/containers/certs.d", at, &then)))
        }
        Part::Dockerd => match by.of_dockerd() {
            Some((Reads::All, directories)) => by_hosts_toml(directories, expected, registry),
            _ if by.checks_nothing(expected) => Own::Everything,
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
