//! What changes from one try of a request to the next: its token, how often the registry was tried, where it goes, how
//! much time is left.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;

use super::blob::redirect::Storage;
use super::trace::Trace;
use crate::net::addresses::Connect;
use crate::token::Bearer;

/// How often a request tries to connect to a host, each time to all addresses that are known.
pub(crate) const MAX_CONNECTS: usize = 3;
/// Pauses before a range of a blob is asked for again; see `retry::repeat`.
pub(crate) const REPEATS: [Duration; 3] = [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(3)];
/// TCP to whichever address answers first, and TLS to that one.
pub(crate) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(4);
/// A response, to the end of its header. A manifest that ACR has to fetch from the source takes seconds.
const HEADER_LIMIT: Duration = Duration::from_secs(20);
/// Whatever happens, the client has an answer within this: dockerd itself waits for ever.
const ANSWER_LIMIT: Duration = Duration::from_secs(28);
/// With less time than this for a response's header, another try is not made.
const MIN_HEADER_LIMIT: Duration = Duration::from_secs(2);

/// The tries of one request, and what the next one goes with.
pub(crate) struct Attempts {
    started: Instant,
    /// How often the registry was tried, connects that failed included.
    count: usize,
    bearer: Option<Arc<Bearer>>,
    /// A 401 was answered with a renewed token.
    renewed: bool,
    /// A 401 to a renewed token was answered with a token of the repository's own.
    has_repository_token: bool,
    /// Where the registry's redirect leads. The tries go there from then on.
    storage: Option<Storage>,
    /// A redirect that was kept and that storage refused has been replaced.
    is_located_again: bool,
    /// Failed connects, to the registry and to storage.
    registry_connects: usize,
    storage_connects: usize,
    /// The one replay after a connection that broke is used up. Registry and storage have one each.
    is_replayed: bool,
    /// The next try takes no pooled connection.
    needs_fresh: bool,
    /// How many of [`REPEATS`] are used up.
    repeats: usize,
    /// The next try begins after this.
    pause: Duration,
    /// The address of the last try.
    connect: Option<Arc<Connect>>,
    correlation: Option<HeaderValue>,
    /// The request has had its turn, and has not gone out since.
    has_turn: bool,
    /// It has gone out to the registry.
    has_asked: bool,
    /// Since when the registry is being asked.
    asked: Option<Instant>,
    /// How long it has taken to answer, all tries together.
    asking: Duration,
    /// The trace that the request is part of.
    trace: Option<Trace>,
    /// It has gone out, and there is no answer yet.
    sent: Option<Instant>,
}

impl Attempts {
    /// None yet, for a request whose header was read at `started`.
    pub(crate) fn new(started: Instant) -> Self {
        Self {
            started,
            count: 0,
            bearer: None,
            renewed: false,
            has_repository_token: false,
            storage: None,
            is_located_again: false,
            registry_connects: 0,
            storage_connects: 0,
            is_replayed: false,
            needs_fresh: false,
            repeats: 0,
            pause: Duration::ZERO,
            connect: None,
            correlation: None,
            has_turn: false,
            has_asked: false,
            asked: None,
            asking: Duration::ZERO,
            trace: None,
            sent: None,
        }
    }

    /// Of a request that is part of a trace.
    pub(crate) fn of_trace(self, trace: Option<Trace>) -> Self {
        Self { trace, ..self }
    }

    /// The trace, which the registry is told.
    pub(crate) fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }

    /// A try of the registry begins, which has an address.
    pub(crate) fn begin(&mut self) {
        self.count += 1;
    }

    /// How often the registry was tried, as the request's line in the log has it.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The registry is asked from now on, the connect included.
    pub(crate) fn ask(&mut self) {
        self.asked = Some(Instant::now());
    }

    /// It has answered, or will not.
    pub(crate) fn heard(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.asking += asked.elapsed();
        }
    }

    /// How long it has taken to answer, all tries together.
    pub(crate) fn asking(&self) -> Duration {
        self.asking + self.asked.map_or(Duration::ZERO, |asked| asked.elapsed())
    }

    /// The token that the request goes to the registry with.
    pub(crate) fn bearer(&self) -> Option<&Arc<Bearer>> {
        self.bearer.as_ref()
    }

    /// The first token.
    pub(crate) fn authorize(&mut self, bearer: Arc<Bearer>) {
        self.bearer = Some(bearer);
    }

    /// A renewed token, after a 401.
    pub(crate) fn renew(&mut self, bearer: Arc<Bearer>) {
        self.bearer = Some(bearer);
        self.renewed = true;
    }

    /// A token of the repository's own, after a 401 to a renewed one.
    pub(crate) fn use_repository_token(&mut self, bearer: Arc<Bearer>) {
        self.bearer = Some(bearer);
        self.has_repository_token = true;
    }

    /// [`Self::renew`] was called.
    pub(crate) fn is_renewed(&self) -> bool {
        self.renewed
    }

    /// [`Self::use_repository_token`] was called.
    pub(crate) fn has_repository_token(&self) -> bool {
        self.has_repository_token
    }

    /// The next try connects by this.
    pub(crate) fn connect_by(&mut self, connect: Arc<Connect>) {
        self.connect = Some(connect);
    }

    /// How the last try connected.
    pub(crate) fn connect(&self) -> Option<&Connect> {
        self.connect.as_deref()
    }

    /// Where the request went last.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.connect.as_ref().map(|connect| connect.address())
    }

    /// A connect to the registry or to storage failed, whichever was tried. True if there is another try for it.
    pub(crate) fn connect_failed(&mut self) -> bool {
        let connects = match self.storage {
            Some(_) => &mut self.storage_connects,
            None => &mut self.registry_connects,
        };
        *connects += 1;
        *connects % MAX_CONNECTS != 0 && self.has_time()
    }

    /// An earlier connect to the same host failed.
    pub(crate) fn has_failed_to_connect(&self) -> bool {
        match self.storage {
            Some(_) => self.storage_connects > 0,
            None => self.registry_connects > 0,
        }
    }

    /// The replay after a connection that broke is not used up.
    pub(crate) fn may_replay(&self) -> bool {
        !self.is_replayed
    }

    /// The request is sent again after a connection that broke: on a new one, or on a pooled one that is known to be newer.
    pub(crate) fn replay(&mut self, on_new_connection: bool) {
        self.is_replayed = true;
        self.needs_fresh = on_new_connection;
    }

    /// The next try takes no pooled connection.
    pub(crate) fn needs_fresh(&self) -> bool {
        self.needs_fresh
    }

    /// How long the next repeat would wait, if there is one left and there is time for it.
    pub(crate) fn next_repeat(&self) -> Option<Duration> {
        REPEATS.get(self.repeats).copied().filter(|pause| self.time_left() > *pause)
    }

    /// The request is sent again after `pause`.
    pub(crate) fn repeat(&mut self, pause: Duration) {
        self.repeats += 1;
        self.pause = pause;
    }

    /// How long the next try has to wait; asked once before it.
    pub(crate) fn take_pause(&mut self) -> Duration {
        std::mem::take(&mut self.pause)
    }

    /// From now on the request goes where the registry's redirect leads. It has a replay of its own there.
    pub(crate) fn follow(&mut self, storage: Storage) {
        (self.is_replayed, self.needs_fresh) = (false, false);
        self.storage = Some(storage);
    }

    /// Where the registry's redirect leads, if the request is on its way there.
    pub(crate) fn storage(&self) -> Option<&Storage> {
        self.storage.as_ref()
    }

    /// Whether the registry may be asked for another redirect in place of a kept one: once.
    pub(crate) fn may_locate_again(&mut self) -> bool {
        !std::mem::replace(&mut self.is_located_again, true)
    }

    /// It has one that was spare.
    pub(crate) fn has_turn(&self) -> bool {
        self.has_turn
    }

    /// It is the request's turn to go out.
    pub(crate) fn give_turn(&mut self) {
        self.has_turn = true;
    }

    /// The request goes out to the registry. True if it has its turn for that; if it is sent again it has none.
    pub(crate) fn take_turn(&mut self) -> bool {
        self.has_asked = true;
        std::mem::take(&mut self.has_turn)
    }

    /// Whether it has gone out to the registry, once or more often.
    pub(crate) fn has_asked(&self) -> bool {
        self.has_asked
    }

    /// The request goes out now, to the registry or to storage.
    pub(crate) fn goes_out(&mut self) {
        self.sent = Some(Instant::now());
    }

    /// How long ago it went out; `None` if it has not, or this was asked since.
    pub(crate) fn take_sent(&mut self) -> Option<Duration> {
        self.sent.take().map(|sent| sent.elapsed())
    }

    /// ACR's id of the request, for its support.
    pub(crate) fn correlation(&self) -> Option<&HeaderValue> {
        self.correlation.as_ref()
    }

    /// Sets the id, or takes back that of an earlier response.
    pub(crate) fn set_correlation(&mut self, correlation: Option<HeaderValue>) {
        self.correlation = correlation;
    }

    /// Whether there is time for another try.
    pub(crate) fn has_time(&self) -> bool {
        !self.time_left().is_zero()
    }

    /// What is left of the time for an answer once that of one more try is taken off.
    pub(crate) fn time_left(&self) -> Duration {
        time_left(self.started.elapsed())
    }

    /// What is left of the time for an answer.
    pub(crate) fn answer_limit(&self) -> Duration {
        ANSWER_LIMIT.saturating_sub(self.started.elapsed())
    }

    /// How long a response's header may take on a connection that is there.
    pub(crate) fn header_limit(&self) -> Duration {
        header_limit(self.started.elapsed())
    }

    /// The same on a connection that has still to be made.
    pub(crate) fn header_limit_after_handshake(&self) -> Duration {
        header_limit(self.started.elapsed() + HANDSHAKE_LIMIT)
    }
}

fn time_left(elapsed: Duration) -> Duration {
    ANSWER_LIMIT.saturating_sub(elapsed + HANDSHAKE_LIMIT + MIN_HEADER_LIMIT)
}

fn header_limit(elapsed: Duration) -> Duration {
    HEADER_LIMIT.min(ANSWER_LIMIT.saturating_sub(elapsed)).max(MIN_HEADER_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wait_fits_into_the_time_that_is_left_for_an_answer() {
        for (elapsed, left, header) in
            [(0, 22, 20), (4, 18, 20), (10, 12, 18), (15, 7, 13), (21, 1, 7), (22, 0, 6), (40, 0, 2)]
        {
            let seconds = Duration::from_secs;
            assert_eq!(time_left(seconds(elapsed)), seconds(left), "{elapsed}");
            assert_eq!(header_limit(seconds(elapsed)), seconds(header), "{elapsed}");
        }
    }

    #[test]
    fn a_host_gets_three_connects_and_storage_has_its_own() {
        let mut attempts = Attempts::new(Instant::now());
        assert_eq!([(); 3].map(|()| attempts.connect_failed()), [true, true, false]);
        attempts.follow(Storage::example());
        assert!(!attempts.has_failed_to_connect());
        assert_eq!([(); 3].map(|()| attempts.connect_failed()), [true, true, false]);
    }
}
