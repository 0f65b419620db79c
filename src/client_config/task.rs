//! Shows a client's files, puts them in place or removes them.
//!
//! What can be pasted, and what has become of each file, goes to standard output; all words about it to standard error.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use oci::printable;
use similar::TextDiff;

use super::install::{Outcome, install};
use super::left::left;
use super::look::{Found, Look, look, open, sends};
use super::masked::masked;
use super::merge::Merged;
use super::podman::{REGISTRIES_CONF, REGISTRIES_D};
use super::prune::{self, Installed};
use super::{Client, File, Language, Setup, of_node};
use crate::host::Host;

/// Lines around a difference.
const CONTEXT: usize = 1;

/// Why a file from here is not needed any more, clauses about it.
const GONE: &str = "is left from a route that is gone";
const UNWANTED: &str = "is not needed, because no policy.json here requires a sigstore signature, and keeps signed images from being pushed and copied";

/// What to do with a client's files.
#[derive(Debug)]
pub(crate) enum Task {
    /// Show them.
    Show(Setup),
    /// Only list the files that pruning removes.
    ListStale {
        /// The files of today.
        setup: Setup,
        /// Below which they are.
        root: PathBuf,
    },
    /// Tell which of them stand as they would be written.
    Check {
        /// The files.
        setup: Setup,
        /// Below which they are.
        root: PathBuf,
    },
    /// Put them in place.
    Write {
        /// The files.
        setup: Setup,
        /// Below which they go.
        root: PathBuf,
        /// How.
        how: How,
    },
    /// Remove whatever this command wrote for a client.
    Remove {
        /// Whose files.
        client: Client,
        /// Below which they are.
        root: PathBuf,
        /// Do it; otherwise only tell what would go.
        write: bool,
    },
}

/// How files are put in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct How {
    /// Remove those that an earlier run wrote and no route needs any more.
    pub prune: bool,
    /// Add to files of somebody else what they lack.
    pub merge: bool,
    /// Only tell what would become of them.
    pub dry: bool,
}

/// Does it. The error is one sentence.
pub(crate) fn run(task: &Task) -> Result<(), String> {
    match task {
        Task::Show(setup) => show(setup),
        Task::ListStale { setup, root } => list_stale(setup, root),
        Task::Check { setup, root } => check(setup, root),
        Task::Write { setup, root, how } => write(setup, root, *how),
        Task::Remove { client, root, write } => remove(*client, root, *write),
    }
}

fn show(setup: &Setup) -> Result<(), String> {
    let (files, about) = shown(setup);
    eprint!("{about}");
    io::stdout().write_all(files.as_bytes()).map_err(|cause| format!("standard output: {cause}"))
}

fn list_stale(setup: &Setup, root: &Path) -> Result<(), String> {
    let stale = setup.stale(root)?;
    stale.iter().for_each(|file| say("would remove", &file.at));
    tell_stale(setup, &stale);
    let mut is_clean = stale.is_empty();
    // What a file of somebody else's has of such a route, goes by an editor.
    for look in setup.files.iter().filter_map(|file| look(root, file, setup.here.as_ref()).ok()) {
        if let Found::Leftover(registries, _) | Found::Lacks(_, Merged { leftover: registries, .. }) = &look.found
            && !registries.is_empty()
        {
            is_clean = false;
            tell(format_args!("{} {}", look.at.display(), sends(registries)));
        }
    }
    if is_clean {
        let name = setup.client.name();
        tell(format_args!(
            "nothing to prune: below {} no file of {name} is left from a route that is gone",
            root.display()
        ));
    }
    Ok(())
}

fn check(setup: &Setup, root: &Path) -> Result<(), String> {
    let files = setup.standing(root);
    for file in &files {
        let _ = writeln!(io::stdout(), "{}", printable::line(&file.to_string()));
    }
    if files.is_empty() {
        eprint!("{}", noted(&setup.notes));
    }
    outcome(&[("files that do not stand as they would be written", files.iter().filter(|file| !file.stands()).count())])
}

fn write(setup: &Setup, root: &Path, how: How) -> Result<(), String> {
    let stale = setup.stale(root)?;
    let (mut left, mut failed, mut is_denied) = (Vec::new(), 0, false);
    for file in &setup.files {
        let put = look(root, file, setup.here.as_ref()).and_then(|look| put(root, file, &look, how));
        match put {
            Ok(is_left) => left.extend(is_left.then_some(&*file.path)),
            Err(cause) => {
                failed += 1;
                is_denied |= cause.contains(Errno::EACCES.desc());
                tell(cause);
            }
        }
    }
    if is_denied && !nix::unistd::geteuid().is_root() {
        tell("you are not root: run the same command with sudo");
    }
    let mut kept = 0;
    match (how.prune, how.dry) {
        (true, true) => stale.iter().for_each(|file| say("would remove", &file.at)),
        (true, false) => kept = remove_all(root, &stale),
        (false, _) => tell_stale(setup, &stale),
    }
    // What an engine reads is of no use where nothing was written.
    if failed == 0 || failed < setup.files.len() {
        // Their commands would do something to this host's engines.
        if root != Path::new("/") && !setup.notes.is_empty() {
            tell("what follows is to be done on the host whose files these are, and not here:");
        }
        if !left.is_empty() && !setup.notes.is_empty() {
            tell(format_args!("what follows is so only after the above is done for {}:", left.join(", ")));
        }
        eprint!("{}", noted(&setup.notes));
    }
    outcome(&[
        ("files that were left as they are", left.len()),
        ("files that could not be written", failed),
        ("files that could not be removed", kept),
    ])
}

/// Puts one file in place, and tells what has become of it, the difference first. Gives whether it was left as it is.
fn put(root: &Path, file: &File, look: &Look, how: How) -> Result<bool, String> {
    let at = &look.at;
    let beside = match &look.found {
        Found::Lacks(old, merged) if how.merge => {
            let _ = write!(io::stdout(), "{}", difference(at, old, &merged.text));
            &merged.beside[..]
        }
        Found::Same(beside) | Found::Leftover(_, beside) => &beside[..],
        _ => &[],
    };
    for clause in beside {
        tell(format_args!("{}: {clause}", at.display()));
    }
    if let Found::Leftover(registries, _) | Found::Lacks(_, Merged { leftover: registries, .. }) = &look.found
        && !registries.is_empty()
    {
        tell(format_args!("{} {}", at.display(), sends(registries)));
    }
    let outcome = match &look.found {
        Found::Excluded(why) => {
            tell(format_args!("{} is left as it is: {why}", at.display()));
            return Ok(true);
        }
        Found::Nothing | Found::Older(_) if how.dry => {
            say("would write", at);
            return Ok(false);
        }
        Found::Lacks(..) if how.merge && how.dry => {
            say("would merge", at);
            return Ok(false);
        }
        _ => install(root, file, look, how.merge)?,
    };
    match outcome {
        Outcome::Written => say("wrote", at),
        Outcome::Unchanged => say("unchanged", at),
        Outcome::Merged(copy) => {
            say("merged", at);
            say("kept", &copy);
        }
        Outcome::Left(why) => {
            if let Some(remedy) = why.remedy() {
                tell(format_args!("{} {why}, and is left as it is: {remedy}, and run this again", at.display()));
                return Ok(true);
            }
            let merges = matches!(look.found, Found::Lacks(..));
            let how = match merges {
                true => "--merge adds to it, or merge this into it",
                // Nothing here adds to it, and what is pasted below its own `server` would break it.
                false if file.wanted.is_some() => "merge this into it, each key once",
                false => "merge this into it",
            };
            tell(format_args!("{} {why}. It is left as it is; {how}:", at.display()));
            eprint!("\n{}\n", file.to_merge());
            return Ok(true);
        }
    }
    Ok(false)
}

/// What `patch` takes, where no line has a secret.
fn difference(at: &Path, old: &str, new: &str) -> String {
    let name = at.display().to_string();
    masked(&TextDiff::from_lines(old, new).unified_diff().context_radius(CONTEXT).header(&name, &name).to_string())
}

fn remove(client: Client, root: &Path, write: bool) -> Result<(), String> {
    let mut paths = client.paths().to_vec();
    // Where nobody can say which file a node reads, the usual one is left to look at.
    let other = client.is_node().then(|| of_node(&Host::new(root.to_owned()), client).ok()).flatten();
    let other = other.map(|(path, _)| path).filter(|other| !paths.contains(&other.as_str()));
    paths.extend(other.as_deref());
    let files = prune::installed(root, &paths)?;
    if files.is_empty() {
        tell(format_args!("no file of this command is below {}", root.display()));
    }
    let left = left(client, open(root)?.path(), &paths);
    left.iter().for_each(tell);
    let kept = if write {
        remove_all(root, &files)
    } else {
        files.iter().for_each(|file| say("would remove", &file.at));
        0
    };
    if let Some(then) = client.after_removal() {
        tell(then);
    }
    outcome(&[("files that were left as they are", left.len()), ("files that could not be removed", kept)])
}

/// Gives how many of the files are still there.
fn remove_all(root: &Path, files: &[Installed]) -> usize {
    let mut kept = 0;
    for file in files {
        match file.remove(root) {
            Ok(()) => say("removed", &file.at),
            Err(cause) => {
                kept += 1;
                tell(cause);
            }
        }
    }
    kept
}

fn tell_stale(setup: &Setup, files: &[Installed]) {
    for file in files {
        let why = setup.why_stale(&file.path);
        let then = if why == GONE { ", and the proxy refuses the pulls that it sends here" } else { "" };
        tell(format_args!("{} {why}{then}: --write --prune removes it", file.at.display()));
    }
}

/// Nobody reading along is no reason to stop half-way.
fn say(word: &str, path: &Path) {
    let _ = writeln!(io::stdout(), "{word} {}", printable::line(&path.display().to_string()));
}

/// A line about the files.
fn tell(said: impl Display) {
    eprintln!("acr-cache-proxy: {}", printable::line(&said.to_string()));
}

/// One sentence of what did not go well, by how often each did not.
fn outcome(counts: &[(&str, usize)]) -> Result<(), String> {
    let parts: Vec<_> =
        counts.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{what}: {count}")).collect();
    if parts.is_empty() { Ok(()) } else { Err(parts.join("; ")) }
}

impl Setup {
    /// Files below the root that an earlier run wrote for this client, and that the routes of today do not need.
    pub(super) fn stale(&self, root: &Path) -> Result<Vec<Installed>, String> {
        if self.client.is_node() {
            // It has one file for all routes.
            return Ok(Vec::new());
        }
        let mut found = prune::installed(root, self.client.paths())?;
        found.retain(|installed| !self.files.iter().any(|file| file.path == installed.path));
        Ok(found)
    }

    /// Why such a file is not needed any more, a clause about it.
    pub(super) fn why_stale(&self, path: &str) -> &'static str {
        // The other file of podman's is for the routes.
        let is_routed = self.files.iter().any(|file| file.path == REGISTRIES_CONF);
        if path == REGISTRIES_D && is_routed { UNWANTED } else { GONE }
    }
}

/// What goes to standard output, and to standard error.
pub(crate) fn shown(setup: &Setup) -> (String, String) {
    let (mut files, mut about) = (setup.printed.clone(), String::new());
    for file in setup.files.iter().filter(|file| !file.held) {
        if !files.is_empty() {
            files.push('\n');
        }
        match file.language {
            Language::Commented => files += &format!("# {}\n", file.path),
            Language::Json => files += &format!("# {} (without this line: JSON has no comments)\n", file.path),
            // It can be piped to where it belongs, and a path above it would make another file of it.
            Language::Shell => about += &format!("acr-cache-proxy: this is {}\n", file.path),
        }
        files += &file.content;
    }
    (files, about + &noted(&setup.notes))
}

fn noted(notes: &[String]) -> String {
    notes.iter().map(|note| format!("acr-cache-proxy: {}\n", printable::lines(note.trim_end()))).collect()
}
