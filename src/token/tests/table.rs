//! Which scopes keep their token.

use tokio::task::JoinSet;

use super::pending::MAX_WAITING;
use super::refresh::MAX_FAILED;
use super::*;

fn abac() -> (Arc<Tokens>, Arc<Fake>) {
    let fake = Fake::default();
    fake.abac.store(true, Ordering::SeqCst);
    store(fake)
}

#[tokio::test(start_paused = true)]
async fn a_full_table_evicts_the_least_recently_used() {
    let (tokens, _) = abac();
    for number in 0..MAX_SCOPES {
        text(&tokens, &format!("hub/r{number}")).await;
    }
    sleep(Duration::from_secs(1)).await;
    text(&tokens, "hub/r0").await;
    text(&tokens, "hub/new").await;
    assert_eq!(tokens.table.len(), MAX_SCOPES);
    assert!(has(&tokens, "hub/r0") && has(&tokens, "hub/new"));
    assert!(!has(&tokens, "hub/r1"), "used longest ago");
}

#[tokio::test(start_paused = true)]
async fn more_first_requests_than_the_table_has_places_are_all_served() {
    let (tokens, _) = abac();
    let mut requests = JoinSet::new();
    for number in 0..MAX_SCOPES + 100 {
        let tokens = Arc::clone(&tokens);
        requests.spawn(async move { tokens.token_for(&format!("hub/r{number}"), None).await.is_ok() });
    }
    let served = requests.join_all().await.into_iter().filter(|served| *served).count();
    assert_eq!(served, MAX_SCOPES + 100);
    assert!(tokens.table.len() <= MAX_SCOPES);
}

#[tokio::test(start_paused = true)]
async fn a_wildcard_that_is_ignored_in_silence_means_one_token_a_repository() {
    let fake = Fake::default();
    fake.ignores_wildcard.store(true, Ordering::SeqCst);
    let (tokens, fake) = store(fake);
    for _ in 0..3 {
        for name in ["hub/x", "hub/y"] {
            text(&tokens, name).await;
        }
    }
    let asked = fake.asked.lock().expect("lock").clone();
    assert_eq!(asked, ["*", "hub/x", "hub/y"]);
}

#[tokio::test(start_paused = true)]
async fn one_repositorys_failure_does_not_affect_another() {
    let (tokens, fake) = abac();
    text(&tokens, "hub/x").await;
    fake.break_access(Some(failure(true)));
    assert!(tokens.token_for("hub/y", None).await.is_err());
    assert_eq!(text(&tokens, "hub/x").await, "Bearer access-0");
}

#[tokio::test(start_paused = true)]
async fn a_repository_that_is_asked_for_during_an_outage_is_not_idle() {
    let (tokens, fake) = abac();
    text(&tokens, "hub/x").await;
    fake.break_access(Some(failure(false)));
    for _ in 0..4 * 75 {
        sleep(Duration::from_secs(60)).await;
        let _ = tokens.token_for("hub/x", None).await;
    }
    // Let go and taken up again, it would be asked for at once, whatever pause its failures had come to.
    let times = fake.access_times.lock().expect("lock").clone();
    let late = times.iter().rev().take(200).collect::<Vec<_>>();
    let quick = late.windows(2).filter(|pair| *pair[0] - *pair[1] < Duration::from_millis(60)).count();
    assert_eq!(quick, 0);
}

/// A name that somebody made up, or that the identity may not pull, is not asked for for ever.
#[tokio::test(start_paused = true)]
async fn a_repository_that_never_had_a_token_is_evicted_when_no_request_asks() {
    for permanent in [true, false] {
        let (tokens, fake) = abac();
        text(&tokens, "hub/x").await;
        fake.break_access(Some(failure(permanent)));
        assert!(tokens.token_for("hub/invented", None).await.is_err());
        // Whoever was told to wait comes back and finds the pause that its failures have come to.
        sleep(Duration::from_secs(30)).await;
        assert!(tokens.token_for("hub/invented", None).await.is_err());
        assert_eq!(tokens.pending().len(), 1);
        sleep(Duration::from_secs(180)).await;
        assert_eq!(tokens.pending().len(), 0, "permanent {permanent}");
        let calls = fake.counts().1;
        sleep(Duration::from_secs(600)).await;
        assert_eq!(fake.counts().1, calls, "permanent {permanent}");
    }
}

#[tokio::test(start_paused = true)]
async fn refused_invented_names_evict_no_repository_with_a_token() {
    let (tokens, fake) = abac();
    text(&tokens, "hub/x").await;
    fake.break_access(Some(failure(true)));
    for batch in 0..6 {
        let mut requests = JoinSet::new();
        for number in 0..MAX_SCOPES / 4 {
            let tokens = Arc::clone(&tokens);
            requests
                .spawn(async move { tokens.token_for(&format!("hub/invented{batch}-{number}"), None).await.is_err() });
        }
        assert!(requests.join_all().await.into_iter().all(|told| told));
    }
    assert!(tokens.pending().len() <= MAX_FAILED, "{}", tokens.pending().len());
    assert_eq!(text(&tokens, "hub/x").await, "Bearer access-0");
}

/// More invented names than the table has places, under way at once: who has a good token gets it at once.
#[tokio::test(start_paused = true)]
async fn invented_names_under_way_evict_no_valid_token() {
    let (tokens, fake) = abac();
    let real: Vec<_> = (0..40).map(|number| format!("hub/real{number}")).collect();
    for name in &real {
        text(&tokens, name).await;
        tokens.accepted(&tokens.token_for(name, None).await.expect("a token"));
    }
    let mut requests = JoinSet::new();
    for number in 0..3 * MAX_SCOPES {
        let tokens = Arc::clone(&tokens);
        // The registry does not say that a name is invented: it has a token for each.
        requests.spawn(async move { tokens.token_for(&format!("hub/invented{number}"), None).await.is_ok() });
    }
    let flood = Instant::now();
    while fake.counts().1 < real.len() + 2 * MAX_SCOPES {
        sleep(CALL).await;
        let asked = Instant::now();
        for (number, name) in real.iter().enumerate() {
            assert_eq!(text(&tokens, name).await, format!("Bearer access-{number}"));
        }
        assert_eq!(asked.elapsed(), Duration::ZERO, "no wait for a token that is there");
    }
    assert!(tokens.table.len() <= MAX_SCOPES, "{}", tokens.table.len());
    assert!(flood.elapsed() < DEFAULT_TOKEN_WAIT);
    requests.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn first_calls_are_made_in_order_of_arrival() {
    let (tokens, fake) = abac();
    text(&tokens, "hub/x").await;
    let mut requests = JoinSet::new();
    for number in 0..2 * MAX_SCOPES {
        let tokens = Arc::clone(&tokens);
        requests.spawn(async move { tokens.token_for(&format!("hub/r{number}"), None).await.is_ok() });
    }
    // Joined by a thousand others that ask for one of them and wait no longer than it takes.
    for _ in 0..1000 {
        let tokens = Arc::clone(&tokens);
        requests.spawn(async move { tokens.token_for("hub/r7", None).await.is_ok() });
    }
    assert!(requests.join_all().await.into_iter().all(|served| served));
    let asked = fake.asked.lock().expect("lock").clone();
    let expected = (0..2 * MAX_SCOPES).map(|number| format!("hub/r{number}"));
    assert!(asked.iter().skip(1).eq(expected.collect::<Vec<_>>().iter()), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_does_not_wait_for_first_calls() {
    let (tokens, fake) = abac();
    let seen = tokens.token_for("hub/x", None).await.expect("a token");
    fake.hangs.store(true, Ordering::SeqCst);
    let mut requests = JoinSet::new();
    for number in 0..MAX_SCOPES {
        let tokens = Arc::clone(&tokens);
        requests.spawn(async move { tokens.token_for(&format!("hub/invented{number}"), None).await.is_ok() });
    }
    sleep(2 * CALL).await;
    fake.hangs.store(false, Ordering::SeqCst);
    let newer = tokens.replace("hub/x", None, &seen, Duration::from_secs(1)).await.expect("in time");
    assert!(newer.is_some());
}

#[tokio::test(start_paused = true)]
async fn repositories_whose_requests_have_gone_cause_no_call() {
    let (tokens, fake) = abac();
    text(&tokens, "hub/x").await;
    let mut requests = JoinSet::new();
    for number in 0..MAX_SCOPES {
        let tokens = Arc::clone(&tokens);
        requests.spawn(async move { tokens.token_for(&format!("hub/invented{number}"), None).await.is_ok() });
    }
    sleep(CALL / 2).await;
    requests.shutdown().await;
    let before = Instant::now();
    text(&tokens, "hub/real").await;
    assert!(before.elapsed() <= 2 * CALL, "{:?}", before.elapsed());
    assert!(fake.counts().1 < 20, "{:?}", fake.counts());
}

/// All of a full table are in use. Whoever comes has its token and takes no place.
#[tokio::test(start_paused = true)]
async fn a_full_table_of_tokens_in_use_evicts_none() {
    let (tokens, fake) = abac();
    for number in 0..MAX_SCOPES {
        tokens.accepted(&tokens.token_for(&format!("hub/r{number}"), None).await.expect("a token"));
    }
    for _ in 0..3 {
        text(&tokens, "hub/new").await;
    }
    assert_eq!((tokens.table.len(), tokens.pending().len()), (MAX_SCOPES, 0));
    assert_eq!(fake.counts().1, MAX_SCOPES + 3);
    // One that nobody has used for long makes room.
    sleep(Duration::from_secs(301)).await;
    text(&tokens, "hub/new").await;
    assert!(has(&tokens, "hub/new"));
}

/// The registry says nothing of a name that nobody has pulled: it gives a token for each.
#[tokio::test(start_paused = true)]
async fn accepted_tokens_outlast_those_of_invented_names() {
    let (tokens, _) = abac();
    for number in 0..40 {
        tokens.accepted(&tokens.token_for(&format!("hub/real{number}"), None).await.expect("a token"));
    }
    sleep(Duration::from_secs(1)).await;
    // Each of these is used later than any of the real ones.
    for number in 0..3 * MAX_SCOPES {
        text(&tokens, &format!("hub/invented{number}")).await;
    }
    assert_eq!(tokens.table.len(), MAX_SCOPES);
    assert!((0..40).all(|number| has(&tokens, &format!("hub/real{number}"))));
}

/// One client asks for more invented names than there are calls in the time that a request waits. Until each client had turns of its
/// own, nobody else got a first token: those went to requests that had waited for almost all of their time.
#[tokio::test(start_paused = true)]
async fn one_clients_invented_names_kept_all_others_from_a_first_token() {
    let (one, other) = (Some(Client::V4(1)), Some(Client::V4(2)));
    for theirs in ["hub/real", "hub/invented2999"] {
        let (tokens, _) = abac();
        text(&tokens, "hub/x").await;
        let mut requests = JoinSet::new();
        for number in 0..3000 {
            let tokens = Arc::clone(&tokens);
            requests.spawn(async move { tokens.token_for(&format!("hub/invented{number}"), one).await.is_ok() });
        }
        sleep(CALL / 2).await;
        let asked = Instant::now();
        assert!(tokens.token_for(theirs, other).await.is_ok(), "{theirs}");
        assert!(asked.elapsed() <= 2 * CALL, "{theirs}: {:?}", asked.elapsed());
        requests.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_client_leaves_a_quarter_of_the_queue_to_others() {
    let (tokens, fake) = abac();
    text(&tokens, "hub/x").await;
    fake.hangs.store(true, Ordering::SeqCst);
    let mut requests = JoinSet::new();
    for number in 0..2 * MAX_WAITING {
        let tokens = Arc::clone(&tokens);
        let name = format!("hub/invented{number}");
        requests.spawn(async move { tokens.token_for(&name, Some(Client::V4(1))).await.is_err() });
    }
    sleep(CALL).await;
    let mut refused = 0;
    while requests.try_join_next().is_some() {
        refused += 1;
    }
    let waiting = requests.len();
    assert_eq!(refused + waiting, 2 * MAX_WAITING);
    assert!(
        (MAX_WAITING / 2..=MAX_WAITING / 4 * 3 + 12).contains(&waiting),
        "{waiting} wait, the others are told at once"
    );
    let asked = Instant::now();
    assert!(tokens.token_for("hub/real", Some(Client::V4(2))).await.is_err());
    assert_eq!(asked.elapsed(), DEFAULT_TOKEN_WAIT, "another client may wait");
    assert!(tokens.token_for("hub/invented4", Some(Client::V4(1))).await.is_err());
    requests.shutdown().await;
}
