//! What a request needs to know of the connection that carries it, and the ways in which a fault takes it over.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::script::Handover;
use crate::wire::Flushes;

/// One accepted connection.
pub(crate) struct Connection {
    pub(crate) id: u64,
    /// Notified by a fault that resets the connection.
    pub(crate) reset: Notify,
    /// Filled by a fault whose answer hyper would not write.
    pub(crate) script: Handover,
    pub(crate) flushes: Arc<Flushes>,
}

impl Connection {
    pub(crate) fn new(id: u64) -> Connection {
        Connection { id, reset: Notify::new(), script: Handover::default(), flushes: Arc::default() }
    }
}
