//! File descriptors, and how many connections and requests they suffice for.

use std::fmt;

use log::warn;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// Connections of clients at once. Each of hundreds of hosts has some dozen; an idle one takes about 20 KiB.
const MAX_CONNECTIONS: usize = 16 << 10;
/// Requests under way at once, each with a connection to the registry or to storage. A registry's own limits allow about a
/// hundredth of that for manifests; layers (`blobs: proxy`) take about 1 MiB of memory each.
const MAX_REQUESTS: usize = 2 << 10;
/// Idle connections to registries and storage that are kept alive, over all threads and addresses: as many as a shared mirror
/// has requests under way when hundreds of hosts pull at once, because each connection that is missing costs a TLS handshake.
/// They end after 90 s without use; each takes about 90 KiB.
const MAX_POOL: usize = 1024;
/// Pools of that size: Pingora's own, and that of the requests which locate blobs.
const POOLS: usize = 2;
/// Reserved for everything else: the admin listener's connections, sign-ins, DNS, the log, refusals.
const RESERVED: usize = 192;
/// Needed to start with one registry, without its threads: the runtimes of the upkeep, the admin listener, the signals and the
/// look-ups, their sockets, and a few for the first connections. A start was observed to need 30.
const FOR_START: usize = 56;
/// Each thread has a runtime with an epoll instance, an eventfd and a socket for signals.
const PER_THREAD: usize = 8;
/// Below this the shares are too small for a few hosts that pull at once.
const FEW: usize = 1024;
/// The usual default, for a sandbox that hides its limit.
const USUAL: usize = 1024;

/// The process may open fewer files than it needs to start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TooFewDescriptors {
    allowed: usize,
    needed: usize,
}

impl fmt::Display for TooFewDescriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { allowed, needed } = self;
        write!(
            f,
            "{allowed} file descriptors are too few: allow {needed} or more (ulimit -n, or LimitNOFILE= in a unit)"
        )
    }
}

impl std::error::Error for TooFewDescriptors {}

/// What the descriptors are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Connections of clients.
    pub(crate) connections: usize,
    /// Requests under way.
    pub(crate) requests: usize,
    /// Idle connections in each pool.
    pub(crate) pool: usize,
}

/// Raises the soft limit towards the hard one, as far as that is of use, and divides what there is then. The soft limit is low
/// for the sake of programs that use select(2), and this is not one. Fewer than a start needs are an error, because tokio and
/// Pingora panic where they get no descriptor.
pub(crate) fn share_out(threads: usize) -> Result<Shares, TooFewDescriptors> {
    let wanted = MAX_CONNECTIONS + MAX_REQUESTS + POOLS * MAX_POOL + RESERVED + PER_THREAD * threads;
    let limit = raise(wanted).unwrap_or(USUAL);
    let needed = FOR_START + PER_THREAD * threads;
    if limit < needed {
        return Err(TooFewDescriptors { allowed: limit, needed });
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

/// At least half of what is left goes to clients' connections. Each share has some, whatever the limit.
fn divide(limit: usize, threads: usize) -> Shares {
    let left = limit.saturating_sub(RESERVED + PER_THREAD * threads);
    let requests = (left / 4).clamp(4, MAX_REQUESTS);
    let pool = (left / 4 / POOLS).clamp(1, MAX_POOL);
    let connections = left.saturating_sub(requests + POOLS * pool).clamp(8, MAX_CONNECTIONS);
    Shares { connections, requests, pool }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_divided_and_some_descriptors_are_reserved() {
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
            assert!(limit < 256 || taken + RESERVED <= limit, "{limit}");
        }
    }
}
