//! A collector that is slow, gone, or does not want the spans: no request fails or waits, and what is lost is counted.

use std::time::Duration;

use testkit::AT_ONCE;
use testkit::collector::{Answers, Collector};
use tokio::time::Instant;

use crate::{count, list, traced, wait_for};

fn lines(log: &str, part: &str) -> usize {
    log.lines().filter(|line| line.contains(part)).count()
}

const BEGINS: &str = ": spans are dropped: ";
const ENDS: &str = ": spans are taken again: ";

#[tokio::test(flavor = "multi_thread")]
async fn while_the_collector_is_gone_requests_go_on_and_the_log_says_so_once() {
    let (azure, collector) = (testkit::azure().await, Collector::start().await);
    let address = collector.address();
    let proxy = traced(&azure, &collector).env("OTEL_EXPORTER_OTLP_TIMEOUT", "600").start();
    drop(collector);
    for round in 0..3 {
        for number in 0..10 {
            list(&proxy, 100 * round + number + 1, "");
        }
        wait_for(&proxy, &["not_taken"], 10 * (round as u64 + 1)).await;
    }
    assert_eq!((lines(&proxy.log(), BEGINS), lines(&proxy.log(), ENDS)), (1, 0), "{}", proxy.log());
    assert!(proxy.wait_for_log(BEGINS).contains(&format!("otlp http://{address}/v1/traces: spans are dropped: ")));
    let collector = Collector::at(address).await;
    list(&proxy, 1000, "");
    collector.wait_for(1).await;
    assert!(proxy.wait_for_log(ENDS).contains(" again: 30 were dropped within "));
    list(&proxy, 1001, "");
    collector.wait_for(2).await;
    let log = proxy.end();
    assert_eq!((lines(&log, BEGINS), lines(&log, ENDS)), (1, 1), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_room_before_a_slow_collector_is_dropped_and_counted() {
    const QUEUE: u64 = 8;
    let (azure, collector) = (testkit::azure().await, Collector::start().await);
    let limits = [("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 4)];
    let setup = traced(&azure, &collector).env("OTEL_EXPORTER_OTLP_TIMEOUT", "60000");
    let setup = limits.into_iter().fold(setup, |setup, (name, value)| setup.env(name, &value.to_string()));
    let proxy = setup.start();
    collector.set(Answers::Hangs);
    list(&proxy, 1, "");
    collector.wait_for_requests(1).await;
    let began = Instant::now();
    for number in 2..=51 {
        list(&proxy, number, "");
    }
    assert!(began.elapsed() < AT_ONCE, "no request waits for the collector");
    // One batch with a span is under way, and the queue is full.
    wait_for(&proxy, &["queue_full"], 50 - QUEUE).await;
    assert_eq!(count(&proxy, "exported") + count(&proxy, "not_taken"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_collector_refuses_is_counted_with_its_reason() {
    for (answers, why, attempts) in [
        (Answers::Rejects(1), "it has refused 1 of 1: too old", 1),
        (Answers::Status(401), "401 Unauthorized: check OTEL_EXPORTER_OTLP_HEADERS", 1),
        (Answers::Status(413), "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1),
        (Answers::Page, "its answer is a page: is this the address of a collector?", 1),
        // It is to be asked again, and says nothing of when.
        (Answers::Status(503), "503 Service Unavailable", 2),
    ] {
        let (azure, collector) = (testkit::azure().await, Collector::start().await);
        let proxy = traced(&azure, &collector).env("OTEL_EXPORTER_OTLP_TIMEOUT", "3000").start();
        collector.set(answers.clone());
        list(&proxy, 1, "");
        let line = proxy.wait_for_log(BEGINS);
        assert!(line.contains(why), "{answers:?}: {line}");
        assert_eq!((count(&proxy, "exported"), count(&proxy, "not_taken")), (0, 1), "{answers:?}");
        let requests = collector.heads().len();
        assert!(requests >= attempts && (attempts > 1 || requests == 1), "{answers:?}: {requests} requests");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_when_the_process_ends_is_exported_first() {
    let (azure, collector) = (testkit::azure().await, Collector::start().await);
    let setup = traced(&azure, &collector).env("OTEL_BSP_SCHEDULE_DELAY", "60000");
    let proxy = setup.env("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10").start();
    collector.set(Answers::Slowly(Duration::from_millis(50)));
    for number in 1..=9 {
        list(&proxy, number, "");
    }
    assert!(collector.heads().is_empty(), "they wait for others");
    let log = proxy.end();
    assert_eq!(collector.spans().len(), 9, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_does_not_keep_the_process_from_its_end() {
    let (azure, collector) = (testkit::azure().await, Collector::start().await);
    let mut proxy = traced(&azure, &collector).start();
    collector.set(Answers::Hangs);
    list(&proxy, 1, "");
    collector.wait_for_requests(1).await;
    let began = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(began.elapsed() < AT_ONCE);
    assert_eq!(lines(&proxy.end_of_log(), "otlp: the last spans are dropped"), 1);
}
