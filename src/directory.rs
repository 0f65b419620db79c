//! A path below a root, walked from one open directory to the next: whoever may change the tree leads nobody out of it by a link, not
//! even while it is walked.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, Permissions};
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs};
use nix::unistd::{AccessFlags, UnlinkatFlags, faccessat, geteuid, linkat, unlinkat};

use crate::chroot::{MOST_LINKS, steps};

/// Of a directory that is made here; clients read what is in it.
const MODE: u32 = 0o755;
/// A directory to walk on from, which may be one that may not be listed.
const WALK: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// A directory that is held open, so that it stays the same one whatever becomes of its name.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    itself: Rc<OwnedFd>,
    path: PathBuf,
}

/// Where a file is or would be: itself, not a link to it.
#[derive(Debug)]
pub(crate) struct Place {
    /// In which it is.
    pub directory: Directory,
    /// By which it is known there.
    pub name: OsString,
    /// A link of another name led here.
    pub is_linked: bool,
}

/// Why a path leads nowhere.
#[derive(Debug)]
pub(crate) enum Astray {
    /// A directory of it is missing; where the whole path would lead.
    Missing(PathBuf),
    /// A link of it is not followed; a clause about what the path names.
    Link(String),
    /// An error of the system, at this path.
    Failed(PathBuf, io::Error),
}

/// Why what is there is not read. Displays as a clause about the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    Directory,
    /// A device, a FIFO or a socket.
    Irregular,
    /// It has more than so many bytes.
    TooLong(u64),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => f.write_str("is a directory"),
            Self::Irregular => f.write_str("is no regular file"),
            Self::TooLong(longest) => write!(f, "is longer than {longest} bytes"),
        }
    }
}

/// What a directory that is missing on the way means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Make,
    Tell,
}

/// What a path names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Directory,
    File,
}

/// What is there by a name.
enum Entry {
    Nothing,
    Directory(Directory),
    /// Where it leads, and whose it is.
    Link(PathBuf, u32),
    Other,
}

impl Astray {
    /// One sentence, about what `path` names.
    pub(crate) fn sentence(&self, path: &Path) -> String {
        match self {
            Self::Missing(missing) => format!("{}: it is not there", missing.display()),
            Self::Link(clause) => format!("{} {clause}", path.display()),
            Self::Failed(at, cause) => format!("{}: {cause}", at.display()),
        }
    }
}

impl Directory {
    /// The directory of a path that somebody has named: its links are held to the same rules as those below it.
    pub(crate) fn open(path: &Path) -> Result<Self, Astray> {
        let failed = |cause| Astray::Failed(path.to_owned(), cause);
        let top = open("/", WALK, Mode::empty()).map_err(|cause| failed(cause.into()))?;
        let top = Self { itself: Rc::new(top), path: "/".into() };
        let absolute = std::path::absolute(path).map_err(failed)?;
        top.walk(&absolute, End::Directory, Missing::Tell).map(|(directory, ..)| directory)
    }

    /// Whether the kernel shows something of its own in it and takes no files, as in /proc and /sys.
    pub(crate) fn is_kernels(&self) -> io::Result<bool> {
        let system = fstatfs(&self.itself)?.filesystem_type();
        Ok([PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(&system))
    }

    /// Whether whoever runs this may make files in it; the error is why not.
    pub(crate) fn may_make(&self) -> io::Result<()> {
        let how = AccessFlags::W_OK | AccessFlags::X_OK;
        Ok(faccessat(&*self.itself, ".", how, AtFlags::AT_EACCESS)?)
    }

    /// Without a link, if it was walked to.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory at a path below this one.
    pub(crate) fn below(&self, path: &Path) -> Result<Self, Astray> {
        self.walk(path, End::Directory, Missing::Tell).map(|(directory, ..)| directory)
    }

    /// Where the file of a path below this one is, or would be.
    pub(crate) fn place(&self, path: &Path, missing: Missing) -> Result<Place, Astray> {
        match self.walk(path, End::File, missing)? {
            (directory, Some(name), is_linked) => Ok(Place { directory, name, is_linked }),
            (directory, None, _) => Err(Astray::Failed(directory.path, ErrorKind::IsADirectory.into())),
        }
    }

    /// Walks as far as there is something to enter. A link is followed if nobody but root and who runs this could have made it or put it
    /// there, and if it does not lead out of this directory.
    fn walk(&self, path: &Path, end: End, missing: Missing) -> Result<(Self, Option<OsString>, bool), Astray> {
        let mut above: Vec<Self> = Vec::new();
        // The next step is the last one of it.
        let mut ahead = steps(path);
        // What a link has added lies before so many steps of the path itself.
        let mut own = usize::MAX;
        let mut links = 0;
        // Of the link that was followed last, if it turns out to lead wrong.
        let mut refuse: Box<dyn Fn(&str) -> Astray> = Box::new(|why| Astray::Link(why.to_owned()));
        while let Some(name) = ahead.pop() {
            let here = above.last().unwrap_or(self);
            if name == ".." {
                // Above the top is the top itself.
                if above.pop().is_none() && self.path != Path::new("/") {
                    return Err(refuse(&format!("out of {}", self.path.display())));
                }
                continue;
            }
            let is_last = end == End::File && ahead.is_empty();
            let at = here.path.join(&name);
            let entry = here.entry(&name).map_err(|cause| Astray::Failed(at.clone(), cause))?;
            match entry {
                Entry::Nothing if ahead.len() >= own => return Err(refuse("that leads nowhere")),
                Entry::Link(target, owner) => {
                    let link = at.display().to_string();
                    refuse = Box::new(move |why| {
                        let is = if is_last { "a symbolic link".to_owned() } else { format!("behind {link}, a link") };
                        Astray::Link(format!("is {is} {why}"))
                    });
                    here.trusts(owner)
                        .map_err(|cause| Astray::Failed(at.clone(), cause))?
                        .map_err(|why| refuse(&why))?;
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(refuse("that leads to too many others"));
                    }
                    own = own.min(ahead.len());
                    let target = if target.is_absolute() {
                        above.clear();
                        let below = target.strip_prefix(&self.path);
                        below.map_err(|_| refuse(&format!("out of {}", self.path.display())))?
                    } else {
                        &target
                    };
                    ahead.extend(steps(target));
                }
                _ if is_last => return Ok((here.clone(), Some(name), links > 0 && own == 0)),
                Entry::Directory(directory) => above.push(directory),
                Entry::Nothing if missing == Missing::Tell => {
                    return Err(Astray::Missing(ahead.iter().rev().fold(at, |at, step| at.join(step))));
                }
                Entry::Nothing => {
                    let made = here.make(&name).map_err(|cause| Astray::Failed(at, cause))?;
                    above.push(made);
                }
                Entry::Other => return Err(Astray::Failed(at, ErrorKind::NotADirectory.into())),
            }
        }
        Ok((above.pop().unwrap_or_else(|| self.clone()), None, false))
    }

    /// Whether a link of this owner in this directory is followed. Whoever owns a directory can put a link of somebody else's under another
    /// name. The inner error is the end of a clause about the link.
    fn trusts(&self, owner: u32) -> io::Result<Result<(), String>> {
        let me = geteuid().as_raw();
        let directory = self.file(".", OFlag::O_PATH)?.metadata()?.uid();
        let is_foreign = |user: u32| user != 0 && user != me;
        let rule = "only a link of root, or of who runs this, in a directory of one of them is followed";
        Ok(match (is_foreign(owner), is_foreign(directory)) {
            (true, _) => Err(format!("of user {owner}: {rule}")),
            (_, true) => Err(format!("in a directory of user {directory}: {rule}")),
            (false, false) => Ok(()),
        })
    }

    fn entry(&self, name: &OsStr) -> io::Result<Entry> {
        match self.enter(name) {
            Ok(directory) => return Ok(Entry::Directory(directory)),
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Entry::Nothing),
            Err(cause) if cause.kind() == ErrorKind::NotADirectory => {}
            Err(cause) => return Err(cause),
        }
        // What is read is the link that was looked at, whatever has its name by now.
        let itself = self.file(name, OFlag::O_PATH)?;
        let metadata = itself.metadata()?;
        if !metadata.is_symlink() {
            return Ok(Entry::Other);
        }
        Ok(Entry::Link(readlinkat(&itself, "")?.into(), metadata.uid()))
    }

    fn enter(&self, name: &OsStr) -> io::Result<Self> {
        let itself = Rc::new(openat(&*self.itself, name, WALK, Mode::empty())?);
        Ok(Self { itself, path: self.path.join(name) })
    }

    fn make(&self, name: &OsStr) -> io::Result<Self> {
        mkdirat(&*self.itself, name, Mode::from_bits_truncate(MODE))?;
        self.let_read(name)?;
        self.enter(name)
    }

    /// Gives a directory its mode again, for the mask of this process may have taken from it what clients need to read it. Whoever owns its
    /// parent may have put a link in its place, to a file that is nobody's to read.
    fn let_read(&self, name: &OsStr) -> io::Result<()> {
        self.file(name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?.set_permissions(Permissions::from_mode(MODE))
    }

    /// Opens what has this name itself, which is in this directory; no link is followed.
    pub(crate) fn file(&self, name: impl AsRef<OsStr>, flags: OFlag) -> io::Result<File> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(&*self.itself, name.as_ref(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?.into())
    }

    /// The names of the directories in this one that are valid UTF-8. A link is none.
    pub(crate) fn directories(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in
            Dir::openat(&*self.itself, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?
                .iter()
        {
            let entry = entry?;
            let name = entry.file_name();
            let is_directory = || self.enter(OsStr::from_bytes(name.to_bytes())).is_ok();
            names.extend(
                name.to_str().ok().filter(|name| !matches!(*name, "." | "..") && is_directory()).map(str::to_owned),
            );
        }
        Ok(names)
    }

    /// Whoever looks for the file `to` meanwhile sees the old one or the new one.
    pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(renameat(&*self.itself, from, &*self.itself, to)?)
    }

    /// The same file by a second name, which has to be free.
    pub(crate) fn link(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(linkat(&*self.itself, from, &*self.itself, to, AtFlags::empty())?)
    }

    /// Takes a file away.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&*self.itself, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Takes a directory away that has nothing in it.
    pub(crate) fn remove_directory(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&*self.itself, name, UnlinkatFlags::RemoveDir)?)
    }

    /// Has the disk have what was done to names in it.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?.sync_all()
    }
}

impl Place {
    /// For people, and for the commands that they are given.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path.join(&self.name)
    }

    /// What is there, without opening it, which would do something to a device.
    pub(crate) fn metadata(&self) -> io::Result<std::fs::Metadata> {
        self.directory.file(&self.name, OFlag::O_PATH)?.metadata()
    }

    /// The whole of a file of so many bytes at most.
    pub(crate) fn read(&self, longest: u64) -> io::Result<Result<Vec<u8>, Unfit>> {
        let metadata = self.metadata()?;
        if metadata.is_dir() {
            return Ok(Err(Unfit::Directory));
        }
        if !metadata.is_file() {
            return Ok(Err(Unfit::Irregular));
        }
        let file = self.open()?;
        if !file.metadata()?.is_file() {
            return Ok(Err(Unfit::Irregular));
        }
        let mut content = Vec::new();
        file.take(longest + 1).read_to_end(&mut content)?;
        if content.len() as u64 > longest {
            return Ok(Err(Unfit::TooLong(longest)));
        }
        Ok(Ok(content))
    }

    /// To be read. A FIFO that has come meanwhile is not waited in.
    fn open(&self) -> io::Result<File> {
        self.directory.file(&self.name, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_leads_on_only_below_the_root_and_nothing_is_made_behind_one() {
        let root = tempfile::tempdir().expect("a directory");
        let tree = Directory::open(root.path()).expect("it is there");
        let top = tree.path().display().to_string();
        fs::create_dir_all(root.path().join("real/deep")).expect("made");
        for (target, found) in [
            ("real/deep", Ok("real/deep/file")),
            ("./real/../real//deep/", Ok("real/deep/file")),
            (&format!("{top}/real"), Ok("real/file")),
            ("..", Err(format!("is behind {top}/link, a link out of {top}"))),
            ("/etc", Err(format!("is behind {top}/link, a link out of {top}"))),
            (&format!("{top}/../etc"), Err(format!("is behind {top}/link, a link out of {top}"))),
            ("missing", Err(format!("is behind {top}/link, a link that leads nowhere"))),
            ("real/missing/deep", Err(format!("is behind {top}/link, a link that leads nowhere"))),
            ("link", Err(format!("is behind {top}/link, a link that leads to too many others"))),
        ] {
            let link = root.path().join("link");
            symlink(target, &link).expect("linked");
            let place = tree.place(Path::new("link/file"), Missing::Make);
            let place = place.map(|place| place.path()).map_err(|astray| match astray {
                Astray::Link(clause) => clause,
                astray => astray.sentence(&link),
            });
            assert_eq!(place, found.map(|path| tree.path().join(path)), "{target}");
            fs::remove_file(link).expect("removed");
        }
        assert!(!root.path().join("missing").exists() && !root.path().join("real/missing").exists());
    }

    #[test]
    fn a_link_in_the_place_of_a_directory_that_was_just_made_gives_nothing_another_mode() {
        let root = tempfile::tempdir().expect("a directory");
        let tree = Directory::open(root.path()).expect("it is there");
        fs::write(root.path().join("file"), "").expect("written");
        fs::create_dir(root.path().join("private")).expect("made");
        for name in ["file", "private"] {
            let (other, link) = (root.path().join(name), root.path().join("link"));
            fs::set_permissions(&other, Permissions::from_mode(0o700)).expect("it is ours");
            symlink(&other, &link).expect("linked");
            assert!(tree.let_read(OsStr::new("link")).is_err());
            assert_eq!(fs::metadata(&other).expect("there").permissions().mode() & 0o7777, 0o700);
            fs::remove_file(&link).expect("removed");
        }
    }

    #[test]
    fn a_fifo_that_has_come_is_not_waited_in() {
        let root = tempfile::tempdir().expect("a directory");
        nix::unistd::mkfifo(&root.path().join("fifo"), Mode::S_IRWXU).expect("made");
        let tree = Directory::open(root.path()).expect("it is there");
        let place = tree.place(Path::new("fifo"), Missing::Tell).expect("no link");
        assert!(place.open().and_then(|file| file.metadata()).is_ok_and(|file| !file.is_file()), "at once");
        assert!(place.read(1).is_ok_and(|content| content == Err(Unfit::Irregular)));
    }
}
