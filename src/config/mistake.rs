//! What is wrong with the settings, and where each of them stands.

use std::fmt;
use std::path::Path;

use oci::printable;

use super::tree::Position;

/// Where a setting stands: a flag, a variable, or a file with line and key. A message about the setting begins with it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    name: String,
    position: Position,
}

impl Place {
    /// A flag or a variable, which comes before every line of a file.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), position: Position::default() }
    }

    /// A key of the file, at this position if that is known.
    pub(super) fn in_file(path: &Path, position: Option<Position>, key: &str) -> Self {
        let line = position.map(|position| format!(":{}", position.line)).unwrap_or_default();
        let key = if key.is_empty() { String::new() } else { format!(": {key}") };
        // A name in the file may have anything in it, also what would begin another line.
        let name = printable::line(&format!("{}{line}{key}", path.display())).into_owned();
        Self { name, position: position.unwrap_or_default() }
    }

    /// The line in the file; 0 for a flag.
    pub(super) fn line(&self) -> usize {
        self.position.line
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A setting as text, with its place.
pub(crate) type Text = (Place, String);

/// Everything that is wrong with the settings, a sentence and a line each. Prints flags first, then in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct Mistakes(Vec<(Position, String)>);

impl Mistakes {
    /// Something is wrong with the setting at this place.
    pub(crate) fn add(&mut self, place: &Place, wrong: impl fmt::Display) {
        self.0.push((place.position, printable::line(&format!("{place}: {wrong}")).into_owned()));
    }

    /// Parses the text of a setting. The error of its parser is a mistake.
    pub(super) fn parse<T>(&mut self, (place, text): Text, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        parse(&text).map_err(|wrong| self.add(&place, wrong)).ok()
    }

    /// Something is wrong with no setting in particular.
    pub(super) fn add_general(&mut self, sentence: &str) {
        self.0.push((Position::default(), printable::line(sentence).into_owned()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<_> = self.0.iter().collect();
        sorted.sort_by_key(|(position, _)| *position);
        for (_, sentence) in sorted {
            writeln!(f, "{sentence}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
