//! What an answer of the registry's is to those who wait for it: kept, theirs alone, trouble, or none because it is not whole.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, StatusCode, header};
use oci::media_type::ManifestType;
use oci::name::is_attachment;
use oci::quote::registry_error;
use pingora::http::ResponseHeader;
use tokio::time::Instant;

use super::body::Body;
use super::{Answer, Read, content, redirect};
use crate::answer::{DIGEST, is_not_imported};
use crate::cache::{Content, Entry, Fetched, Key, Kind, Part, Reason};
use crate::digest;
use crate::proxy::fail::Trouble;
use crate::proxy::foreign::{NO_LIST, NO_MANIFEST, OTHER_SUCCESS, is_other_json, is_page};
use crate::proxy::refused::Refused;

/// What ACR has not imported yet is asked for again after this, or it would not see the pulls that make it import.
pub(super) const NOT_IMPORTED: Duration = Duration::from_secs(60);

/// What an answer is.
pub(super) enum Judged {
    Is(Fetched<Trouble>),
    /// Not whole, and why.
    Broken(&'static str),
}

impl Read {
    /// What the answer is to those who wait for it.
    pub(super) fn judge(&self, Answer { asked, response, body }: Answer, known: Option<&Arc<Entry>>) -> Judged {
        match self.readable(asked, &response, body, known) {
            Ok(body) => self.judge_whole(asked, &response, body, known),
            Err(judged) => judged,
        }
    }

    /// The body of an answer that can be judged by it. `Err` is what an answer is whose body cannot be read.
    fn readable(
        &self,
        asked: Instant,
        response: &ResponseHeader,
        body: Body,
        known: Option<&Arc<Entry>>,
    ) -> Result<Bytes, Judged> {
        let status = response.status;
        let is_packed = response.headers.contains_key(header::CONTENT_ENCODING);
        let passed = match body {
            Body::Whole(body) if !is_packed => return Ok(body),
            Body::BrokeOff => return Err(Judged::Broken("it breaks off")),
            Body::NoRoom => Fetched::Pass(Reason::Full),
            // What is kept is this, by its digest.
            Body::Whole(_) | Body::TooLarge if status.is_success() && says_digest_of(response, known) => {
                Fetched::Pass(Reason::Answer)
            }
            // It was asked for as it is, and whether a client can unpack it is not known. Whoever packs it all the same does so again.
            Body::Whole(_) | Body::TooLarge if status.is_success() => Fetched::NotKept { asked },
            // An error that is packed or large says nothing of the next answer.
            Body::Whole(_) | Body::TooLarge => Fetched::Pass(Reason::Answer),
        };
        // Of a registry in trouble, not each client is to ask by itself; and something kept is better than what cannot be read.
        if is_trouble(status) || (is_failure(status) && known.is_some_and(|known| self.stands_in(known))) {
            let content = Arc::new(content::bodiless(response));
            return Err(Judged::Is(Fetched::Answer { content, is_trouble: true }));
        }
        Err(if self.part == Part::Manifest && is_page(response) {
            Judged::Broken(NO_MANIFEST)
        } else {
            Judged::Is(passed)
        })
    }

    /// What an answer is that has been read to its end.
    fn judge_whole(
        &self,
        asked: Instant,
        response: &ResponseHeader,
        body: Bytes,
        known: Option<&Arc<Entry>>,
    ) -> Judged {
        let status = response.status;
        let at_most = at_most(response);
        let entry = |kind, content| Entry { at_most, ..Entry::new(kind, content, asked) };
        match (status, self.part) {
            (StatusCode::NOT_MODIFIED, _) => match self.unless_changed(known) {
                Some((_, digest)) if response.headers.get(&DIGEST).is_some_and(|said| said != digest) => {
                    Judged::Broken("it is a 304 for another digest")
                }
                Some((known, _)) => {
                    self.remember(&known.content);
                    Judged::Is(self.manifest(known.confirmed_at(asked, at_most)))
                }
                None => Judged::Broken("it is a 304 to a request without a condition"),
            },
            (StatusCode::OK, Part::Manifest) => match self.manifest_content(response, body) {
                Ok(Some(content)) if content.manifest.is_some() => {
                    self.remember(&content);
                    self.prefetch(&content);
                    Judged::Is(self.manifest(entry(Kind::Manifest, content)))
                }
                Ok(Some(content)) => Judged::Is(Fetched::Answer { content: Arc::new(content), is_trouble: false }),
                Ok(None) => Judged::Is(Fetched::NotKept { asked }),
                Err(how) => Judged::Broken(how),
            },
            (StatusCode::OK, Part::List) => {
                // What is no JSON has broken off without a sign, as a body does that ends with its connection.
                if !is_json(&body) {
                    return Judged::Broken(NO_LIST);
                }
                Judged::Is(kept(entry(Kind::List, content::kept(response, body))))
            }
            // A registry that has no storage: what goes to all who wait is checked, as a manifest is.
            (StatusCode::OK, Part::Redirect | Part::Configuration)
                if digest::is_of(self.admitted.target.reference(), &body) != Some(true) =>
            {
                Judged::Broken("it does not have its digest")
            }
            (status, _) if status.is_success() && status != StatusCode::OK => Judged::Broken(OTHER_SUCCESS),
            // Anybody may answer 404, but only a registry in its own form of an error.
            (StatusCode::NOT_FOUND, _) if registry_error(&body, &[]).0.is_some() => {
                let missing = entry(Kind::Missing, content::kept(response, body));
                // That an image has no signature is asked at each pull of it, and so belongs to what is kept of the image.
                Judged::Is(kept(Entry { stands_in: is_attachment(self.admitted.target.reference()), ..missing }))
            }
            (status, Part::Redirect | Part::Configuration) if status.is_redirection() => {
                match redirect::ends(response, asked) {
                    Some(until) => {
                        let redirect = entry(Kind::Redirect, content::kept(response, body));
                        Judged::Is(kept(redirect.ending(until)))
                    }
                    None => {
                        let content = Arc::new(content::shared(response, body));
                        Judged::Is(Fetched::Answer { content, is_trouble: false })
                    }
                }
            }
            // This proxy has written the request, so a 400 or 405 is no more the client's doing than a 503; it may be of
            // something in between.
            _ => {
                let is_trouble = Refused::is_trouble(status, &response.headers, &body);
                let content = Arc::new(content::shared(response, body));
                Judged::Is(Fetched::Answer { content, is_trouble })
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

    /// The content of a 200, if it is one to keep, or one of another type for those alone who wait: whether other clients would
    /// take that type only the registry knows. `Err` if it is not what its digest says, or no manifest at all, which holds for
    /// what is not kept as well: it goes to clients.
    fn manifest_content(&self, response: &ResponseHeader, body: Bytes) -> Result<Option<Content>, &'static str> {
        let text = |name: &HeaderName| response.headers.get(name).and_then(|value| value.to_str().ok());
        let media_type = text(&header::CONTENT_TYPE).and_then(ManifestType::parse);
        // What is signed has the digest of what it was before.
        let is_signed = media_type == Some(ManifestType::Schema1Signed);
        let target = &self.admitted.target;
        let digest = if target.is_by_digest() { Some(target.reference()) } else { text(&DIGEST) };
        match digest.filter(|_| !is_signed).and_then(|digest| digest::is_of(digest, &body)) {
            Some(true) => {}
            Some(false) => return Err("it does not have its digest"),
            // Nothing says what it is but itself.
            None if !is_json(&body) || is_other_json(response, &body) => return Err(NO_MANIFEST),
            None => return Ok(None),
        }
        let Some(digest) = digest else { return Ok(None) };
        // A request by SHA-512 may be answered with the SHA-256 as well, which clients look at.
        if text(&DIGEST).is_some_and(|said| said != digest && digest::is_of(said, &body) != Some(true)) {
            return Err("it says another digest");
        }
        let digest = Some(digest.into());
        // A manifest that is here whole leads nowhere else.
        let leads = |mut content: Content| {
            content.headers.retain(|(name, _)| *name != header::LINK && *name != header::LOCATION);
            content
        };
        Ok(Some(leads(match media_type {
            Some(_) => Content { manifest: media_type, digest, ..content::kept(response, body) },
            None => Content { digest, ..content::shared(response, body) },
        })))
    }
}

fn is_json(body: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}

/// The answer says the digest of what is known.
fn says_digest_of(response: &ResponseHeader, known: Option<&Arc<Entry>>) -> bool {
    let digest = known.and_then(|known| known.content.digest.as_deref());
    digest.is_some_and(|digest| response.headers.get(&DIGEST).is_some_and(|said| said == digest))
}

/// For how long this answer may be kept at most, whatever the settings say.
pub(super) fn at_most(response: &ResponseHeader) -> Option<Duration> {
    is_not_imported(&response.headers).then_some(NOT_IMPORTED)
}

pub(super) fn kept(entry: Entry) -> Fetched<Trouble> {
    Fetched::Kept { entry: Arc::new(entry), also: None }
}

/// It is no content, and says nothing of any.
fn is_failure(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// Answers that are trouble whatever they say: the registry's own failures, its limits, and those of a cache rule's source (424,
/// Azure/acr#891).
fn is_trouble(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::FAILED_DEPENDENCY | StatusCode::REQUEST_TIMEOUT)
}
