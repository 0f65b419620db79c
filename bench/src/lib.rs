//! Pulls of the same images over one or two routes, timed phase by phase, and the report about them.
//!
//! It is a client and depends on neither the proxy nor pingora. The program that runs it hands over what needs its own
//! configuration: the routes, TLS settings, the look-up of names, and a [`SignIn`] for direct pulls.
//!
//! ```text
//! flags -> options     command-line texts become values: image, platform, plan, output
//! run                  the order of a run: preflight, levels, report
//!   load               when pulls start: closed and open loop; the order within a pair is random
//!     pull             one pull, in an engine's order of requests: sign-in, manifest, blobs
//!       digest         whether content is what its digest says
//!       client         HTTP over connections that are timed apart from their requests; origin: scheme, host, port
//!     meter, failure   what a pull measured, and why it failed
//!   tally              what all pulls measured: record, by side and phase; pairs, the difference pull by pull
//!   progress           the bar on a terminal
//! report               table, HTML page, JSON and plots
//!   svg                the one place that draws; examples/figures draws those of benches/ with it
//! delay                a forwarder that adds a round-trip time, for runs against an emulator
//! ```

mod client;
mod delay;
mod digest;
mod digits;
mod failure;
mod flags;
mod image;
mod load;
mod meter;
mod options;
mod origin;
mod output;
mod pairs;
mod phase;
mod plan;
mod progress;
mod pull;
mod record;
mod report;
mod route;
mod run;
mod svg;
mod tally;

pub use client::{Connector, Exchange, Io, Lookup, Opening, Pool, Tunnels};
pub use delay::DelayLine;
pub use digits::digits;
pub use failure::Failure;
pub use flags::Flags;
pub use image::Image;
pub use options::{Options, parse_flag, parse_time};
pub use origin::Origin;
pub use pull::{Job, Layers, Login, Order, SignIn, Size, inspect};
pub use route::{Route, Side};
pub use run::{Invocation, Subject, run};
pub use svg::{Colour, Drawing};
