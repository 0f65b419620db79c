//! `demo`: its flags.

use std::net::SocketAddr;

use clap::Args;

use super::exit::{Exit, mistake};
use crate::config;

/// A port of its own, so that a proxy on the usual one does not keep the demo from starting.
const LISTEN: &str = "127.0.0.1:0";

/// Settings of the demo.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DemoOptions {
    /// Where its proxy listens.
    pub listen: SocketAddr,
    /// End after the pull.
    pub once: bool,
}

/// The flags of `demo`.
#[derive(Args)]
pub(super) struct DemoFlags {
    /// Where the proxy listens [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", default_value = LISTEN, hide_default_value = true)]
    listen_address: String,
    /// End after the pull, with status 0 if it went well
    #[arg(long)]
    once: bool,
}

/// The settings of the demo.
pub(super) fn parse(arguments: &DemoFlags) -> Result<DemoOptions, Exit> {
    let listen = config::parse_listen(&arguments.listen_address);
    let listen = listen.map_err(|wrong| mistake(&format!("--listen-address: {wrong}")))?;
    Ok(DemoOptions { listen, once: arguments.once })
}
