//! `check`: which settings, and whether the way to the registries is tried.

use std::path::PathBuf;

use clap::Args;
use oci::image::Image;

use super::exit::{Exit, expect_root, mistake};
use super::serve::{self, HOST_SETTINGS};
use super::taken::TakenFlags;
use crate::check::Options;
use crate::config::Flags;

pub(super) fn examples() -> String {
    format!("\
Examples:
  acr-cache-proxy check
      All mistakes in the settings and in the files that they name, as a start of the proxy would find them.
  acr-cache-proxy check --online
      Also the way to each registry, hop by hop: name, connection, certificate, sign-in, tokens, a manifest, a blob.
  acr-cache-proxy check --online --image grafana/loki:3.0.0
      The same with an image that the cache rule covers.

The proxy may run meanwhile. Each registry is asked for a few objects, and imports an image of a few KiB if it does not have it.

{HOST_SETTINGS}

Unless the environment says who signs in (AZURE_CLIENT_ID and the like), the variables of the sign-in are those of the file environment
beside the configuration, as for the service, and what the environment has in their place is left out; lines say so.

Exit status: 0 if all is well or there are warnings only, 1 if a hop fails, 2 for a mistake in the settings or a flag.")
}

/// The flags of `check`.
#[derive(Args)]
pub(super) struct CheckFlags {
    /// Also try the way to each registry and its storage, signed in as the proxy is
    #[arg(long)]
    online: bool,
    /// Write the report as JSON
    #[arg(long)]
    json: bool,
    /// An image to ask for, in place of a small one that the route's source is known to have; may be repeated
    #[arg(long = "image", value_name = "IMAGE")]
    images: Vec<String>,
    /// The directory below which the host's settings are, such as the tree of an image; files that they name are of this host [default: /]
    #[arg(long, value_name = "DIR", default_value = "/", hide_default_value = true)]
    root: PathBuf,
    #[command(flatten)]
    taken: TakenFlags,
    #[command(flatten)]
    serve: serve::ServeFlags,
}

/// What to check, and by which flags the settings are read.
pub(super) fn parse(flags: CheckFlags) -> Result<(Options, Flags), Exit> {
    let CheckFlags { online, json, images, root, taken, mut serve } = flags;
    if !images.is_empty() && !online {
        return Err(mistake("--image is asked for with --online: set both"));
    }
    let images: Vec<_> = images.iter().map(|text| Image::parse(text)).collect();
    let wrong: Vec<_> =
        images.iter().filter_map(|image| image.as_ref().err()).map(|wrong| format!("--image: {wrong}")).collect();
    if !wrong.is_empty() {
        return Err(mistake(&wrong.join("\n")));
    }
    let images = images.into_iter().flatten().collect();
    expect_root(&root)?;
    serve.or_host(&root)?;
    let file = serve.file();
    let (flags, warnings) = serve::settings(serve);
    let given = flags.of_host().map(|(flag, text)| (flag, text.to_owned())).collect();
    Ok((Options { file, given, root, taken: taken.parse(), online, json, images, warnings }, flags))
}
