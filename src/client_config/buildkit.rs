//! `buildkitd.toml` of BuildKit.

use super::certificates::{Certificates, Shelf};
use super::merge::Addition;
use super::{Client, File, Mirror, Setup, containerd, quoted, registries, text};
use crate::config::Routes;
use crate::host::Host;

pub(crate) const PATH: &str = "/etc/buildkit/buildkitd.toml";
pub(crate) const CERTS_D: &str = "/etc/buildkit/certs.d";
pub(crate) const PATHS: &[&str] = &[PATH];
pub(crate) const AFTER_REMOVAL: &str = "buildkitd forgets its mirrors at its next start; a builder of buildx is made anew: docker buildx rm, docker buildx create";

/// BuildKit names the registry in `ns`, as containerd does, so that one address is the mirror of all.
pub(crate) fn setup(routes: &Routes, mirror: &Mirror, host: &Host) -> Setup {
    let authority = quoted(&mirror.authority());
    let mut content = String::new();
    let mut notes = vec![
        format!(
            "buildkitd reads {PATH} at its start; a builder of buildx is made with it: docker buildx create --driver docker-container --buildkitd-config {PATH}"
        ),
        "127.0.0.1 is the container's own for a builder in a container: give it the host's network (--driver-opt network=host), or an address that it can reach with --mirror".to_owned(),
        "BuildKit always asks the registry itself when a mirror fails".to_owned(),
    ];
    for (name, registry) in registries(routes) {
        content += &format!("[registry.{}]\n  mirrors = [{authority}]\n\n", quoted(name));
        if registry.closed {
            notes.push(format!(
                "{name} is closed, which BuildKit cannot be told: deny it that registry in the firewall"
            ));
        }
    }
    let shelf = Shelf { mirror, host, certs_d: CERTS_D };
    content += &format!("[registry.{authority}]\n  http = {}\n", !mirror.tls);
    let certificates = shelf.of(PATH, certificates);
    content += &named(&authority, &certificates);
    let by_hand = format!(
        "; a file of yours gets them by hand, ca = [\"FILE\"] below [registry.{authority}], and key and cert below [[registry.{authority}.keypair]]"
    );
    notes.extend(shelf.about("buildkitd", &by_hand));
    let registries = registries(routes).into_keys().map(str::to_owned).collect();
    let mut file = File::commented(PATH, &content);
    file.addition = Some(Addition::BuildkitdToml { mirror: mirror.authority(), http: !mirror.tls, registries });
    Setup::new(Client::Buildkit, vec![file], notes).with(vec![certificates])
}

/// What the file says of certificates below the mirror's own table.
fn named(authority: &str, certificates: &Certificates) -> String {
    let Certificates { ca, client } = certificates;
    let mut named = String::new();
    if !ca.is_empty() {
        named += &format!("  ca = {}\n", containerd::list(ca));
    }
    for (certificate, key) in client {
        let (certificate, key) = (quoted(certificate), quoted(key.as_ref().unwrap_or(certificate)));
        named += &format!("\n[[registry.{authority}.keypair]]\n  key = {key}\n  cert = {certificate}\n");
    }
    named
}

/// What a file names for the mirror.
fn certificates(content: &str, mirror: &Mirror) -> Certificates {
    let file = text::toml(content).unwrap_or_default();
    let Some(table) = text::table(&file, &["registry", &mirror.authority()]) else { return Certificates::default() };
    let client = text::tables(table, "keypair").into_iter().filter_map(|pair| {
        let of = |key: &str| text::text(pair, key).map(str::to_owned);
        Some((of("cert")?, Some(of("key")?)))
    });
    Certificates { ca: text::texts(table, "ca").unwrap_or_default(), client: client.collect() }
}
