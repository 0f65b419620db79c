//! When a name is looked up, and who waits for it.
//!
//! glibc waits 5 s for a name server before it asks again, so a look-up takes 5 s longer for each packet that is lost. After
//! 10 s, nobody waits for a look-up any more. It still goes on in the background, because `getaddrinfo` cannot be
//! cancelled, and its late result is used.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{Addresses, State};

/// How long a look-up is waited for: as long as glibc needs when two packets are lost.
pub(crate) const LOOKUP_LIMIT: Duration = Duration::from_secs(10);
/// Time between look-ups of a name. Azure moves names by CNAMEs with a TTL of 60 s and less (Traffic Manager), and
/// `getaddrinfo` does not tell the TTL.
const REFRESH: Duration = Duration::from_secs(30);
/// Addresses older than this are used only if a new look-up has no result within [`STALE_WAIT`].
const STALE: Duration = Duration::from_secs(300);
/// RFC 8767 section 5 recommends to wait 1.8 s before a stale result is used.
const STALE_WAIT: Duration = Duration::from_millis(1800);
/// From the end of a failed look-up to the next one, for a name that is kept fresh.
const RETRY: Duration = Duration::from_secs(2);
/// Minimum time from the end of a look-up to the next one, whoever asks for it.
const PAUSE: Duration = Duration::from_secs(1);
/// Look-ups of one name at a time. The second one starts once the first has run for [`LOOKUP_LIMIT`]: the first may be
/// asking a name server that this host no longer uses.
pub(crate) const MAX_CONCURRENT: usize = 2;

/// Looks up a host and port: [`system`], or a script in tests.
pub(crate) type Lookup = Arc<dyn Fn(String, u16) -> Found + Send + Sync>;
type Found = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// `getaddrinfo`, on a thread for blocking calls.
pub(crate) fn system() -> Lookup {
    Arc::new(|host, port| {
        Box::pin(async move {
            let call = move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
            tokio::task::spawn_blocking(call).await.unwrap_or_else(|crash| Err(io::Error::other(crash)))
        })
    })
}

/// A host name that has no address. Prints as one sentence, the cause last.
#[derive(Clone, Debug)]
pub(crate) struct Unresolved {
    host: String,
    cause: String,
}

impl std::fmt::Display for Unresolved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DNS look-up of {}: check the name and this host's resolver: {}", self.host, self.cause)
    }
}

impl std::error::Error for Unresolved {}

/// The look-ups of one name.
#[derive(Default)]
pub(crate) struct Progress {
    under_way: usize,
    /// The number of the newest look-up, and when it began.
    newest: u64,
    began: Option<Instant>,
    /// When a look-up last ended.
    ended: Option<Instant>,
    /// When a look-up last found addresses, and its number.
    last_good: Option<(Instant, u64)>,
    /// Since when look-ups fail, and the last cause; `None` while they succeed.
    failing: Option<(Instant, String)>,
}

impl Progress {
    /// When the next look-up may begin; `None` while [`MAX_CONCURRENT`] are under way.
    fn next(&self, now: Instant) -> Option<Instant> {
        match self.under_way {
            0 => Some(self.ended.map_or(now, |ended| ended + PAUSE)),
            MAX_CONCURRENT.. => None,
            _ => self.began.map(|began| began + LOOKUP_LIMIT),
        }
    }

    /// When the next look-up of a name that is kept fresh begins.
    fn due(&self, now: Instant) -> Option<Instant> {
        let wanted = match (&self.failing, self.last_good, self.ended) {
            (None, Some((found, _)), _) => found + REFRESH,
            (_, _, Some(ended)) => ended + RETRY,
            (_, _, None) => now,
        };
        self.next(now).map(|next| next.max(wanted))
    }

    /// Whether a look-up is under way that may still end in time, and none has ended since `then`.
    pub(super) fn may_end_in_time_since(&self, then: Instant) -> bool {
        self.may_end_in_time() && self.ended.is_none_or(|ended| ended <= then)
    }

    /// Whether a look-up is under way that has not exceeded its time limit.
    fn may_end_in_time(&self) -> bool {
        self.under_way > 0 && self.began.is_some_and(|began| began.elapsed() < LOOKUP_LIMIT)
    }
}

impl Addresses {
    /// Repeats the look-up until the future is dropped, so that requests find the addresses here and do not wait for DNS.
    pub(crate) async fn keep_fresh(self: &Arc<Self>) {
        if self.fixed {
            return std::future::pending().await;
        }
        let mut ended = self.ended.subscribe();
        loop {
            let due = self.lock().progress.due(Instant::now());
            let wait = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wait => self.look_up(),
                _ = ended.changed() => {}
            }
        }
    }

    /// Makes sure that there are addresses, for a name that is not kept fresh. If some are known, they are used at once and a
    /// look-up runs in the background; if none are, it waits for one, `limit` at most. A failed look-up is repeated
    /// until the name has failed for [`LOOKUP_LIMIT`]; from then on the error is returned at once.
    pub(crate) async fn resolve(self: &Arc<Self>, limit: Duration) -> Result<(), Unresolved> {
        if self.fixed {
            return Ok(());
        }
        let deadline = Instant::now() + limit;
        let mut ended = self.ended.subscribe();
        loop {
            ended.borrow_and_update();
            let age = self.lock().progress.last_good.map(|(found, _)| found.elapsed());
            if age.is_some_and(|age| age < REFRESH) {
                return Ok(());
            }
            self.look_up();
            if let Some(age) = age {
                if age >= STALE && self.lock().progress.may_end_in_time() {
                    let _ = timeout_at(deadline.min(Instant::now() + STALE_WAIT), ended.changed()).await;
                }
                return Ok(());
            }
            let now = Instant::now();
            let until = {
                let state = self.lock();
                let progress = &state.progress;
                let keeps_failing = progress.failing.as_ref().is_some_and(|(since, _)| now - *since >= LOOKUP_LIMIT);
                if now >= deadline || (keeps_failing && !progress.may_end_in_time()) {
                    return Err(self.unresolved(&state, limit));
                }
                match progress.next(now) {
                    Some(next) => deadline.min(next),
                    None => deadline,
                }
            };
            let _ = timeout_at(until, ended.changed()).await;
        }
    }

    /// If every known address has failed, waits for a new look-up, `limit` at most: the name may have moved.
    pub(crate) async fn renewed(self: &Arc<Self>, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut ended = self.ended.subscribe();
        while !self.fixed && self.all_failed() && Instant::now() < deadline {
            self.look_up();
            let until = {
                let progress = &self.lock().progress;
                match progress.next(Instant::now()) {
                    _ if progress.may_end_in_time() => deadline,
                    Some(next) => deadline.min(next),
                    None => return,
                }
            };
            if timeout_at(until, ended.changed()).await.is_ok() {
                return;
            }
        }
    }

    /// Starts a look-up in the background, unless one is under way or has just ended.
    pub(super) fn look_up(self: &Arc<Self>) {
        if self.fixed {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let number = {
            let mut state = self.lock();
            let progress = &mut state.progress;
            let now = Instant::now();
            if progress.next(now).is_none_or(|next| next > now) {
                return;
            }
            progress.under_way += 1;
            progress.newest += 1;
            progress.began = Some(now);
            progress.newest
        };
        let name = Arc::clone(self);
        runtime.spawn(async move { name.run_look_up(number).await });
    }

    async fn run_look_up(&self, number: u64) {
        let began = Instant::now();
        let mut answer = pin!(async {
            let _slot = self.slots.acquire().await;
            (self.lookup)(self.host.clone(), self.port).await
        });
        let answer = match timeout(LOOKUP_LIMIT, &mut answer).await {
            Ok(answer) => answer,
            Err(_) => {
                let cause = format!("no answer within {} s", LOOKUP_LIMIT.as_secs());
                self.look_up_failed(&mut self.lock(), number, began, cause);
                self.ended.send_modify(|count| *count += 1);
                answer.await
            }
        };
        {
            let mut state = self.lock();
            state.progress.under_way -= 1;
            match answer {
                Ok(addresses) if !addresses.is_empty() => self.look_up_succeeded(&mut state, number, addresses),
                Ok(_) => self.look_up_failed(&mut state, number, began, "the name has no address".to_owned()),
                Err(cause) => {
                    let cause = cause.to_string();
                    // The standard library puts this in front of the resolver's message.
                    let message = cause.strip_prefix("failed to lookup address information: ").unwrap_or(&cause);
                    self.look_up_failed(&mut state, number, began, message.to_owned());
                }
            }
            state.progress.ended = Some(Instant::now());
        }
        self.ended.send_modify(|count| *count += 1);
    }

    fn look_up_succeeded(&self, state: &mut State, number: u64, addresses: Vec<SocketAddr>) {
        // A newer look-up has succeeded before: this late result is older.
        if state.progress.last_good.is_some_and(|(_, newer)| newer > number) {
            return;
        }
        state.progress.last_good = Some((Instant::now(), number));
        if state.progress.failing.take().is_some() {
            info!("{} {}: DNS look-up works again", self.role, self.host);
        }
        self.publish(state, addresses);
    }

    /// The look-up that began at `began` has failed or exceeded its limit. Logged once, until a look-up succeeds again.
    fn look_up_failed(&self, state: &mut State, number: u64, began: Instant, cause: String) {
        let progress = &mut state.progress;
        if number < progress.newest {
            return;
        }
        // A failure long after the last look-up begins a new series.
        let is_same_series = progress.ended.is_some_and(|ended| began.saturating_duration_since(ended) < REFRESH);
        let known = progress.failing.take();
        let since = known.as_ref().filter(|_| is_same_series).map_or(began, |(since, _)| *since);
        if known.is_none() {
            let advice = if state.resolved.is_empty() {
                "check the name and this host's resolver"
            } else {
                "the last good addresses stay in use"
            };
            warn!("{} {}: DNS look-up: {advice}: {cause}", self.role, self.host);
        }
        progress.failing = Some((since, cause));
    }

    fn unresolved(&self, state: &State, limit: Duration) -> Unresolved {
        let cause = state.progress.failing.as_ref().map(|(_, cause)| cause.clone());
        let cause = cause.unwrap_or_else(|| format!("no answer within {} s", limit.as_secs()));
        Unresolved { host: self.host.clone(), cause }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;
    use tokio::time::sleep;

    use super::super::tests::address;
    use super::*;

    /// The result of one look-up in a script.
    #[derive(Clone, Copy)]
    enum Step {
        Gives(u8),
        Fails,
        After(u64, u8),
        AfterMillis(u64, u8),
        FailsAfter(u64),
        Hangs,
    }

    /// A name whose look-ups follow the script and then repeat its last step; and the number of look-ups so far.
    fn scripted(script: &[Step]) -> (Arc<Addresses>, Arc<AtomicUsize>) {
        let script = Mutex::new(script.to_vec());
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let lookup: Lookup = Arc::new(move |_, _| {
            counter.fetch_add(1, Ordering::Relaxed);
            let mut script = script.lock().expect("one thread");
            let step = if script.len() > 1 { script.remove(0) } else { script[0] };
            Box::pin(async move {
                let failure = || Err(io::Error::other("failed to lookup address information: Temporary failure"));
                match step {
                    Step::Gives(last) => Ok(vec![address(last)]),
                    Step::Fails => failure(),
                    Step::After(seconds, last) => {
                        sleep(Duration::from_secs(seconds)).await;
                        Ok(vec![address(last)])
                    }
                    Step::AfterMillis(millis, last) => {
                        sleep(Duration::from_millis(millis)).await;
                        Ok(vec![address(last)])
                    }
                    Step::FailsAfter(seconds) => {
                        sleep(Duration::from_secs(seconds)).await;
                        failure()
                    }
                    Step::Hangs => std::future::pending().await,
                }
            })
        });
        let slots = Arc::new(Semaphore::new(MAX_CONCURRENT));
        (Arc::new(Addresses::build("acr", ("example.azurecr.io", 443), &[], lookup, slots)), count)
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_resolves_with_the_first_look_up_that_succeeds_and_fails_within_the_limit() {
        for (script, limit, takes, expected) in [
            (&[Step::Gives(1)][..], 10, 0, Ok(1)),
            // One lost packet, and two.
            (&[Step::After(5, 1)], 10, 5, Ok(1)),
            (&[Step::After(10, 1)], 12, 10, Ok(1)),
            (&[Step::Fails, Step::Fails, Step::Gives(1)], 10, 2, Ok(1)),
            (&[Step::FailsAfter(5), Step::Gives(1)], 10, 6, Ok(1)),
            (&[Step::Fails], 30, 10, Err("Temporary failure")),
            (&[Step::Fails], 3, 3, Err("Temporary failure")),
            (&[Step::Hangs], 9, 9, Err("no answer within 9 s")),
            (&[Step::Hangs, Step::Gives(1)], 30, 10, Ok(1)),
            (&[Step::Hangs], 30, 20, Err("no answer within 10 s")),
        ] {
            let (name, _) = scripted(script);
            let begun = Instant::now();
            let result = name.resolve(seconds(limit)).await;
            assert_eq!(begun.elapsed().as_secs(), takes, "{expected:?}");
            let cause = expected.err().map(|cause| {
                format!("DNS look-up of example.azurecr.io: check the name and this host's resolver: {cause}")
            });
            assert_eq!(result.err().map(|unresolved| unresolved.to_string()), cause);
            assert_eq!(name.first(), expected.ok().map(address));
        }
    }

    /// All other tests here have a clock that stands still between two looks at it.
    #[tokio::test]
    async fn a_first_look_up_begins_by_a_clock_that_goes_on() {
        let (name, _) = scripted(&[Step::Gives(1)]);
        assert!(name.resolve(LOOKUP_LIMIT).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_lasts_is_given_at_once_and_one_of_an_hour_ago_is_another() {
        let (name, count) = scripted(&[Step::Fails]);
        for (pause, takes) in [(0, 10), (0, 0), (2, 0), (3600, 10)] {
            sleep(seconds(pause)).await;
            let begun = Instant::now();
            assert!(name.resolve(seconds(20)).await.is_err());
            assert_eq!(begun.elapsed().as_secs(), takes, "after {pause} s");
        }
        let looked_up = count.load(Ordering::Relaxed);
        assert!((12..30).contains(&looked_up), "{looked_up}: one a second, while somebody waits");
    }

    #[tokio::test(start_paused = true)]
    async fn many_requests_for_a_name_that_hangs_hold_two_look_ups() {
        let (name, count) = scripted(&[Step::Hangs]);
        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..650 {
            let name = Arc::clone(&name);
            requests.spawn(async move { name.resolve(seconds(60)).await });
        }
        while let Some(result) = requests.join_next().await {
            assert!(result.expect("no panic").is_err());
        }
        assert_eq!(count.load(Ordering::Relaxed), MAX_CONCURRENT);
        let begun = Instant::now();
        assert!(name.resolve(seconds(60)).await.is_err());
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_known_name_is_used_at_once_while_a_look_up_runs_behind() {
        let (name, count) = scripted(&[Step::Gives(1), Step::After(5, 2), Step::FailsAfter(5), Step::After(1, 3)]);
        // After so many seconds, it takes so many milliseconds, is this, and so many look-ups have begun.
        for (pause, takes, known, looked_up) in
            [(0, 0, 1, 1), (1, 0, 1, 1), (31, 0, 1, 2), (1, 0, 1, 2), (5, 0, 2, 2), (400, 1800, 2, 3), (5, 1000, 3, 4)]
        {
            sleep(seconds(pause)).await;
            let begun = Instant::now();
            assert!(name.resolve(seconds(10)).await.is_ok());
            assert_eq!((begun.elapsed().as_millis(), name.first()), (takes, Some(address(known))), "after {pause} s");
            tokio::task::yield_now().await;
            assert_eq!(count.load(Ordering::Relaxed), looked_up, "after {pause} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dns_failure_keeps_the_last_good_addresses() {
        let (name, count) = scripted(&[Step::Gives(1), Step::Fails]);
        let _ = timeout(seconds(300), name.keep_fresh()).await;
        assert_eq!(name.first(), Some(address(1)));
        let looked_up = count.load(Ordering::Relaxed);
        assert!((130..140).contains(&looked_up), "{looked_up}: every two seconds after the first thirty");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_is_kept_fresh_is_looked_up_every_thirty_seconds_and_a_late_result_is_used() {
        let (name, count) = scripted(&[Step::Fails, Step::After(45, 1), Step::Hangs, Step::Gives(2)]);
        let upkeep = Arc::clone(&name);
        let upkeep = tokio::spawn(async move { upkeep.keep_fresh().await });
        sleep(seconds(20)).await;
        assert_eq!((name.first(), count.load(Ordering::Relaxed)), (None, 3), "the second look-up takes its time");
        sleep(seconds(30)).await;
        assert_eq!(name.first(), Some(address(1)), "its late answer counts");
        sleep(seconds(100)).await;
        assert_eq!(name.first(), Some(address(2)));
        let looked_up = count.load(Ordering::Relaxed);
        assert!((6..14).contains(&looked_up), "{looked_up}");
        upkeep.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_moved_is_looked_up_as_soon_as_its_last_address_fails() {
        // The last look-up ended so many milliseconds before.
        for (pause, takes) in [(2000, 500), (1000, 500), (100, 1400)] {
            let (name, count) = scripted(&[Step::Gives(1), Step::AfterMillis(500, 2)]);
            name.resolve(seconds(10)).await.expect("known");
            sleep(Duration::from_millis(pause)).await;
            name.failed(address(1));
            name.failed(address(1));
            let begun = Instant::now();
            name.renewed(seconds(2)).await;
            assert_eq!((begun.elapsed().as_millis(), name.first()), (takes, Some(address(2))), "{pause}");
            name.renewed(seconds(2)).await;
            assert_eq!((begun.elapsed().as_millis(), count.load(Ordering::Relaxed)), (takes, 2), "nothing has failed");
        }
        // While the resolver hangs, a request waits no longer than its limit.
        let (name, _) = scripted(&[Step::Gives(1), Step::Hangs]);
        name.resolve(seconds(10)).await.expect("known");
        name.failed(address(1));
        for _ in 0..2 {
            let begun = Instant::now();
            name.renewed(seconds(2)).await;
            assert_eq!((begun.elapsed().as_secs(), name.first()), (2, Some(address(1))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_after_the_last_address_failed_waits_for_the_look_up_and_no_later_one_does() {
        // The look-up, after how long the wait ends, and which address is first then.
        for (look_up, takes, first) in
            [(Step::AfterMillis(500, 2), 500, 2), (Step::FailsAfter(1), 1000, 1), (Step::Hangs, 2000, 1)]
        {
            let (name, _) = scripted(&[Step::Gives(1), look_up]);
            name.resolve(seconds(10)).await.expect("known");
            sleep(seconds(20)).await;
            let begun = Instant::now();
            name.after_failure(seconds(2)).await;
            name.failed(address(1));
            for _ in 0..2 {
                name.after_failure(seconds(2)).await;
                assert_eq!((begun.elapsed().as_millis(), name.first()), (takes, Some(address(first))));
            }
        }
    }
}
