//! `daemon.json` of dockerd, and the `hosts.toml` that dockerd reads since 28.0.

use serde_json::{Value, json};

use super::certificates::Shelf;
use super::hosts_toml;
use super::merge::Addition;
use super::text::{self, MARK};
use super::{Client, File, Language, Mirror, Registry, Setup, containerd, quoted, registries};
use crate::config::Routes;
use crate::host::Host;
use oci::route::DOCKER_HUB;

pub(crate) const DAEMON_JSON: &str = "/etc/docker/daemon.json";
pub(crate) const CERTS_D: &str = "/etc/docker/certs.d";
pub(crate) const PATHS: &[&str] = &["/etc/docker/certs.d/*/hosts.toml"];
pub(crate) const AFTER_REMOVAL: &str =
    "dockerd reads its hosts.toml at each pull, so for these there is nothing to reload";

/// The text of a `daemon.json` without the byte order mark that dockerd takes since 23.
pub(crate) fn unmarked(text: &str) -> &str {
    text.strip_prefix(MARK).unwrap_or(text)
}

/// What a `daemon.json` says, with such a mark or without one. The error quotes nothing of it.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    text::json(unmarked(text))
}

/// dockerd knows two ways. `registry-mirrors` in `daemon.json` is for Docker Hub only, and every release reads it.
/// `hosts.toml` is for any registry, and counts since dockerd 28 (`daemon/hosts.go` in moby), for pulls into the
/// containerd image store and for every build.
/// Of its directory of the mirror dockerd itself reads the certificates for `daemon.json` alone, so `hosts.toml` names them.
pub(crate) fn setup(routes: &Routes, mirror: &Mirror, host: &Host) -> Setup {
    let registries = registries(routes);
    let mut files = Vec::new();
    let (mut notes, mut named) = (Vec::new(), Vec::new());
    match hub_mirror(routes, mirror) {
        Ok(mirror) => {
            files.push(daemon_json(DAEMON_JSON.to_owned(), &mirror));
            notes.push(format!(
                "dockerd reads {DAEMON_JSON} after: systemctl reload docker; docker info then lists the mirror"
            ));
        }
        Err(why) => notes.push(format!(
            "there is nothing for {DAEMON_JSON}: {why}; if it names this proxy from an earlier time, take that out"
        )),
    }
    notes.push(format!(
        "dockerd reads {CERTS_D}/*/hosts.toml at each pull, since release 28: for pulls if docker info says \"driver-type: io.containerd.snapshotter.v1\", and for builds; before 28, and for pulls into its own image store, it mirrors nothing but docker.io, and that by {DAEMON_JSON}"
    ));
    notes.extend(about_authority(routes, mirror));
    let shelf = Shelf { mirror, host, certs_d: CERTS_D };
    for (name, registry) in &registries {
        // The name as it is: so dockerd's own directory is called, with a CA of the registry's perhaps.
        let path = format!("{CERTS_D}/{name}/hosts.toml");
        let certificates = shelf.of(&path, hosts_toml::certificates);
        let keys = containerd::keys(&certificates);
        named.push(certificates);
        let file = File::commented(path, &hosts(name, registry, mirror, &keys));
        files.push(File { wanted: Some(registry.wanted(name)), ..file });
        if registry.closed {
            notes.push(format!(
                "{name} is closed: dockerd asks nobody else for any image of it, and cannot push to it; where dockerd does not read hosts.toml it asks {host} all the same, so reject that name in the firewall, or send it to 0.0.0.0 in /etc/hosts",
                host = containerd::host(name)
            ));
            notes.extend(containerd::about_paths(name, registry, "dockerd"));
        }
    }
    Setup::new(Client::Docker, files, notes).with(named)
}

/// Where dockerd looks for the CA of a mirror that speaks TLS, by each address under which it comes to it.
fn about_authority(routes: &Routes, mirror: &Mirror) -> Option<String> {
    if !mirror.tls {
        return None;
    }
    let hub = hub_mirror(routes, mirror).ok().filter(|hub| hub.authority() != mirror.authority());
    let files: Vec<_> = [Some(mirror), hub.as_ref()]
        .into_iter()
        .flatten()
        .map(|one| format!("{CERTS_D}/{}/ca.crt", one.authority()))
        .collect();
    Some(format!(
        "dockerd trusts the CA certificates of the host; if the CA of {} is not among them, its certificate goes into {}, which dockerd reads at each pull by daemon.json; then run client-config again, which names that file in each hosts.toml: since release 28 builds, and pulls into the containerd image store, go by that alone",
        mirror.url(),
        files.join(" and ")
    ))
}

/// A `daemon.json` that says nothing else.
pub(super) fn daemon_json(path: String, mirror: &Mirror) -> File {
    let url = mirror.url();
    let content = format!("{:#}\n", json!({ "registry-mirrors": [url] }));
    File {
        path,
        content,
        language: Language::Json,
        held: false,
        addition: Some(Addition::DaemonJson(url)),
        wanted: None,
    }
}

/// dockerd's own image store does not say what it mirrors, so Docker Hub has to be what the proxy takes a bare name for.
pub(super) fn hub_mirror(routes: &Routes, mirror: &Mirror) -> Result<Mirror, &'static str> {
    let mut of_hub = routes.iter().filter(|route| route.source.registry() == DOCKER_HUB).peekable();
    if of_hub.peek().is_none() {
        return Err("no route is for docker.io");
    }
    if routes.default_registry() == Some(DOCKER_HUB) {
        return Ok(mirror.clone());
    }
    let host = of_hub.flat_map(|route| &route.hosts).next().ok_or(
        "it cannot say that it means docker.io, and \"default\" is another registry: give the route of docker.io a name of the mirror in \"hosts\"",
    )?;
    Ok(mirror.named(host))
}

/// dockerd 29 asks for referrers at each pull of an attested image, and asks the source where the proxy may not be asked.
/// `referrers` among the proxy's capabilities would do, but dockerd 28, as every containerd before 2.2, does not know the
/// word and ignores the file that has it. A `server` without capabilities has all that the release knows and comes last;
/// so it is the proxy once more, and what it alone has is referrers. The source comes after the proxy for pulls, and is
/// the first that takes pushes.
fn hosts(name: &str, registry: &Registry, mirror: &Mirror, keys: &[String]) -> String {
    if registry.closed {
        return containerd::hosts(name, registry, mirror, keys);
    }
    let (source, mirror) = (quoted(&containerd::source(name)), quoted(&mirror.url()));
    format!(
        "# Asked last, and for what is not named below: dockerd 29 looks for referrers.\nserver = {mirror}{}\n\n\
         [host.{mirror}]\n  capabilities = [\"pull\", \"resolve\"]{}\n\n\
         [host.{source}]\n  capabilities = [\"pull\", \"resolve\", \"push\"]\n",
        containerd::lines("", keys),
        containerd::lines("  ", keys)
    )
}
