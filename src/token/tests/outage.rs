//! Failures that last, and tokens that outlast them.

use super::backoff::WAITED_OUT;
use super::*;

#[tokio::test(start_paused = true)]
async fn an_outage_that_ends_before_the_token_does_is_invisible() {
    // After it the calls are repeated within half a minute, or within a minute if they were refused.
    for (permanent, pause) in [(false, 35), (true, 65)] {
        for (login, access) in [(true, false), (false, true), (true, true)] {
            let (tokens, fake) = store(Fake::default());
            text(&tokens, "hub/x").await;
            for _ in 0..3 {
                // The worst case: it begins as soon as there is a new token.
                let issued = fake.counts().1;
                while fake.counts().1 == issued {
                    sleep(Duration::from_secs(1)).await;
                }
                fake.break_login(login.then(|| failure(permanent)));
                fake.break_access(access.then(|| failure(permanent)));
                let rest = ACCESS_LIFE - Duration::from_secs(pause);
                let ends = Instant::now() + rest;
                while Instant::now() < ends + Duration::from_secs(pause) {
                    if Instant::now() >= ends {
                        fake.break_login(None);
                        fake.break_access(None);
                    }
                    let before = Instant::now();
                    text(&tokens, "hub/x").await;
                    assert_eq!(before.elapsed(), Duration::ZERO);
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_hop_waits_as_long_as_the_server_asks() {
    let asked = Duration::from_secs(120);
    let limited = || Some(Failure { retry_after: Some(asked), ..failure(false) });
    for (login, access) in [(true, false), (false, true)] {
        let (_tokens, fake) = store(Fake {
            login_fails: Mutex::new(limited().filter(|_| login)),
            access_fails: Mutex::new(limited().filter(|_| access)),
            ..Fake::default()
        });
        sleep(Duration::from_secs(1200)).await;
        let times = if login { fake.login_times.lock() } else { fake.access_times.lock() }.expect("lock").clone();
        assert!((9..=10).contains(&times.len()), "{} tries in twenty minutes", times.len());
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= asked), "{times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_are_random_up_to_a_bound_that_grows_to_its_ceiling() {
    let (_tokens, fake) = store(Fake { login_fails: Mutex::new(Some(failure(false))), ..Fake::default() });
    sleep(Duration::from_secs(4 * 3600)).await;
    let times = fake.login_times.lock().expect("lock").clone();
    let pauses: Vec<_> = times.windows(2).map(|pair| (pair[1] - pair[0] - CALL).as_secs_f64()).collect();
    let mut elapsed = 0.0;
    for (number, pause) in pauses.iter().enumerate() {
        // Requests wait for the first half minute of a failure, so its calls follow each other quickly.
        let bound = if elapsed < WAITED_OUT.as_secs_f64() { [0.5, 1.0, 2.0][number.min(2)] } else { 30.0 };
        // Timers are a millisecond late at most.
        assert!((0.1..=bound + 0.002).contains(pause), "{pause} s, bound {bound} s");
        elapsed += pause + CALL.as_secs_f64();
    }
    let late = &pauses[pauses.len() / 4..];
    for tenth in 0..10 {
        let (low, high) = (f64::from(tenth) * 3.0, f64::from(tenth + 1) * 3.0);
        assert!(
            late.iter().any(|pause| (low..high).contains(pause)),
            "no pause of {low} to {high} s in {}",
            late.len()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_ends_during_an_outage_is_reported_at_once() {
    let (tokens, fake) = store(Fake::default());
    text(&tokens, "hub/x").await;
    fake.break_login(Some(failure(true)));
    fake.break_access(Some(Failure { message: "access token: 503".to_owned(), ..failure(false) }));
    sleep(LOGIN_LIFE + Duration::from_millis(200)).await;
    let before = Instant::now();
    let unavailable = tokens.token_for("hub/x", None).await.expect_err("no token");
    assert!(before.elapsed() <= CALL, "{:?}", before.elapsed());
    let failure = unavailable.failure.expect("a reason");
    assert!(failure.message.contains("token exchange: 503"), "the hop that everything hangs on: {failure}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_the_registry_stops_the_calls_for_every_repository() {
    let asked = Duration::from_secs(60);
    let fake = Fake::default();
    fake.abac.store(true, Ordering::SeqCst);
    let (tokens, fake) = store(fake);
    text(&tokens, "hub/x").await;
    let seen = tokens.token_for("hub/x", None).await.expect("a token");
    let limited = Failure::new(Hop::Token, "acr example.azurecr.io: access token: 429".to_owned());
    fake.break_access(Some(Failure { limited: true, retry_after: Some(asked), ..limited }));
    assert!(tokens.token_for("hub/y", None).await.is_err());
    let (begun, calls) = (Instant::now(), fake.counts().1);
    fake.break_access(None);
    // Neither a new repository nor one whose token was refused causes a call; a request is answered at once, and what is
    // there is served.
    for number in 0..20 {
        let unavailable = tokens.token_for(&format!("hub/new{number}"), None).await.expect_err("no call is made");
        assert!(unavailable.failure.is_some_and(|failure| failure.message.contains("429")));
        assert_eq!(unavailable.retry_after, Duration::from_secs(30));
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(tokens.replace("hub/x", None, &seen, Duration::from_secs(1)).await.is_err());
    text(&tokens, "hub/x").await;
    let readiness = tokens.readiness();
    assert!(readiness.ready && readiness.failure.is_some_and(|failure| failure.message.contains("429")));
    sleep(asked - begun.elapsed() - CALL).await;
    assert_eq!(fake.counts().1, calls);
    sleep(Duration::from_secs(2)).await;
    text(&tokens, "hub/new0").await;
    assert!(tokens.readiness().failure.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_401_does_not_shorten_the_pause_after_failures() {
    let (tokens, fake) = store(Fake::default());
    let seen = tokens.token_for("hub/x", None).await.expect("a token");
    fake.break_access(Some(Failure { retry_after: Some(Duration::from_secs(60)), ..failure(false) }));
    while fake.counts().1 == 1 {
        sleep(Duration::from_secs(1)).await;
    }
    sleep(2 * CALL).await;
    for _ in 0..25 {
        assert!(tokens.replace("hub/x", None, &seen, Duration::from_secs(2)).await.is_err());
        sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(fake.counts().1, 2, "the renewal that failed");
    sleep(Duration::from_secs(12)).await;
    assert_eq!(fake.counts().1, 3, "and one after the pause");
}

/// When a machine starts, its identity endpoint says 404, 410 or 500 for some seconds.
#[tokio::test(start_paused = true)]
async fn the_first_pull_waits_for_a_failure_that_passes() {
    for abac in [false, true] {
        for (login, access) in [(true, false), (false, true)] {
            let fake = Fake { login_fails: Mutex::new(login.then(|| failure(false))), ..Fake::default() };
            fake.abac.store(abac, Ordering::SeqCst);
            fake.break_access(access.then(|| failure(false)));
            let (tokens, fake) = store(fake);
            let begun = Instant::now();
            let waiting = Arc::clone(&tokens);
            let pull = tokio::spawn(async move { waiting.token_for("hub/x", None).await.is_ok() });
            sleep(Duration::from_secs(5)).await;
            fake.break_login(None);
            fake.break_access(None);
            assert!(pull.await.expect("no panic"), "abac {abac}, login {login}");
            assert!(begun.elapsed() <= DEFAULT_TOKEN_WAIT, "{:?}", begun.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_half_a_minute_is_answered_at_once() {
    for abac in [false, true] {
        for (login, access) in [(true, false), (false, true)] {
            let fake = Fake { login_fails: Mutex::new(login.then(|| failure(false))), ..Fake::default() };
            fake.abac.store(abac, Ordering::SeqCst);
            fake.break_access(access.then(|| failure(false)));
            let (tokens, _) = store(fake);
            assert!(tokens.token_for("hub/x", None).await.is_err());
            sleep(WAITED_OUT).await;
            for name in ["hub/x", "hub/another"] {
                let before = Instant::now();
                assert!(tokens.token_for(name, None).await.is_err());
                // A repository that is new to the outage has one try of its own.
                assert!(before.elapsed() <= CALL, "{name}: {:?}, abac {abac}, login {login}", before.elapsed());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_request_waits_for_a_call_that_is_due_after_its_deadline() {
    let limited = Failure { retry_after: Some(Duration::from_secs(60)), ..failure(false) };
    let (tokens, _) = store(Fake { login_fails: Mutex::new(Some(limited)), ..Fake::default() });
    let before = Instant::now();
    assert!(tokens.token_for("hub/x", None).await.is_err());
    assert_eq!(before.elapsed(), CALL);
    // Without such a pause there is more than one try within the wait.
    let (tokens, fake) = store(Fake { login_fails: Mutex::new(Some(failure(false))), ..Fake::default() });
    let before = Instant::now();
    assert!(tokens.token_for("hub/x", None).await.is_err());
    assert!(before.elapsed() <= DEFAULT_TOKEN_WAIT && fake.counts().0 >= 4, "{:?}", fake.counts());
}
