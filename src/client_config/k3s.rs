//! `registries.yaml`, of which k3s and RKE2 make the `hosts.toml` of the containerd that they bring.

use super::merge::Addition;
use super::{Client, File, Mirror, Setup, containerd, quoted, registries};
use crate::config::Routes;

/// What the two differ in.
pub(crate) struct Distribution {
    client: Client,
    name: &'static str,
    /// The usual file of mirrors.
    pub path: &'static str,
    /// The usual configuration, and the variable that names another one.
    pub config: &'static str,
    pub variable: &'static str,
    /// Of a server and of an agent.
    pub services: [&'static str; 2],
    restart: &'static str,
}

pub(crate) const K3S: Distribution = Distribution {
    client: Client::K3s,
    name: "k3s",
    path: "/etc/rancher/k3s/registries.yaml",
    config: "/etc/rancher/k3s/config.yaml",
    variable: "K3S_CONFIG_FILE",
    services: ["k3s", "k3s-agent"],
    restart: "systemctl restart k3s, or k3s-agent",
};
pub(crate) const RKE2: Distribution = Distribution {
    client: Client::Rke2,
    name: "RKE2",
    path: "/etc/rancher/rke2/registries.yaml",
    config: "/etc/rancher/rke2/config.yaml",
    variable: "RKE2_CONFIG_FILE",
    services: ["rke2-server", "rke2-agent"],
    restart: "systemctl restart rke2-server, or rke2-agent",
};
pub(crate) const K3S_PATHS: &[&str] = &[K3S.path];
pub(crate) const RKE2_PATHS: &[&str] = &[RKE2.path];
pub(crate) const K3S_AFTER_REMOVAL: &str =
    "k3s forgets its mirrors at its next start: systemctl restart k3s, or k3s-agent";
pub(crate) const RKE2_AFTER_REMOVAL: &str =
    "RKE2 forgets its mirrors at its next start: systemctl restart rke2-server, or rke2-agent";

/// Each registry has its endpoints below `mirrors`, and the registry itself is asked last whatever stands there, but for nodes
/// with `disable-default-registry-endpoint` (docs.k3s.io/installation/private-registry).
/// `path` is the file that the node reads.
pub(crate) fn setup(routes: &Routes, mirror: &Mirror, distribution: &Distribution, path: &str) -> Setup {
    let Distribution { client, name: program, config, restart, .. } = distribution;
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
            notes.push(format!(
                "{name} is closed, but {program} asks it last all the same, unless {config} says disable-default-registry-endpoint: true on every node, which is for all registries of the file"
            ));
            notes.extend(containerd::about_paths(name, registry, program));
        }
    }
    notes.extend(containerd::about_ipv6(mirror));
    let registries = all.keys().map(|name| (*name).to_owned()).collect();
    let mut file = File::commented(path, &content);
    file.addition = Some(Addition::RegistriesYaml { url, registries });
    Setup::new(*client, vec![file], notes)
}
