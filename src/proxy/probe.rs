//! What the requests to a registry tell of it, and the probe that looks whether it is there.
//!
//! The probe asks for `/v2/`, on a connection of its own and without a token: any answer shows that the registry is there, and
//! no repository has a part in it.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::attempts::Attempts;
use super::connections::Connections;
use super::context::Admitted;
use super::deadline::SLOW;
use super::destination::{Destination, Table, Upstream, upstreams};
use super::fail::Trouble;
use super::health::Call;
use super::{behind, forward};
use crate::answer::retry_after;
use crate::net::USER_AGENT;
use crate::net::addresses::Connect;

/// A probe that takes longer has failed: two round trips and a lost packet are within it.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// From the end of a probe to the next one.
const PAUSE: Duration = Duration::from_secs(1);
/// The same after a 407 of the egress proxy, once the registry counts as down: whoever has to correct the password takes longer,
/// and a reload with another one does not wait for this.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// No connection was made.
pub(crate) fn connect_failed(admitted: &Admitted) {
    if admitted.attempts.storage().is_none() {
        suspect(&admitted.destination, true);
    }
}

/// A request that went out has ended in an error.
pub(crate) fn failed(admitted: &Admitted, error: &Error, was_pooled: bool) {
    let is_silent = matches!(error.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout);
    // A kept connection that has ended says nothing about the registry, and neither does an answer that is asked for again.
    let counts = is_silent || !(was_pooled || matches!(error.etype(), ErrorType::HTTPStatus(_)));
    if admitted.attempts.storage().is_none() && *error.esource() == ErrorSource::Upstream && counts {
        suspect(&admitted.destination, true);
    }
}

/// The registry has answered, or storage, which says nothing of the registry.
pub(crate) fn answered(admitted: &Admitted, response: &ResponseHeader) {
    if admitted.attempts.storage().is_some() {
        return;
    }
    let is_limit = response.status == StatusCode::SERVICE_UNAVAILABLE && retry_after(&response.headers).is_some();
    if response.status.is_server_error() && !is_limit {
        suspect(&admitted.destination, true);
    } else if admitted.destination.minds_health() {
        admitted.destination.upstream.health.works();
    }
}

/// The registry has answered, perhaps that it limits requests. `body` is `None` where it is not read, or not whole. Returns the pause that
/// the answer asks for.
pub(crate) fn limited(admitted: &Admitted, response: &ResponseHeader, body: Option<&[u8]>) -> Option<Duration> {
    let destination = &admitted.destination;
    if !destination.minds_health() {
        return None;
    }
    let call = Call::of(admitted.target.endpoint());
    destination.upstream.health.limited(call, response.status, &response.headers, body)
}

/// Waits for a response, and probes meanwhile if it takes long; `None` if it is not there in time.
pub(crate) async fn within<T>(limit: Duration, admitted: &Admitted, response: impl Future<Output = T>) -> Option<T> {
    let mut response = pin!(response);
    if let Ok(response) = timeout(SLOW.min(limit), &mut response).await {
        return Some(response);
    }
    if admitted.attempts.storage().is_none() {
        slow(&admitted.destination);
    }
    timeout(limit.saturating_sub(SLOW), response).await.ok()
}

/// A response has taken longer than [`SLOW`].
pub(crate) fn slow(destination: &Destination) {
    suspect(destination, false);
}

/// Starts to probe, if nobody does.
fn suspect(destination: &Destination, has_failed: bool) {
    let Destination { upstream, calls, .. } = destination;
    if destination.minds_health() && upstream.health.suspected(has_failed) {
        let prober = Prober { upstream: Arc::downgrade(upstream), calls: Arc::clone(calls) };
        tokio::spawn(async move { prober.run().await });
    }
}

/// Probes a registry until it answers.
struct Prober {
    upstream: Weak<Upstream>,
    calls: Arc<Connections>,
}

impl Prober {
    async fn run(&self) {
        loop {
            let Some(upstream) = self.upstream.upgrade() else { return };
            let found = ask_in_time(&upstream, &self.calls).await;
            let is_refused = is_refused(&found);
            upstream.health.probed(found);
            // Also where it answers: a repository that fails all the time causes no more probes than this.
            let pause = if is_refused && upstream.health.is_down() { REFUSED_PAUSE } else { PAUSE };
            drop(upstream);
            sleep(pause).await;
            if self.upstream.upgrade().is_none_or(|upstream| !upstream.health.is_suspected()) {
                return;
            }
        }
    }
}

/// By an egress proxy, for the credentials that it was given.
fn is_refused(found: &Result<(), Trouble>) -> bool {
    matches!(found, Err(Trouble::Egress(why)) if why.is_about_credentials())
}

/// However it ends, the next failure may begin anew.
impl Drop for Prober {
    fn drop(&mut self) {
        if let Some(upstream) = self.upstream.upgrade() {
            upstream.health.probes_end();
        }
    }
}

async fn ask_in_time(upstream: &Upstream, calls: &Connections) -> Result<(), Trouble> {
    let until = Instant::now() + PROBE_LIMIT;
    upstream.way.addresses().after_failure(PROBE_LIMIT / 2).await;
    let connect = Connect::new(&upstream.way).ok_or_else(|| Trouble::unresolved(&upstream.way))?;
    let late = |_| Err(connect.waits_for_tunnel().map_or(Trouble::Silent, |why| Trouble::Egress(Arc::new(why))));
    timeout_at(until, ask(upstream, calls, &connect)).await.unwrap_or_else(late)
}

async fn ask(upstream: &Upstream, calls: &Connections, connect: &Arc<Connect>) -> Result<(), Trouble> {
    match ping(upstream, calls, connect).await?.resp_header().map(|response| response.status) {
        Some(status) if status.is_server_error() => Err(Trouble::Failing(status)),
        _ => Ok(()),
    }
}

/// The registries of this table that this process does not reach now. Each is asked once, all at the same time.
pub(crate) async fn unreached(table: &Table) -> Vec<String> {
    let mut asked = JoinSet::new();
    // All routes have the same connections.
    let Some(calls) = table.load().iter().next().map(|route| Arc::clone(&route.destination.calls)) else {
        return Vec::new();
    };
    for upstream in upstreams(table) {
        let calls = Arc::clone(&calls);
        asked.spawn(async move {
            let found = ask_in_time(&upstream, &calls).await;
            found.is_err().then(|| upstream.domain.authority().to_owned())
        });
    }
    asked.join_all().await.into_iter().flatten().collect()
}

/// The request of a probe, and the connection that has brought the header of its answer.
pub(super) async fn ping(
    upstream: &Upstream,
    calls: &Connections,
    connect: &Arc<Connect>,
) -> Result<HttpSession, Trouble> {
    let mut attempts = Attempts::new(std::time::Instant::now());
    // A connection that is kept may work where new ones do not.
    attempts.replay(true);
    let peer = forward::peer_of(Arc::clone(connect), upstream.domain.server_name(), &mut attempts);
    let trouble = |error: Box<Error>| {
        let error = behind::told(error.into_up(), connect);
        Trouble::of(&error, None).unwrap_or(Trouble::Silent)
    };
    let mut session = calls.open(&peer).await.map_err(|error| {
        connect.connect_failed();
        trouble(error)
    })?;
    let exchange = async {
        let mut request = RequestHeader::build_no_case(Method::GET, b"/v2/", Some(2))?;
        request.insert_header(header::HOST, &upstream.host)?;
        request.insert_header(header::USER_AGENT, HeaderValue::from_static(USER_AGENT))?;
        session.write_request_header(Box::new(request)).await?;
        session.read_response().await?;
        Ok(())
    };
    exchange.await.map_err(trouble)?;
    Ok(session)
}
