//! `hosts.toml` of containerd: a directory for each registry, the proxy first.

use super::certificates::{Certificates, Shelf};
use super::hosts_toml;
use super::{Client, File, Mirror, Registry, Setup, quoted, registries};
use crate::config::Routes;
use crate::host::Host;
use oci::route::DOCKER_HUB;

/// Where containerd looks if it is told as in [`CONFIG_PATH`].
pub(crate) const CERTS_D: &str = "/etc/containerd/certs.d";
pub(crate) const PATHS: &[&str] = &["/etc/containerd/certs.d/*/hosts.toml"];
pub(crate) const AFTER_REMOVAL: &str = "containerd reads hosts.toml at each pull, so there is nothing to restart; config_path in its config.toml does no harm";
/// One directory: some releases name two by default, with a colon between, and then find neither.
pub(crate) const CONFIG_PATH: &str = r#"  # version = 3 (containerd 2.0 and later), version = 4 (containerd 2.3 and later)
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "/etc/containerd/certs.d"

  # version = 2 (containerd 1, and 2 reads it, too)
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
"#;

pub(crate) fn setup(routes: &Routes, mirror: &Mirror, host: &Host) -> Setup {
    let mut notes = vec![format!(
        "containerd reads hosts.toml at each pull. It finds them if /etc/containerd/config.toml, which is never written from here, has the one of these that goes with its version (then: systemctl restart containerd):\n\n{CONFIG_PATH}"
    )];
    notes.extend(about_certificates(mirror, host));
    notes.extend(about_ipv6(mirror));
    notes.extend(about_closed(routes));
    let (files, certificates) = files(routes, mirror, host);
    Setup::new(Client::Containerd, files, notes).with(certificates)
}

/// One `hosts.toml` for each registry, and the certificates that they name.
pub(crate) fn files(routes: &Routes, mirror: &Mirror, host: &Host) -> (Vec<File>, Vec<Certificates>) {
    let shelf = Shelf { mirror, host, certs_d: CERTS_D };
    let files = registries(routes).into_iter().map(|(name, registry)| {
        let path = format!("{CERTS_D}/{}/hosts.toml", directory(name));
        let certificates = shelf.of(&path, hosts_toml::certificates);
        let file = File::commented(path, &hosts(name, &registry, mirror, &keys(&certificates)));
        (File { wanted: Some(registry.wanted(name)), ..file }, certificates)
    });
    files.unzip()
}

/// Where the certificates of a mirror go.
pub(crate) fn about_certificates(mirror: &Mirror, host: &Host) -> Option<String> {
    Shelf { mirror, host, certs_d: CERTS_D }
        .about("containerd", "; it reads those of the host at its start only: systemctl restart containerd")
}

/// The lines of a `hosts.toml` that name them.
pub(crate) fn keys(certificates: &Certificates) -> Vec<String> {
    let client = certificates.client.iter().map(|(certificate, key)| match key {
        Some(key) => format!("[{}, {}]", quoted(certificate), quoted(key)),
        None => quoted(certificate),
    });
    let client = client.collect::<Vec<_>>().join(", ");
    let ca = match certificates.ca.as_slice() {
        [] => None,
        [one] => Some(format!("ca = {}", quoted(one))),
        all => Some(format!("ca = {}", list(all))),
    };
    let client = (!client.is_empty()).then(|| format!("client = [{client}]"));
    ca.into_iter().chain(client).collect()
}

/// A TOML array of these texts.
pub(crate) fn list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}

/// containerd 1 reads TOML by a parser for which a table's name ends at the first `]`, in quotation marks or not, and takes
/// no escape in its place. A file that it cannot read is none for it, so a closed route is open there.
pub(crate) fn about_ipv6(mirror: &Mirror) -> Option<String> {
    mirror.host.starts_with('[').then(|| {
        format!(
            "containerd 1 cannot read a hosts.toml with an IPv6 address, as {} is, and asks the registry itself, also for a closed route: give the address's name with --mirror, unless all have containerd 2",
            mirror.authority()
        )
    })
}

/// What a closed route means for containerd, which knows registries and no paths.
pub(crate) fn about_closed(routes: &Routes) -> Vec<String> {
    let all = registries(routes);
    let closed = all.iter().filter(|(_, registry)| registry.closed);
    closed
        .flat_map(|(name, registry)| {
            let pushes =
                format!("{name} is closed: containerd asks nobody else for any image of it, and cannot push to it");
            [pushes].into_iter().chain(about_paths(name, registry, "containerd"))
        })
        .collect()
}

/// What it means that a closed registry is not closed, or not routed, as a whole for a client that knows no paths.
pub(crate) fn about_paths(name: &str, registry: &Registry, client: &str) -> impl Iterator<Item = String> {
    let others = registry.open.then(|| {
        format!("{name}: one of its routes is closed, which closes all of them for {client}, since it knows no paths")
    });
    let missing = (!registry.whole).then(|| {
        format!("{name}: {client} cannot pull what no route is for: add a route for all of {name}, or let none of its routes be closed")
    });
    others.into_iter().chain(missing)
}

/// What containerd looks for first: a colon is not for every file system.
fn directory(registry: &str) -> String {
    match oci::authority::split(registry) {
        (host, Some(port)) => format!("{host}_{port}_"),
        (_, None) => registry.to_owned(),
    }
}

/// A registry's `hosts.toml`. `keys` are lines for the proxy, as its `server`, too.
pub(crate) fn hosts(name: &str, registry: &Registry, mirror: &Mirror, keys: &[String]) -> String {
    let mirror = quoted(&mirror.url());
    // The host is named in either case: containerd 1.6 takes a file without one for none at all, and goes to the source.
    let server = match name {
        _ if registry.closed => {
            format!("# Closed: there is nobody else to ask.\nserver = {mirror}{}", lines("", keys))
        }
        name => format!("server = {}", quoted(&source(name))),
    };
    format!("{server}\n\n[host.{mirror}]\n  capabilities = [\"pull\", \"resolve\"]{}\n", lines("  ", keys))
}

/// Each behind the end of the line before it.
pub(crate) fn lines(indent: &str, keys: &[String]) -> String {
    keys.iter().map(|key| format!("\n{indent}{key}")).collect()
}

/// Where a registry answers.
pub(crate) fn source(registry: &str) -> String {
    format!("https://{}", host(registry))
}

/// Its host, with its port if it has one: Docker Hub's is not its name.
pub(crate) fn host(registry: &str) -> &str {
    if registry == DOCKER_HUB { "registry-1.docker.io" } else { registry }
}
