//! Looks for faults every few seconds, and tells of those that last; and for what has ended by itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use log::{info, warn};
use pingora_core::server::ShutdownWatch;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::{Alarms, Event, Fault, Tells, What, command};
use crate::config::Notify;
use crate::metrics::RouteMeter;
use crate::metrics::labels::Cause;
use crate::proxy::{Table, upstreams};

/// From one look to the next.
const STEP: Duration = Duration::from_secs(5);
/// Begins of one look that the command is run for. Where more registries fail at once, one of them tells of it.
const MAX_RUNS: usize = 8;
/// With so many runs before it, a begin is not told: the command hangs, and each of them waits for half a minute.
const MAX_WAITING: usize = 64;

/// Watches all registries and routes.
pub(crate) struct Watcher {
    routes: Arc<Table>,
    notify: Arc<ArcSwap<Notify>>,
    /// Locked while the service runs, because Pingora starts a service by a shared reference.
    seen: Mutex<Seen>,
}

/// What the looks before have found.
#[derive(Default)]
struct Seen {
    alarms: Alarms,
    routes: BTreeMap<String, Refusals>,
    /// The faults of whose begin the command was told. It is told of the end of each of them, and of no other.
    told: BTreeSet<(What, String)>,
    /// What the command is to be told, one after the other.
    waiting: VecDeque<Run>,
}

/// A run of the command that is due.
struct Run {
    notify: Arc<Notify>,
    event: Event,
    message: String,
    refused: u64,
}

impl Run {
    async fn finish(self) {
        command::run(&self.notify.command, &self.event, &self.message, self.refused).await;
    }
}

impl Watcher {
    /// Of the registries and routes of this table.
    pub(crate) fn new(routes: Arc<Table>, notify: Arc<ArcSwap<Notify>>) -> Self {
        Self { routes, notify, seen: Mutex::default() }
    }

    /// Watches until the process stops.
    pub(crate) async fn run(&self, mut shutdown: ShutdownWatch) {
        let Seen { alarms, routes, told, waiting } = &mut *self.seen.lock().await;
        let (mut last, mut running) = (Instant::now(), None::<Pin<Box<dyn Future<Output = ()> + Send>>>);
        loop {
            if running.is_none() {
                running = waiting.pop_front().map(|run| Box::pin(run.finish()) as _);
            }
            let ended = async {
                match &mut running {
                    Some(run) => run.await,
                    None => std::future::pending().await,
                }
            };
            let notify = self.notify.load_full();
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                // No look waits for it: what the log is to be told has nothing to do with a program that hangs.
                () = ended => running = None,
                () = sleep_until(last + STEP.min(notify.after)) => {
                    let now = Instant::now();
                    upstreams(&self.routes).iter().for_each(|upstream| upstream.health.look());
                    let faults = self.faults(now, notify.after, routes);
                    let events = alarms.look(now, faults, notify.after);
                    if !events.is_empty() {
                        self.tell(events, &notify, told, waiting);
                    }
                    last = now;
                }
            }
        }
    }

    /// Everything that is wrong now.
    fn faults(&self, now: Instant, after: Duration, routes: &mut BTreeMap<String, Refusals>) -> Vec<Fault> {
        let mut faults = Vec::new();
        for upstream in upstreams(&self.routes) {
            let subject = upstream.domain.authority();
            let mut add = |what, cause: String| faults.push(Fault { what, subject: subject.to_owned(), cause });
            if let Some(cause) = upstream.health.why_down() {
                add(What::Down, cause.to_string());
            }
            if let Some(failure) = upstream.tokens.readiness().failure {
                add(What::Token, failure.message.clone());
            }
        }
        let table = self.routes.load();
        routes.retain(|source, _| table.iter().any(|route| route.destination.route == **source));
        for route in table.iter() {
            let destination = &route.destination;
            let refusals = routes.entry(destination.route.to_string()).or_default();
            let is_failing = refusals.look(now, after, &destination.meter);
            let registry = destination.upstream.domain.authority();
            // What is wrong with its registry is told already.
            if let Some(cause) = is_failing
                && !faults.iter().any(|fault| fault.what != What::Route && fault.subject == registry)
            {
                let (subject, cause) = (destination.route.to_string(), cause.words().to_owned());
                faults.push(Fault { what: What::Route, subject, cause });
            }
        }
        faults
    }

    /// How many requests were refused in the last hour, and of which routes.
    fn refused(&self) -> (u64, String) {
        let (mut all, mut words) = (0, String::new());
        for route in self.routes.load().iter() {
            let last = route.destination.meter.refused.last_hour();
            if let Some(cause) = last.cause {
                all += last.requests;
                let before = if words.is_empty() { "" } else { ", " };
                // Others may have had another cause.
                let mostly = if last.requests == 1 { "" } else { "mostly because " };
                let (name, requests, why) = (&route.destination.route, last.requests, cause.words());
                // Writing to a `String` does not fail.
                let _ = write!(words, "{before}{name} {requests} ({mostly}{why})");
            }
        }
        (all, words)
    }

    /// Tells the log, and adds what the command is to be told.
    fn tell(
        &self,
        events: Vec<Event>,
        notify: &Arc<Notify>,
        told: &mut BTreeSet<(What, String)>,
        waiting: &mut VecDeque<Run>,
    ) {
        let (refused, of_routes) = self.refused();
        let mut begins = 0;
        for event in events {
            let message = message(&event, refused, &of_routes);
            match (event.tells, event.fault.what) {
                (Tells::Reminds, _) | (Tells::Lasts, What::Route) => warn!("{message}"),
                (Tells::Ends, What::Route) => info!("{message}"),
                // Whoever has found these has told of their begin, and tells of their end.
                (Tells::Lasts | Tells::Ends, What::Token | What::Down) => {}
            }
            let fault = (event.fault.what, event.fault.subject.clone());
            let is_due = match event.tells {
                Tells::Lasts => {
                    begins += 1;
                    let has_room = begins <= MAX_RUNS && waiting.len() < MAX_WAITING;
                    has_room && !notify.command.is_empty() && told.insert(fault)
                }
                Tells::Ends => told.remove(&fault),
                Tells::Reminds => false,
            };
            if is_due {
                waiting.push_back(Run { notify: Arc::clone(notify), event, message, refused });
            }
        }
    }
}

/// What is wrong, or was.
fn what(fault: &Fault, is_over: bool) -> String {
    let now_or_then = |now, then| if is_over { then } else { now };
    let before = match fault.what {
        What::Token => now_or_then("", "the last failure was: "),
        What::Down => now_or_then("it is down: ", "it was down: "),
        What::Route => now_or_then(
            "all requests are refused, most of them because ",
            "all requests were refused, most of them because ",
        ),
    };
    format!("{before}{}", fault.cause)
}

/// A sentence for people.
fn message(event: &Event, refused: u64, of_routes: &str) -> String {
    let Event { tells, fault, lasted } = event;
    let whose = if fault.what == What::Route { "route" } else { "acr" };
    let subject = format!("{whose} {}", fault.subject);
    let minutes = lasted.as_secs() / 60;
    let lasted = match minutes {
        0 => format!("{} s", lasted.as_secs()),
        1..=119 => format!("{minutes} min"),
        _ => format!("{} h", minutes / 60),
    };
    if *tells == Tells::Ends {
        return format!("{subject}: over after {lasted}: {}", what(fault, true));
    }
    let refused = match refused {
        0 => "no request was refused in the last hour".to_owned(),
        1 => format!("1 request was refused in the last hour: {of_routes}"),
        _ => format!("{refused} requests were refused in the last hour: {of_routes}"),
    };
    format!("{subject}: for {lasted} now: {}; {refused}", what(fault, false))
}

/// Whether the requests of a route are refused, all of them.
#[derive(Default)]
struct Refusals {
    served: u64,
    refused: [u64; Cause::ALL.len()],
    /// The last refusal without an answer behind it.
    failing: Option<(Instant, Cause)>,
}

impl Refusals {
    /// Why, if they are. One request that was refused is no fault that lasts: others have to follow within `after`.
    fn look(&mut self, now: Instant, after: Duration, meter: &RouteMeter) -> Option<Cause> {
        let mut served = 0;
        meter.requests(|_, status, _, count| {
            if status.starts_with(['2', '3']) {
                served += count;
            }
        });
        let refused = Cause::ALL.map(|cause| meter.refused.count(cause));
        let more = |cause: &Cause| {
            let count = |all: &[u64]| all.get(*cause as usize).copied().unwrap_or_default();
            count(&refused).saturating_sub(count(&self.refused))
        };
        let most = Cause::ALL.into_iter().max_by_key(more).filter(|cause| more(cause) > 0);
        if served > self.served {
            self.failing = None;
        } else if let Some(cause) = most {
            self.failing = Some((now, cause));
        } else if self.failing.is_some_and(|(last, _)| now - last >= after) {
            self.failing = None;
        }
        (self.served, self.refused) = (served, refused);
        self.failing.map(|(_, cause)| cause)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use http::{HeaderMap, HeaderValue, StatusCode, header};
    use oci::name::Prefix;
    use oci::route::{Blobs, Route, Routes, Source};
    use tokio::sync::watch;
    use tokio::time::sleep;

    use super::*;
    use crate::metrics::Request;
    use crate::metrics::labels::{CacheResult, Kind};
    use crate::proxy::{Call, Destination};

    const AFTER: Duration = Duration::from_secs(300);

    fn served(meter: &RouteMeter) {
        let time = Duration::from_millis(1);
        let (kind, cache) = (Kind::Manifest, CacheResult::None);
        meter.add(&Request { kind, status: 200, cache, first_byte: Some(time), whole: time, bytes: 0 });
    }

    #[test]
    fn a_route_fails_while_requests_are_refused_and_none_is_served() {
        let (meter, mut refusals, begun) = (RouteMeter::default(), Refusals::default(), Instant::now());
        let mut look = |seconds: u64| refusals.look(begun + Duration::from_secs(seconds), AFTER, &meter);
        assert_eq!(look(0), None);
        meter.refused.add(Cause::RegistryDenies);
        assert_eq!(look(10), Some(Cause::RegistryDenies));
        assert_eq!(look(300), Some(Cause::RegistryDenies));
        meter.refused.add(Cause::Storage);
        assert_eq!(look(305), Some(Cause::Storage), "another follows");
        assert_eq!(look(604), Some(Cause::Storage));
        assert_eq!(look(605), None, "nobody asks any more");
        meter.refused.add(Cause::Storage);
        served(&meter);
        assert_eq!(look(610), None, "one repository is refused, and others are served");
    }

    fn told(tells: Tells, what: What, cause: &str, seconds: u64, refused: u64) -> String {
        let fault = Fault { what, subject: "example.azurecr.io".to_owned(), cause: cause.to_owned() };
        let event = Event { tells, fault, lasted: Duration::from_secs(seconds) };
        message(&event, refused, "docker.io 1 (the registry was known to be down)")
    }

    #[test]
    fn a_person_is_told_where_how_long_why_and_what_follows() {
        for (tells, seconds, refused, expected) in [
            (
                Tells::Lasts,
                59,
                0,
                "acr example.azurecr.io: for 59 s now: it is down: no route; no request was refused in the last hour",
            ),
            (
                Tells::Reminds,
                3600,
                1,
                "acr example.azurecr.io: for 60 min now: it is down: no route; 1 request was refused in the last hour: docker.io 1 (the registry was known to be down)",
            ),
            (
                Tells::Reminds,
                7200,
                2,
                "acr example.azurecr.io: for 2 h now: it is down: no route; 2 requests were refused in the last hour: docker.io 1 (the registry was known to be down)",
            ),
        ] {
            assert_eq!(told(tells, What::Down, "no route", seconds, refused), expected);
        }
    }

    /// "over after 5 min: all requests are refused".
    #[test]
    fn the_end_of_a_fault_was_told_as_if_it_were_still_there() {
        let refused = "no request was refused in the last hour";
        for (what, whose, cause, now, then) in [
            (
                What::Token,
                "acr",
                "token exchange: 503",
                "token exchange: 503",
                "the last failure was: token exchange: 503",
            ),
            (What::Down, "acr", "no route", "it is down: no route", "it was down: no route"),
            (
                What::Route,
                "route",
                "the registry answered 403",
                "all requests are refused, most of them because the registry answered 403",
                "all requests were refused, most of them because the registry answered 403",
            ),
        ] {
            let begin = format!("{whose} example.azurecr.io: for 5 min now: {now}; {refused}");
            assert_eq!(told(Tells::Lasts, what, cause, 300, 0), begin);
            let end = format!("{whose} example.azurecr.io: over after 2 h: {then}");
            assert_eq!(told(Tells::Ends, what, cause, 7200, 2), end);
        }
    }

    /// The line that a limit was over came with the next request, which was the next morning's.
    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_limit_and_of_waits_was_told_only_if_somebody_asked() {
        let destination = Arc::new(Destination::example(0, Blobs::Redirect, None));
        let health = &destination.upstream.health;
        health.set_reads(NonZeroU32::new(1));
        let pause = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static("1"))]);
        health.limited(Call::Manifest, StatusCode::TOO_MANY_REQUESTS, &pause, None);
        while health.turn().await.is_ok() {}
        assert!(health.is_watched());
        let (source, prefix) = (Source::docker_hub(), Prefix::parse("hub").expect("a prefix"));
        let route = Route { source, prefix, hosts: Vec::new(), destination: Arc::clone(&destination) };
        let routes = Arc::new(Table::from_pointee(Routes::new(vec![route], None)));
        let notify = Notify { command: Vec::new(), after: AFTER };
        let watcher = Watcher::new(routes, Arc::new(ArcSwap::from_pointee(notify)));
        let (_end, shutdown) = watch::channel(false);
        let watching = tokio::spawn(async move { watcher.run(shutdown).await });
        sleep(Duration::from_secs(60) + 2 * STEP).await;
        assert!(!health.is_watched(), "nobody has asked for anything");
        watching.abort();
    }
}
