//! Which container engines a host has, by their programs, and the files by which they come to the proxy.

use std::io::{BufRead, Write};
use std::path::Path;

use super::ask::{Manner, Stop};
use super::{Init, indented};
use crate::client_config::standing::{Standing, State};
use crate::client_config::{self, Client, How, Mirror, Setup, Task};
use crate::config::Config;
use crate::doctor::is_only_dockers;
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
    } else if has("containerd") && !(has("dockerd") && is_only_dockers(root)) {
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

/// What there is to do for the files of one engine.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    /// A file is not there, or is from other settings.
    writes: bool,
    /// A file of somebody else's lacks something.
    adds: bool,
    /// A file from here is not needed any more.
    removes: bool,
    /// A file can only be left as it is.
    leaves: bool,
}

impl Work {
    fn of(standing: &[Standing]) -> Self {
        let has = |is_such: fn(&State) -> bool| standing.iter().any(|file| is_such(&file.state));
        Self {
            writes: has(|state| matches!(state, State::Missing | State::Older(_))),
            adds: has(|state| matches!(state, State::Lacks(_))),
            removes: has(|state| matches!(state, State::Stale(_))),
            leaves: has(|state| matches!(state, State::Foreign(_) | State::Unknown(_))),
        }
    }

    /// Something can be done about it from here.
    fn has_any(self) -> bool {
        self.writes || self.adds || self.removes
    }

    /// Whether to do it.
    fn question(self) -> String {
        let remove = "those that are not needed any more";
        match (self.writes, self.adds, self.removes) {
            (false, false, _) => format!("Remove {remove}?"),
            (_, false, true) => format!("Write them, and remove {remove}?"),
            (_, false, false) => "Write them?".to_owned(),
            (_, true, false) => "Write them, and add to those of others, with a copy?".to_owned(),
            (_, true, true) => format!("Write them, add to those of others, with a copy, and remove {remove}?"),
        }
    }
}

/// The error is about the first file that still does not stand, and of which nobody else has told.
fn lacking(standing: &[Standing]) -> Result<(), String> {
    standing.iter().find(|file| !file.stands()).map_or(Ok(()), |file| Err(file.to_string()))
}

impl<R: BufRead, W: Write> Init<'_, R, W> {
    /// Has the engines of the host come to the proxy, which `serves` or does not yet.
    pub(super) fn bring_engines(&mut self, config: &Config, serves: bool) -> Result<(), Stop> {
        let clients = self.host.clients.clone();
        if clients.is_empty() {
            let command = format!("acr-cache-proxy client-config NAME{} --write", self.root());
            return self.talk.say(&format!(
                "\nNo container engine is found here. Once one is, {command} has it pull through the proxy; --help has the names.\n"
            ));
        }
        if !serves && self.talk.manner() == Manner::Yes {
            self.left.push(format!("the engines' files are not written, because {}", self.lack()));
            return Ok(());
        }
        if !serves && self.talk.manner() == Manner::Ask {
            let lack = self.lack();
            self.talk.say(&format!("\nEngines that are sent to the proxy now go to the source, because {lack}.\n"))?;
        }
        let mirror = match Mirror::of(config.listeners()) {
            Ok(mirror) => mirror,
            Err(why) => {
                self.left.push(format!("the engines' files are not written: {why}"));
                return Ok(());
            }
        };
        for client in clients {
            let setup = match client_config::setup(client, config, &mirror, &self.options.root) {
                Ok(setup) => setup,
                Err(why) => {
                    // Of a tree no proxy runs here.
                    let reload = if self.host.is_this { "acr-cache-proxy reload, and " } else { "" };
                    let then = format!("after a change of {}: {reload}run init again", self.host.config.display());
                    self.left.push(format!("the files of {} are not written: {why}; {then}", client.name()));
                    continue;
                }
            };
            if let Err(cause) = self.bring(client, setup, serves)? {
                self.left.push(format!("{}: {cause}", client.name()));
            }
        }
        Ok(())
    }

    /// The inner error is a sentence about this engine.
    fn bring(&mut self, client: Client, mut setup: Setup, serves: bool) -> Result<Result<(), String>, Stop> {
        let (name, root) = (client.name(), self.options.root.clone());
        for sentence in setup.take_excluded(&root) {
            self.talk.say(&format!("\nNot written for {name}: {sentence}\n"))?;
            self.left.push(sentence);
        }
        let standing = setup.standing(&root);
        if standing.iter().all(Standing::stands) {
            self.talk.say(&format!("\nThe files of {name} stand already.\n"))?;
            return Ok(Ok(()));
        }
        let (files, _) = client_config::shown(&setup);
        let states: String = standing.iter().map(|file| format!("  {file}\n")).collect();
        self.talk.say(&format!("\nFiles of {name}:\n\n{}\n{states}", indented(&files)))?;
        let work = Work::of(&standing);
        let how = How { merge: true, prune: work.removes, dry: true };
        let task = |dry| Task::Write { setup: setup.clone(), root: root.clone(), how: How { dry, ..how } };
        // It shows how each file of somebody else would differ, which the writing itself shows, too.
        if (work.adds || work.leaves) && !(self.host.is_root && self.talk.manner() == Manner::Yes && work.has_any()) {
            // What is left as it is keeps nothing else from being written.
            let told = client_config::run(&task(true));
            if !work.has_any() {
                return Ok(told.and_then(|()| lacking(&standing)));
            }
        }
        if !work.has_any() {
            return Ok(lacking(&standing));
        }
        if !self.agrees(&work.question(), serves)? {
            return Ok(Ok(()));
        }
        Ok(client_config::run(&task(false)).and_then(|()| lacking(&setup.standing(&root))))
    }
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

    /// `doctor` asked for its files, and `init` did not write them.
    #[test]
    fn a_containerd_beside_dockerd_gets_its_files_where_it_has_mirrors_of_its_own() {
        let table = "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n";
        for (name, content, is_only_dockers) in [
            ("etc/containerd/config.toml", "version = 2\n".to_owned(), true),
            ("etc/containerd/config.toml", format!("version = 2\n{table}"), false),
            (
                "etc/containerd/config.toml",
                format!("version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n{table}"),
                true,
            ),
            (
                "etc/containerd/certs.d/ghcr.io/hosts.toml",
                "# Written by acr-cache-proxy client-config\n".to_owned(),
                false,
            ),
            ("etc/containerd/certs.d/ghcr.io/hosts.toml", String::new(), true),
            ("usr/bin/crictl", String::new(), false),
        ] {
            let root = tempfile::tempdir().expect("a directory");
            for (name, content) in [("usr/bin/dockerd", ""), ("usr/bin/containerd", ""), (name, &content)] {
                let path = root.path().join(name);
                std::fs::create_dir_all(path.parent().expect("in a directory")).expect("made");
                std::fs::write(path, content).expect("written");
            }
            let expected: &[_] =
                if is_only_dockers { &[Client::Docker] } else { &[Client::Docker, Client::Containerd] };
            assert_eq!(find(root.path()), expected, "{name}: {content}");
        }
    }
}
