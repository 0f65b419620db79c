//! An issuer that is always there, and a store that has its token.

use std::sync::Arc;
use std::time::Duration;

use acr_cache_proxy::token::{Failure, Granted, Issuer, Secret, Tokens};
use async_trait::async_trait;
use http::Method;
use oci::name::Prefix;
use oci::request::{Pull, Request};
use oci::route::{Route, Routes, Source};

const LIFE: Duration = Duration::from_secs(3600);

struct Willing {
    per_repository: bool,
}

impl Willing {
    fn granted(&self) -> Result<Granted, Failure> {
        // As long as a real one.
        let token = Secret::new("x".repeat(1500));
        Ok(Granted { token, lifetime: LIFE, per_repository: self.per_repository })
    }
}

#[async_trait]
impl Issuer for Willing {
    async fn login(&self) -> Result<Granted, Failure> {
        self.granted()
    }

    async fn access(&self, _: &Secret, _: &str) -> Result<Granted, Failure> {
        self.granted()
    }
}

/// A store with a token for one repository, or for all of them, and the runtime that it is asked on.
pub fn warm(per_repository: bool) -> (tokio::runtime::Runtime, Arc<Tokens>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let tokens = Arc::new(Tokens::default());
    let upkeep = Arc::clone(&tokens);
    runtime.spawn(async move { upkeep.run(Arc::new(Willing { per_repository })).await });
    runtime.block_on(tokens.bearer("hub/library/nginx")).expect("a token");
    (runtime, tokens)
}

/// The routes that an example has.
pub fn routes() -> Routes<()> {
    let route = |(source, prefix): (&str, &str)| Route {
        source: Source::parse(source).expect("a source"),
        prefix: Prefix::parse(prefix).expect("a prefix"),
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
        other => panic!("{other:?}"),
    }
}
