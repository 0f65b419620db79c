//! `registries.conf` and `registries.d`, which podman, buildah, skopeo and CRI-O share.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) mod policy;
pub(crate) mod release;
pub(crate) mod signatures;

use super::{Client, File, Mirror, Setup, quoted};
use crate::config::{Destination, Routes};
use oci::route::{OnFailure, Route};

pub(crate) const CERTS_D: &str = "/etc/containers/certs.d";
pub(crate) const REGISTRIES_CONF: &str = "/etc/containers/registries.conf.d/50-acr-cache-proxy.conf";
pub(crate) const REGISTRIES_D: &str = "/etc/containers/registries.d/50-acr-cache-proxy.yaml";
pub(crate) const PATHS: &[&str] = &[REGISTRIES_CONF, REGISTRIES_D];
pub(crate) const AFTER_REMOVAL: &str =
    "podman, buildah and skopeo read their files at each pull; CRI-O after: systemctl reload crio";

/// The error is about a mirror that an image reference cannot name (containers/image issue 1004): podman 4.3 would then fail every
/// pull, without a try at the source. `wants_sigstore` is whether a policy of the host requires signatures that are looked for at the mirror.
pub(crate) fn setup(routes: &Routes, mirror: &Mirror, wants_sigstore: bool) -> Result<Setup, String> {
    if mirror.is_ipv6() {
        let (at, port) = (mirror.authority(), &mirror.port);
        return Err(format!(
            "podman takes no IPv6 address for a mirror, as {at} is: have the proxy listen on IPv4 as well, by listen: [{{address: '{at}'}}, {{address: '127.0.0.1{port}'}}], or give client-config a name of it with --mirror"
        ));
    }
    let mut notes = vec![
        "podman, buildah and skopeo read the files at each pull; CRI-O after: systemctl reload crio".to_owned(),
        "an entry for the same prefix in /etc/containers/registries.conf no longer counts, nor do its mirrors; of two files in registries.conf.d the later one counts; a user's own ~/.config/containers/registries.conf hides the file of /etc from podman before 6, and from podman 6 a file of the same name does, such as one in ~/.config/containers/registries.conf.d".to_owned(),
    ];
    if mirror.tls {
        notes.push(format!(
            "a certificate of a private authority is trusted by that of the authority in /etc/containers/certs.d/{}/ca.crt, or in the CA certificates of the host",
            mirror.authority()
        ));
    }
    let mut entries = Vec::new();
    let mut addresses = BTreeSet::new();
    // The shortest first, to be read from the general to the particular.
    let sorted: BTreeMap<_, _> = routes.iter().map(|route| (route.source.to_string(), route)).collect();
    for (prefix, route) in sorted {
        let covered = covering(routes, route);
        if covered.is_some_and(|wider| wider.destination.on_failure == route.destination.on_failure) {
            continue;
        }
        match location(routes, route, mirror) {
            Some(location) => {
                entries.push(entry(&prefix, &location, route.destination.on_failure, mirror));
                addresses.insert(location.split('/').next().unwrap_or_default().to_owned());
            }
            None => {
                notes.push(format!(
                    "{prefix} is left out: the path of an image reference has no room for its registry's port, so give its route a name of the mirror in \"hosts\""
                ));
                continue;
            }
        }
        if route.destination.on_failure == OnFailure::Closed {
            notes.push(format!("{prefix} is closed: nobody else is asked for it"));
        }
    }
    let mut files = Vec::new();
    if !entries.is_empty() {
        files.push(File::commented(REGISTRIES_CONF, &entries.join("\n")));
        let signatures = signatures(&addresses);
        if wants_sigstore {
            notes.push(format!(
                "by {REGISTRIES_D} they look for sigstore signatures here, too, as the policy.json of this host requires them; no other file in registries.d may have an entry for the same address; with it, a signed image that was pulled is pushed and copied with --remove-signatures alone"
            ));
            files.push(File::commented(REGISTRIES_D, &signatures));
        } else {
            notes.push(format!(
                "no policy.json here requires a sigstore signature of these images; a host with one of sigstoreSigned needs {REGISTRIES_D} as well, with which a signed image that was pulled is pushed and copied with --remove-signatures alone; --write writes it there:\n{}",
                signatures.trim_end().lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
            ));
        }
    }
    Ok(Setup::new(Client::Podman, files, notes))
}

/// Where signatures are looked for is chosen by the address that is asked, so an entry for the source says nothing about
/// the mirror. Without one for the mirror, a policy of `sigstoreSigned` refuses every image that comes from it.
fn signatures(addresses: &BTreeSet<String>) -> String {
    let entries =
        addresses.iter().map(|address| format!("  {}:\n    use-sigstore-attachments: true\n", quoted(address)));
    format!("docker:\n{}", entries.collect::<String>())
}

/// The next wider route of the same registry; podman takes the longest prefix, as the proxy does.
fn covering<'a>(routes: &'a Routes, route: &Route<Destination>) -> Option<&'a Route<Destination>> {
    // Routes come with the longest paths first.
    routes.iter().find(|wider| {
        let (path, wider_path) = (route.source.path(), wider.source.path());
        wider.source.registry() == route.source.registry()
            && path.len() > wider_path.len()
            && (wider_path.is_empty() || path.strip_prefix(wider_path).is_some_and(|rest| rest.starts_with('/')))
    })
}

/// Where a source is in the mirror. Podman does not say what it mirrors, so the path does, from which the proxy takes it
/// off again. A path has no room for a port: then the mirror's name says it, or nothing where that is the default.
fn location(routes: &Routes, route: &Route<Destination>, mirror: &Mirror) -> Option<String> {
    let base = base(routes, route.source.registry(), mirror)?;
    let path = route.source.path();
    Some(if path.is_empty() { base } else { format!("{base}/{path}") })
}

/// Where all of a registry is in the mirror.
pub(super) fn base(routes: &Routes, registry: &str, mirror: &Mirror) -> Option<String> {
    if !registry.contains(':') {
        return Some(format!("{}/{registry}", mirror.authority()));
    }
    if routes.default_registry() == Some(registry) {
        return Some(mirror.authority());
    }
    let mut of_it = routes.iter().filter(|other| other.source.registry() == registry);
    of_it.find_map(|other| other.hosts.first()).map(|host| mirror.named(host).authority())
}

fn entry(prefix: &str, location: &str, on_failure: OnFailure, mirror: &Mirror) -> String {
    // Without it they speak TLS only. They try TLS first all the same.
    let insecure = if mirror.tls { "" } else { "insecure = true\n" };
    let (prefix, location) = (quoted(prefix), quoted(location));
    match on_failure {
        OnFailure::Fallback => format!(
            "[[registry]]\nprefix = {prefix}\nlocation = {prefix}\n\n[[registry.mirror]]\nlocation = {location}\n{insecure}"
        ),
        OnFailure::Closed => format!(
            "# Closed: there is nobody else to ask.\n[[registry]]\nprefix = {prefix}\nlocation = {location}\n{insecure}"
        ),
    }
}
