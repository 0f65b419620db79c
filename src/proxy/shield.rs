//! `request_filter`, once a request is admitted: the answer from what is kept, or from a flight to the registry that all
//! requests for the same object share. Needs no token where something is kept.

use std::sync::{Arc, OnceLock};

use http::{Method, header};
use oci::error::Refusal;
use oci::media_type::Accepted;
use oci::route::Blobs;
use pingora::http::RequestHeader;
use pingora_core::{Error, Result};
use pingora_proxy::Session;
use tokio::time::{Instant, timeout};

use super::blob::locate::{self, Located};
use super::cache_status::CacheStatus;
use super::context::{Admitted, Context, Trip};
use super::destination::Kept;
use super::endpoint::Endpoint;
use super::fail::Trouble;
use super::fetch::{self, Read};
use super::{reply, retry};
use crate::cache::{Content, Freshness, How, KeyRef, Known, Part, Reason, Served};

mod answer;
mod relocate;
mod signature;

#[cfg(feature = "hot-path")]
pub(crate) use answer::with_digest;
pub(crate) use relocate::check_response;

/// What is asked for, as far as it can be kept.
struct Wanted {
    part: Part,
    /// Which types of manifests the client takes.
    accepted: Accepted,
}

impl Wanted {
    /// `Err` says why the request goes to the registry by itself.
    fn of(request: &RequestHeader, admitted: &Admitted, kept: &Kept) -> Result<Self, Reason> {
        let part = match admitted.target.endpoint() {
            Endpoint::Manifest => Part::Manifest,
            Endpoint::Tags | Endpoint::Referrers => Part::List,
            Endpoint::Blob => part_of_blob(request.method == Method::HEAD, admitted, kept)?,
        };
        let accepted = match part {
            Part::Manifest => {
                Accepted::parse(request.headers.get_all(header::ACCEPT).iter().map(|value| value.as_bytes()))
            }
            _ => Accepted::default(),
        };
        // The registry would answer by another type, or with an error that depends on what is named.
        if part == Part::Manifest && accepted.is_empty() {
            return Err(Reason::Accept);
        }
        Ok(Self { part, accepted })
    }
}

/// A blob is a layer, of which the redirect is kept, unless a manifest has said that it is the configuration of an image. The
/// registry answers HEAD of a blob itself, with its length and without a redirect.
fn part_of_blob(is_head: bool, admitted: &Admitted, kept: &Kept) -> Result<Part, Reason> {
    let known = match admitted.destination.blobs {
        Blobs::Redirect => None,
        Blobs::ProxyConfig | Blobs::Proxy => kept.cache.peek(&key(admitted, Part::Configuration)),
    };
    match (known, is_head) {
        // As GET: fresh, proved again, or in trouble stale.
        (Some(Known::Answer(entry)), true)
            if entry.content.is_blob() && entry.freshness(&kept.lifetimes, Instant::now()) != Freshness::Ended =>
        {
            Ok(Part::Configuration)
        }
        (_, true) => Err(Reason::Kind),
        (Some(_), false) => Ok(Part::Configuration),
        (None, false) => Ok(Part::Redirect),
    }
}

/// What a look-up has come to, and what `Cache-Status` says of it.
struct Found {
    served: Served<Trouble>,
    status: CacheStatus,
}

/// Answers the request if that can be done without passing it on. True if it is answered. A blob that comes through here may
/// be known to be in storage afterwards; it goes on there.
pub(crate) async fn answer(session: &mut Session, context: &mut Context) -> Result<bool> {
    let admitted = &*context.admitted()?;
    let Some(kept) = &admitted.destination.kept else {
        return Ok(false);
    };
    let wanted = match Wanted::of(session.req_header(), admitted, kept) {
        Ok(wanted) => wanted,
        Err(reason) => return pass(context, reason),
    };
    let now = Instant::now();
    let hit = kept.cache.hit(&key(admitted, wanted.part), &kept.lifetimes, now);
    let Found { served, status } = match hit {
        Some(entry) => {
            let status = CacheStatus::of_entry(&entry, &kept.lifetimes, How::Hit, now);
            Found { served: Served::Entry(entry, How::Hit), status }
        }
        // In a box: a hit needs no room for it.
        None => Box::pin(look_up_again(session, context, wanted.part)).await?,
    };
    if let Some(refusal) = without_signature(&served, context) {
        Box::pin(reply::refusal(session, context, refusal)).await?;
        return Ok(true);
    }
    match served {
        Served::Entry(entry, how) => serve(session, context, &wanted, &entry.content, how, &status).await,
        Served::Answer(content, how) => Box::pin(serve(session, context, &wanted, &content, how, &status)).await,
        Served::Failed(trouble, how) => {
            context.note(how);
            Box::pin(reply::trouble(session, context, trouble)).await?;
            Ok(true)
        }
        Served::Pass(reason) => {
            context.pass(reason);
            Ok(false)
        }
    }
}

/// [`signature::none_is_known`], and notes what the cache did.
fn without_signature(served: &Served<Trouble>, context: &mut Context) -> Option<Refusal> {
    let (Served::Answer(_, how) | Served::Failed(_, how)) = served else { return None };
    let admitted = context.if_admitted()?;
    let refusal = signature::none_is_known(served, admitted, admitted.destination.kept.as_ref()?)?;
    context.note(*how);
    Some(refusal)
}

/// The request goes to the registry by itself, which is counted. The cache itself counts what passes after a flight.
fn pass(context: &mut Context, reason: Reason) -> Result<bool> {
    if let Some(kept) = &context.admitted()?.destination.kept {
        kept.cache.counters().passed(reason);
    }
    context.pass(reason);
    Ok(false)
}

/// Answers with this content, unless the client does not take its type; or, if it is the redirect of a blob that comes through
/// here, lets the request go on to storage.
async fn serve(
    session: &mut Session,
    context: &mut Context,
    wanted: &Wanted,
    content: &Arc<Content>,
    how: How,
    status: &CacheStatus,
) -> Result<bool> {
    if content.manifest.is_some_and(|manifest| !wanted.accepted.includes(manifest)) {
        return pass(context, Reason::Accept);
    }
    context.note(how);
    let admitted = context.admitted()?;
    if admitted.destination.blobs == Blobs::Proxy && content.status.is_redirection() {
        match locate::follow_shared(content, how, admitted) {
            Ok(Located::InStorage) => return Ok(false),
            Ok(Located::Answered) => {}
            Err(trouble) => {
                Box::pin(reply::trouble(session, context, trouble)).await?;
                return Ok(true);
            }
        }
    }
    answer::content(session, context, content, status).await?;
    Ok(true)
}

fn key(admitted: &Admitted, part: Part) -> KeyRef<'_> {
    KeyRef { registry: admitted.destination.upstream.number, part, path: admitted.target.path() }
}

/// [`look_up`], and once more where [`retry::repeat`] asks again for a part of a blob.
async fn look_up_again(session: &mut Session, context: &mut Context, part: Part) -> Result<Found> {
    loop {
        let found = tokio::select! {
            biased;
            found = look_up(context, part) => found?,
            error = left(session) => return Err(error),
        };
        let admitted = context.admitted()?;
        let response = match &found.served {
            Served::Answer(content, _) if content.status.is_server_error() => {
                Some(fetch::response(content.status, content.header_map(0)))
            }
            Served::Failed(Trouble::Unreachable(_) | Trouble::Broken(_) | Trouble::Page(_), _) => None,
            _ => return Ok(found),
        };
        if !retry::repeat(session.req_header(), admitted, response.as_ref()) {
            return Ok(found);
        }
        retry::pause(&mut admitted.attempts).await;
    }
}

/// A look-up that may have to wait for the registry. Whoever stops waiting ends nothing but that.
async fn look_up(context: &mut Context, part: Part) -> Result<Found> {
    let admitted = context.admitted()?;
    let Some(Kept { cache, lifetimes, .. }) = admitted.destination.kept.clone() else {
        return Ok(Found { served: Served::Pass(Reason::Fault), status: CacheStatus::default() });
    };
    let mut trip: Option<Arc<OnceLock<Trip>>> = None;
    let limit = admitted.attempts.answer_limit();
    let (served, why) = {
        let origin = || {
            let (read, note) = Read::of(admitted, part);
            trip = Some(note);
            read
        };
        let looked_up = timeout(limit, cache.look_up(key(admitted, part), &lifetimes, origin)).await;
        looked_up.unwrap_or((Served::Failed(Trouble::Silent, How::Miss), None))
    };
    if let Served::Entry(_, How::Stale) = &served {
        let admitted = context.admitted()?;
        let health = &admitted.destination.upstream.health;
        health.answered_stale(&admitted.target, admitted.bearer(), why.as_ref());
    }
    if let Some(trip) = trip {
        context.trip(trip);
    }
    let status = match &served {
        Served::Entry(entry, how) => {
            CacheStatus::of_entry(entry, &lifetimes, *how, Instant::now()).because(why.as_ref())
        }
        Served::Answer(_, how) | Served::Failed(_, how) => CacheStatus::of_answer(*how),
        Served::Pass(_) => CacheStatus::default(),
    };
    Ok(Found { served, status })
}

/// Waits until the client has left. Over HTTP/1 the next request that it sends meanwhile waits in its connection; a body, of which no pull
/// has one, may end this request as well.
async fn left(session: &mut Session) -> Box<Error> {
    match session.as_downstream_mut().read_body_or_idle(true).await {
        Err(error) => error.into_down(),
        Ok(_) => std::future::pending().await,
    }
}
