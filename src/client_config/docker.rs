use serde_json::json;

use super::{File, Language, Mirror, Setup, registries};
use crate::route::{DOCKER_HUB, Routes};

const PATH: &str = "/etc/docker/daemon.json";

/// dockerd has mirrors of Docker Hub only. With its own image store it does not say what it mirrors, so Docker Hub has
/// to be what the proxy takes a bare name for.
pub fn setup(routes: &Routes, mirror: &Mirror) -> Result<Setup, String> {
    let registries = registries(routes);
    let Some(hub) = registries.get(DOCKER_HUB) else {
        return Err("no route is for docker.io, and dockerd asks a mirror for nothing else".to_owned());
    };
    let mirror = if routes.default_registry() == Some(DOCKER_HUB) {
        mirror.clone()
    } else {
        let mut hosts =
            routes.iter().filter(|route| route.source.registry() == DOCKER_HUB).flat_map(|route| &route.hosts);
        let host = hosts.next().ok_or(
            "dockerd names no registry, and \"default\" is another one than docker.io: give the route of docker.io a name of the mirror in \"hosts\"",
        )?;
        mirror.named(host)
    };
    let content = format!("{:#}\n", json!({ "registry-mirrors": [mirror.url()] }));
    let mut notes =
        vec![format!("dockerd reads {PATH} after: systemctl reload docker; docker info then lists the mirror")];
    if registries.len() > 1 {
        notes.push(
            "dockerd has mirrors of docker.io only: images of the other routes do not come through here".to_owned(),
        );
    }
    if hub.closed {
        notes.push(
            "docker.io is closed, and dockerd asks Docker Hub by itself when its mirror fails, whatever its settings are: deny it registry-1.docker.io in the firewall, or send that name to 0.0.0.0 in /etc/hosts".to_owned(),
        );
    }
    let file = File { path: PATH.to_owned(), content, language: Language::Json, held: false };
    Ok(Setup { files: vec![file], notes })
}
