//! `buildkitd.toml` of BuildKit.

use super::merge::Addition;
use super::{Client, File, Mirror, Setup, quoted, registries};
use crate::config::Routes;

pub(crate) const PATH: &str = "/etc/buildkit/buildkitd.toml";
pub(crate) const PATHS: &[&str] = &[PATH];
pub(crate) const AFTER_REMOVAL: &str = "buildkitd forgets its mirrors at its next start; a builder of buildx is made anew: docker buildx rm, docker buildx create";

/// BuildKit names the registry in `ns`, as containerd does, so that one address is the mirror of all.
pub(crate) fn setup(routes: &Routes, mirror: &Mirror) -> Setup {
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
    content += &format!("[registry.{authority}]\n  http = {}\n", !mirror.tls);
    let registries = registries(routes).into_keys().map(str::to_owned).collect();
    let mut file = File::commented(PATH, &content);
    file.addition = Some(Addition::BuildkitdToml { mirror: mirror.authority(), http: !mirror.tls, registries });
    Setup::new(Client::Buildkit, vec![file], notes)
}
