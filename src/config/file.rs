//! The YAML file: its shape, and where in it something is wrong.

use std::fmt;
use std::io::Read as _;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Mapping, Value};

use super::identity;

/// A configuration has some hundred lines; this is a file of another kind.
const MAX_FILE: u64 = 1 << 20;
/// A word this near to a known one was meant as it (Jaro-Winkler).
const NEAR: f64 = 0.8;

/// Where a setting stands: a flag, or a file, line and key. Prints as what a sentence about it begins with.
#[derive(Clone, Debug)]
pub struct Place(String);

impl Place {
    /// A flag or a variable.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A setting as text, with its place.
pub type Text = (Place, String);

/// What the file says, not yet judged.
#[derive(Default)]
pub struct File {
    pub listen: Option<Text>,
    pub upstream: Option<RouteTable>,
    pub routes: Vec<RouteTable>,
    pub default: Option<Text>,
    pub ca_file: Option<Text>,
    pub token_wait: Option<Text>,
    pub identity: Vec<(String, Text)>,
    pub admin: Option<Text>,
    pub threads: Option<Text>,
    pub log: Option<Text>,
}

/// An entry of `routes`, or the `upstream` table.
#[derive(Default)]
pub struct RouteTable {
    pub place: Option<Place>,
    /// It stands in `routes`.
    pub listed: bool,
    pub source: Option<Text>,
    pub domain: Option<Text>,
    pub prefix: Option<Text>,
    pub addresses: Vec<Text>,
    pub hosts: Vec<Text>,
    pub on_failure: Option<Text>,
    pub blobs: Option<Text>,
    pub blob_hosts: Vec<Text>,
    pub identity: Option<Vec<(String, Text)>>,
}

const KEYS: [&str; 10] =
    ["listen", "admin", "upstream", "routes", "default", "ca_file", "identity", "token_wait", "threads", "log"];
const ROUTE_KEYS: [&str; 9] =
    ["source", "domain", "prefix", "addresses", "hosts", "on_failure", "blobs", "blob_hosts", "identity"];

impl File {
    /// Reads what can be read; what is wrong with the shape goes to `mistakes`.
    pub fn read(path: &Path, mistakes: &mut Vec<String>) -> Self {
        match read_bounded(path) {
            Ok(text) => Self::parse(path, &text, mistakes),
            Err(cause) => {
                mistakes.push(format!("--config {}: {cause}", path.display()));
                Self::default()
            }
        }
    }

    fn parse(path: &Path, text: &str, mistakes: &mut Vec<String>) -> Self {
        let root = match serde_yaml::from_str::<Value>(text) {
            Ok(Value::Null) => Value::Mapping(Mapping::new()),
            Ok(root) => root,
            Err(cause) => {
                mistakes.push(format!("{}: {cause}", path.display()));
                return Self::default();
            }
        };
        let mut document = Document { path, text, mistakes };
        let mut file = Self::default();
        for node in document.table(&Node { value: &root, steps: Vec::new() }, &KEYS) {
            match node.key() {
                "listen" => file.listen = document.text(&node),
                "ca_file" => file.ca_file = document.text(&node),
                "token_wait" => file.token_wait = document.text(&node),
                "log" => file.log = document.text(&node),
                "threads" => file.threads = document.number(&node),
                "admin" => file.admin = document.text(&node),
                "default" => file.default = document.text(&node),
                "identity" => file.identity = document.entries(&node),
                "upstream" => file.upstream = Some(document.route(&node, false)),
                _ => {
                    let items = document.items(&node);
                    file.routes = items.iter().map(|item| document.route(item, true)).collect();
                }
            }
        }
        file
    }
}

fn read_bounded(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|cause| cause.to_string())?;
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|cause| cause.to_string())?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("more than {MAX_FILE} bytes are no configuration"));
    }
    Ok(text)
}

/// A step from a node to one below it.
#[derive(Clone)]
enum Step {
    Key(String),
    Index(usize),
}

/// A value and the way to it.
struct Node<'a> {
    value: &'a Value,
    steps: Vec<Step>,
}

impl<'a> Node<'a> {
    fn below(&self, step: Step, value: &'a Value) -> Self {
        let mut steps = self.steps.clone();
        steps.push(step);
        Self { value, steps }
    }

    /// The key that it stands under.
    fn key(&self) -> &str {
        match self.steps.last() {
            Some(Step::Key(key)) => key,
            _ => "",
        }
    }

    /// `upstream.addresses[1]`
    fn dotted(&self) -> String {
        self.steps.iter().fold(String::new(), |path, step| match step {
            Step::Key(key) if path.is_empty() => key.clone(),
            Step::Key(key) => format!("{path}.{key}"),
            Step::Index(index) => format!("{path}[{index}]"),
        })
    }
}

/// The file's text, and what is found wrong in it.
struct Document<'a> {
    path: &'a Path,
    text: &'a str,
    mistakes: &'a mut Vec<String>,
}

impl Document<'_> {
    /// The known entries of a table; every other key is a mistake.
    fn table<'v>(&mut self, node: &Node<'v>, known: &[&str]) -> Vec<Node<'v>> {
        let Value::Mapping(mapping) = node.value else {
            self.wrong(node, &format!("is a table of {}", known.join(", ")));
            return Vec::new();
        };
        let mut entries = Vec::new();
        for (key, value) in mapping {
            let name = match key {
                Value::String(name) => name.clone(),
                other => serde_yaml::to_string(other).unwrap_or_default().trim().to_owned(),
            };
            let entry = node.below(Step::Key(name.clone()), value);
            if known.contains(&name.as_str()) {
                entries.push(entry);
                continue;
            }
            let nearest = known
                .iter()
                .map(|known| (strsim::jaro_winkler(known, &name), *known))
                .max_by(|a, b| a.0.total_cmp(&b.0));
            match nearest {
                Some((nearness, nearest)) if nearness >= NEAR => {
                    self.wrong(&entry, &format!("is no setting: did you mean {nearest}?"))
                }
                _ => self.wrong(&entry, &format!("is no setting: there are {}", known.join(", "))),
            }
        }
        entries
    }

    /// A text; a null is as good as nothing.
    fn text(&mut self, node: &Node<'_>) -> Option<Text> {
        match node.value {
            Value::String(text) => Some((self.place(node), text.clone())),
            Value::Null => None,
            _ => {
                self.wrong(node, "is a text: put it into quotes");
                None
            }
        }
    }

    /// A number, with or without quotes.
    fn number(&mut self, node: &Node<'_>) -> Option<Text> {
        match node.value {
            Value::Number(number) => Some((self.place(node), number.to_string())),
            _ => self.text(node),
        }
    }

    fn texts(&mut self, node: &Node<'_>) -> Vec<Text> {
        self.items(node).iter().filter_map(|item| self.text(item)).collect()
    }

    /// The items of a list.
    fn items<'v>(&mut self, node: &Node<'v>) -> Vec<Node<'v>> {
        match node.value {
            Value::Sequence(items) => {
                items.iter().enumerate().map(|(index, value)| node.below(Step::Index(index), value)).collect()
            }
            Value::Null => Vec::new(),
            _ => {
                let example =
                    if node.key() == "routes" { "each item begins with a dash" } else { "such as [10.0.0.5]" };
                self.wrong(node, &format!("is a list: {example}"));
                Vec::new()
            }
        }
    }

    /// The texts of an identity's table, by their keys.
    fn entries(&mut self, node: &Node<'_>) -> Vec<(String, Text)> {
        let entries = self.table(node, &identity::KEYS);
        entries.iter().filter_map(|entry| Some((entry.key().to_owned(), self.text(entry)?))).collect()
    }

    fn route(&mut self, node: &Node<'_>, listed: bool) -> RouteTable {
        let mut route = RouteTable { place: Some(self.place(node)), listed, ..RouteTable::default() };
        for node in self.table(node, &ROUTE_KEYS) {
            match node.key() {
                "source" => route.source = self.text(&node),
                "domain" => route.domain = self.text(&node),
                "prefix" => route.prefix = self.text(&node),
                "addresses" => route.addresses = self.texts(&node),
                "hosts" => route.hosts = self.texts(&node),
                "on_failure" => route.on_failure = self.text(&node),
                "blobs" => route.blobs = self.text(&node),
                "blob_hosts" => route.blob_hosts = self.texts(&node),
                _ => route.identity = Some(self.entries(&node)),
            }
        }
        route
    }

    fn wrong(&mut self, node: &Node<'_>, what: &str) {
        let place = self.place(node);
        self.mistakes.push(format!("{place} {what}"));
    }

    fn place(&self, node: &Node<'_>) -> Place {
        let name = if node.steps.is_empty() { "the file".to_owned() } else { node.dotted() };
        match line_of(self.text, &node.steps) {
            Some(line) => Place(format!("{}:{line}: {name}", self.path.display())),
            None => Place(format!("{}: {name}", self.path.display())),
        }
    }
}

/// The line of a node. serde_yaml keeps no positions in its values but puts one into every error, so the text is
/// read once more and an error raised at the node.
fn line_of(text: &str, steps: &[Step]) -> Option<usize> {
    let failed = Descent(steps).deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    Some(failed.location()?.line())
}

struct Descent<'a>(&'a [Step]);

impl<'de> DeserializeSeed<'de> for Descent<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.0.first() {
            None => deserializer.deserialize_any(Here),
            Some(Step::Key(_)) => deserializer.deserialize_map(self),
            Some(Step::Index(_)) => deserializer.deserialize_seq(self),
        }
    }
}

impl<'de> Visitor<'de> for Descent<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the way to the node")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted), rest)) = self.0.split_first() else {
            return Ok(());
        };
        while let Some(found) = map.next_key_seed(Key { wanted, fails: rest.is_empty() })? {
            if found {
                map.next_value_seed(Descent(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((Step::Index(wanted), rest)) = self.0.split_first() else {
            return Ok(());
        };
        for _ in 0..*wanted {
            items.next_element::<IgnoredAny>()?;
        }
        items.next_element_seed(Descent(rest)).map(|_| ())
    }
}

/// Takes no value at all, so that each is an error where it stands.
struct Here;

impl Visitor<'_> for Here {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }
}

/// Whether this is the wanted key; if the way ends with it, that is an error where it stands.
struct Key<'a> {
    wanted: &'a str,
    fails: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        if key == self.wanted && self.fails { Err(E::custom("here")) } else { Ok(key == self.wanted) }
    }
}
