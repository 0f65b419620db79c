//! Shows a client's files, puts them in place or removes them.
//!
//! What can be pasted, and what has become of each file, goes to standard output; all words about it to standard error.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::install::{self, Outcome};
use super::prune::{self, Installed};
use super::{Client, Language, Setup};

/// What to do with a client's files.
#[derive(Debug)]
pub(crate) enum Task {
    /// Show them; with a root, tell which files below it would be pruned.
    Show(Setup, Option<PathBuf>),
    /// Put them in place.
    Write {
        /// The files.
        setup: Setup,
        /// Below which they go.
        root: PathBuf,
        /// Remove those that an earlier run wrote and no route needs any more.
        prune: bool,
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

/// Does it. The error is one sentence.
pub(crate) fn run(task: &Task) -> Result<(), String> {
    if let Task::Show(_, Some(root)) | Task::Write { root, .. } | Task::Remove { root, .. } = task {
        look_at(root)?;
    }
    match task {
        Task::Show(setup, root) => show(setup, root.as_deref()),
        Task::Write { setup, root, prune } => write(setup, root, *prune),
        Task::Remove { client, root, write } => remove(*client, root, *write),
    }
}

/// A root has to exist: one that were made would be somebody's slip of the pen, and the files would count nowhere.
fn look_at(root: &Path) -> Result<(), String> {
    let wrong = match root.metadata() {
        Ok(root) if root.is_dir() => return Ok(()),
        Ok(_) => "it is no directory".to_owned(),
        Err(cause) => cause.to_string(),
    };
    Err(format!("--root {}: {wrong}: name a directory that is there", root.display()))
}

fn show(setup: &Setup, root: Option<&Path>) -> Result<(), String> {
    let (files, about) = shown(setup);
    eprint!("{about}");
    io::stdout().write_all(files.as_bytes()).map_err(|cause| format!("standard output: {cause}"))?;
    if let Some(root) = root {
        tell_stale(&setup.stale(root)?);
    }
    Ok(())
}

fn write(setup: &Setup, root: &Path, prune: bool) -> Result<(), String> {
    let stale = setup.stale(root)?;
    let (mut left, mut failed) = (0, 0);
    for file in &setup.files {
        match install::install(root, file) {
            Ok((path, Outcome::Written)) => say("wrote", &path),
            Ok((path, Outcome::Unchanged)) => say("unchanged", &path),
            Ok((path, Outcome::Left(why))) => {
                left += 1;
                eprint!(
                    "acr-cache-proxy: {} {why} and is left as it is; merge this into it:\n\n{}\n",
                    path.display(),
                    file.to_merge()
                );
            }
            Err(cause) => {
                failed += 1;
                eprintln!("acr-cache-proxy: {cause}");
            }
        }
    }
    let kept = if prune { remove_all(&stale) } else { 0 };
    if !prune {
        tell_stale(&stale);
    }
    eprint!("{}", noted(&setup.notes));
    outcome(&[
        ("files that were left as they are", left),
        ("files that could not be written", failed),
        ("files that could not be removed", kept),
    ])
}

fn remove(client: Client, root: &Path, write: bool) -> Result<(), String> {
    let files = prune::installed(root, client.paths())?;
    if files.is_empty() {
        eprintln!("acr-cache-proxy: no file of this command is below {}", root.display());
    }
    if !write {
        files.iter().for_each(|file| say("would remove", &file.at));
        return Ok(());
    }
    let kept = remove_all(&files);
    eprintln!("acr-cache-proxy: {}", client.after_removal());
    outcome(&[("files that could not be removed", kept)])
}

/// Gives how many of the files are still there.
fn remove_all(files: &[Installed]) -> usize {
    let mut kept = 0;
    for file in files {
        match file.remove() {
            Ok(()) => say("removed", &file.at),
            Err(cause) => {
                kept += 1;
                eprintln!("acr-cache-proxy: {cause}");
            }
        }
    }
    kept
}

fn tell_stale(files: &[Installed]) {
    for file in files {
        eprintln!(
            "acr-cache-proxy: {} is left from a route that is gone, and the proxy refuses the pulls that it sends here: --write --prune removes it",
            file.at.display()
        );
    }
}

/// Nobody reading along is no reason to stop half-way.
fn say(word: &str, path: &Path) {
    let _ = writeln!(io::stdout(), "{word} {}", path.display());
}

/// One sentence of what did not go well, by how often each did not.
fn outcome(counts: &[(&str, usize)]) -> Result<(), String> {
    let parts: Vec<_> =
        counts.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{what}: {count}")).collect();
    if parts.is_empty() { Ok(()) } else { Err(parts.join("; ")) }
}

impl Setup {
    /// Files below the root that an earlier run wrote for this client, and that the routes of today do not need.
    fn stale(&self, root: &Path) -> Result<Vec<Installed>, String> {
        let mut found = prune::installed(root, self.client.paths())?;
        found.retain(|installed| !self.files.iter().any(|file| file.path == installed.path));
        Ok(found)
    }
}

/// What goes to standard output, and to standard error.
pub(crate) fn shown(setup: &Setup) -> (String, String) {
    let (mut files, mut about) = (String::new(), String::new());
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
    notes.iter().map(|note| format!("acr-cache-proxy: {}\n", note.trim_end())).collect()
}
