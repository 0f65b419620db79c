//! `reload`: a running proxy reads its settings again.

use clap::Args;

use super::exit::{Exit, mistake};
use crate::service_variables::MAIN_PID;

pub(super) const AFTER: &str = "\
A proxy whose new settings have a mistake goes on with those that it has, and this prints the mistakes.

Exit status: 0 if the proxy took the settings, 1 if it did not or none runs, 2 for a wrong flag.";

/// The flags of `reload`.
#[derive(Args)]
pub(super) struct ReloadFlags {
    /// The process that is to read its settings again; MAINPID does the same [default: the only proxy that runs here]
    #[arg(long, value_name = "PID")]
    pid: Option<String>,
}

/// Which process is meant; `None` is the only one.
pub(super) fn parse(flags: ReloadFlags) -> Result<Option<u32>, Exit> {
    let variable = || std::env::var(MAIN_PID).ok().filter(|pid| !pid.is_empty()).map(|pid| (MAIN_PID, pid));
    let given = flags.pid.map(|pid| ("--pid", pid)).or_else(variable);
    let pid = |(name, text): (&str, String)| match text.parse() {
        Ok(pid @ 1..) => Ok(pid),
        _ => Err(mistake(&format!("{name}: {text:?} is not a process id: use a number"))),
    };
    given.map(pid).transpose()
}
