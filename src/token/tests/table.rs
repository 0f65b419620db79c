use tokio::task::JoinSet;

use super::*;

fn abac() -> (Arc<Tokens>, Arc<Fake>) {
    let fake = Fake::default();
    fake.abac.store(true, Ordering::SeqCst);
    store(fake)
}

#[tokio::test(start_paused = true)]
async fn of_a_full_table_the_least_recently_used_goes_first() {
    let (tokens, _) = abac();
    for number in 0..MAX_SCOPES {
        text(&tokens, &format!("hub/r{number}")).await;
    }
    sleep(Duration::from_secs(1)).await;
    text(&tokens, "hub/r0").await;
    text(&tokens, "hub/new").await;
    let kept = tokens.repositories.load();
    assert_eq!(kept.len(), MAX_SCOPES);
    assert!(kept.contains_key("hub/r0") && kept.contains_key("hub/new"));
    assert!(!kept.contains_key("hub/r1"), "used longest ago");
}

#[tokio::test(start_paused = true)]
async fn more_first_requests_than_the_table_has_places_are_all_served() {
    let (tokens, _) = abac();
    let mut requests = JoinSet::new();
    for number in 0..MAX_SCOPES + 100 {
        let tokens = Arc::clone(&tokens);
        requests.spawn(async move { tokens.bearer(&format!("hub/r{number}")).await.is_ok() });
    }
    let served = requests.join_all().await.into_iter().filter(|served| *served).count();
    assert_eq!(served, MAX_SCOPES + 100);
    assert!(tokens.repositories.load().len() <= MAX_SCOPES);
}

#[tokio::test(start_paused = true)]
async fn a_wildcard_that_is_ignored_in_silence_means_one_token_a_repository() {
    let fake = Fake::default();
    fake.narrow.store(true, Ordering::SeqCst);
    let (tokens, fake) = store(fake);
    for _ in 0..3 {
        for name in ["hub/x", "hub/y"] {
            text(&tokens, name).await;
        }
    }
    let scopes = fake.scopes.lock().expect("lock").clone();
    assert_eq!(scopes, ["repository:*:pull", "repository:hub/x:pull", "repository:hub/y:pull"]);
}

#[tokio::test(start_paused = true)]
async fn one_repositorys_failure_is_not_anothers() {
    let (tokens, fake) = abac();
    text(&tokens, "hub/x").await;
    fake.break_access(Some(failure(true)));
    assert!(tokens.bearer("hub/y").await.is_err());
    assert_eq!(text(&tokens, "hub/x").await, "Bearer access-0");
}

#[tokio::test(start_paused = true)]
async fn a_repository_that_is_asked_for_during_an_outage_is_not_idle() {
    let (tokens, fake) = abac();
    text(&tokens, "hub/x").await;
    fake.break_access(Some(failure(false)));
    for _ in 0..4 * 75 {
        sleep(Duration::from_secs(60)).await;
        let _ = tokens.bearer("hub/x").await;
    }
    // Let go and taken up again, it would be asked for at once, whatever pause its failures had come to.
    let times = fake.access_times.lock().expect("lock").clone();
    let late = times.iter().rev().take(200).collect::<Vec<_>>();
    let quick = late.windows(2).filter(|pair| *pair[0] - *pair[1] < Duration::from_millis(60)).count();
    assert_eq!(quick, 0);
}

/// A name that somebody made up, or that the identity may not pull, is not asked for for ever.
#[tokio::test(start_paused = true)]
async fn a_repository_that_never_had_a_token_is_let_go_when_nobody_asks() {
    for permanent in [true, false] {
        let (tokens, fake) = abac();
        text(&tokens, "hub/x").await;
        fake.break_access(Some(failure(permanent)));
        assert!(tokens.bearer("hub/invented").await.is_err());
        // Whoever was told to wait comes back and finds the pause that its failures have come to.
        sleep(Duration::from_secs(30)).await;
        assert!(tokens.bearer("hub/invented").await.is_err());
        assert!(tokens.repositories.load().contains_key("hub/invented"));
        sleep(Duration::from_secs(180)).await;
        assert!(!tokens.repositories.load().contains_key("hub/invented"), "permanent {permanent}");
        let calls = fake.counts().1;
        sleep(Duration::from_secs(600)).await;
        assert_eq!(fake.counts().1, calls, "permanent {permanent}");
    }
}

#[tokio::test(start_paused = true)]
async fn invented_names_push_out_no_repository_that_has_a_token() {
    let (tokens, fake) = abac();
    text(&tokens, "hub/x").await;
    fake.break_access(Some(failure(true)));
    for batch in 0..6 {
        let mut requests = JoinSet::new();
        for number in 0..MAX_SCOPES / 4 {
            let tokens = Arc::clone(&tokens);
            requests.spawn(async move { tokens.bearer(&format!("hub/invented{batch}-{number}")).await.is_err() });
        }
        assert!(requests.join_all().await.into_iter().all(|told| told));
    }
    assert_eq!(tokens.repositories.load().len(), MAX_SCOPES);
    assert_eq!(text(&tokens, "hub/x").await, "Bearer access-0");
}
