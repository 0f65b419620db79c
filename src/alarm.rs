//! Faults that last: each begins, lasts, is remembered every hour, and ends.
//!
//! What is wrong now is looked up every few seconds ([`watch`]); what follows from that is decided here, and told in the log and by
//! a command ([`command`]). A fault that comes and goes within a moment is told of by whoever finds it, and nothing follows.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

mod command;
mod watch;

pub(crate) use command::doubt;
pub(crate) use watch::Watcher;

/// Of a fault that lasts, the log says again what follows from it.
const REMINDER: Duration = Duration::from_secs(60 * 60);
/// A fault that is away for so long is over. One that comes and goes every few seconds is one fault.
const AWAY: Duration = Duration::from_secs(60);

/// Where something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// The sign-in to a registry, or the renewal of its tokens.
    Token,
    /// A registry is known to be down.
    Down,
    /// All requests of a route are refused, for another reason.
    Route,
}

impl What {
    /// Its name for the command.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Down => "registry_down",
            Self::Route => "route",
        }
    }
}

/// What is wrong now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Where.
    pub what: What,
    /// The registry, or the source of the route.
    pub subject: String,
    /// Why, a clause in the words of whoever has found it.
    pub cause: String,
}

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tells {
    /// The fault is as old as a fault is that lasts.
    Lasts,
    /// Another hour is over.
    Reminds,
    /// It was told that it lasts, and it is over.
    Ends,
}

/// One of them, of which fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// What.
    pub tells: Tells,
    /// The fault, with its last cause.
    pub fault: Fault,
    /// How long it has been there, or was.
    pub lasted: Duration,
}

/// The faults that have begun and are not over.
#[derive(Default)]
pub(crate) struct Alarms(BTreeMap<(What, String), Alarm>);

struct Alarm {
    since: Instant,
    /// When it was last there.
    seen: Instant,
    /// When it was first found to be away since then; `None` while it is there.
    away: Option<Instant>,
    cause: String,
    /// When it was last told that it is there; `None` while it does not last yet.
    told: Option<Instant>,
}

impl Alarms {
    /// These faults are there now, and no others. A fault lasts that is older than `after`.
    pub(crate) fn look(&mut self, now: Instant, faults: Vec<Fault>, after: Duration) -> Vec<Event> {
        for Fault { what, subject, cause } in faults {
            let alarm = self.0.entry((what, subject)).or_insert_with(|| Alarm {
                since: now,
                seen: now,
                away: None,
                cause: String::new(),
                told: None,
            });
            (alarm.seen, alarm.away, alarm.cause) = (now, None, cause);
        }
        let mut events = Vec::new();
        self.0.retain(|(what, subject), alarm| {
            // Not from when it was last there: it may have ended just before this look.
            let is_over = alarm.seen < now && now - *alarm.away.get_or_insert(now) >= after.min(AWAY);
            let tells = match alarm.told {
                None if is_over => return false,
                Some(_) if is_over => Tells::Ends,
                // One that is away at this moment may be over.
                None if alarm.seen == now && now - alarm.since >= after => Tells::Lasts,
                Some(told) if now - told >= REMINDER => Tells::Reminds,
                _ => return true,
            };
            let until = if is_over { alarm.seen } else { now };
            // Counted from its begin, so that reminders stay in step.
            alarm.told = Some(alarm.told.map_or(alarm.since, |told| told + REMINDER));
            let fault = Fault { what: *what, subject: subject.clone(), cause: alarm.cause.clone() };
            events.push(Event { tells, fault, lasted: until - alarm.since });
            !is_over
        });
        events
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const AFTER: Duration = Duration::from_secs(300);
    const STEP: Duration = Duration::from_secs(5);

    fn fault(what: What, cause: &str) -> Fault {
        Fault { what, subject: "example.azurecr.io".to_owned(), cause: cause.to_owned() }
    }

    /// What is told in this time, by the second, while `is_there` says whether the fault is.
    async fn told(alarms: &mut Alarms, time: Duration, is_there: impl Fn(u64) -> bool) -> Vec<(u64, Tells, u64)> {
        let begun = Instant::now();
        let mut told = Vec::new();
        while begun.elapsed() < time {
            let second = begun.elapsed().as_secs();
            let faults = if is_there(second) { vec![fault(What::Down, "no route")] } else { Vec::new() };
            let events = alarms.look(Instant::now(), faults, AFTER);
            told.extend(events.into_iter().map(|event| (second, event.tells, event.lasted.as_secs())));
            advance(STEP).await;
        }
        told
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_is_told_once_when_it_lasts_each_hour_and_once_at_its_end() {
        let mut alarms = Alarms::default();
        let found = told(&mut alarms, Duration::from_secs(9000), |second| second < 8000).await;
        let expected = [
            (300, Tells::Lasts, 300),
            (3600, Tells::Reminds, 3600),
            (7200, Tells::Reminds, 7200),
            (8060, Tells::Ends, 7995),
        ];
        assert_eq!(found, expected);
        assert!(alarms.0.is_empty());
        assert_eq!(
            told(&mut alarms, Duration::from_secs(400), |_| true).await,
            [(300, Tells::Lasts, 300)],
            "a new one"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_last_is_not_told_and_what_comes_and_goes_is_one() {
        let mut alarms = Alarms::default();
        assert_eq!(told(&mut alarms, Duration::from_secs(1000), |second| second % 400 < 250).await, []);
        assert_eq!(told(&mut alarms, Duration::from_secs(500), |_| false).await, []);
        let found = told(&mut alarms, Duration::from_secs(1200), |second| second < 1000 && second % 30 < 15).await;
        assert_eq!(found, [(300, Tells::Lasts, 300), (1060, Tells::Ends, 995)]);
    }

    /// With looks as far apart as `after`, the first look without it was told as its end, half a second after it was over.
    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_fault_was_told_before_it_was_away_for_long_enough() {
        for (after, ends) in [(1, 3), (5, 15), (30, 40), (60, 70), (300, 70)] {
            let (mut alarms, begun, after) = (Alarms::default(), Instant::now(), Duration::from_secs(after));
            let step = STEP.min(after);
            assert_eq!(alarms.look(begun - after, vec![fault(What::Down, "a")], after), []);
            assert_eq!(alarms.look(begun, vec![fault(What::Down, "a")], after).len(), 1, "{after:?}");
            let mut looks = (1..).map(|number| begun + number * step);
            let end = looks.find(|now| !alarms.look(*now, Vec::new(), after).is_empty()).expect("an end");
            assert!(end - (begun + step) >= after.min(AWAY), "{after:?}: {:?}", end - begun);
            assert!(end - begun <= Duration::from_secs(ends), "{after:?}: {:?}", end - begun);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn faults_of_one_registry_are_told_apart_and_the_last_cause_counts() {
        let (mut alarms, now) = (Alarms::default(), Instant::now());
        assert_eq!(alarms.look(now, vec![fault(What::Down, "a"), fault(What::Token, "b")], AFTER), []);
        let events = alarms.look(now + AFTER, vec![fault(What::Token, "c")], AFTER);
        let told: Vec<_> = events.iter().map(|event| (event.tells, event.fault.what, &*event.fault.cause)).collect();
        assert_eq!(told, [(Tells::Lasts, What::Token, "c")]);
    }
}
