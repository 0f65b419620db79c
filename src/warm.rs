//! `warm`: asks a running proxy for images before a fleet does, so that the registry imports them and the proxy has what a
//! roll-out asks for first.
//!
//! It is a client like any engine: it asks the proxy in an engine's order, without credentials, and keeps nothing.

use std::collections::HashSet;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oci::image::Image;
use oci::manifest::{Entry, for_platform_and_indexes};
use oci::platform::Platform;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client_tls::Presented;
use crate::logger;
use crate::net::client::CONNECT_LIMIT;

mod client;
mod content;
mod failure;
mod image;
mod report;

use client::{Client, REQUEST_LIMIT};
use failure::Failure;
use image::Warmed;
use report::Report;

/// Images under way at a time. With [`image::LAYERS_AT_ONCE`] it bounds the requests of a run at twelve, which is far from
/// the limits of a registry and of the proxy, and enough to wait for several imports at the same time.
const IMAGES_AT_ONCE: usize = 4;
/// The exit status of a run in which an image failed, or that found no proxy.
const FAILED: u8 = 1;
/// The exit status of a run that a signal ended is this and the signal's number, as a shell has it.
const SIGNALLED: u8 = 128;
/// A proxy answers its first request at once. Whoever waits longer is told so.
const SILENCE: Duration = Duration::from_secs(3);

/// What to warm, and by which proxy.
#[derive(Debug)]
pub(crate) struct Options {
    /// Each once, in the order in which they are named; never empty.
    pub images: Vec<Image>,
    /// Which manifests of an index.
    pub platforms: Platforms,
    /// How layers are touched.
    pub layers: Layers,
    /// The tags by which clients find signatures are asked for as well.
    pub signatures: bool,
    /// The proxy: scheme, host and port, without a path.
    pub via: String,
    /// A PEM file of private CA certificates, trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// What is presented to the proxy, if it asks for a certificate.
    pub presented: Option<Presented>,
}

/// Which manifests of an index are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Platforms {
    /// Every one.
    All,
    /// Those of these platforms; an index has to have each of them.
    Some(Vec<Platform>),
}

impl Platforms {
    /// Those that have to be there.
    fn listed(&self) -> Option<&[Platform]> {
        match self {
            Self::All => None,
            Self::Some(platforms) => Some(platforms),
        }
    }

    /// Which of these are asked for, platform by platform.
    fn wanted(&self, entries: &[Entry]) -> Vec<String> {
        let wanted: Vec<_> = match self {
            Self::All => entries.iter().collect(),
            Self::Some(platforms) => {
                let of_all = platforms.iter().flat_map(|platform| for_platform_and_indexes(entries, platform));
                of_all.collect()
            }
        };
        wanted.into_iter().map(|entry| entry.digest.clone()).collect()
    }
}

/// What is asked for of layers. Whatever is redirected to storage is followed by [`Layers::FirstByte`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layers {
    /// Nothing.
    None,
    /// HEAD, which goes no further than the registry.
    Head,
    /// GET, as an engine sends it, and of the content one byte.
    FirstByte,
}

/// Warms all of them. The error has the exit status, and says how many images failed or are left, or why none could be tried; each
/// failure has its own line on standard error by then.
pub(crate) fn run(options: &Options) -> Result<(), (u8, String)> {
    let failed = |why: String| (FAILED, why);
    let client = Client::new(options).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|cause| failed(format!("warm: no runtime: {cause}")))?;
    let outcome = runtime.block_on(all(options, client));
    // A look-up that hangs is not waited for.
    runtime.shutdown_background();
    outcome
}

/// The signals that end a run.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, String> {
        let listen = |kind| signal(kind).map_err(|cause| format!("warm: signals: {cause}"));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for one, and gives the exit status that follows from it.
    async fn next(&mut self) -> u8 {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        };
        SIGNALLED + u8::try_from(kind.as_raw_value()).unwrap_or_default()
    }
}

/// Whether there is a proxy that lets this host pull.
async fn find_proxy(client: &Client) -> Result<(), Failure> {
    let mut found = pin!(client.find_proxy());
    if let Ok(found) = timeout(SILENCE, &mut found).await {
        return found;
    }
    let (connection, answer) = (CONNECT_LIMIT.as_secs(), REQUEST_LIMIT.as_secs());
    logger::complain(&format!(
        "warm: the proxy has not answered yet: a connection is waited for {connection} s at most, an answer {answer} s"
    ));
    found.await
}

async fn all(options: &Options, client: Client) -> Result<(), (u8, String)> {
    let failed = |why: String| (FAILED, why);
    let mut signals = Signals::new().map_err(failed)?;
    let report = Report::new(options.images.len());
    tokio::select! {
        found = find_proxy(&client) => found.map_err(|failure| failed(format!("warm: {failure}")))?,
        status = signals.next() => return Err((status, report.stopped())),
    }
    let run = Arc::new(Run {
        images: options.images.clone(),
        next: AtomicUsize::new(0),
        platforms: options.platforms.clone(),
        layers: options.layers,
        signatures: options.signatures,
        client,
        touched: Mutex::default(),
        report,
    });
    let mut lanes = JoinSet::new();
    for _ in 0..IMAGES_AT_ONCE.min(run.images.len()) {
        lanes.spawn(Arc::clone(&run).lane());
    }
    let shown = tokio::spawn(report::show(Arc::clone(&run)));
    let ended = async {
        while let Some(ended) = lanes.join_next().await {
            ended.map_err(|crash| failed(format!("warm: this program failed: {crash}")))?;
        }
        Ok(())
    };
    let signalled = tokio::select! {
        ended = ended => ended.map(|()| None)?,
        status = signals.next() => Some(status),
    };
    shown.abort();
    let _ = shown.await;
    match signalled {
        Some(status) => {
            lanes.shutdown().await;
            Err((status, run.report.stopped()))
        }
        None => run.report.sum_up(&run).map_err(failed),
    }
}

/// A run under way.
struct Run {
    images: Vec<Image>,
    /// The first image that nobody has begun.
    next: AtomicUsize,
    platforms: Platforms,
    layers: Layers,
    signatures: bool,
    client: Client,
    /// Layers that went well, by their path: images of one repository share them.
    touched: Mutex<HashSet<String>>,
    report: Report,
}

impl Run {
    /// Warms one image after the other until there is none left, or nothing is answered any more.
    async fn lane(self: Arc<Self>) {
        while !self.client.is_stalled()
            && let Some(image) = self.images.get(self.next.fetch_add(1, Ordering::Relaxed))
        {
            let mut warmed = Warmed::default();
            let outcome = self.warm(image, &mut warmed).await;
            self.report.ended(image, &warmed, outcome.err());
        }
    }

    /// Whether a layer still has to be touched.
    fn is_new(&self, path: &str) -> bool {
        !self.touched.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
    }

    fn touched(&self, path: String) {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).insert(path);
    }
}
