//! The addresses of host names. This is the only module that asks DNS: for registries, their blob storage, the sign-in, and
//! the egress proxy, through which none of the others is looked up here.
//!
//! Once a name has addresses, no request waits for DNS again: the last good addresses stay in use while a look-up runs
//! in the background, and a failed look-up does not change them. An address that failed is tried last for five minutes,
//! whatever order DNS gives.
//!
//! Look-ups call the C library's `getaddrinfo`, so that this program and `getent` always agree. A resolver crate parses
//! `/etc/resolv.conf` itself and does not know nsswitch, systemd-resolved or mDNS. The price is that a call blocks a
//! thread and cannot be cancelled; `lookup` limits how many run at a time.
//!
//! - `lookup`: when a name is looked up, and who waits for the result
//! - `connect`: TCP to the first address that answers; the next one is tried after 250 ms (RFC 8305)
//! - `way`: whether these are the host's own addresses or those of a proxy before it
//! - `call`: the same addresses for reqwest, which makes the calls of the sign-in
//! - `table`: a bounded table of the names that are not in the settings

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use log::warn;
use pingora_core::protocols::TcpKeepalive;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use oci::authority;

mod call;
mod connect;
mod lookup;
mod table;
mod way;

pub(crate) use call::{Resolver, Single};
pub(crate) use connect::Connect;
#[cfg(any(feature = "bench", feature = "demo"))]
pub(crate) use lookup::system as system_lookup;
pub(crate) use lookup::{LOOKUP_LIMIT, Lookup};
pub(crate) use table::Names;
pub(crate) use way::Way;

/// TCP_USER_TIMEOUT: a connection is closed if sent data is not acknowledged for this long. The kernel retransmits five
/// times within it, beginning after 0.2 s. It detects kept connections whose packets are dropped.
pub(crate) const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_secs(4);
/// Addresses of one name that are used; further ones are ignored. A connection needs one.
const MAX_ADDRESSES: usize = 16;
/// How long an address that failed is tried last. It is still tried when all others fail, so a long time does no harm.
/// After a short one, requests would run into the dead address again and again.
const AVOID: Duration = Duration::from_secs(300);

/// The addresses of one name. Requests read them without a lock.
pub(crate) struct Addresses {
    /// What the host is, for the log: `acr`, `storage`, `entra`, `egress` or `otlp`.
    role: &'static str,
    host: String,
    port: u16,
    /// The settings give the addresses, or the host is an address itself: DNS is never asked.
    fixed: bool,
    order: ArcSwap<Order>,
    /// Written by look-ups and failures; never held over a wait.
    state: Mutex<State>,
    /// Changes whenever a look-up ends or exceeds its time limit; wakes those who wait for one.
    ended: watch::Sender<u64>,
    lookup: Lookup,
    /// One permit for each look-up that blocks a thread; shared by all names of a table.
    slots: Arc<Semaphore>,
}

/// The order in which addresses are tried.
#[derive(Default, Debug, PartialEq, Eq)]
struct Order {
    addresses: Vec<SocketAddr>,
    /// How many of them have not failed lately; these come first.
    healthy: usize,
}

#[derive(Default)]
struct State {
    /// The last result of DNS. IPv4 and IPv6 alternate, beginning with the family of the resolver's first address (RFC 6724,
    /// RFC 8305 section 4).
    resolved: Vec<SocketAddr>,
    /// The address that last accepted a connection, until it fails or disappears from DNS.
    preferred: Option<SocketAddr>,
    /// Addresses that failed, the latest last.
    failed: Vec<(SocketAddr, Instant)>,
    progress: lookup::Progress,
}

/// How the kernel looks whether an idle connection still stands, and for how long it waits for what it has sent.
pub(crate) fn keepalive() -> TcpKeepalive {
    TcpKeepalive {
        idle: Duration::from_secs(30),
        interval: Duration::from_secs(10),
        count: 3,
        #[cfg(target_os = "linux")]
        user_timeout: UNACKNOWLEDGED_LIMIT,
    }
}

impl Addresses {
    /// The addresses of a registry. Does no look-up: [`Addresses::keep_fresh`] does, unless `host` is an address itself or
    /// `fixed` has addresses to use instead of DNS.
    pub(crate) fn new(host: &str, port: u16, fixed: &[IpAddr]) -> Self {
        Self::of_role("acr", (host, port), fixed)
    }

    /// The addresses of an egress proxy, looked up as those of a registry are.
    pub(crate) fn of_proxy(host: &str, port: u16) -> Self {
        Self::of_role("egress", (host, port), &[])
    }

    /// The addresses of a collector of spans, which are not kept fresh: [`Addresses::resolve`] looks them up.
    #[cfg(feature = "otlp")]
    pub(crate) fn of_collector(host: &str, port: u16) -> Self {
        Self::of_role("otlp", (host, port), &[])
    }

    /// Of a name that is in no table, and shares its look-ups with no other.
    fn of_role(role: &'static str, host_and_port: (&str, u16), fixed: &[IpAddr]) -> Self {
        let slots = Arc::new(Semaphore::new(lookup::MAX_CONCURRENT));
        Self::build(role, host_and_port, fixed, lookup::system(), slots)
    }

    fn build(
        role: &'static str,
        (host, port): (&str, u16),
        fixed: &[IpAddr],
        lookup: Lookup,
        slots: Arc<Semaphore>,
    ) -> Self {
        let literal = authority::without_brackets(host).parse::<IpAddr>().ok();
        let known = fixed.iter().copied().chain(literal.filter(|_| fixed.is_empty()));
        let known: Vec<SocketAddr> = known.map(|ip| (ip, port).into()).collect();
        let order = Order { healthy: known.len(), addresses: known.clone() };
        Self {
            role,
            host: host.to_owned(),
            port,
            fixed: !known.is_empty(),
            order: ArcSwap::from_pointee(order),
            state: Mutex::new(State { resolved: known, ..State::default() }),
            ended: watch::Sender::new(0),
            lookup,
            slots,
        }
    }

    /// The address to try first; `None` if none is known yet.
    pub(crate) fn first(&self) -> Option<SocketAddr> {
        self.order.load().addresses.first().copied()
    }

    /// All addresses that are known now, in the order in which to try them.
    pub(crate) fn all(&self) -> Vec<SocketAddr> {
        self.order.load().addresses.clone()
    }

    /// `address` has accepted a connection, so it is tried first from now on. This does not apply to an address that failed
    /// lately: a registry that accepts connections and never answers would come first again with each connection.
    pub(crate) fn connected(&self, address: SocketAddr) {
        let mut state = self.lock();
        let failed = state.failed.iter().any(|(known, _)| *known == address);
        if !failed && state.preferred != Some(address) && state.resolved.contains(&address) {
            state.preferred = Some(address);
            self.reorder(&mut state);
        }
    }

    /// `address` has refused a connection, not answered, or broken off: it is tried last for [`AVOID`]. Once all addresses
    /// have failed, the name may have moved, so the next look-up starts at once.
    pub(crate) fn failed(self: &Arc<Self>, address: SocketAddr) {
        let mut state = self.lock();
        if !state.resolved.contains(&address) {
            return;
        }
        let known = state.failed.len();
        state.failed.retain(|(known, _)| *known != address);
        let is_new = state.failed.len() == known;
        state.failed.push((address, Instant::now()));
        state.preferred = state.preferred.filter(|preferred| *preferred != address);
        self.reorder(&mut state);
        drop(state);
        let order = self.order.load();
        match order.addresses.first() {
            Some(next) if order.healthy > 0 && is_new => {
                let minutes = AVOID.as_secs() / 60;
                warn!("{} {}: {address} failed: {next} goes first, for {minutes} min", self.role, self.host);
            }
            _ => {}
        }
        if order.healthy == 0 {
            self.look_up();
        }
    }

    /// Where every known address has failed and the look-up that the failure began is under way, waits for it to end, until
    /// `limit` after the failure. A client that asks again at once is not sent to the address that has just failed.
    pub(crate) async fn after_failure(&self, limit: Duration) {
        if !self.all_failed() {
            return;
        }
        let mut ended = self.ended.subscribe();
        let until = {
            let state = self.lock();
            let Some((_, failure)) = state.failed.last() else {
                return;
            };
            if !state.progress.may_end_in_time_since(*failure) {
                return;
            }
            *failure + limit
        };
        // In a box, for it is rare.
        let _ = Box::pin(timeout_at(until, ended.changed())).await;
    }

    /// Whether every address that is known has failed lately.
    fn all_failed(&self) -> bool {
        self.order.load().healthy == 0
    }

    /// All addresses in the order in which to try them, beginning with `first`. The flag is true for an address that has not
    /// failed lately; if all have failed, it is true for each.
    fn candidates(&self, first: SocketAddr) -> Vec<(SocketAddr, bool)> {
        let mut state = self.lock();
        if !state.failed.is_empty() {
            // For some, AVOID may be over.
            self.reorder(&mut state);
        }
        drop(state);
        let order = self.order.load();
        let others = order.addresses.iter().enumerate().filter(|(_, address)| **address != first);
        let others = others.map(|(index, address)| (*address, index < order.healthy || order.healthy == 0));
        std::iter::once((first, true)).chain(others).collect()
    }

    /// Stores the result of a look-up.
    fn publish(&self, state: &mut State, addresses: Vec<SocketAddr>) {
        state.resolved = alternate(addresses);
        state.preferred = state.preferred.filter(|preferred| state.resolved.contains(preferred));
        self.reorder(state);
    }

    /// The order is: the preferred address; those that have not failed, in the order of DNS; those that have failed, the
    /// oldest failure first.
    fn reorder(&self, state: &mut State) {
        let now = Instant::now();
        // Also for addresses that DNS does not list at the moment: they may come back.
        state.failed.retain(|(_, since)| now.duration_since(*since) < AVOID);
        let excess = state.failed.len().saturating_sub(2 * MAX_ADDRESSES);
        state.failed.drain(..excess);
        let has_failed = |address: &SocketAddr| state.failed.iter().any(|(known, _)| known == address);
        let untried = state.resolved.iter().filter(|address| state.preferred != Some(**address));
        let mut addresses: Vec<SocketAddr> = state.preferred.into_iter().collect();
        addresses.extend(untried.filter(|address| !has_failed(address)));
        let healthy = addresses.len();
        let failed = state.failed.iter().map(|(address, _)| address);
        addresses.extend(failed.filter(|address| state.resolved.contains(address)));
        let order = Order { addresses, healthy };
        if **self.order.load() != order {
            self.order.store(Arc::new(order));
        }
    }

    /// A poisoned lock is used all the same: every update leaves plain, consistent values.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Addresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Addresses").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// Removes duplicates and alternates IPv4 and IPv6, so that a broken family delays a connection by one step only.
fn alternate(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_ipv4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == first_is_ipv4);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut result = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] || result.len() >= MAX_ADDRESSES {
            result.truncate(MAX_ADDRESSES);
            return result;
        }
        for address in pair.into_iter().flatten() {
            if !result.contains(&address) {
                result.push(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    pub(crate) fn address6(last: u16) -> SocketAddr {
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 443))
    }

    /// A name with these addresses, whose further look-ups never end.
    pub(crate) fn resolved(addresses: &[SocketAddr]) -> Arc<Addresses> {
        let lookup: Lookup = Arc::new(|_, _| Box::pin(std::future::pending()));
        let slots = Arc::new(Semaphore::new(1));
        let name = Arc::new(Addresses::build("acr", ("example.azurecr.io", 443), &[], lookup, slots));
        resolve(&name, addresses);
        name
    }

    fn resolve(name: &Addresses, addresses: &[SocketAddr]) {
        name.publish(&mut name.lock(), addresses.to_vec());
    }

    #[test]
    fn families_alternate_beginning_with_the_resolvers_first() {
        let (a, b) = (address, address6);
        for (given, expected) in [
            (vec![b(1), b(2), b(3), a(1)], vec![b(1), a(1), b(2), b(3)]),
            (vec![a(1), a(2), b(1), a(1), b(2)], vec![a(1), b(1), a(2), b(2)]),
            (vec![a(1)], vec![a(1)]),
            (vec![], vec![]),
        ] {
            assert_eq!(alternate(given.clone()), expected, "{given:?}");
        }
        let many: Vec<_> = (0..100).map(a).chain((0..100).map(b)).collect();
        let kept = alternate(many);
        assert_eq!((kept.len(), kept[0], kept[1]), (MAX_ADDRESSES, a(0), b(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_address_stays_last_for_five_minutes_whatever_order_dns_gives() {
        let name = resolved(&[address(1), address(2), address(3)]);
        name.failed(address(1));
        name.failed(address(1));
        assert_eq!(name.all(), [2, 3, 1].map(address));
        name.connected(address(3));
        for order in [[1, 2, 3], [3, 1, 2], [1, 3, 2]] {
            resolve(&name, &order.map(address));
            assert_eq!(name.all(), [3, 2, 1].map(address), "{order:?}");
        }
        // DNS leaves it out and lists it again: its failure still counts.
        resolve(&name, &[address(2)]);
        resolve(&name, &[address(1), address(2)]);
        assert_eq!(name.all(), [2, 1].map(address));
        tokio::time::advance(AVOID).await;
        resolve(&name, &[address(1), address(2)]);
        assert_eq!(name.all(), [1, 2].map(address));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_address_that_accepts_a_connection_does_not_come_first_again() {
        let name = resolved(&[address(1), address(2)]);
        name.connected(address(1));
        name.failed(address(1));
        name.connected(address(1));
        assert_eq!(name.first(), Some(address(2)));
        assert_eq!(name.candidates(address(2)), [(address(2), true), (address(1), false)]);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_addresses_have_failed_the_oldest_failure_comes_first() {
        let name = resolved(&[address(1), address(2)]);
        for (failed, first) in [(1, 2), (2, 1), (1, 2), (1, 2)] {
            name.failed(address(failed));
            assert_eq!(name.first(), Some(address(first)));
        }
        assert!(name.all_failed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_address_of_the_last_connection_comes_first_while_dns_lists_it() {
        let name = resolved(&[address(1), address(2)]);
        name.connected(address(2));
        assert_eq!(name.first(), Some(address(2)));
        resolve(&name, &[address(1), address(2)]);
        assert_eq!(name.first(), Some(address(2)));
        resolve(&name, &[address(1), address(3)]);
        assert_eq!(name.all(), [1, 3].map(address));
        // A late failure of what is gone changes nothing.
        name.failed(address(2));
        assert_eq!(name.all(), [1, 3].map(address));
    }

    #[tokio::test]
    async fn literals_and_fixed_addresses_need_no_dns() {
        for (host, fixed, expected) in [
            ("127.0.0.1", &[][..], "127.0.0.1:5000"),
            ("[::1]", &[][..], "[::1]:5000"),
            ("example.azurecr.io", &[IpAddr::from([10, 0, 0, 5])][..], "10.0.0.5:5000"),
        ] {
            let name = Arc::new(Addresses::new(host, 5000, fixed));
            assert!(name.resolve(Duration::ZERO).await.is_ok(), "{host}");
            assert_eq!(name.first(), Some(expected.parse().expect("an address")), "{host}");
        }
    }
}
