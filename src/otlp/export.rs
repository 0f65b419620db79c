//! Batches of spans, each tried until it is taken or its time is over, and what the log says of spans that are lost: one line when
//! that begins and one when it ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use log::{info, warn};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::message::{ExportTraceServiceRequest, Resource};
use super::span::Span;
use crate::metrics::spans::{SpanMeter, SpanResult};

/// Between the first attempt and the second; twice as long before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause of our own.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Takes batches of spans.
pub(crate) trait Collect {
    /// What the log calls it.
    fn name(&self) -> String;

    /// Sends one batch.
    fn send(&mut self, body: Bytes) -> impl Future<Output = Result<Taken, NotTaken>> + Send;
}

/// The collector has taken a batch, perhaps without some spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// So many it has not taken.
    pub rejected: u64,
    /// Why not, in its words.
    pub message: String,
}

/// It has not, and why; as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// It may take it later, and perhaps says when.
    Now(String, Option<Duration>),
    /// Trying again would not help.
    Never(String),
}

/// Exports what is in the queue.
pub(crate) struct Exporter<C> {
    pub spans: mpsc::Receiver<Span>,
    /// The process ends: what is in the queue is exported at once.
    pub closing: watch::Receiver<bool>,
    pub collector: C,
    pub resource: Resource,
    pub meter: Arc<SpanMeter>,
    /// Spans of a batch at most.
    pub batch: usize,
    /// How long the first span of a batch waits for others.
    pub delay: Duration,
    /// What a batch may take, all attempts together.
    pub timeout: Duration,
}

impl<C: Collect> Exporter<C> {
    /// Runs until the process ends and the queue is empty.
    pub(crate) async fn run(mut self) {
        let mut losses = Losses::default();
        loop {
            let batch = self.gather().await;
            if batch.is_empty() {
                return;
            }
            let outcome = self.export(batch).await;
            losses.note(&self.collector.name(), outcome, &self.meter);
        }
    }

    /// The spans of the next batch; none if there are none and none will come.
    async fn gather(&mut self) -> Vec<Span> {
        let mut batch = Vec::new();
        let closing = &mut self.closing;
        tokio::select! {
            _ = self.spans.recv_many(&mut batch, self.batch) => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
        let due = Instant::now() + self.delay;
        while batch.len() < self.batch && !*closing.borrow() {
            let room = self.batch - batch.len();
            tokio::select! {
                received = self.spans.recv_many(&mut batch, room) => if received == 0 { return batch },
                () = sleep_until(due) => return batch,
                _ = closing.wait_for(|closing| *closing) => {}
            }
        }
        while batch.len() < self.batch
            && let Ok(span) = self.spans.try_recv()
        {
            batch.push(span);
        }
        batch
    }

    /// `Err` says why a batch, or a part of it, was not taken.
    async fn export(&mut self, batch: Vec<Span>) -> Result<(), String> {
        let count = batch.len() as u64;
        let body = Bytes::from(ExportTraceServiceRequest::new(&self.resource, batch).encode_to_vec());
        let outcome = self.deliver(body).await;
        let rejected = outcome.as_ref().map_or(count, |taken| taken.rejected.min(count));
        self.meter.add_many(SpanResult::Exported, count - rejected);
        self.meter.add_many(SpanResult::NotTaken, rejected);
        match outcome {
            Ok(taken) if taken.rejected > 0 => Err(format!("it has refused {rejected} of {count}: {}", taken.message)),
            Ok(_) => Ok(()),
            Err(why) => Err(why),
        }
    }

    async fn deliver(&mut self, body: Bytes) -> Result<Taken, String> {
        let until = Instant::now() + self.timeout;
        let mut pause = FIRST_PAUSE;
        loop {
            let (why, asked) = match timeout_at(until, self.collector.send(body.clone())).await {
                Ok(Ok(taken)) => return Ok(taken),
                Ok(Err(NotTaken::Never(why))) => return Err(why),
                Ok(Err(NotTaken::Now(why, asked))) => (why, asked),
                Err(_) => return Err(format!("no answer within {} ms", self.timeout.as_millis())),
            };
            // Up to a half is left to chance, so that the instances of a mirror do not come back together.
            let own = pause.mul_f64(rand::random_range(0.5..1.0));
            // What it asks for may be longer than an instant can tell.
            let next = Instant::now().checked_add(asked.unwrap_or(own).max(own)).filter(|next| *next < until);
            let Some(next) = next else { return Err(why) };
            sleep_until(next).await;
            pause = (2 * pause).min(MAX_PAUSE);
        }
    }
}

/// Whether spans are being lost.
#[derive(Default)]
struct Losses {
    /// Since when, and how many were lost before.
    since: Option<(Instant, u64)>,
    /// How many were lost for want of room when a batch ended last.
    full: u64,
    /// The same of all.
    lost: u64,
}

/// What there is to say of losses.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// Why.
    Begins(String),
    /// So many there were, in so many seconds.
    Ends(u64, u64),
}

impl Losses {
    /// A batch is over.
    fn note(&mut self, name: &str, outcome: Result<(), String>, meter: &SpanMeter) {
        match self.line(outcome, meter) {
            Some(Change::Begins(why)) => warn!("otlp {name}: spans are dropped: {why}"),
            Some(Change::Ends(count, seconds)) => {
                info!("otlp {name}: spans are taken again: {count} were dropped within {seconds} s");
            }
            None => {}
        }
    }

    fn line(&mut self, outcome: Result<(), String>, meter: &SpanMeter) -> Option<Change> {
        let full = meter.get(SpanResult::QueueFull);
        let lost = full + meter.get(SpanResult::NotTaken);
        let slow =
            || "it takes them too slowly, and there is no room for more: raise OTEL_BSP_MAX_QUEUE_SIZE".to_owned();
        let why = outcome.err().or_else(|| (full > self.full).then(slow));
        let before = std::mem::replace(&mut self.lost, lost);
        self.full = full;
        match (why, self.since) {
            (Some(why), None) => {
                self.since = Some((Instant::now(), before));
                Some(Change::Begins(why))
            }
            (None, Some((since, before))) => {
                self.since = None;
                Some(Change::Ends(lost - before, since.elapsed().as_secs()))
            }
            (Some(_), Some(_)) | (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests;
