//! Which container engines a host has, by their programs.

use std::path::Path;

use crate::client_config::Client;
use crate::installed;

/// The clients whose files this host needs.
pub(super) fn find(root: &Path) -> Vec<Client> {
    let has = |name: &str| installed::has_program(root, name);
    let mut clients = Vec::new();
    if has("dockerd") {
        clients.push(Client::Docker);
    }
    if has("kubelet") && has("containerd") {
        clients.push(Client::Kubernetes);
    } else if has("containerd") && has("nerdctl") {
        clients.push(Client::Nerdctl);
    } else if has("containerd") && !has("dockerd") {
        // Beside dockerd it may only be what dockerd runs containers by, which pulls nothing.
        clients.push(Client::Containerd);
    }
    // Each has a containerd of its own.
    clients.extend(has("k3s").then_some(Client::K3s));
    clients.extend(has("rke2").then_some(Client::Rke2));
    if has("podman") || has("buildah") || has("skopeo") || has("crio") {
        clients.push(Client::Podman);
    }
    if has("buildkitd") {
        clients.push(Client::Buildkit);
    }
    clients
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_the_clients_whose_programs_it_has() {
        for (programs, clients) in [
            (&[][..], &[][..]),
            (&["usr/bin/dockerd", "usr/bin/containerd"], &[Client::Docker]),
            (&["usr/bin/dockerd", "usr/bin/containerd", "usr/local/bin/nerdctl"], &[Client::Docker, Client::Nerdctl]),
            (&["usr/local/bin/k3s"], &[Client::K3s]),
            (&["opt/rke2/bin/rke2"], &[Client::Rke2]),
            (&["usr/local/bin/containerd"], &[Client::Containerd]),
            (&["usr/bin/containerd", "usr/bin/kubelet"], &[Client::Kubernetes]),
            (&["usr/bin/crio", "usr/bin/kubelet"], &[Client::Podman]),
            (&["usr/bin/podman", "usr/bin/skopeo", "usr/local/bin/buildkitd"], &[Client::Podman, Client::Buildkit]),
        ] {
            let root = tempfile::tempdir().expect("a directory");
            for program in programs {
                let path = root.path().join(program);
                std::fs::create_dir_all(path.parent().expect("in a directory")).expect("made");
                std::fs::write(path, "").expect("written");
            }
            assert_eq!(find(root.path()), clients, "{programs:?}");
        }
    }
}
