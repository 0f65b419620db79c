//! What is done every few seconds, all on one thread: a process that nobody asks for anything hardly wakes up.

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;

use crate::admin::Chronicler;
use crate::alarm::Watcher;
use crate::notify::Notifier;

/// None of them takes long, or waits for another.
pub(super) struct Rounds {
    pub(super) chronicler: Chronicler,
    pub(super) watcher: Watcher,
    pub(super) notifier: Option<Notifier>,
}

#[async_trait]
impl BackgroundService for Rounds {
    async fn start(&self, shutdown: ShutdownWatch) {
        let notify = async {
            if let Some(notifier) = &self.notifier {
                notifier.run(shutdown.clone()).await;
            }
        };
        tokio::join!(self.chronicler.run(shutdown.clone()), self.watcher.run(shutdown.clone()), notify);
    }
}
