//! A program that is started with all that it starts, and ends with it.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Child;

/// Those that run. The end of this process drops no future that has one.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// The process group of a child that leads one; killed when this is dropped before the child has ended.
pub(crate) struct ProcessGroup(Option<i32>);

impl ProcessGroup {
    /// Of a child that was started with `process_group(0)`.
    pub(crate) fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        running().extend(id);
        Self(id)
    }

    /// The child has ended by itself. What it has left behind may go on, and its number may be another's soon.
    pub(crate) fn has_ended(&mut self) {
        if let Some(id) = self.0.take() {
            running().remove(&id);
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            running().remove(&id);
            kill(id);
        }
    }
}

/// To be called before this process ends.
pub(crate) fn end_all() {
    for id in std::mem::take(&mut *running()) {
        kill(id);
    }
}

fn kill(id: i32) {
    // It may have ended by itself.
    let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
}

/// Nothing panics while it holds the lock.
fn running() -> MutexGuard<'static, BTreeSet<i32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}
