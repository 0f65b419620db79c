//! What a flight does: it asks the registry for one object and reads the whole answer, which is judged before anybody gets a
//! byte of it.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use log::warn;
use oci::manifest::MAX_DOCUMENT;
use oci::media_type::ManifestType;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, Result};
use tokio::time::timeout;

use super::attempts::Attempts;
use super::connections::Connections;
use super::context::{Admitted, Cached, Context, Trip};
use super::fail::Trouble;
use super::foreign::is_redirect;
use super::refused::Refused;
use super::registry_error::RegistryError;
use super::{authorize, call, forward, probe, retry};
use crate::answer::is_page_of_another;
use crate::cache::{Entry, Fetched, Freshness, Kind, Origin, Part, Purged, Reason};
use crate::net::USER_AGENT;

pub(super) mod body;
mod configuration;
mod content;
mod image;
mod judge;
mod redirect;

use body::Body;
use judge::Judged;

/// As much as a manifest may have, and far more than a page of tags.
pub(super) const MAX_BODY: usize = MAX_DOCUMENT;
/// An error says why in a few sentences.
const MAX_ERROR: usize = 64 << 10;
/// Whatever happens, a flight ends within this, so that its waiters are told and the next request may try.
const FLIGHT_LIMIT: Duration = Duration::from_secs(28);
/// An answer that breaks off, or is not what its digest says, is fetched once more.
const TRIES: usize = 2;

/// One object that is to be asked for.
pub(crate) struct Read {
    admitted: Admitted,
    part: Part,
    trip: Arc<OnceLock<Trip>>,
    /// Of a prefetch, which nobody waits for.
    place: Option<image::Place>,
}

impl Read {
    /// The object of an admitted request, which is the one being served here, and where its flight leaves a note of how it went.
    pub(crate) fn of(admitted: &Admitted, part: Part) -> (Self, Arc<OnceLock<Trip>>) {
        let trip = Arc::new(OnceLock::new());
        let admitted = Admitted {
            target: admitted.target.clone(),
            destination: Arc::clone(&admitted.destination),
            client: admitted.client,
            attempts: Attempts::new(Instant::now()).of_trace(admitted.attempts.trace().cloned()),
        };
        (Self { admitted, part, trip: Arc::clone(&trip), place: None }, trip)
    }

    /// Asks as soon as it may: once it has its turn within the budget, and then a place among the flights. While it waits for its turn
    /// it holds no place.
    async fn read(&mut self, known: Option<&Arc<Entry>>) -> Result<Fetched<Trouble>> {
        let destination = Arc::clone(&self.admitted.destination);
        let health = &destination.upstream.health;
        authorize::ready(&mut self.admitted).await.map_err(Trouble::into_error)?;
        // In a box: this would have room for it three times over.
        health.in_place(self.admitted.client, Box::pin(self.read_whole(known))).await.map_err(Trouble::into_error)?
    }

    /// Asks until there is an answer that is whole, or until the registry is known to be down. Storage is not the registry.
    async fn read_whole(&mut self, known: Option<&Arc<Entry>>) -> Result<Fetched<Trouble>> {
        let destination = Arc::clone(&self.admitted.destination);
        let health = &destination.upstream.health;
        let request = self.request(known)?;
        let mut tries = 0;
        loop {
            let (answer, line) = health.unless_down(self.answer(&request)).await.map_err(Trouble::into_error)??;
            tries += 1;
            // A redirect has nothing in it that could be wrong, and what follows takes time.
            let line = if is_redirect(answer.response.status) { keep(&destination.calls, line).await } else { line };
            let is_page = is_page_of_another(&answer.response.headers);
            let judged = match self.part {
                // In a box: it has the state of a second call, to storage.
                Part::Configuration => Box::pin(self.configuration(answer, &request, known)).await,
                _ => self.judge(answer, known),
            };
            match judged {
                Judged::Is(fetched) => {
                    keep(&destination.calls, line).await;
                    return Ok(fetched);
                }
                // Its connection ends: who sends what is not the answer may have sent more of it.
                Judged::Broken(_) if tries < TRIES => {}
                Judged::Broken(how) if is_page => return Err(Trouble::Page(how).into_error()),
                Judged::Broken(how) => return Err(Trouble::Broken(how).into_error()),
            }
        }
    }

    /// What the registry is asked: all types of manifests, so that it converts none; without compression, so that it can be
    /// read here; and whether what is known has changed.
    fn request(&self, known: Option<&Arc<Entry>>) -> Result<RequestHeader> {
        let mut request = RequestHeader::build_no_case(Method::GET, b"/", Some(6))?;
        request.insert_header(header::USER_AGENT, HeaderValue::from_static(USER_AGENT))?;
        request.insert_header(header::ACCEPT_ENCODING, forward::NOT_PACKED)?;
        if self.part == Part::Manifest {
            request.insert_header(header::ACCEPT, HeaderValue::from_static(ManifestType::ACCEPT_ALL))?;
            if let Some((_, digest)) = self.unless_changed(known) {
                request.insert_header(header::IF_NONE_MATCH, format!("\"{digest}\""))?;
            }
        }
        Ok(request)
    }

    /// What is asked for only if it has changed, and its digest: a tag. Nothing that ACR has not imported yet: a 304 might not
    /// say that it has by now, and might be no pull to it. And nothing by its digest: distribution, on which ACR's answers are
    /// modelled, compares the digests before it looks for the manifest, and so answers 304 for one that was deleted.
    fn unless_changed<'a>(&self, known: Option<&'a Arc<Entry>>) -> Option<(&'a Arc<Entry>, &'a str)> {
        let known = known.filter(|known| known.content.manifest.is_some() && known.at_most.is_none())?;
        let digest = known.content.digest.as_deref()?;
        (self.part == Part::Manifest && !self.admitted.target.is_by_digest()).then_some((known, digest))
    }

    /// One whole answer. Each cause to ask again is bounded as in `blob::locate`.
    async fn answer(&mut self, request: &RequestHeader) -> Result<(Answer, Option<Line>)> {
        let connections = Arc::clone(&self.admitted.destination.calls);
        loop {
            let admitted = &mut self.admitted;
            retry::pause(&mut admitted.attempts).await;
            admitted.destination.may_ask(admitted.target.endpoint()).map_err(Trouble::into_error)?;
            let peer = forward::peer(admitted).await?;
            let asked = tokio::time::Instant::now();
            let mut upstream = match call::ask(&connections, &peer, (request, true), admitted).await {
                Ok(answered) => answered,
                Err(error) if error.retry() => continue,
                Err(error) => return Err(error),
            };
            // Without its names' letter case, which means nothing.
            let response = call::header_of(&upstream)?;
            let mut response = self::response(response.status, response.headers.clone());
            if let Err(error) = forward::check_response(&response, request, admitted).await {
                let body = Box::pin(call::finish(&connections, upstream, &peer, admitted)).await;
                if error.retry() {
                    continue;
                }
                return Err(match Trouble::of(&error, None) {
                    // Its body may say more than its header.
                    Some(Trouble::Unauthorized(by_header)) => {
                        let about = Refused::of(response.status, &response.headers, &body).unwrap_or(by_header);
                        Trouble::Unauthorized(about).into_error()
                    }
                    _ => error,
                });
            }
            // A redirect has said all in its header; its body says the same to people, and may come late.
            if self.part == Part::Redirect && response.status.is_redirection() {
                call::finish(&connections, upstream, &peer, admitted).await;
                return Ok((Answer { asked, response, body: Body::Whole(Bytes::new()) }, None));
            }
            let limit = if response.status.is_success() { MAX_BODY } else { MAX_ERROR };
            let body = body::read(&mut upstream, &response, limit).await;
            let whole = match &body {
                Body::Whole(body) => Some(&**body),
                Body::BrokeOff | Body::TooLarge | Body::NoRoom => None,
            };
            if let Some(pause) = probe::limited(admitted, &response, whole) {
                // A 429 may name no time that can be read, and this proxy pauses all the same.
                response.insert_header(header::RETRY_AFTER, HeaderValue::from(pause.as_secs()))?;
            }
            let is_kept = whole.is_some() && call::may_be_kept(admitted);
            let line = is_kept.then(|| Box::new((upstream, peer)));
            return Ok((Answer { asked, response, body }, line));
        }
    }
}

impl Origin for Read {
    type Trouble = Trouble;

    async fn fetch(mut self, known: Option<Arc<Entry>>) -> Fetched<Trouble> {
        if self.is_ahead(known.as_deref()) {
            if !self.admitted.destination.upstream.health.spare_turn() {
                return Fetched::Pass(Reason::Full);
            }
            self.admitted.attempts.give_turn();
        }
        let fetched = self.fly(known.as_ref()).await;
        if is_right_refused(&fetched) {
            let is_kept = known.is_some();
            right_ended(&self.admitted, is_kept);
        }
        // Clients that had something stale at hand have not waited for this.
        if known.is_some_and(|known| self.stands_in(&known)) {
            let health = &self.admitted.destination.upstream.health;
            health.stands_in(&self.admitted.target, self.admitted.bearer(), &fetched);
        }
        fetched
    }
}

impl Read {
    /// Asks, within the time for it, and leaves the note of how it went.
    async fn fly(&mut self, known: Option<&Arc<Entry>>) -> Fetched<Trouble> {
        let read = timeout(FLIGHT_LIMIT, self.read(known)).await;
        let attempts = &self.admitted.attempts;
        let (address, has_asked) = (attempts.address(), attempts.has_asked());
        let trip = Trip {
            address,
            tries: attempts.count(),
            asking: attempts.asking(),
            correlation: attempts.correlation().cloned(),
            storage: attempts.storage().map(|storage| storage.host().into()),
        };
        // Empty before: a flight happens once.
        let _ = self.trip.set(trip);
        if let Ok(Ok(Fetched::Kept { .. } | Fetched::Answer { is_trouble: false, .. })) = &read {
            self.admitted.destination.upstream.health.answered_fresh(&self.admitted.target);
        }
        match read {
            Ok(Ok(fetched)) => fetched,
            Ok(Err(error)) => {
                let trouble = Trouble::of_call(&error, None);
                let is_trouble = trouble.is_upstreams();
                Fetched::Failed { trouble, is_trouble, has_asked }
            }
            Err(_) => Fetched::Failed { trouble: Trouble::Silent, is_trouble: true, has_asked },
        }
    }

    /// No client waits for this, and none will if it is not done: a prefetch, or another redirect before the end of the kept one.
    fn is_ahead(&self, known: Option<&Entry>) -> bool {
        let is_early =
            |known: &Entry| known.kind == Kind::Redirect && self.freshness(known) == Some(Freshness::Revalidate);
        self.place.is_some() || known.is_some_and(is_early)
    }

    /// It is an answer while there is no better one.
    fn stands_in(&self, known: &Entry) -> bool {
        self.freshness(known) == Some(Freshness::Stale)
    }

    fn freshness(&self, known: &Entry) -> Option<Freshness> {
        let kept = self.admitted.destination.kept.as_ref()?;
        Some(known.freshness(&kept.lifetimes, tokio::time::Instant::now()))
    }
}

/// The identity may not pull from the repository any more: a right is one to all of it, with role-based and with attribute-based access
/// alike, so nothing of it that is kept may be used for the rest of its time. `is_kept`: what was asked for
/// is kept, so the registry gave it before.
pub(super) fn right_ended(Admitted { target, destination, .. }: &Admitted, is_kept: bool) {
    let Some(kept) = &destination.kept else { return };
    let upstream = &destination.upstream;
    // A role may let an identity pull and not list, and any client can ask for what was never there, or for a list.
    if !is_kept && (target.endpoint().is_list() || !upstream.health.may_look_through()) {
        return;
    }
    let Purged { entries, .. } = kept.cache.purge(upstream.number, |path, _| target.shares_repository(path));
    // Those who ask at the same time find the rest gone already.
    if entries > 0 {
        let (domain, repository) = (upstream.domain.authority(), target.repository());
        warn!(
            "acr {domain}: the identity may not pull {repository} any more: what is kept of it is forgotten: {entries} entries"
        );
    }
}

/// `logging`: a request has passed, perhaps with the answer that a right has ended.
pub(crate) fn passed(error: Option<&Error>, context: &mut Context) {
    if !matches!(context.cached(), Some(Cached::Passed(_))) {
        return;
    }
    let is_refused = context.registry_error().is_some_and(RegistryError::is_right_refused)
        || error.and_then(|error| error.root_cause().downcast_ref()).is_some_and(Trouble::is_right_refused);
    if is_refused && let Ok(admitted) = context.admitted() {
        right_ended(admitted, false);
    }
}

/// The registry says that the identity has no right to the repository.
fn is_right_refused(fetched: &Fetched<Trouble>) -> bool {
    match fetched {
        // A 403 that is about anything else is trouble.
        Fetched::Answer { content, is_trouble: false } => content.status == StatusCode::FORBIDDEN,
        Fetched::Failed { trouble, .. } => trouble.is_right_refused(),
        Fetched::Kept { .. } | Fetched::Answer { .. } | Fetched::NotKept { .. } | Fetched::Pass(_) => false,
    }
}

/// The connection of an answer that was read to its end, and its peer.
type Line = Box<(HttpSession, Box<HttpPeer>)>;

/// Keeps the connection of an answer that is what was asked for.
async fn keep(connections: &Connections, line: Option<Line>) -> Option<Line> {
    if let Some(line) = line {
        let (upstream, peer) = *line;
        connections.keep(upstream, &peer).await;
    }
    None
}

/// An answer, as far as it has been read.
struct Answer {
    /// When it was asked for.
    asked: tokio::time::Instant,
    response: ResponseHeader,
    body: Body,
}

/// A response of these headers. Pingora's own way to add one parses its name each time.
pub(crate) fn response(status: StatusCode, headers: HeaderMap) -> ResponseHeader {
    let mut parts = http::Response::new(()).into_parts().0;
    (parts.status, parts.headers) = (status, headers);
    parts.into()
}

#[cfg(test)]
mod tests;
