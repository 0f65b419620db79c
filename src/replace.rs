//! A file that takes the place of another one in one step: written beside it, with its mode and owner, and the one from before kept.

use std::ffi::{OsStr, OsString};
use std::fs::{Metadata, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::PathBuf;

use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::directory::{Directory, Place};

/// Of a file that replaces none: everybody reads it, as clients and the proxy's own user, who owns no file, have to.
const FILE_MODE: u32 = 0o644;
/// How many copies of one file are kept; whoever has so many has not looked at one of them.
const COPIES: u32 = 100;

/// Puts another text in the place of what is there, with its mode and its owner, and gives where the file from before is: by a second
/// name with this ending, or nowhere. `unchanged` fails if what is there is not what was looked at. After an error all is as it was.
pub(crate) fn swap(
    place: &Place,
    new: &str,
    ending: Option<&str>,
    unchanged: impl FnOnce() -> io::Result<()>,
) -> io::Result<Option<PathBuf>> {
    let model = place.metadata().ok();
    put(place, new, model.as_ref().filter(|model| model.is_file()), |beside| {
        unchanged()?;
        if model.is_none() {
            // A link is never made over a file, so one that has come meanwhile stays.
            return place.directory.link(beside, &place.name).map(|()| None);
        }
        let copy = ending.map(|ending| keep(place, ending)).transpose()?;
        place.directory.rename(beside, &place.name).inspect_err(|_| {
            // It is the file that is still in place, by another name.
            let _ = copy.as_ref().and_then(|copy| copy.file_name()).map(|copy| place.directory.remove(copy));
        })?;
        Ok(copy)
    })
}

/// Writes a file beside its place, with the mode and the owner of another one, and has `step` bring it there by its name until then. Ctrl-C
/// counts once all of it is done: no file is left that nobody knows.
pub(crate) fn put<T>(
    place: &Place,
    content: &str,
    like: Option<&Metadata>,
    step: impl FnOnce(&OsStr) -> io::Result<T>,
) -> io::Result<T> {
    let beside = beside(&place.name);
    without_signals(|| {
        let outcome = write(&place.directory, &beside, content, like).and_then(|()| step(&beside));
        // Gone, if it was renamed; and the first error is the one to tell.
        let _ = place.directory.remove(&beside);
        // Without it a loss of power leaves the file from before, or this one, whole. An error would say that nothing was done.
        let _ = place.directory.sync();
        outcome
    })
}

/// Does the work while signals that end this process wait.
fn without_signals<T>(work: impl FnOnce() -> T) -> T {
    let ending: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    let before = ending.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok();
    let outcome = work();
    if let Some(before) = before {
        // Of a mask that was just in use there is nothing wrong.
        let _ = before.thread_set_mask();
    }
    outcome
}

/// The name of a file until it is whole: of this process only, so that two of them do not write into one.
fn beside(name: &OsStr) -> OsString {
    format!(".{}.{}.new", name.to_string_lossy(), std::process::id()).into()
}

/// A new file, with the mode and the owner of the one that it is to replace. Until it has its mode it is nobody else's to read.
fn write(directory: &Directory, name: &OsStr, content: &str, like: Option<&Metadata>) -> io::Result<()> {
    let mut file = directory.file(name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)?;
    file.write_all(content.as_bytes())?;
    let is = file.metadata()?;
    let (uid, gid) = like.map_or((is.uid(), is.gid()), |like| (like.uid(), like.gid()));
    if (is.uid(), is.gid()) != (uid, gid) {
        let cannot = |cause: io::Error| io::Error::new(cause.kind(), format!("its owner cannot be kept: {cause}"));
        fchown(&file, Some(uid), Some(gid)).map_err(cannot)?;
    }
    file.set_permissions(Permissions::from_mode(like.map_or(FILE_MODE, |like| like.mode() & 0o7777)))?;
    file.sync_all()
}

/// The file by a second name that was free: `daemon.json.bak`, `daemon.json.bak.2` for the ending `bak`. It is the same file with all
/// that belongs to it, and a link is never made over another file.
fn keep(Place { directory, name, .. }: &Place, ending: &str) -> io::Result<PathBuf> {
    for number in 1..=COPIES {
        let suffix = if number == 1 { String::new() } else { format!(".{number}") };
        let copy = format!("{}.{ending}{suffix}", name.to_string_lossy());
        match directory.link(name, copy.as_ref()) {
            Ok(()) => return Ok(directory.path().join(copy)),
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists => {}
            Err(cause) => return Err(io::Error::new(cause.kind(), format!("no copy can be kept: {cause}"))),
        }
    }
    Err(io::Error::other(format!("there are {COPIES} copies of it already: remove those that nobody needs")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Missing;
    use std::fs;

    fn place(directory: &std::path::Path) -> Place {
        Directory::open(directory).and_then(|tree| tree.place("a".as_ref(), Missing::Tell)).expect("no link")
    }

    fn files(directory: &std::path::Path) -> Vec<(String, String)> {
        let files = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("one").path());
        let name = |path: &std::path::Path| path.file_name().expect("a name").to_string_lossy().into_owned();
        let mut files: Vec<_> = files.map(|path| (name(&path), fs::read_to_string(&path).expect("text"))).collect();
        files.sort_unstable();
        files
    }

    /// The copy that `init` had made stayed.
    #[test]
    fn whatever_fails_nothing_is_left_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = place(directory.path());
        let new = place.directory.path().join(beside(&place.name));
        let failures: [&dyn Fn() -> io::Result<()>; 2] =
            // It cannot be renamed: somebody else has taken it away.
            [&|| fs::remove_file(&new), &|| Err(io::Error::other("it has changed"))];
        for before in [None, Some("1")] {
            if let Some(text) = before {
                fs::write(place.path(), text).expect("written");
            }
            let expected = before.map(|text| ("a".to_owned(), text.to_owned()));
            for failure in failures {
                assert!(swap(&place, "2", Some("old"), failure).is_err());
                assert_eq!(files(directory.path()), Vec::from_iter(expected.clone()));
            }
        }
    }

    /// Ctrl-C while `client-config` added to a file left the new one beside it.
    #[test]
    fn a_signal_waits_until_the_file_is_in_its_place() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = place(directory.path());
        let is_blocked = || SigSet::thread_get_mask().expect("a mask").contains(Signal::SIGINT);
        for text in ["1", "2"] {
            let waits = || if is_blocked() { Ok(()) } else { Err(io::Error::other("it ends this process")) };
            swap(&place, text, None, waits).expect("it waits");
            assert!(!is_blocked());
            assert_eq!(files(directory.path()), [("a".to_owned(), text.to_owned())]);
        }
    }
}
