//! One pull, step by step and by the calls of every other request, with nothing kept: for a check of the way to the registry
//! and its storage. What an answer means is for the check to say.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use oci::manifest::Descriptor;
use oci::media_type::ManifestType;
use pingora::http::RequestHeader;

use super::attempts::Attempts;
use super::blob::hosts::BlobHosts;
use super::blob::redirect::{Storage, storage_of};
use super::blob::storage;
use super::context::Admitted;
use super::destination::{Destination, Upstream};
use super::fail::Trouble;
use super::fetch::MAX_BODY;
use super::fetch::body::{self, Body};
use super::registry_error::RegistryError;
use super::target::Target;
use super::{call, forward, probe, retry};
use crate::digest;
use crate::net::USER_AGENT;
use crate::net::addresses::Connect;
use crate::token::Bearer;

/// What the registry or its storage has answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// As much of it as has come.
    pub body: Bytes,
    /// The token that it was asked with.
    bearer: Option<Arc<Bearer>>,
}

impl Answer {
    /// What it says of an error of the registry's.
    pub(crate) fn error(&self) -> RegistryError {
        RegistryError::of(self.status, &self.body, self.bearer.clone())
    }

    /// Whether the body is this blob: the whole of it by its digest; one that is too long to be read whole by its length, as far as
    /// that is told.
    pub(crate) fn is_of(&self, blob: &Descriptor) -> bool {
        if !is_read_whole(blob) {
            let told = self.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
            return told.is_none_or(|told: u64| told == blob.size);
        }
        digest::is_of(&blob.digest, &self.body).unwrap_or(self.body.len() as u64 == blob.size)
    }
}

/// Whether all of a blob is read, and not its first bytes only.
pub(crate) fn is_read_whole(blob: &Descriptor) -> bool {
    blob.size <= MAX_BODY as u64
}

/// A repository of a route, and the token that it is asked with; an anonymous pull has one as well.
pub(crate) struct Trial {
    target: Target,
    destination: Arc<Destination>,
    bearer: Arc<Bearer>,
}

/// The registry's answer to `/v2/` without a token, on a connection of its own, as a probe asks for it.
pub(crate) async fn ping(destination: &Destination) -> Result<Answer, Trouble> {
    let upstream: &Upstream = &destination.upstream;
    let connect = Connect::new(&upstream.way).ok_or_else(|| Trouble::unresolved(&upstream.way))?;
    let mut session = probe::ping(upstream, &destination.calls, &connect).await?;
    let header = session.resp_header().cloned().ok_or(Trouble::Silent)?;
    let body = match body::read(&mut session, &header, MAX_BODY).await {
        Body::Whole(body) => body,
        Body::BrokeOff | Body::TooLarge | Body::NoRoom => Bytes::new(),
    };
    Ok(Answer { status: header.status, headers: header.headers.clone(), body, bearer: None })
}

impl Trial {
    /// Of this request.
    pub(crate) fn new(destination: &Arc<Destination>, target: Target, bearer: Bearer) -> Self {
        Self { target, destination: Arc::clone(destination), bearer: Arc::new(bearer) }
    }

    /// The same with another token.
    pub(crate) fn with(&self, bearer: Bearer) -> Self {
        Self::new(&self.destination, self.target.clone(), bearer)
    }

    /// The repository's name in the registry.
    pub(crate) fn repository(&self) -> &str {
        self.target.repository()
    }

    /// The token is for this repository alone.
    pub(crate) fn has_own_token(&self) -> bool {
        self.bearer.is_own()
    }

    /// The manifest that is asked for, or another one of the repository.
    pub(crate) async fn manifest(&self, digest: Option<&str>) -> Result<Answer, Trouble> {
        let target = digest.map_or_else(|| self.target.clone(), |digest| self.target.manifest(digest));
        self.ask(target, None, true).await
    }

    /// A blob of the repository; a redirect is the answer.
    pub(crate) async fn blob(&self, blob: &Descriptor) -> Result<Answer, Trouble> {
        self.ask(self.target.blob(&blob.digest), None, is_read_whole(blob)).await
    }

    /// Where an answer redirects to, if that is storage.
    pub(crate) fn storage(&self, answer: &Answer, hosts: &BlobHosts) -> Result<Option<Storage>, Trouble> {
        storage_of(answer.status, &answer.headers, self.destination.upstream.domain.authority(), hosts)
    }

    /// The blob from storage.
    pub(crate) async fn stored(&self, blob: &Descriptor, storage: Storage) -> Result<Answer, Trouble> {
        self.ask(self.target.blob(&blob.digest), Some(storage), is_read_whole(blob)).await
    }

    /// Asks once; connects that fail are repeated as for every request. Of an answer that is not to be read `whole`, the first bytes
    /// are enough.
    async fn ask(&self, target: Target, storage: Option<Storage>, whole: bool) -> Result<Answer, Trouble> {
        let host = storage.as_ref().map(|storage| storage.host().to_owned());
        let trouble = |error: Box<pingora_core::Error>| Trouble::of_call(&error, host.as_deref());
        let mut attempts = Attempts::new(Instant::now());
        // An anonymous pull from an anonymous registry has a token, too.
        attempts.authorize(Arc::clone(&self.bearer));
        if let Some(storage) = storage {
            attempts.follow(storage);
        }
        let mut admitted = Admitted { target, destination: Arc::clone(&self.destination), client: None, attempts };
        let request = request().map_err(trouble)?;
        let calls = Arc::clone(&self.destination.calls);
        loop {
            retry::pause(&mut admitted.attempts).await;
            let peer = match storage::peer(&mut admitted).await.map_err(trouble)? {
                Some(peer) => peer,
                None => forward::peer(&mut admitted).await.map_err(trouble)?,
            };
            let mut upstream = match call::ask(&calls, &peer, (&request, true), &mut admitted).await {
                Ok(upstream) => upstream,
                Err(error) if error.retry() => continue,
                Err(error) => return Err(trouble(error)),
            };
            let response = call::header_of(&upstream).map_err(trouble)?.clone();
            let (status, headers) = (response.status, response.headers.clone());
            let begun = Instant::now();
            let body = match !whole && status.is_success() {
                true => upstream.read_body_bytes().await.map(|part| part.unwrap_or_default()).ok(),
                false => match body::read(&mut upstream, &response, MAX_BODY).await {
                    Body::Whole(body) => Some(body),
                    Body::BrokeOff | Body::TooLarge | Body::NoRoom => None,
                },
            };
            return match body {
                None if status.is_success() => Err(broken(host.as_deref(), begun.elapsed() >= body::BODY_LIMIT)),
                // An error need not be whole.
                body => Ok(Answer {
                    status,
                    headers,
                    body: body.unwrap_or_default(),
                    bearer: Some(Arc::clone(&self.bearer)),
                }),
            };
        }
    }
}

/// Why a body is not whole. One that takes too long has begun well, and the connection is there.
fn broken(storage: Option<&str>, is_late: bool) -> Trouble {
    let how = if is_late { "it is not whole in time" } else { "it breaks off, or is too long" };
    match storage {
        None => Trouble::Broken(how),
        Some(host) => Trouble::Storage(format!("blob storage {host}: its answer: {how}")),
    }
}

/// All types of manifests, so that the registry converts none.
fn request() -> pingora_core::Result<RequestHeader> {
    let mut request = RequestHeader::build_no_case(Method::GET, b"/", Some(4))?;
    request.insert_header(header::USER_AGENT, HeaderValue::from_static(USER_AGENT))?;
    request.insert_header(header::ACCEPT, HeaderValue::from_static(ManifestType::ACCEPT_ALL))?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manifest of which a byte came each second was said to break off.
    #[test]
    fn a_body_that_is_not_whole_in_time_was_said_to_break_off() {
        for (storage, is_late, expected) in [
            (None, true, "the registry's answer cannot be used: it is not whole in time"),
            (None, false, "the registry's answer cannot be used: it breaks off, or is too long"),
            (Some("a.example"), true, "blob storage a.example: its answer: it is not whole in time"),
        ] {
            assert_eq!(broken(storage, is_late).to_string(), expected);
        }
    }
}
