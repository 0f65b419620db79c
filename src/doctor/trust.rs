//! Whether engines trust the certificate of a proxy that speaks TLS. One that does not goes past the proxy without a word, or fails where
//! nobody else may be asked.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::ask;
use super::dockerd::{self, Reads};
use super::expected::{Expected, INSTALL, by_hand, edit};
use super::finding::{Code, Examined, Finding, Fix, PAST, Part, Way};
use super::hosts_toml::{self, Directory};
use super::registries_conf::{Release, directory_of};
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

/// Of podman and who shares its files, where nobody has made another directory of the address.
const CONTAINERS_CERTS_D: &str = "/etc/containers/certs.d";
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
    /// URLs of the proxy of which dockerd, for what it does not do by these files, verifies no certificate and to which it presents none.
    pub unchecked: BTreeSet<String>,
}

impl ByHostsToml<'_> {
    /// For what dockerd goes by the files, and what is in its own directory.
    fn of_dockerd(&self) -> Option<(Reads, &[Directory])> {
        self.dockerd.map(dockerd::Facts::hosts_tomls)
    }

    /// One URL more, if it is such a one.
    async fn look(&mut self, url: &str) {
        let address = Address::parse(url);
        let Some(dockerd) = self.dockerd.filter(|_| address.has_tls()) else { return };
        let at = ask::resolve(&address).await;
        if dockerd.checks_nothing_of(&address, at.ok().map(|at| at.ip())) {
            self.unchecked.insert(url.to_owned());
        }
    }

    fn checks_nothing(&self, expected: &Expected<'_>) -> bool {
        self.unchecked.contains(&expected.here.url)
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
pub(super) async fn judge(host: &Host, expected: &Expected<'_>, mut by: ByHostsToml<'_>, parts: &mut [Examined]) {
    for part in parts.iter_mut() {
        let names: Vec<_> = part.ways.keys().filter(|name| !part.asked.contains_key(*name)).cloned().collect();
        part.asked.extend(names.into_iter().map(|name| (name, expected.here.url.clone())));
    }
    let all: BTreeSet<_> = parts.iter().flat_map(|part| part.asked.values().cloned()).collect();
    for url in all {
        let at = expected.at(&url);
        by.look(&url).await;
        servers(host, &at, &by, parts).await;
        clients::judge(host, &at, &by, parts).await;
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

/// The directories of an address that an engine looks into: for podman and who shares its files the one that counts, of each release that
/// it may be of; for dockerd its own.
fn directories(host: &Host, part: Part, version: Option<&str>, at: &str) -> Vec<String> {
    let releases = match part {
        Part::Podman => Release::of(version),
        // It does not tell of which release its library is.
        Part::Crio => Release::of(None),
        _ => return vec![format!("{DOCKER_CERTS_D}/{at}")],
    };
    let of = |release| directory_of(host, at, release).unwrap_or_else(|| format!("{CONTAINERS_CERTS_D}/{at}"));
    let mut directories: Vec<_> = releases.into_iter().map(of).collect();
    directories.dedup();
    directories
}

/// The registries for which an engine asks the proxy by its URL, each with each directory of certificates that may count.
fn asked(host: &Host, part: &Examined, expected: &Expected<'_>) -> Vec<(String, String)> {
    let directories = directories(host, part.part, part.version.as_deref(), authority(expected));
    let names = through(part, &expected.here.url).into_iter();
    names.flat_map(|name| directories.iter().map(move |directory| (name.clone(), directory.clone()))).collect()
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
        for (name, directory) in asked(host, part, expected) {
            let (own, fix) = match authorities(part.part, host, expected, by, (&name, &directory)) {
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
        for (registry, directory) in asked(shown.host, part, expected) {
            let all = authorities(part.part, shown.host, expected, by, (&registry, &directory));
            let Own::Files(own, _) = all else { continue };
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
/// would go past the proxy as they do without, but of a closed route they would fail. `version` is podman's, if it is known.
pub(super) async fn lack(
    host: &Host,
    expected: &Expected<'_>,
    setup: &client_config::Setup,
    (client, version): (Client, Option<&str>),
) -> Option<String> {
    let url = Address::parse(&expected.here.url);
    if !url.has_tls() {
        return None;
    }
    let at = authority(expected);
    let its_own = |part: Part| directories(host, part, version, at).into_iter().map(Some).collect();
    let looked_into: Vec<_> = match client {
        Client::Podman => its_own(Part::Podman),
        // For daemon.json.
        Client::Docker => its_own(Part::Dockerd),
        _ => vec![None],
    };
    let goes = format!("{}/{at}", client.certs_d()?);
    let (mut shown, mut door) = (Shown::new(host, url.clone()), Door::new(host, url));
    for directory in &looked_into {
        let to = directory.as_ref().unwrap_or(&goes);
        let (mut own, mut pairs) = (setup.authorities(), setup.pairs());
        own.extend(directory.iter().flat_map(|directory| below(host, directory)));
        pairs.extend(directory.iter().flat_map(|directory| pairs_below(host, directory)));
        if let Some(refusal) = shown.refusal(&own).await {
            let fix = instead(expected, &refusal).unwrap_or_else(|| by_hand(put(to, FILE)));
            return Some(format!(
                "with them it would not trust the certificate of {}, and pulls of closed routes would fail: {}; do this, and run doctor --fix again: {}",
                expected.here.url, refusal.text, fix.command
            ));
        }
        if let Some(away) = door.away(Some(&own), &pairs).await {
            return Some(format!(
                "with them {} would not take what it presents, and pulls of closed routes would fail: {away}; do this, and run doctor --fix again: {}",
                expected.here.url,
                put_pair(to, PAIR).command
            ));
        }
    }
    None
}

/// The authorities in a directory.
fn below(host: &Host, directory: &str) -> Vec<String> {
    let names = host.list(directory).unwrap_or_default().into_iter().filter(|name| name.ends_with(".crt"));
    names.map(|name| format!("{directory}/{name}")).collect()
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

/// What an engine trusts when it asks the proxy for a registry. `directory` is where it looks for certificates of the proxy's address.
fn authorities(
    part: Part,
    host: &Host,
    expected: &Expected<'_>,
    by: &ByHostsToml<'_>,
    (registry, directory): (&str, &str),
) -> Own {
    let of_directory = |then: &str| Own::Files(below(host, directory), by_hand(put(directory, then)));
    match part {
        Part::Podman => of_directory(FILE),
        Part::Crio => of_directory(&format!(" && systemctl restart crio{FILE}")),
        Part::Dockerd => match by.of_dockerd() {
            Some((Reads::All, directories)) => by_hosts_toml(directories, expected, registry),
            _ if by.checks_nothing(expected) => Own::Everything,
            Some((Reads::Builds, _)) => Own::Files(below(host, directory), by_client_config(expected)),
            Some((Reads::Nothing, _)) | None => of_directory(FILE),
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
            by_hand(put(&format!("{DOCKER_CERTS_D}/{at}"), &edit))
        },
    );
    Own::Files(files, fix)
}

fn by_client_config(expected: &Expected<'_>) -> Fix {
    let write = expected.write(Client::Docker, FILE);
    by_hand(put(&format!("{DOCKER_CERTS_D}/{}", authority(expected)), &format!(" && {}", write.command)))
}

/// Puts the certificate where an engine looks for that of a host, and then something more.
fn put(directory: &str, then: &str) -> String {
    format!("{INSTALL} -m 0644 CA.pem {}{then}", shell_word(&format!("{directory}/ca.crt")))
}

/// `mirror.internal:8443`
fn authority<'a>(expected: &'a Expected<'_>) -> &'a str {
    let url = &expected.here.url;
    url.split_once("://").map_or(url.as_str(), |(_, authority)| authority)
}
