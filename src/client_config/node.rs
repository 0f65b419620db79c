//! A node of k3s or RKE2: its service, and which file of mirrors that reads.

use serde_yaml::Value;

use super::Client;
use crate::config::parse_yaml;
use crate::host::{Host, Text};
use crate::unit::Unit;

/// By which the file of mirrors is another one.
const FLAG: &str = "private-registry";
/// By which the configuration is another one; the variable of the same meaning counts more.
const CONFIG_FLAGS: [&str; 2] = ["config", "c"];
/// By which the registry itself is not asked when its mirrors fail, for all registries of the file of mirrors.
pub(crate) const SWITCH: &str = "disable-default-registry-endpoint";
/// What the program takes for yes (Go's `strconv.ParseBool`).
const YES: [&str; 6] = ["1", "t", "T", "true", "TRUE", "True"];
/// Behind a key, its value is added to that of the files before.
const APPENDS: char = '+';

/// What the two differ in.
pub(crate) struct Distribution {
    pub client: Client,
    pub name: &'static str,
    /// The usual file of mirrors.
    pub path: &'static str,
    /// Where certificates of addresses are looked for.
    pub certs_d: &'static str,
    /// The usual configuration, and the variable that names another one.
    pub config: &'static str,
    pub variable: &'static str,
    /// Of a server and of an agent.
    pub services: [&'static str; 2],
    pub restart: &'static str,
}

pub(crate) const K3S: Distribution = Distribution {
    client: Client::K3s,
    name: "k3s",
    path: "/etc/rancher/k3s/registries.yaml",
    certs_d: "/etc/rancher/k3s/certs.d",
    config: "/etc/rancher/k3s/config.yaml",
    variable: "K3S_CONFIG_FILE",
    services: ["k3s", "k3s-agent"],
    restart: "systemctl restart k3s, or k3s-agent",
};
pub(crate) const RKE2: Distribution = Distribution {
    client: Client::Rke2,
    name: "RKE2",
    path: "/etc/rancher/rke2/registries.yaml",
    certs_d: "/etc/rancher/rke2/certs.d",
    config: "/etc/rancher/rke2/config.yaml",
    variable: "RKE2_CONFIG_FILE",
    services: ["rke2-server", "rke2-agent"],
    restart: "systemctl restart rke2-server, or rke2-agent",
};

/// What is known of one.
pub(crate) struct Node {
    pub unit: Unit,
    /// What has it read its files again.
    pub restart: String,
    /// The file of its mirrors.
    pub file: Result<String, Broken>,
    /// `None` where its configuration cannot be read.
    pub source: Option<Source>,
}

/// Whether a registry itself is asked when its mirrors fail.
pub(crate) struct Source {
    pub is_asked: bool,
    /// What says so, or is to say otherwise.
    pub file: String,
}

/// A configuration that does not say which file of mirrors is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub path: String,
    /// A sentence about it.
    pub wrong: String,
}

/// Reads one; on a host without it the file is the usual one.
pub(crate) fn node(host: &Host, client: Client) -> Node {
    let distribution = if client == Client::Rke2 { &RKE2 } else { &K3S };
    let (service, restart) = service(host, distribution);
    let unit = Unit::read(host, &format!("{service}.service"));
    let configuration = Configuration::read(host, distribution, &unit);
    let file = file(distribution, &unit, configuration.as_ref());
    let source = source(&unit, configuration.as_ref());
    Node { unit, restart, file, source }
}

/// The service of this node, and what restarts it. RKE2's archive has both units, and a start of either ends the other, so the
/// one that boots counts, and where none does, what runs is restarted.
fn service(host: &Host, distribution: &Distribution) -> (&'static str, String) {
    let services = distribution.services;
    let boots = host.list("/etc/systemd/system/multi-user.target.wants").unwrap_or_default();
    let is_enabled = |name: &&str| boots.contains(&format!("{name}.service"));
    let has_unit = |name: &&str| host.has_unit(&format!("{name}.service"));
    let of = |is_it: &dyn Fn(&&str) -> bool| services.into_iter().filter(is_it).collect::<Vec<_>>();
    match (of(&is_enabled).as_slice(), of(&has_unit).as_slice()) {
        ([name], _) | ([], [name]) => (name, format!("systemctl restart {name}")),
        ([], []) => (services[0], format!("systemctl restart {}", services[0])),
        _ => (services[0], format!("systemctl try-restart {}", services.join(" "))),
    }
}

/// By its flag, else by the same key of its configuration.
fn file(
    distribution: &Distribution,
    unit: &Unit,
    configuration: Result<&Configuration, &Broken>,
) -> Result<String, Broken> {
    // Flags come after what the configuration says, and the last one counts.
    let (path, by) = match unit.flag(FLAG).pop() {
        Some(path) => (path, unit.file_of(FLAG)),
        None => match configuration.map_err(Clone::clone)?.last(FLAG)? {
            Some((path, by)) => (path, by.to_owned()),
            None => return Ok(distribution.path.to_owned()),
        },
    };
    // A relative one is below the directory of its data, which it changes to.
    match path.as_str() {
        "" => Err(Broken { path: by, wrong: format!("{FLAG} is empty") }),
        absolute if absolute.starts_with('/') => Ok(path),
        _ => Err(Broken { path: by, wrong: format!("{FLAG} is {path:?}, and not an absolute path") }),
    }
}

/// The same of the switch.
fn source(unit: &Unit, configuration: Result<&Configuration, &Broken>) -> Option<Source> {
    let is_yes = |text: &str| YES.contains(&text);
    if let Some(value) = unit.switch(SWITCH) {
        return Some(Source { is_asked: !is_yes(&value), file: unit.file_of(SWITCH) });
    }
    let configuration = configuration.ok()?;
    Some(match configuration.last(SWITCH).ok()? {
        Some((value, file)) => Source { is_asked: !is_yes(&value), file: file.to_owned() },
        None => Source { is_asked: true, file: configuration.path.clone() },
    })
}

/// The files of the configuration, in the order in which they are read: the main one, then the others by their names.
struct Configuration {
    /// Of the main one.
    path: String,
    texts: Vec<Text>,
}

impl Configuration {
    fn read(host: &Host, distribution: &Distribution, unit: &Unit) -> Result<Self, Broken> {
        let variable = unit.variable(distribution.variable).map(|(path, _)| path.clone());
        let named = variable.or_else(|| CONFIG_FLAGS.iter().find_map(|name| unit.flag(name).into_iter().next()));
        let path = named.as_deref().unwrap_or(distribution.config);
        let broken = |path: &str, wrong: String| Broken { path: path.to_owned(), wrong };
        if path.contains("://") {
            return Err(broken(path, "it is fetched over the network, which is not done here".to_owned()));
        }
        let main = host.read(path);
        let directory = format!("{path}.d");
        let names = host.list(&directory).map_err(|cause| broken(&directory, cause))?;
        let is_read = |name: &str| [".yaml", ".yml"].iter().any(|end| name.to_ascii_lowercase().ends_with(end));
        let paths = names.iter().filter(|name| is_read(name)).map(|name| format!("{directory}/{name}"));
        let paths = paths.filter(|path| !host.at(path).is_ok_and(|at| at.is_dir()));
        let more: Vec<_> = paths.filter_map(|path| host.read(&path)).collect();
        if named.is_some() && main.is_none() && more.is_empty() {
            return Err(broken(path, "it is named as the configuration, and is not there".to_owned()));
        }
        Ok(Self { path: path.to_owned(), texts: main.into_iter().chain(more).collect() })
    }

    /// The value that counts, and the file that has it. Each file replaces a key that an earlier one has, or adds to it with a plus sign; of several
    /// values the last counts (`pkg/configfilearg/parser.go` in k3s).
    fn last(&self, key: &str) -> Result<Option<(String, &str)>, Broken> {
        let mut values: Option<Vec<(String, &str)>> = None;
        for text in &self.texts {
            take(text, key, &mut values).map_err(|wrong| Broken { path: text.path.clone(), wrong })?;
        }
        Ok(values.and_then(|mut values| values.pop()))
    }
}

/// What a file says of the key.
fn take<'a>(text: &'a Text, key: &str, values: &mut Option<Vec<(String, &'a str)>>) -> Result<(), String> {
    let content = text.content.clone()?;
    let parsed: Value = parse_yaml(&content)?;
    let table = match &parsed {
        Value::Null => return Ok(()),
        Value::Mapping(table) => table,
        _ => return Err("it is not a table of YAML".to_owned()),
    };
    for (name, value) in table {
        let Some(name) = name.as_str().filter(|name| name.trim_end_matches(APPENDS) == key) else { continue };
        let all = match value {
            Value::Sequence(all) => all.iter().map(written).collect(),
            one => vec![written(one)],
        };
        let all = all.into_iter().map(|value| (value, text.path.as_str()));
        let before = values.take().filter(|_| name.ends_with(APPENDS)).unwrap_or_default();
        *values = Some(before.into_iter().chain(all).collect());
    }
    Ok(())
}

fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(is) => is.to_string(),
        _ => String::new(),
    }
}
