//! `registries.yaml`, of which k3s and RKE2 make the `hosts.toml` of the containerd that they bring.

use serde_yaml::Value;

use super::certificates::{Certificates, Shelf};
use super::merge::Addition;
use super::node::{Distribution, K3S, RKE2, SWITCH, Source};
use super::{File, Mirror, Registry, Setup, containerd, quoted, registries};
use crate::config::{Routes, parse_yaml};
use crate::host::Host;

pub(crate) const K3S_PATHS: &[&str] = &[K3S.path];
pub(crate) const RKE2_PATHS: &[&str] = &[RKE2.path];
pub(crate) const K3S_AFTER_REMOVAL: &str =
    "k3s forgets its mirrors at its next start: systemctl restart k3s, or k3s-agent";
pub(crate) const RKE2_AFTER_REMOVAL: &str =
    "RKE2 forgets its mirrors at its next start: systemctl restart rke2-server, or rke2-agent";

/// Each registry has its endpoints below `mirrors`, and the registry itself is asked last whatever stands there, but for nodes
/// with `disable-default-registry-endpoint` (docs.k3s.io/installation/private-registry).
/// `path` is the file that the node reads; `source` is `None` where its configuration cannot be read.
pub(crate) fn setup(
    routes: &Routes,
    mirror: &Mirror,
    distribution: &Distribution,
    host: &Host,
    (path, source): (&str, Option<&Source>),
) -> Setup {
    let Distribution { client, name: program, restart, certs_d, .. } = distribution;
    let all = registries(routes);
    let url = mirror.url();
    let mut content = "mirrors:\n".to_owned();
    let mut notes = vec![
        format!("{program} reads {path} at its start, on each node: {restart}"),
        format!("{program} has a containerd of its own, for which nothing else is to be written"),
    ];
    for (name, registry) in &all {
        content += &format!("  {}:\n    endpoint:\n      - {}\n", quoted(name), quoted(&url));
        if registry.closed {
            notes.extend(about_closed(name, registry, distribution, source));
        }
    }
    let shelf = Shelf { mirror, host, certs_d };
    let certificates = shelf.of(path, certificates);
    content += &named(mirror, &certificates);
    let by_hand = format!(
        "; a file of yours gets them by hand: ca_file, cert_file and key_file below tls of {} below configs",
        quoted(&mirror.authority())
    );
    notes.extend(shelf.about(program, &by_hand));
    notes.extend(containerd::about_ipv6(mirror));
    let registries = all.keys().map(|name| (*name).to_owned()).collect();
    let mut file = File::commented(path, &content);
    file.addition = Some(Addition::RegistriesYaml { url, registries });
    Setup::new(*client, vec![file], notes).with(vec![certificates])
}

/// What becomes of a closed registry, which only a switch for all registries of the file closes.
fn about_closed(name: &str, registry: &Registry, distribution: &Distribution, source: Option<&Source>) -> Vec<String> {
    let Distribution { name: program, config, .. } = distribution;
    let file = source.map_or(*config, |source| &source.file);
    if source.is_some_and(|source| !source.is_asked) {
        let closes = format!(
            "{name} is closed: {program} asks nobody else for it, since {file} has {SWITCH}, as every node needs it; it closes all registries of the file"
        );
        return [closes].into_iter().chain(containerd::about_paths(name, registry, program)).collect();
    }
    let asks = format!(
        "{name} is closed, but {program} asks it last all the same, unless {file} says {SWITCH}: true on every node, which is for all registries of the file"
    );
    let then = match registry.whole {
        true => String::new(),
        false => format!("; then it cannot pull what no route is for, so add a route for all of {name}, too"),
    };
    vec![asks + &then]
}

/// What the file says of certificates. It takes one of each.
fn named(mirror: &Mirror, certificates: &Certificates) -> String {
    let client = certificates.client.first();
    let keys = [
        ("ca_file", certificates.ca.first()),
        ("cert_file", client.map(|(certificate, _)| certificate)),
        ("key_file", client.map(|(certificate, key)| key.as_ref().unwrap_or(certificate))),
    ];
    let lines = keys.into_iter().filter_map(|(key, file)| Some(format!("      {key}: {}\n", quoted(file?))));
    let lines: String = lines.collect();
    if lines.is_empty() {
        return lines;
    }
    format!("configs:\n  {}:\n    tls:\n{lines}", quoted(&mirror.authority()))
}

/// What a file names for the mirror.
fn certificates(content: &str, mirror: &Mirror) -> Certificates {
    let file: Value = parse_yaml(content).unwrap_or_default();
    let tls = ["configs", &mirror.authority(), "tls"].iter().try_fold(&file, |value, key| value.get(*key));
    let of = |key: &str| tls?.get(key)?.as_str().map(str::to_owned);
    let client = of("cert_file").zip(of("key_file")).map(|(certificate, key)| (certificate, Some(key)));
    Certificates { ca: of("ca_file").into_iter().collect(), client: client.into_iter().collect() }
}
