//! What people want to know and no metric may have as a label: images, clients, and requests that failed. All of it bounded.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Instant, SystemTime};

use ahash::RandomState;

use super::locked;
use crate::access::Client;

/// Images of one route that are counted at once; of more, the one with the fewest pulls gives its place away. Counts are then
/// too high by at most what that one had.
const MAX_IMAGES: usize = 128;
/// Clients at once.
const MAX_CLIENTS: usize = 512;
/// Failed requests that are remembered.
const MAX_FAILURES: usize = 32;

/// Counts of what is most frequent, in bounded memory (space-saving: Metwally, Agrawal, El Abbadi, 2005).
pub(crate) struct Sketch<K> {
    most: usize,
    counts: HashMap<K, Count, RandomState>,
    /// Those that had come as seldom as this when all were looked through last; the one that came least lately is the last.
    rarest: (u64, Vec<K>),
}

/// How often one thing has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    /// At most as often as this.
    pub times: u64,
    /// When it came last.
    pub last: Instant,
}

impl<K: Eq + Hash + Clone> Sketch<K> {
    /// Of so many things at once.
    fn new(most: usize) -> Self {
        Self { most, counts: HashMap::default(), rarest: (0, Vec::new()) }
    }

    /// It has come once more.
    fn add<Q: Eq + Hash + ToOwned<Owned = O> + ?Sized, O: Into<K>>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        let last = Instant::now();
        if let Some(count) = self.counts.get_mut(key) {
            count.times += 1;
            count.last = last;
            return;
        }
        let mut times = 1;
        if self.counts.len() >= self.most {
            times += self.give_away();
        }
        self.counts.insert(key.to_owned().into(), Count { times, last });
    }

    /// Forgets the rarest one, and says how often it has come. All are looked through only once for all that are as rare, for
    /// with more things than places nearly every one that comes needs a place.
    fn give_away(&mut self) -> u64 {
        loop {
            while let Some(key) = self.rarest.1.pop() {
                // One that has come again is not the rarest any more.
                if self.counts.get::<K>(&key).is_some_and(|count| count.times == self.rarest.0) {
                    self.counts.remove::<K>(&key);
                    return self.rarest.0;
                }
            }
            let Some(fewest) = self.counts.values().map(|count| count.times).min() else { return 0 };
            let mut rarest: Vec<_> = self.counts.iter().filter(|(_, count)| count.times == fewest).collect();
            rarest.sort_by_key(|(_, count)| std::cmp::Reverse(count.last));
            self.rarest = (fewest, rarest.into_iter().map(|(key, _)| key.clone()).collect());
        }
    }

    /// The most frequent ones, so many at most.
    fn top(&self, most: usize) -> Vec<(K, Count)> {
        let mut all: Vec<_> = self.counts.iter().map(|(key, count)| (key.clone(), *count)).collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse((count.times, count.last)));
        all.truncate(most);
        all
    }
}

/// The images of one route.
pub(crate) struct Images(Mutex<Sketch<Box<str>>>);

impl Default for Images {
    fn default() -> Self {
        Self(Mutex::new(Sketch::new(MAX_IMAGES)))
    }
}

impl Images {
    /// An image was pulled: the path of its manifest below the route's source.
    pub(crate) fn pulled(&self, path: &str) {
        locked(&self.0).add(path);
    }

    /// How often this one was.
    pub(crate) fn times(&self, path: &str) -> u64 {
        locked(&self.0).counts.get(path).map_or(0, |count| count.times)
    }

    /// The paths that were pulled most often.
    pub(crate) fn top(&self, most: usize) -> Vec<(Box<str>, Count)> {
        locked(&self.0).top(most)
    }
}

/// The clients of the process, as limits count them.
pub(crate) struct Clients(Mutex<Sketch<Client>>);

impl Default for Clients {
    fn default() -> Self {
        Self(Mutex::new(Sketch::new(MAX_CLIENTS)))
    }
}

impl Clients {
    /// A request has come from this address.
    pub(crate) fn asked(&self, address: IpAddr) {
        locked(&self.0).add(&Client::from(address));
    }

    /// Those that have asked most often.
    pub(crate) fn top(&self, most: usize) -> Vec<(Client, Count)> {
        locked(&self.0).top(most)
    }
}

/// A request that failed, in words that are bounded by whoever adds it.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// When it ended.
    pub at: SystemTime,
    /// The registry that it was for.
    pub registry: String,
    /// Its method.
    pub method: String,
    /// Its path, without the query.
    pub path: String,
    /// The status of the answer; 0 is none.
    pub status: u16,
    /// Why, as the client was told.
    pub error: String,
    /// Who asked.
    pub client: Option<IpAddr>,
    /// The registry's id of the request.
    pub correlation: Option<String>,
}

/// The last requests that failed.
#[derive(Default)]
pub(crate) struct Failures(Mutex<VecDeque<Failure>>);

impl Failures {
    /// One more.
    pub(crate) fn add(&self, failure: Failure) {
        let mut failures = locked(&self.0);
        failures.truncate(MAX_FAILURES - 1);
        failures.push_front(failure);
    }

    /// The newest first.
    pub(crate) fn all(&self) -> Vec<Failure> {
        locked(&self.0).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_frequent_outlasts_any_number_of_others() {
        let images = Images::default();
        for number in 0..10_000 {
            images.pulled(&format!("/v2/hostile/manifests/{number}"));
            if number % 10 == 0 {
                images.pulled("/v2/hub/library/nginx/manifests/1.27");
            }
        }
        let top = images.top(3);
        assert_eq!(&*top[0].0, "/v2/hub/library/nginx/manifests/1.27");
        // Never too low; too high by at most all there was, spread over the places.
        assert!((1000..=1000 + 11_000 / MAX_IMAGES as u64).contains(&top[0].1.times), "{top:?}");
        assert_eq!(images.top(usize::MAX).len(), MAX_IMAGES);
    }

    #[test]
    fn a_client_of_ipv6_is_its_network() {
        let clients = Clients::default();
        for address in ["2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1", "192.0.2.1", "::ffff:192.0.2.1"] {
            clients.asked(address.parse().expect("an address"));
        }
        let mut top: Vec<_> =
            clients.top(9).into_iter().map(|(client, count)| (client.to_string(), count.times)).collect();
        top.sort();
        let expected = [("192.0.2.1", 2), ("2001:db8:0:1::/64", 1), ("2001:db8::/64", 2)];
        assert_eq!(top, expected.map(|(client, times)| (client.to_owned(), times)));
    }

    #[test]
    fn the_newest_failures_are_kept() {
        let failures = Failures::default();
        for number in 0..100 {
            failures.add(Failure {
                at: SystemTime::now(),
                registry: String::new(),
                method: "GET".to_owned(),
                path: number.to_string(),
                status: 503,
                error: String::new(),
                client: None,
                correlation: None,
            });
        }
        let paths: Vec<_> = failures.all().into_iter().map(|failure| failure.path).collect();
        assert_eq!((paths.len(), paths[0].as_str()), (MAX_FAILURES, "99"));
    }
}
