//! The configuration of an image: the registry says where it is; from there it is fetched, checked and kept.
//!
//! Each time, the registry's redirect is the proof that the identity may have it. What is kept already and only has to be
//! proved again is not fetched again.
//!
//! Where storage fails, or the blob is no configuration to keep, the answer is the registry's redirect, as for a layer: the
//! layers of the same image go to the client that way in any case, and what this host cannot reach the client may.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use log::warn;
use oci::route::Blobs;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::Result;
use tokio::time::{Instant, timeout};

use super::body::{self, Body};
use super::judge::{Judged, at_most, kept};
use super::{Answer, Read, TRIES, is_redirect};
use crate::answer::{API_VERSION, DIGEST};
use crate::cache::{Content, Entry, Fetched, Kind};
use crate::digest;
use crate::proxy::blob::redirect::{Storage, storage_of};
use crate::proxy::blob::storage;
use crate::proxy::call;
use crate::proxy::context::Admitted;
use crate::proxy::fail::Trouble;
use crate::proxy::reply::API_VERSION_2;

/// A configuration of 127 layers with its history has some 50 KiB. A larger blob is none to keep here: clients are redirected.
pub(crate) const MAX_CONFIGURATION: usize = 1 << 20;
/// The way to storage and back, in all. Whoever waits is better off with the redirect after that.
const STORAGE_LIMIT: Duration = Duration::from_secs(5);
/// After a failure of storage, clients get the redirect for this long before it is tried again.
const STORAGE_PAUSE: Duration = Duration::from_secs(30);

/// What has come of a redirect.
enum Followed {
    Has(Bytes),
    /// It leads to the registry itself.
    OfRegistry,
    /// It leads to what has failed a moment ago.
    NotNow,
}

impl Read {
    /// What the registry's answer for a configuration is to those who wait.
    pub(super) async fn configuration(
        &mut self,
        answer: Answer,
        request: &RequestHeader,
        known: Option<&Arc<Entry>>,
    ) -> Judged {
        let status = answer.response.status;
        if is_redirect(status) {
            let asked = answer.asked;
            if let Some(known) = known.filter(|known| known.content.is_blob()) {
                return Judged::Is(kept(known.confirmed_at(asked, at_most(&answer.response))));
            }
            return match self.follow(&answer.response, request).await {
                Ok(Followed::Has(body)) => self.checked(&answer.response, asked, body),
                Ok(Followed::OfRegistry) => self.judge(answer, None),
                Ok(Followed::NotNow) => self.redirect_for_now(answer),
                Err(trouble) => {
                    self.put_aside(&trouble);
                    self.warn(&trouble);
                    self.redirect_for_now(answer)
                }
            };
        }
        match (status, answer.body) {
            // A registry that has no storage.
            (StatusCode::OK, Body::Whole(body)) if body.len() <= MAX_CONFIGURATION => {
                if digest::is_of(self.admitted.target.reference(), &body) != Some(true) {
                    return Judged::Broken("it does not have its digest");
                }
                self.checked(&answer.response, answer.asked, body)
            }
            (_, body) => self.judge(Answer { body, ..answer }, None),
        }
    }

    /// The configuration, which has its digest.
    fn checked(&self, response: &ResponseHeader, asked: Instant, body: Bytes) -> Judged {
        let content = content(self.admitted.target.reference(), response, body);
        let at_most = at_most(response);
        Judged::Is(kept(Entry { at_most, ..Entry::new(Kind::Configuration, content, asked) }))
    }

    /// Fetches what this redirect leads to, unless that has just failed.
    async fn follow(&mut self, response: &ResponseHeader, request: &RequestHeader) -> Result<Followed, Trouble> {
        let destination = &self.admitted.destination;
        let registry = destination.upstream.domain.authority();
        let Some(storage) = storage_of(response.status, &response.headers, registry, &destination.blob_hosts)? else {
            return Ok(Followed::OfRegistry);
        };
        let host = storage.host().to_owned();
        let health = &destination.upstream.health;
        if health.is_aside(&host) || health.is_aside(self.admitted.target.path()) {
            return Ok(Followed::NotNow);
        }
        match timeout(STORAGE_LIMIT, self.read_blob(storage, request)).await {
            Ok(Ok(body)) => Ok(Followed::Has(body)),
            Ok(Err(error)) => Err(Trouble::of_call(&error, Some(&host))),
            Err(_) => Err(Trouble::StorageSilent(host)),
        }
    }

    /// Requests do not wait for the same failure again: those for this blob, and all whose storage is the host that is silent. A
    /// redirect is kept for that only if its end is known, and no longer than the settings say.
    fn put_aside(&self, trouble: &Trouble) {
        let Admitted { destination, target, .. } = &self.admitted;
        let health = &destination.upstream.health;
        health.put_aside(target.path(), STORAGE_PAUSE);
        if let Trouble::StorageSilent(host) = trouble {
            health.put_aside(host, STORAGE_PAUSE);
        }
    }

    /// The whole body, with its digest. No token goes there.
    async fn read_blob(&mut self, storage: Storage, request: &RequestHeader) -> Result<Bytes> {
        let host = storage.host().to_owned();
        let trouble = |what: &str| Trouble::Storage(format!("blob storage {host}: {what}")).into_error();
        let connections = Arc::clone(&self.admitted.destination.calls);
        self.admitted.attempts.follow(storage);
        let mut tries = 0;
        loop {
            let admitted = &mut self.admitted;
            let Some(peer) = storage::peer(admitted).await? else { return Err(trouble("it is not known")) };
            let mut upstream = match call::ask(&connections, &peer, (request, true), admitted).await {
                Ok(answered) => answered,
                Err(error) if error.retry() => continue,
                Err(error) => return Err(error),
            };
            let response = call::header_of(&upstream)?.clone();
            storage::check_response(&response, request, admitted)?;
            let body = body::read(&mut upstream, &response, MAX_CONFIGURATION).await;
            tries += 1;
            let broken = match body {
                Body::Whole(body) => {
                    if digest::is_of(admitted.target.reference(), &body) == Some(true) {
                        call::release(&connections, upstream, &peer, admitted).await;
                        return Ok(body);
                    }
                    "what it sends does not have the blob's digest"
                }
                Body::BrokeOff => "what it sends breaks off",
                Body::TooLarge => return Err(trouble("what it sends is larger than a configuration")),
                Body::NoRoom => return Err(trouble("there is no room for what it sends")),
            };
            if tries == TRIES {
                return Err(trouble(broken));
            }
        }
    }

    /// The redirect, until storage is tried again.
    pub(super) fn redirect_for_now(&self, answer: Answer) -> Judged {
        match self.judge(answer, None) {
            Judged::Is(Fetched::Kept { entry, also }) => {
                let at_most = entry.at_most.map_or(STORAGE_PAUSE, |at_most| at_most.min(STORAGE_PAUSE));
                let entry = Arc::new(Entry { at_most: Some(at_most), ..Entry::clone(&entry) });
                Judged::Is(Fetched::Kept { entry, also })
            }
            // Not the client's doing; and that it is a configuration stays known.
            Judged::Is(Fetched::Answer { content, .. }) => Judged::Is(Fetched::Answer { content, is_trouble: true }),
            other => other,
        }
    }

    fn warn(&self, trouble: &Trouble) {
        let Admitted { destination, target, .. } = &self.admitted;
        let instead = match destination.blobs {
            Blobs::Proxy => "each request for it goes on to storage, as for a layer",
            Blobs::ProxyConfig | Blobs::Redirect => "clients are redirected to storage",
        };
        warn!(
            "acr {}: the configuration {} of {} is not kept, {instead}: {trouble}",
            destination.upstream.domain.authority(),
            target.reference(),
            target.repository(),
        );
    }
}

/// As a registry that has no storage serves a blob.
fn content(digest: &str, response: &ResponseHeader, body: Bytes) -> Content {
    let copied = |name: HeaderName, value: &[u8]| Some((name, HeaderValue::from_bytes(value).ok()?));
    let date = response.headers.get(header::DATE).and_then(|date| copied(header::DATE, date.as_bytes()));
    let named = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (API_VERSION, HeaderValue::from_static(API_VERSION_2.1)),
    ];
    let by_digest = [copied(DIGEST, digest.as_bytes()), copied(header::ETAG, format!("\"{digest}\"").as_bytes()), date];
    let headers = named.into_iter().chain(by_digest.into_iter().flatten()).collect();
    Content { status: StatusCode::OK, headers, body, manifest: None, digest: Some(digest.into()) }
}
