//! Adds a point to the history every few seconds.

use std::sync::Arc;

use pingora_core::server::ShutdownWatch;
use tokio::time::timeout;

use crate::metrics::Meters;
use crate::metrics::history::STEP;

/// Runs beside the admin listener, which shows what it adds.
pub(crate) struct Chronicler(Arc<Meters>);

impl Chronicler {
    /// Adds to the history of these.
    pub(crate) fn new(meters: Arc<Meters>) -> Self {
        Self(meters)
    }

    /// Does so until the process stops.
    pub(crate) async fn run(&self, mut shutdown: ShutdownWatch) {
        while timeout(STEP, shutdown.wait_for(|stop| *stop)).await.is_err() {
            self.0.history.step(&self.0);
        }
    }
}
