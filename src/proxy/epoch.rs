//! Which kept connections may still be used: those of their address's current epoch.
//!
//! A firewall that fails over, a VPN that switches or a host that resumes drops the packets of all connections that were
//! there before, while new ones work. The first request to notice gives up on its connection after
//! [`crate::net::addresses::UNACKNOWLEDGED_LIMIT`]; the others in the pool would each cost another one the same wait. So it
//! raises the epoch, which is part of the pool's key, and they are not found again: they end when they have been idle.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

/// Addresses share epochs where there are more of them than this, which costs a connection that would have been good.
const SLOTS: usize = 256;

/// Counted over the whole process, as the path to an address is the same for all that use it.
static EPOCHS: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];

/// A few shifts in place of a strong hash, for every request comes here. Addresses that meet in a slot retire each other's
/// connections, which costs a new one each.
fn slot(address: SocketAddr) -> &'static AtomicU64 {
    let bits = match address.ip() {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits() ^ (ip.to_bits() >> 64),
    };
    // Below SLOTS, so the index is there and the cast loses nothing.
    &EPOCHS[((bits ^ (bits >> 16) ^ u128::from(address.port())) % SLOTS as u128) as usize]
}

/// The epoch of connections that are made, or taken from the pool, now.
pub fn current(address: SocketAddr) -> u64 {
    slot(address).load(Ordering::Relaxed)
}

/// A connection of this epoch has died in silence. Those of later ones are none the worse for it: several requests that
/// notice together raise it once.
pub fn end(address: SocketAddr, epoch: u64) {
    let _ = slot(address).compare_exchange(epoch, epoch.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_notice_together_raise_the_epoch_once() {
        let address = SocketAddr::from(([192, 0, 2, 1], 443));
        let before = current(address);
        end(address, before);
        end(address, before);
        assert_eq!(current(address), before + 1);
    }
}
