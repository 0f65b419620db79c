//! What goes on behind the requests: each registry's addresses and tokens are kept fresh for as long as the table of routes
//! names the registry, or a request that came by an earlier table is still under way to it.

use std::convert::Infallible;
use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::listen::exit::ExitIfDropped;
use crate::net::addresses::Addresses;
use crate::token::{Issuer, Tokens};

/// The upkeep of one registry. It holds nothing of the registry but what it writes to, so that it can see the end of it.
pub(crate) struct Upkeep {
    pub addresses: Arc<Addresses>,
    pub tokens: Arc<Tokens>,
    /// Gives the tokens.
    pub issuer: Arc<dyn Issuer>,
    /// Its other half is in [`crate::proxy::Upstream`], and is dropped with it.
    pub in_use: oneshot::Receiver<Infallible>,
}

impl Upkeep {
    pub(crate) async fn run(self) {
        let Self { addresses, tokens, issuer, in_use } = self;
        tokio::select! {
            _ = in_use => {}
            _ = async { tokio::join!(addresses.keep_fresh(), tokens.run(issuer)) } => {}
        }
    }
}

/// Runs the upkeep of every registry.
pub(crate) struct UpkeepService {
    /// Locked once, for as long as the service runs: Pingora starts it by a shared reference.
    pub(super) arriving: Mutex<mpsc::UnboundedReceiver<Upkeep>>,
}

impl UpkeepService {
    /// The service, and where to hand in the upkeep of a registry. That queue needs no bound: it has an entry for each
    /// registry that is new in a table, and a table comes of a file that was read whole.
    pub(crate) fn new() -> (mpsc::UnboundedSender<Upkeep>, Self) {
        let (sender, arriving) = mpsc::unbounded_channel();
        (sender, Self { arriving: Mutex::new(arriving) })
    }
}

#[async_trait]
impl BackgroundService for UpkeepService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let _alive = ExitIfDropped::new("the upkeep of addresses and tokens", shutdown.clone());
        let mut arriving = self.arriving.lock().await;
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                Some(upkeep) = arriving.recv() => {
                    tasks.spawn(upkeep.run());
                }
                // One that ends by itself has lost its registry. A panic ends this service, and with it the program.
                Some(ended) = tasks.join_next() => {
                    if ended.is_err() {
                        return;
                    }
                }
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
        }
    }
}
