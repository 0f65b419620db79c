//! `doctor`: which settings, and where the host is.

use std::path::PathBuf;

use clap::Args;

use super::exit::{Exit, mistake};
use super::serve;
use crate::client_config::Mirror;
use crate::config::Flags;
use crate::doctor::Options;

pub(super) const EXAMPLES: &str = "\
Examples:
  acr-cache-proxy doctor
      Whether the proxy of /etc/acr-cache-proxy/config.yaml runs, and whether dockerd, containerd, podman, CRI-O, BuildKit, k3s and
      RKE2 of this host pull through it. Each finding has a line that says what to do.
  acr-cache-proxy doctor --json --config /etc/acr-cache-proxy/config.yaml
      The same for programs.

Nothing is changed. Run it as root: other users may not ask dockerd and containerd what they have loaded.

Exit status: 0 if nothing is wrong, 1 with findings, 2 for a wrong flag.";

/// The settings of the package, which count where no other file is named.
const CONFIG: &str = "/etc/acr-cache-proxy/config.yaml";

/// The flags of `doctor`.
#[derive(Args)]
pub(super) struct DoctorFlags {
    /// Write the report as JSON
    #[arg(long)]
    json: bool,
    // As an attribute: rustdoc would take the brackets for a link.
    #[arg(
        long,
        value_name = "URL",
        help = "Where clients reach the proxy, as http://HOST[:PORT] or https:// [default: where it listens]"
    )]
    mirror: Option<String>,
    /// The directory below which the host's files are
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
    #[command(flatten)]
    serve: serve::ServeFlags,
}

/// What to look at, and by which flags the settings are read.
pub(super) fn parse(flags: DoctorFlags) -> Result<(Options, Flags), Exit> {
    let DoctorFlags { json, mirror, root, mut serve } = flags;
    let mirror =
        mirror.map(|url| Mirror::parse(&url).map_err(|wrong| mistake(&format!("--mirror: {wrong}")))).transpose()?;
    if let Err(cause) = root.read_dir() {
        return Err(mistake(&format!("--root {}: {cause}: name a directory that is there", root.display())));
    }
    serve.or_file(&root.join(CONFIG.trim_start_matches('/')));
    let file = serve.file();
    let (flags, _) = serve::settings(serve);
    Ok((Options { file, mirror, json, root }, flags))
}
