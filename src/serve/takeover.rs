//! From when on clients are served: at once, or, of a process that takes another's place, when that one says so. And until when:
//! whether there is a process that is to take this one's.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};

use log::warn;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::handover::{self, Request};
use super::standing::Standing;
use crate::listen::set::{ListenerSet, Prepared};
use crate::load::Load;
use crate::proxy::{self, Table, upstreams};

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

    /// Does what the process asks for that this one is to replace. Begins by itself if that one ends before it has asked for that.
    /// Registries are asked on the runtime `upkeep`, once that runs.
    pub(super) fn obey(self: &Arc<Self>, predecessor: UnixStream, live: &Arc<Table>, upkeep: &Arc<OnceLock<Handle>>) {
        let (this, live, upkeep) = (Arc::clone(self), Arc::clone(live), Arc::clone(upkeep));
        std::thread::spawn(move || {
            handover::answer(predecessor, |request| match request {
                Request::Unready => Standing::of(&live).without_token(),
                Request::Unreached => unreached(&live, upkeep.get()).join("\n"),
                Request::Serve => {
                    this.begin();
                    String::new()
                }
            });
            if !this.has_begun() {
                warn!("upgrade: the process that this one was to replace has ended");
                this.begin();
            }
        });
    }
}

/// The registries that this process does not reach now: all, while there is no runtime to ask on. It has to be one that goes on, because
/// look-ups of names that begin with this do, and one that breaks off counts as under way for ever.
fn unreached(table: &Arc<Table>, runtime: Option<&Handle>) -> Vec<String> {
    let all = || upstreams(table).iter().map(|upstream| upstream.domain.authority().to_owned()).collect();
    let Some(runtime) = runtime else { return all() };
    let (tell, told) = mpsc::channel();
    let asked = Arc::clone(table);
    runtime.spawn(async move { tell.send(proxy::unreached(&asked).await) });
    told.recv().unwrap_or_else(|_| all())
}
