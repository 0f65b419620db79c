//! `--mirror`: where clients reach the proxy, of all commands that write or judge their files.

use clap::Args;

use super::exit::{Exit, mistake};
use crate::client_config::Mirror;

#[derive(Args)]
pub(super) struct MirrorFlag {
    // As an attribute: rustdoc would take the brackets for a link.
    #[arg(
        long,
        value_name = "URL",
        help = "Where clients reach the proxy, as http://HOST[:PORT] or https:// [default: where it listens]"
    )]
    mirror: Option<String>,
}

impl MirrorFlag {
    /// The address, if one is given.
    pub(super) fn parse(self) -> Result<Option<Mirror>, Exit> {
        self.mirror.map(|url| Mirror::parse(&url).map_err(|wrong| mistake(&format!("--mirror: {wrong}")))).transpose()
    }
}
