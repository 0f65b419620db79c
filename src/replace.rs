//! A file that takes the place of another one in one step: written beside it, with its mode and owner, and the one from before kept.

use std::ffi::{OsStr, OsString};
use std::fs::{Metadata, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::PathBuf;

use nix::fcntl::OFlag;

use crate::directory::{Directory, Place};

/// Of a file that replaces none: everybody reads it, as clients and the proxy's own user, who owns no file, have to.
const FILE_MODE: u32 = 0o644;
/// How many copies of one file are kept; whoever has so many has not looked at one of them.
const COPIES: u32 = 100;

/// The name of a file until it is whole: of this process only, so that two of them do not write into one.
pub(crate) fn beside(name: &OsStr) -> OsString {
    format!(".{}.{}.new", name.to_string_lossy(), std::process::id()).into()
}

/// A new file, with the mode and the owner of the one that it is to replace. Until it has its mode it is nobody else's to read.
pub(crate) fn write(directory: &Directory, name: &OsStr, content: &str, like: Option<&Metadata>) -> io::Result<()> {
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
pub(crate) fn keep(Place { directory, name, .. }: &Place, ending: &str) -> io::Result<PathBuf> {
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
