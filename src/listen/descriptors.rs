//! File descriptors, and how many connections and requests they are enough for.

use log::warn;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use crate::serve::ServeError;

/// Connections of clients at once. Each of hundreds of hosts has some dozen; an idle one takes about 20 KiB.
const MAX_CONNECTIONS: usize = 16 << 10;
/// Requests under way at once, each with a connection to the registry or to storage. Without layers a registry allows a
/// hundredth of what so many are; with layers (`blobs: proxy`) each takes about 1 MiB of memory.
const MAX_REQUESTS: usize = 2 << 10;
/// Idle connections to registries and storage that are kept, all threads and addresses together: as many as a shared
/// mirror has requests under way when hundreds of hosts pull at once, for what is not kept is a TLS handshake a request.
/// They end after 90 s without use; each takes about 90 KiB.
const MAX_POOL: usize = 1024;
/// Pools of that size: Pingora's own, and that of the question where a blob is.
const POOLS: usize = 2;
/// What is kept back for all else: the admin listener's connections, sign-ins, DNS, the log, refusals.
const KEPT_BACK: usize = 192;
/// Of a start with one registry, without its threads: the runtimes of the upkeep, the admin listener, the signals and the
/// look-ups, their sockets, and a few for the first connections. A start was seen to need 30.
const OF_A_START: usize = 56;
/// Each thread has a runtime with an epoll instance, an eventfd and a socket for signals.
const OF_A_THREAD: usize = 8;
/// Below this the shares are too small for a handful of hosts that pull at once.
const FEW: usize = 1024;
/// What systems give by default, for a sandbox that does not tell.
const USUAL: usize = 1024;

/// What the descriptors are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Connections of clients.
    pub connections: usize,
    /// Requests under way.
    pub requests: usize,
    /// Idle connections in each pool.
    pub pool: usize,
}

/// Raises the soft limit towards the hard one, as far as that is of use, and shares out what there is then. The soft limit is
/// low for the sake of programs that use select(2), and this is none of them. What no start can do without is checked: tokio and
/// Pingora panic where they get no descriptor.
pub fn share_out(threads: usize) -> Result<Shares, ServeError> {
    let wanted = MAX_CONNECTIONS + MAX_REQUESTS + POOLS * MAX_POOL + KEPT_BACK + OF_A_THREAD * threads;
    // Where the system does not say, it will when one is refused.
    let limit = raise(wanted).unwrap_or(USUAL);
    let needed = OF_A_START + OF_A_THREAD * threads;
    if limit < needed {
        return Err(ServeError::Descriptors { allowed: limit, needed });
    }
    if limit < FEW {
        warn!("{limit} file descriptors are few: raise the limit of open files (ulimit -n, LimitNOFILE=)");
    }
    Ok(divide(limit, threads))
}

fn raise(wanted: usize) -> Option<usize> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let number = |limit: rlim_t| usize::try_from(limit).unwrap_or(usize::MAX);
    let raised = hard.min(wanted as rlim_t);
    if raised > soft && setrlimit(Resource::RLIMIT_NOFILE, raised, hard).is_ok() {
        return Some(number(raised));
    }
    Some(number(soft))
}

/// Half of what is left goes to clients' connections at least; whatever the limit, some of each.
fn divide(limit: usize, threads: usize) -> Shares {
    let left = limit.saturating_sub(KEPT_BACK + OF_A_THREAD * threads);
    let requests = (left / 4).clamp(4, MAX_REQUESTS);
    let pool = (left / 4 / POOLS).clamp(1, MAX_POOL);
    let connections = left.saturating_sub(requests + POOLS * pool).clamp(8, MAX_CONNECTIONS);
    Shares { connections, requests, pool }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_shared_out_with_some_kept_back() {
        for (limit, connections, requests, pool) in [
            (usize::MAX, MAX_CONNECTIONS, MAX_REQUESTS, MAX_POOL),
            (65_536, MAX_CONNECTIONS, MAX_REQUESTS, MAX_POOL),
            (4096, 1948, 974, 487),
            (1024, 412, 206, 103),
            (256, 28, 14, 7),
            (64, 8, 4, 1),
        ] {
            let shares = divide(limit, 1);
            assert_eq!(shares, Shares { connections, requests, pool }, "{limit}");
            let taken = shares.connections + shares.requests + POOLS * shares.pool;
            assert!(limit < 256 || taken + KEPT_BACK <= limit, "{limit}");
        }
    }
}
