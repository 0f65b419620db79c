//! Names as socket addresses: the one place that asks DNS, for the registry, its storage and the sign-in.
//!
//! A name that was found once is used at once from then on: its last good addresses stay in use while a look-up runs
//! in the background, and a look-up that fails leaves them as they are. Addresses that failed are tried last for some
//! minutes, whatever order DNS gives.
//!
//! Look-ups go through the C library's `getaddrinfo`. A resolver crate would read `/etc/resolv.conf` with its own idea of
//! it, and would not know nsswitch, systemd-resolved, mDNS or a host's other sources, so that `getent` and this program
//! could disagree about a name. The price is that such a call blocks a thread and cannot be cancelled; `lookup` bounds
//! how many there are.
//!
//! - `lookup`: when a name is looked up, one call at a time, and who waits for it
//! - `connect`: TCP to the first address that answers, the next one started after a quarter of a second (RFC 8305)
//! - `call`: the same addresses for the sign-in's calls, which reqwest makes
//! - `table`: the names that are not in the settings, as many as fit

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use log::warn;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use oci::authority;

mod call;
mod connect;
mod lookup;
mod table;

pub(crate) use call::{CALL_WAIT, Resolver, Single};
pub(crate) use connect::Attempt;
#[cfg(any(feature = "bench", feature = "demo"))]
pub(crate) use lookup::system as system_lookup;
pub(crate) use lookup::{LOOKUP_LIMIT, Lookup};
pub(crate) use table::Names;

/// What the other side does not acknowledge for this long has met a path that is dead: five retransmissions, of which the
/// kernel sends the first after 0.2 s. A kept connection whose packets are dropped is found out by it.
pub(crate) const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_secs(4);
/// More addresses of one name than this are no help: a connection needs one.
const MAX_ADDRESSES: usize = 16;
/// How long an address that failed is tried last. It still is tried when all others fail, so a long time does no harm,
/// and a short one would cost a request its time limit whenever it ends.
const AVOID: Duration = Duration::from_secs(300);

/// The addresses of one name. Requests read them without a lock.
pub(crate) struct Addresses {
    /// Whose name it is, for the log: `acr`, `storage`, `entra`.
    role: &'static str,
    host: String,
    port: u16,
    /// Given by the settings, or an address in place of a name: DNS is not asked.
    fixed: bool,
    order: ArcSwap<Order>,
    /// Written by look-ups and failures; never held over a wait.
    state: Mutex<State>,
    /// Counts the look-ups that ended, and those that are given up.
    ended: watch::Sender<u64>,
    lookup: Lookup,
    /// Held by each look-up while it blocks a thread; shared by the names of one table.
    slots: Arc<Semaphore>,
}

/// The order in which addresses are tried.
#[derive(Default, Debug, PartialEq, Eq)]
struct Order {
    addresses: Vec<SocketAddr>,
    /// How many of them, from the first, have not failed lately.
    untroubled: usize,
}

#[derive(Default)]
struct State {
    /// What DNS said last: families alternate, beginning with the resolver's first (RFC 6724, RFC 8305 section 4).
    resolved: Vec<SocketAddr>,
    /// The address that last took a connection, until it fails or DNS no longer has it.
    preferred: Option<SocketAddr>,
    /// Addresses that failed, the latest last.
    failed: Vec<(SocketAddr, Instant)>,
    progress: lookup::Progress,
}

impl Addresses {
    /// A registry's. Does no look-up: `host` is resolved by [`Addresses::keep_fresh`], unless it is an address itself or
    /// `fixed` names addresses to use instead of DNS.
    pub(crate) fn new(host: &str, port: u16, fixed: &[IpAddr]) -> Self {
        let slots = Arc::new(Semaphore::new(lookup::MAX_FLIGHTS));
        Self::build("acr", (host, port), fixed, lookup::system(), slots)
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
        let order = Order { untroubled: known.len(), addresses: known.clone() };
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

    /// `address` took a connection: it goes first from now on. One that failed lately does not, for a registry that takes
    /// connections and then is silent would be first again with each of them.
    pub(crate) fn connected(&self, address: SocketAddr) {
        let mut state = self.lock();
        let failed = state.failed.iter().any(|(known, _)| *known == address);
        if !failed && state.preferred != Some(address) && state.resolved.contains(&address) {
            state.preferred = Some(address);
            self.reorder(&mut state);
        }
    }

    /// `address` refused, did not answer, or broke off: it is tried last for some minutes. When no address is left that
    /// has not failed, the name may have moved, so the next look-up starts at once.
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
            Some(next) if order.untroubled > 0 && is_new => {
                let minutes = AVOID.as_secs() / 60;
                warn!("{} {}: {address} failed: {next} goes first, for {minutes} min", self.role, self.host);
            }
            _ => {}
        }
        if order.untroubled == 0 {
            self.look_up();
        }
    }

    /// Whether every address that is known has failed lately.
    fn all_failed(&self) -> bool {
        self.order.load().untroubled == 0
    }

    /// The same order as [`Addresses::all`], beginning with `first`, and whether each is as good as any: it has not
    /// failed lately, or all have.
    fn candidates(&self, first: SocketAddr) -> Vec<(SocketAddr, bool)> {
        let mut state = self.lock();
        if !state.failed.is_empty() {
            // Some may have served their time.
            self.reorder(&mut state);
        }
        drop(state);
        let order = self.order.load();
        let others = order.addresses.iter().enumerate().filter(|(_, address)| **address != first);
        let others = others.map(|(index, address)| (*address, index < order.untroubled || order.untroubled == 0));
        std::iter::once((first, true)).chain(others).collect()
    }

    /// A look-up gave these.
    fn publish(&self, state: &mut State, addresses: Vec<SocketAddr>) {
        state.resolved = alternate(addresses);
        state.preferred = state.preferred.filter(|preferred| state.resolved.contains(preferred));
        self.reorder(state);
    }

    /// The preferred address, then those that have not failed, in DNS's order; then those that have, the one whose
    /// failure is the longest ago first.
    fn reorder(&self, state: &mut State) {
        let now = Instant::now();
        // An address that DNS does not have at the moment may come back: its failure counts until its time is over.
        state.failed.retain(|(_, since)| now.duration_since(*since) < AVOID);
        let excess = state.failed.len().saturating_sub(2 * MAX_ADDRESSES);
        state.failed.drain(..excess);
        let has_failed = |address: &SocketAddr| state.failed.iter().any(|(known, _)| known == address);
        let untried = state.resolved.iter().filter(|address| state.preferred != Some(**address));
        let mut addresses: Vec<SocketAddr> = state.preferred.into_iter().collect();
        addresses.extend(untried.filter(|address| !has_failed(address)));
        let untroubled = addresses.len();
        let failed = state.failed.iter().map(|(address, _)| address);
        addresses.extend(failed.filter(|address| state.resolved.contains(address)));
        let order = Order { addresses, untroubled };
        if **self.order.load() != order {
            self.order.store(Arc::new(order));
        }
    }

    /// A poisoned lock guards plain values here, so what is in it is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Addresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Addresses").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// Each address once, the two families in turn, so that one family that is out of order delays a connection by one step.
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
    fn the_families_alternate_from_the_first_of_the_resolvers_order() {
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
    async fn an_address_that_failed_stays_last_whatever_order_dns_gives_until_its_time_is_over() {
        let name = resolved(&[address(1), address(2), address(3)]);
        name.failed(address(1));
        name.failed(address(1));
        assert_eq!(name.all(), [2, 3, 1].map(address));
        name.connected(address(3));
        for order in [[1, 2, 3], [3, 1, 2], [1, 3, 2]] {
            resolve(&name, &order.map(address));
            assert_eq!(name.all(), [3, 2, 1].map(address), "{order:?}");
        }
        // One that DNS has left out for a while is no better for it.
        resolve(&name, &[address(2)]);
        resolve(&name, &[address(1), address(2)]);
        assert_eq!(name.all(), [2, 1].map(address));
        tokio::time::advance(AVOID).await;
        resolve(&name, &[address(1), address(2)]);
        assert_eq!(name.all(), [1, 2].map(address));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_takes_connections_and_is_silent_is_not_first_with_its_next_connection() {
        let name = resolved(&[address(1), address(2)]);
        name.connected(address(1));
        name.failed(address(1));
        name.connected(address(1));
        assert_eq!(name.first(), Some(address(2)));
        assert_eq!(name.candidates(address(2)), [(address(2), true), (address(1), false)]);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_have_failed_the_one_whose_failure_is_the_longest_ago_goes_first() {
        let name = resolved(&[address(1), address(2)]);
        for (failed, first) in [(1, 2), (2, 1), (1, 2), (1, 2)] {
            name.failed(address(failed));
            assert_eq!(name.first(), Some(address(first)));
        }
        assert!(name.all_failed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_took_the_last_connection_goes_first_while_dns_has_it() {
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
