//! Where a path of a tree leads for a program whose root the tree is: a link, also an absolute one, leads to a place in the tree.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

/// As many as the kernel follows in one path (path_resolution(7)).
pub(crate) const MOST_LINKS: usize = 40;

/// The place on this machine. What is missing on the way is missing there, too. The error is about a link or a directory of the way.
pub(crate) fn lead(root: &Path, path: &Path) -> io::Result<PathBuf> {
    if root == Path::new("/") {
        // The kernel does the same.
        return Ok(root.join(path));
    }
    let mut at = root.to_owned();
    let (mut depth, mut links) = (0_usize, 0);
    // The next step is the last one of it.
    let mut ahead = steps(path);
    while let Some(step) = ahead.pop() {
        if step == ".." {
            // Above the top is the top itself.
            if depth > 0 {
                at.pop();
                depth -= 1;
            }
            continue;
        }
        let next = at.join(&step);
        match fs::symlink_metadata(&next) {
            Ok(found) if found.is_symlink() => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(io::Error::other("its links lead to too many others"));
                }
                let target = fs::read_link(&next)?;
                if target.is_absolute() {
                    root.clone_into(&mut at);
                    depth = 0;
                }
                ahead.extend(steps(&target));
                continue;
            }
            Ok(_) => {}
            Err(cause) if matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(cause) => return Err(cause),
        }
        at = next;
        depth += 1;
    }
    Ok(at)
}

/// The steps of a path, the last one first.
pub(crate) fn steps(path: &Path) -> Vec<OsString> {
    let steps = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    });
    steps.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_leads_to_a_place_in_the_tree() {
        let tree = tempfile::tempdir().expect("a directory");
        let root = tree.path();
        fs::create_dir_all(root.join("usr/lib")).expect("made");
        fs::create_dir_all(root.join("etc/a")).expect("made");
        for (link, target) in [
            ("lib", "usr/lib"),
            ("etc/a/absolute", "/usr/lib/file"),
            ("etc/a/twice", "/etc/a/absolute"),
            ("etc/a/above", "../../../../usr/lib/file"),
            ("etc/a/loop", "loop"),
            ("etc/a/outside", "/proc/self"),
        ] {
            symlink(target, root.join(link)).expect("linked");
        }
        for (path, expected) in [
            ("/lib/file", Some("usr/lib/file")),
            ("/etc/a/absolute", Some("usr/lib/file")),
            ("/etc/a/twice", Some("usr/lib/file")),
            ("/etc/a/above", Some("usr/lib/file")),
            ("/../etc/none/../a/file", Some("etc/a/file")),
            ("/etc/a/outside/status", Some("proc/self/status")),
            ("/etc/a/loop", None),
        ] {
            let found = lead(root, Path::new(path)).ok();
            assert_eq!(found, expected.map(|expected| root.join(expected)), "{path}");
        }
    }
}
