//! The way to the registry: which peer, which request, and whether to try again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderName, header};
use pingora::http::RequestHeader;
use pingora_core::protocols::TcpKeepalive;
use pingora_core::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::Session;

use super::context::Context;
use super::fail::Trouble;
use super::{relay, storage};

/// Addresses that one request tries to connect to.
pub const MAX_CONNECTS: usize = 3;
/// TCP to one address; a SYN is repeated after 1 s, and a further one would come too late.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// TCP and TLS to one address.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(4);
/// The first byte of an answer. A manifest that ACR has to fetch from the source takes seconds.
const READ_LIMIT: Duration = Duration::from_secs(20);
/// Whatever happens, the client has an answer within this: dockerd itself waits for ever.
const ANSWER_LIMIT: Duration = Duration::from_secs(28);
/// Less is not worth a try.
const MIN_READ_LIMIT: Duration = Duration::from_secs(2);
/// The same of storage. Pingora has one limit for the head of an answer and for each part of its body, and a layer may
/// falter: its client gets an answer this much later than [`ANSWER_LIMIT`], less two seconds, if the registry's redirect
/// came at the last moment and storage is silent, too.
const MIN_STORAGE_READ_LIMIT: Duration = Duration::from_secs(10);
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

/// `upstream_peer`: an address of the registry that this request has not tried yet, with limits on every wait.
pub fn peer(context: &mut Context) -> Result<Box<HttpPeer>> {
    let destination = Arc::clone(context.destination()?);
    let upstream = &destination.upstream;
    let start = *context.first_address.get_or_insert_with(|| upstream.addresses.start());
    let Some(address) = upstream.addresses.candidate(start, context.refused) else {
        context.trouble = Some(Trouble::Unresolved);
        return Err(Error::explain(ErrorType::ConnectNoRoute, "the registry's name has no known address").into_up());
    };
    context.address = Some(address);
    let mut peer = HttpPeer::new(address, true, upstream.domain.server_name().to_owned());
    limit(&mut peer, context);
    Ok(Box::new(peer))
}

/// A bound on every wait, and a fresh connection for a replay.
pub fn limit(peer: &mut HttpPeer, context: &Context) {
    let least = if context.storage.is_some() { MIN_STORAGE_READ_LIMIT } else { MIN_READ_LIMIT };
    let options = &mut peer.options;
    options.connection_timeout = Some(CONNECT_LIMIT);
    options.total_connection_timeout = Some(HANDSHAKE_LIMIT);
    options.read_timeout = Some(read_limit(context.elapsed(), least));
    options.write_timeout = Some(WRITE_LIMIT);
    options.idle_timeout = Some(IDLE_LIMIT);
    options.tcp_keepalive = Some(TcpKeepalive {
        idle: Duration::from_secs(30),
        interval: Duration::from_secs(10),
        count: 3,
        #[cfg(target_os = "linux")]
        user_timeout: Duration::ZERO,
    });
    // [`strip`] has left no other header that speaks of the connection.
    options.http_upstream_request_policy =
        HttpUpstreamRequestPolicy { strip_hop_by_hop: false, ..HttpUpstreamRequestPolicy::deny_upgrades() };
    if context.replays > 0 {
        // A key of its own finds no pooled connection: what died once may have been stale, and so may the next one.
        static REPLAYS: AtomicU64 = AtomicU64::new(1);
        peer.group_key = REPLAYS.fetch_add(1, Ordering::Relaxed);
        peer.options.idle_timeout = Some(Duration::ZERO);
    }
}

/// `fail_to_connect`: the next address, if there is time for it.
pub fn connect_failed(peer: &HttpPeer, context: &mut Context, mut error: Box<Error>) -> Box<Error> {
    let refused = match &mut context.storage {
        Some(storage) => storage.refuse(),
        None => {
            if let (Some(address), Ok(destination)) = (peer._address.as_inet(), context.destination()) {
                destination.upstream.addresses.avoid(*address);
            }
            context.refused += 1;
            context.refused
        }
    };
    error.set_retry(refused < MAX_CONNECTS && has_time(context));
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
    if relay::reads(context.endpoint) {
        for name in &UNREADABLE {
            request.remove_header(name);
        }
    }
    if let Some(bearer) = &context.bearer {
        request.insert_header(header::AUTHORIZATION, bearer.header())?;
    }
    Ok(())
}

/// `error_while_proxy`: a GET or HEAD that died before its response began is sent once more, on a fresh
/// connection. A registry that is silent is not asked again: its time is up.
pub fn replay_once(session: &Session, context: &mut Context, mut error: Box<Error>) -> Box<Error> {
    if matches!(error.etype(), ErrorType::HTTPStatus(_)) {
        return error;
    }
    let died = *error.esource() == ErrorSource::Upstream
        && !matches!(error.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout)
        && session.response_written().is_none();
    let again = died && context.replays == 0 && has_time(context);
    if again {
        context.replays += 1;
    }
    error.set_retry(again);
    error
}

/// Whether there is time for another try.
pub fn has_time(context: &Context) -> bool {
    !spare(context.elapsed()).is_zero()
}

/// What is left of the time for an answer beside that of one more try.
pub fn spare(elapsed: Duration) -> Duration {
    ANSWER_LIMIT.saturating_sub(elapsed + HANDSHAKE_LIMIT + MIN_READ_LIMIT)
}

fn read_limit(elapsed: Duration, least: Duration) -> Duration {
    READ_LIMIT.min(ANSWER_LIMIT.saturating_sub(elapsed + HANDSHAKE_LIMIT)).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wait_has_what_is_left_of_the_time_for_an_answer() {
        for (elapsed, spare_time, registry, storage) in [
            (0, 22, 20, 20),
            (4, 18, 20, 20),
            (10, 12, 14, 14),
            (15, 7, 9, 10),
            (21, 1, 3, 10),
            (22, 0, 2, 10),
            (40, 0, 2, 10),
        ] {
            let of = Duration::from_secs;
            assert_eq!(spare(of(elapsed)), of(spare_time), "{elapsed}");
            assert_eq!(read_limit(of(elapsed), MIN_READ_LIMIT), of(registry), "{elapsed}");
            assert_eq!(read_limit(of(elapsed), MIN_STORAGE_READ_LIMIT), of(storage), "{elapsed}");
        }
    }
}
