//! Tokens and refresh tokens that the registry refuses.

use super::slot::REPLACE_MEMORY;
use super::*;

const LEFT: Duration = Duration::from_secs(20);

/// The number of the token that takes the place of one that met a 401.
async fn replaced(tokens: &Tokens, seen: &Bearer) -> Result<Option<u64>, Unavailable> {
    tokens.replace("hub/x", None, seen, LEFT).await.map(|newer| newer.map(|bearer| bearer.number))
}

#[tokio::test(start_paused = true)]
async fn a_401_renews_once_for_all_who_met_it_and_not_again_at_once() {
    let (tokens, fake) = store(Fake::default());
    let seen = tokens.token_for("hub/x", None).await.expect("a token");
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        let (tokens, seen) = (Arc::clone(&tokens), Arc::clone(&seen));
        requests.spawn(async move { replaced(&tokens, &seen).await.expect("in time") });
    }
    assert_eq!(requests.join_all().await, vec![Some(2); 100]);
    assert_eq!(fake.counts(), (1, 2));
    // The fresh one is refused, too: within the memory that is the answer, after it a reason to try again.
    let fresh = tokens.token_for("hub/x", None).await.expect("a token");
    assert_eq!(replaced(&tokens, &fresh).await.expect("an answer"), None);
    assert_eq!(fake.counts(), (1, 2));
    sleep(REPLACE_MEMORY).await;
    assert_eq!(replaced(&tokens, &fresh).await.expect("in time"), Some(3));
    // Whoever comes late with the old token gets the new one without a call.
    assert_eq!(replaced(&tokens, &seen).await.expect("in time"), Some(3));
    assert_eq!(fake.counts(), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_asked_for_before_the_401_does_not_answer_it() {
    let (tokens, fake) = store(Fake::default());
    let seen = tokens.token_for("hub/x", None).await.expect("a token");
    while fake.counts().1 == 1 {
        sleep(CALL / 5).await;
    }
    // The registry takes back all that it has issued, the one that is on its way among them.
    assert_eq!(replaced(&tokens, &seen).await.expect("in time"), Some(3));
    // The same for who meets the 401 when that one is there already.
    let (tokens, fake) = store(Fake::default());
    let seen = tokens.token_for("hub/x", None).await.expect("a token");
    while text(&tokens, "hub/x").await == "Bearer access-0" {
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(replaced(&tokens, &seen).await.expect("in time"), Some(3));
    assert_eq!(fake.counts().1, 3);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_comes_too_late_is_not_reported_as_a_missing_role() {
    let (tokens, fake) = store(Fake::default());
    let seen = tokens.token_for("hub/x", None).await.expect("a token");
    fake.hangs.store(true, Ordering::SeqCst);
    for (left, waits) in [(LEFT, REPLACE_LIMIT), (CALL, CALL), (Duration::ZERO, Duration::ZERO)] {
        let before = Instant::now();
        let unavailable = tokens.replace("hub/x", None, &seen, left).await.expect_err("none in time");
        assert_eq!(before.elapsed(), waits);
        let failure = unavailable.failure.expect("words");
        assert!(failure.message.contains("a new one did not come in time"), "{failure}");
    }
    // And one that fails says why.
    let (tokens, fake) = store(Fake::default());
    let seen = tokens.token_for("hub/x", None).await.expect("a token");
    fake.break_access(Some(failure(false)));
    let unavailable = replaced(&tokens, &seen).await.expect_err("none in time");
    assert!(unavailable.failure.is_some_and(|failure| failure.message.contains("503")));
}

/// A repository's token that no request uses is evicted. This one is so young that the wait for the next one is most of its
/// life.
#[tokio::test(start_paused = true)]
async fn a_repositorys_token_is_not_evicted_while_a_request_waits_for_the_next_one() {
    let fake = Fake::default();
    fake.abac.store(true, Ordering::SeqCst);
    let (tokens, fake) = store(fake);
    let seen = tokens.token_for("hub/x", None).await.expect("a token");
    fake.break_access(Some(failure(false)));
    let waits = tokio::spawn({
        let tokens = Arc::clone(&tokens);
        async move { replaced(&tokens, &seen).await }
    });
    sleep(CALL).await;
    fake.break_access(None);
    assert_eq!(waits.await.expect("it ends").expect("in time"), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_request_without_time_still_reports_its_401() {
    let (tokens, fake) = store(Fake::default());
    let seen = tokens.token_for("hub/x", None).await.expect("a token");
    assert!(tokens.replace("hub/x", None, &seen, Duration::ZERO).await.is_err());
    sleep(2 * CALL).await;
    assert_eq!(fake.counts(), (1, 2));
    assert_eq!(text(&tokens, "hub/x").await, "Bearer access-1");
    // A token that is there by now comes too late for who has no time to send it.
    assert!(tokens.replace("hub/x", None, &seen, Duration::ZERO).await.is_err());
    assert!(tokens.replace("hub/x", None, &seen, CALL).await.is_ok_and(|newer| newer.is_some()));
}

#[tokio::test(start_paused = true)]
async fn a_refused_refresh_token_means_a_new_sign_in() {
    let (tokens, fake) = store(Fake::default());
    text(&tokens, "hub/x").await;
    sleep(Duration::from_secs(60)).await;
    let seen = tokens.token_for("hub/x", None).await.expect("a token");
    fake.break_access(Some(Failure { token_refused: true, ..Failure::new(Hop::Token, "401".to_owned()) }));
    assert!(replaced(&tokens, &seen).await.is_err());
    assert!(fake.counts().0 >= 2, "signed in again: {:?}", fake.counts());
    fake.break_access(None);
    sleep(Duration::from_secs(60)).await;
    assert!(replaced(&tokens, &seen).await.expect("in time").is_some());
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_the_sign_in_after_a_refused_refresh_token() {
    for abac in [false, true] {
        let fake = Fake::default();
        fake.abac.store(abac, Ordering::SeqCst);
        let (tokens, fake) = store(fake);
        text(&tokens, "hub/x").await;
        sleep(Duration::from_secs(60)).await;
        let seen = tokens.token_for("hub/x", None).await.expect("a token");
        *fake.refuses.lock().expect("lock") = Some("refresh-0".to_owned());
        // All their calls are under way with the old one.
        let mut requests = JoinSet::new();
        for number in 0..8 {
            let (tokens, seen) = (Arc::clone(&tokens), Arc::clone(&seen));
            requests.spawn(async move {
                match abac {
                    true => tokens.token_for(&format!("hub/r{number}"), None).await.map(|_| ()),
                    false => tokens.replace("hub/x", None, &seen, LEFT).await.map(|newer| assert!(newer.is_some())),
                }
            });
        }
        let before = Instant::now();
        for answer in requests.join_all().await {
            answer.expect("a token");
        }
        assert_eq!(before.elapsed(), 3 * CALL, "refused, signed in, granted");
        assert_eq!(fake.counts().0, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn one_token_of_the_repositorys_own_answers_all_who_met_the_401_of_one_for_all() {
    let (tokens, fake) = store(Fake::default());
    text(&tokens, "hub/x").await;
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        let tokens = Arc::clone(&tokens);
        requests.spawn(async move {
            tokens.repository_token("hub/x", None, LEFT).await.expect("in time").map(|own| own.number)
        });
    }
    assert_eq!(requests.join_all().await, vec![Some(2); 100]);
    assert_eq!(fake.asked.lock().expect("lock").clone(), ["*", "hub/x"]);
    // Until the registry has accepted it nothing changes for anybody.
    assert_eq!((text(&tokens, "hub/x").await, text(&tokens, "hub/y").await), twice("Bearer access-0"));
    tokens.accepted(&tokens.repository_token("hub/x", None, LEFT).await.expect("in time").expect("the same"));
    assert_eq!(text(&tokens, "hub/x").await, "Bearer access-1");
    assert_eq!(text(&tokens, "hub/y").await, "Bearer access-2");
}

fn twice(text: &str) -> (String, String) {
    (text.to_owned(), text.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_request_with_a_token_for_all_continues_with_its_repositorys_own() {
    let (tokens, _) = store(Fake::default());
    let seen = tokens.token_for("hub/y", None).await.expect("a token");
    // Not even a fresh one for all is the last word then.
    let fresh = tokens.replace("hub/y", None, &seen, LEFT).await.expect("in time").expect("a newer one");
    tokens.accepted(&tokens.repository_token("hub/x", None, LEFT).await.expect("in time").expect("its own"));
    for seen in [seen, fresh] {
        let own = tokens.replace("hub/y", None, &seen, LEFT).await.expect("in time").expect("one of its own");
        assert!(own.is_own());
    }
}

/// A cache rule with an unhealthy credential set answers 401 to every token.
#[tokio::test(start_paused = true)]
async fn a_repositorys_own_token_that_is_refused_as_well_is_asked_for_again_after_half_a_minute() {
    let (tokens, fake) = store(Fake::default());
    text(&tokens, "hub/x").await;
    let own = tokens.repository_token("hub/x", None, LEFT).await.expect("in time").expect("its own");
    tokens.rejected(&own);
    for _ in 0..10 {
        assert!(tokens.repository_token("hub/x", None, LEFT).await.expect("an answer").is_none());
        sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(fake.counts(), (1, 2));
    sleep(REPLACE_MEMORY).await;
    let newer = tokens.repository_token("hub/x", None, LEFT).await.expect("in time").expect("a newer one");
    assert!(newer.number > own.number);
    assert_eq!(fake.counts(), (1, 3));
    // No request pulls it any more, so its token is evicted when its renewal is due.
    sleep(ACCESS_LIFE).await;
    assert_eq!(tokens.table.len(), 0);
}
