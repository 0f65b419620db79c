//! The flags of a run as texts; [`crate::options`] parses them.

use std::path::PathBuf;

/// The flags of a run, not yet parsed. The program adds those that name the two sides.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Flags {
    /// An image such as library/nginx:1.27 or library/nginx@sha256:..., may be repeated
    #[arg(long = "image", value_name = "IMAGE")]
    pub images: Vec<String>,
    /// A file of images, one a line, each with a weight in front if they are not equal: 3 library/nginx:1.27
    #[arg(long, value_name = "FILE")]
    pub mix: Option<PathBuf>,
    /// Which manifest of an index [default: linux/amd64]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,
    /// Pulls under way at once on each side; a list runs one after the other, as 1,8,64 [default: 1, with --rate 256]
    #[arg(long, value_name = "N[,N...]")]
    pub concurrency: Option<String>,
    /// Open loop: so many pulls a second on each side, whether or not earlier ones are done; a pull's time counts from
    /// its place in the schedule
    #[arg(long, value_name = "PULLS", allow_negative_numbers = true)]
    pub rate: Option<String>,
    /// Pulls on each side [default: 50, with --duration any number]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub pulls: Option<String>,
    /// No new pulls after this time, such as 30s or 5m
    #[arg(long, value_name = "TIME")]
    pub duration: Option<String>,
    /// A new connection for each request, as dockerd makes it (Connection: close); this is the default
    #[arg(long)]
    pub cold: bool,
    /// New connections each pull, kept within it, and containerd's order of requests
    #[arg(long)]
    pub per_pull: bool,
    /// Connections are kept from pull to pull. Each of --cold, --per-pull and --warm that is given is a run of its own
    #[arg(long)]
    pub warm: bool,
    /// What is asked for of layers: none, head (where they are, and HEAD there) or full [default: full]
    #[arg(long, value_name = "HOW")]
    pub layers: Option<String>,
    /// Write the report as JSON; - is standard output, in place of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw the plots; - is standard output, in place of the table
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Write the report as a page, with the plots; - is standard output, in place of the table
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}
