//! Files of this command that are in place already: which there are, and how they go.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::look::{carries_marker, directory, failed};

/// A path of a client's configuration in which this stands for one directory of any name.
const ANY: &str = "*";

/// A file that carries the marker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Installed {
    /// Absolute, below the root that the client sees.
    pub path: String,
    /// Where it is on this machine.
    pub at: PathBuf,
    /// Its directory was made for this file, and goes with it when nothing else is left in it.
    own_directory: bool,
}

/// Every file that carries the marker at these paths below `root`, in order. A path may have one directory `*` of any
/// name before the file's. No symbolic link is followed out of `root`. The error is one sentence.
pub(crate) fn installed(root: &Path, paths: &[&str]) -> Result<Vec<Installed>, String> {
    let root = root.canonicalize().map_err(|cause| failed(root, &cause))?;
    let mut found = BTreeSet::new();
    for path in paths {
        let (directories, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (parent, own_directory) = match directories.strip_suffix(ANY) {
            Some(parent) => (parent.trim_end_matches('/'), true),
            None => (directories, false),
        };
        let relative = Path::new(parent.trim_start_matches('/'));
        // Nothing is to be made on the way, and what is behind a link out of the root is not below the root.
        if !root.join(relative).exists() {
            continue;
        }
        let Ok(below) = directory(&root, relative, |_| Ok(()))? else { continue };
        let candidates = if own_directory { subdirectories(&below)? } else { vec![String::new()] };
        for directory in candidates {
            let at = below.join(&directory).join(name);
            if carries_marker(&at).map_err(|cause| failed(&at, &cause))? {
                let path = if own_directory { format!("{parent}/{directory}/{name}") } else { (*path).to_owned() };
                found.insert(Installed { path, at, own_directory });
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// The names of its directories. A link is none; nor has a file from here a directory whose name is not UTF-8.
fn subdirectories(directory: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(|cause| failed(directory, &cause))?;
    let directories = entries.into_iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(directories.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

impl Installed {
    /// Takes the file away, and a directory that was made for it and is empty now. The error is one sentence.
    pub(crate) fn remove(&self) -> Result<(), String> {
        match fs::remove_file(&self.at) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(failed(&self.at, &cause)),
            _ => {}
        }
        if let Some(directory) = self.at.parent().filter(|_| self.own_directory) {
            // What else is in it keeps it.
            let _ = fs::remove_dir(directory);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_config::MARKER;
    use std::os::unix::fs::symlink;

    const PATHS: &[&str] = &["/etc/client/a.d/*/hosts.toml", "/etc/client/one.conf"];

    fn file(root: &Path, path: &str, content: &str) {
        let path = root.join(&path[1..]);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, content).expect("written");
    }

    fn paths(root: &Path) -> Vec<String> {
        installed(root, PATHS).expect("no error").into_iter().map(|file| file.path).collect()
    }

    #[test]
    fn only_files_that_carry_the_marker_are_found() {
        let root = tempfile::tempdir().expect("a directory");
        assert!(paths(root.path()).is_empty(), "nothing is there");
        assert!(!root.path().join("etc").exists(), "nothing is made");
        for (path, content) in [
            ("/etc/client/a.d/ghcr.io/hosts.toml", MARKER),
            ("/etc/client/a.d/ghcr.io/other.toml", MARKER),
            ("/etc/client/a.d/quay.io/hosts.toml", "# by hand\n"),
            ("/etc/client/a.d/hosts.toml", MARKER),
            ("/etc/client/a.d/deep/er/hosts.toml", MARKER),
            ("/etc/client/one.conf", MARKER),
            ("/etc/client/two.conf", MARKER),
        ] {
            file(root.path(), path, content);
        }
        fs::create_dir_all(root.path().join("etc/client/a.d/directory/hosts.toml")).expect("made");
        assert_eq!(paths(root.path()), ["/etc/client/a.d/ghcr.io/hosts.toml", "/etc/client/one.conf"]);
    }

    #[test]
    fn a_link_is_neither_a_file_from_here_nor_a_way_out_of_the_root() {
        let (root, outside) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        file(outside.path(), "/ghcr.io/hosts.toml", MARKER);
        fs::create_dir_all(root.path().join("etc/client")).expect("made");
        symlink(outside.path(), root.path().join("etc/client/a.d")).expect("linked");
        symlink(outside.path().join("ghcr.io/hosts.toml"), root.path().join("etc/client/one.conf")).expect("linked");
        assert!(paths(root.path()).is_empty());
        fs::remove_file(root.path().join("etc/client/a.d")).expect("removed");
        fs::create_dir(root.path().join("etc/client/a.d")).expect("made");
        symlink(outside.path().join("ghcr.io"), root.path().join("etc/client/a.d/ghcr.io")).expect("linked");
        assert!(paths(root.path()).is_empty());
    }

    #[test]
    fn a_removed_file_takes_its_own_directory_with_it_and_no_other() {
        let root = tempfile::tempdir().expect("a directory");
        for path in ["/etc/client/a.d/ghcr.io/hosts.toml", "/etc/client/a.d/quay.io/hosts.toml", "/etc/client/one.conf"]
        {
            file(root.path(), path, MARKER);
        }
        file(root.path(), "/etc/client/a.d/quay.io/ca.crt", "somebody else's");
        for file in installed(root.path(), PATHS).expect("no error") {
            file.remove().expect("removed");
            file.remove().expect("gone is gone");
        }
        let there = |path: &str| root.path().join(path).exists();
        assert!(!there("etc/client/a.d/ghcr.io") && there("etc/client/a.d/quay.io/ca.crt"));
        assert!(!there("etc/client/a.d/quay.io/hosts.toml") && there("etc/client") && !there("etc/client/one.conf"));
    }
}
