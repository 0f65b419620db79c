//! What one request carries from phase to phase.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use pingora_core::{Error, ErrorType, Result};

use super::attempts::Attempts;
use super::destination::Destination;
use super::fail::Trouble;
use super::held_body::HeldBody;
use super::pace::Pace;
use super::registry_error::RegistryError;
use super::relay::bounds::Bounds;
use super::room::Share;
#[cfg(feature = "otlp")]
use super::span::Begun;
use super::target::Target;
use super::trace::Trace;
use crate::access::{Client, UnderWay};
use crate::cache::{How, Reason};
use crate::load::{Guard, Limit};
use crate::token::Bearer;
use oci::error::Refusal;

/// The longest method of HTTP's registry has 17 letters.
pub(crate) const MAX_METHOD: usize = 32;

/// The state of one request: what came, what it was admitted as, and what became of it.
pub(crate) struct Context {
    started: Instant,
    /// The client's request, until its line is in the log.
    client_request: Option<ClientRequest>,
    admitted: Option<Admitted>,
    refusal: Option<Refusal>,
    trouble: Option<Trouble>,
    /// The registry's own error that is the answer.
    registry_error: Option<RegistryError>,
    body: Body,
    /// What may pass of a body that comes from the registry or from storage.
    bounds: Option<Bounds>,
    /// Of the answer; 0 before there is one.
    status: u16,
    /// From the start to the header of the answer.
    first_byte: Option<Duration>,
    body_bytes: usize,
    /// The trace that it is part of.
    trace: Option<Trace>,
    /// How the flight went that the request has started last.
    trip: Option<Arc<OnceLock<Trip>>>,
    /// How often the registry was asked by the flights before that one.
    earlier_tries: usize,
    /// How long they waited for the registry.
    earlier_asking: Duration,
    /// What the cache did; `None` where none is used.
    cached: Option<Cached>,
    /// Its span, until that is exported.
    #[cfg(feature = "otlp")]
    span: Option<Begun>,
    is_too_many: bool,
    /// Its place among all requests under way, and among those of its client; `None` once it is refused.
    guard: Option<Guard>,
    under_way: Option<UnderWay>,
    /// Over HTTP/2, the fewest bytes a second that the client takes.
    reader_rate: Option<NonZeroU32>,
    /// Made for the first piece of a body.
    pace: Option<Pace>,
}

/// What the cache did for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cached {
    /// It had the answer, or shared the asking for it.
    Here(How),
    /// Nothing: the request went to the registry by itself.
    Passed(Reason),
}

/// How a flight went, for the log line of the request that started it.
#[derive(Debug)]
pub(crate) struct Trip {
    /// The registry's address.
    pub address: Option<SocketAddr>,
    /// How often it was asked.
    pub tries: usize,
    /// How long it took to answer.
    pub asking: Duration,
    /// The registry's id of the answer.
    pub correlation: Option<HeaderValue>,
    /// The storage that was asked as well.
    pub storage: Option<Box<str>>,
}

/// A request that goes to a registry.
pub(crate) struct Admitted {
    /// What is asked for. Does not change.
    pub target: Target,
    /// Which registry it goes to, and how the route wants that. Does not change, even if the routes do.
    pub destination: Arc<Destination>,
    /// Whose it is, if that has an address: who waits for something that is scarce takes turns by it.
    pub client: Option<Client>,
    /// What changes from try to try.
    pub attempts: Attempts,
}

impl Admitted {
    /// The token that the request has gone out with, or the one that is in use for others.
    pub(crate) fn bearer(&self) -> Option<Arc<Bearer>> {
        let own = self.attempts.bearer().cloned();
        own.or_else(|| self.destination.upstream.tokens.current(self.target.repository()))
    }
}

/// A client's request, as its line in the log has it.
pub(crate) struct ClientRequest {
    /// Its method.
    pub method: Method,
    /// What it is for.
    pub uri: Uri,
    /// The client's address.
    pub client: Option<SocketAddr>,
}

/// How an answer's body goes to the client.
pub(crate) enum Body {
    /// Byte for byte.
    Unchanged,
    /// Not at all.
    Withheld,
    /// In the client's names.
    Renamed(HeldBody),
    /// It was renamed and is on its way as one piece, which takes this until the request has ended.
    Whole(#[expect(dead_code, reason = "it is given back when it is dropped")] Share),
}

impl Context {
    pub(super) fn new(requests: &Arc<Limit>) -> Self {
        let guard = requests.enter();
        Self {
            started: Instant::now(),
            client_request: None,
            admitted: None,
            refusal: None,
            trouble: None,
            registry_error: None,
            body: Body::Unchanged,
            bounds: None,
            status: 0,
            first_byte: None,
            body_bytes: 0,
            trace: None,
            trip: None,
            earlier_tries: 0,
            earlier_asking: Duration::ZERO,
            cached: None,
            #[cfg(feature = "otlp")]
            span: None,
            is_too_many: guard.excess() > 0,
            guard: Some(guard),
            under_way: None,
            reader_rate: None,
            pace: None,
        }
    }

    /// There are more requests under way than there may be, and this one is to be refused.
    pub(crate) fn is_too_many(&self) -> bool {
        self.is_too_many
    }

    /// How many more requests could be under way when this one came.
    pub(crate) fn places_left(&self) -> usize {
        self.guard.as_ref().map_or(0, Guard::left)
    }

    /// The request is under way, and counts as its client's.
    pub(crate) fn hold(&mut self, under_way: Option<UnderWay>) {
        self.under_way = under_way;
    }

    /// The client has to take so many bytes of the answer a second.
    pub(crate) fn keep_pace(&mut self, rate: Option<NonZeroU32>) {
        self.reader_rate = rate;
    }

    /// A piece of the body that is to be written now, with the limit of time for that, unless the connection looks after it.
    pub(crate) fn paced(&mut self, piece: Bytes) -> (Bytes, Option<Duration>) {
        match self.reader_rate {
            Some(rate) if !piece.is_empty() => {
                let (piece, limit) = self.pace.get_or_insert_with(|| Pace::new(rate)).next(piece);
                (piece, Some(limit))
            }
            _ => (piece, None),
        }
    }

    /// Nothing is done for the request, so others may have its place.
    pub(crate) fn release(&mut self) {
        self.guard = None;
    }

    /// Nothing was done for it.
    pub(crate) fn is_released(&self) -> bool {
        self.guard.is_none()
    }

    /// The request is to have a line in the log.
    pub(crate) fn begin(&mut self, request: ClientRequest, trace: Option<Trace>) {
        self.client_request = Some(request);
        self.trace = trace;
    }

    /// The request has a span, or none.
    #[cfg(feature = "otlp")]
    pub(crate) fn begin_span(&mut self, span: Option<Begun>) {
        self.span = span;
    }

    /// Its span, which who takes it ends, or drops on purpose.
    #[cfg(feature = "otlp")]
    pub(super) fn take_span(&mut self) -> Option<Begun> {
        self.span.take()
    }

    /// The client's address, until its line is in the log.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        Some(self.client_request.as_ref()?.client?.ip())
    }

    /// When its header was read.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// For the line in the log. There is one: who takes the request writes it, or drops it on purpose.
    pub(crate) fn take_client_request(&mut self) -> Option<ClientRequest> {
        self.client_request.take()
    }

    /// The request goes to a registry.
    pub(crate) fn admit(&mut self, target: Target, destination: Arc<Destination>) {
        let (client, attempts) = (self.client().map(Client::from), Attempts::new(self.started));
        self.admitted = Some(Admitted { target, destination, client, attempts: attempts.of_trace(self.trace.clone()) });
    }

    /// The admitted request. Pingora comes to no phase that asks for it before [`Self::admit`].
    pub(crate) fn admitted(&mut self) -> Result<&mut Admitted> {
        self.admitted.as_mut().ok_or_else(not_admitted)
    }

    /// The same where there may be none: for the log, and for the answer to a failure.
    pub(crate) fn if_admitted(&self) -> Option<&Admitted> {
        self.admitted.as_ref()
    }

    /// The request was refused, as the log tells it.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        self.refusal = Some(refusal);
    }

    /// Why the request was refused.
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// The request has failed.
    pub(crate) fn fail(&mut self, trouble: Option<Trouble>) {
        self.trouble = trouble;
    }

    /// Why the request has failed.
    pub(crate) fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// The registry's answer, with its header and as much of its body as is known, goes to the client. It may be an error.
    pub(crate) fn registry_answers(&mut self, status: StatusCode, headers: &HeaderMap, body: &Bytes) {
        let is_error = status.is_client_error() || status.is_server_error();
        self.registry_error = is_error.then(|| {
            let bearer = self.admitted.as_ref().and_then(Admitted::bearer);
            RegistryError::of(status, body, bearer).with_header(headers)
        });
    }

    /// Another part of the body, as the registry has sent it.
    pub(crate) fn registry_sends(&mut self, part: &Bytes) {
        if let Some(error) = &mut self.registry_error {
            error.add(part);
        }
    }

    /// The error, if the answer is one.
    pub(crate) fn registry_error(&self) -> Option<&RegistryError> {
        self.registry_error.as_ref()
    }

    /// The header of the answer has gone to the client.
    pub(crate) fn answered(&mut self, status: StatusCode, body: Body) {
        self.status = status.as_u16();
        self.first_byte = Some(self.started.elapsed());
        self.body = body;
    }

    /// The body that follows has these bounds.
    pub(crate) fn bound_body(&mut self, bounds: Bounds) {
        self.bounds = Some(bounds);
    }

    /// So many bytes of it have come, perhaps the last; `Err` says why they may not pass.
    pub(crate) fn pass_body(&mut self, bytes: usize, is_end: bool) -> Result<(), &'static str> {
        self.bounds.as_mut().map_or(Ok(()), |bounds| bounds.pass(bytes, is_end))
    }

    /// How the body goes on its way, with the request that it answers.
    pub(crate) fn body(&mut self) -> Result<(&mut Body, &Admitted)> {
        Ok((&mut self.body, self.admitted.as_ref().ok_or_else(not_admitted)?))
    }

    /// So many bytes of the body have gone to the client.
    pub(crate) fn count_body(&mut self, bytes: usize) {
        self.body_bytes += bytes;
    }

    /// The cache has answered.
    pub(crate) fn note(&mut self, how: How) {
        self.cached = Some(Cached::Here(how));
    }

    /// The request goes to the registry by itself, for this reason.
    pub(crate) fn pass(&mut self, reason: Reason) {
        self.cached = Some(Cached::Passed(reason));
    }

    /// What the cache did.
    pub(crate) fn cached(&self) -> Option<Cached> {
        self.cached
    }

    /// The request has started a flight, which went like this.
    pub(crate) fn trip(&mut self, trip: Arc<OnceLock<Trip>>) {
        self.earlier_asking += self.flown().map_or(Duration::ZERO, |trip| trip.asking);
        self.earlier_tries += self.flown_tries();
        self.trip = Some(trip);
    }

    /// How often the registry was tried, by the request itself and by all flights that it has started.
    pub(crate) fn tries(&self) -> usize {
        let own = self.admitted.as_ref().map_or(0, |admitted| admitted.attempts.count());
        own + self.flown_tries()
    }

    fn flown_tries(&self) -> usize {
        self.earlier_tries + self.flown().map_or(0, |trip| trip.tries)
    }

    /// How long the registry has taken to answer, of this request and of the flights that it has started.
    pub(crate) fn asking(&self) -> Duration {
        let own = self.admitted.as_ref().map_or(Duration::ZERO, |admitted| admitted.attempts.asking());
        own + self.earlier_asking + self.flown().map_or(Duration::ZERO, |trip| trip.asking)
    }

    /// How the last flight went that the request has started, once it is over.
    pub(crate) fn flown(&self) -> Option<&Trip> {
        self.trip.as_ref().and_then(|trip| trip.get())
    }

    /// The status of the answer, 0 before there is one.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// The registry's id of the request, or of the call for its token by which it has come to this trouble.
    pub(crate) fn correlation<'a>(&'a self, trouble: Option<&'a Trouble>) -> Option<&'a HeaderValue> {
        let own = self.admitted.as_ref().and_then(|admitted| admitted.attempts.correlation());
        own.or_else(|| self.flown()?.correlation.as_ref()).or_else(|| trouble?.correlation())
    }

    /// How long it took to the header of the answer; `None` before that.
    pub(crate) fn first_byte(&self) -> Option<Duration> {
        self.first_byte
    }

    /// The trace that the request is part of, if its client has said so.
    pub(crate) fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }

    /// Bytes of the answer's body that have gone to the client.
    pub(crate) fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// Time since the request's header was read.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

fn not_admitted() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "the request was not admitted")
}
