//! Where a blob is: the one way in which the registry's redirect is followed, and asking for it where no flight does.
//!
//! The registry is asked with connections that are kept here, before Pingora's own request, which then goes to storage. If
//! Pingora asked the registry itself, its only way to follow the redirect would be an error and another try, and Pingora
//! throws away the connection of a try that ends in an error (its HTTP/1 half gives it back only after a whole response):
//! each blob would cost the next request to the registry a new connection, three round trips.

use std::sync::Arc;

use http::{HeaderMap, StatusCode, Version, header};
use pingora::http::ResponseHeader;
use pingora_core::Result;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::Session;

use super::redirect::storage_of;
use crate::cache::{Content, How};
use crate::proxy::connections::Connections;
use crate::proxy::context::{Admitted, Context};
use crate::proxy::fail::Trouble;
use crate::proxy::{call, foreign, forward, probe, relay, retry};
use oci::route::Blobs;

/// What the registry answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Located {
    /// The registry has redirected: the request goes on to storage.
    InStorage,
    /// The registry's response was the client's answer.
    Answered,
}

/// Whether a request is for a blob that comes through this proxy.
pub(crate) fn is_for(admitted: &Admitted) -> bool {
    admitted.destination.blobs == Blobs::Proxy && admitted.target.endpoint().is_blob()
}

/// `proxy_upstream_filter`, for such a request: asks the registry, again where that may help, until it redirects to
/// storage or says something else, which is the client's answer.
pub(crate) async fn locate(session: &mut Session, context: &mut Context) -> Result<Located> {
    let connections = Arc::clone(&context.admitted()?.destination.calls);
    // Each cause to go on is bounded: connects and a replay, a renewed token and one of the repository's own, and the
    // repeats.
    loop {
        let admitted = context.admitted()?;
        retry::pause(&mut admitted.attempts).await;
        let peer = forward::peer(admitted).await?;
        let request = (session.req_header(), session.response_written().is_none());
        let destination = Arc::clone(&admitted.destination);
        let asking = destination.unless_down(call::ask(&connections, &peer, request, admitted)).await;
        let upstream = match asking.map_err(Trouble::into_error).flatten() {
            Ok(answered) => answered,
            Err(error) if error.retry() => continue,
            Err(error) => return Err(error),
        };
        let response = call::header_of(&upstream)?.clone();
        probe::limited(admitted, &response, None);
        let outcome = match forward::check_response(&response, session.req_header(), admitted).await {
            Ok(()) => match foreign::contradicts(&response, &session.req_header().headers, &admitted.target) {
                Some(why) => Err(Trouble::Broken(why).into_error()),
                None => follow(response.status, &response.headers, None, admitted).map_err(Trouble::into_error),
            },
            Err(error) => Err(error),
        };
        if let Ok(Located::Answered) = outcome {
            hand_over(&connections, upstream, &peer, response, session, context).await?;
            return Ok(Located::Answered);
        }
        call::finish(&connections, upstream, &peer, context.admitted()?).await;
        match outcome {
            Err(error) if error.retry() => {}
            outcome => return outcome,
        }
    }
}

/// Passes the registry's response on to the client, through the same filters as every other response.
async fn hand_over(
    connections: &Connections,
    mut upstream: HttpSession,
    peer: &HttpPeer,
    mut response: ResponseHeader,
    session: &mut Session,
    context: &mut Context,
) -> Result<()> {
    upstream.read_timeout = Some(forward::BLOB_READ_LIMIT);
    let mut is_done = upstream.is_body_done();
    let has_framing =
        [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].iter().any(|name| response.headers.contains_key(name));
    if !is_done && !has_framing {
        // A body that ends with the registry's connection, as Pingora has it for the client.
        response.set_version(Version::HTTP_11);
        response.insert_header(header::TRANSFER_ENCODING, "chunked")?;
    }
    relay::header(session, &mut response, context)?;
    session.write_response_header(Box::new(response), is_done).await.map_err(|error| error.into_down())?;
    while !is_done {
        let mut part = upstream.read_body_bytes().await.map_err(|error| error.into_up())?;
        is_done = part.is_none() || upstream.is_body_done();
        relay::body(session, &mut part, is_done, context)?;
        // An empty part in the middle would be the last chunk.
        if is_done || part.as_ref().is_some_and(|part| !part.is_empty()) {
            session.write_response_body(part, is_done).await.map_err(|error| error.into_down())?;
        }
    }
    call::release(connections, upstream, peer, context.admitted()?).await;
    Ok(())
}

/// Lets a request go where a redirect leads that is kept or that a flight has brought. [`Located::Answered`] if that is no
/// storage: the redirect, within the registry, is the client's.
pub(crate) fn follow_shared(redirect: &Arc<Content>, how: How, admitted: &mut Admitted) -> Result<Located, Trouble> {
    let is_kept = matches!(how, How::Hit | How::Revalidate | How::Stale);
    follow(redirect.status, &redirect.header_map(0), Some(redirect).filter(|_| is_kept), admitted)
}

/// Takes the registry's redirect, if it is one to storage and there is time for it. `kept` is the same, if it was kept.
fn follow(
    status: StatusCode,
    headers: &HeaderMap,
    kept: Option<&Arc<Content>>,
    Admitted { destination, attempts, .. }: &mut Admitted,
) -> Result<Located, Trouble> {
    let registry = destination.upstream.domain.authority();
    let Some(storage) = storage_of(status, headers, registry, &destination.blob_hosts)? else {
        return Ok(Located::Answered);
    };
    if !attempts.has_time() {
        return Err(Trouble::Silent);
    }
    attempts.follow(match kept {
        Some(redirect) => storage.by_kept(Arc::clone(redirect)),
        None => storage,
    });
    Ok(Located::InStorage)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use http::{HeaderValue, Method};

    use super::*;
    use crate::proxy::Destination;
    use crate::proxy::attempts::Attempts;
    use crate::proxy::target::Target;
    use oci::name::Repository;
    use oci::request::Request;

    /// A request for a blob of a route with `blobs: proxy`, as old as this.
    fn blob(age: Duration) -> Admitted {
        let path = format!("/v2/library/nginx/blobs/sha256:{}", "ab".repeat(32));
        let Ok(Request::Pull(pull)) = Request::parse(&Method::GET, &path, None) else { panic!("a pull: {path}") };
        let started = Instant::now().checked_sub(age).expect("this machine runs for longer than that");
        Admitted {
            target: Target::new(&pull, &Repository::new("hub", false, pull.name.as_str())),
            destination: Arc::new(Destination::example(0, Blobs::Proxy, None)),
            client: None,
            attempts: Attempts::new(started),
        }
    }

    #[test]
    fn a_redirect_is_followed_while_there_is_time_for_it() {
        let location = HeaderValue::from_static("https://x.blob.core.windows.net/a//data?sig=s");
        let headers = HeaderMap::from_iter([(header::LOCATION, location)]);
        for (age, is_followed) in [(0, true), (21, true), (23, false), (40, false)] {
            let mut admitted = blob(Duration::from_secs(age));
            let outcome = follow(StatusCode::TEMPORARY_REDIRECT, &headers, None, &mut admitted);
            assert_eq!(outcome.is_ok(), is_followed, "{age}");
            assert_eq!(admitted.attempts.storage().is_some(), is_followed, "{age}");
            assert_eq!(matches!(outcome, Err(Trouble::Silent)), !is_followed, "{age}");
        }
    }
}
