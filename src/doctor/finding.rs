//! What a doctor finds: what is wrong, why it matters and what to do, a line each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use oci::route::DOCKER_HUB;

use crate::client_config::{self, Client};
use crate::host::{DENIED, Host};
use crate::installed::runs_systemd;
use crate::label::labels;

labels! {
    /// What is looked at.
    Part {
        /// This program's own service.
        Proxy = "proxy",
        /// Docker Engine.
        Dockerd = "dockerd",
        /// containerd, for a kubelet, nerdctl or ctr.
        Containerd = "containerd",
        /// podman, buildah and skopeo.
        Podman = "podman",
        /// CRI-O, which reads the files of podman.
        Crio = "cri-o",
        /// BuildKit as a daemon of its own.
        Buildkitd = "buildkitd",
        /// k3s, with a containerd of its own.
        K3s = "k3s",
        /// RKE2, likewise.
        Rke2 = "rke2",
        /// The kubelet, which pulls through one of the others.
        Kubelet = "kubelet",
    }
}

labels! {
    /// A kind of finding.
    Code {
        /// The proxy's own settings have mistakes, or are the package's example.
        Settings = "settings",
        /// The proxy does not answer.
        Down = "down",
        /// Something else answers in its place.
        Stranger = "stranger",
        /// It has no token for a registry.
        NotReady = "not-ready",
        /// It has answered requests so that clients went to the source.
        Refused = "refused",
        /// A file is not what the engine can read, or the proxy's service may not read it.
        Unreadable = "unreadable",
        /// The engine does not know the proxy.
        NoMirror = "no-mirror",
        /// An address is nearly the proxy's.
        Address = "address",
        /// An address has what the engine refuses, or the proxy does not understand.
        Path = "path",
        /// Another mirror is asked first.
        Order = "order",
        /// Plain HTTP has to be allowed.
        Insecure = "insecure",
        /// The engine does not trust the proxy's certificate.
        Untrusted = "untrusted",
        /// The proxy does not take what the engine presents of itself.
        ClientCertificate = "client-certificate",
        /// The proxy may not be asked for all that a pull needs.
        Capabilities = "capabilities",
        /// The files are not looked for where they are.
        NotEnabled = "not-enabled",
        /// A file is in a directory that is not looked into.
        Directory = "directory",
        /// Another file or entry counts in place of the one that names the proxy.
        Hidden = "hidden",
        /// Two settings exclude each other.
        Conflict = "conflict",
        /// The engine refuses the registry.
        Blocked = "blocked",
        /// A policy requires signatures that are not looked for at the proxy.
        Signature = "signature",
        /// The proxy is named for a registry that it has no route for.
        Leftover = "leftover",
        /// A closed route, and the engine asks the source.
        NotClosed = "not-closed",
        /// An open route, and the engine cannot ask the source.
        NoFallback = "no-fallback",
        /// The engine has not loaded what the file says.
        NotLoaded = "not-loaded",
        /// Requests for the proxy are sent to a forward proxy.
        ForwardProxy = "forward-proxy",
        /// The engine's service has failed to start, or the proxy's socket unit; or the proxy's would not start again.
        Failed = "failed",
        /// A pull has failed, or gone past the proxy.
        Pull = "pull",
    }
}

labels! {
    /// Where a pull of a routed registry goes first.
    Way {
        /// To the proxy.
        Proxy = "proxy",
        /// Past the proxy, to the registry itself or another mirror.
        Source = "source",
        /// It fails.
        Nowhere = "nowhere",
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fix {
    /// It can be pasted into a root shell.
    pub command: String,
    /// `--fix` does it, by the files of this client.
    pub by: Option<Client>,
}

impl Fix {
    /// The same for this host, on which systemd may run nothing.
    pub(super) fn on(self, host: &Host) -> Self {
        if !host.is_this() || runs_systemd() { self } else { self.without_systemd() }
    }

    fn without_systemd(self) -> Self {
        let mut command = self.command.replace("systemctl daemon-reload && ", "");
        // There is no journal of systemd's either, and of this program's output nobody knows where it is.
        for (with, without) in [("; journalctl --unit acr-cache-proxy", ""), ("journalctl --unit ", "tail /var/log/")] {
            let Some((before, behind)) = command.split_once(with) else { continue };
            let service = behind.split(' ').next().unwrap_or_default();
            command = if without.is_empty() { before.to_owned() } else { format!("{before}{without}{service}.log") };
        }
        for (service, program) in [("docker", "dockerd"), ("crio", "crio")] {
            command = command.replace(&format!("systemctl reload {service}"), &format!("kill -HUP $(pidof {program})"));
        }
        while let Some((before, behind)) = command.split_once("systemctl restart ") {
            let (service, after) = behind.split_at(behind.find(' ').unwrap_or(behind.len()));
            command = format!("{before}service {service} restart{after}");
        }
        Self { command, ..self }
    }

    /// The same for the tree of another host, in which client-config writes. All else is to be done on that host, and does nothing in a shell
    /// of this one.
    pub(super) fn on_its_host(self, root: &Path) -> Self {
        const WRITES: &str = "acr-cache-proxy client-config ";
        let (here, there) = match self.command.split_once(" && ") {
            Some((writes, then)) if writes.starts_with(WRITES) => (writes, then),
            None if self.command.starts_with(WRITES) => return self,
            _ => ("", self.command.as_str()),
        };
        // There the paths are as the tree has them. Both may be quoted.
        let root = root.display().to_string();
        let above = root.trim_end_matches('/');
        let there = there
            .replace(&format!(" --root '{root}'"), "")
            .replace(&format!(" --root {root}"), "")
            .replace(&format!(" {above}/"), " /")
            .replace(&format!(" '{above}/"), " '/");
        let command = match here {
            "" => format!("# on the host itself: {there}"),
            here => format!("{here}  # then, on the host itself: {there}"),
        };
        Self { command, ..self }
    }
}

/// Why it matters that the proxy is not asked.
pub(super) const PAST: &str = "pulls of {registries} go past the proxy, to the source, and nobody is told";
/// Stands in texts for the registries that a finding is about.
pub(super) const REGISTRIES: &str = "{registries}";

/// As much as anybody reads of one part; a file may have an entry for each of ten thousand registries.
const MAX_FINDINGS: usize = 100;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub code: Code,
    /// Where it is wrong, if that is a file.
    pub file: Option<String>,
    /// What is wrong.
    pub text: String,
    /// What comes of it.
    pub why: String,
    /// For which registries, where not for all; they stand in the place of [`REGISTRIES`] in the texts.
    pub registries: Vec<String>,
    pub fix: Fix,
}

impl Finding {
    /// It is about this registry.
    pub(super) fn of(self, registry: &str) -> Self {
        Self { registries: vec![registry.to_owned()], ..self }
    }

    /// It says the same, of other registries or of the same.
    fn is_alike(&self, other: &Self) -> bool {
        (self.code, &self.file, &self.text, &self.why, &self.fix)
            == (other.code, &other.file, &other.text, &other.why, &other.fix)
            && self.registries.is_empty() == other.registries.is_empty()
    }

    /// What is wrong, for people.
    pub(super) fn text(&self) -> String {
        self.filled(&self.text)
    }

    /// What comes of it, for people.
    pub(super) fn why(&self) -> String {
        let why = self.filled(&self.why);
        let counts = self.why.contains(PAST) && self.registries.iter().any(|name| name == DOCKER_HUB);
        if counts { why + "; Docker Hub counts them by this host's address" } else { why }
    }

    fn filled(&self, text: &str) -> String {
        let names: Vec<_> = self.registries.iter().map(String::as_str).collect();
        text.replace(REGISTRIES, &listed(&names))
    }
}

/// What was found out about one part of the host.
#[derive(Clone, Debug)]
pub(super) struct Examined {
    pub part: Part,
    pub version: Option<String>,
    /// `None` for what has no daemon, for k3s and RKE2, and where this user cannot see it.
    pub runs: Option<bool>,
    /// Somebody listens for it, and does not answer or could not be asked.
    pub is_silent: bool,
    /// Where pulls of each routed registry go.
    pub ways: BTreeMap<String, Way>,
    /// By which URL the proxy is asked for a registry, where the engine's files say it; else by the mirror's.
    pub asked: BTreeMap<String, String>,
    /// Of the proxy: registries that it serves nothing of to this host, and why, a clause.
    pub unserved: BTreeMap<String, &'static str>,
    pub findings: Vec<Finding>,
    /// What is worth knowing and nobody's fault.
    pub notes: Vec<String>,
    /// Closed routes whose source the engine asks all the same, which none of its settings prevents; a note says what does.
    pub never_closed: BTreeSet<String>,
    /// Something that decides was not read, because this user may not, or cannot be.
    pub is_blind: bool,
    /// More was found than is told.
    has_more: bool,
}

impl Examined {
    pub(super) fn new(part: Part) -> Self {
        Self {
            part,
            version: None,
            runs: None,
            is_silent: false,
            ways: BTreeMap::new(),
            asked: BTreeMap::new(),
            unserved: BTreeMap::new(),
            findings: Vec::new(),
            notes: Vec::new(),
            never_closed: BTreeSet::new(),
            is_blind: false,
            has_more: false,
        }
    }

    /// The engine asks the source of these closed routes when the proxy fails. `why` is a clause with what prevents the engine from being told
    /// otherwise.
    pub(super) fn never_close(&mut self, names: &[&str], why: &str) {
        if names.is_empty() {
            return;
        }
        let hosts: Vec<&str> = names.iter().map(|name| client_config::registry_host(name)).collect();
        let is = if names.len() == 1 { "is" } else { "are" };
        self.notes.push(format!("{} {is} closed, {why}: reject {} in the firewall", listed(names), listed(&hosts)));
        self.never_closed.extend(names.iter().map(|name| (*name).to_owned()));
    }

    /// The proxy serves nothing of these registries to this host.
    pub(super) fn unserve(&mut self, registries: Vec<&str>, why: &'static str) {
        self.unserved.extend(registries.into_iter().map(|name| (name.to_owned(), why)));
    }

    /// Says the same of where pulls of all these registries go; nothing, if a file that decides it was not read.
    pub(super) fn lead_all(&mut self, registries: Vec<&str>, way: Way) {
        if self.is_blind {
            return;
        }
        self.ways.extend(registries.into_iter().map(|name| (name.to_owned(), way)));
    }

    /// What is wrong for several registries alike is one finding. A file that this user may not read is none.
    pub(super) fn find(&mut self, finding: Finding) {
        if finding.code == Code::Unreadable && finding.text == DENIED {
            self.is_blind = true;
            self.notes.push(format!("{}: {DENIED}: run doctor as root", finding.file.unwrap_or_default()));
            return;
        }
        let is_full = self.findings.len() >= MAX_FINDINGS;
        match self.findings.iter_mut().find(|known| known.is_alike(&finding)) {
            Some(known) => {
                known.registries.extend(finding.registries);
                known.registries.sort_unstable();
                known.registries.dedup();
            }
            None if !is_full => self.findings.push(finding),
            None if self.has_more => {}
            None => {
                self.has_more = true;
                self.notes.push(format!("there is more: these are the first {MAX_FINDINGS} of what was found"));
            }
        }
    }
}

/// `one`, `one and two`, `one, two and three`.
pub(super) fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_done_on_the_host_of_a_tree_is_no_command_here() {
        for (root, command, expected) in [
            (
                "/t",
                "acr-cache-proxy client-config docker --root /t --write",
                "acr-cache-proxy client-config docker --root /t --write",
            ),
            (
                "/t",
                "acr-cache-proxy client-config docker --root /t --write && systemctl reload docker",
                "acr-cache-proxy client-config docker --root /t --write  # then, on the host itself: systemctl reload docker",
            ),
            (
                "/t",
                "mv /etc/t/a /etc/t/b && acr-cache-proxy client-config docker --config /t/a.yaml --root /t --write",
                "# on the host itself: mv /etc/t/a /etc/t/b && acr-cache-proxy client-config docker --config /a.yaml --write",
            ),
            // A path in quotes was named as the tree has it.
            (
                "a tree",
                "mv /etc/a /etc/b && acr-cache-proxy check --config 'a tree/etc/a.yaml' --root 'a tree'",
                "# on the host itself: mv /etc/a /etc/b && acr-cache-proxy check --config '/etc/a.yaml'",
            ),
        ] {
            assert_eq!(Fix { command: command.to_owned(), by: None }.on_its_host(Path::new(root)).command, expected);
        }
    }

    #[test]
    fn where_systemd_runs_nothing_no_command_asks_it() {
        for (command, expected) in [
            ("write && systemctl reload docker", "write && kill -HUP $(pidof dockerd)"),
            ("write && systemctl restart k3s-agent", "write && service k3s-agent restart"),
            (
                "vi a  # b; then: systemctl daemon-reload && systemctl restart docker  # c",
                "vi a  # b; then: service docker restart  # c",
            ),
            ("check --online; journalctl --unit acr-cache-proxy.service --since -1h", "check --online"),
            ("check --online; journalctl --unit docker --since -5min", "check --online; tail /var/log/docker.log"),
            ("write", "write"),
        ] {
            assert_eq!(Fix { command: command.to_owned(), by: None }.without_systemd().command, expected);
        }
    }

    #[test]
    fn a_file_that_this_user_may_not_read_is_a_note_and_says_nothing_of_pulls() {
        for (wrong, findings, notes, ways) in [(DENIED, 0, 1, 0), ("it is not JSON, line 3", 1, 0, 1)] {
            let mut found = Examined::new(Part::Dockerd);
            found.find(Finding {
                code: Code::Unreadable,
                file: Some("/etc/docker/daemon.json".to_owned()),
                text: wrong.to_owned(),
                why: "dockerd does not start with it".to_owned(),
                registries: Vec::new(),
                fix: Fix { command: "vi".to_owned(), by: None },
            });
            found.lead_all(vec![DOCKER_HUB], Way::Nowhere);
            assert_eq!(
                (found.findings.len(), found.notes.len(), found.ways.len()),
                (findings, notes, ways),
                "{found:?}"
            );
        }
    }

    /// Each was compared with all before it, and a file of 1 MiB took half an hour.
    #[test]
    fn a_part_tells_no_more_findings_than_anybody_reads() {
        let mut found = Examined::new(Part::Buildkitd);
        for at in 0..20_000 {
            let finding = Finding {
                code: Code::Leftover,
                file: None,
                text: format!("[registry.\"r{at}\"]"),
                why: String::new(),
                registries: Vec::new(),
                fix: Fix { command: String::new(), by: None },
            };
            found.find(finding.clone());
            found.find(finding.of("ghcr.io"));
        }
        assert_eq!((found.findings.len(), found.notes.len()), (MAX_FINDINGS, 1), "{:?}", found.notes);
    }
}
