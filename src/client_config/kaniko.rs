//! Flags of kaniko's executor, which reads no file.

use std::collections::BTreeSet;

use super::{Client, Mirror, Setup, containerd, podman, registries};
use crate::config::Routes;
use oci::route::DOCKER_HUB;

/// `--registry-mirror` is for Docker Hub, `--registry-map` for any registry; both take a path, by which the proxy is told
/// which registry is meant, for kaniko does not tell it in another way (README.md and `pkg/image/remote/remote.go` in
/// GoogleContainerTools/kaniko, which asks the mirror in plain text only if `--insecure-registry` has its authority).
pub(crate) fn setup(routes: &Routes, mirror: &Mirror) -> Setup {
    let mut notes = vec![
        "give kaniko's executor these flags, as args of its container".to_owned(),
        "kaniko pulls base images by them; what it pushes and caches goes where its other flags say".to_owned(),
        "--registry-map needs kaniko 1.21, and a path in it or in --registry-mirror needs 1.22; an older one is served for Docker Hub only, if docker.io is the proxy's default registry".to_owned(),
        "kaniko takes all of an image from whom it got the manifest: if a layer fails after that, the build fails".to_owned(),
    ];
    if mirror.is_loopback() {
        notes.push(format!(
            "{} is the own address of the pod that kaniko is in: give one that the pod can reach with --mirror",
            mirror.authority()
        ));
    }
    let (mut flags, mut authorities) = (Vec::new(), BTreeSet::new());
    let all = registries(routes);
    for (name, registry) in &all {
        let hub = *name == DOCKER_HUB;
        // An older kaniko takes no path, which the proxy does not need for its default registry.
        let base = if hub && routes.default_registry() == Some(DOCKER_HUB) {
            Some(mirror.authority())
        } else {
            podman::base(routes, name, mirror)
        };
        let Some(base) = base else {
            notes.push(format!(
                "{name} is left out: a path has no room for its port, so give its route a name of the mirror in \"hosts\""
            ));
            continue;
        };
        flags.push(if hub { format!("--registry-mirror={base}") } else { format!("--registry-map={name}={base}") });
        authorities.insert(base.split('/').next().unwrap_or_default().to_owned());
        if !registry.whole {
            notes.push(format!(
                "{name}: kaniko knows no paths, so it asks here for all of {name}, and then the registry itself for what no route is for"
            ));
        }
    }
    if !mirror.tls {
        flags.extend(authorities.iter().map(|authority| format!("--insecure-registry={authority}")));
    }
    let closed: Vec<_> = all.iter().filter(|(_, registry)| registry.closed).map(|(name, _)| *name).collect();
    if closed.len() == all.len() {
        flags.push("--skip-default-registry-fallback".to_owned());
    } else {
        notes.extend(closed.iter().map(|name| {
            format!(
                "{name} is closed, but kaniko can only be told for all registries of these flags at once to ask nobody else (--skip-default-registry-fallback): reject {} in the firewall",
                containerd::host(name)
            )
        }));
    }
    let printed = flags.iter().map(|flag| format!("{flag}\n")).collect();
    Setup { printed, ..Setup::new(Client::Kaniko, Vec::new(), notes) }
}
