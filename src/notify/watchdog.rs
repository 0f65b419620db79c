//! The service manager's watchdog: it is fed only as long as all that serves answers.

use std::time::Duration;

use log::{error, info};
use sd_notify::NotifyState;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{name_of_socket, send};
use crate::liveness::{Asker, Liveness};

/// Set by the service manager: the process that is to feed it. A process that takes the place of another has another id.
pub(crate) const RECIPIENT: &str = "WATCHDOG_PID";
/// Rounds within the service manager's time: one that fails, as where the whole machine has stood still, ends no process.
const ROUNDS: u32 = 3;

/// Feeds the watchdog.
pub(crate) struct Watchdog {
    asker: Asker,
    step: Duration,
}

impl Watchdog {
    /// The parts, and their watchdog if the service manager wants one (`WATCHDOG_USEC`, `WATCHDOG_PID`).
    pub(crate) fn of_process() -> (Liveness, Option<Self>) {
        let is_told = name_of_socket().is_some();
        let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| is_told && !limit.is_zero()) else {
            return (Liveness::default(), None);
        };
        let (liveness, asker) = Liveness::new();
        (liveness, Some(Self { asker, step: limit / ROUNDS }))
    }

    /// Asks all parts in each round, and feeds the watchdog if all of them live. Ends with its runtime.
    pub(super) async fn run(&mut self) {
        let mut rounds = interval_at(Instant::now() + self.step, self.step);
        // After a machine that slept, the next round is a whole one.
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = Vec::new();
        loop {
            rounds.tick().await;
            let found = self.asker.ask(self.step).await;
            if found.is_empty() {
                // A lost message does no harm: the next one comes in time.
                let _ = send(&[NotifyState::Watchdog]);
                if !known.is_empty() {
                    info!("watchdog: all parts answer again");
                }
            } else if found != known {
                error!("watchdog: not fed until all parts answer: {}", found.join("; "));
            }
            known = found;
        }
    }
}
