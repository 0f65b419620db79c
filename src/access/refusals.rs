//! What clients are refused: counted by reason, and told to the log within bounds.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::info;

use super::client::Client;
use crate::label::{Counts, HourCounts, labels};

/// A client that is refused again and again has one line in this time.
const LINE_PERIOD: Duration = Duration::from_secs(60);
/// Clients that have a line in that time; more than these are an attack, of which the counters tell enough.
const MAX_LINES: usize = 256;

labels! {
    /// Why a client is refused, before anything is asked for it.
    Reason {
        /// `access.allow`, `access.deny`.
        Network = "network",
        /// `access.certificates`.
        Certificate = "certificate",
        /// `limits.connections_per_client`.
        Connections = "connections_per_client",
        /// `limits.concurrent_requests_per_client`.
        Requests = "concurrent_requests_per_client",
        /// `limits.requests_per_second_per_client`.
        Rate = "request_rate",
        /// `limits.header_time`.
        HeaderTime = "header_time",
        /// `limits.header_size`.
        HeaderSize = "header_size",
        /// What came is no HTTP.
        Malformed = "malformed",
        /// `limits.slow_reader_bytes_per_second`.
        SlowReader = "slow_reader",
        /// A request over HTTP/2 that its client has taken back before it began.
        Reset = "reset",
    }
}

/// The counts since the start of the process.
#[derive(Debug)]
pub(crate) struct Refusals {
    counts: Counts<Reason, { Reason::ALL.len() }>,
    /// Of [`LIMITS`] alone.
    hour: HourCounts<Reason, { Reason::ALL.len() }>,
    lines: Mutex<Lines>,
}

/// Who has had a line since when.
#[derive(Debug)]
struct Lines {
    since: Instant,
    clients: HashSet<Option<Client>>,
}

impl Refusals {
    pub(super) fn new() -> Self {
        let lines = Lines { since: Instant::now(), clients: HashSet::new() };
        Self { counts: Counts::default(), hour: HourCounts::default(), lines: Mutex::new(lines) }
    }

    /// One more.
    pub(crate) fn count(&self, reason: Reason) {
        self.counts.add(reason);
        if LIMITS.contains(&reason) {
            self.hour.add(reason);
        }
    }

    /// How many there were in the last hour, to the minute, by each limit of a client: after these a container engine goes to the source.
    /// Whom `access` lets in is a decision, and who knocks all the same may be anybody.
    pub(crate) fn limited_last_hour(&self) -> impl Iterator<Item = (Reason, u64)> {
        LIMITS.into_iter().map(|reason| (reason, self.hour.get(reason)))
    }

    /// How many there were for this reason.
    pub(crate) fn get(&self, reason: Reason) -> u64 {
        self.counts.get(reason)
    }

    /// Whether this client's refusal may have a line in the log.
    pub(crate) fn may_be_logged(&self, client: Option<Client>, now: Instant) -> bool {
        // Nothing panics while it holds the lock.
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(lines.since) >= LINE_PERIOD {
            lines.since = now;
            lines.clients.clear();
        }
        if lines.clients.len() >= MAX_LINES {
            return false;
        }
        let is_new = lines.clients.insert(client);
        let is_last = is_new && lines.clients.len() == MAX_LINES;
        drop(lines);
        if is_last {
            info!("{MAX_LINES} clients were refused within a minute: further ones have no line, but are counted");
        }
        is_new
    }
}

/// Limits of one client that an engine may meet.
const LIMITS: [Reason; 3] = [Reason::Connections, Reason::Requests, Reason::Rate];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_what_the_limits_refuse_is_told() {
        let refusals = Refusals::new();
        for reason in [Reason::Network, Reason::Rate, Reason::Rate] {
            refusals.count(reason);
        }
        let all: Vec<_> = refusals.limited_last_hour().collect();
        assert_eq!(all, [(Reason::Connections, 0), (Reason::Requests, 0), (Reason::Rate, 2)]);
    }

    #[test]
    fn a_client_has_one_line_a_minute_and_an_attack_has_few() {
        let (refusals, begun) = (Refusals::new(), Instant::now());
        let lines = |clients: u32, now| {
            (0..clients).filter(|client| refusals.may_be_logged(Some(Client::V4(*client)), now)).count()
        };
        assert_eq!((lines(3, begun), lines(3, begun), lines(5, begun)), (3, 0, 2));
        assert_eq!(lines(100_000, begun), MAX_LINES - 5);
        assert_eq!(lines(100_000, begun + LINE_PERIOD), MAX_LINES, "and again in the next minute");
    }
}
