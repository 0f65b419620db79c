//! `registries.yaml`, of which k3s and RKE2 make the `hosts.toml` of the containerd that they bring.

use super::merge::Addition;
use super::node::{Distribution, K3S, RKE2, SWITCH, Source};
use super::{File, Mirror, Registry, Setup, containerd, quoted, registries};
use crate::config::Routes;

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
    path: &str,
    source: Option<&Source>,
) -> Setup {
    let Distribution { client, name: program, restart, .. } = distribution;
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
    notes.extend(containerd::about_ipv6(mirror));
    let registries = all.keys().map(|name| (*name).to_owned()).collect();
    let mut file = File::commented(path, &content);
    file.addition = Some(Addition::RegistriesYaml { url, registries });
    Setup::new(*client, vec![file], notes)
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
