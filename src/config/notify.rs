//! `notify` of the file: who is told of a fault that lasts.

use std::time::Duration;

use super::mistake::Mistakes;
use super::setting::{NOTIFY, NotifyTable};

/// A command that is run when a fault lasts, and when it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notify {
    /// The program and its arguments; empty is none.
    pub command: Vec<String>,
    /// A fault lasts when it is older.
    pub after: Duration,
}

impl Notify {
    /// `None` only with a mistake.
    pub(super) fn parse(table: Option<NotifyTable>, mistakes: &mut Mistakes) -> Option<Self> {
        let NotifyTable { place: _, is_flawed: _, command, after } = table.unwrap_or_default();
        let command = NOTIFY.command.parse(command, mistakes);
        let after = NOTIFY.after.parse_or_default([after], mistakes);
        Some(Self { command, after: after? })
    }
}
