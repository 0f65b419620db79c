//! `daemon.json` of Docker Desktop, which is the user's.

use std::path::Path;

use super::{Client, Mirror, Setup, docker};
use crate::config::Routes;

pub(crate) const AFTER_REMOVAL: &str =
    "Docker Desktop forgets a mirror when its engine starts: Settings, Docker Engine, Apply & restart";
/// How the proxy goes from its file, which has no comment by which it is known.
pub(super) const TAKE_OUT: &str = "take it out, there or in Settings, Docker Engine, then: Apply & restart";

/// Its file of settings, in the home directory of its user.
pub(super) fn settings(home: Option<&Path>) -> Result<String, String> {
    let home = home.and_then(Path::to_str).filter(|home| home.starts_with('/'));
    let home = home.ok_or("HOME is not set: Docker Desktop has its daemon.json in the home directory of its user")?;
    Ok(format!("{}/.docker/daemon.json", home.trim_end_matches('/')))
}

/// Its dockerd runs in a virtual machine and is given the file `$HOME/.docker/daemon.json` of whoever runs Docker Desktop, on
/// Linux, macOS and Windows alike (docs.docker.com/desktop/settings-and-maintenance/settings, "Docker Engine"). The error
/// says why no file can be given: an address of this host's loopback is the machine's own there.
pub(crate) fn setup(routes: &Routes, mirror: &Mirror, home: Option<&Path>) -> Result<Setup, String> {
    if mirror.is_loopback() {
        return Err(format!(
            "Docker Desktop's dockerd runs in a virtual machine, which does not reach {}: give an address that it reaches with --mirror, such as http://host.docker.internal{}",
            mirror.authority(),
            mirror.port
        ));
    }
    let path = settings(home)?;
    let mut notes = vec![
        "Docker Desktop reads it when its engine starts: Settings, Docker Engine, Apply & restart, where the same file can be edited; docker info then lists the mirror".to_owned(),
        "run this as the user of Docker Desktop, without sudo".to_owned(),
        "it mirrors nothing but docker.io, and asks Docker Hub itself when the mirror fails, also for a closed route".to_owned(),
    ];
    let mut files = Vec::new();
    match docker::hub_mirror(routes, mirror) {
        Ok(mirror) => {
            files.push(docker::daemon_json(path, &mirror));
        }
        Err(why) => notes.push(format!("there is nothing for daemon.json: {why}")),
    }
    Ok(Setup::new(Client::DockerDesktop, files, notes))
}
