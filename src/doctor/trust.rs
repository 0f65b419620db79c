//! Whether engines trust the certificate of a proxy that speaks TLS. One that does not goes past the proxy without a word, or fails where
//! nobody else may be asked.

use std::time::SystemTime;

use super::dockerd::Reads;
use super::expected::{Expected, by_hand, edit};
use super::finding::{Code, Examined, Finding, Fix, PAST, Part, Way};
use super::hosts_toml::{self, Directory};
use crate::client_config::address::Address;
use crate::client_config::{self, Client};
use crate::host::{self, Host};
use crate::net::certificate::Wrong;
use crate::shell::shell_word;

mod presented;
mod shown;

use presented::{Away, Door, Pair};
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

/// The end of another one.
const PAIR: &str = "  # CLIENT.pem, CLIENT.key: a certificate of a CA in the listener's client_ca, and its key";

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
    servers(host, expected, by, parts).await;
    clients(host, expected, by, parts).await;
}

/// What is wrong with the certificates that engines present.
async fn clients(host: &Host, expected: &Expected<'_>, by: &ByHostsToml<'_>, parts: &mut [Examined]) {
    let url = Address::parse(&expected.here.url);
    if !url.has_tls() {
        return;
    }
    let mut door = Door::new(host, url);
    for part in parts.iter_mut().filter(|part| part.part != Part::Proxy) {
        for name in
            expected.names().into_iter().filter(|name| part.ways.get(*name) == Some(&Way::Proxy)).collect::<Vec<_>>()
        {
            let own = match authorities(part.part, host, expected, by, name) {
                Own::Files(own, _) => own,
                Own::Everything => Vec::new(),
                Own::Unknown => {
                    let note = "the proxy asks clients for a certificate: what its own settings present is not judged";
                    part.notes.extend(door.away(&[], &[]).await.map(|_| note.to_owned()));
                    break;
                }
            };
            let (pairs, fix) = presented(part.part, host, expected, by, name);
            let Some(away) = door.away(&own, &pairs).await else { continue };
            let is_first = matches!((&away, part.part), (Away::Unusable(_), Part::Containerd | Part::Dockerd));
            let (way, why) = match is_first {
                true => (
                    Way::Nowhere,
                    format!(
                        "{} loads it before it asks anybody, so every pull of {{registries}} fails",
                        part.part.name()
                    ),
                ),
                false => (
                    expected.way_without_proxy(name),
                    format!("TLS with the proxy fails, and {PAST}; of a closed route every pull fails"),
                ),
            };
            part.ways.insert(name.to_owned(), way);
            let text = format!("{} does not take what it presents: {away}", expected.here.url);
            part.find(Finding {
                registries: vec![name.to_owned()],
                code: Code::ClientCertificate,
                file: None,
                text,
                why,
                fix,
            });
        }
    }
}

/// What an engine presents to the proxy when it asks for a registry, and how it gets a pair that fits.
fn presented(
    part: Part,
    host: &Host,
    expected: &Expected<'_>,
    by: &ByHostsToml<'_>,
    registry: &str,
) -> (Vec<Pair>, Fix) {
    let at = authority(expected);
    let by_file = |client: Client, place: (&str, &[Directory])| {
        let certs_d = client.certs_d().unwrap_or_default();
        let pair = format!("client = [[\"{certs_d}/{at}/client.cert\", \"{certs_d}/{at}/client.key\"]]");
        let file = hosts_toml::of(place.1, registry);
        let by_hand = file.filter(|file| place.0 != certs_d || hosts_toml::is_foreign(file));
        let then = match by_hand {
            Some(file) => edit(file.path(), &format!("{PAIR}; below [host.\"{}\"]: {pair}", expected.here.url)),
            None => expected.write(client, PAIR),
        };
        (hosts_toml::clients(expected, place, registry), put_pair(certs_d, at, &format!(" && {}", then.command)))
    };
    let containers = "/etc/containers/certs.d";
    match part {
        Part::Podman => (pairs_below(host, &CERTS_D, at), put_pair(containers, at, PAIR)),
        Part::Crio => {
            (pairs_below(host, &CERTS_D, at), put_pair(containers, at, &format!(" && systemctl restart crio{PAIR}")))
        }
        Part::Containerd => {
            let place = by.containerd.iter().find(|(_, all)| hosts_toml::of(all, registry).is_some());
            by_file(Client::Containerd, place.copied().unwrap_or_default())
        }
        _ => match by.dockerd {
            Some((Reads::All, directories)) => by_file(Client::Docker, (DOCKER_CERTS_D, directories)),
            _ => (pairs_below(host, &[DOCKER_CERTS_D], at), put_pair(DOCKER_CERTS_D, at, PAIR)),
        },
    }
}

/// Puts a certificate and its key where an engine looks for those that it presents to a host, and then something more.
fn put_pair(directory: &str, at: &str, then: &str) -> Fix {
    let file = |name: &str| shell_word(&format!("{directory}/{at}/{name}"));
    let (certificate, key) = (file("client.cert"), file("client.key"));
    by_hand(format!("install -D -m 0644 CLIENT.pem {certificate} && install -D -m 0600 CLIENT.key {key}{then}"))
}

/// The pairs in the directories of this address. Half a pair is told of the engine's files.
fn pairs_below(host: &Host, directories: &[&str], at: &str) -> Vec<Pair> {
    let pairs = directories.iter().flat_map(|directory| {
        let names = host.list(&format!("{directory}/{at}")).unwrap_or_default();
        let stems = names.iter().filter_map(|name| name.strip_suffix(".cert"));
        let whole = stems.filter(|stem| names.contains(&format!("{stem}.key")));
        whole.map(|stem| format!("{directory}/{at}/{stem}")).collect::<Vec<_>>()
    });
    pairs.map(|stem| (format!("{stem}.cert"), Some(format!("{stem}.key")))).collect()
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
        let through: Vec<_> = part.ways.iter().filter(|(_, way)| **way == Way::Proxy).map(|(name, _)| name).collect();
        for name in through.into_iter().cloned().collect::<Vec<_>>() {
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
    match client {
        Client::Podman => own.extend(below(host, &CERTS_D, authority(expected))),
        // For daemon.json.
        Client::Docker => own.extend(below(host, &[DOCKER_CERTS_D], authority(expected))),
        _ => {}
    }
    let Some(refusal) = Shown::new(host, url.clone()).refusal(&own).await else {
        let mut pairs = setup.pairs();
        match client {
            Client::Podman => pairs.extend(pairs_below(host, &CERTS_D, authority(expected))),
            Client::Docker => pairs.extend(pairs_below(host, &[DOCKER_CERTS_D], authority(expected))),
            _ => {}
        }
        let away = Door::new(host, url).away(&own, &pairs).await?;
        let fix = put_pair(certs_d, authority(expected), PAIR);
        return Some(format!(
            "with them {} would not take what it presents, and pulls of closed routes would fail: {away}; do this, and run doctor --fix again: {}",
            expected.here.url, fix.command
        ));
    };
    let fix = instead(expected, &refusal).unwrap_or_else(|| by_hand(put(certs_d, authority(expected), FILE)));
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
