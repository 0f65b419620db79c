//! What is wrong with the settings, and where each of them stands.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci::printable;

use super::tree::{self, Position, Step};

/// The mistakes that are told: who makes more has one cause for most of them, or named another file. Each costs a reading of the
/// whole file, for its line.
pub(crate) const MAX_TOLD: usize = 50;
/// The characters of a sentence that are shown from its begin and from its end; what a value of the file is quoted with is between
/// them. The longest sentence of ours has less, with a path of some folders.
const MAX_SHOWN: [usize; 2] = [600, 600];

/// A file as it was read.
#[derive(Debug)]
pub(super) struct Source {
    pub path: PathBuf,
    pub text: String,
}

/// Where a setting stands: a flag, a variable, or a file with line and key. A message about the setting begins with it.
#[derive(Clone, Debug)]
pub(crate) struct Place(At);

#[derive(Clone, Debug)]
enum At {
    /// A flag or a variable, which comes before every line of a file.
    Named(String),
    /// A position of the file, if one is known.
    Position(PathBuf, Option<Position>),
    /// A node of the file. Its position is looked up only to tell it: that takes as long as reading the file.
    Node(Arc<Source>, Vec<Step>),
}

impl Place {
    /// A flag or a variable.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self(At::Named(name.into()))
    }

    /// This position of the file, or all of it.
    pub(super) fn in_file(path: &Path, position: Option<Position>) -> Self {
        Self(At::Position(path.to_owned(), position))
    }

    /// The node of the file that these steps lead to.
    pub(super) fn of_node(source: &Arc<Source>, steps: Vec<Step>) -> Self {
        Self(At::Node(Arc::clone(source), steps))
    }

    fn position(&self) -> Option<Position> {
        match &self.0 {
            At::Named(_) => None,
            At::Position(_, position) => *position,
            At::Node(source, steps) => tree::find(&source.text, steps),
        }
    }

    /// What it is called, with the line of this position.
    fn name(&self, position: Option<Position>) -> String {
        let line = position.map(|position| format!(":{}", position.line)).unwrap_or_default();
        let name = match &self.0 {
            At::Named(name) => return name.clone(),
            At::Position(path, _) => format!("{}{line}", path.display()),
            At::Node(source, steps) => format!("{}{line}: {}", source.path.display(), dotted(steps)),
        };
        // A name in the file may have anything in it, also what would begin another line.
        printable::line(&name).into_owned()
    }

    /// Prints the line in the file; 0 for a flag. It is found only when it is printed, which reads the file to that place: of many
    /// mistakes only the first are told.
    pub(super) fn line(&self) -> impl fmt::Display {
        struct Line<'a>(&'a Place);
        impl fmt::Display for Line<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.position().unwrap_or_default().line.fmt(f)
            }
        }
        Line(self)
    }
}

/// `upstream.addresses[1]`
fn dotted(steps: &[Step]) -> String {
    if steps.is_empty() {
        return "the file".to_owned();
    }
    steps.iter().fold(String::new(), |path, step| match step {
        Step::Key(key, _) if path.is_empty() => key.clone(),
        Step::Key(key, _) => format!("{path}.{key}"),
        Step::Index(index) => format!("{path}[{index}]"),
    })
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name(self.position()))
    }
}

/// A setting as text, with its place.
pub(crate) type Text = (Place, String);

/// What is wrong with the settings, a sentence and a line each. Prints flags first, then in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct Mistakes {
    /// Those that are told, which were found first.
    told: Vec<(Position, String)>,
    /// How many there are.
    count: usize,
}

impl Mistakes {
    /// Something is wrong with the setting at this place.
    pub(crate) fn add(&mut self, place: &Place, wrong: impl fmt::Display) {
        self.count += 1;
        if self.told.len() < MAX_TOLD {
            let position = place.position();
            let sentence = format!("{}: {wrong}", place.name(position));
            self.told.push((position.unwrap_or_default(), shown(&printable::line(&sentence))));
        }
    }

    /// Parses the text of a setting. The error of its parser is a mistake.
    pub(super) fn parse<T>(&mut self, (place, text): Text, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        parse(&text).map_err(|wrong| self.add(&place, wrong)).ok()
    }

    /// Something is wrong with no setting in particular.
    pub(super) fn add_general(&mut self, sentence: &str) {
        self.count += 1;
        self.told.push((Position::default(), shown(&printable::line(sentence))));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<_> = self.told.iter().collect();
        sorted.sort_by_key(|(position, _)| *position);
        for (_, sentence) in sorted {
            writeln!(f, "{sentence}")?;
        }
        match self.count - self.told.len() {
            0 => Ok(()),
            1 => writeln!(f, "and one more mistake, which is told when these are gone"),
            more => writeln!(f, "and {more} more mistakes, which are told when these are gone"),
        }
    }
}

/// Without its middle, if it is too long.
fn shown(sentence: &str) -> String {
    let [begin, end] = MAX_SHOWN;
    let length = sentence.chars().count();
    if length <= begin + end {
        return sentence.to_owned();
    }
    let first: String = sentence.chars().take(begin).collect();
    let last: String = sentence.chars().skip(length - end).collect();
    format!("{first} [{} characters] {last}", length - begin - end)
}

impl std::error::Error for Mistakes {}
