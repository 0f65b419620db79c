//! `client-config`: the files by which container clients come through the proxy, made from the settings.
//!
//! What each client reads is in a module of its own, pure: settings and an address become files and notes. So is [`merge`],
//! which adds to a file of somebody else. [`look`], [`install`], [`amend`] and [`prune`] touch the file system.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::config::{Config, Domain, Listener, Routes};
use crate::host::Host;
use oci::route::OnFailure;

pub(crate) mod address;
mod amend;
mod buildkit;
mod by_flag;
pub(crate) mod certificates;
mod containerd;
mod docker;
mod docker_desktop;
pub(crate) mod gone;
pub(crate) mod hosts_toml;
mod install;
mod k3s;
mod kaniko;
mod kubernetes;
mod left;
mod look;
mod masked;
mod merge;
mod nerdctl;
mod node;
mod podman;
mod prune;
pub(crate) mod standing;
mod talos;
mod task;
pub(crate) mod text;
mod untouched;

use address::Here;
pub(crate) use buildkit::PATH as BUILDKITD_TOML;
pub(crate) use by_flag::{believe, dockerd, running_dockerd, settings as dockerd_settings};
use certificates::Certificates;
pub(crate) use containerd::{CERTS_D as CONTAINERD_CERTS_D, host as registry_host};
pub(crate) use docker::{CERTS_D as DOCKER_CERTS_D, DAEMON_JSON, parse as parse_daemon_json, unmarked};
pub(crate) use masked::masked;
pub(crate) use node::{Broken, Node, SWITCH, node};
pub(crate) use podman::release::Release;
pub(crate) use podman::{REGISTRIES_CONF, REGISTRIES_D, policy, signatures};
pub(crate) use task::{How, Task, run, shown};

/// How the line begins by which a file of this command is known again.
const MARKER: &str = "# Written by acr-cache-proxy client-config";
/// The rest of that line, for whoever edits the file.
const MARKER_REST: &str = ", which writes it anew: take this line out to keep changes.";

/// Whose files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// dockerd, with either image store.
    Docker,
    /// Docker Desktop, whose dockerd is in a virtual machine.
    DockerDesktop,
    /// containerd, by `hosts.toml`.
    Containerd,
    /// nerdctl, which reads containerd's files.
    Nerdctl,
    /// podman, buildah, skopeo and CRI-O, which share a library.
    Podman,
    /// BuildKit as a daemon of its own.
    Buildkit,
    /// A node whose kubelet pulls through containerd.
    Kubernetes,
    /// A node of k3s.
    K3s,
    /// A node of RKE2.
    Rke2,
    /// A node of Talos, which has a patch instead of files.
    Talos,
    /// kaniko, which has flags instead of files.
    Kaniko,
}

impl Client {
    /// How the clients are named, for sentences.
    pub(crate) const NAMES: &str =
        "docker, docker-desktop, containerd, nerdctl, podman, buildkit, kubernetes, k3s, rke2, talos or kaniko";

    /// By its name on the command line, or that of a program that reads the same files. The error says which there are.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "docker" | "dockerd" => Ok(Self::Docker),
            "docker-desktop" => Ok(Self::DockerDesktop),
            "containerd" => Ok(Self::Containerd),
            "nerdctl" => Ok(Self::Nerdctl),
            "podman" | "buildah" | "skopeo" | "crio" | "cri-o" => Ok(Self::Podman),
            "buildkit" | "buildkitd" | "buildx" => Ok(Self::Buildkit),
            "kubernetes" | "k8s" => Ok(Self::Kubernetes),
            "k3s" => Ok(Self::K3s),
            "rke2" => Ok(Self::Rke2),
            "talos" => Ok(Self::Talos),
            "kaniko" => Ok(Self::Kaniko),
            _ => Err(format!("unknown client {text:?}: use {}", Self::NAMES)),
        }
    }

    /// Why there is nothing to write, for a client that is configured in another way than by a file of its host.
    pub(crate) fn without_files(self) -> Option<&'static str> {
        match self {
            Self::Talos => Some("a node of Talos has no file to write to: print the patch, and give it to talosctl"),
            Self::Kaniko => Some("kaniko reads no file: print the flags, and give them to its executor"),
            _ => None,
        }
    }

    /// Whether it is a node whose configuration says which file of mirrors is read.
    fn is_node(self) -> bool {
        matches!(self, Self::K3s | Self::Rke2)
    }

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::DockerDesktop => "docker-desktop",
            Self::Containerd => "containerd",
            Self::Nerdctl => "nerdctl",
            Self::Podman => "podman",
            Self::Buildkit => "buildkit",
            Self::Kubernetes => "kubernetes",
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
            Self::Talos => "talos",
            Self::Kaniko => "kaniko",
        }
    }

    /// Where this command has ever written a file for the client, by which those are found that no route needs any more.
    fn paths(self) -> &'static [&'static str] {
        match self {
            Self::Docker => docker::PATHS,
            Self::Containerd | Self::Nerdctl => containerd::PATHS,
            Self::Podman => podman::PATHS,
            Self::Buildkit => buildkit::PATHS,
            Self::Kubernetes => kubernetes::PATHS,
            Self::K3s => k3s::K3S_PATHS,
            Self::Rke2 => k3s::RKE2_PATHS,
            // daemon.json has no comment by which it is known.
            Self::DockerDesktop | Self::Talos | Self::Kaniko => &[],
        }
    }

    /// Where it has a directory of certificates for each address.
    pub(crate) fn certs_d(self) -> Option<&'static str> {
        match self {
            Self::Docker => Some(docker::CERTS_D),
            Self::Containerd | Self::Nerdctl | Self::Kubernetes => Some(containerd::CERTS_D),
            Self::Podman => Some(podman::CERTS_D),
            Self::Buildkit => Some(buildkit::CERTS_D),
            Self::K3s => Some(node::K3S.certs_d),
            Self::Rke2 => Some(node::RKE2.certs_d),
            Self::DockerDesktop | Self::Talos | Self::Kaniko => None,
        }
    }

    /// What is left to do once all of its files are removed.
    fn after_removal(self) -> Option<&'static str> {
        let known = match self {
            Self::Docker => docker::AFTER_REMOVAL,
            Self::DockerDesktop => docker_desktop::AFTER_REMOVAL,
            Self::Containerd => containerd::AFTER_REMOVAL,
            Self::Nerdctl => nerdctl::AFTER_REMOVAL,
            Self::Podman => podman::AFTER_REMOVAL,
            Self::Buildkit => buildkit::AFTER_REMOVAL,
            Self::Kubernetes => kubernetes::AFTER_REMOVAL,
            Self::K3s => k3s::K3S_AFTER_REMOVAL,
            Self::Rke2 => k3s::RKE2_AFTER_REMOVAL,
            Self::Talos | Self::Kaniko => return None,
        };
        Some(known)
    }
}

/// Where clients find the proxy: a scheme and an authority, without a path, since dockerd takes none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    tls: bool,
    host: String,
    /// With its colon; empty for the scheme's own.
    port: String,
}

impl Mirror {
    /// `http://mirror.internal:8080`, `https://mirror.internal`. The error says what would be right.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not the address of a mirror: use scheme and host as clients reach the proxy, such as http://mirror.internal:8080"
            )
        };
        if text.contains('@') {
            // It is left out because it holds a password.
            return Err("an address has no user name or password here: the proxy asks for none".to_owned());
        }
        let (tls, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(wrong()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let host = Domain::parse(rest).map_err(|_| wrong())?.host().to_owned();
        let mut port = rest[host.len()..].to_owned();
        // In an image reference a first part without a dot or a port would be a repository of Docker Hub, and where a file has no scheme, the
        // port that is not said is that of TLS.
        if port.is_empty() && (!tls || !host.contains(['.', ':'])) {
            port = if tls { ":443" } else { ":80" }.to_owned();
        }
        Ok(Self { tls, host, port })
    }

    /// What a proxy with these listeners is for clients of its own host: one of IPv4, if there is one, because podman and containerd 1
    /// take no address of IPv6. The error says what is missing.
    pub(crate) fn of(listeners: &[Listener]) -> Result<Self, String> {
        let plain = listeners.iter().filter(|listener| listener.is_plain());
        let addresses: Vec<_> = plain.filter_map(|listener| listener.endpoint.address()).collect();
        // One on all addresses of IPv6 takes IPv4 as well.
        let takes_ipv4 = |address: &&SocketAddr| address.is_ipv4() || address.ip().is_unspecified();
        let address = addresses.iter().find(takes_ipv4).or(addresses.first()).copied();
        let only_sockets = "listen: no listener is one that clients of this host can use as it is, by an address, without TLS and without the PROXY protocol: name the clients' address with --mirror";
        address.map_or_else(|| Err(only_sockets.to_owned()), Self::at)
    }

    /// What a proxy that listens there is for clients of its own host. The error says what is missing.
    pub(crate) fn at(listen: SocketAddr) -> Result<Self, String> {
        if listen.port() == 0 {
            return Err(format!(
                "listen: {listen} has a port only once the proxy runs: name one, or the clients' address with --mirror"
            ));
        }
        let host = match listen.ip() {
            ip if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            ip => oci::authority::of_ip(ip),
        };
        Ok(Self { tls: false, host, port: format!(":{}", listen.port()) })
    }

    /// `http://127.0.0.1:8080`
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }

    /// `127.0.0.1:8080`
    fn authority(&self) -> String {
        format!("{}{}", self.host, self.port)
    }

    /// The host is an address of IPv6, which an image reference of podman cannot name.
    fn is_ipv6(&self) -> bool {
        self.host.starts_with('[')
    }

    /// It is this host's own, which is another one in a container or a virtual machine.
    fn is_loopback(&self) -> bool {
        self.host == "localhost" || oci::authority::ip(&self.host).is_some_and(|ip| ip.is_loopback())
    }

    /// The same proxy by another name; the name's own port wins.
    fn named(&self, host: &str) -> Self {
        let port = match oci::authority::split(host) {
            (_, Some(_)) => String::new(),
            (_, None) => self.port.clone(),
        };
        Self { tls: self.tls, host: host.to_owned(), port }
    }
}

/// Which language a file is in, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    /// TOML or YAML: what begins with `#` is a comment.
    Commented,
    /// No comments, so no marker either.
    Json,
    /// The first line is the interpreter's.
    Shell,
}

/// One file of a client's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    path: String,
    content: String,
    language: Language,
    /// Another file of the list holds this one, so that it need not be shown by itself.
    held: bool,
    /// What somebody else's file has to say in its place; without it such a file can only be left alone.
    addition: Option<merge::Addition>,
    /// What it says, if that can be found in other words.
    wanted: Option<hosts_toml::Wanted>,
}

impl File {
    fn commented(path: impl Into<String>, content: &str) -> Self {
        let content = format!("{MARKER}{MARKER_REST}\n{content}");
        Self { path: path.into(), content, language: Language::Commented, held: false, addition: None, wanted: None }
    }

    /// Absolute, below the root that the client will see.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The same as a path that is joined to a root.
    fn below_root(&self) -> &Path {
        Path::new(self.path.trim_start_matches('/'))
    }

    /// What somebody has to take over who has the file already.
    fn to_merge(&self) -> String {
        self.content.lines().filter(|line| !line.starts_with(MARKER)).map(|line| format!("  {line}\n")).collect()
    }
}

/// Everything that one client needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setup {
    client: Client,
    files: Vec<File>,
    /// What is given to the client in another way than by a file.
    printed: String,
    /// What the files cannot say, and what is left to do; a text may have further lines.
    notes: Vec<String>,
    /// Those of the mirror that the files name.
    certificates: Vec<Certificates>,
    /// Which addresses of a file are the proxy's, by whatever name; without it only the one that is written.
    here: Option<Here>,
}

impl Setup {
    fn new(client: Client, files: Vec<File>, notes: Vec<String>) -> Self {
        Self { client, files, printed: String::new(), notes, certificates: Vec::new(), here: None }
    }

    fn with(self, certificates: Vec<Certificates>) -> Self {
        Self { certificates, ..self }
    }

    /// The files of authorities that the client will trust the mirror by, as its files name them.
    pub(crate) fn authorities(&self) -> Vec<String> {
        self.certificates.iter().flat_map(|certificates| certificates.ca.clone()).collect()
    }

    /// The certificates that the client will present to the mirror, with their keys, likewise.
    pub(crate) fn pairs(&self) -> Vec<(String, Option<String>)> {
        self.certificates.iter().flat_map(|certificates| certificates.client.clone()).collect()
    }
}

/// The files for one client of the host below a root. The error is one sentence about settings that this client cannot be served with.
pub(crate) fn setup(client: Client, config: &Config, mirror: &Mirror, root: &Path) -> Result<Setup, String> {
    // Names and addresses are this machine's, wherever the files are.
    let own = Host::new(PathBuf::from("/")).names();
    let here = Some(Here::of_files(config, &mirror.url(), &own));
    Ok(Setup { here, ..files(client, config.routes(), mirror, &Host::new(root.to_owned()))? })
}

fn files(client: Client, routes: &Routes, mirror: &Mirror, host: &Host) -> Result<Setup, String> {
    match client {
        Client::Docker => Ok(docker::setup(routes, mirror, host)),
        Client::DockerDesktop => {
            let home = std::env::var_os("HOME").map(PathBuf::from);
            docker_desktop::setup(routes, mirror, home.as_deref())
        }
        Client::Containerd => Ok(containerd::setup(routes, mirror, host)),
        Client::Nerdctl => Ok(nerdctl::setup(routes, mirror, host)),
        Client::Podman => podman::setup(routes, mirror, policy::Files::read(host).want_sigstore(routes)),
        Client::Buildkit => Ok(buildkit::setup(routes, mirror, host)),
        Client::Kubernetes => Ok(kubernetes::setup(routes, mirror, host)),
        Client::K3s => {
            let (path, source) = of_node(host, client)?;
            Ok(k3s::setup(routes, mirror, &node::K3S, host, (&path, source.as_ref())))
        }
        Client::Rke2 => {
            let (path, source) = of_node(host, client)?;
            Ok(k3s::setup(routes, mirror, &node::RKE2, host, (&path, source.as_ref())))
        }
        Client::Talos => Ok(talos::setup(routes, mirror)),
        Client::Kaniko => Ok(kaniko::setup(routes, mirror)),
    }
}

/// The file of mirrors that a node of k3s or RKE2 reads, and whether it asks the registries themselves. The error is one sentence.
fn of_node(host: &Host, client: Client) -> Result<(String, Option<node::Source>), String> {
    let node = node(host, client);
    let unknown = |why: String| format!("which file of mirrors {} reads is not known: {why}", client.name());
    match node.unit.doubt() {
        Some(doubt) => Err(unknown(doubt)),
        None => match node.file {
            Ok(file) => Ok((file, node.source)),
            Err(broken) => Err(unknown(format!("{}: {}", broken.path, broken.wrong))),
        },
    }
}

/// A registry with its routes taken together, for clients that know registries and no paths.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Registry {
    /// One of its routes is closed.
    pub closed: bool,
    /// One of its routes is not.
    pub open: bool,
    /// One of its routes is for all of it.
    pub whole: bool,
}

impl Registry {
    /// What its `hosts.toml` is to say.
    fn wanted(self, name: &str) -> hosts_toml::Wanted {
        hosts_toml::Wanted { registry: name.to_owned(), is_closed: self.closed }
    }
}

/// By name, so that the same settings always give the same files.
pub(crate) fn registries(routes: &Routes) -> BTreeMap<&str, Registry> {
    let mut found: BTreeMap<_, Registry> = BTreeMap::new();
    for route in routes.iter() {
        let registry = found.entry(route.source.registry()).or_default();
        match route.destination.on_failure {
            OnFailure::Closed => registry.closed = true,
            OnFailure::Fallback => registry.open = true,
        }
        registry.whole |= route.source.path().is_empty();
    }
    found
}

/// Whether this is the content of a file of this command's.
pub(crate) fn carries_marker(content: &str) -> bool {
    look::is_ours(content.as_bytes())
}

/// A TOML basic string. A JSON string is one, but for the character DEL, which no host and no path has.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
