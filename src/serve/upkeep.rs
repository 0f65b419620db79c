//! The background work for each registry: its addresses and tokens are kept fresh while the table of routes has the registry
//! or a request to it is under way.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::listen::exit::ExitIfDropped;
use crate::liveness::Liveness;
use crate::net::addresses::Addresses;
use crate::token::{Issuer, Tokens};

/// The upkeep of one registry. It must not hold the [`crate::proxy::Upstream`] itself, whose end it waits for.
pub(crate) struct Upkeep {
    pub addresses: Arc<Addresses>,
    pub tokens: Arc<Tokens>,
    /// Calls Entra ID and the registry for tokens.
    pub issuer: Arc<dyn Issuer>,
    /// Ends when the [`crate::proxy::Upstream`], which holds the sender, is dropped.
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
    /// The upkeep of registries that are new in the table. Locked while the service runs, because Pingora starts a service by
    /// a shared reference.
    pub(super) queue: Mutex<mpsc::UnboundedReceiver<Upkeep>>,
    /// Who asks whether it lives.
    pub(super) liveness: Liveness,
    /// What it runs on, once it does.
    pub(super) runtime: Arc<OnceLock<Handle>>,
}

impl UpkeepService {
    /// The service, and the queue for the upkeep of new registries. The queue needs no bound: it has one entry for each
    /// registry that is new in a table, and the size of a settings file is bounded.
    pub(crate) fn new() -> (mpsc::UnboundedSender<Upkeep>, Self) {
        let (sender, queue) = mpsc::unbounded_channel();
        (sender, Self { queue: Mutex::new(queue), liveness: Liveness::default(), runtime: Arc::default() })
    }
}

#[async_trait]
impl BackgroundService for UpkeepService {
    /// Ends with its runtime: requests that a drain waits for may wait for a token.
    async fn start(&self, shutdown: ShutdownWatch) {
        let _alive = ExitIfDropped::new("the upkeep of addresses and tokens", shutdown.clone());
        self.runtime.get_or_init(Handle::current);
        let mut queue = self.queue.lock().await;
        let mut tasks = JoinSet::new();
        let heartbeat = self.liveness.part("the upkeep of addresses and tokens");
        loop {
            tokio::select! {
                () = heartbeat.asked() => heartbeat.answer(),
                Some(upkeep) = queue.recv() => {
                    tasks.spawn(upkeep.run());
                }
                // A task ends when its registry is dropped. After a panic, this service ends, and with it the program.
                Some(ended) = tasks.join_next() => {
                    if ended.is_err() {
                        return;
                    }
                }
            }
        }
    }
}
