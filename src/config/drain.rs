//! How the process ends after a signal.

use std::time::Duration;

use super::mistake::Mistakes;
use super::setting::{DRAIN, DrainTable};

/// `drain` of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drain {
    /// For so long everything is served as before, so that a balancer can learn that this instance is not ready any more.
    pub notice: Duration,
    /// After the notice, what is under way has so long to finish.
    pub timeout: Duration,
}

impl Drain {
    /// `None` only with a mistake.
    pub(super) fn parse(table: Option<DrainTable>, mistakes: &mut Mistakes) -> Option<Self> {
        let DrainTable { place: _, is_flawed: _, notice, timeout } = table.unwrap_or_default();
        let notice = DRAIN.notice.parse_or_default([notice], mistakes);
        let timeout = DRAIN.timeout.parse_or_default([timeout], mistakes);
        Some(Self { notice: notice?, timeout: timeout? })
    }
}
