//! `hosts.toml`, which containerd and dockerd read: which hosts are asked for a registry, in which order, for what.

use super::expected::{Expected, List, aside, by_hand, misplaced, unreadable, with_path};
use super::finding::{Code, Finding, Fix};
use super::text;
use crate::client_config::address::{Address, Here, Order, Verdict, order};
use crate::client_config::carries_marker;
use crate::host::{DENIED, Host, Text};

/// In place of all directories, where nobody can say which there are. None has this name.
const ANY: &str = "";

/// One directory of a directory of registries.
pub(super) struct Directory {
    /// As it is called.
    pub name: String,
    file: Text,
}

impl Directory {
    pub(super) fn path(&self) -> &str {
        &self.file.path
    }

    /// This user may not read it, so nothing is known of where it leads.
    pub(super) fn is_denied(&self) -> bool {
        self.file.content.as_ref().is_err_and(|wrong| wrong == DENIED)
    }
}

/// Every `hosts.toml` below a directory.
pub(super) fn read(host: &Host, certs: &str) -> Vec<Directory> {
    match host.list(certs) {
        Ok(names) => names
            .into_iter()
            .filter_map(|name| Some(Directory { file: host.read(&format!("{certs}/{name}/hosts.toml"))?, name }))
            .collect(),
        Err(cause) => {
            vec![Directory { name: ANY.to_owned(), file: Text { path: certs.to_owned(), content: Err(cause) } }]
        }
    }
}

/// The one that counts for a registry, as containerd and dockerd look for it.
pub(super) fn of<'a>(directories: &'a [Directory], registry: &str) -> Option<&'a Directory> {
    let with_port = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    let names = [with_port.as_deref(), Some(registry), Some("_default"), Some(ANY)];
    names.into_iter().flatten().find_map(|name| directories.iter().find(|directory| directory.name == name))
}

/// Whether a name of a directory is that of some registry.
pub(super) fn registry(name: &str) -> String {
    match name.strip_suffix('_').and_then(|rest| rest.rsplit_once('_')) {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => format!("{host}:{port}"),
        _ => name.to_owned(),
    }
}

/// A host of a file.
struct Entry {
    address: Address,
    capabilities: Option<Vec<String>>,
    override_path: bool,
}

struct Parsed {
    entries: Vec<Entry>,
    server: Option<Address>,
}

fn parse(content: &str) -> Result<Parsed, String> {
    let table = text::toml(content)?;
    let entries = text::entries(&table, "host").into_iter().map(|(url, host)| Entry {
        address: Address::parse(url).or_tls(true),
        capabilities: text::texts(host, "capabilities"),
        override_path: text::is_set(host, "override_path"),
    });
    let server = text::text(&table, "server").map(|url| Address::parse(url).or_tls(true));
    Ok(Parsed { entries: entries.collect(), server })
}

/// Whether a file names the proxy, or carries the mark of `client-config`.
pub(super) fn is_ours(here: &Here, directory: &Directory) -> bool {
    let Ok(content) = &directory.file.content else { return false };
    let Ok(Parsed { entries, server }) = parse(content) else { return carries_marker(content) };
    let addresses = entries.iter().map(|entry| &entry.address).chain(&server);
    carries_marker(content) || addresses.into_iter().any(|address| here.judge(address) == Verdict::Ours)
}

/// Whether client-config leaves it alone, because it did not write it.
pub(super) fn is_foreign(directory: &Directory) -> bool {
    !directory.file.content.as_ref().is_ok_and(|content| carries_marker(content))
}

/// What is wrong with the file of a registry that has routes. `engine` is who reads it.
pub(super) fn judge(
    expected: &Expected<'_>,
    registry: &str,
    directory: &Directory,
    engine: &str,
    fix: &Fix,
) -> Vec<Finding> {
    let file = directory.path();
    let ignored = format!("{engine} takes the file for none, and pulls of {registry} go past the proxy in silence");
    let parsed = directory.file.content.clone().and_then(|content| parse(&content));
    let Parsed { entries, server } = match parsed {
        Ok(parsed) => parsed,
        Err(wrong) => return vec![unreadable(file, &wrong, &ignored)],
    };
    let beside = || by_hand(format!("{} && {}", aside(file), fix.command));
    let fix = if is_foreign(directory) && fix.by.is_some() { &beside() } else { fix };
    let here = &expected.here;
    let addresses: Vec<_> = entries.iter().map(|entry| entry.address.clone()).chain(server.clone()).collect();
    let list = List { file, key: "the list of hosts", registry };
    if let Some(finding) = misplaced(here, order(here, &addresses), &list, fix.clone()) {
        return vec![finding];
    }
    let mut findings = Vec::new();
    if let Some(entry) = entries.first() {
        let is_whole = entry.override_path && entry.address.path.starts_with("/v2");
        if !entry.address.is_bare() && !is_whole {
            let why = format!(
                "{engine} asks the proxy for another path than /v2/, gets 404, and goes to the source of {registry}"
            );
            findings.push(with_path(&entry.address, &list, true, why, fix.clone()));
        }
        findings.extend(unable(entry, file, registry, engine, fix));
    }
    let is_ours = |address: &Address| here.judge(address) == Verdict::Ours;
    let routed = expected.registries.get(registry).copied().unwrap_or_default();
    let others = addresses.iter().filter(|address| !is_ours(address)).count() + usize::from(server.is_none());
    if routed.closed && others > 0 {
        let next = addresses.iter().find(|address| !is_ours(address)).map(ToString::to_string);
        let next = next.unwrap_or_else(|| format!("{registry} itself, because there is no server"));
        findings.push(Finding {
            registries: Vec::new(),
            code: Code::NotClosed,
            file: Some(file.to_owned()),
            text: format!("after the proxy it names {next}, and the route is on_failure: closed"),
            why: format!("when a pull of {registry} fails at the proxy, {engine} goes to the source all the same"),
            fix: fix.clone(),
        });
    } else if !routed.closed && others == 0 {
        findings.push(Finding {
            registries: Vec::new(),
            code: Code::NoFallback,
            file: Some(file.to_owned()),
            text: "it names nobody but the proxy, and the route is on_failure: fallback".to_owned(),
            why: format!("while the proxy is down, pulls of {registry} fail that the source would answer"),
            fix: fix.clone(),
        });
    }
    findings
}

/// What the proxy may not be asked for.
fn unable(entry: &Entry, file: &str, registry: &str, engine: &str, fix: &Fix) -> Option<Finding> {
    let capabilities = entry.capabilities.as_ref()?;
    let missing: Vec<_> =
        ["pull", "resolve"].into_iter().filter(|needed| !capabilities.iter().any(|has| has == needed)).collect();
    let what = match missing.as_slice() {
        [] => return None,
        ["resolve"] => "tags",
        _ => "layers and manifests",
    };
    Some(Finding {
        registries: Vec::new(),
        code: Code::Capabilities,
        file: Some(file.to_owned()),
        text: format!("the proxy's capabilities lack {}", super::finding::listed(&missing)),
        why: format!("{engine} asks the source of {registry} for {what} instead"),
        fix: fix.clone(),
    })
}

/// Whether the proxy is the first that is asked, by this file.
pub(super) fn leads_here(here: &Here, directory: &Directory) -> bool {
    let Ok(Ok(Parsed { entries, server })) = directory.file.content.as_ref().map(|content| parse(content)) else {
        return false;
    };
    let addresses: Vec<_> = entries.into_iter().map(|entry| entry.address).chain(server).collect();
    matches!(order(here, &addresses), Order::First(_))
}
