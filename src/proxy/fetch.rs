//! What a flight does: it asks the registry for one object and reads the whole answer, which is checked before anybody gets a
//! byte of it.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, Method, StatusCode, header};
use oci::media_type::ManifestType;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::Result;
use pingora_core::protocols::http::v1::client::HttpSession;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::attempts::Attempts;
use super::context::{Admitted, Trip};
use super::fail::Trouble;
use super::refused::Refused;
use super::{authorize, call, forward, relay, retry};
use crate::answer::CORRELATION_ID;
use crate::cache::{Content, Entry, Fetched, Key, Kind, Origin, Part, Reason};
use crate::digest;

mod redirect;

/// distribution's own limit for a manifest, and far more than a page of tags.
const MAX_BODY: usize = 4 << 20;
/// An error says why in a few sentences.
const MAX_ERROR: usize = 64 << 10;
/// Bytes of bodies that all flights hold together, in KiB: as many as the default of the whole cache.
const MAX_IN_FLIGHT: usize = 64 << 10;
/// Whatever happens, a flight ends within this, so that its waiters are told and the next request may try.
const FLIGHT_LIMIT: Duration = Duration::from_secs(28);
/// The body of an answer, in all.
const BODY_LIMIT: Duration = Duration::from_secs(20);
/// An answer that breaks off, or is not what its digest says, is fetched once more.
const TRIES: usize = 2;
/// What ACR has not imported yet is asked for again after this, or it would not see the pulls that make it import.
const NOT_IMPORTED: Duration = Duration::from_secs(60);
/// How ACR says so (Azure/acr#862).
const AZURE_ORIGIN: HeaderName = HeaderName::from_static("x-azure-origin");

static IN_FLIGHT: Semaphore = Semaphore::const_new(MAX_IN_FLIGHT);

/// The headers of an answer that every client may have. The length and the age are made with each answer.
static KEPT: [HeaderName; 9] = [
    header::CONTENT_TYPE,
    header::DATE,
    header::ETAG,
    header::LINK,
    header::LOCATION,
    HeaderName::from_static("docker-content-digest"),
    HeaderName::from_static("docker-distribution-api-version"),
    HeaderName::from_static("oci-filters-applied"),
    AZURE_ORIGIN,
];

/// One object that is to be asked for.
pub(crate) struct Read {
    admitted: Admitted,
    part: Part,
    trip: Arc<OnceLock<Trip>>,
}

impl Read {
    /// The object of an admitted request, and where its flight leaves a note of how it went.
    pub(crate) fn of(admitted: &Admitted, part: Part) -> (Self, Arc<OnceLock<Trip>>) {
        let trip = Arc::new(OnceLock::new());
        let admitted = Admitted {
            target: admitted.target.clone(),
            destination: Arc::clone(&admitted.destination),
            attempts: Attempts::new(Instant::now()),
        };
        (Self { admitted, part, trip: Arc::clone(&trip) }, trip)
    }

    /// Asks until there is an answer that is whole.
    async fn read(&mut self, known: Option<&Arc<Entry>>) -> Result<Fetched<Trouble>> {
        self.admitted.destination.may_ask().map_err(Trouble::into_error)?;
        authorize::authorize(&mut self.admitted).await.map_err(Trouble::into_error)?;
        let request = self.request(known)?;
        let mut tries = 0;
        loop {
            let answer = self.answer(&request).await?;
            tries += 1;
            match self.judge(answer, known) {
                Judged::Is(fetched) => return Ok(fetched),
                Judged::Broken(_) if tries < TRIES => {}
                Judged::Broken(how) => return Err(Trouble::Broken(how).into_error()),
            }
        }
    }

    /// What the registry is asked: all types of manifests, so that it converts none; without compression, so that it can be
    /// read here; and whether what is known has changed.
    fn request(&self, known: Option<&Arc<Entry>>) -> Result<RequestHeader> {
        const AGENT: &str = concat!("acr-cache-proxy/", env!("CARGO_PKG_VERSION"));
        let mut request = RequestHeader::build_no_case(Method::GET, b"/", Some(5))?;
        request.insert_header(header::USER_AGENT, AGENT)?;
        if self.part == Part::Manifest {
            request.insert_header(header::ACCEPT, ManifestType::ACCEPT_ALL)?;
            let known = known.filter(|known| known.content.manifest.is_some());
            if let Some(digest) = known.and_then(|known| known.content.digest.as_ref()) {
                request.insert_header(header::IF_NONE_MATCH, format!("\"{digest}\""))?;
            }
        }
        Ok(request)
    }

    /// One whole answer. Each cause to ask again is bounded as in `blob::locate`.
    async fn answer(&mut self, request: &RequestHeader) -> Result<Answer> {
        let connector = Arc::clone(&self.admitted.destination.calls);
        loop {
            let admitted = &mut self.admitted;
            retry::pause(&mut admitted.attempts).await;
            admitted.destination.may_ask().map_err(Trouble::into_error)?;
            let peer = forward::peer(admitted).await?;
            let (mut upstream, response) = match call::ask(&connector, &peer, (request, true), admitted).await {
                Ok(answered) => answered,
                Err(error) if error.retry() => continue,
                Err(error) => return Err(error),
            };
            if let Err(error) = forward::check_response(&response, request, admitted).await {
                let body = call::finish(&connector, upstream, &peer).await;
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
            let limit = if response.status.is_success() { MAX_BODY } else { MAX_ERROR };
            let body = timeout(BODY_LIMIT, body(&mut upstream, &response, limit)).await;
            let body = body.unwrap_or(Body::BrokeOff);
            if matches!(body, Body::Whole(..)) {
                call::release(&connector, upstream, &peer).await;
            }
            return Ok(Answer { response, body });
        }
    }

    /// What the answer is to those who wait for it.
    fn judge(&self, answer: Answer, known: Option<&Arc<Entry>>) -> Judged {
        let Answer { response, body } = answer;
        let (body, permits) = match body {
            Body::Whole(body, permits) => (body, permits),
            Body::BrokeOff => return Judged::Broken("it breaks off"),
            Body::TooLarge => return Judged::Is(Fetched::Pass(Reason::Answer)),
            Body::NoRoom => return Judged::Is(Fetched::Pass(Reason::Full)),
        };
        // Handed over to what is kept, or dropped.
        drop(permits);
        let at_most = response.headers.contains_key(&AZURE_ORIGIN).then_some(NOT_IMPORTED);
        let status = response.status;
        match (status, self.part) {
            (StatusCode::NOT_MODIFIED, Part::Manifest) => match known {
                Some(known) => Judged::Is(self.manifest(known.confirmed_now(at_most))),
                None => Judged::Broken("it is a 304 to a request without a condition"),
            },
            (StatusCode::OK, Part::Manifest) => {
                let Some(content) = self.manifest_content(&response, body) else {
                    return Judged::Is(Fetched::Pass(Reason::Answer));
                };
                match content {
                    Ok(content) => Judged::Is(self.manifest(entry(Kind::Manifest, content, at_most))),
                    Err(how) => Judged::Broken(how),
                }
            }
            (StatusCode::OK, Part::List) => {
                // What is no JSON has broken off without a sign, as a body does that ends with its connection.
                if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err() {
                    return Judged::Broken("it is not JSON");
                }
                Judged::Is(kept(entry(Kind::List, content(&response, body), at_most)))
            }
            // A registry that has no storage: what goes to all who wait is checked, as a manifest is.
            (StatusCode::OK, Part::Redirect)
                if digest::is_of(self.admitted.target.reference(), &body) == Some(false) =>
            {
                Judged::Broken("it does not have its digest")
            }
            (StatusCode::NOT_FOUND, _) => Judged::Is(kept(entry(Kind::Missing, content(&response, body), at_most))),
            (status, Part::Redirect) if status.is_redirection() => {
                let ends = redirect::ends(&response);
                let content = content(&response, body);
                Judged::Is(match ends {
                    Some(until) => {
                        let mut entry = entry(Kind::Redirect, content, at_most);
                        entry.until = Some(until);
                        kept(entry)
                    }
                    None => Fetched::Answer { content: Arc::new(content), is_trouble: false },
                })
            }
            _ => {
                let mut content = content(&response, body);
                let further = [&header::RETRY_AFTER, &CORRELATION_ID];
                let further =
                    further.into_iter().filter_map(|name| Some((name.clone(), response.headers.get(name)?.clone())));
                content.headers.extend(further);
                let is_trouble = is_trouble(status)
                    || Refused::of(status, &response.headers, &content.body)
                        .is_some_and(|about| about != Refused::Right);
                Judged::Is(Fetched::Answer { content: Arc::new(content), is_trouble })
            }
        }
    }

    /// A manifest, under the tag that was asked for and under its digest.
    fn manifest(&self, manifest: Entry) -> Fetched<Trouble> {
        let target = &self.admitted.target;
        let manifest = Entry { kind: Kind::Manifest, ..manifest };
        if target.is_by_digest() {
            return kept(manifest);
        }
        let digest = manifest.content.digest.as_deref().unwrap_or_default();
        let path = target.manifest_path(digest).into_boxed_str();
        let key = Key { registry: self.admitted.destination.upstream.number, part: Part::Manifest, path };
        let tag = Entry { kind: Kind::Tag, ..manifest.clone() };
        Fetched::Kept { entry: Arc::new(tag), also: Some((key, Arc::new(manifest))) }
    }

    /// The content of a 200, if it is one to keep; `Err` if it is not what its digest says.
    fn manifest_content(&self, response: &ResponseHeader, body: Bytes) -> Option<Result<Content, &'static str>> {
        let text = |name: &HeaderName| response.headers.get(name).and_then(|value| value.to_str().ok());
        let manifest = ManifestType::parse(text(&header::CONTENT_TYPE)?)?;
        if response.headers.contains_key(header::CONTENT_ENCODING) {
            return None;
        }
        let target = &self.admitted.target;
        let digest = match target.is_by_digest() {
            true => target.reference(),
            false => text(&HeaderName::from_static("docker-content-digest"))?,
        };
        if !digest::is_of(digest, &body)? {
            return Some(Err("it does not have its digest"));
        }
        let digest = Some(digest.into());
        Some(Ok(Content { manifest: Some(manifest), digest, ..content(response, body) }))
    }
}

impl Origin for Read {
    type Trouble = Trouble;

    async fn fetch(mut self, known: Option<Arc<Entry>>) -> Fetched<Trouble> {
        let read = timeout(FLIGHT_LIMIT, self.read(known.as_ref())).await;
        let attempts = &self.admitted.attempts;
        let trip =
            Trip { address: attempts.address(), tries: attempts.count(), correlation: attempts.correlation().cloned() };
        // Empty before: a flight happens once.
        let _ = self.trip.set(trip);
        if let Ok(Ok(Fetched::Kept { .. } | Fetched::Answer { is_trouble: false, .. })) = &read {
            self.admitted.destination.upstream.health.answered_fresh(self.admitted.target.path());
        }
        match read {
            Ok(Ok(fetched)) => fetched,
            Ok(Err(error)) => {
                let trouble =
                    Trouble::of(&error, None).unwrap_or_else(|| Trouble::Internal(error.etype().as_str().to_owned()));
                let is_trouble = trouble.is_upstreams();
                Fetched::Failed { trouble, is_trouble }
            }
            Err(_) => Fetched::Failed { trouble: Trouble::Silent, is_trouble: true },
        }
    }
}

/// An answer, as far as it has been read.
struct Answer {
    response: ResponseHeader,
    body: Body,
}

enum Body {
    Whole(Bytes, Vec<SemaphorePermit<'static>>),
    /// The connection broke, or the time was up.
    BrokeOff,
    TooLarge,
    /// Too many bytes are in flight.
    NoRoom,
}

/// What an answer is.
enum Judged {
    Is(Fetched<Trouble>),
    /// Not whole, and why.
    Broken(&'static str),
}

/// Reads a whole body, which holds its share of [`IN_FLIGHT`] until it is judged.
async fn body(upstream: &mut HttpSession, response: &ResponseHeader, limit: usize) -> Body {
    let announced = relay::framing::length(response).and_then(|length| usize::try_from(length).ok());
    if announced.is_some_and(|announced| announced > limit) {
        return Body::TooLarge;
    }
    let mut body = BytesMut::with_capacity(announced.unwrap_or_default());
    let mut permits = Vec::new();
    loop {
        match upstream.read_body_ref().await {
            Ok(Some(part)) => {
                if body.len() + part.len() > limit {
                    return Body::TooLarge;
                }
                let share = u32::try_from(part.len().div_ceil(1024)).unwrap_or(u32::MAX);
                let Ok(permit) = IN_FLIGHT.try_acquire_many(share) else { return Body::NoRoom };
                permits.push(permit);
                body.extend_from_slice(part);
            }
            Ok(None) => break,
            Err(_) => return Body::BrokeOff,
        }
    }
    if announced.is_some_and(|announced| announced != body.len() && response.status != StatusCode::NOT_MODIFIED) {
        return Body::BrokeOff;
    }
    Body::Whole(body.freeze(), permits)
}

fn content(response: &ResponseHeader, body: Bytes) -> Content {
    let headers = KEPT
        .iter()
        .flat_map(|name| response.headers.get_all(name).iter().map(move |value| (name.clone(), value.clone())));
    Content { status: response.status, headers: headers.collect(), body, manifest: None, digest: None }
}

/// The other way about: the response that this content was, with room for more headers.
pub(crate) fn response(content: &Content, more: usize) -> Result<ResponseHeader> {
    let mut response = ResponseHeader::build_no_case(content.status, Some(content.headers.len() + more))?;
    for (name, value) in &content.headers {
        response.append_header(name, value)?;
    }
    Ok(response)
}

fn entry(kind: Kind, content: Content, at_most: Option<Duration>) -> Entry {
    Entry { kind, content: Arc::new(content), confirmed: tokio::time::Instant::now(), at_most, until: None }
}

fn kept(entry: Entry) -> Fetched<Trouble> {
    Fetched::Kept { entry: Arc::new(entry), also: None }
}

/// Answers that are not the client's doing: the registry's own failures, its limits, and those of a cache rule's source (424,
/// Azure/acr#891).
fn is_trouble(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::FAILED_DEPENDENCY | StatusCode::REQUEST_TIMEOUT)
}
