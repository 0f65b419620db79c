//! Starts the real program in front of the emulator, for tests.
//!
//! The system picks all ports. A proxy is ready when it sends `READY=1` to its notify socket, as it does under systemd.
//!
//! - `setup`: what a proxy is started with
//! - `process`: the running proxy: its address, log, signals and memory
//! - `certificates`: CAs, servers and clients of TLS
//! - `log`: the log as it grows
//! - `pulls`: many hosts that pull one image
//! - `collector`: a collector of OpenTelemetry, with the feature of that name
//! - `forward`: a forward proxy between the proxy and the emulator
//! - `server`: what both have in common
//! - `wire`: requests as they go over a connection, byte for byte

use std::time::Duration;

use acr_emulator::{Emulator, Image, Options, Recorded};

pub mod certificates;
#[cfg(feature = "collector")]
pub mod collector;
pub mod forward;
mod log;
mod process;
mod program;
pub mod pulls;
mod server;
mod setup;
pub mod wire;

pub use process::Proxy;
pub use setup::{ASKING, Setup};

/// Limit of every wait. Nothing takes as long, even on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Separates an immediate result, which comes sooner even on a loaded machine, from one after a time limit of the proxy
/// (25 s or 30 s).
pub const AT_ONCE: Duration = Duration::from_secs(15);

/// The tenant of the identity that the emulators know.
pub const TENANT: &str = "72f988bf-0000-4000-8000-2d7cd011db47";
/// That identity's client id.
pub const CLIENT: &str = "11111111-2222-4333-8444-555555555555";
/// That identity's secret.
pub const SECRET: &str = "correct~horse.battery-staple";

/// Emulator options with the tests' identity.
pub fn options() -> Options {
    Options {
        clients: vec![acr_emulator::Client {
            tenant: TENANT.to_owned(),
            client_id: CLIENT.to_owned(),
            secret: Some(SECRET.to_owned()),
            ..acr_emulator::Client::default()
        }],
        ..Options::default()
    }
}

/// The first line of a log that contains all of these.
pub fn line<'a>(log: &'a str, parts: &[&str]) -> Option<&'a str> {
    log.lines().find(|line| parts.iter().all(|part| line.contains(part)))
}

/// An emulator that holds `hub/library/busybox:latest`.
pub async fn azure() -> Emulator {
    let azure = Emulator::start(options()).await.expect("the emulator starts");
    azure.push(Image::small("hub/library/busybox", "latest"));
    azure
}

/// Waits until the emulator's records meet the condition; the panic names `what` if they never do.
pub async fn wait_for(azure: &Emulator, what: &str, condition: impl Fn(&[Recorded]) -> bool) {
    let waited = tokio::time::timeout(PATIENCE, azure.wait_for(condition)).await;
    assert!(waited.is_ok(), "{what} never came: {:?}", azure.requests());
}
