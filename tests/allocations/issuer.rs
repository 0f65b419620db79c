//! An issuer that is always there, and a store that has its token.

use std::sync::Arc;
use std::time::Duration;

use acr_cache_proxy::secret::Secret;
use acr_cache_proxy::token::{Failure, Granted, Issuer, Tokens};
use async_trait::async_trait;

const LIFE: Duration = Duration::from_secs(3600);

struct Willing;

fn granted() -> Result<Granted, Failure> {
    // As long as a real one.
    Ok(Granted { token: Secret::new("x".repeat(1500)), lifetime: LIFE, per_repository: false })
}

#[async_trait]
impl Issuer for Willing {
    async fn login(&self) -> Result<Granted, Failure> {
        granted()
    }

    async fn access(&self, _: &Secret, _: &str) -> Result<Granted, Failure> {
        granted()
    }
}

/// A store with a token for every repository, and the runtime that it is asked on.
pub fn warm() -> (tokio::runtime::Runtime, Arc<Tokens>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let tokens = Arc::new(Tokens::default());
    let upkeep = Arc::clone(&tokens);
    runtime.spawn(async move { upkeep.run(Arc::new(Willing)).await });
    runtime.block_on(tokens.bearer("hub/library/nginx")).expect("a token");
    (runtime, tokens)
}
