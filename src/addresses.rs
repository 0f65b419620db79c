//! The registry's name as socket addresses, looked up in the background.
//!
//! A request never waits for DNS and never fails because of it: it takes the addresses that are
//! known. A failed look-up leaves them as they are.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use log::{info, warn};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// ACR moves a registry by short-lived CNAMEs (Traffic Manager: 60 s and less), and the system's
/// resolver does not say for how long an answer holds.
const REFRESH: Duration = Duration::from_secs(30);
/// After a failure, sooner: nothing else may be known.
const RETRY: Duration = Duration::from_secs(2);
/// glibc gives up after 5 s a server and try by default; two such waits are enough.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);
/// More addresses than this are no help: a request tries only a few.
const MAX_ADDRESSES: usize = 16;

/// The addresses of one registry, IPv4 and IPv6 in the resolver's order (RFC 6724).
pub struct Addresses {
    host: String,
    port: u16,
    known: ArcSwap<Vec<SocketAddr>>,
    /// Index of the address that last took a connection; others are tried from there on.
    preferred: AtomicUsize,
    /// Turns true with the first addresses.
    resolved: watch::Sender<bool>,
    fixed: bool,
}

impl Addresses {
    /// Does no look-up: `host` is resolved by [`Addresses::keep_fresh`], unless it is an address
    /// itself or `fixed` names addresses to use instead of DNS.
    pub fn new(host: &str, port: u16, fixed: &[IpAddr]) -> Self {
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        let known: Vec<SocketAddr> =
            fixed.iter().copied().chain(literal.filter(|_| fixed.is_empty())).map(|ip| (ip, port).into()).collect();
        Self {
            host: host.to_owned(),
            port,
            fixed: !known.is_empty(),
            resolved: watch::Sender::new(!known.is_empty()),
            known: ArcSwap::from_pointee(known),
            preferred: AtomicUsize::new(0),
        }
    }

    /// Where a request starts to try: at the last good address.
    pub fn start(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    /// The `attempt`-th address to try for a request that began at `start`: each in its turn, then from the first again,
    /// for a packet may have been lost. `None` if none is known yet.
    pub fn candidate(&self, start: usize, attempt: usize) -> Option<SocketAddr> {
        let known = self.known.load();
        let next = start.wrapping_add(attempt).checked_rem(known.len())?;
        known.get(next).copied()
    }

    /// All addresses that are known now.
    pub fn all(&self) -> Arc<Vec<SocketAddr>> {
        self.known.load_full()
    }

    /// Remembers that `address` refused or timed out, so that the next request starts with another.
    pub fn avoid(&self, address: SocketAddr) {
        let known = self.known.load();
        let start = self.preferred.load(Ordering::Relaxed);
        if !known.is_empty() && known.get(start % known.len()) == Some(&address) {
            // Two requests that fail at once must move on by one, not by two.
            let _ = self.preferred.compare_exchange(start, start.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Waits until any address is known, `limit` at most; false if none is.
    pub async fn wait(&self, limit: Duration) -> bool {
        let mut resolved = self.resolved.subscribe();
        timeout(limit, resolved.wait_for(|resolved| *resolved)).await.is_ok_and(|waited| waited.is_ok())
    }

    /// Looks the name up again and again, for ever. One look-up is under way at a time: the system's cannot be broken
    /// off, and the next one waits for it, so that a resolver that hangs holds one thread and no request.
    pub async fn keep_fresh(&self) {
        if self.fixed {
            return std::future::pending().await;
        }
        self.keep_fresh_by(|| async {
            tokio::net::lookup_host((self.host.as_str(), self.port)).await.map(Iterator::collect)
        })
        .await;
    }

    async fn keep_fresh_by<F, L>(&self, lookup: L)
    where
        L: Fn() -> F,
        F: Future<Output = io::Result<Vec<SocketAddr>>>,
    {
        let mut failing = false;
        let mut under_way = Box::pin(lookup());
        loop {
            let (answer, ended) = match timeout(LOOKUP_LIMIT, &mut under_way).await {
                Ok(Ok(addresses)) if addresses.is_empty() => (Err("the name has no address".to_owned()), true),
                Ok(answer) => (answer.map_err(|cause| cause.to_string()), true),
                Err(_) => (Err(format!("no answer within {} s", LOOKUP_LIMIT.as_secs())), false),
            };
            let pause = match answer {
                Ok(addresses) => {
                    self.publish(addresses);
                    if failing {
                        info!("acr {}: DNS look-up works again", self.host);
                    }
                    failing = false;
                    REFRESH
                }
                Err(cause) => {
                    if !failing {
                        warn!(
                            "acr {}: DNS look-up: {}: {cause}",
                            self.host,
                            if self.known.load().is_empty() {
                                "check the name and this host's resolver"
                            } else {
                                "the last good addresses stay in use"
                            }
                        );
                    }
                    failing = true;
                    RETRY
                }
            };
            if ended {
                sleep(pause).await;
                under_way.set(lookup());
            }
        }
    }

    fn publish(&self, mut addresses: Vec<SocketAddr>) {
        let mut seen = Vec::with_capacity(addresses.len());
        addresses.retain(|address| {
            let new = !seen.contains(address);
            seen.push(*address);
            new
        });
        addresses.truncate(MAX_ADDRESSES);
        if **self.known.load() != addresses {
            self.preferred.store(0, Ordering::Relaxed);
            self.known.store(Arc::new(addresses));
        }
        self.resolved.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    /// Runs look-ups that answer what `script` says, then hang, until `until` has passed.
    async fn look_up(addresses: &Addresses, script: Vec<io::Result<Vec<SocketAddr>>>, until: Duration) {
        let script = Mutex::new(script.into_iter());
        let run = addresses.keep_fresh_by(|| {
            let next = script.lock().expect("one thread").next();
            async move {
                match next {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            }
        });
        let _ = timeout(until, run).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_dns_failure_keeps_the_last_good_addresses() {
        let addresses = Addresses::new("example.azurecr.io", 443, &[]);
        let script = vec![Ok(vec![address(1), address(2)]), Err(io::Error::other("SERVFAIL")), Ok(vec![])];
        look_up(&addresses, script, Duration::from_secs(300)).await;
        assert_eq!(*addresses.all(), vec![address(1), address(2)]);
        assert!(addresses.wait(Duration::ZERO).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_resolver_is_waited_for_and_a_hanging_one_given_up() {
        let addresses = Addresses::new("example.azurecr.io", 443, &[]);
        assert!(!addresses.wait(Duration::from_secs(3)).await);
        look_up(&addresses, vec![Err(io::Error::other("no network yet"))], Duration::from_secs(60)).await;
        assert_eq!(addresses.candidate(0, 0), None);
        look_up(&addresses, vec![Ok(vec![address(1)])], Duration::from_secs(1)).await;
        assert_eq!(addresses.candidate(0, 0), Some(address(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_takes_its_time_is_waited_for_and_no_second_one_begun() {
        let addresses = Addresses::new("example.azurecr.io", 443, &[]);
        let begun = AtomicUsize::new(0);
        let run = addresses.keep_fresh_by(|| {
            begun.fetch_add(1, Ordering::Relaxed);
            async {
                sleep(4 * LOOKUP_LIMIT + RETRY).await;
                Ok(vec![address(1)])
            }
        });
        let _ = timeout(5 * LOOKUP_LIMIT, run).await;
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        assert_eq!(addresses.candidate(0, 0), Some(address(1)));
    }

    #[test]
    fn a_bad_address_is_tried_last_from_then_on() {
        let addresses = Addresses::new("example.azurecr.io", 443, &[]);
        addresses.publish(vec![address(1), address(2), address(2), address(3)]);
        let order = || (0..4).map(|attempt| addresses.candidate(addresses.start(), attempt)).collect::<Vec<_>>();
        assert_eq!(order(), [1, 2, 3, 1].map(|last| Some(address(last))));
        addresses.avoid(address(1));
        addresses.avoid(address(1));
        assert_eq!(order(), [2, 3, 1, 2].map(|last| Some(address(last))));
    }

    #[test]
    fn literals_and_fixed_addresses_need_no_dns() {
        for (host, fixed, expected) in [
            ("127.0.0.1", &[][..], "127.0.0.1:5000"),
            ("[::1]", &[][..], "[::1]:5000"),
            ("example.azurecr.io", &[IpAddr::from([10, 0, 0, 5])][..], "10.0.0.5:5000"),
        ] {
            let addresses = Addresses::new(host, 5000, fixed);
            assert_eq!(addresses.candidate(0, 0), Some(expected.parse().expect("an address")), "{host}");
        }
    }
}
