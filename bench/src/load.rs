//! When pulls start: in a closed loop, one after the other; in an open loop, by a schedule. Both sides take turns.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::client::{Connector, Pool};
use crate::plan::{Connections, Level, Plan};
use crate::pull::{Job, pull};
use crate::tally::Ledger;

/// Pulls of an open loop on one side that are under way or wait for their turn. 4,096 are minutes of delay at any rate
/// that a registry sustains; further pulls are not started and count as dropped.
const MAX_PENDING: usize = 4_096;

/// Runs a level until its pulls or its time are over, or `stop` turns true, which abandons the pulls under way. Returns how
/// long it ran.
pub(crate) async fn run(
    plan: &Arc<Plan>,
    connector: &Arc<Connector>,
    level: Level,
    ledger: &Arc<Ledger>,
    mut stop: watch::Receiver<bool>,
) -> Duration {
    let begun = Instant::now();
    let run = Arc::new(Run {
        plan: Arc::clone(plan),
        connector: Arc::clone(connector),
        level,
        ledger: Arc::clone(ledger),
        begun,
        next: AtomicU64::new(0),
    });
    // Dropping it ends all its tasks.
    let loaded = async {
        match level.rate {
            None => closed_loop(run).await,
            Some(rate) => open_loop(run, rate).await,
        }
    };
    tokio::select! {
        () = loaded => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    begun.elapsed()
}

struct Run {
    plan: Arc<Plan>,
    connector: Arc<Connector>,
    level: Level,
    ledger: Arc<Ledger>,
    begun: Instant,
    next: AtomicU64,
}

impl Run {
    /// The number of the next pull; `None` at the end of the level.
    fn ticket(&self) -> Option<u64> {
        let over = self.plan.duration.is_some_and(|duration| self.begun.elapsed() >= duration);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (!over && self.plan.pulls.is_none_or(|pulls| number < pulls)).then_some(number)
    }

    fn pool(&self) -> Pool {
        Pool::new(Arc::clone(&self.connector), self.level.connections.max_idle())
    }

    fn draw(&self, number: u64) -> (Job<'_>, bool) {
        self.plan.draw(number, self.level.connections.order())
    }

    /// Pulls with the connections of an earlier pull, if there are any, and returns them for the next one.
    async fn pull(&self, number: u64, side: usize, warm: Option<Pool>, intended: Option<Instant>) -> Option<Pool> {
        let pool = warm.unwrap_or_else(|| self.pool());
        let (job, _) = self.draw(number);
        let pulled = pull(&self.plan.routes[side], &pool, job, intended).await;
        self.ledger.add(number, side, Some(&pulled));
        (self.level.connections == Connections::Warm).then_some(pool)
    }
}

/// Each worker pulls on both sides, one after the other, so that both see the same state of the network. The order within a
/// pair is random, so that neither side always warms caches for the other.
async fn closed_loop(run: Arc<Run>) {
    let mut workers = JoinSet::new();
    for _ in 0..run.level.concurrency {
        let run = Arc::clone(&run);
        workers.spawn(async move {
            let mut pools: Vec<_> = run.plan.routes.iter().map(|_| None).collect();
            while let Some(number) = run.ticket() {
                let (_, reversed) = run.draw(number);
                for side in run.plan.order(reversed) {
                    run.ledger.begin(side);
                    pools[side] = run.pull(number, side, pools[side].take(), None).await;
                }
            }
        });
    }
    while workers.join_next().await.is_some() {}
}

/// Pulls start on schedule, whether or not earlier ones have ended; the schedules of the sides are half an interval apart.
/// The time of a pull counts from its intended start, so a stall shows in every pull that it delays. Timers are up to a
/// millisecond late; that counts too, on both sides alike.
async fn open_loop(run: Arc<Run>, rate: f64) {
    let interval = Duration::from_secs_f64(1.0 / rate);
    let sides: Vec<_> = run.plan.routes.iter().map(|_| Arc::new(Turns::new(run.level.concurrency))).collect();
    let mut pulls = JoinSet::new();
    let mut due = Instant::now();
    while let Some(number) = run.ticket() {
        let (_, reversed) = run.draw(number);
        let step = interval / u32::try_from(sides.len()).unwrap_or(1);
        for side in run.plan.order(reversed) {
            sleep_until(due.into()).await;
            run.ledger.begin(side);
            while pulls.try_join_next().is_some() {}
            let turns = Arc::clone(&sides[side]);
            match Arc::clone(&turns.pending).try_acquire_owned() {
                Ok(pending) => {
                    let run = Arc::clone(&run);
                    pulls.spawn(async move {
                        let _pending = pending;
                        // The semaphore is never closed.
                        let _turn = turns.under_way.acquire().await;
                        let pool = run.pull(number, side, turns.take(), Some(due)).await;
                        turns.give_back(pool);
                    });
                }
                Err(_) => run.ledger.add(number, side, None),
            }
            due += step;
        }
    }
    while pulls.join_next().await.is_some() {}
}

/// Admits the pulls of one side of an open loop, and passes connections from pull to pull.
struct Turns {
    pending: Arc<Semaphore>,
    under_way: Semaphore,
    pools: Mutex<Vec<Pool>>,
}

impl Turns {
    fn new(concurrency: usize) -> Self {
        Self {
            pending: Arc::new(Semaphore::new(MAX_PENDING)),
            under_way: Semaphore::new(concurrency),
            pools: Mutex::default(),
        }
    }

    /// The most recently used one, whose connections are the least likely to be stale.
    fn take(&self) -> Option<Pool> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give_back(&self, pool: Option<Pool>) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).extend(pool);
    }
}
