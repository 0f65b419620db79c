//! The exporter in front of a collector that does what a test wants, in paused time.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::SystemTime;

use super::*;
use crate::otlp::span::Ids;

const BATCH: usize = 4;
const DELAY: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone)]
enum Does {
    Takes,
    Rejects(u64),
    Later(Option<u64>),
    Never,
    Hangs,
}

/// Each batch that came, with when it came and how many spans it had.
type Seen = Arc<Mutex<Vec<(Duration, usize)>>>;

struct Script {
    began: Instant,
    steps: VecDeque<Does>,
    seen: Seen,
}

impl Collect for Script {
    fn name(&self) -> String {
        "http://collector/v1/traces".to_owned()
    }

    async fn send(&mut self, body: Bytes) -> Result<Taken, NotTaken> {
        let request = ExportTraceServiceRequest::decode(body).expect("what was encoded");
        self.seen.lock().expect("one thread").push((self.began.elapsed(), request.count()));
        match self.steps.pop_front().unwrap_or(Does::Takes) {
            Does::Takes => Ok(Taken::default()),
            Does::Rejects(rejected) => Ok(Taken { rejected, message: "too old".to_owned() }),
            Does::Later(after) => Err(NotTaken::Now("503".to_owned(), after.map(Duration::from_secs))),
            Does::Never => Err(NotTaken::Never("400".to_owned())),
            Does::Hangs => std::future::pending().await,
        }
    }
}

struct Running {
    queue: mpsc::Sender<Span>,
    closing: watch::Sender<bool>,
    meter: Arc<SpanMeter>,
    seen: Seen,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn new(steps: &[Does]) -> Self {
        let (queue, spans) = mpsc::channel(16);
        let (closing, is_closing) = watch::channel(false);
        let (meter, seen) = (Arc::<SpanMeter>::default(), Seen::default());
        let steps = steps.iter().cloned().collect();
        let exporter = Exporter {
            spans,
            closing: is_closing,
            collector: Script { began: Instant::now(), steps, seen: Arc::clone(&seen) },
            resource: Resource::new(&[]),
            meter: Arc::clone(&meter),
            batch: BATCH,
            delay: DELAY,
            timeout: TIMEOUT,
        };
        Self { queue, closing, meter, seen, task: tokio::spawn(exporter.run()) }
    }

    fn push(&self, count: usize) {
        let ids = Ids { trace: 1, span: 2, parent: None, flags: 1 };
        let span = Span {
            ids,
            state: String::new(),
            name: "GET".to_owned(),
            started: SystemTime::now(),
            elapsed: Duration::ZERO,
            attributes: Vec::new(),
            error: None,
        };
        for _ in 0..count {
            if self.queue.try_send(span.clone()).is_err() {
                self.meter.add(SpanResult::QueueFull);
            }
        }
    }

    /// When batches came, in seconds, and of how many spans.
    fn seen(&self) -> Vec<(u64, usize)> {
        self.seen.lock().expect("one thread").iter().map(|(at, count)| (at.as_secs(), *count)).collect()
    }

    fn results(&self) -> [u64; 3] {
        SpanResult::ALL.map(|result| self.meter.get(result))
    }

    async fn end(self) -> (Vec<(u64, usize)>, [u64; 3]) {
        self.closing.send_replace(true);
        while !self.task.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (self.seen(), self.results())
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_goes_when_it_is_full_or_its_first_span_has_waited() {
    let running = Running::new(&[]);
    running.push(BATCH + 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(running.seen(), [(0, BATCH)]);
    running.push(1);
    tokio::time::sleep(DELAY).await;
    assert_eq!(running.seen(), [(0, BATCH), (5, 2)]);
    assert_eq!(running.end().await, (vec![(0, BATCH), (5, 2)], [6, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn at_the_end_all_that_waits_goes_at_once() {
    let running = Running::new(&[]);
    running.push(2 * BATCH + 3);
    let (seen, results) = running.end().await;
    assert_eq!(seen, [(0, BATCH), (0, BATCH), (0, 3)]);
    assert_eq!(results, [11, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_may_be_taken_later_is_sent_again_within_the_time_of_the_batch() {
    let running = Running::new(&[Does::Later(None), Does::Later(Some(3)), Does::Takes]);
    running.push(BATCH);
    tokio::time::sleep(TIMEOUT).await;
    let seen = running.seen();
    assert!(matches!(seen[..], [(0, BATCH), (0, BATCH), (3, BATCH)]), "{seen:?}");
    assert_eq!(running.results(), [4, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn no_batch_holds_up_the_next_one_for_longer_than_its_time() {
    let pause_is_too_long = Does::Later(Some(60));
    for (step, next_at) in [(Does::Hangs, 10), (pause_is_too_long, 0), (Does::Never, 0)] {
        let running = Running::new(&[step]);
        running.push(2 * BATCH);
        tokio::time::sleep(TIMEOUT + Duration::from_secs(1)).await;
        assert_eq!(running.seen(), [(0, BATCH), (next_at, BATCH)]);
        assert_eq!(running.results(), [4, 0, 4], "the first is lost and counted, the second taken");
    }
    let running = Running::new(&vec![Does::Later(None); 100]);
    running.push(2 * BATCH);
    tokio::time::sleep(2 * TIMEOUT).await;
    let attempts = running.seen().len();
    assert!((8..=16).contains(&attempts), "pauses grow: {attempts} attempts");
    assert_eq!(running.results(), [0, 0, 8]);
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_asks_for_a_pause_without_end_costs_one_batch() {
    let running = Running::new(&[Does::Later(Some(u64::MAX))]);
    running.push(2 * BATCH);
    tokio::time::sleep(TIMEOUT).await;
    assert_eq!(running.seen(), [(0, BATCH), (0, BATCH)]);
    assert_eq!(running.results(), [4, 0, 4]);
}

#[tokio::test(start_paused = true)]
async fn what_has_no_room_and_what_is_refused_is_counted() {
    let running = Running::new(&[Does::Rejects(3), Does::Rejects(u64::MAX)]);
    running.push(20);
    let (seen, results) = running.end().await;
    // The queue has 16 places.
    assert_eq!(seen.iter().map(|(_, count)| count).sum::<usize>(), 16);
    assert_eq!(results, [9, 4, 7]);
}

#[test]
fn the_log_says_when_losses_begin_and_when_they_end_and_nothing_between() {
    let meter = SpanMeter::default();
    let mut losses = Losses::default();
    let mut note = |outcome: Result<(), &str>, full, not_taken| {
        meter.add_many(SpanResult::QueueFull, full);
        meter.add_many(SpanResult::NotTaken, not_taken);
        losses.line(outcome.map_err(str::to_owned), &meter)
    };
    assert_eq!(note(Ok(()), 0, 0), None);
    assert_eq!(note(Err("503"), 0, 4), Some(Change::Begins("503".to_owned())));
    assert_eq!(note(Err("503"), 9, 4), None);
    assert_eq!(note(Ok(()), 0, 0), Some(Change::Ends(17, 0)));
    assert_eq!(note(Ok(()), 0, 0), None);
    assert!(matches!(note(Ok(()), 1, 0), Some(Change::Begins(why)) if why.contains("OTEL_BSP_MAX_QUEUE_SIZE")));
    assert_eq!(note(Ok(()), 1, 0), None, "it is still too slow");
    assert_eq!(note(Ok(()), 0, 0), Some(Change::Ends(2, 0)));
}
