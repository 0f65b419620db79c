//! What requests and the calls for them add to the metrics.

use std::time::SystemTime;

use http::{Method, StatusCode};
use pingora_core::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session;

use super::context::{Admitted, Cached, Context, MAX_METHOD};
use super::endpoint::Endpoint;
use super::fail::Trouble;
use super::registry_error::RegistryError;
use crate::answer::MAX_CORRELATION;
use crate::metrics::labels::{CacheResult, CallResult, Cause, Hop, Kind, Status};
use crate::metrics::recent::Failure;
use crate::metrics::{Meters, Request};

/// The longest path that is shown of a failed request, which the log has whole.
const MAX_PATH: usize = 256;
/// The same of why it failed.
const MAX_ERROR: usize = 512;

/// `logging`: the request is over. A function of its own in the program, by whose name `scripts/instructions` counts it.
#[inline(never)]
pub(crate) fn ended(session: &Session, error: Option<&Error>, context: &Context, meters: &Meters) {
    let whole = context.elapsed();
    let status = session.response_written().map_or(0, |response| response.status.as_u16());
    let meter = context.if_admitted().map_or(&meters.unrouted, |admitted| &admitted.destination.meter);
    let kind = kind(context).unwrap_or(Kind::Other);
    meter.add(&Request {
        kind,
        status,
        cache: cache_result(context.cached()),
        // An answer of this proxy's own is sent at once.
        first_byte: context.first_byte().or((status != 0).then_some(whole)),
        whole,
        bytes: session.body_bytes_sent(),
    });
    let client = context.client();
    if let Some(client) = client {
        meters.clients.asked(client);
    }
    let Some(admitted) = context.if_admitted() else { return };
    let cause = refused_because(context, status);
    if let Some(cause) = cause {
        meter.refused.add(cause);
    }
    if kind == Kind::Manifest && matches!(status, 200 | 304) {
        // The first request of a pull, of which there is one: by tag, or HEAD by digest. What follows it is by digest, too.
        if session.req_header().method == Method::HEAD || !admitted.target.is_by_digest() {
            meter.images.pulled(admitted.target.below_source());
        }
    }
    // Whatever status is a failure to metrics has a cause, but for none.
    let has_failed = cause.is_some() || context.trouble().is_some() || Status::of(status).is_none();
    if has_failed && !is_clients(error, context) {
        meters.failures.add(failure(session, context, admitted, status));
    }
}

/// What clients do is no failure: neither one that leaves, nor one that writes a header which is refused. By that one anybody could
/// push out all that is remembered.
fn is_clients(error: Option<&Error>, context: &Context) -> bool {
    match context.trouble() {
        Some(trouble) => trouble.is_clients(),
        None => error.is_some_and(|error| *error.esource() == ErrorSource::Downstream),
    }
}

/// A request that has failed, as it is remembered.
fn failure(session: &Session, context: &Context, admitted: &Admitted, status: u16) -> Failure {
    let request = session.req_header();
    let trouble = context.trouble().map(ToString::to_string);
    let why = trouble.or_else(|| context.registry_error().map(ToString::to_string)).unwrap_or_default();
    let correlation = context.correlation(context.trouble());
    Failure {
        at: SystemTime::now(),
        registry: admitted.destination.upstream.domain.authority().to_owned(),
        method: request.method.as_str().chars().take(MAX_METHOD).collect(),
        path: request.uri.path().chars().take(MAX_PATH).collect(),
        status,
        error: why.chars().take(MAX_ERROR).collect(),
        client: context.client(),
        correlation: correlation
            .map(|id| String::from_utf8_lossy(id.as_bytes()).chars().take(MAX_CORRELATION).collect()),
    }
}

/// Why a request is refused, if it is: neither for a mistake in it, nor because what it asks for is not there.
fn refused_because(context: &Context, status: u16) -> Option<Cause> {
    // The registry's own status, which may not be the client's: see `fail::passed_on`.
    let registrys = || context.registry_error().and_then(RegistryError::cause);
    // Of a trouble without a status among these, such as storage's 400 to ranges, nobody turns to the source.
    match Cause::of_registry(status) {
        Some(refused) => Some(context.trouble().and_then(Trouble::cause).or_else(registrys).unwrap_or(refused)),
        None if context.trouble().is_none() => registrys(),
        None => None,
    }
}

/// The request is dropped before its end, as at the end of a drain.
pub(super) fn cut_off(context: &Context) {
    if let Some(admitted) = context.if_admitted() {
        admitted.destination.meter.add(&Request {
            kind: kind_of(admitted.target.endpoint()),
            status: context.status(),
            cache: cache_result(context.cached()),
            first_byte: context.first_byte(),
            whole: context.elapsed(),
            bytes: context.body_bytes(),
        });
    }
}

/// What was asked for, as the log and metrics call it; `None` if the request was refused before that is known.
pub(super) fn kind(context: &Context) -> Option<Kind> {
    match context.if_admitted() {
        Some(admitted) => Some(kind_of(admitted.target.endpoint())),
        // Of what is not admitted only `GET /v2/` is answered.
        None => (context.status() == 200).then_some(Kind::Ping),
    }
}

fn kind_of(endpoint: Endpoint) -> Kind {
    match endpoint {
        Endpoint::Manifest => Kind::Manifest,
        Endpoint::Blob => Kind::Blob,
        Endpoint::Tags => Kind::Tags,
        Endpoint::Referrers => Kind::Referrers,
    }
}

fn cache_result(cached: Option<Cached>) -> CacheResult {
    match cached {
        Some(Cached::Here(how)) => CacheResult::Here(how),
        Some(Cached::Passed(_)) => CacheResult::Pass,
        None => CacheResult::None,
    }
}

/// The registry or storage has answered.
pub(crate) fn answered(admitted: &mut Admitted, status: StatusCode) {
    let took = admitted.attempts.take_sent();
    let (upstream, hop, result) = (&admitted.destination.upstream, hop(admitted), CallResult::of(status));
    upstream.meter.add(hop, result, took);
    if hop == Hop::Read && matches!(result, CallResult::Ok | CallResult::NotFound) {
        upstream.health.succeeded();
    }
}

/// No connection was made.
pub(crate) fn connect_failed(admitted: &Admitted) {
    admitted.destination.upstream.meter.add(hop(admitted), CallResult::Unreachable, None);
}

/// A request that went out has ended in an error. If its answer had begun, it is counted already; if the client has left, it
/// says nothing of the registry.
pub(crate) fn failed(admitted: &mut Admitted, error: &Error) {
    if admitted.attempts.take_sent().is_some() && *error.esource() == ErrorSource::Upstream {
        let result = match error.etype() {
            ErrorType::InvalidHTTPHeader | ErrorType::H1Error => CallResult::Failed,
            _ => CallResult::Unreachable,
        };
        admitted.destination.upstream.meter.add(hop(admitted), result, None);
    }
}

fn hop(admitted: &Admitted) -> Hop {
    match admitted.attempts.storage() {
        Some(_) => Hop::Storage,
        None => Hop::Read,
    }
}
