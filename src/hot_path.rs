//! What `tests/allocations.rs` counts and `benches/hot_path.rs` times: our own code on the way of a request, with the routes
//! of an example and a token that is already there. The feature `hot-path` compiles it for these two alone.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use http::header::HeaderValue;
use oci::name::Prefix;
use oci::request::{Pull, Request};
use oci::route::{Route, Routes, Source};
use tokio::runtime::{Builder, Runtime};

use crate::failure::Failure;
use crate::secret::Secret;
use crate::token::{Granted, Issuer, Tokens};

/// Longer than any measurement.
const LIFETIME: Duration = Duration::from_secs(3600);
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
        runtime.block_on(tokens.token_for(REPOSITORY)).expect("the issuer grants every token");
        Self { runtime, tokens }
    }

    /// `Authorization` for the repository, as each request gets it.
    pub fn authorization(&self) -> HeaderValue {
        let bearer = async { self.tokens.token_for(black_box(REPOSITORY)).await.map(|bearer| bearer.header()) };
        self.runtime.block_on(bearer).expect("the token is there")
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
