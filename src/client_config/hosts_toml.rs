//! What a `hosts.toml` says, whoever wrote it: which hosts containerd and dockerd ask for a registry, in which order, for what.

pub(crate) mod fault;

use toml::{Table, Value};

use super::address::{Address, Here, Order, Verdict, order};
use super::certificates::Certificates;
use super::{Mirror, text};
use fault::{Reader, fault};

/// What the proxy has to be asked for.
const NEEDED: [&str; 2] = ["pull", "resolve"];

/// A file.
pub(crate) struct Hosts {
    pub entries: Vec<Entry>,
    pub server: Option<Address>,
}

/// A host of a file.
pub(crate) struct Entry {
    pub address: Address,
    capabilities: Option<Vec<String>>,
    pub override_path: bool,
}

impl Hosts {
    /// The error says what is wrong, and quotes nothing of the file.
    pub(crate) fn parse(content: &str) -> Result<Self, String> {
        let table = text::toml(content)?;
        let entries = text::entries(&table, "host").into_iter().map(|(url, host)| Entry {
            address: Address::parse(url).or_tls(true),
            capabilities: text::texts(host, "capabilities"),
            override_path: text::is_set(host, "override_path"),
        });
        let server = text::text(&table, "server").map(|url| Address::parse(url).or_tls(true));
        Ok(Self { entries: entries.collect(), server })
    }

    /// All that are asked, in their order.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        self.entries.iter().map(|entry| &entry.address).chain(&self.server).cloned().collect()
    }

    /// Who is asked when the proxy fails, for sentences.
    pub(crate) fn next(&self, here: &Here, registry: &str) -> Option<String> {
        let next = self.addresses().into_iter().find(|address| here.judge(address) != Verdict::Ours);
        let itself = || format!("{registry} itself, because there is no server");
        next.map(|address| address.to_string()).or_else(|| self.server.is_none().then(itself))
    }
}

impl Entry {
    /// Whether the proxy, if it is this one, is asked for the path that it knows the registry by.
    pub(crate) fn is_asked_right(&self, registry: &str) -> bool {
        let api = self.address.api(self.override_path);
        // The proxy knows by the path whose image is meant, too.
        api == "/v2" || api.strip_prefix("/v2/") == Some(registry)
    }

    /// What it may not be asked for and has to be.
    pub(crate) fn lacks(&self) -> Vec<&'static str> {
        let Some(capabilities) = self.capabilities.as_ref().filter(|all| !all.is_empty()) else { return Vec::new() };
        let has = |needed: &str| capabilities.iter().any(|has| has.eq_ignore_ascii_case(needed));
        NEEDED.into_iter().filter(|needed| !has(needed)).collect()
    }
}

/// Which certificates a file names for the mirror.
pub(super) fn certificates(content: &str, mirror: &Mirror) -> Certificates {
    let file = text::toml(content).unwrap_or_default();
    let is_it = |url: &str| url.trim_end_matches('/') == mirror.url();
    let Some((_, host)) = text::entries(&file, "host").into_iter().find(|(url, _)| is_it(url)) else {
        return Certificates::default();
    };
    named(host)
}

/// Which certificates the table of a host, or a whole file about its `server`, names.
pub(crate) fn named(host: &Table) -> Certificates {
    let pairs = match host.get("client") {
        Some(Value::Array(pairs)) => pairs.as_slice(),
        Some(both) => std::slice::from_ref(both),
        None => &[],
    };
    let pair = |one: &Value| {
        let mut files = strings(Some(one)).into_iter();
        Some((files.next()?, files.next()))
    };
    Certificates { ca: strings(host.get("ca")), client: pairs.iter().filter_map(pair).collect() }
}

/// The texts of a value that is one, or a list, or a list of lists.
pub(crate) fn strings(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(all)) => all.iter().flat_map(|one| strings(Some(one))).collect(),
        _ => Vec::new(),
    }
}

/// Whether two files say the same, with the hosts in the same order.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    let (Ok(one), Ok(other)) = (text::toml(one), text::toml(other)) else { return false };
    let hosts = |table| text::entries(table, "host").into_iter().map(|(url, _)| url);
    one == other && hosts(&one).eq(hosts(&other))
}

/// What the file of a registry is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub registry: String,
    /// Nobody but the proxy is to be asked.
    pub is_closed: bool,
}

impl Wanted {
    /// Whether a file says it, in whatever words: it is understood, the proxy is asked first and for all that it has to be, and the source
    /// after it or not, as the route has it.
    pub(super) fn is_met(&self, content: &str, here: &Here) -> bool {
        // Nobody knows which release will read it.
        let reader = Reader { name: "containerd", is_dockerd: false, release: None };
        if fault(content, reader).is_some() {
            return false;
        }
        let Ok(hosts) = Hosts::parse(content) else { return false };
        let is_first = matches!(order(here, &hosts.addresses()), Order::First(_));
        let is_right = |entry: &Entry| entry.is_asked_right(&self.registry) && entry.lacks().is_empty();
        is_first
            && hosts.entries.first().is_some_and(is_right)
            && hosts.next(here, &self.registry).is_none() == self.is_closed
    }
}
