//! `hosts.toml`, which containerd and dockerd read: which hosts are asked for a registry, in which order, for what.

use toml::Table;

use super::expected::{Expected, List, aside, by_hand, edit, misplaced, unreadable, with_path, without_mark};
use super::finding::{Code, Finding, Fix, PAST, REGISTRIES, Way};
use crate::client_config::address::{Address, Here, Slip, Verdict, order};
use crate::client_config::carries_marker;
use crate::client_config::certificates::beside;
use crate::client_config::hosts_toml::fault::fault;
use crate::client_config::hosts_toml::{Entry, Hosts, named, strings};
use crate::client_config::text::{self, MARK};
use crate::host::{CERTIFICATE, DENIED, Host, PEM, Text};

pub(super) use crate::client_config::hosts_toml::fault::Reader;

/// For registries without a directory.
const DEFAULT: &str = "_default";
/// In place of all directories, where nobody can say which there are. None has this name.
const ANY: &str = "";

/// One directory of a directory of registries.
pub(super) struct Directory {
    /// As it is called.
    pub name: String,
    file: Text,
    /// Without the file it counts all the same, and leads to the registry itself.
    has_file: bool,
    /// The file is a directory, which is not the same as none: no pull gets through.
    is_directory: bool,
    /// A certificate that the file names and that cannot be loaded, and why. No pull gets through then.
    unusable: Option<(String, String)>,
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

/// Every directory of a registry below a directory.
pub(super) fn read(host: &Host, certs: &str) -> Vec<Directory> {
    let directory = |name: String| {
        let path = format!("{certs}/{name}/hosts.toml");
        let file = host.read(&path);
        let has_file = file.is_some();
        let file = file.unwrap_or_else(|| Text { path, content: Ok(String::new()) });
        let unusable =
            file.content.as_ref().ok().and_then(|content| unusable(host, &format!("{certs}/{name}"), content));
        let is_directory = host.at(&file.path).is_ok_and(|at| at.is_dir());
        Directory { name, file, has_file, is_directory, unusable }
    };
    match host.list(certs) {
        Ok(names) => names.into_iter().map(directory).collect(),
        Err(cause) => {
            let file = Text { path: certs.to_owned(), content: Err(cause) };
            vec![Directory { name: ANY.to_owned(), file, has_file: true, is_directory: false, unusable: None }]
        }
    }
}

/// The first file of a certificate or a key that a `hosts.toml` names and that cannot be loaded. One that whoever runs this may not read
/// is not judged.
fn unusable(host: &Host, directory: &str, content: &str) -> Option<(String, String)> {
    let table = text::toml(content).ok()?;
    let hosts = text::entries(&table, "host").into_iter().map(|(_, host)| host);
    for settings in hosts.chain([&table]) {
        let texts = |key: &str| strings(settings.get(key));
        let authorities = texts("ca").into_iter().map(|path| (path, CERTIFICATE, "it has no certificate"));
        // A certificate, its key, or both.
        let clients = texts("client").into_iter().map(|path| (path, PEM, "it is not PEM"));
        for (path, begin, lacks) in authorities.chain(clients) {
            let path = beside(directory, &path);
            let wrong = match host.has_pem(&path, begin) {
                None => "it is not there".to_owned(),
                Some(Err(wrong)) if wrong == DENIED => continue,
                Some(Err(wrong)) => wrong,
                Some(Ok(false)) => lacks.to_owned(),
                Some(Ok(true)) => continue,
            };
            return Some((path, wrong));
        }
    }
    None
}

/// The files of authorities that the `hosts.toml` of a registry below `certs` names for the proxy, of a closed one also as its server,
/// which comes last; `None` where the certificate is not verified.
pub(super) fn authorities(
    expected: &Expected<'_>,
    (certs, directories): (&str, &[Directory]),
    registry: &str,
) -> Option<Vec<String>> {
    let Some((directory, host, table)) = asked(expected, directories, registry) else { return Some(Vec::new()) };
    let server = (expected.is_closed(registry) || host.is_none()).then_some(&table);
    let asked: Vec<_> = host.as_ref().into_iter().chain(server).collect();
    if asked.iter().any(|settings| text::is_set(settings, "skip_verify")) {
        return None;
    }
    let named = asked.into_iter().flat_map(|settings| named(settings).ca);
    Some(named.map(|path| of_path(certs, directory, &path)).collect())
}

/// The certificates of clients, and their keys, that the `hosts.toml` of a registry below `certs` names for the proxy.
pub(super) fn clients(
    expected: &Expected<'_>,
    (certs, directories): (&str, &[Directory]),
    registry: &str,
) -> Vec<(String, Option<String>)> {
    let Some((directory, host, table)) = asked(expected, directories, registry) else { return Vec::new() };
    let path = |path: String| of_path(certs, directory, &path);
    let pairs = named(host.as_ref().unwrap_or(&table)).client.into_iter();
    pairs.map(|(certificate, key)| (path(certificate), key.map(path))).collect()
}

/// The directory that counts for a registry, what its file says of the proxy, and all that it says.
fn asked<'a>(
    expected: &Expected<'_>,
    directories: &'a [Directory],
    registry: &str,
) -> Option<(&'a Directory, Option<Table>, Table)> {
    let directory = of(directories, registry)?;
    let table = directory.file.content.as_ref().ok().and_then(|content| text::toml(content).ok()).unwrap_or_default();
    let is_ours = |url: &str| expected.here.judge(&Address::parse(url).or_tls(true)) == Verdict::Ours;
    let host = text::entries(&table, "host").into_iter().find_map(|(url, host)| is_ours(url).then(|| host.clone()));
    Some((directory, host, table))
}

/// By which URL the file of this directory has the proxy asked.
pub(super) fn url(expected: &Expected<'_>, directory: &Directory) -> Option<String> {
    let hosts = Hosts::parse(directory.file.content.as_ref().ok()?).ok()?;
    let named = hosts.addresses().into_iter().find(|address| expected.here.judge(address) == Verdict::Ours)?;
    Some(expected.url(&named, named.has_tls()))
}

/// A path that a file of this directory names.
fn of_path(certs: &str, directory: &Directory, path: &str) -> String {
    beside(&format!("{certs}/{}", directory.name), path)
}

/// Whether one of these directories has a file.
pub(super) fn have_files(directories: &[Directory]) -> bool {
    directories.iter().any(|directory| directory.has_file)
}

/// The file that counts for a registry, as containerd and dockerd look for it.
pub(super) fn of<'a>(directories: &'a [Directory], registry: &str) -> Option<&'a Directory> {
    counting(directories, registry).filter(|directory| directory.has_file)
}

/// The first directory that is there counts, with a file or without one.
fn counting<'a>(directories: &'a [Directory], registry: &str) -> Option<&'a Directory> {
    let with_port = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    let names = [with_port.as_deref(), Some(registry), Some(DEFAULT), Some(ANY)];
    names.into_iter().flatten().find_map(|name| directories.iter().find(|directory| directory.name == name))
}

/// What is wrong where [`of`] finds no file for a registry below `certs`.
pub(super) fn missing(directories: &[Directory], certs: &str, here: &Here, registry: &str, fix: Fix) -> Finding {
    let is_default = |directory: &&Directory| directory.name == DEFAULT && is_ours(here, directory);
    let hides = counting(directories, registry).zip(directories.iter().find(is_default));
    let (code, file, text) = match hides {
        Some((empty, _)) => (
            Code::Hidden,
            format!("{certs}/{}", empty.name),
            format!("it has no hosts.toml, and is looked into in place of {DEFAULT}"),
        ),
        None => (Code::NoMirror, certs.to_owned(), format!("there is no hosts.toml for {REGISTRIES}")),
    };
    let finding = Finding { code, file: Some(file), text, why: PAST.to_owned(), registries: Vec::new(), fix };
    finding.of(registry)
}

/// The registry that a directory of this name is for.
pub(super) fn registry(name: &str) -> String {
    match name.strip_suffix('_').and_then(|rest| rest.rsplit_once('_')) {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => format!("{host}:{port}"),
        _ => name.to_owned(),
    }
}

/// Whether a file names the proxy, or carries the mark of `client-config`.
pub(super) fn is_ours(here: &Here, directory: &Directory) -> bool {
    let Ok(content) = &directory.file.content else { return false };
    let Ok(hosts) = Hosts::parse(content) else { return carries_marker(content) };
    carries_marker(content) || hosts.addresses().iter().any(|address| here.judge(address) == Verdict::Ours)
}

/// Whether client-config leaves it alone, because it did not write it.
pub(super) fn is_foreign(directory: &Directory) -> bool {
    !directory.file.content.as_ref().is_ok_and(|content| carries_marker(content))
}

/// What is wrong with the file of a registry that has routes, and where its pulls go.
pub(super) fn judge(
    expected: &Expected<'_>,
    registry: &str,
    directory: &Directory,
    reader: Reader<'_>,
    fix: &Fix,
) -> (Way, Vec<Finding>) {
    let (file, engine) = (directory.path(), reader.name);
    let hosts = match understood(registry, directory, reader, fix) {
        Ok(hosts) => hosts,
        Err((way, finding)) => return (way, vec![*finding]),
    };
    let beside = || by_hand(format!("{} && {}", aside(file), fix.command));
    let fix = if is_foreign(directory) && fix.by.is_some() { &beside() } else { fix };
    let here = &expected.here;
    let addresses = hosts.addresses();
    let list = List { file, key: "the list of hosts", registry, is_there: true };
    if let Some(mut finding) = misplaced(here, order(here, &addresses), &list, fix.clone()) {
        let way = way_by(here, &addresses, hosts.server.is_some());
        if way == Way::Nowhere {
            finding.why = format!("it names nobody else, so every pull of {registry} fails");
        }
        return (way, vec![finding]);
    }
    let mut findings = Vec::new();
    if let Some(entry) = hosts.entries.first() {
        findings.extend(asks_elsewhere(entry, &list, engine, fix));
        findings.extend(unable(entry, file, registry, engine, fix));
    }
    let way = match addresses.get(1..) {
        Some(others) if !findings.is_empty() => way_by(here, others, hosts.server.is_some()),
        _ => Way::Proxy,
    };
    for finding in &mut findings {
        finding.why = match way {
            Way::Proxy => format!(
                "this address gives nothing, and pulls of {registry} come to the proxy by the next one in the file"
            ),
            Way::Nowhere => format!("it names nobody else, so every pull of {registry} fails"),
            Way::Source => continue,
        };
    }
    findings.extend(of_next(hosts.next(here, registry), expected.is_closed(registry), &list, engine, fix));
    (way, findings)
}

/// What the file says, if the engine takes it; else where pulls go, and what is wrong.
fn understood(
    registry: &str,
    directory: &Directory,
    reader: Reader<'_>,
    fix: &Fix,
) -> Result<Hosts, (Way, Box<Finding>)> {
    let (file, engine) = (directory.path(), reader.name);
    let ignored = format!("{engine} takes the file for none, and pulls of {registry} go past the proxy in silence");
    if let Some(wrong) = directory.file.content.as_ref().err().filter(|_| directory.is_directory) {
        let why = format!("{engine} cannot read it, and every pull of {registry} fails");
        let write = fix.by.map_or_else(String::new, |_| format!(" && {}", fix.command));
        let finding = Finding { fix: by_hand(aside(file) + &write), ..unreadable(file, wrong, &why) };
        return Err((Way::Nowhere, Box::new(finding)));
    }
    let parsed = directory.file.content.clone().and_then(|content| match fault(&content, reader) {
        Some(wrong) => Err(wrong),
        None => Hosts::parse(&content),
    });
    let hosts = match parsed {
        Ok(hosts) => hosts,
        Err(wrong) => {
            let is_marked = directory.file.content.as_ref().is_ok_and(|content| content.starts_with(MARK));
            let mut finding = unreadable(file, &wrong, &ignored);
            if is_marked {
                finding.fix = by_hand(without_mark(file));
            }
            return Err((Way::Source, Box::new(finding)));
        }
    };
    if let Some((path, wrong)) = &directory.unusable {
        let finding = Finding {
            registries: vec![registry.to_owned()],
            code: Code::Unreadable,
            file: Some(file.to_owned()),
            text: format!("it names {path}: {wrong}"),
            why: format!("{engine} loads the certificates of all hosts first, so every pull of {REGISTRIES} fails"),
            fix: edit(file, ""),
        };
        return Err((Way::Nowhere, Box::new(finding)));
    }
    Ok(hosts)
}

/// Who is asked after the proxy is not as the route has it.
fn of_next(next: Option<String>, is_closed: bool, list: &List<'_>, engine: &str, fix: &Fix) -> Option<Finding> {
    let registry = list.registry;
    let (code, text, why) = match (is_closed, next) {
        (true, Some(next)) => (
            Code::NotClosed,
            format!("after the proxy it names {next}, and the route is on_failure: closed"),
            format!("when a pull of {registry} fails at the proxy, {engine} goes to the source all the same"),
        ),
        (false, None) => (
            Code::NoFallback,
            "it names nobody but the proxy, and the route is on_failure: fallback".to_owned(),
            format!("while the proxy is down, pulls of {registry} fail that the source would answer"),
        ),
        (true, None) | (false, Some(_)) => return None,
    };
    Some(Finding { registries: Vec::new(), code, file: Some(list.file.to_owned()), text, why, fix: fix.clone() })
}

/// Where pulls go by a list of addresses, those that lead nowhere left out. A file without a `server` has the registry itself behind them.
fn way_by(here: &Here, addresses: &[Address], has_server: bool) -> Way {
    let leads = addresses.iter().find_map(|address| match here.judge(address) {
        Verdict::Ours => Some(if address.is_bare() { Way::Proxy } else { Way::Source }),
        // A file with a scheme that nobody knows is perhaps not read.
        Verdict::Other | Verdict::Slip(Slip::Case) => Some(Way::Source),
        Verdict::Slip(Slip::Port | Slip::Host | Slip::Scheme) => None,
    });
    leads.unwrap_or(if has_server { Way::Nowhere } else { Way::Source })
}

/// The proxy is asked for another path than its own.
fn asks_elsewhere(entry: &Entry, list: &List<'_>, engine: &str, fix: &Fix) -> Option<Finding> {
    let (address, registry) = (&entry.address, list.registry);
    if entry.is_asked_right(registry) {
        return None;
    }
    let why =
        format!("{engine} asks the proxy for another path than /v2/, gets 404, and goes to the source of {registry}");
    Some(match entry.override_path && address.path.is_empty() {
        true => Finding {
            registries: Vec::new(),
            code: Code::Path,
            file: Some(list.file.to_owned()),
            text: format!("{address} has override_path = true, so no /v2 is put behind it"),
            why,
            fix: fix.clone(),
        },
        false => with_path(address, list, true, why, fix.clone()),
    })
}

/// What the proxy may not be asked for.
fn unable(entry: &Entry, file: &str, registry: &str, engine: &str, fix: &Fix) -> Option<Finding> {
    let missing = entry.lacks();
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

/// Whether pulls of a registry go to the proxy by this file.
pub(super) fn leads_here(expected: &Expected<'_>, registry: &str, directory: &Directory, reader: Reader<'_>) -> bool {
    let (way, _) = judge(expected, registry, directory, reader, &edit(directory.path(), ""));
    way == Way::Proxy
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directories(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Vec<Directory>) {
        let root = tempfile::tempdir().expect("a directory");
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            std::fs::write(path, content).expect("written");
        }
        let directories = read(&Host::new(root.path().to_owned()), "/certs");
        (root, directories)
    }

    /// As containerd 1.6 and 2.1 have shown: the directory counts, and it leads to the registry itself.
    #[test]
    fn a_directory_without_a_file_hides_that_of_all_others() {
        let (_root, all) = directories(&[("certs/_default/hosts.toml", b""), ("certs/docker.io/ca.key", b"")]);
        let of = |name: &str| of(&all, name).map(|directory| directory.name.as_str());
        assert_eq!((of("docker.io"), of("ghcr.io")), (None, Some("_default")));
    }

    #[test]
    fn certificates_that_are_named_are_loaded_before_anybody_is_asked() {
        const CA: &[u8] = b"-----BEGIN CERTIFICATE-----\n";
        // In Latin-1, for which every pull was said to fail. Go takes it.
        const OLD: &[u8] = b"# M\xfcller\n-----BEGIN CERTIFICATE-----\n";
        const DER: &[u8] = b"\x30\x82\x03\xff";
        for (content, unusable) in [
            ("[host.\"http://a\"]\nca = \"/certs/a/ca.pem\"\n", None),
            ("[host.\"http://a\"]\nca = \"ca.pem\"\n", None),
            ("[host.\"http://a\"]\nca = [\"ca.pem\", \"none.pem\"]\n", Some(("/certs/a/none.pem", "it is not there"))),
            ("ca = \"/nonexist.pem\"\n", Some(("/nonexist.pem", "it is not there"))),
            ("ca = \"hosts.toml\"\n", Some(("/certs/a/hosts.toml", "it has no certificate"))),
            ("client = [[\"ca.pem\", \"none.key\"]]\n", Some(("/certs/a/none.key", "it is not there"))),
            ("ca = \"old.pem\"\nclient = \"old.pem\"\n", None),
            ("ca = \"der.crt\"\n", Some(("/certs/a/der.crt", "it has no certificate"))),
            ("client = \"der.crt\"\n", Some(("/certs/a/der.crt", "it is not PEM"))),
        ] {
            let (_root, all) = directories(&[
                ("certs/a/hosts.toml", content.as_bytes()),
                ("certs/a/ca.pem", CA),
                ("certs/a/old.pem", OLD),
                ("certs/a/der.crt", DER),
            ]);
            let found = all.first().and_then(|one| one.unusable.as_ref());
            assert_eq!(found.map(|(path, wrong)| (path.as_str(), wrong.as_str())), unusable, "{content}");
        }
    }
}
