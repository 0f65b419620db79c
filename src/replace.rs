//! A file that takes the place of another one in one step: written beside it, with its mode and owner, and the one from before kept.

use std::fs::{self, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

/// Of a file that replaces none: everybody reads it, as clients and the proxy's own user, who owns no file, have to.
const FILE_MODE: u32 = 0o644;
/// Until it has its mode the new file is nobody else's to read.
const OWN_MODE: u32 = 0o600;
/// How many copies of one file are kept; whoever has so many has not looked at one of them.
const COPIES: u32 = 100;

/// Where a file is until it is whole: of this process only, so that two of them do not write into one.
pub(crate) fn beside(at: &Path) -> PathBuf {
    let name = at.file_name().unwrap_or_default().to_string_lossy();
    at.with_file_name(format!(".{name}.{}.new", std::process::id()))
}

/// A new file, with the mode and the owner of the one that it is to replace.
pub(crate) fn write(path: &Path, content: &str, like: Option<&Metadata>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(OWN_MODE).open(path)?;
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
pub(crate) fn keep(at: &Path, ending: &str) -> io::Result<PathBuf> {
    let name = at.file_name().unwrap_or_default().to_string_lossy();
    for number in 1..=COPIES {
        let suffix = if number == 1 { String::new() } else { format!(".{number}") };
        let copy = at.with_file_name(format!("{name}.{ending}{suffix}"));
        match fs::hard_link(at, &copy) {
            Ok(()) => return Ok(copy),
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists => {}
            Err(cause) => return Err(io::Error::new(cause.kind(), format!("no copy can be kept: {cause}"))),
        }
    }
    Err(io::Error::other(format!("there are {COPIES} copies of it already: remove those that nobody needs")))
}
