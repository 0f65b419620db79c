//! From when on clients are served: at once, or, of a process that takes another's place, when that one says so.

use std::os::unix::process::parent_id;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use log::warn;
use tokio::sync::watch;

use crate::listen::set::{ListenerSet, Prepared};

/// How often the new process looks whether the old one is still there.
const STEP: Duration = Duration::from_millis(100);

/// The listeners that are bound and not served yet.
pub(super) struct Takeover {
    listeners: Arc<ListenerSet>,
    prepared: Mutex<Option<Prepared>>,
    begun: watch::Sender<bool>,
}

impl Takeover {
    pub(super) fn new(listeners: Arc<ListenerSet>, prepared: Prepared) -> Arc<Self> {
        Arc::new(Self { listeners, prepared: Mutex::new(Some(prepared)), begun: watch::Sender::new(false) })
    }

    /// Becomes true when clients are served.
    pub(super) fn begun(&self) -> watch::Receiver<bool> {
        self.begun.subscribe()
    }

    /// Whether clients are served.
    pub(super) fn has_begun(&self) -> bool {
        *self.begun.borrow()
    }

    /// Serves clients from now on. A second call changes nothing.
    pub(super) fn begin(&self) {
        let prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(prepared) = prepared else { return };
        super::announce(&self.listeners.take(prepared));
        self.begun.send_replace(true);
    }

    /// Begins by itself if the process that is to say when ends before it has.
    pub(super) fn begin_without_parent(self: &Arc<Self>) {
        let (this, parent) = (Arc::clone(self), parent_id());
        std::thread::spawn(move || {
            while !this.has_begun() {
                if parent_id() != parent {
                    warn!("upgrade: the process that this one was to replace has ended");
                    this.begin();
                }
                sleep(STEP);
            }
        });
    }
}
