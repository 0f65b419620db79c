//! What `tests/allocations.rs` and `scripts/instructions` count and `benches/hot_path.rs` times: the way of a request, with the
//! routes of an example, a token that is already there, and a manifest that is kept. The feature `hot-path` compiles it for
//! these alone.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use oci::media_type::{Accepted, ManifestType};
use oci::name::Prefix;
use oci::request::{Pull, Request};
use oci::route::{Route, Routes, Source};
use pingora::http::{RequestHeader, ResponseHeader};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::answer::{API_VERSION, DIGEST};
use crate::cache::{Cache, Content, Entry, Fetched, How, KeyRef, Kind, Origin, Part};
use crate::config::Lifetimes;
use crate::failure::Failure;
use crate::proxy::{CacheStatus, Trouble, with_digest};
use crate::secret::Secret;
use crate::token::{Granted, Issuer, Tokens};

mod served;

pub use served::Served;

/// Longer than any measurement.
const LIFETIME: Duration = Duration::from_secs(3600);
/// Room for the one manifest.
const CACHE: usize = 1 << 20;
/// The repository that is asked for.
const REPOSITORY: &str = "hub/library/nginx";

/// An issuer that grants every token.
struct GrantsAll {
    per_repository: bool,
}

impl GrantsAll {
    fn granted(&self) -> Result<Granted, Failure> {
        // As long as a real one.
        let token = Secret::new("x".repeat(1500));
        Ok(Granted { token, lifetime: LIFETIME, per_repository: self.per_repository })
    }
}

#[async_trait]
impl Issuer for GrantsAll {
    async fn login(&self) -> Result<Granted, Failure> {
        self.granted()
    }

    async fn access(&self, _: &Secret, _: &str) -> Result<Granted, Failure> {
        self.granted()
    }
}

/// A token store that has its token, and the runtime on which it is asked.
pub struct Store {
    runtime: Runtime,
    tokens: Arc<Tokens>,
}

impl Store {
    /// A store with a token for all repositories, or with one for the repository.
    pub fn warm(per_repository: bool) -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime of this thread");
        let tokens = Arc::new(Tokens::default());
        let upkeep = Arc::clone(&tokens);
        runtime.spawn(async move { upkeep.run(Arc::new(GrantsAll { per_repository })).await });
        runtime.block_on(tokens.token_for(REPOSITORY, None)).expect("the issuer grants every token");
        Self { runtime, tokens }
    }

    /// `Authorization` for the repository, as each request gets it.
    pub fn authorization(&self) -> HeaderValue {
        let bearer = async { self.tokens.token_for(black_box(REPOSITORY), None).await.map(|bearer| bearer.header()) };
        self.runtime.block_on(bearer).expect("the token is there")
    }
}

/// The origin of one manifest, with the headers that Azure's edge gives to one.
struct OneManifest;

impl OneManifest {
    const BYTES: usize = 2048;
}

impl Origin for OneManifest {
    type Trouble = Trouble;

    async fn fetch(self, _: Option<Arc<Entry>>) -> Fetched<Trouble> {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let etag = format!("\"{digest}\"");
        let headers = [
            (header::CONTENT_TYPE, ManifestType::ALL[0].name()),
            (header::DATE, "Thu, 26 Nov 2026 06:00:00 GMT"),
            (header::ETAG, &etag),
            (DIGEST, &digest),
            (API_VERSION, "registry/2.0"),
        ];
        let headers = headers.map(|(name, value)| (name, HeaderValue::from_str(value).expect("a valid value")));
        let content = Content {
            status: StatusCode::OK,
            headers: headers.into(),
            body: vec![b'x'; Self::BYTES].into(),
            manifest: Some(ManifestType::ALL[0]),
            digest: Some(digest.into()),
        };
        let entry = Entry::new(Kind::Tag, content, Instant::now());
        Fetched::Kept { entry: Arc::new(entry), also: None }
    }
}

/// A cache that keeps the manifest of one tag, and a request for it as containerd sends it.
pub struct Kept {
    cache: Arc<Cache<Trouble>>,
    lifetimes: Lifetimes,
    request: RequestHeader,
    path: String,
}

impl Kept {
    /// A cache that keeps it already.
    pub fn warm() -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime of this thread");
        let mut request = RequestHeader::build_no_case(Method::GET, b"/", None).expect("a valid request");
        let accept = HeaderValue::from_static(ManifestType::ACCEPT_ALL);
        request.insert_header(header::ACCEPT, accept).expect("a valid header");
        let path = format!("/v2/{REPOSITORY}/manifests/1.27");
        let kept = Self { cache: Arc::new(Cache::new(CACHE)), lifetimes: lifetimes(), request, path };
        runtime.block_on(kept.cache.look_up(kept.key(), &kept.lifetimes, || OneManifest));
        kept
    }

    fn key(&self) -> KeyRef<'_> {
        KeyRef { registry: 1, part: Part::Manifest, path: &self.path }
    }

    /// Whether the client names the type of what is kept, and what is kept is fresh.
    pub fn is_hit(&self) -> bool {
        self.entry().is_some()
    }

    fn entry(&self) -> Option<Arc<Entry>> {
        let accept = self.request.headers.get_all(header::ACCEPT).iter().map(HeaderValue::as_bytes);
        let accepted = Accepted::parse(black_box(accept));
        let entry = self.cache.hit(&self.key(), &self.lifetimes, Instant::now())?;
        entry.content.manifest.is_some_and(|manifest| accepted.includes(manifest)).then_some(entry)
    }

    /// The header and the body of its answer.
    pub fn answer(&self) -> (ResponseHeader, Bytes) {
        let entry = self.entry().expect("it is kept");
        let status = CacheStatus::of_entry(&entry, &self.lifetimes, How::Hit, Instant::now());
        with_digest(&self.request, &entry.content, &status)
    }
}

fn lifetimes() -> Lifetimes {
    Lifetimes {
        tags: LIFETIME,
        manifests: LIFETIME,
        missing: LIFETIME,
        redirects: LIFETIME,
        lists: LIFETIME,
        stale: LIFETIME,
    }
}

/// The routes of an example.
pub fn routes() -> Routes<()> {
    let route = |(source, prefix): (&str, &str)| Route {
        source: Source::parse(source).expect("a valid source"),
        prefix: Prefix::parse(prefix).expect("a valid prefix"),
        hosts: Vec::new(),
        destination: (),
    };
    let routes = [("ghcr.io", "ghcr"), ("quay.io", "quay"), ("docker.io/bitnami", "bitnami"), ("docker.io", "hub")];
    Routes::new(routes.map(route).into(), Some("docker.io".to_owned()))
}

/// A request for this path, as containerd sends it.
pub fn pull(path: &str) -> Pull<'_> {
    match Request::parse(&Method::GET, path, Some("ns=docker.io")) {
        Ok(Request::Pull(pull)) => pull,
        other => panic!("no pull: {other:?}"),
    }
}
