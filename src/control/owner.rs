//! Who has the control socket of a process's name. Any user can open one of any name, also before a process has that id, and root
//! must not believe what a user's process answers.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use oci::printable;

use super::{PREFIX, RETRY, connect};

/// The abstract sockets of this network namespace, among others: their names with `@` in front (proc_pid_net(5)).
pub(super) const SOCKETS: &str = "/proc/self/net/unix";
/// Which column of it has the inode.
const INODE: usize = 6;
/// Systems have hundreds of sockets, with a line of a hundred bytes for each.
const MAX_SOCKETS: u64 = 64 << 20;
/// What the name of the package's program and unit begins with.
pub(super) const NAME: &str = "acr-cache-proxy";
/// What the kernel appends to the path of a program that an upgrade has replaced (proc_pid_exe(5)).
const REPLACED: &str = " (deleted)";
/// The first process of a container, or of the host, is whoever started that.
pub(super) const FIRST: u32 = 1;

/// A process that has a control socket.
#[derive(Debug)]
pub(super) struct Owner {
    pub pid: u32,
    /// Of when it opened the socket, as the kernel has it.
    pub uid: u32,
    /// Its program, where that can be seen: not without a right to look into it.
    pub program: Option<PathBuf>,
    /// It runs in a service of the system of the proxy's name.
    pub is_service: bool,
}

impl Owner {
    /// Connects to the socket of this process's name, if it is that process's.
    pub(super) fn of(pid: u32, limit: Duration) -> Result<(UnixStream, Self), Unasked> {
        // Before the connection: a proxy waits for the request for a short time only, and other users can make this table a long one.
        let has_open = sockets().ok().and_then(|sockets| has_open(&sockets, pid, open));
        Self::that_has(pid, Some(limit), || has_open)
    }

    /// The same with these [`sockets`], of somebody who looks at many processes; without a limit, the connection is not waited for.
    pub(super) fn among(
        sockets: &[(u32, u64)],
        pid: u32,
        limit: Option<Duration>,
    ) -> Result<(UnixStream, Self), Unasked> {
        Self::that_has(pid, limit, || has_open(sockets, pid, open))
    }

    /// The same, where `has_open` says whether the process has a socket of its name open.
    fn that_has(
        pid: u32,
        limit: Option<Duration>,
        has_open: impl FnOnce() -> Option<bool>,
    ) -> Result<(UnixStream, Self), Unasked> {
        let stream = connect(pid, limit).map_err(|cause| match cause.kind() {
            io::ErrorKind::ConnectionRefused => Unasked::Nobody,
            io::ErrorKind::WouldBlock => Unasked::Busy,
            _ => Unasked::Broken(cause.to_string()),
        })?;
        let credentials = getsockopt(&stream, PeerCredentials).map_err(|cause| Unasked::Broken(cause.to_string()))?;
        let opener = Self::seen(u32::try_from(credentials.pid()).unwrap_or_default(), credentials.uid());
        // The credentials are those of whoever opened the socket. It may have ended since, leaving the socket to a child, and its id to
        // another user's process.
        let has_open = if opener.pid == pid { has_open() } else { None };
        let is_its = is_its(pid, &opener, user_of(pid), has_open);
        if is_its { Ok((stream, opener)) } else { Err(Unasked::Anothers(Another::new(pid, opener))) }
    }

    fn seen(pid: u32, uid: u32) -> Self {
        Self {
            pid,
            uid,
            program: program(pid),
            is_service: fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| is_service(&groups)),
        }
    }

    /// It runs a program that can be seen, and that is not this one.
    pub(super) fn is_another_program(&self) -> bool {
        self.program.as_deref().is_some_and(|program| !is_proxy(self.pid, program))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.pid)?;
        if let Some(program) = &self.program {
            write!(f, "{}, ", printable::line(&program.display().to_string()))?;
        }
        write!(f, "user {})", self.uid)
    }
}

/// Why a process cannot be asked; a clause about it.
#[derive(Debug)]
pub(super) enum Unasked {
    /// Nobody has a socket of its name.
    Nobody,
    /// Its socket takes no connection.
    Busy,
    /// The socket of its name is another's.
    Anothers(Another),
    Broken(String),
}

impl fmt::Display for Unasked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("it has no control socket"),
            Self::Busy => f.write_str("its control socket takes no connection"),
            Self::Anothers(another) => write!(f, "its control socket is {another}"),
            Self::Broken(cause) => write!(f, "its control socket: {cause}"),
        }
    }
}

/// Whose the socket of a process's name is, which is not that process's.
#[derive(Debug)]
pub(super) struct Another {
    /// Which is named.
    pid: u32,
    opener: Owner,
    is_container: bool,
    /// The process that is named runs this program.
    pub is_of_proxy: bool,
}

impl Another {
    fn new(pid: u32, opener: Owner) -> Self {
        // A process of another container has no id here.
        let is_container = opener.pid == 0 || is_id_inside(pid, opener.pid);
        let is_of_proxy = program(pid).is_some_and(|program| is_proxy(pid, &program));
        Self { pid, opener, is_container, is_of_proxy }
    }
}

impl fmt::Display for Another {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, opener, .. } = self;
        write!(f, "another process's: ")?;
        match opener.pid {
            0 => write!(f, "one of another container or of the host, of user {}", opener.uid)?,
            // What opened it has ended, and the id may be another's by now.
            id if id == *pid || user_of(id) != Some(opener.uid) => {
                write!(f, "one of user {}, as a process that has ended has left it", opener.uid)?;
            }
            _ => write!(f, "{opener}")?,
        }
        if self.is_container {
            write!(f, ": a proxy in a container is asked from within it, or gets SIGHUP")
        } else if self.is_of_proxy {
            write!(
                f,
                ": SIGHUP has it read its settings all the same: `systemctl kill -s HUP --kill-whom=main {NAME}`, or `kill -HUP {pid}`"
            )
        } else {
            write!(
                f,
                ": if process {pid} is your proxy, SIGHUP has it read its settings: `systemctl kill -s HUP --kill-whom=main {NAME}`"
            )
        }
    }
}

/// Who has the socket of this process's own name, when it cannot have it itself.
pub(super) fn holder(pid: u32, limit: Duration) -> Option<String> {
    match Owner::of(pid, limit) {
        Ok((_, owner)) => Some(owner.to_string()),
        Err(Unasked::Anothers(another)) if another.opener.pid != pid => Some(format!("process {}", another.opener)),
        Err(Unasked::Anothers(another)) => Some(format!("a process of user {}", another.opener.uid)),
        Err(_) => None,
    }
}

/// Whether the socket is the process's: what opened it has its id, and its user and its open files where they can be seen.
fn is_its(pid: u32, opener: &Owner, user: Option<u32>, has_open: Option<bool>) -> bool {
    opener.pid == pid && user.is_none_or(|user| user == opener.uid) && has_open != Some(false)
}

/// The path of its program, where that can be seen.
fn program(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// The user whose rights the process has, where that can be seen.
fn user_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    // The real and then the effective one, which is also what a socket's credentials have (proc_pid_status(5)).
    status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_ascii_whitespace().nth(1)?.parse().ok())
}

/// The process that has started this one and runs still, where that can be seen.
pub(super) fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

/// The process has this id in a container of its own, and another one here.
fn is_id_inside(id: u32, pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut ids = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .unwrap_or_default()
        .split_ascii_whitespace()
        .skip(1);
    ids.any(|inside| inside.parse() == Ok(id))
}

/// The program that a process runs is this one.
fn is_proxy(pid: u32, program: &Path) -> bool {
    is_this(program) || is_same_file(pid)
}

/// A program of this one's name, also before and after an upgrade.
fn is_this(program: &Path) -> bool {
    let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_suffix(REPLACED).unwrap_or(name) == NAME
}

/// The process runs the same file as this one, by whatever name.
fn is_same_file(pid: u32) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let file = |process: &str| fs::metadata(format!("/proc/{process}/exe")).map(|file| (file.dev(), file.ino())).ok();
    file("self").is_some_and(|this| file(&pid.to_string()) == Some(this))
}

/// Whether a process of these control groups (cgroups(7)) is one of a service of the system, of the proxy's name: systemd's
/// `/system.slice/acr-cache-proxy.service`, also of a template, or OpenRC's. Users have units of that name elsewhere, and a service that
/// is given a part of the tree has it below itself.
fn is_service(groups: &str) -> bool {
    groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).any(|path| {
        let mut parts = path.split('/').skip(1);
        match parts.next() {
            Some("system.slice") => parts
                .find(|part| !part.ends_with(".slice"))
                .is_some_and(|unit| unit.starts_with(NAME) && unit.ends_with(".service")),
            Some(first) => first.strip_prefix("openrc.").is_some_and(|service| service.starts_with(NAME)),
            None => false,
        }
    })
}

/// The processes that sockets of this network namespace name, and the sockets' inodes. Each connection has a line, too.
pub(super) fn sockets() -> io::Result<Vec<(u32, u64)>> {
    let mut text = Vec::new();
    fs::File::open(SOCKETS)?.take(MAX_SOCKETS).read_to_end(&mut text)?;
    // The names of others may have any bytes.
    Ok(named(&String::from_utf8_lossy(&text)))
}

/// The process that each socket's name says, and the socket's inode.
fn named(sockets: &str) -> Vec<(u32, u64)> {
    let named = |line: &str| {
        let pid = line.split(' ').next_back()?.strip_prefix('@')?.strip_prefix(PREFIX)?.parse().ok()?;
        Some((pid, line.split_ascii_whitespace().nth(INODE)?.parse().ok()?))
    };
    sockets.lines().filter_map(named).collect()
}

/// A proxy that takes SIGHUP and has no control socket of its name here.
pub(super) struct WithoutSocket(u32);

impl WithoutSocket {
    /// If the process is one, as far as can be seen.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let is_one = program(pid).is_some_and(|program| is_proxy(pid, &program)) && takes_hangup(pid);
        is_one.then_some(Self(pid))
    }

    /// The first of this host that can be seen.
    pub(super) fn first() -> Option<Self> {
        let ids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter_map(Self::of).min_by_key(|found| found.0)
    }
}

impl fmt::Display for WithoutSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pid = self.0;
        write!(
            f,
            "process {pid} is a proxy, and has no control socket here: it is ending, or it is in a container of its own, or another process \
             has had the socket's name, which is tried again every {} s; unless it is ending, SIGHUP has it read its settings all the same: \
             `systemctl kill -s HUP --kill-whom=main {NAME}`, or `kill -HUP {pid}`",
            RETRY.as_secs()
        )
    }
}

/// Whether the process handles SIGHUP. A proxy does; another command of this program would be ended by it.
fn takes_hangup(pid: u32) -> bool {
    const SIGHUP: u64 = 1;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & SIGHUP != 0)
}

/// Whether the process has one of these sockets open that has its name; `None` where that cannot be seen. What it has `open` is
/// read once for all lines of the table: each connection that is not taken yet has one, too, and any user can open thousands.
fn has_open(sockets: &[(u32, u64)], pid: u32, open: impl FnOnce(u32) -> Option<BTreeSet<u64>>) -> Option<bool> {
    let mut inodes = sockets.iter().filter(|(named, _)| *named == pid).map(|(_, inode)| *inode).peekable();
    inodes.peek()?;
    // Only root and its own user can see that, and nobody else may ask it.
    let open = open(pid)?;
    Some(inodes.any(|inode| open.contains(&inode)))
}

/// The inodes of all sockets that a process has open; `None` where that cannot be seen.
pub(super) fn open(pid: u32) -> Option<BTreeSet<u64>> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let inode = |descriptor: fs::DirEntry| {
        let to = fs::read_link(descriptor.path()).ok()?;
        to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    Some(descriptors.flatten().filter_map(inode).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_found_by_the_names_of_their_sockets() {
        let sockets = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 19391 @acr-cache-proxy/control/812\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 19400 @acr-cache-proxy/control/812\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 19392 @acr-cache-proxy/control/9\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 19393 @acr-cache-proxy/control/x\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 19394 /run/acr-cache-proxy/control/7\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 19395\n";
        assert_eq!(named(sockets), [(812, 19391), (812, 19400), (9, 19392)]);
    }

    #[test]
    fn root_believed_a_users_socket_of_an_id_that_its_proxy_got_later() {
        let opener = |pid, uid| Owner { pid, uid, program: None, is_service: false };
        for (what, opener, user, has_open, expected) in [
            ("root's", opener(9, 0), Some(0), Some(true), true),
            ("of a dynamic user", opener(9, 61_234), Some(61_234), Some(true), true),
            ("of a process that cannot be seen", opener(9, 61_234), None, None, true),
            ("left to a child, by another user", opener(9, 1000), Some(0), None, false),
            ("left to a child, by the same user", opener(9, 0), Some(0), Some(false), false),
            ("another process's", opener(8, 0), Some(0), None, false),
        ] {
            assert_eq!(is_its(9, &opener, user, has_open), expected, "{what}");
        }
    }

    #[test]
    fn a_table_that_others_had_made_long_took_root_longer_than_a_proxy_waits() {
        // A connection that is not taken yet has no inode. `FnOnce`: what is open is not read for each line.
        let open: Box<dyn FnOnce(u32) -> _> = Box::new(|_| Some(BTreeSet::from([7])));
        assert_eq!(has_open(&[(1, 0), (1, 0), (2, 7)], 1, open), Some(false));
        assert_eq!(has_open(&[(1, 0), (1, 7)], 1, |_| Some(BTreeSet::from([7]))), Some(true));
        assert_eq!(has_open(&[(1, 7)], 1, |_| None), None);
        assert_eq!(has_open(&[(1, 7)], 2, |_| Some(BTreeSet::from([7]))), None);
    }

    #[test]
    fn a_unit_of_a_user_is_no_service_of_the_system() {
        for (groups, expected) in [
            ("0::/system.slice/acr-cache-proxy.service\n", true),
            ("12:pids:/\n1:name=systemd:/system.slice/acr-cache-proxy.service\n0::/\n", true),
            ("0::/system.slice/system-acr\\x2dcache\\x2dproxy.slice/acr-cache-proxy@hub.service\n", true),
            ("0::/openrc.acr-cache-proxy\n", true),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/acr-cache-proxy.service\n", false),
            ("0::/system.slice/other.service/acr-cache-proxy.service\n", false),
            ("0::/system.slice/other.service/x.slice/acr-cache-proxy.service\n", false),
            ("0::/system.slice/docker-0.scope\n", false),
            ("0::/\n", false),
            ("", false),
        ] {
            assert_eq!(is_service(groups), expected, "{groups}");
        }
    }
}
