//! A patch for the machine configuration of Talos, whose nodes have no file to write to.

use super::{Client, Mirror, Setup, containerd, quoted, registries};
use crate::config::Routes;

/// `machine.registries.mirrors`, by which Talos makes the `hosts.toml` of its containerd. `skipFallback`, since Talos 1.9, is
/// what closes a registry. Talos 1.12 has the document `RegistryMirrorConfig` besides (`pkg/machinery/config/types/cri` in
/// siderolabs/talos), with the same meaning.
pub(crate) fn setup(routes: &Routes, mirror: &Mirror) -> Setup {
    let mut printed = "machine:\n  registries:\n    mirrors:\n".to_owned();
    let mut notes = vec![
        "save it as patch.yaml, then for the nodes: talosctl patch machineconfig --patch @patch.yaml; Talos takes it without a restart of the node".to_owned(),
        "a machine configuration of Talos 1.12 and later that has a document RegistryMirrorConfig for one of these registries gets its endpoint there instead".to_owned(),
    ];
    if mirror.is_loopback() {
        notes.push(format!(
            "{} is the node's own: the proxy has to listen there on each node, as the Helm chart's DaemonSet does; name another one with --mirror",
            mirror.authority()
        ));
    }
    for (name, registry) in registries(routes) {
        printed += &format!("      {}:\n        endpoints:\n          - {}\n", quoted(name), quoted(&mirror.url()));
        if registry.closed {
            printed += "        skipFallback: true\n";
            notes.push(format!("{name} is closed: Talos 1.9 and later ask nobody else for any image of it"));
            notes.extend(containerd::about_paths(name, &registry, "Talos"));
        }
    }
    notes.extend(containerd::about_ipv6(mirror));
    Setup { printed, ..Setup::new(Client::Talos, Vec::new(), notes) }
}
