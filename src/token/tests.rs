//! The token store with paused time and an issuer that answers as a test wants.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use tokio::time::sleep;

use super::refresh::CallResult;
use super::*;
use tokio::task::JoinSet;

mod outage;
mod readiness;
mod refused;
mod renewal;
mod report;
mod table;

const LOGIN_LIFE: Duration = Duration::from_secs(3 * 3600);
const ACCESS_LIFE: Duration = Duration::from_secs(75 * 60);
const CALL: Duration = Duration::from_millis(50);

/// An issuer with a switch for each call; it counts, and numbers its tokens.
#[derive(Default)]
struct Fake {
    abac: AtomicBool,
    /// Gives no token for all repositories, though nothing in the refresh token said so.
    ignores_wildcard: AtomicBool,
    login_fails: Mutex<Option<Failure>>,
    access_fails: Mutex<Option<Failure>>,
    /// The refresh token that is no longer accepted.
    refuses: Mutex<Option<String>>,
    hangs: AtomicBool,
    logins: AtomicUsize,
    accesses: AtomicUsize,
    asked: Mutex<Vec<String>>,
    login_times: Mutex<Vec<Instant>>,
    access_times: Mutex<Vec<Instant>>,
}

impl Fake {
    fn counts(&self) -> (usize, usize) {
        (self.logins.load(Ordering::SeqCst), self.accesses.load(Ordering::SeqCst))
    }

    fn break_login(&self, failure: Option<Failure>) {
        *self.login_fails.lock().expect("lock") = failure;
    }

    fn break_access(&self, failure: Option<Failure>) {
        *self.access_fails.lock().expect("lock") = failure;
    }

    async fn answer(&self, failure: Option<Failure>, token: String, lifetime: Duration, abac: bool) -> CallResult {
        sleep(CALL).await;
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        match failure {
            Some(failure) => Err(failure),
            None => Ok(Granted { token: Secret::new(token), lifetime, per_repository: abac }),
        }
    }
}

#[async_trait]
impl Issuer for Fake {
    async fn login(&self) -> CallResult {
        let number = self.logins.fetch_add(1, Ordering::SeqCst);
        self.login_times.lock().expect("lock").push(Instant::now());
        let failure = self.login_fails.lock().expect("lock").clone();
        self.answer(failure, format!("refresh-{number}"), LOGIN_LIFE, self.abac.load(Ordering::SeqCst)).await
    }

    async fn access(&self, login: &Secret, repository: &str) -> CallResult {
        let number = self.accesses.fetch_add(1, Ordering::SeqCst);
        self.access_times.lock().expect("lock").push(Instant::now());
        self.asked.lock().expect("lock").push(repository.to_owned());
        let mut failure = self.access_fails.lock().expect("lock").clone();
        if self.refuses.lock().expect("lock").as_deref() == Some(login.expose()) {
            let refused = Failure::new(Hop::Token, "acr example.azurecr.io: access token: 401".to_owned());
            failure = Some(Failure { token_refused: true, ..refused });
        }
        let ignores_wildcard = repository == WILDCARD && self.ignores_wildcard.load(Ordering::SeqCst);
        self.answer(failure, format!("access-{number}"), ACCESS_LIFE, ignores_wildcard).await
    }
}

fn failure(permanent: bool) -> Failure {
    let message = "acr example.azurecr.io: token exchange: 503".to_owned();
    Failure { permanent, ..Failure::new(Hop::Exchange, message) }
}

/// A store whose background task runs against a fake issuer.
fn store(fake: Fake) -> (Arc<Tokens>, Arc<Fake>) {
    store_that_waits(DEFAULT_TOKEN_WAIT, fake)
}

fn store_that_waits(wait: Duration, fake: Fake) -> (Arc<Tokens>, Arc<Fake>) {
    let (tokens, fake) = (Arc::new(Tokens::new(wait)), Arc::new(fake));
    let (running, issuer) = (Arc::clone(&tokens), Arc::clone(&fake) as Arc<dyn Issuer>);
    tokio::spawn(async move { running.run(issuer).await });
    (tokens, fake)
}

async fn text(tokens: &Tokens, repository: &str) -> String {
    let bearer = tokens.token_for(repository, None).await.expect("a token");
    bearer.header().to_str().expect("text").to_owned()
}

/// Whether the repository has a place in the table.
fn has(tokens: &Tokens, repository: &str) -> bool {
    tokens.table.read(repository, |_| ()).is_some()
}

#[tokio::test(start_paused = true)]
async fn a_thousand_first_requests_make_one_exchange_and_one_token_call() {
    for (abac, repositories, accesses) in [(false, 1000, 1), (true, 1, 1), (true, 40, 40), (true, 1000, 1000)] {
        let fake = Fake::default();
        fake.abac.store(abac, Ordering::SeqCst);
        let (tokens, fake) = store(fake);
        let mut requests = JoinSet::new();
        for number in 0..1000 {
            let tokens = Arc::clone(&tokens);
            requests.spawn(async move { text(&tokens, &format!("hub/r{}", number % repositories)).await });
        }
        assert_eq!(requests.join_all().await.len(), 1000);
        assert_eq!(fake.counts(), (1, accesses), "abac {abac}, {repositories} repositories");
        let asked = fake.asked.lock().expect("lock").clone();
        assert!(asked.iter().all(|repository| (repository == WILDCARD) != abac), "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn both_tokens_are_renewed_before_their_end_each_by_its_own_lifetime() {
    let (tokens, fake) = store(Fake::default());
    assert_eq!(text(&tokens, "hub/x").await, "Bearer access-0");
    // A day, looked at once a minute: there is always a token and never a wait.
    for _ in 0..24 * 60 {
        sleep(Duration::from_secs(60)).await;
        let before = Instant::now();
        text(&tokens, "hub/x").await;
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
    let (logins, accesses) = fake.counts();
    // Renewal between half and two thirds of 3 h, and of 75 min.
    assert!((12..=17).contains(&logins), "{logins} sign-ins");
    assert!((28..=40).contains(&accesses), "{accesses} access tokens");
}

#[tokio::test(start_paused = true)]
async fn the_last_good_token_stays_in_use_until_its_end() {
    let (tokens, fake) = store(Fake::default());
    text(&tokens, "hub/x").await;
    fake.break_login(Some(failure(false)));
    fake.break_access(Some(failure(false)));
    sleep(ACCESS_LIFE - Duration::from_secs(2)).await;
    assert_eq!(text(&tokens, "hub/x").await, "Bearer access-0");
    sleep(Duration::from_secs(2)).await;
    assert!(tokens.token_for("hub/x", None).await.is_err(), "an ended token is not served");
    fake.break_login(None);
    fake.break_access(None);
    sleep(Duration::from_secs(60)).await;
    assert_ne!(text(&tokens, "hub/x").await, "Bearer access-0");
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_a_passing_failure_and_not_for_a_permanent_one() {
    let short = Duration::from_secs(2);
    for (wait, hangs, broken, waits, says) in [
        (DEFAULT_TOKEN_WAIT, true, None, DEFAULT_TOKEN_WAIT, None),
        (short, true, None, short, None),
        (DEFAULT_TOKEN_WAIT, false, Some(failure(true)), CALL, Some("token exchange: 503")),
    ] {
        let fake = Fake::default();
        fake.hangs.store(hangs, Ordering::SeqCst);
        let permanent = broken.as_ref().is_some_and(|failure| failure.permanent);
        fake.break_login(broken);
        let (tokens, _) = store_that_waits(wait, fake);
        let before = Instant::now();
        let unavailable = tokens.token_for("hub/x", None).await.expect_err("no token");
        assert_eq!(before.elapsed(), waits);
        assert_eq!(
            unavailable.failure.as_ref().map(|failure| failure.message.contains(says.unwrap_or_default())),
            says.map(|_| true)
        );
        assert_eq!(unavailable.retry_after, Duration::from_secs(if permanent { 30 } else { 1 }));
    }
}

#[tokio::test(start_paused = true)]
async fn failed_calls_are_repeated_with_growing_pauses() {
    for (permanent, at_most) in [(false, 120), (true, 25)] {
        let (_tokens, fake) = store(Fake { login_fails: Mutex::new(Some(failure(permanent))), ..Fake::default() });
        sleep(Duration::from_secs(600)).await;
        let (tries, _) = fake.counts();
        assert!((5..=at_most).contains(&tries), "permanent {permanent}: {tries} tries in ten minutes");
    }
}

#[tokio::test(start_paused = true)]
async fn the_table_of_repositories_is_bounded_and_idle_ones_are_evicted() {
    let fake = Fake::default();
    fake.abac.store(true, Ordering::SeqCst);
    let (tokens, fake) = store(fake);
    for number in 0..MAX_SCOPES + 10 {
        text(&tokens, &format!("hub/r{number}")).await;
    }
    assert_eq!(tokens.table.len(), MAX_SCOPES);
    assert!(!has(&tokens, "hub/r0"), "the one that was used longest ago goes first");
    // One is used every minute, the others never again: only that one is renewed.
    let accesses = fake.counts().1;
    for _ in 0..120 {
        sleep(Duration::from_secs(60)).await;
        text(&tokens, "hub/r500").await;
    }
    assert_eq!(tokens.table.len(), 1);
    assert!(fake.counts().1 - accesses <= 6, "{} renewals", fake.counts().1 - accesses);
}
