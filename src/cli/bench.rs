//! `bench`: its flags are parsed by the benchmark itself.

pub(super) use crate::bench::flags::Flags as BenchFlags;
use crate::bench::options::Options;

use super::exit::{Exit, mistake};

pub(super) const EXAMPLES: &str = "\
Examples:
  acr-cache-proxy bench --image library/nginx:1.27 --via http://127.0.0.1:8080 --direct example.azurecr.io/hub
      50 pulls through the proxy and 50 direct ones, in turns.
  acr-cache-proxy bench ... --concurrency 1,8,64 --cold --warm --html report.html
      Six loads one after the other, with and without kept connections, and plots.
  acr-cache-proxy bench ... --rate 20 --duration 1m --layers head
      20 pulls a second begin on each side whatever happens; a pull that has to wait counts its wait.
  acr-cache-proxy bench --emulated --rtt 20ms
      The same without Azure: stand-in, proxy and distance are built in.

A direct pull does what docker does: GET /v2/, the token that the challenge asks for by the registry's refresh token,
HEAD of the tag, index, manifest and config by digest, layers by three at a time, redirects followed to blob storage.
A pull through the proxy does the same without any credentials. Content is checked by its digest and thrown away.

Phases do not overlap: a request counts from when its connection stands, and connecting is a phase of its own. Each
image is pulled once on each side, without its layers, before the run. Ctrl-C or SIGTERM ends the run and prints what
there is. Exit status: 0 with a report; 1 if the run cannot begin, the report cannot be written or no pull of a side
succeeds; 2 for a wrong flag, or a report that could not be written where it says.";

/// What to measure. The error has all mistakes.
pub(super) fn parse(arguments: BenchFlags) -> Result<Options, Exit> {
    Options::parse(arguments).map_err(|mistakes| mistake(&mistakes.join("\n")))
}
