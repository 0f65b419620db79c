//! Files of this command that are in place already: which there are, and how they go.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::look::{carries_marker, failed, open};
use crate::directory::{Astray, Directory, Missing, Place};

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
    let tree = open(root)?;
    let mut found = BTreeSet::new();
    for path in paths {
        let (directories, name) = path.rsplit_once('/').unwrap_or(("", path));
        let candidates = match directories.strip_suffix(ANY) {
            Some(parent) => with_own_directory(&tree, parent, name)?,
            None => vec![((*path).to_owned(), false)],
        };
        for (path, own_directory) in candidates {
            let Some(place) = place(&tree, &path)? else { continue };
            let at = place.path();
            if carries_marker(&place).map_err(|cause| failed(&at, &cause))? {
                found.insert(Installed { path, at, own_directory });
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// The paths of files of this name, each in a directory of its own in that one. A link is none; nor has a file from here a directory
/// whose name is not UTF-8.
fn with_own_directory(tree: &Directory, parent: &str, name: &str) -> Result<Vec<(String, bool)>, String> {
    let Some(parent_directory) = there(tree.below(below_root(parent)), tree)? else { return Ok(Vec::new()) };
    let directories = parent_directory.directories().map_err(|cause| failed(parent_directory.path(), &cause))?;
    Ok(directories.into_iter().map(|directory| (format!("{parent}{directory}/{name}"), true)).collect())
}

/// Where a file of this path is, if it is below the root. It is no file from here if it is a link.
fn place(tree: &Directory, path: &str) -> Result<Option<Place>, String> {
    let place = there(tree.place(below_root(path), Missing::Tell), tree)?;
    Ok(place.filter(|place| !place.is_linked))
}

/// What is behind a link that is not followed is not below the root.
fn there<T>(found: Result<T, Astray>, tree: &Directory) -> Result<Option<T>, String> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Astray::Missing(_) | Astray::Link(_)) => Ok(None),
        Err(astray) => Err(astray.sentence(tree.path())),
    }
}

fn below_root(path: &str) -> &Path {
    Path::new(path.trim_start_matches('/'))
}

impl Installed {
    /// Takes the file away, and a directory that was made for it and is empty now. The error is one sentence.
    pub(crate) fn remove(&self, root: &Path) -> Result<(), String> {
        let tree = open(root)?;
        let Some(file) = place(&tree, &self.path)? else { return Ok(()) };
        match file.directory.remove(&file.name) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(failed(&self.at, &cause)),
            _ => {}
        }
        let directory = self.path.rsplit_once('/').map(|(directory, _)| directory).filter(|_| self.own_directory);
        if let Some(own) = directory.map(|path| place(&tree, path)).transpose()?.flatten() {
            // What else is in it keeps it.
            let _ = own.directory.remove_directory(&own.name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_config::MARKER;
    use std::fs;
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
            file.remove(root.path()).expect("removed");
            file.remove(root.path()).expect("gone is gone");
        }
        let there = |path: &str| root.path().join(path).exists();
        assert!(!there("etc/client/a.d/ghcr.io") && there("etc/client/a.d/quay.io/ca.crt"));
        assert!(!there("etc/client/a.d/quay.io/hosts.toml") && there("etc/client") && !there("etc/client/one.conf"));
    }
}
