//! What is where a file would be put. Nothing is changed.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::address::Here;
use super::by_flag::ByFlag;
use super::hosts_toml;
use super::merge::Merged;
use super::podman::signatures;
use super::untouched::Untouched;
use super::{File, Language, MARKER};
use crate::directory::{Astray, Directory, Missing, Place};

/// No file from here is nearly as long, and no configuration that one is to be added to.
pub(crate) const LONGEST: u64 = 1 << 20;
/// The marker stands below an interpreter's line, or below the path if the file was pasted.
const MARKER_WITHIN_LINES: usize = 2;

/// A place, and what is there.
#[derive(Debug)]
pub(crate) struct Look {
    /// Where the file is, or would be. A link to somebody else's file is followed.
    pub at: PathBuf,
    /// What is there.
    pub found: Found,
}

/// What is there already.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No file.
    Nothing,
    /// All that is wanted, whoever wrote it; and what stands beside it, a clause each.
    Same(Vec<String>),
    /// All that is wanted, and these registries, for which there is no route any more; and what stands beside it, a clause each.
    Leftover(Vec<String>, Vec<String>),
    /// An earlier file from here, and how it differs, a clause.
    Older(String),
    /// Somebody else's, its text, and what would become of it.
    Lacks(String, Merged),
    /// Beside a flag of the engine's, or another file, it may not say what is wanted, whether it is there or not; a clause.
    Excluded(String),
    /// Somebody else's that can only be left; why.
    Untouched(Untouched),
}

/// Looks below `root`, which has to exist. No symbolic link is followed out of it. The error is one sentence.
pub(crate) fn look(root: &Path, file: &File, here: Option<&Here>) -> Result<Look, String> {
    let tree = open(root)?;
    let look = look_in(&tree, file, here)?;
    if let Found::Untouched(_) = look.found {
        return Ok(look);
    }
    let excluded = signatures::excludes(file, tree.path()).map(Found::Excluded);
    Ok(Look { found: excluded.unwrap_or(look.found), ..look })
}

fn look_in(tree: &Directory, file: &File, here: Option<&Here>) -> Result<Look, String> {
    let by_flag = ByFlag::beside(file, tree.path(), here)?;
    let nothing = || by_flag.as_ref().map_or(Found::Nothing, |flag| beside(flag, None));
    let place = match tree.place(file.below_root(), Missing::Tell) {
        Ok(place) => place,
        Err(Astray::Missing(at)) => return Ok(Look { at, found: nothing() }),
        Err(Astray::Link(why)) => {
            return Ok(Look { at: tree.path().join(file.below_root()), found: Found::Untouched(why.into()) });
        }
        Err(Astray::Failed(at, cause)) => return Err(failed(&at, &cause)),
    };
    let at = place.path();
    let found = match place.read(LONGEST) {
        Ok(Ok(content)) => found(&content, file, by_flag.as_ref(), here),
        Ok(Err(unfit)) => Found::Untouched(Untouched::Unfit(unfit)),
        Err(cause) if cause.kind() == ErrorKind::NotFound => nothing(),
        Err(cause) => return Err(failed(&at, &cause)),
    };
    match found {
        // It is replaced as a whole, which would put a file in the place of the link.
        Found::Older(_) if place.is_linked => {
            Ok(Look { at, found: Found::Untouched("is behind a symbolic link".into()) })
        }
        found => Ok(Look { at, found }),
    }
}

/// The tree whose files are looked at or changed. The error is one sentence.
pub(crate) fn open(root: &Path) -> Result<Directory, String> {
    Directory::open(root).map_err(|astray| astray.sentence(root))
}

fn found(content: &[u8], file: &File, by_flag: Option<&ByFlag>, here: Option<&Here>) -> Found {
    let Ok(text) = std::str::from_utf8(content) else {
        return Found::Untouched("is not UTF-8".into());
    };
    if let Some(by_flag) = by_flag {
        return beside(by_flag, Some(text));
    }
    if text == file.content {
        return Found::Same(Vec::new());
    }
    if file.language == Language::Commented && meaning(text).eq(meaning(&file.content)) {
        return Found::Same(Vec::new());
    }
    if file.wanted.is_some() && hosts_toml::is_same(text, &file.content) {
        return Found::Same(Vec::new());
    }
    if file.language != Language::Json && is_ours(content) {
        return Found::Older(difference(text, &file.content));
    }
    if let (Some(wanted), Some(here)) = (&file.wanted, here)
        && wanted.is_met(text, here)
    {
        return Found::Same(Vec::new());
    }
    let is_same = |one: &str, other: &str| here.is_some_and(|here| here.is_same(one, other));
    match file.addition.as_ref().map(|addition| addition.merge(text, &is_same)) {
        None if is_by_name(&file.path) => Found::Untouched(Untouched::Unmarked),
        None => Found::Untouched("was not written from here".into()),
        Some(Ok(merged)) if merged.lacks.is_empty() && merged.leftover.is_empty() => Found::Same(merged.beside),
        Some(Ok(merged)) if merged.lacks.is_empty() => Found::Leftover(merged.leftover, merged.beside),
        Some(Ok(merged)) => Found::Lacks(text.to_owned(), merged),
        Some(Err(why)) => Found::Untouched(why),
    }
}

/// What the file is beside a flag of the engine's.
fn beside(by_flag: &ByFlag, text: Option<&str>) -> Found {
    by_flag.judge(text).map_or_else(Found::Excluded, |clause| Found::Same(vec![clause]))
}

/// What is wrong with a file of somebody else's that sends these registries to the proxy; a clause about it.
pub(crate) fn sends(registries: &[String]) -> String {
    format!("sends {} to the proxy, which has no route for it: take that out there", registries.join(", and "))
}

/// The lines that say something.
fn meaning(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The first line that is not as it would be. What stands there is not shown, for it may be a secret of somebody's.
fn difference(old: &str, new: &str) -> String {
    let mut old = old.lines();
    match new.lines().zip(1..).find(|(line, _)| old.next() != Some(line)) {
        Some((line, number)) => format!("its line {number} would be {:?}", line.trim()),
        None => "it has more lines than it would have".to_owned(),
    }
}

pub(crate) fn is_ours(content: &[u8]) -> bool {
    content.split(|byte| *byte == b'\n').take(MARKER_WITHIN_LINES).any(|line| line.starts_with(MARKER.as_bytes()))
}

/// Whether files of this path are from here alone: their name says so.
pub(super) fn is_by_name(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.contains("acr-cache-proxy"))
}

/// Whether there is a file that carries the marker. A symbolic link is none, wherever it leads.
pub(crate) fn carries_marker(place: &Place) -> io::Result<bool> {
    match place.read(LONGEST) {
        Ok(content) => Ok(content.is_ok_and(|content| is_ours(&content))),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(cause),
    }
}

/// An error in one sentence.
pub(crate) fn failed(path: &Path, cause: &io::Error) -> String {
    format!("{}: {cause}", path.display())
}
