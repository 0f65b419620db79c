//! Engines that present no certificate, or another one than the proxy takes, where its listener asks for one. Such an engine goes past the proxy
//! or fails, as one does that does not trust the proxy's.

use super::super::dockerd::Reads;
use super::super::expected::{Expected, INSTALL, by_hand, edit};
use super::super::finding::{Code, Examined, Finding, Fix, PAST, Part, Way};
use super::super::hosts_toml::{self, Directory};
use super::presented::{Away, Door, Pair};
use super::{ByHostsToml, DOCKER_CERTS_D, Own, asked, authorities, authority};
use crate::client_config::Client;
use crate::client_config::address::Address;
use crate::host::Host;
use crate::shell::shell_word;

/// The end of a command.
pub(super) const PAIR: &str =
    "  # CLIENT.pem, CLIENT.key: a certificate of a CA in the listener's client_ca, and its key";

/// What is wrong with the certificates that engines present.
pub(super) async fn judge(host: &Host, expected: &Expected<'_>, by: &ByHostsToml<'_>, parts: &mut [Examined]) {
    let url = Address::parse(&expected.here.url);
    if !url.has_tls() {
        return;
    }
    let mut door = Door::new(host, url);
    for part in parts.iter_mut().filter(|part| part.part != Part::Proxy) {
        for (name, directory) in &asked(host, part, expected) {
            let own = match authorities(part.part, host, expected, by, (name, directory)) {
                Own::Files(own, _) => Some(own),
                Own::Everything => None,
                Own::Unknown => {
                    let note = "the proxy asks clients for a certificate: what its own settings present is not judged";
                    part.notes.extend(door.away(Some(&[]), &[]).await.map(|_| note.to_owned()));
                    break;
                }
            };
            let (pairs, fix) = presented(part.part, host, expected, by, (name, directory));
            let Some(away) = door.away(own.as_deref(), &pairs).await else { continue };
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
            part.ways.insert(name.clone(), way);
            let text = format!("{} does not take what it presents: {away}", expected.here.url);
            part.find(Finding {
                registries: vec![name.clone()],
                code: Code::ClientCertificate,
                file: None,
                text,
                why,
                fix,
            });
        }
    }
}

/// What an engine presents to the proxy when it asks for a registry, and how it gets a pair that fits. `directory` is where it looks for
/// certificates of the proxy's address.
fn presented(
    part: Part,
    host: &Host,
    expected: &Expected<'_>,
    by: &ByHostsToml<'_>,
    (registry, directory): (&str, &str),
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
        let fix = put_pair(&format!("{certs_d}/{at}"), &format!(" && {}", then.command));
        (hosts_toml::clients(expected, place, registry), fix)
    };
    let of_directory = |then: &str| (pairs_below(host, directory), put_pair(directory, then));
    match part {
        Part::Podman => of_directory(PAIR),
        Part::Crio => of_directory(&format!(" && systemctl restart crio{PAIR}")),
        Part::Containerd => {
            let place = by.containerd.iter().find(|(_, all)| hosts_toml::of(all, registry).is_some());
            by_file(Client::Containerd, place.copied().unwrap_or_default())
        }
        _ => match by.of_dockerd() {
            Some((Reads::All, directories)) => by_file(Client::Docker, (DOCKER_CERTS_D, directories)),
            _ if by.checks_nothing(expected) => (
                Vec::new(),
                by_hand(format!(
                    "acr-cache-proxy doctor{} --mirror https://NAME:{}  # NAME: one that leads to no loopback address and is not among insecure-registries, as dockerd presents nothing to those",
                    expected.settings,
                    Address::parse(&expected.here.url).port()
                )),
            ),
            _ => of_directory(PAIR),
        },
    }
}

/// Puts a certificate and its key where an engine looks for those that it presents to a host, and then something more.
pub(super) fn put_pair(directory: &str, then: &str) -> Fix {
    let file = |name: &str| shell_word(&format!("{directory}/{name}"));
    let (certificate, key) = (file("client.cert"), file("client.key"));
    by_hand(format!("{INSTALL} -m 0644 CLIENT.pem {certificate} && {INSTALL} -m 0600 CLIENT.key {key}{then}"))
}

/// The pairs in a directory. Half a pair is told of the engine's files.
pub(super) fn pairs_below(host: &Host, directory: &str) -> Vec<Pair> {
    let names = host.list(directory).unwrap_or_default();
    let stems = names.iter().filter_map(|name| name.strip_suffix(".cert"));
    let whole = stems.filter(|stem| names.contains(&format!("{stem}.key")));
    whole.map(|stem| (format!("{directory}/{stem}.cert"), Some(format!("{directory}/{stem}.key")))).collect()
}
