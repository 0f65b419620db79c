//! Which kept connections may still be used: those of their address's current epoch.
//!
//! When a firewall fails over, a VPN switches or a host resumes, the packets of all earlier connections are dropped while
//! new connections work. The first request to notice gives up on its connection after
//! [`crate::net::addresses::UNACKNOWLEDGED_LIMIT`]. Each of the others in the pool would cost some request the same wait.
//! So the first one raises the epoch, which is part of the pool's key: the others are not found again and end by being idle.
//!
//! Through a proxy, connections to many targets go to one address, so the target is the other part of the key.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

/// With more addresses than this some share an epoch, which costs connections that would have been good.
const SLOTS: usize = 256;

/// Counted over the whole process, as the path to an address is the same for all that use it.
static EPOCHS: [AtomicU32; SLOTS] = [const { AtomicU32::new(0) }; SLOTS];

/// A few shifts in place of a strong hash, because every request needs it. Addresses in the same slot retire each other's
/// connections, which costs a new one each.
fn slot(address: SocketAddr) -> &'static AtomicU32 {
    let bits = match address.ip() {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits() ^ (ip.to_bits() >> 64),
    };
    // Below SLOTS, so the index is there and the cast loses nothing.
    &EPOCHS[((bits ^ (bits >> 16) ^ u128::from(address.port())) % SLOTS as u128) as usize]
}

/// The key of connections that are made, or taken from the pool, now: the target behind a proxy, and the epoch.
pub(crate) fn current(address: SocketAddr, target: u32) -> u64 {
    u64::from(target) << 32 | u64::from(slot(address).load(Ordering::Relaxed))
}

/// A connection of this key has stopped without a word. Connections of later epochs stay good: several requests that
/// notice together raise the epoch once, for all targets, because the path to the address is the same.
pub(crate) fn end(address: SocketAddr, key: u64) {
    // The lower half.
    let epoch = key as u32;
    let _ = slot(address).compare_exchange(epoch, epoch.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_notice_together_raise_the_epoch_once() {
        let address = SocketAddr::from(([192, 0, 2, 1], 443));
        let [before, other] = [7, 8].map(|target| current(address, target));
        assert_ne!(before, other);
        end(address, before);
        end(address, before);
        end(address, other);
        assert_eq!([7, 8].map(|target| current(address, target)), [before + 1, other + 1]);
    }
}
