//! `doctor`: which settings, and where the host is.

use std::path::PathBuf;

use clap::Args;
use oci::image::Image;

use super::exit::{Exit, expect_root, mistake};
use super::mirror::MirrorFlag;
use super::serve::{self, HOST_SETTINGS};
use crate::config::Flags;
use crate::doctor::Options;

pub(super) fn examples() -> String {
    format!("\
Examples:
  acr-cache-proxy doctor
      Whether the proxy of /etc/acr-cache-proxy/config.yaml runs, and whether dockerd, containerd, podman, CRI-O, BuildKit, k3s and
      RKE2 of this host pull through it. Each finding has a line that says what to do.
  acr-cache-proxy doctor --fix
      Also writes what client-config would write where that puts a finding right, if the proxy runs. It restarts nothing.
  acr-cache-proxy doctor --pull
      Also has each engine that runs pull a small image, and looks whether the proxy was asked.
  acr-cache-proxy doctor --json
      The same for programs.

Without --fix and --pull nothing is changed. Run it as root: other users may not ask dockerd and containerd what they have loaded.

{HOST_SETTINGS}

Exit status: 0 if nothing is wrong, 1 with findings, 2 for a wrong flag.")
}

/// An image of a few KiB that is on Docker Hub.
const SMALL: &str = "docker.io/library/hello-world:latest";

/// The flags of `doctor`.
#[derive(Args)]
pub(super) struct DoctorFlags {
    /// Write the report as JSON
    #[arg(long)]
    json: bool,
    /// Write what client-config would where that puts a finding right; files of somebody else are added to, and a copy is kept
    #[arg(long, conflicts_with = "json")]
    fix: bool,
    /// Have each engine that runs pull this image, and look whether the proxy was asked
    #[arg(long, value_name = "IMAGE", num_args = 0..=1, default_missing_value = SMALL)]
    pull: Option<String>,
    #[command(flatten)]
    mirror: MirrorFlag,
    /// The directory below which the host's files are, such as the tree of an image [default: /]
    #[arg(long, value_name = "DIR", default_value = "/", hide_default_value = true)]
    root: PathBuf,
    #[command(flatten)]
    serve: serve::ServeFlags,
}

/// What to look at, and by which flags the settings are read.
pub(super) fn parse(flags: DoctorFlags) -> Result<(Options, Flags), Exit> {
    let DoctorFlags { json, fix, pull, mirror, root, mut serve } = flags;
    let mirror = mirror.parse()?;
    expect_root(&root)?;
    let pull =
        pull.map(|image| Image::parse(&image).map_err(|wrong| mistake(&format!("--pull: {wrong}")))).transpose()?;
    serve.or_host(&root)?;
    let file = serve.file();
    let flags = serve::settings_of_host(serve);
    let given = flags.of_host().map(|(flag, text)| (flag, text.to_owned())).collect();
    Ok((Options { file, given, mirror, json, fix, pull, root }, flags))
}
