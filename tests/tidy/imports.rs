//! Which file of a crate uses which other: by `use`, by a path in the code, and through what a module re-exports.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::Delimiter;

use crate::source::{self, File, Token};

/// A path as it is written: `crate::proxy::Context` or, in a file with a `mod fail`, `fail::reply`.
type Written = Vec<String>;

/// The files of one crate, and which uses which.
pub(crate) struct Graph {
    /// Module path (empty for the crate's root) to file.
    modules: BTreeMap<Vec<String>, Module>,
}

struct Module {
    file: String,
    /// Names that `pub use` gives the module, and what they stand for.
    exports: BTreeMap<String, Written>,
    /// Names of modules and items that `use` brings into the file.
    imports: BTreeMap<String, Written>,
    paths: Vec<Written>,
}

impl Graph {
    /// The crate whose sources are below `directory`, without its tests.
    pub(crate) fn of(directory: &str, root: &str) -> Self {
        let files = source::rust().iter().filter(|file| file.path.starts_with(&format!("{directory}/")));
        let modules = files
            .filter(|file| !file.is_test() || directory.contains("tests"))
            .filter(|file| !file.path.ends_with("/main.rs") || root == "main.rs")
            .map(|file| (module_path(&file.path[directory.len() + 1..], root), Module::read(file, root == "main.rs")))
            .collect();
        Self { modules }
    }

    /// Every module but the root, as `a::b`.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.modules.keys().filter(|path| !path.is_empty()).map(|path| path.join("::")).collect()
    }

    /// Which module uses which, as paths. What a module takes from one that it is part of is left out: both are one idea,
    /// and the outer one may define what its parts share.
    fn edges(&self) -> BTreeMap<&[String], BTreeSet<&[String]>> {
        let mut edges = BTreeMap::new();
        for (path, module) in &self.modules {
            let used: BTreeSet<_> = module.paths.iter().filter_map(|written| self.target(path, written, 0)).collect();
            let used: BTreeSet<_> = used.into_iter().filter(|target| !path.starts_with(target)).collect();
            edges.insert(&path[..], used);
        }
        edges
    }

    /// The module that defines what a path names; `None` for other crates.
    fn target<'a>(&'a self, from: &[String], written: &[String], depth: usize) -> Option<&'a [String]> {
        /// Longer chains of re-exports would be a circle.
        const MOST_EXPORTS: usize = 8;
        if depth > MOST_EXPORTS {
            return None;
        }
        let absolute = self.absolute(from, written)?;
        let length = (0..=absolute.len()).rev().find(|length| self.modules.contains_key(&absolute[..*length]))?;
        let (path, module) = self.modules.get_key_value(&absolute[..length])?;
        let export = absolute.get(length).and_then(|name| module.exports.get(name));
        match export.and_then(|export| self.target(path, export, depth + 1)) {
            Some(target) => Some(target),
            None => Some(path),
        }
    }

    fn absolute(&self, from: &[String], written: &[String]) -> Option<Vec<String>> {
        let (first, rest) = written.split_first()?;
        let mut base = from.to_vec();
        match first.as_str() {
            "crate" => return Some(rest.to_vec()),
            "self" => base.extend(rest.iter().cloned()),
            "super" => {
                base.pop();
                let mut rest = rest;
                while let Some(("super", more)) = rest.split_first().map(|(first, more)| (first.as_str(), more)) {
                    base.pop();
                    rest = more;
                }
                base.extend(rest.iter().cloned());
            }
            name => {
                base.push(name.to_owned());
                if self.modules.contains_key(&base) {
                    base.extend(rest.iter().cloned());
                } else {
                    // A name that a `use` of this file brought in.
                    let import = self.modules.get(from)?.imports.get(name).filter(|import| import[..] != *written)?;
                    let mut written = import.clone();
                    written.extend(rest.iter().cloned());
                    let is_ours = matches!(written[0].as_str(), "crate" | "self" | "super");
                    return is_ours.then(|| self.absolute(from, &written)).flatten();
                }
            }
        }
        Some(base)
    }

    /// The files that use each other, directly or by way of others: each circle once.
    pub(crate) fn circles(&self) -> Vec<Vec<&str>> {
        let edges = self.edges();
        let reachable = |start: &[String]| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![start.to_vec()]);
            while let Some(at) = next.pop() {
                for target in &edges[&at[..]] {
                    if seen.insert(target.to_vec()) {
                        next.push(target.to_vec());
                    }
                }
            }
            seen
        };
        let reach: BTreeMap<_, _> = self.modules.keys().map(|path| (path.clone(), reachable(path))).collect();
        let mut circles = BTreeSet::new();
        for (path, reached) in &reach {
            if reached.contains(path) {
                let circle = reached.iter().filter(|other| reach[*other].contains(path));
                circles.insert(circle.map(|path| self.modules[path].file.as_str()).collect::<Vec<_>>());
            }
        }
        circles.into_iter().collect()
    }

    /// Which top-level module uses which other, with the files that do.
    pub(crate) fn between_top_level_modules(&self) -> BTreeSet<(&str, &str, &str)> {
        let mut found = BTreeSet::new();
        for (from, targets) in self.edges() {
            for target in targets {
                if let (Some(from_top), Some(target_top)) = (from.first(), target.first())
                    && from_top != target_top
                {
                    found.insert((from_top.as_str(), target_top.as_str(), self.modules[from].file.as_str()));
                }
            }
        }
        found
    }
}

/// `proxy/fail.rs` is `proxy::fail`.
fn module_path(file: &str, root: &str) -> Vec<String> {
    if file == root {
        return Vec::new();
    }
    let file = file.strip_suffix("/mod.rs").or(file.strip_suffix(".rs")).expect("a Rust file");
    file.split('/').map(str::to_owned).collect()
}

impl Module {
    fn read(file: &File, is_test: bool) -> Self {
        let tokens = if is_test { file.tokens().to_vec() } else { file.code() };
        let mut module =
            Self { file: file.path.clone(), exports: BTreeMap::new(), imports: BTreeMap::new(), paths: Vec::new() };
        let mut at = 0;
        while at < tokens.len() {
            if tokens[at].is("use") {
                let is_public = at > 0 && (tokens[at - 1].is("pub") || is_restricted(&tokens[..at]));
                let mut tree = Tree { tokens: &tokens, at: at + 1, found: Vec::new() };
                tree.read(&[]);
                at = tree.at;
                for (name, written) in tree.found {
                    let is_used = tokens.iter().filter(|token| token.is(&name)).count() > 1;
                    if is_public {
                        module.exports.insert(name.clone(), written.clone());
                    }
                    // A re-export that the file does not use itself is no use of the module.
                    if !is_public || is_used {
                        module.paths.push(written.clone());
                    }
                    module.imports.insert(name, written);
                }
            } else {
                let (written, next) = path_at(&tokens, at);
                if written.len() > 1 {
                    module.paths.push(written);
                }
                at = next;
            }
        }
        module
    }
}

/// Whether the tokens end in `pub(...)`.
fn is_restricted(tokens: &[Token]) -> bool {
    let open = tokens.iter().rposition(|token| *token == Token::Open(Delimiter::Parenthesis));
    tokens.last() == Some(&Token::Close(Delimiter::Parenthesis))
        && open.is_some_and(|open| open > 0 && tokens[open - 1].is("pub"))
}

/// The longest `a::b::c` that begins here, and where the tokens behind it begin.
fn path_at(tokens: &[Token], start: usize) -> (Written, usize) {
    let (mut written, mut at) = (Vec::new(), start);
    while let Some(Token::Ident(name)) = tokens.get(at) {
        written.push(name.clone());
        at += 1;
        if tokens.get(at..at + 2) != Some(&[Token::Punct(':'), Token::Punct(':')]) {
            break;
        }
        at += 2;
    }
    // A field, a method or the rest of a longer path.
    let is_part = start > 0 && matches!(tokens[start - 1], Token::Punct('.' | ':'));
    if is_part { (Vec::new(), at.max(start + 1)) } else { (written, at.max(start + 1)) }
}

/// Reads the tree of a `use`: each name that it brings in, and its path.
struct Tree<'a> {
    tokens: &'a [Token],
    at: usize,
    found: Vec<(String, Written)>,
}

impl Tree<'_> {
    fn read(&mut self, prefix: &[String]) {
        let mut path = prefix.to_vec();
        loop {
            match &self.tokens[self.at] {
                Token::Ident(name) if name == "as" => {
                    let Token::Ident(name) = &self.tokens[self.at + 1] else { panic!("`as` without a name") };
                    self.found.push((name.clone(), path));
                    self.at += 2;
                    return;
                }
                Token::Ident(name) => path.push(name.clone()),
                Token::Punct(':') => {}
                // Of a glob, the module itself.
                Token::Punct('*') => {
                    self.found.push(("*".to_owned(), path));
                    self.at += 1;
                    return;
                }
                Token::Open(_) => {
                    self.at += 1;
                    while !matches!(self.tokens[self.at], Token::Close(_)) {
                        self.read(&path);
                        if self.tokens[self.at] == Token::Punct(',') {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                // The end of this branch: `,`, `;` or a closing brace.
                _ => {
                    if path.len() > 1 && path.last().is_some_and(|name| name == "self") {
                        path.pop();
                    }
                    if let Some(name) = path.last() {
                        self.found.push((name.clone(), path));
                    }
                    return;
                }
            }
            self.at += 1;
        }
    }
}
