//! Which container engines a host has, by their programs, and the files by which they come to the proxy.

use std::io::{BufRead, Write};
use std::path::Path;

use super::ask::{Manner, Stop};
use super::{Init, indented};
use crate::client_config::standing::{Standing, State};
use crate::client_config::{self, Client, How, Mirror, Setup, Task};
use crate::config::Config;
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
            self.left.push(format!("the engines' files are not written, because {}", self.running.lack()));
            return Ok(());
        }
        if !serves && self.talk.manner() == Manner::Ask {
            let lack = self.running.lack();
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
        let lacks = standing.iter().any(|file| matches!(file.state, State::Lacks(_)));
        let mut how = How { merge: true, dry: true, ..How::default() };
        if lacks {
            // It shows how each file of somebody else would differ.
            if let Err(cause) = client_config::run(&Task::Write { setup: setup.clone(), root: root.clone(), how }) {
                return Ok(Err(cause));
            }
        }
        let question = if lacks { "Write them, and add to those of others, with a copy?" } else { "Write them?" };
        if !self.agrees(question, serves)? {
            return Ok(Ok(()));
        }
        how.dry = false;
        Ok(client_config::run(&Task::Write { setup, root, how }))
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
}
