//! Whether a request is sent again: after a connect that failed, a connection that broke, or a response that may be
//! temporary.

use std::time::Duration;

use http::header;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType};
use tokio::time::sleep;

use super::attempts::Attempts;
use super::context::Admitted;
use super::deadline::{self, Why};
use super::{behind, epoch};
use crate::answer::retry_after;
use crate::net::is_silence;
use crate::net::tunnel::NoTunnel;

/// `upstream_peer`: the next try waits until a failure that may be temporary is over.
pub(crate) async fn pause(attempts: &mut Attempts) {
    let pause = attempts.take_pause();
    if !pause.is_zero() {
        // In a box, for it is rare.
        Box::pin(sleep(pause)).await;
    }
}

/// `fail_to_connect`: once more, if there is time for it, and no proxy on the way has said that it may not be.
pub(crate) fn connect_failed(request: &RequestHeader, admitted: &mut Admitted, mut error: Box<Error>) -> Box<Error> {
    admitted.attempts.heard();
    if let Some(connect) = admitted.attempts.connect() {
        connect.connect_failed();
        error = behind::told(error, connect);
    }
    let again = admitted.attempts.connect_failed();
    let is_refused = NoTunnel::of(&error).is_some_and(NoTunnel::is_refusal);
    error.set_retry(!is_refused && (again || repeat(request, admitted, None)));
    error
}

/// `error_while_proxy`: a GET or HEAD whose connection broke before the response began is sent once more, on another
/// connection. A registry that is silent is not asked again: its time is up. `is_unanswered`: the client has got no byte.
pub(crate) fn request_failed(
    peer: &HttpPeer,
    (request, is_unanswered): (&RequestHeader, bool),
    admitted: &mut Admitted,
    error: Box<Error>,
    was_pooled: bool,
) -> Box<Error> {
    admitted.attempts.heard();
    let mut error = deadline::end().map_or(error, Why::into_error);
    if matches!(error.etype(), ErrorType::HTTPStatus(_)) {
        return error;
    }
    let is_upstream = *error.esource() == ErrorSource::Upstream;
    let is_silent = matches!(error.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout);
    // A kept connection that has ended says nothing about its address.
    if is_upstream
        && (is_silent || (!was_pooled && is_unanswered))
        && let Some(connect) = admitted.attempts.connect()
    {
        connect.failed();
    }
    let in_silence = was_pooled && error.root_cause().downcast_ref().is_some_and(is_silence);
    if in_silence && let Some(address) = peer._address.as_inet() {
        epoch::end(*address, peer.group_key);
    }
    let broke = is_upstream && !is_silent && is_unanswered;
    // What does not speak HTTP may be a pooled connection out of step. Twice it is not, and a pause changes nothing.
    let may_repeat = !matches!(error.etype(), ErrorType::InvalidHTTPHeader | ErrorType::H1Error);
    let again = broke
        && admitted.attempts.has_time()
        && (admitted.attempts.may_replay() || (may_repeat && repeat(request, admitted, None)));
    if again {
        // What is pooled in a new epoch has been made since, and the connection of this try is worth keeping.
        admitted.attempts.replay(!in_silence);
    } else if broke && let Some(connect) = admitted.attempts.connect() {
        error = behind::told(error, connect);
    }
    error.set_retry(again);
    error
}

/// Whether to ask for a range of a blob again after a failure that may be temporary: a response of 500, 502, 503 or 504,
/// or none. Clients that fetch a layer in ranges, as containerd can, turn to no other host in its middle, and one failure
/// ends their pull. All others are told at once, for they have somewhere else to go.
pub(crate) fn repeat(request: &RequestHeader, admitted: &mut Admitted, response: Option<&ResponseHeader>) -> bool {
    let pause = pause_before_repeat(request, admitted, response);
    pause.map(|pause| admitted.attempts.repeat(pause)).is_some()
}

fn pause_before_repeat(
    request: &RequestHeader,
    admitted: &Admitted,
    response: Option<&ResponseHeader>,
) -> Option<Duration> {
    if !admitted.target.endpoint().is_blob() || !request.headers.contains_key(header::RANGE) {
        return None;
    }
    let pause = admitted.attempts.next_repeat()?;
    let is_temporary = response.is_none_or(|response| {
        let may_pass = matches!(response.status.as_u16(), 500 | 502..=504);
        may_pass && retry_after(&response.headers).is_none_or(|wanted| wanted <= pause)
    });
    is_temporary.then_some(pause)
}

/// This response goes to no client: the request is sent again.
pub(crate) fn again(response: &ResponseHeader) -> Box<Error> {
    let mut error = Error::explain(ErrorType::HTTPStatus(response.status.as_u16()), "asked again").into_up();
    error.set_retry(true);
    error
}
