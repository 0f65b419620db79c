//! Another text into a file that stays somebody else's: with its mode and its owner, and the file from before beside it.

use std::io;
use std::path::PathBuf;

use super::look::{LONGEST, failed};
use crate::directory::Place;
use crate::replace::swap;

/// Puts `new` in the place of `old` in one step, and gives where the file from before is. Whatever fails, the file is as it
/// was. The error is one sentence.
pub(crate) fn amend(place: &Place, old: &str, new: &str) -> Result<PathBuf, String> {
    let changed = || io::Error::other("it has just changed: try again");
    // Somebody may have edited it since it was read.
    let unchanged = || match place.read(LONGEST)? {
        Ok(content) if content == old.as_bytes() => Ok(()),
        _ => Err(changed()),
    };
    let outcome = swap(place, new, Some("bak"), unchanged).and_then(|copy| copy.ok_or_else(changed));
    outcome.map_err(|cause| failed(&place.path(), &cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_config::look::open;
    use crate::directory::Missing;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
    use std::path::Path;

    fn text(path: &Path) -> String {
        fs::read_to_string(path).expect("it is there")
    }

    fn daemon_json(directory: &Path) -> Place {
        open(directory).expect("it is there").place("daemon.json".as_ref(), Missing::Tell).expect("no link")
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("it is there");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("one").file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_file_keeps_its_mode_and_owner_and_no_copy_is_overwritten() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("daemon.json");
        fs::write(&path, "1").expect("written");
        // Root alone may give a file away; for others it is about their own.
        let _ = chown(&path, Some(4242), Some(4243));
        let owner = |path: &Path| fs::metadata(path).map(|file| (file.uid(), file.gid())).expect("it is there");
        let before = owner(&path);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("it is ours");
        fs::write(directory.path().join("daemon.json.bak.2"), "precious").expect("written");
        symlink("/nonexistent", directory.path().join("daemon.json.bak.3")).expect("linked");
        for (old, new, copy) in [("1", "2", "daemon.json.bak"), ("2", "3", "daemon.json.bak.4")] {
            let kept = amend(&daemon_json(directory.path()), old, new).expect("amended");
            assert_eq!((text(&path).as_str(), kept.file_name().expect("a name")), (new, copy.as_ref()));
            assert_eq!(text(&kept), old);
            for file in [&path, &kept] {
                assert_eq!(fs::metadata(file).expect("there").permissions().mode() & 0o7777, 0o640);
                assert_eq!(owner(file), before);
            }
        }
        assert_eq!(text(&directory.path().join("daemon.json.bak.2")), "precious");
        assert_eq!(names(directory.path()).len(), 5, "nothing is left behind: {:?}", names(directory.path()));
    }

    #[test]
    fn a_file_that_has_just_changed_stays_and_so_does_one_with_copies_enough() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("daemon.json");
        fs::write(&path, "theirs").expect("written");
        let said = amend(&daemon_json(directory.path()), "as it was", "ours").expect_err("it has changed");
        assert!(said.ends_with("daemon.json: it has just changed: try again"), "{said}");
        assert_eq!((text(&path).as_str(), names(directory.path())), ("theirs", vec!["daemon.json".to_owned()]));
        for number in 1..=100 {
            let suffix = if number == 1 { String::new() } else { format!(".{number}") };
            fs::write(directory.path().join(format!("daemon.json.bak{suffix}")), "").expect("written");
        }
        let said = amend(&daemon_json(directory.path()), "theirs", "ours").expect_err("too many");
        assert!(said.contains("there are 100 copies of it already"), "{said}");
        assert_eq!((text(&path).as_str(), names(directory.path()).len()), ("theirs", 101));
    }
}
