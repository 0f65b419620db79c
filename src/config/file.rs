//! The YAML file: its shape, and where in it something is wrong.

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use super::tree::{self, Position, Step, Tree};
use super::{Mistakes, identity};
use crate::file::{self, FileError};
use crate::value;

/// A configuration has some hundred lines; this is a file of another kind.
const MAX_FILE: u64 = 1 << 20;
/// A word this near to a known one was meant as it (Jaro-Winkler).
const NEAR: f64 = 0.8;

/// Where a setting stands: a flag, or a file, line and key. Prints as what a sentence about it begins with.
#[derive(Clone, Debug)]
pub struct Place {
    name: String,
    position: Position,
}

impl Place {
    /// A flag or a variable.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), position: Position::default() }
    }

    /// Where in the file it is; a flag is before all of it.
    pub(super) fn position(&self) -> Position {
        self.position
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
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
    pub client_keepalive: Option<Text>,
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
    /// Something of it is not understood, so what seems to be missing may be there under a wrong name.
    pub flawed: bool,
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

const KEYS: [&str; 11] = [
    "listen",
    "admin",
    "upstream",
    "routes",
    "default",
    "ca_file",
    "identity",
    "token_wait",
    "client_keepalive",
    "threads",
    "log",
];
const ROUTE_KEYS: [&str; 9] =
    ["source", "domain", "prefix", "addresses", "hosts", "on_failure", "blobs", "blob_hosts", "identity"];

impl File {
    /// Reads what can be read; what is wrong with the shape goes to `mistakes`.
    pub fn read(path: &Path, mistakes: &mut Mistakes) -> Self {
        let content = {
            let path = path.to_owned();
            file::at_start(move || read_bounded(&path))
        };
        let is_fifo = || path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
        match content {
            Err(FileError::Hangs) if is_fifo() => {
                let place = Place::new(format!("--config {}", path.display()));
                mistakes
                    .add(&place, "it is a FIFO, and nobody has written it to its end within 5 s: name a regular file");
                Self::default()
            }
            Ok(Ok(text)) => Self::parse(path, &text, mistakes),
            Ok(Err(cause)) => {
                mistakes.add(&Place::new(format!("--config {}", path.display())), cause);
                Self::default()
            }
            Err(cause) => {
                mistakes.add(&Place::new(format!("--config {}", path.display())), cause);
                Self::default()
            }
        }
    }

    fn parse(path: &Path, text: &str, mistakes: &mut Mistakes) -> Self {
        let root = match tree::parse(text) {
            Ok(Tree::Null) => Tree::Table(Vec::new()),
            Ok(root) => root,
            Err((position, cause)) => {
                let line = if position.line > 0 { format!(":{}", position.line) } else { String::new() };
                mistakes.add(&Place { name: format!("{}{line}", path.display()), position }, cause);
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
                "client_keepalive" => file.client_keepalive = document.text(&node),
                "log" => file.log = document.text(&node),
                "threads" => file.threads = document.text(&node),
                "admin" => file.admin = document.text(&node),
                "default" => file.default = document.text(&node),
                "identity" => file.identity = document.identity(&node),
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

/// The whole file without a byte-order mark, which some editors put before UTF-8. It may be a pipe, as a shell's `<(...)`
/// is, so whoever reads it bounds the time as well.
fn read_bounded(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|cause| cause.to_string())?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|cause| cause.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("more than {MAX_FILE} bytes are no configuration"));
    }
    let bytes = value::unmarked(&bytes).map_err(|cause| cause.to_string())?;
    let text = std::str::from_utf8(bytes).map_err(|cause| {
        let good = bytes.get(..cause.valid_up_to()).unwrap_or_default();
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        format!("line {line} is not UTF-8: save the file as UTF-8")
    })?;
    Ok(text.to_owned())
}

/// A value and the way to it.
struct Node<'a> {
    value: &'a Tree,
    steps: Vec<Step>,
}

impl<'a> Node<'a> {
    fn below(&self, step: Step, value: &'a Tree) -> Self {
        let mut steps = self.steps.clone();
        steps.push(step);
        Self { value, steps }
    }

    /// The key that it stands under.
    fn key(&self) -> &str {
        match self.steps.last() {
            Some(Step::Key(key, _)) => key,
            _ => "",
        }
    }

    /// `upstream.addresses[1]`
    fn dotted(&self) -> String {
        self.steps.iter().fold(String::new(), |path, step| match step {
            Step::Key(key, _) if path.is_empty() => key.clone(),
            Step::Key(key, _) => format!("{path}.{key}"),
            Step::Index(index) => format!("{path}[{index}]"),
        })
    }
}

/// The file's text, and what is found wrong in it.
struct Document<'a> {
    path: &'a Path,
    text: &'a str,
    mistakes: &'a mut Mistakes,
}

impl Document<'_> {
    /// The known entries of a table, the first of each name; every other key is a mistake.
    fn table<'v>(&mut self, node: &Node<'v>, known: &[&str]) -> Vec<Node<'v>> {
        let table = match node.value {
            Tree::Table(table) => table,
            Tree::Null => {
                self.wrong(node, "nothing is behind it: indent its keys below it, or take it out");
                return Vec::new();
            }
            _ => {
                self.wrong(node, format!("must be a table of {}", known.join(", ")));
                return Vec::new();
            }
        };
        let mut entries: Vec<Node<'v>> = Vec::new();
        for (index, (name, value)) in table.iter().enumerate() {
            let before = table.iter().take(index).filter(|(earlier, _)| earlier == name).count();
            let entry = node.below(Step::Key(name.clone(), before), value);
            if before > 0 {
                let first = self.place(&node.below(Step::Key(name.clone(), 0), value)).position.line;
                self.wrong(&entry, format!("is set twice, first in line {first}: take one of the two out"));
            } else if known.contains(&name.as_str()) {
                entries.push(entry);
            } else {
                let nearness = |known: &&&str| strsim::jaro_winkler(known, name);
                let nearest = known.iter().max_by(|a, b| nearness(a).total_cmp(&nearness(b)));
                match nearest.filter(|nearest| nearness(nearest) >= NEAR) {
                    Some(nearest) => self.wrong(&entry, format!("unknown setting: did you mean {nearest}?")),
                    None => self.wrong(&entry, format!("unknown setting: there are {}", known.join(", "))),
                }
            }
        }
        entries
    }

    /// A text, or a number as it is written: whether it will do is for the setting to say. Nothing at all is what a
    /// template leaves of a variable that is not set, and is never taken for a value.
    fn text(&mut self, node: &Node<'_>) -> Option<Text> {
        match node.value {
            Tree::Text(text) => Some((self.place(node), text.clone())),
            Tree::Scalar => tree::raw(self.text, &node.steps).map(|text| (self.place(node), text)),
            Tree::Null if node.key() == "prefix" => {
                self.wrong(
                    node,
                    "nothing is behind it: give the cache rule's target without its /*, such as hub, or prefix: '' to open the whole registry",
                );
                None
            }
            Tree::Null => {
                self.wrong(node, "nothing is behind it: give a value, or take it out");
                None
            }
            Tree::List(_) | Tree::Table(_) => {
                self.wrong(node, "must be a text");
                None
            }
        }
    }

    fn texts(&mut self, node: &Node<'_>) -> Vec<Text> {
        self.items(node).iter().filter_map(|item| self.text(item)).collect()
    }

    /// The items of a list.
    fn items<'v>(&mut self, node: &Node<'v>) -> Vec<Node<'v>> {
        let example = match node.key() {
            "routes" => "each item begins with a dash",
            "addresses" => "such as [10.0.0.5]",
            "blob_hosts" => "such as [.blobs.internal]",
            _ => "such as [ghcr.mirror.internal]",
        };
        match node.value {
            Tree::List(items) => {
                items.iter().enumerate().map(|(index, value)| node.below(Step::Index(index), value)).collect()
            }
            Tree::Null => {
                self.wrong(node, format!("nothing is behind it: give a list ({example}), [] for none, or take it out"));
                Vec::new()
            }
            _ => {
                self.wrong(node, format!("must be a list: {example}"));
                Vec::new()
            }
        }
    }

    /// The texts of an identity's table, by their keys. Without a kind that is understood there is nothing that the others
    /// could be judged by.
    fn identity(&mut self, node: &Node<'_>) -> Vec<(String, Text)> {
        let before = self.mistakes.count();
        let entries = self.table(node, &identity::KEYS);
        let entries: Vec<_> =
            entries.iter().filter_map(|entry| Some((entry.key().to_owned(), self.text(entry)?))).collect();
        let has_kind = entries.iter().any(|(key, _)| key == "kind");
        if has_kind || self.mistakes.count() == before { entries } else { Vec::new() }
    }

    fn route(&mut self, node: &Node<'_>, listed: bool) -> RouteTable {
        let before = self.mistakes.count();
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
                _ => route.identity = Some(self.identity(&node)),
            }
        }
        route.flawed = self.mistakes.count() > before;
        route
    }

    fn wrong(&mut self, node: &Node<'_>, what: impl fmt::Display) {
        let place = self.place(node);
        self.mistakes.add(&place, what);
    }

    fn place(&self, node: &Node<'_>) -> Place {
        let name = if node.steps.is_empty() { "the file".to_owned() } else { node.dotted() };
        match tree::find(self.text, &node.steps) {
            Some(position) => Place { name: format!("{}:{}: {name}", self.path.display(), position.line), position },
            None => Place { name: format!("{}: {name}", self.path.display()), position: Position::default() },
        }
    }
}
