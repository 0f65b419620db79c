//! From when on clients are served: at once, or, of a process that takes another's place, when that one says so. And until when:
//! whether there is a process that is to take this one's.

use std::os::unix::process::parent_id;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use log::warn;
use tokio::sync::watch;

use crate::listen::set::{ListenerSet, Prepared};
use crate::load::Load;

/// How often the new process looks whether the old one is still there.
const STEP: Duration = Duration::from_millis(100);

/// The listeners that are bound and not served yet.
pub(super) struct Takeover {
    listeners: Arc<ListenerSet>,
    prepared: Mutex<Option<Prepared>>,
    load: Arc<Load>,
    begun: watch::Sender<bool>,
    has_successor: AtomicBool,
}

impl Takeover {
    pub(super) fn new(listeners: Arc<ListenerSet>, prepared: Prepared, load: Arc<Load>) -> Arc<Self> {
        let (prepared, begun) = (Mutex::new(Some(prepared)), watch::Sender::new(false));
        Arc::new(Self { listeners, prepared, load, begun, has_successor: AtomicBool::new(false) })
    }

    /// Becomes true when clients are served.
    pub(super) fn begun(&self) -> watch::Receiver<bool> {
        self.begun.subscribe()
    }

    /// Whether clients are served.
    pub(super) fn has_begun(&self) -> bool {
        *self.begun.borrow()
    }

    /// Whether a process gets ready to take this one's place, or has taken it. It has read its settings, so new ones that this
    /// process took would be lost.
    pub(super) fn has_successor(&self) -> bool {
        self.has_successor.load(Ordering::Acquire)
    }

    /// Has one while `replace` runs, and from then on if that succeeds.
    pub(super) fn succeed<E>(&self, replace: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        self.has_successor.store(true, Ordering::Release);
        let outcome = replace();
        self.has_successor.store(outcome.is_ok(), Ordering::Release);
        outcome
    }

    /// Serves clients from now on. A second call changes nothing.
    pub(super) fn begin(&self) {
        let prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(prepared) = prepared else { return };
        super::announce::listeners(&self.listeners.take(prepared), &self.load.gate);
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
