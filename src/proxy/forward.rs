//! The way to the registry: which peer, which request, and whether to try again.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderName, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::protocols::TcpKeepalive;
use pingora_core::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::Session;
use tokio::time::{Instant, sleep};

use super::context::Context;
use super::endpoint::Endpoint;
use super::fail::Trouble;
use super::{deadline, epoch, storage};
use crate::answer::retry_after;
use crate::net::addresses::{Attempt, UNACKNOWLEDGED_LIMIT};

/// How often one request tries to connect, each time to all addresses that are known.
pub const MAX_CONNECTS: usize = 3;
/// Where no address takes a connection, the time for DNS to say that the registry has moved.
pub const MOVE_WAIT: Duration = Duration::from_secs(2);
/// TCP to whichever address answers first, and TLS to that one.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(4);
/// An answer, to the end of its header. A manifest that ACR has to fetch from the source takes seconds.
const HEADER_LIMIT: Duration = Duration::from_secs(20);
/// Whatever happens, the client has an answer within this: dockerd itself waits for ever.
const ANSWER_LIMIT: Duration = Duration::from_secs(28);
/// Less is not worth a try.
const MIN_HEADER_LIMIT: Duration = Duration::from_secs(2);
/// A blob may falter for as long as with nginx (`proxy_read_timeout`); clients go on where it breaks off, but not all do.
pub const BLOB_READ_LIMIT: Duration = Duration::from_secs(60);
/// Pauses before a part of a blob is asked for again; see [`repeat`].
pub const REPEATS: [Duration; 3] = [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(3)];
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Azure's load balancers forget an idle connection after 4 minutes.
const IDLE_LIMIT: Duration = Duration::from_secs(90);

/// The headers of a request that the registry needs, beside its `Host`, which is replaced.
static FORWARDED: [HeaderName; 7] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::RANGE,
    header::USER_AGENT,
];

/// Of these, what asks for an answer that cannot be read.
static UNREADABLE: [HeaderName; 3] = [header::ACCEPT_ENCODING, header::IF_RANGE, header::RANGE];

/// `request_filter`, first of all behind the parser: of the client's headers only those that a registry needs are
/// left, whoever asks for them later, and `Connection`, which Pingora judges before it takes that out. All others go no
/// further, whatever they are: above all `Authorization`, `Cookie`, and what a proxy in front adds.
pub fn strip(request: &mut RequestHeader) {
    // The letter case of their names, which HTTP leaves free, goes as well: it would be copied for each request.
    let mut parts = http::request::Parts::from(std::mem::replace(request, empty()));
    let needed = |name: &HeaderName| [header::HOST, header::CONNECTION].contains(name) || FORWARDED.contains(name);
    let others: Vec<_> = parts.headers.keys().filter(|name| !needed(name)).cloned().collect();
    for name in others {
        parts.headers.remove(name);
    }
    *request = parts.into();
}

fn empty() -> RequestHeader {
    http::Request::new(()).into_parts().0.into()
}

/// `upstream_peer`: the registry's addresses, with limits on every wait.
pub async fn peer(context: &mut Context) -> Result<Box<HttpPeer>> {
    let destination = Arc::clone(context.destination()?);
    let upstream = &destination.upstream;
    if context.refused > 0 {
        upstream.addresses.renewed(MOVE_WAIT).await;
    }
    let Some(attempt) = Attempt::new(&upstream.addresses) else {
        context.trouble = Some(Trouble::Unresolved);
        return Err(Error::explain(ErrorType::ConnectNoRoute, "the registry's name has no known address").into_up());
    };
    Ok(Box::new(peer_of(attempt, upstream.domain.server_name(), context)))
}

/// A peer that connects by this attempt, which `context` keeps, with limits on every wait.
pub fn peer_of(attempt: Arc<Attempt>, server_name: &str, context: &mut Context) -> HttpPeer {
    let mut peer = HttpPeer::new(attempt.first(), true, server_name.to_owned());
    peer.options.custom_l4 = Some(Arc::<Attempt>::clone(&attempt));
    context.attempt = Some(attempt);
    limit(&mut peer, context);
    peer
}

/// A bound on every wait, and which pooled connections may be taken.
fn limit(peer: &mut HttpPeer, context: &Context) {
    if let Some(address) = peer._address.as_inet() {
        peer.group_key = epoch::current(*address);
    }
    let options = &mut peer.options;
    // The time for TCP alone is the attempt's: Pingora's own limit on it does not hold for `custom_l4`.
    options.total_connection_timeout = Some(HANDSHAKE_LIMIT);
    // Pingora's one limit for each read of a header and of a body. See [`connected`] for the whole header.
    options.read_timeout = Some(match context.storage {
        Some(_) => BLOB_READ_LIMIT,
        None => header_limit(context.elapsed() + HANDSHAKE_LIMIT),
    });
    options.write_timeout = Some(WRITE_LIMIT);
    options.idle_timeout = Some(IDLE_LIMIT);
    options.tcp_keepalive = Some(TcpKeepalive {
        idle: Duration::from_secs(30),
        interval: Duration::from_secs(10),
        count: 3,
        #[cfg(target_os = "linux")]
        user_timeout: UNACKNOWLEDGED_LIMIT,
    });
    // [`strip`] has left no other header that speaks of the connection.
    options.http_upstream_request_policy =
        HttpUpstreamRequestPolicy { strip_hop_by_hop: false, ..HttpUpstreamRequestPolicy::deny_upgrades() };
    if context.needs_fresh {
        // A key of its own finds no pooled connection: what died once may have been stale, and so may the next one.
        static FRESH: AtomicU64 = AtomicU64::new(1);
        // No epoch comes as far as the upper half of these numbers.
        peer.group_key = !FRESH.fetch_add(1, Ordering::Relaxed);
        peer.options.idle_timeout = Some(Duration::ZERO);
    }
}

/// `connected_to_upstream`: from now on the answer's header has a deadline. It is a registry's first read that Pingora
/// itself bounds as tightly.
pub fn connected(socket: RawFd, context: &Context) {
    let until = Instant::now() + header_limit(context.elapsed());
    deadline::begin(socket, until, context.storage.is_none());
}

/// The next try waits until a failure that may be short is over.
pub async fn pause(context: &mut Context) {
    let pause = std::mem::take(&mut context.pause);
    if !pause.is_zero() {
        // In a box, for it is rare.
        Box::pin(sleep(pause)).await;
    }
}

/// `fail_to_connect`: once more, if there is time for it.
pub fn connect_failed(session: &Session, context: &mut Context, mut error: Box<Error>) -> Box<Error> {
    if let Some(attempt) = &context.attempt {
        attempt.connect_failed();
    }
    let refused = match &mut context.storage {
        Some(storage) => storage.refuse(),
        None => {
            context.refused += 1;
            context.refused
        }
    };
    let again = refused % MAX_CONNECTS != 0 && has_time(context);
    error.set_retry(again || repeat(session, context, None));
    error
}

/// `upstream_request_filter`: what is left of the client's request, for the host that it goes to.
pub fn rewrite(session: &Session, request: &mut RequestHeader, context: &Context) -> Result<()> {
    if let Some(mut outgoing) = storage::request(session, &request.method, context)? {
        outgoing.set_version(request.version);
        *request = outgoing;
        return Ok(());
    }
    aim(request, context)
}

/// What the registry is asked, with the token: the client's request after [`strip`], by the registry's names.
pub fn aim(request: &mut RequestHeader, context: &Context) -> Result<()> {
    let upstream = &context.destination()?.upstream;
    request.set_raw_path(context.target.as_bytes())?;
    request.insert_header(header::HOST, &upstream.host)?;
    // The client's own, where Pingora has not taken it out before.
    request.remove_header(&header::CONNECTION);
    // What is read on its way back is to come whole, and not packed.
    if context.endpoint()?.is_list() {
        for name in &UNREADABLE {
            request.remove_header(name);
        }
    }
    if let Some(bearer) = &context.bearer {
        request.insert_header(header::AUTHORIZATION, bearer.header())?;
    }
    Ok(())
}

/// `error_while_proxy`: a GET or HEAD that died before its response began is sent once more, on another connection. A
/// registry that is silent is not asked again: its time is up.
pub fn replay_once(
    peer: &HttpPeer,
    session: &Session,
    context: &mut Context,
    error: Box<Error>,
    was_pooled: bool,
) -> Box<Error> {
    let mut error = if deadline::end() { late() } else { error };
    if matches!(error.etype(), ErrorType::HTTPStatus(_)) {
        return error;
    }
    if *error.esource() == ErrorSource::Upstream
        && let Some(attempt) = &context.attempt
    {
        let is_silent = matches!(error.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout);
        // That a kept connection has ended says nothing of its address.
        if is_silent || (!was_pooled && session.response_written().is_none()) {
            attempt.failed();
        }
    }
    let died = *error.esource() == ErrorSource::Upstream
        && !matches!(error.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout)
        && session.response_written().is_none();
    let in_silence = was_pooled && died_in_silence(&error);
    if in_silence && let Some(address) = peer._address.as_inet() {
        epoch::end(*address, peer.group_key);
    }
    let again = died && has_time(context) && (!context.is_replayed || repeat(session, context, None));
    if again {
        context.replays += 1;
        context.is_replayed = true;
        // What is pooled in a new epoch has been made since, and the connection of this try is worth keeping.
        context.needs_fresh = !in_silence;
    }
    error.set_retry(again);
    error
}

/// The header was not whole at its deadline.
pub fn late() -> Box<Error> {
    Error::explain(ErrorType::ReadTimedout, "the header was not whole in time").into_up()
}

/// The other side acknowledged nothing, or no way leads there any longer; a reset or an end would be a word of it.
fn died_in_silence(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(cause, Some(io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable))
}

/// Whether to ask for a part of a blob again after a failure that may be short: an answer of 500, 502, 503 or 504, or
/// none. Clients that fetch a layer in parts, as containerd can, turn to no other host in its middle, and one failure
/// ends their pull. All others are told at once, for they have somewhere else to go.
pub fn repeat(session: &Session, context: &mut Context, answer: Option<&ResponseHeader>) -> bool {
    let request = session.req_header();
    let is_part = context.endpoint.is_some_and(Endpoint::is_blob) && request.headers.contains_key(header::RANGE);
    let Some(pause) = REPEATS.get(context.repeats).copied().filter(|_| is_part) else {
        return false;
    };
    let is_short = answer.is_none_or(|answer| {
        let may_pass = matches!(answer.status.as_u16(), 500 | 502..=504);
        may_pass && retry_after(&answer.headers).is_none_or(|wanted| wanted <= pause)
    });
    let again = is_short && spare(context.elapsed()) > pause;
    if again {
        context.repeats += 1;
        context.replays += u32::from(answer.is_some());
        context.pause = pause;
    }
    again
}

/// Whether there is time for another try.
pub fn has_time(context: &Context) -> bool {
    !spare(context.elapsed()).is_zero()
}

/// What is left of the time for an answer beside that of one more try.
pub fn spare(elapsed: Duration) -> Duration {
    ANSWER_LIMIT.saturating_sub(elapsed + HANDSHAKE_LIMIT + MIN_HEADER_LIMIT)
}

/// How long an answer's header may take.
pub fn header_limit(elapsed: Duration) -> Duration {
    HEADER_LIMIT.min(ANSWER_LIMIT.saturating_sub(elapsed)).max(MIN_HEADER_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wait_has_what_is_left_of_the_time_for_an_answer() {
        for (elapsed, spare_time, header) in
            [(0, 22, 20), (4, 18, 20), (10, 12, 18), (15, 7, 13), (21, 1, 7), (22, 0, 6), (40, 0, 2)]
        {
            let of = Duration::from_secs;
            assert_eq!(spare(of(elapsed)), of(spare_time), "{elapsed}");
            assert_eq!(header_limit(of(elapsed)), of(header), "{elapsed}");
        }
    }

    #[test]
    fn a_connection_that_dies_in_silence_is_told_from_one_that_is_closed() {
        for (number, expected) in [(110, true), (113, true), (101, true), (104, false), (32, false)] {
            let cause = io::Error::from_raw_os_error(number);
            let error = Error::because(ErrorType::ReadError, "while reading response headers", cause);
            assert_eq!(died_in_silence(&error.into_up()), expected, "{number}");
        }
        assert!(!died_in_silence(&Error::explain(ErrorType::ConnectionClosed, "end").into_up()));
    }
}
