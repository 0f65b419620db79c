//! Full load while tokens turn over and faults come and go.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Fault, Hop, Image, Options, Recorded};

use crate::client::Client;
use crate::secrets;
use testkit::{PATIENCE, Proxy, Setup};

/// Each registry's clients, on kept connections, without a pause.
const CLIENTS: usize = 3;
const REPOSITORIES: usize = 8;
/// Renewed after 6 to 8 s, so that there is a rest of at least 4 s; times are whole seconds, which takes one of them.
const ACCESS: Duration = Duration::from_secs(12);
const REFRESH: Duration = Duration::from_secs(15);
/// Calls that fail in a row: the pauses after them are at most 0.5 and 1 s, less than that rest.
const OUTAGE: u32 = 2;
/// After a forced renewal, a further 401 is an answer for half a minute.
const REVOKE_EVERY: Duration = Duration::from_secs(40);

/// What comes and goes. Not what takes its whole time limit (hang, slow drip), nor what is asked for again only after
/// half a minute (400, 401, 403): these outlast tokens of ten seconds, and the matrix has them.
const FAULTS: [Fault; 7] = [
    Fault::RefuseConnections,
    Fault::Status(500),
    Fault::ResetMidBody,
    Fault::GarbageJson,
    Fault::DieBeforeResponse,
    Fault::HugeBody,
    Fault::Status(503),
];

/// A registry and the proxy in front of it.
struct Pair {
    name: &'static str,
    azure: Emulator,
    proxy: Proxy,
    answers: AtomicU64,
}

impl Pair {
    async fn start(name: &'static str, abac: bool) -> Arc<Self> {
        let azure = Emulator::start(Options {
            abac,
            access_lifetime: ACCESS,
            refresh_lifetime: REFRESH,
            entra_lifetime: REFRESH,
            ..testkit::options()
        })
        .await
        .expect("the emulator starts");
        for number in 0..REPOSITORIES {
            azure.push(Image::small(&format!("hub/soak/r{number}"), "latest"));
        }
        // A line for each of a hundred thousand requests would only fill the memory; the matrix has those.
        let proxy = Setup::new(&azure).cache("off").flag("--log", "trace,access=warn").start();
        let pair = Self { name, azure, proxy, answers: AtomicU64::new(0) };
        // There are tokens before there are faults.
        tokio::task::block_in_place(|| {
            let mut client = Client::new(pair.proxy.address());
            for number in 0..REPOSITORIES {
                pair.look(&mut client, number).expect("all is well");
            }
        });
        Arc::new(pair)
    }

    /// Pulls until `done`; the first answer that is not 200 ends it.
    fn pull(&self, first: usize, done: &AtomicBool) -> Result<(), String> {
        let mut client = Client::new(self.proxy.address());
        for number in (first..).take_while(|_| !done.load(Ordering::Relaxed)) {
            self.look(&mut client, number)?;
        }
        Ok(())
    }

    /// Waits until each repository has been pulled since: by a client that has been through all of them, as one has
    /// after so many answers.
    async fn every_repository(&self) {
        let goal = self.answers.load(Ordering::Relaxed) + 2 * (CLIENTS * REPOSITORIES) as u64;
        let pulled = async {
            while self.answers.load(Ordering::Relaxed) < goal {
                // Nothing depends on the step.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let pulled = tokio::time::timeout(PATIENCE, pulled).await;
        assert!(pulled.is_ok(), "{}: pulls came to an end:\n{}", self.name, self.proxy.log());
    }

    fn look(&self, client: &mut Client, number: usize) -> Result<(), String> {
        let path = format!("/v2/soak/r{}/manifests/latest", number % REPOSITORIES);
        let seen = client.get(&path).map_err(|cause| format!("{}: {path}: no answer: {cause}", self.name))?;
        if seen.status != 200 || seen.cut {
            return Err(format!("{}: {path}: {seen:?}", self.name));
        }
        self.answers.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// What a pair's emulator was asked.
#[derive(Default)]
struct Tally {
    /// Access tokens that pulls came with.
    tokens: HashSet<String>,
    calls: Vec<Recorded>,
}

impl Tally {
    /// Takes over what was asked so far: at full load there is no room for all of it.
    fn take(&mut self, pair: &Pair) {
        for request in pair.azure.take_requests() {
            if request.hop == Hop::Data {
                self.tokens.extend(request.header("authorization").map(str::to_owned));
            } else {
                self.calls.push(request);
            }
        }
    }

    fn calls(&self, hop: Hop) -> usize {
        self.calls.iter().filter(|call| call.hop == hop).count()
    }
}

/// Waits until a hop has met its fault as often as it should, and was asked once more.
async fn passed(pair: &Pair, hop: Hop, fault: &Fault) {
    // Entra resets a connection before there is a request to record.
    let unheard = hop == Hop::Entra && *fault == Fault::RefuseConnections;
    let failures = if unheard { 0 } else { OUTAGE as usize };
    let answered =
        pair.azure.wait_for(|requests| requests.iter().filter(|request| request.hop == hop).count() > failures);
    let answered = tokio::time::timeout(PATIENCE, answered).await;
    assert!(answered.is_ok(), "{}: {hop:?} × {fault:?} has no end:\n{}", pair.name, pair.proxy.log());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes SOAK_SECONDS, a minute by default; run by scripts/soak"]
async fn no_pull_fails_while_tokens_turn_over_and_faults_come_and_go() {
    let seconds = std::env::var("SOAK_SECONDS").ok().map_or(60, |text| text.parse().expect("SOAK_SECONDS is a number"));
    let begun = Instant::now();
    let pairs = [Pair::start("wildcard", false).await, Pair::start("abac", true).await];
    let mut tallies = [Tally::default(), Tally::default()];
    let done = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for pair in &pairs {
        for client in 0..CLIENTS {
            let (pair, done) = (Arc::clone(pair), Arc::clone(&done));
            clients.push(std::thread::spawn(move || pair.pull(client, &done)));
        }
    }

    let (mut rounds, mut revocations, mut revoked) = (0, 0, begun);
    while begun.elapsed() < Duration::from_secs(seconds) && !clients.iter().any(|client| client.is_finished()) {
        // The sign-in fails at one of its two hops, and at the same time the access tokens' renewal does.
        let login = (if rounds % 2 == 0 { Hop::Entra } else { Hop::Exchange }, &FAULTS[rounds % FAULTS.len()]);
        let access = (Hop::Token, &FAULTS[(rounds + 3) % FAULTS.len()]);
        for (pair, tally) in pairs.iter().zip(&mut tallies) {
            for (hop, fault) in [login, access] {
                pair.azure.inject(hop, fault.clone().times(OUTAGE));
            }
            // What is counted from here on has met them.
            tally.take(pair);
        }
        for pair in &pairs {
            for (hop, fault) in [login, access] {
                passed(pair, hop, fault).await;
            }
        }
        rounds += 1;
        if revoked.elapsed() > REVOKE_EVERY {
            // All is well now: tokens that end before their time are replaced unseen.
            pairs.iter().for_each(|pair| pair.azure.revoke_tokens());
            (revoked, revocations) = (Instant::now(), revocations + 1);
            for pair in &pairs {
                pair.every_repository().await;
            }
        }
    }
    done.store(true, Ordering::Relaxed);
    let failed: Vec<_> = clients.into_iter().filter_map(|client| client.join().expect("no crash").err()).collect();

    for (pair, tally) in pairs.iter().zip(&mut tallies) {
        tally.take(pair);
        println!(
            "{}: {} pulls with {} tokens in {:?}; {} calls of Entra, {} of exchange, {} of token; {rounds} outages of \
             each, {revocations} revocations",
            pair.name,
            pair.answers.load(Ordering::Relaxed),
            tally.tokens.len(),
            begun.elapsed(),
            tally.calls(Hop::Entra),
            tally.calls(Hop::Exchange),
            tally.calls(Hop::Token),
        );
        assert_eq!(secrets::in_log(&pair.proxy.log(), &tally.calls), None);
    }
    assert!(failed.is_empty(), "{}\n{}", failed.join("\n"), pairs.each_ref().map(|pair| pair.proxy.log()).join("\n"));
    let turned_over: usize = tallies.iter().map(|tally| tally.tokens.len()).sum();
    assert!(turned_over as u64 >= seconds.min(60) * 2 / 5, "dozens of tokens in a minute: {turned_over}");
}
