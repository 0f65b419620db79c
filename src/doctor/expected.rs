//! What the proxy's settings ask of engines, and the findings that several engines share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci::authority;

use super::finding::{Code, Finding, Fix, PAST, REGISTRIES, Way};
use crate::client_config::address::{Address, Here, Order, Slip};
use crate::client_config::{Client, Registry, registries};
use crate::config::{Config, Listener, Routes};
use crate::shell::{self, shell_word};

/// The proxy as engines should know it.
#[derive(Clone)]
pub(super) struct Expected<'a> {
    pub here: Here,
    pub routes: &'a Routes,
    /// Those that have routes, by name.
    pub registries: BTreeMap<&'a str, Registry>,
    /// The file of the settings.
    pub file: Option<String>,
    /// The end of a command line of this program that reads the same settings.
    pub settings: String,
    /// The same of one that knows `--mirror`.
    pub flags: String,
    /// The certificate of the listener that has TLS, if the settings have one at the mirror's port.
    pub certificate: Option<String>,
    /// The flag by which `client-config` writes below the same root.
    root: String,
    /// The tree of another host, whose files these are.
    tree: Option<PathBuf>,
    /// What to do before podman can be given the proxy's address, if that is one of IPv6, which podman takes none of.
    before_podman: Option<String>,
}

impl<'a> Expected<'a> {
    /// `file` is that of the settings, `url` the proxy's address where `--mirror` gives it, `own` names and addresses of this host.
    pub(super) fn new(config: &'a Config, file: Option<&str>, mirror: &str, is_given: bool, own: &[String]) -> Self {
        let settings = file.map(|file| format!(" --config {}", shell_word(file))).unwrap_or_default();
        let mut flags = settings.clone();
        if is_given {
            flags += &format!(" --mirror {}", shell_word(mirror));
        }
        let before_podman = before_podman(&Address::parse(mirror), file.filter(|_| !is_given));
        let certificate = certificate(config, &Address::parse(mirror));
        let (here, root, tree) = (Here::new(config, mirror, own), String::new(), None);
        Self {
            here,
            routes: config.routes(),
            registries: registries(config.routes()),
            file: file.map(str::to_owned),
            settings,
            flags,
            certificate,
            root,
            tree,
            before_podman,
        }
    }

    /// Has the commands that are shown repeat these flags of settings.
    pub(super) fn repeat(&mut self, given: &[(&str, String)]) {
        for (flag, text) in given {
            let given = format!(" --{flag} {}", shell_word(text));
            self.settings += &given;
            self.flags += &given;
        }
    }

    /// Has commands that write files write them below this root.
    pub(super) fn below(&mut self, root: &Path) {
        self.root = shell::root_flag(root);
        self.tree = Some(root.to_owned());
    }

    /// The same of a proxy that engines know by this URL.
    pub(super) fn at(&self, url: &str) -> Self {
        let mut at = self.clone();
        if url != self.here.url {
            url.clone_into(&mut at.here.url);
            at.certificate = None;
        }
        at
    }

    /// An address of the proxy's as a URL, the mirror's own as it is written.
    pub(super) fn url(&self, address: &Address, tls: bool) -> String {
        let main = Address::parse(&self.here.url);
        if main.is_at(address) && main.has_tls() == tls {
            return self.here.url.clone();
        }
        format!("{}://{}:{}", if tls { "https" } else { "http" }, address.host, address.port())
    }

    /// The files are another host's, whose proxy cannot be asked.
    pub(super) fn is_of_another_host(&self) -> bool {
        self.tree.is_some()
    }

    /// A command for a sentence, which is to be given on the host whose files these are.
    pub(super) fn on_its_host(&self, command: String) -> String {
        match &self.tree {
            Some(tree) => by_hand(command).on_its_host(tree).command.trim_start_matches("# ").to_owned(),
            None => command,
        }
    }

    /// The names of all routed registries.
    pub(super) fn names(&self) -> Vec<&'a str> {
        self.registries.keys().copied().collect()
    }

    /// Whether a route of this registry is closed, so that its source is not to be asked.
    pub(super) fn is_closed(&self, registry: &str) -> bool {
        self.registries.get(registry).is_some_and(|routed| routed.closed)
    }

    /// Where pulls of this registry go if the engine cannot ask the proxy, which it is configured to ask.
    pub(super) fn way_without_proxy(&self, registry: &str) -> Way {
        if self.is_closed(registry) { Way::Nowhere } else { Way::Source }
    }

    /// Whether requests that name no registry, and come by this host name, are for this one.
    pub(super) fn is_meant(&self, registry: &str, address: &Address) -> bool {
        let named =
            self.routes.iter().filter(|route| route.source.registry() == registry).flat_map(|route| &route.hosts);
        let by_name = named.into_iter().any(|name| authority::split(name).0.eq_ignore_ascii_case(&address.host));
        by_name || self.routes.default_registry() == Some(registry)
    }

    /// Has `client-config` write the files of a client, and the engine take them.
    pub(super) fn write(&self, client: Client, then: &str) -> Fix {
        self.client_config(client, "", then)
    }

    /// The same where somebody else's file has the place, which client-config leaves alone: it gets another name first.
    pub(super) fn beside(&self, file: &str, client: Client, then: &str) -> Fix {
        let write = self.write(client, then);
        if write.by.is_none() { write } else { by_hand(format!("{} && {}", aside(file), write.command)) }
    }

    /// The same, and what no route needs any more goes.
    pub(super) fn prune(&self, client: Client, then: &str) -> Fix {
        self.client_config(client, " --prune", then)
    }

    fn client_config(&self, client: Client, prune: &str, then: &str) -> Fix {
        if let (Client::Podman, Some(command)) = (client, &self.before_podman) {
            return by_hand(command);
        }
        // A file that others may have something in as well is added to.
        let merge = matches!(client, Client::Docker | Client::Buildkit | Client::K3s | Client::Rke2);
        let merge = if merge { " --merge" } else { "" };
        let (name, flags, root) = (client.name(), &self.flags, &self.root);
        Fix {
            command: format!("acr-cache-proxy client-config {name}{flags}{root} --write{merge}{prune}{then}"),
            by: Some(client),
        }
    }
}

/// The file of the certificate that a listener shows who comes to this address.
fn certificate(config: &Config, mirror: &Address) -> Option<String> {
    let is_there =
        |listener: &&Listener| listener.endpoint.address().is_some_and(|address| address.port() == mirror.port());
    let tls = config.listeners().iter().find(is_there)?.tls.as_ref()?;
    Some(tls.certificate.display().to_string())
}

/// Another listener in `file`, or a name for an address that no file of settings says. A run of doctor after that has the rest.
fn before_podman(address: &Address, file: Option<&str>) -> Option<String> {
    let ip = authority::ip(&address.host).filter(|ip| ip.is_ipv6())?;
    let (host, port) = (&address.host, address.port());
    Some(match file {
        Some(file) => format!(
            "${{EDITOR:-vi}} {} && acr-cache-proxy reload  # podman takes no IPv6 address: listen: [{{address: '{host}:{port}'}}, {{address: '127.0.0.1:{port}'}}]",
            shell_word(file)
        ),
        None => format!(
            "getent hosts {ip}  # podman takes no IPv6 address: a name of it goes into --mirror, as http://NAME:{port}"
        ),
    })
}

/// Gives a file a name by which no engine knows it, and takes that name from no other file: two findings may have this for one file.
pub(super) fn aside(file: &str) -> String {
    format!("mv -n {} {}", shell_word(file), shell_word(&format!("{file}.old")))
}

/// Puts a file in its place. What is there already is kept, by a name that no engine reads as a certificate.
pub(super) const INSTALL: &str = "install -D --backup=numbered";

/// Takes the byte order mark out that a file begins with.
pub(super) fn without_mark(file: &str) -> String {
    format!("sed -i '1s/^\\xef\\xbb\\xbf//' {}", shell_word(file))
}

/// A file is edited, and the engine takes it.
pub(super) fn edit(file: &str, then: &str) -> Fix {
    by_hand(format!("${{EDITOR:-vi}} {}{then}", shell_word(file)))
}

/// What a fix is besides a run of `client-config`.
pub(super) fn by_hand(command: impl Into<String>) -> Fix {
    Fix { command: command.into(), by: None }
}

/// What is wrong with a list of addresses for a registry; `None` if the proxy is the first of them. `key` names the list in its
/// file; `fix` makes it right.
pub(super) fn misplaced(here: &Here, order: Order<'_>, list: &List<'_>, fix: Fix) -> Option<Finding> {
    let List { file, key, registry, is_there } = list;
    let (code, text) = match order {
        Order::First(_) => return None,
        Order::Behind(ours, first) => {
            let why = format!("the proxy only gets the pulls of {REGISTRIES} that fail at {first}");
            return Some(Finding {
                registries: vec![(*registry).to_owned()],
                code: Code::Order,
                file: Some((*file).to_owned()),
                text: format!("{key} has {first} before {ours}"),
                why,
                fix,
            });
        }
        Order::Slip(address, slip) => {
            let url = &here.url;
            let differs = match slip {
                Slip::Port => format!("the proxy is at {url}: the port differs"),
                Slip::Host => format!("the proxy is at {url}: the host is misspelt"),
                Slip::Scheme => format!("the proxy is at {url}: one has TLS and the other has not"),
                Slip::Case => format!("the proxy is at {url}: the scheme has to be in small letters"),
            };
            (Code::Address, format!("{key} has {address}, and {differs}"))
        }
        Order::Absent if *is_there => (Code::NoMirror, format!("{key} lacks the proxy, {}", here.url)),
        Order::Absent => (Code::NoMirror, format!("it is not there, so the proxy, {}, is not in {key}", here.url)),
    };
    Some(
        Finding { registries: Vec::new(), code, file: Some((*file).to_owned()), text, why: PAST.to_owned(), fix }
            .of(registry),
    )
}

/// A list of addresses in a file.
pub(super) struct List<'a> {
    pub file: &'a str,
    pub key: &'a str,
    pub registry: &'a str,
    /// So is the file.
    pub is_there: bool,
}

/// What is wrong with an address of the proxy's that a client does not take as it is written. `scheme` is whether it has to have one.
pub(super) fn with_path(address: &Address, list: &List<'_>, scheme: bool, why: String, fix: Fix) -> Finding {
    let wrong = match (scheme, address.has_scheme()) {
        _ if address.has_user() => "an address here has no user and no password",
        (true, false) => "an address here begins with http:// or https://",
        (false, true) => "an address here has no scheme before its host",
        _ => "an address here has nothing behind its host and port",
    };
    let text = format!("{} has {address}: {wrong}", list.key);
    Finding { registries: Vec::new(), code: Code::Path, file: Some(list.file.to_owned()), text, why, fix }
        .of(list.registry)
}

/// A file that cannot be read.
pub(super) fn unreadable(file: &str, wrong: &str, why: &str) -> Finding {
    Finding {
        registries: Vec::new(),
        code: Code::Unreadable,
        file: Some(file.to_owned()),
        text: wrong.to_owned(),
        why: why.to_owned(),
        fix: edit(file, ""),
    }
}

/// A file, or an entry of one, that sends a registry without a route to the proxy.
pub(super) fn leftover(file: &str, registry: &str, fix: Fix) -> Finding {
    Finding {
        registries: Vec::new(),
        code: Code::Leftover,
        file: Some(file.to_owned()),
        text: format!("it sends {registry} to the proxy, which has no route for it"),
        why: format!(
            "each pull of {registry} is refused by the proxy first, with 404, and fails if nobody else may be asked"
        ),
        fix,
    }
}
