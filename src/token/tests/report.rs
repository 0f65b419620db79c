//! What is logged, and how often.

use std::cell::RefCell;
use std::sync::Once;

use super::*;

thread_local! {
    /// What this test's thread has logged; a paused runtime has one thread.
    static LOGGED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Recorder;

impl log::Log for Recorder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, line: &log::Record<'_>) {
        LOGGED.with_borrow_mut(|logged| logged.push(format!("{} {}", line.level(), line.args())));
    }

    fn flush(&self) {}
}

/// From here on, what this thread logs is recorded.
fn record() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Recorder).expect("the only logger of these tests");
        log::set_max_level(log::LevelFilter::Trace);
    });
}

fn logged() -> Vec<String> {
    LOGGED.take()
}

fn refused(text: &str) -> Option<Failure> {
    Some(Failure { message: format!("acr example.azurecr.io: {text}"), ..failure(true) })
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_logged_once_and_a_different_one_again() {
    record();
    let (tokens, fake) = store(Fake { login_fails: Mutex::new(refused("token exchange: 401")), ..Fake::default() });
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(logged(), ["WARN acr example.azurecr.io: token exchange: 401"]);
    fake.break_login(refused("token exchange: 503"));
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(logged(), ["WARN acr example.azurecr.io: token exchange: 503"]);
    fake.break_login(None);
    sleep(Duration::from_secs(120)).await;
    text(&tokens, "hub/x").await;
    assert_eq!(logged(), ["INFO registry token: signed in again"]);
    sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!(logged(), [""; 0]);
}

/// As where one call finds no connection, and the next one no answer. Each was logged again at each change.
#[tokio::test(start_paused = true)]
async fn failures_that_take_turns_are_logged_once_each_until_it_is_over() {
    record();
    let (tokens, fake) = store(Fake { login_fails: Mutex::new(refused("no connection")), ..Fake::default() });
    let turn = async || {
        for said in ["no answer in time", "no connection", "no answer in time", "no connection"] {
            sleep(Duration::from_secs(3600)).await;
            fake.break_login(refused(said));
        }
        sleep(Duration::from_secs(3600)).await;
    };
    turn().await;
    let expected = ["WARN acr example.azurecr.io: no connection", "WARN acr example.azurecr.io: no answer in time"];
    assert_eq!(logged(), expected);
    fake.break_login(None);
    sleep(Duration::from_secs(120)).await;
    text(&tokens, "hub/x").await;
    fake.break_access(refused("no connection"));
    sleep(Duration::from_secs(24 * 3600)).await;
    fake.break_access(refused("no answer in time"));
    sleep(Duration::from_secs(24 * 3600)).await;
    fake.break_access(refused("no connection"));
    sleep(Duration::from_secs(24 * 3600)).await;
    let (again, first) = ("INFO registry token: signed in again".to_owned(), logged());
    assert_eq!(first, [&[again][..], &expected.map(str::to_owned)].concat());
}

/// Each response of Azure's has an id or a time of its own.
#[tokio::test(start_paused = true)]
async fn the_same_refusal_with_a_new_correlation_id_is_not_logged_again() {
    record();
    for (one, other) in [
        (
            "token exchange: 403 DENIED: client with IP '192.0.2.1' is not allowed. CorrelationId: 4b9d2c55-7d5f-4a52-9d0e-0c1e5a7a8f01",
            "token exchange: 403 DENIED: client with IP '192.0.2.1' is not allowed. CorrelationId: 0e2f1f6c-2f0b-4f36-8a0e-5a7d1b1c9e02",
        ),
        (
            "client secret: 401: AADSTS7000215: Invalid. Trace ID: 8f2a1f6c-2f0b-4f36-8a0e-5a7d1b1c9e02 Timestamp: 2026-11-24 12:00:00Z",
            "client secret: 401: AADSTS7000215: Invalid. Trace ID: 1c2a1f6c-2f0b-4f36-8a0e-5a7d1b1c9e03 Timestamp: 2026-11-24 12:01:07Z",
        ),
    ] {
        let (_tokens, fake) = store(Fake { login_fails: Mutex::new(refused(one)), ..Fake::default() });
        for said in [other, one, other] {
            sleep(Duration::from_secs(120)).await;
            fake.break_login(refused(said));
        }
        sleep(Duration::from_secs(120)).await;
        assert_eq!(logged().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_access_token_does_not_end_the_report_of_a_failing_sign_in() {
    record();
    let (tokens, fake) = store(Fake::default());
    text(&tokens, "hub/x").await;
    fake.break_login(refused("token exchange: 401"));
    // The refresh token still gives access tokens, whose renewals come and go.
    sleep(LOGIN_LIFE.mul_f64(0.95)).await;
    assert!(fake.counts().1 > 2);
    assert_eq!(logged(), ["WARN acr example.azurecr.io: token exchange: 401"]);
    fake.break_login(None);
    sleep(Duration::from_secs(120)).await;
    assert_eq!(logged(), ["INFO registry token: signed in again"]);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_scopes_that_fail_alike_are_logged_once() {
    record();
    let fake = Fake::default();
    fake.abac.store(true, Ordering::SeqCst);
    let (tokens, fake) = store(fake);
    text(&tokens, "hub/good").await;
    logged();
    fake.break_access(refused("access token: 403"));
    for number in 0..1000 {
        assert!(tokens.token_for(&format!("hub/r{number}"), None).await.is_err());
    }
    // A scope that works meanwhile does not end the report of the others.
    fake.break_access(None);
    text(&tokens, "hub/other").await;
    fake.break_access(refused("access token: 403"));
    sleep(Duration::from_secs(300)).await;
    assert_eq!(logged(), ["WARN acr example.azurecr.io: access token: 403"]);
}
