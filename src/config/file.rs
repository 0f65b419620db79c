//! The YAML file: read within limits, and where in it something is wrong. Which keys there are is for a table to say.

use std::collections::HashMap;
use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::Arc;

use super::hint;
use super::mistake::{Mistakes, Place, Source, Text};
use super::tree::{self, Step, Tree};
use crate::file::{self, FileError};
use crate::value;

/// A configuration has some hundred lines; this is a file of another kind.
const MAX_FILE: u64 = 1 << 20;
/// A word this near to a known one was meant as it (Jaro-Winkler).
const NEAR: f64 = 0.8;

/// Reads the file, and `take` what it needs of its root; nothing where it cannot be read, which is a mistake.
pub(super) fn read<T: Default>(
    path: &Path,
    mistakes: &mut Mistakes,
    take: impl FnOnce(&mut Document<'_>, &Node<'_>) -> T,
) -> T {
    let content = {
        let path = path.to_owned();
        file::at_start(move || read_bounded(&path))
    };
    let is_fifo = || path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
    let flag = Place::new(format!("--config {}", path.display()));
    let text = match content {
        Err(FileError::Hangs) if is_fifo() => {
            mistakes.add(&flag, "it is a FIFO, and its writer has not closed it within 5 s: use a regular file");
            return T::default();
        }
        Err(cause) => {
            mistakes.add(&flag, cause);
            return T::default();
        }
        Ok(Err(cause)) => {
            mistakes.add(&flag, cause);
            return T::default();
        }
        Ok(Ok(text)) => text,
    };
    self::take(path, &text, mistakes, take)
}

/// The same of a text that is, or is to be, in a file of this path.
pub(super) fn take<T: Default>(
    path: &Path,
    text: &str,
    mistakes: &mut Mistakes,
    take: impl FnOnce(&mut Document<'_>, &Node<'_>) -> T,
) -> T {
    let root = match tree::parse(text) {
        Ok(Tree::Null) => Tree::Table(Vec::new()),
        Ok(root) => root,
        Err((position, cause)) => {
            let position = Some(position).filter(|position| position.line > 0);
            mistakes.add(&Place::in_file(path, position), cause);
            return T::default();
        }
    };
    let source = Arc::new(Source { path: path.to_owned(), text: text.to_owned() });
    take(&mut Document { source, mistakes }, &Node { value: &root, steps: Vec::new() })
}

/// The whole file, without a byte-order mark. It may be a pipe, as a shell's `<(...)` is, so the caller bounds the time too.
fn read_bounded(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|cause| cause.to_string())?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|cause| cause.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("it has more than {MAX_FILE} bytes, which no configuration needs: name the right file"));
    }
    let content = value::unmarked(&bytes).map_err(|cause| cause.to_string())?;
    let text = std::str::from_utf8(content).map_err(|cause| {
        let good = content.get(..cause.valid_up_to()).unwrap_or_default();
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        format!("line {line} is not UTF-8: save the file as UTF-8")
    })?;
    Ok(text.to_owned())
}

/// A value of the file, and the way to it.
pub(super) struct Node<'a> {
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
    pub(super) fn key(&self) -> &str {
        match self.steps.last() {
            Some(Step::Key(key, _)) => key,
            _ => "",
        }
    }

    /// Keys with values stand there.
    pub(super) fn is_table(&self) -> bool {
        matches!(self.value, Tree::Table(_))
    }
}

/// The file's text, and what is found wrong in it.
pub(super) struct Document<'a> {
    source: Arc<Source>,
    mistakes: &'a mut Mistakes,
}

impl Document<'_> {
    /// The known entries of a table, the first of each name; every other key is a mistake.
    pub(super) fn table<'v>(&mut self, node: &Node<'v>, known: &[&str]) -> Vec<Node<'v>> {
        let table = match node.value {
            Tree::Table(table) => table,
            Tree::Null => {
                self.wrong(node, "has no value: indent its keys below it, or remove the key");
                return Vec::new();
            }
            Tree::Text(text) if let Some(sentence) = hint::unspaced(text) => {
                self.wrong(node, sentence);
                return Vec::new();
            }
            other => {
                // An address or a host is what the first key is for.
                let is_host = matches!(other, Tree::Text(text) if text.contains(['.', ':']));
                let first = known.first().filter(|_| is_host);
                let example = first.map(|key| format!(", such as {{{key}: ...}}")).unwrap_or_default();
                self.wrong(node, format!("must be a table of {}{example}", known.join(", ")));
                return Vec::new();
            }
        };
        let mut entries: Vec<Node<'v>> = Vec::new();
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for (name, value) in table {
            let seen = seen.entry(name).or_default();
            let before = *seen;
            *seen += 1;
            let entry = node.below(Step::Key(name.clone(), before), value);
            if before > 0 {
                let first = self.place(&node.below(Step::Key(name.clone(), 0), value));
                self.wrong(&entry, format_args!("is set twice, first in line {}: remove one of the two", first.line()));
            } else if known.contains(&name.as_str()) {
                entries.push(entry);
            } else if name == "<<" {
                self.wrong(&entry, "merge keys are not supported: write the settings themselves");
            } else {
                self.wrong(&entry, format_args!("unknown setting{}", instead(name, known)));
            }
        }
        entries
    }

    /// A text, or a number as it is written: whether it will do is for the setting to say. A key with nothing behind it is
    /// what a template leaves of a variable that is not set, and never taken for a value; `if_empty` says what to do about it.
    pub(super) fn text(&mut self, node: &Node<'_>, if_empty: &str) -> Option<Text> {
        match node.value {
            Tree::Text(_) | Tree::Scalar(_) => self.scalar(node).map(|text| (self.place(node), text)),
            Tree::Null => {
                let hint = if if_empty.is_empty() { "set a value, or remove the key" } else { if_empty };
                self.wrong(node, format!("has no value: {hint}"));
                None
            }
            Tree::List(_) | Tree::Table(_) => {
                self.wrong(node, "must be a text");
                None
            }
        }
    }

    /// The text of a node that is neither a list nor a table, nor without a value.
    pub(super) fn scalar(&self, node: &Node<'_>) -> Option<String> {
        match node.value {
            Tree::Text(text) | Tree::Scalar(text) => Some(text.clone()),
            Tree::Null | Tree::List(_) | Tree::Table(_) => None,
        }
    }

    /// Whether a list stands there.
    pub(super) fn is_list(&self, node: &Node<'_>) -> bool {
        matches!(node.value, Tree::List(_))
    }

    /// The items of a list. The hint is an example of one.
    pub(super) fn items<'v>(&mut self, node: &Node<'v>, hint: &str) -> Vec<Node<'v>> {
        match node.value {
            Tree::List(items) => {
                items.iter().enumerate().map(|(index, value)| node.below(Step::Index(index), value)).collect()
            }
            Tree::Null => {
                self.wrong(node, format!("has no value: set a list ({hint}), [] for none, or remove the key"));
                Vec::new()
            }
            _ => {
                self.wrong(node, format!("must be a list: {hint}"));
                Vec::new()
            }
        }
    }

    /// How many mistakes there are so far, in this file or outside.
    pub(super) fn mistakes(&self) -> usize {
        self.mistakes.count()
    }

    /// Where a node stands.
    pub(super) fn place(&self, node: &Node<'_>) -> Place {
        Place::of_node(&self.source, node.steps.clone())
    }

    /// What stands at the node is a mistake.
    pub(super) fn wrong(&mut self, node: &Node<'_>, what: impl fmt::Display) {
        let place = self.place(node);
        self.mistakes.add(&place, what);
    }
}

/// The end of the sentence about an unknown key: what it may be meant as. That is a key of another table (also by the name of its flag),
/// one of `known`, or any of those.
fn instead(name: &str, known: &[&str]) -> String {
    let flag = name.replace('_', "-");
    let of_flag = super::everywhere().into_iter().find(|(key, row)| row.flag == Some(&flag) && known.contains(&&**key));
    if let Some((key, _)) = of_flag {
        return format!(": did you mean {key}?");
    }
    let is_elsewhere = |key: &String| {
        let own = key.rsplit('.').next().unwrap_or(key);
        key != own && (own == name || key.replace('.', "_") == name)
    };
    let mut elsewhere: Vec<_> = super::everywhere().into_iter().map(|(key, _)| key).filter(is_elsewhere).collect();
    // What a route can set as the file does, is told as the setting of the file.
    let depth = |key: &String| key.matches('.').count();
    let least = elsewhere.iter().map(depth).min();
    elsewhere.retain(|key| Some(depth(key)) == least);
    let nearness = |known: &&&str| strsim::jaro_winkler(known, name);
    let nearest = known.iter().max_by(|a, b| nearness(a).total_cmp(&nearness(b)));
    match (&elsewhere[..], nearest.filter(|nearest| nearness(nearest) >= NEAR)) {
        ([], Some(nearest)) => format!(": did you mean {nearest}?"),
        ([], None) => format!(": use one of {}", known.join(", ")),
        (elsewhere, _) => format!(" here: did you mean {}?", elsewhere.join(" or ")),
    }
}
