//! How pulls are begun: in a closed loop one after the other, in an open loop by a schedule; both sides in turns.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::chance::Chance;
use super::connection::{Connector, Pool};
use super::image::Mix;
use super::pairs::Pairs;
use super::phase::Phase;
use super::pull::{Layers, Order, Platform, Route, Side, What, pull};
use super::record::{Pulled, Record};

/// Pulls of an open loop on one side that are under way or wait for their turn. 4,096 are minutes of delay at any rate
/// that a registry keeps up with; what comes on top is not begun and counted as dropped.
const MAX_PENDING: usize = 4_096;

/// How long a connection lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// For one request, as dockerd's.
    Cold,
    /// For one pull, as containerd's; the pull is containerd's, too.
    PerPull,
    /// From pull to pull, so that what a pull takes without any set-up can be seen.
    Warm,
}

impl Connections {
    /// All, in the order in which a run takes them.
    pub const ALL: [Self; 3] = [Self::Cold, Self::PerPull, Self::Warm];

    /// The name in flags and JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::PerPull => "per-pull",
            Self::Warm => "warm",
        }
    }

    /// In the heading of a table.
    pub fn label(self) -> &'static str {
        match self {
            Self::Cold => "a connection a request, as dockerd",
            Self::PerPull => "new connections each pull, as containerd",
            Self::Warm => "warm connections, kept from pull to pull",
        }
    }

    fn order(self) -> Order {
        match self {
            Self::Cold | Self::Warm => Order::Docker,
            Self::PerPull => Order::Containerd,
        }
    }
}

/// One setting of the load; a run may have several, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// How long connections live.
    pub connections: Connections,
    /// Pulls under way at once on each side.
    pub concurrency: usize,
    /// Pulls a second on each side, in an open loop.
    pub rate: Option<f64>,
}

/// What all levels have in common.
pub struct Plan {
    /// One side, or both.
    pub routes: Vec<Route>,
    /// What is pulled.
    pub mix: Mix,
    /// Of an index.
    pub platform: Platform,
    /// How much of the layers.
    pub layers: Layers,
    /// Pulls on each side of a level.
    pub pulls: Option<u64>,
    /// When a level begins no more pulls.
    pub duration: Option<Duration>,
    /// Of the order of sides and of the mix.
    pub seed: u64,
}

impl Plan {
    /// Which image the pull of this number is of, and which side comes first: the same for both sides.
    fn draw(&self, number: u64, order: Order) -> (What<'_>, bool) {
        let mut chance = Chance::new(self.seed.wrapping_add(number.wrapping_mul(0xD134_2543_DE82_EF95)));
        let image = self.mix.pick(&mut chance);
        (What { image, platform: &self.platform, layers: self.layers, order }, chance.coin())
    }

    /// Indices of the sides in the order of this pull.
    fn order(&self, reversed: bool) -> impl Iterator<Item = usize> + use<> {
        let count = self.routes.len();
        (0..count).map(move |index| if reversed { count - 1 - index } else { index })
    }
}

/// What a level has measured so far.
#[derive(Debug)]
pub struct Tally {
    /// Each side's, in the order of the routes.
    pub records: Vec<(Side, Record)>,
    /// Pull by pull, if there are two sides.
    pub pairs: Pairs,
    /// Pulls that were begun, or should have been, on each side.
    pub begun: Vec<u64>,
    /// Pulls of which one side is done, well or not.
    halves: HashMap<u64, Option<[u64; Phase::ALL.len()]>>,
}

impl Tally {
    /// Of these records, pairs and numbers of pulls begun.
    pub fn of(records: Vec<(Side, Record)>, pairs: Pairs, begun: Vec<u64>) -> Self {
        Self { records, pairs, begun, halves: HashMap::new() }
    }
}

/// The same, shared between those who pull.
pub struct Ledger(Mutex<Tally>);

impl Ledger {
    /// Nothing measured yet.
    pub fn new(plan: &Plan) -> Self {
        let records: Vec<_> = plan.routes.iter().map(|route| (route.side, Record::default())).collect();
        let begun = vec![0; records.len()];
        Self(Mutex::new(Tally::of(records, Pairs::new(plan.seed), begun)))
    }

    /// What there is.
    pub fn lock(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what there is; a pull that comes to its end later counts no more.
    pub fn close(&self) -> Tally {
        let mut tally = self.lock();
        std::mem::replace(&mut tally, Tally::of(Vec::new(), Pairs::new(0), Vec::new()))
    }

    fn begin(&self, side: usize) {
        if let Some(begun) = self.lock().begun.get_mut(side) {
            *begun += 1;
        }
    }

    fn add(&self, number: u64, side: usize, pulled: Option<&Pulled>) {
        let mut tally = self.lock();
        let Some((_, record)) = tally.records.get_mut(side) else { return };
        match pulled {
            Some(pulled) => record.add(pulled),
            None => record.dropped += 1,
        }
        if tally.records.len() < 2 {
            return;
        }
        let totals = pulled.filter(|pulled| pulled.failure.is_none()).map(|pulled| pulled.meter.totals());
        match (tally.halves.remove(&number), totals) {
            (None, totals) => {
                tally.halves.insert(number, totals);
            }
            (Some(Some(other)), Some(this)) => {
                let (via, direct) = if side == 0 { (&this, &other) } else { (&other, &this) };
                tally.pairs.add(via, direct);
            }
            (Some(_), _) => {}
        }
    }
}

/// Runs a level until its pulls or its time are over, or `stop` turns true: then what is under way is given up.
/// Gives how long it ran.
pub async fn run(
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
    // Dropping it ends all tasks in it.
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
    /// The number of the next pull, unless there is to be none.
    fn ticket(&self) -> Option<u64> {
        let over = self.plan.duration.is_some_and(|duration| self.begun.elapsed() >= duration);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (!over && self.plan.pulls.is_none_or(|pulls| number < pulls)).then_some(number)
    }

    fn pool(&self) -> Pool {
        Pool::new(Arc::clone(&self.connector), self.level.connections != Connections::Cold)
    }

    fn draw(&self, number: u64) -> (What<'_>, bool) {
        self.plan.draw(number, self.level.connections.order())
    }

    /// Pulls with connections that are left from the pull before, if there are any, and gives them back.
    async fn pull(&self, number: u64, side: usize, kept: Option<Pool>, intended: Option<Instant>) -> Option<Pool> {
        let pool = kept.unwrap_or_else(|| self.pool());
        let (what, _) = self.draw(number);
        let pulled = pull(&self.plan.routes[side], &pool, what, intended).await;
        self.ledger.add(number, side, Some(&pulled));
        (self.level.connections == Connections::Warm).then_some(pool)
    }
}

/// Workers that pull on one side and then on the other, whichever comes first by chance: both meet the same minute of
/// the network, and neither always warms it for the other.
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

/// Pulls begin by the clock, whether or not earlier ones are done, and each side has a schedule of its own, half an
/// interval apart. A pull that has to wait for its turn waits on its own time: it counts from the intended start, so a
/// stall shows in every pull that it delayed. Timers are good to a millisecond, late rather than early, which is
/// counted, too, on both sides alike.
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

/// Whose turn it is on one side of an open loop, and the connections that go from one pull to the next.
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
