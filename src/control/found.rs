//! Which processes are proxies that may be asked. Any user can open a socket of any name, and root must neither believe what a
//! user's process answers nor be kept from the proxy by it.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use oci::printable;

use super::{ANSWER_LIMIT, OF_ANOTHER, PREFIX, SILENCE, connect};

/// The abstract sockets of this network namespace, among others: their names with `@` in front (proc_pid_net(5)).
const SOCKETS: &str = "/proc/self/net/unix";
/// Which column of it has the inode.
const INODE: usize = 6;
/// Systems have hundreds of sockets, with a line of a hundred bytes for each.
const MAX_SOCKETS: u64 = 64 << 20;
/// Whoever is named by its id, and is no proxy as far as can be told, has less time to answer. Settings are read in
/// milliseconds, unless a file of them hangs.
const STRANGER_LIMIT: Duration = Duration::from_secs(5);
/// What the name of the package's program and unit begins with.
const NAME: &str = "acr-cache-proxy";
/// What the kernel appends to the path of a program that an upgrade has replaced (proc_pid_exe(5)).
const REPLACED: &str = " (deleted)";
/// The first process of a container, or of the host, is whoever started that.
const FIRST: u32 = 1;
/// So many of those that are no proxies are named.
const MAX_NAMED: usize = 3;

/// Who has a control socket.
#[derive(Debug)]
struct Owner {
    pid: u32,
    /// Of when it opened the socket, as the kernel has it.
    uid: u32,
    /// Its program, where that can be seen: not without a right to look into it.
    program: Option<PathBuf>,
    /// It runs in a service of the system of the proxy's name.
    is_service: bool,
}

impl Owner {
    /// The error is a clause.
    fn of(pid: u32, limit: Duration) -> Result<Self, String> {
        let stream = connect(pid, limit).map_err(|cause| match cause.kind() {
            io::ErrorKind::WouldBlock => "its control socket takes no connection".to_owned(),
            _ => format!("its control socket: {cause}"),
        })?;
        let credentials = getsockopt(&stream, PeerCredentials).map_err(|cause| cause.to_string())?;
        if u32::try_from(credentials.pid()) != Ok(pid) {
            return Err(OF_ANOTHER.to_owned());
        }
        Ok(Self {
            pid,
            uid: credentials.uid(),
            program: fs::read_link(format!("/proc/{pid}/exe")).ok(),
            is_service: fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| is_service(&groups)),
        })
    }

    /// Whether its answer is a proxy's. A program that cannot be seen does not tell against it: another user's is not counted anyhow.
    fn counts(&self, caller: u32) -> bool {
        let is_trusted = self.uid == 0 || self.uid == caller || self.is_service || self.pid == FIRST;
        is_trusted && self.program.as_deref().is_none_or(|program| is_this(program) || is_same_file(self.pid))
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

/// The one proxy that runs here and that this caller is to ask.
pub(super) fn only_one() -> Result<u32, String> {
    let running = running().map_err(|cause| format!("{SOCKETS}: {cause}: name the process with --pid"))?;
    let until = Instant::now() + SILENCE;
    let left = || until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let (mut owners, mut unknown) = (Vec::new(), None);
    for pid in running {
        match Owner::of(pid, left()) {
            Ok(owner) => owners.push(owner),
            Err(why) => unknown = Some(format!("process {pid}: {why}")),
        }
    }
    match unknown {
        Some(why) if owners.is_empty() => Err(why),
        _ => choose(owners, geteuid().as_raw()),
    }
}

fn choose(owners: Vec<Owner>, caller: u32) -> Result<u32, String> {
    let (proxies, others): (Vec<_>, Vec<_>) = owners.into_iter().partition(|owner| owner.counts(caller));
    match (proxies.as_slice(), others.as_slice()) {
        ([proxy], _) => Ok(proxy.pid),
        ([], []) => Err("no proxy runs here: `systemctl status acr-cache-proxy` says why".to_owned()),
        ([], others) => {
            let named: Vec<_> = others.iter().take(MAX_NAMED).map(ToString::to_string).collect();
            let more = if others.len() > MAX_NAMED { " and others" } else { "" };
            Err(format!(
                "no proxy of root, of the service {NAME} or of this user runs here: any user can open a control socket, and so has process \
                 {}{more}: if that is your proxy, name it with --pid",
                named.join(", ")
            ))
        }
        (several, _) => {
            let several: Vec<_> = several.iter().map(|proxy| proxy.pid.to_string()).collect();
            Err(format!("several proxies run here: name one of them with --pid: {}", several.join(", ")))
        }
    }
}

/// How long a process that was named by its id is waited for.
pub(super) fn answer_limit(pid: u32) -> Duration {
    let is_proxy = Owner::of(pid, SILENCE).is_ok_and(|owner| owner.counts(geteuid().as_raw()));
    if is_proxy { ANSWER_LIMIT } else { STRANGER_LIMIT }
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

/// The process ids of the proxies of this network namespace. Any user can open a socket with any process's name, so only those count
/// that are open in that process; all of them if none is known to be, for then the answer to the request tells more.
pub(super) fn running() -> io::Result<Vec<u32>> {
    let mut text = String::new();
    fs::File::open(SOCKETS)?.take(MAX_SOCKETS).read_to_string(&mut text)?;
    let named = named(&text);
    let own: Vec<_> = named.iter().copied().filter(|(pid, inode)| has_open(*pid, *inode)).collect();
    let mut pids: Vec<_> = if own.is_empty() { named } else { own }.into_iter().map(|(pid, _)| pid).collect();
    pids.sort_unstable();
    // Each connection has a line, too.
    pids.dedup();
    Ok(pids)
}

/// The process that each socket's name says, and the socket's inode.
fn named(sockets: &str) -> Vec<(u32, u64)> {
    let named = |line: &str| {
        let pid = line.split(' ').next_back()?.strip_prefix('@')?.strip_prefix(PREFIX)?.parse().ok()?;
        Some((pid, line.split_ascii_whitespace().nth(INODE)?.parse().ok()?))
    };
    sockets.lines().filter_map(named).collect()
}

/// Whether the process is known to have the socket open: root and its own user can see that, and nobody else may ask it.
fn has_open(pid: u32, inode: u64) -> bool {
    let socket = format!("socket:[{inode}]");
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|to| to.as_os_str() == &*socket))
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

    fn owner(pid: u32, uid: u32, program: Option<&str>, is_service: bool) -> Owner {
        Owner { pid, uid, program: program.map(PathBuf::from), is_service }
    }

    #[test]
    fn root_was_kept_from_its_proxy_by_the_socket_of_any_user() {
        let installed = Some("/usr/bin/acr-cache-proxy");
        let replaced = Some("/usr/bin/acr-cache-proxy (deleted)");
        // Above what a process id can be.
        let pid = 1 << 29;
        for (what, owner, caller, counts) in [
            ("the service's", owner(pid, 61_234, installed, true), 0, true),
            ("the service's after an upgrade", owner(pid, 61_234, replaced, true), 0, true),
            ("the service's, which this caller cannot see", owner(pid, 61_234, None, true), 1000, true),
            ("root's", owner(pid, 0, installed, false), 0, true),
            ("the caller's own", owner(pid, 1000, installed, false), 1000, true),
            ("of a container that root has entered", owner(FIRST, 65_532, installed, false), 0, true),
            ("another user's", owner(pid, 1000, installed, false), 0, false),
            ("another user's, which cannot be seen", owner(pid, 1000, None, false), 0, false),
            ("another program of root's", owner(pid, 0, Some("/usr/bin/python3"), false), 0, false),
            ("another program of the name's begin", owner(pid, 0, Some("/tmp/acr-cache-proxy-fake"), false), 0, false),
        ] {
            assert_eq!(owner.counts(caller), counts, "{what}");
        }
        let proxy = || owner(812, 61_234, installed, true);
        let fake = |pid| owner(pid, 1000, Some("/usr/bin/py\u{1b}thon3"), false);
        assert_eq!(choose(vec![fake(9), proxy()], 0), Ok(812));
        assert!(choose(vec![], 0).is_err_and(|sentence| sentence.starts_with("no proxy runs here")));
        let several = choose(vec![proxy(), owner(9, 0, installed, false), fake(10)], 0).expect_err("which one");
        assert!(several.ends_with("with --pid: 812, 9"), "{several}");
        let none = choose((1000..2000).map(fake).collect(), 0).expect_err("none of them");
        assert!(none.contains("process 1000 (") && none.contains(", user 1000), 1001 ("), "{none}");
        assert!(none.ends_with("and others: if that is your proxy, name it with --pid"), "{none}");
        assert!(!none.contains('\u{1b}') && none.len() < 500, "{none}");
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
