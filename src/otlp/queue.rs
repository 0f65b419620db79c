//! The spans that wait to be exported, and the thread that exports them. It is none of Pingora's: it goes on until the last
//! request of a drain is over.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use log::{info, warn};
use tokio::sync::{mpsc, watch};

use super::collector::Collector;
use super::export::Exporter;
use super::message::Resource;
use super::sampler::Sampler;
use super::settings::Settings;
use super::span::Span;
use crate::metrics::spans::{SpanMeter, SpanResult};
use crate::net::egress::Egress;
use crate::net::trust::TrustRoots;

/// How long the end of the process waits for the last spans to be taken. A collector nearby needs milliseconds, and what ends the
/// process gives it a few seconds more than the drain.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Takes the spans of requests. Neither waits nor takes a lock.
pub(crate) struct Spans {
    queue: mpsc::Sender<Span>,
    sampler: Sampler,
    meter: Arc<SpanMeter>,
    closing: watch::Sender<bool>,
    /// Disconnected when the thread has ended.
    ended: Mutex<Receiver<()>>,
}

impl Spans {
    /// Starts the thread. `egress` gives the proxy on the way to the collector, which a reload may change. Does no network I/O.
    pub(crate) fn start(
        settings: Settings,
        roots: &TrustRoots,
        egress: impl Fn() -> Arc<Egress> + Send + 'static,
        meter: &Arc<SpanMeter>,
    ) -> io::Result<Self> {
        let (queue, spans) = mpsc::channel(settings.queue);
        let (closing, is_closing) = watch::channel(false);
        let (alive, ended) = channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let sampler = settings.sampler;
        let collector = Collector::new(&settings, roots.clone(), egress);
        info!("otlp {}: spans of requests are exported", collector.name());
        let exporter = Exporter {
            spans,
            closing: is_closing,
            collector,
            resource: Resource::new(&settings.resource),
            meter: Arc::clone(meter),
            batch: settings.batch,
            delay: settings.delay,
            timeout: settings.timeout,
        };
        std::thread::Builder::new().name("spans".to_owned()).spawn(move || {
            let _alive = alive;
            runtime.block_on(exporter.run());
            // A look-up that hangs is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self { queue, sampler, meter: Arc::clone(meter), closing, ended: Mutex::new(ended) })
    }

    /// Whether a request of this trace has a span; `parent` is the flag of the client's, if it has one.
    pub(crate) fn takes(&self, trace: u128, parent: Option<bool>) -> bool {
        self.sampler.takes(trace, parent)
    }

    /// The request is over. Where there is no room its span is dropped, and counted.
    pub(crate) fn push(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.meter.add(SpanResult::QueueFull);
        }
    }

    /// The process ends: returns when all spans are exported, or after [`FLUSH_LIMIT`].
    pub(crate) fn flush(&self) {
        self.closing.send_replace(true);
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(FLUSH_LIMIT) == Err(RecvTimeoutError::Timeout) {
            warn!(
                "otlp: the last spans are dropped: the collector has not taken them within {} s",
                FLUSH_LIMIT.as_secs()
            );
        }
    }
}
