//! What is on the host: files below a root, within bounds of size and time, and the processes of this machine.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

use crate::chroot;
use crate::file::{self, FileError};
use crate::glob;
use crate::installed;

/// No engine's settings are nearly as long.
const MAX_FILE: u64 = 1 << 20;
/// Nor are all files of one directory together. A user can have a thousand of the longest, which take no place on the disk.
const MAX_FILES: usize = 4 << 20;
/// Directories of settings have tens of files, and /home hundreds of users.
const MAX_ENTRIES: usize = 1_000;
/// What the kernel counts in for programs, on every architecture that this program is built for (time(7), `USER_HZ`).
const TICKS_A_SECOND: u64 = 100;

/// In place of a file that this user may not read. The engine may, so nothing follows from it.
pub(crate) const DENIED: &str = "only its owner may read it";

/// How anything in PEM begins, and a certificate.
pub(crate) const PEM: &str = "-----BEGIN ";
pub(crate) const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// The host, or the tree of one below a directory.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    root: PathBuf,
}

/// A file of settings.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    /// As the host sees it.
    pub path: String,
    pub content: Result<String, String>,
}

impl Host {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Whether it is the machine that this program runs on, whose programs may be asked.
    pub(crate) fn is_this(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where a path of the host is on this machine. A link of a tree leads nobody out of it.
    pub(crate) fn at(&self, path: &str) -> io::Result<PathBuf> {
        chroot::lead(&self.root, Path::new(path))
    }

    /// The same off this thread, which a file system that hangs would stop, and what is done there.
    fn look<T: Send + 'static>(
        &self,
        path: &str,
        work: impl FnOnce(&Path) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, FileError> {
        let (host, path) = (self.clone(), path.to_owned());
        file::at_start(move || work(&host.at(&path).map_err(FileError::Io)?)).and_then(|done| done)
    }

    /// Whether one of these programs is installed.
    pub(crate) fn has_program(&self, names: &[&str]) -> bool {
        names.iter().any(|name| installed::has_program(&self.root, name))
    }

    /// Whether a unit is installed, such as `docker.service`.
    pub(crate) fn has_unit(&self, name: &str) -> bool {
        installed::has_unit(&self.root, name)
    }

    /// A file; `None` if there is none.
    pub(crate) fn read(&self, path: &str) -> Option<Text> {
        let bytes = self.bytes(path)?;
        let content =
            bytes.and_then(|bytes| String::from_utf8(bytes.to_vec()).map_err(|_| "it is not UTF-8".to_owned()));
        Some(Text { path: path.to_owned(), content })
    }

    /// Whether a file of certificates or of a key has something that begins like [`PEM`]; `None` if there is none. Such a file is no text:
    /// its comments are in any encoding.
    pub(crate) fn has_pem(&self, path: &str, begin: &str) -> Option<Result<bool, String>> {
        let bytes = self.bytes(path)?;
        Some(bytes.map(|bytes| bytes.windows(begin.len()).any(|part| part == begin.as_bytes())))
    }

    fn bytes(&self, path: &str) -> Option<Result<Zeroizing<Vec<u8>>, String>> {
        match self.look(path, |at| file::read(at, MAX_FILE)) {
            Err(FileError::Io(cause)) if is_missing(&cause) => None,
            Err(cause) => Some(Err(told(&cause))),
            Ok(content) => Some(Ok(content)),
        }
    }

    /// Whether a program is a text that names its interpreter.
    pub(crate) fn is_script(&self, path: &str) -> bool {
        const MARK: &[u8; 2] = b"#!";
        let begin = self.look(path, |at| {
            let mut begin = [0; MARK.len()];
            file::begin(at, &mut begin).map(|()| begin)
        });
        begin.is_ok_and(|begin| begin == *MARK)
    }

    /// Whether there is something at a path, or one cannot see whether there is.
    pub(crate) fn has(&self, path: &str) -> bool {
        let found = self.look(path, |at| fs::metadata(at).map_err(FileError::Io));
        !matches!(found, Err(FileError::Io(cause)) if is_missing(&cause))
    }

    /// Whether a path leads to the device that has nothing in it, by which systemd knows what is masked.
    pub(crate) fn is_masked(&self, path: &str) -> bool {
        let leads = self.look(path, |at| fs::canonicalize(at).map_err(FileError::Io));
        leads.is_ok_and(|at| at == Path::new("/dev/null") || at == self.root.join("dev/null"))
    }

    /// The names in a directory, in order; none where there is no directory. The error is why it cannot be read.
    pub(crate) fn list(&self, directory: &str) -> Result<Vec<String>, String> {
        let read = self.look(directory, |at| {
            Ok(entries(at)?.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>())
        });
        match read {
            Ok(mut names) => {
                names.sort_unstable();
                Ok(names)
            }
            Err(FileError::Io(cause)) if is_missing(&cause) => Ok(Vec::new()),
            Err(cause) => Err(told(&cause)),
        }
    }

    /// The links in a directory, in order, each with the last part of where it leads; none of a directory that cannot be read.
    pub(crate) fn links(&self, directory: &str) -> Vec<(String, String)> {
        let read = self.look(directory, |at| {
            let links = entries(at)?.filter_map(|entry| {
                let target = fs::read_link(entry.path()).ok()?;
                let name = |name: &std::ffi::OsStr| Some(name.to_str()?.to_owned());
                Some((name(&entry.file_name())?, name(target.file_name()?)?))
            });
            Ok(links.collect::<Vec<_>>())
        });
        let mut links = read.unwrap_or_default();
        links.sort_unstable();
        links
    }

    /// The names of directories in a directory, to which no link leads; none of one that cannot be read.
    pub(crate) fn directories(&self, directory: &str) -> Vec<String> {
        let read = self.look(directory, |at| {
            let below = entries(at)?.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            Ok(below.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>())
        });
        read.unwrap_or_default()
    }

    /// The paths that a pattern with stars has, in order (glob(7)). The error is a directory that cannot be read, and why.
    pub(crate) fn glob(&self, pattern: &str) -> Result<Vec<String>, (String, String)> {
        let mut paths = vec![String::new()];
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            if !glob::is_pattern(part) {
                paths.iter_mut().for_each(|path| *path = format!("{path}/{part}"));
                continue;
            }
            let mut found = Vec::new();
            for directory in paths {
                let names = self.list(&directory).map_err(|cause| (directory.clone(), cause))?;
                let names = names.into_iter().filter(|name| glob::matches(part, name));
                found.extend(names.map(|name| format!("{directory}/{name}")));
            }
            found.truncate(MAX_ENTRIES);
            paths = found;
        }
        Ok(paths)
    }

    /// The files of a directory whose names end so, in order, and hidden ones, which engines read as well. A directory that cannot be read is in their place.
    pub(crate) fn read_all(&self, directory: &str, end: &str) -> Vec<Text> {
        let names = match self.list(directory) {
            Ok(names) => names,
            Err(cause) => return vec![Text { path: directory.to_owned(), content: Err(cause) }],
        };
        let names = names.into_iter().filter(|name| name.ends_with(end));
        let read = self.read_each(names.map(|name| format!("{directory}/{name}")));
        read.into_iter().filter_map(|(_, text)| text).collect()
    }

    /// These files, each with its path; `None` if there is none, or a link to it leads nowhere.
    pub(crate) fn read_each(&self, paths: impl Iterator<Item = String>) -> Vec<(String, Option<Text>)> {
        let mut room = MAX_FILES;
        let read = paths.map(|path| {
            let mut text = self.read(&path);
            if let Some(text) = &mut text {
                match room.checked_sub(text.content.as_ref().map_or(0, String::len)) {
                    Some(left) => room = left,
                    None => {
                        text.content =
                            Err(format!("it and the files before it have more than {MAX_FILES} bytes together"));
                    }
                }
            }
            (path, text)
        });
        read.collect()
    }

    /// When a file was changed or put in its place last. A copy may keep the time of its content (`cp -p`, `mv`, `rsync -a`), and the file
    /// system has another one for that; of the tree of another host, which may be a copy as a whole, that one says nothing.
    pub(crate) fn changed(&self, path: &str) -> Option<SystemTime> {
        let is_this = self.is_this();
        let times = self.look(path, move |at| {
            let found = fs::metadata(at).map_err(FileError::Io)?;
            let modified = found.modified().map_err(FileError::Io)?;
            let (seconds, nanos) = (u64::try_from(found.ctime()), u64::try_from(found.ctime_nsec()));
            let placed = seconds.ok().zip(nanos.ok()).filter(|_| is_this);
            let placed = placed.map(|(s, ns)| UNIX_EPOCH + Duration::from_secs(s) + Duration::from_nanos(ns));
            Ok(placed.map_or(modified, |placed| placed.max(modified)))
        });
        times.ok()
    }

    /// Addresses and names of this machine, for whom a listener on all addresses waits.
    pub(crate) fn names(&self) -> Vec<String> {
        let own = self.read("/etc/hostname").and_then(|text| text.content.ok());
        let own = own.map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty());
        let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
        let addresses = interfaces.filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| oci::authority::of_ip(address.ip().into()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| oci::authority::of_ip(address.ip().into())))
        });
        addresses.chain(own).collect()
    }

    /// The number of the user whose home this is.
    pub(crate) fn uid_of(&self, home: &str) -> Option<u32> {
        let known = self.read("/etc/passwd").and_then(|text| text.content.ok())?;
        let is_it = |line: &&str| line.split(':').nth(5).is_some_and(|at| at.trim_end_matches('/') == home);
        known.lines().find(is_it)?.split(':').nth(2)?.parse().ok()
    }

    /// The home directories of users, root's and that of whoever runs this among them. Not all are below `/home`, and not all are in
    /// `/etc/passwd`.
    pub(crate) fn homes(&self) -> Vec<String> {
        let known = self.read("/etc/passwd").and_then(|text| text.content.ok()).unwrap_or_default();
        let known = known.lines().filter_map(|line| line.split(':').nth(5).map(|home| home.trim_end_matches('/')));
        let known = known.filter(|home| home.starts_with('/')).take(MAX_ENTRIES).map(str::to_owned);
        let users = self.list("/home").unwrap_or_default().into_iter().map(|user| format!("/home/{user}"));
        let own = std::env::var("HOME").ok().filter(|home| self.is_this() && home.starts_with('/'));
        let mut homes: Vec<_> = ["/root".to_owned()].into_iter().chain(known).chain(users).chain(own).collect();
        homes.sort_unstable();
        homes.dedup();
        homes
    }
}

/// Whether whoever runs this may not see if there is something where a path leads.
pub(crate) fn is_hidden(at: &io::Result<PathBuf>) -> bool {
    let is_denied = |cause: &io::Error| cause.kind() == io::ErrorKind::PermissionDenied;
    match at {
        Ok(at) => fs::symlink_metadata(at).is_err_and(|cause| is_denied(&cause)),
        Err(cause) => is_denied(cause),
    }
}

/// Why something cannot be read, for a sentence about it.
fn told(cause: &FileError) -> String {
    match cause {
        FileError::Io(cause) if cause.kind() == io::ErrorKind::PermissionDenied => DENIED.to_owned(),
        cause => cause.to_string(),
    }
}

fn is_missing(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// When a process of this machine was started: field 22 of its `stat`, in ticks since the boot (proc_pid_stat(5)).
pub(crate) fn started(pid: u32) -> Option<SystemTime> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program is in brackets, and may have any character.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(boot) + Duration::from_millis(ticks.saturating_mul(1_000) / TICKS_A_SECOND))
}

/// The command line of a process of this machine, if it is of this program. Behind a socket may be another one, which starts it.
pub(crate) fn command_line(pid: u32, program: &str) -> Option<Vec<String>> {
    let read = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = read.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let words: Vec<_> = words.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    words.first().is_some_and(|word| Path::new(word).file_name() == Some(program.as_ref())).then_some(words)
}

/// The command line of a program among those that systemd runs for a service of this machine, by their control group (cgroups(7)): of
/// version 2, or 1.
pub(crate) fn command_of(service: &str, program: &str) -> Option<Vec<String>> {
    let lists = ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd"]
        .into_iter()
        .filter_map(|root| fs::read_to_string(format!("{root}/system.slice/{service}/cgroup.procs")).ok());
    let processes: Vec<_> =
        lists.flat_map(|list| list.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
    processes.into_iter().find_map(|pid| command_line(pid, program))
}

/// The first entries of a directory, as far as they can be read.
fn entries(at: &Path) -> Result<impl Iterator<Item = fs::DirEntry>, FileError> {
    Ok(fs::read_dir(at).map_err(FileError::Io)?.take(MAX_ENTRIES).flatten())
}

/// The processes of a program that see the files of this one: those of containers, and a rootless engine, see others. Only root may look at
/// those of everybody.
pub(crate) fn processes(program: &str) -> Vec<(u32, Vec<String>)> {
    let files = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let own = files("self");
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let here = pids.filter(|pid| own.is_some() && files(&pid.to_string()) == own);
    let mut found: Vec<_> = here.filter_map(|pid| Some((pid, command_line(pid, program)?))).collect();
    found.sort_unstable();
    found
}

/// A process was started before a file was changed. Both times are exact to the second.
pub(crate) fn is_older(started: Option<SystemTime>, changed: Option<SystemTime>) -> bool {
    const EXACT: Duration = Duration::from_secs(2);
    matches!((started, changed), (Some(started), Some(changed)) if started + EXACT < changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was taken for one that the daemon had read at its start.
    #[test]
    fn a_file_with_an_old_time_is_as_new_as_it_came_to_its_place() {
        let before = SystemTime::now() - Duration::from_secs(5);
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("config.toml");
        let long_ago = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        fs::write(&path, "").expect("written");
        fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(long_ago)).expect("a time");
        let of_this = Host::new(PathBuf::from("/")).changed(&path.to_string_lossy());
        assert!(of_this.is_some_and(|changed| changed > before), "{of_this:?}");
        assert_eq!(Host::new(root.path().to_owned()).changed("/config.toml"), Some(long_ago), "of a tree");
    }

    /// Their files, which hide the system's, were not looked at.
    #[test]
    fn homes_are_not_all_below_home() {
        let root = tempfile::tempdir().expect("a directory");
        let passwd = "root:x:0:0:root:/root:/bin/sh\nu2:x:9:9::/srv/u2/:/bin/sh\nnobody:x:8:8::/:/bin/sh\nbroken\n";
        fs::create_dir_all(root.path().join("home/eve")).expect("made");
        fs::create_dir(root.path().join("etc")).expect("made");
        fs::write(root.path().join("etc/passwd"), passwd).expect("written");
        assert_eq!(Host::new(root.path().to_owned()).homes(), ["/home/eve", "/root", "/srv/u2"]);
    }

    #[test]
    fn of_a_directory_of_large_files_no_more_is_held_than_engines_settings_have() {
        let root = tempfile::tempdir().expect("a directory");
        for number in 0..8 {
            let file = fs::File::create(root.path().join(format!("{number}.conf"))).expect("made");
            file.set_len(MAX_FILE).expect("long");
        }
        fs::write(root.path().join("9.conf"), "short").expect("written");
        let files = Host::new(root.path().to_owned()).read_all("/", ".conf");
        let lengths: Vec<_> = files.iter().map(|text| text.content.as_ref().map_or(0, String::len)).collect();
        let long = usize::try_from(MAX_FILE).expect("small");
        assert_eq!(lengths, [long, long, long, long, 0, 0, 0, 0, 0]);
    }
}
