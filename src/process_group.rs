//! A program that is started with all that it starts, and ends with it.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Child;

/// The process group of a child that leads one; killed when this is dropped before the child has ended.
pub(crate) struct ProcessGroup(Option<i32>);

impl ProcessGroup {
    /// Of a child that was started with `process_group(0)`.
    pub(crate) fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()))
    }

    /// The child has ended by itself. What it has left behind may go on, and its number may be another's soon.
    pub(crate) fn has_ended(&mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            // It may have ended by itself.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}
