//! Which process is the proxy that may be asked. Root must not be kept from it by any user's socket.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;

use super::owner::{self, FIRST, NAME, Owner, SOCKETS, Unasked, WithoutSocket};

/// All that are found are looked at within this.
const LOOK_LIMIT: Duration = Duration::from_secs(3);
/// A socket that took no connection at once is waited for so long at least, or not at all.
const SHORTEST: Duration = Duration::from_millis(10);
/// So many of those that are no proxies are named.
const MAX_NAMED: usize = 3;
/// No proxy has been found.
const NONE: &str = "no proxy runs here: `systemctl status acr-cache-proxy` says why";

impl Owner {
    /// Whether its answer is a proxy's. A program that cannot be seen does not tell against it: another user's is not counted anyhow.
    pub(super) fn counts(&self, caller: u32) -> bool {
        let is_trusted = self.uid == 0 || self.uid == caller || self.is_service || self.pid == FIRST;
        is_trusted && !self.is_another_program()
    }
}

/// The one proxy that runs here and that this caller is to ask.
pub(super) fn only_one() -> Result<u32, String> {
    let sockets = owner::sockets().map_err(|cause| format!("{SOCKETS}: {cause}: name the process with --pid"))?;
    let until = Instant::now() + LOOK_LIMIT;
    let (mut owners, mut unasked, mut busy) = (Vec::new(), Vec::new(), Vec::new());
    // First those that take a connection at once: thousands that take none are not waited for one by one.
    for pid in running(&sockets) {
        if Instant::now() >= until {
            break;
        }
        match Owner::among(&sockets, pid, None) {
            Ok((_, owner)) => owners.push(owner),
            Err(Unasked::Busy) => busy.push(pid),
            Err(why) => unasked.push((pid, why)),
        }
    }
    let mut waiting = busy.len();
    for pid in busy {
        let left = until.saturating_duration_since(Instant::now()) / u32::try_from(waiting).unwrap_or(u32::MAX);
        waiting -= 1;
        match Owner::among(&sockets, pid, (left > SHORTEST).then_some(left)) {
            Ok((_, owner)) => owners.push(owner),
            Err(why) => unasked.push((pid, why)),
        }
    }
    if owners.is_empty() { Err(none(&unasked)) } else { choose(owners, geteuid().as_raw()) }
}

/// No socket is its process's own. A proxy whose name another process has is told before anything else, and then one
/// whose socket is not there.
fn none(unasked: &[(u32, Unasked)]) -> String {
    let is_proxy = |why: &Unasked| matches!(why, Unasked::Anothers(another) if another.is_of_proxy);
    if let Some((pid, why)) = unasked.iter().find(|(_, why)| is_proxy(why)) {
        return format!("process {pid}: {why}");
    }
    if let Some(proxy) = WithoutSocket::first() {
        return proxy.to_string();
    }
    let Some((pid, why)) = unasked.first() else { return NONE.to_owned() };
    let more = match unasked.len() - 1 {
        0 => String::new(),
        more => format!("; so have {more} more"),
    };
    format!("{NONE}. A control socket has the name of process {pid}{more}: {why}")
}

fn choose(owners: Vec<Owner>, caller: u32) -> Result<u32, String> {
    let (proxies, others): (Vec<_>, Vec<_>) = owners.into_iter().partition(|owner| owner.counts(caller));
    match (proxies.as_slice(), others.as_slice()) {
        ([proxy], _) => Ok(proxy.pid),
        ([], []) => Err(NONE.to_owned()),
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
            let pids: Vec<_> = several.iter().map(|proxy| proxy.pid).collect();
            if let Some((old, new)) = upgrade(&pids, owner::parent) {
                return Err(format!(
                    "an upgrade is under way: process {new} is to take the place of {old}, within half a minute or not at all: run this again then"
                ));
            }
            let several: Vec<_> = pids.iter().map(u32::to_string).collect();
            Err(format!("several proxies run here: name one of them with --pid: {}", several.join(", ")))
        }
    }
}

/// Of these proxies one and another that it has started in order to be replaced by it. Neither takes other settings meanwhile.
fn upgrade(pids: &[u32], parent: impl Fn(u32) -> Option<u32>) -> Option<(u32, u32)> {
    pids.iter().find_map(|new| parent(*new).filter(|old| pids.contains(old)).map(|old| (old, *new)))
}

/// The process ids of the proxies of this network namespace, whose sockets these are. Any user can open a socket with any process's
/// name, so only those count that are open in that process; all of them if none is known to be, for then the answer to the request tells
/// more.
pub(super) fn running(sockets: &[(u32, u64)]) -> Vec<u32> {
    let mut named: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for (pid, inode) in sockets {
        named.entry(*pid).or_default().push(*inode);
    }
    let is_its =
        |pid: u32, inodes: &[u64]| owner::open(pid).is_some_and(|open| inodes.iter().any(|inode| open.contains(inode)));
    let own: Vec<_> = named.iter().filter(|(pid, inodes)| is_its(**pid, inodes)).map(|(pid, _)| *pid).collect();
    if own.is_empty() { named.into_keys().collect() } else { own }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

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
        let parent = |pid| Some(if pid == 389 { 354 } else { 1 });
        assert_eq!(upgrade(&[354, 389], parent), Some((354, 389)), "`reload` said that several proxies run here");
        assert_eq!(upgrade(&[354, 390], parent), None);
        assert_eq!(upgrade(&[389, 390], |_| None), None, "it cannot be seen");
        let none = choose((1000..2000).map(fake).collect(), 0).expect_err("none of them");
        assert!(none.contains("process 1000 (") && none.contains(", user 1000), 1001 ("), "{none}");
        assert!(none.ends_with("and others: if that is your proxy, name it with --pid"), "{none}");
        assert!(!none.contains('\u{1b}') && none.len() < 500, "{none}");
    }
}
