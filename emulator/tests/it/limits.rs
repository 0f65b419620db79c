//! Rate limits, and how a test counts what reached the registry.

use std::time::Duration;

use acr_emulator::{Fault, Hop, Options, RateLimits};

use crate::azure::{Azure, INDEX, REGISTRY, REPOSITORY, code, header};

fn seconds(answer: &reqwest::Response) -> u64 {
    header(answer, "retry-after").parse().expect("whole seconds")
}

#[tokio::test]
async fn each_kind_of_call_has_its_own_limit_and_says_when_it_ends() {
    let rate_limits = RateLimits { reads: Some(2), referrers: Some(1), tokens: Some(3), ..RateLimits::NONE };
    let azure = Azure::with(Options { rate_limits, ..Options::default() }).await;
    let pushed = azure.push();
    let manifest = format!("/v2/{REPOSITORY}/manifests/latest");
    let referrers = format!("/v2/{REPOSITORY}/referrers/{}", pushed.index_digest);
    let token = azure.access_token("repository:*:pull").await;
    for (path, status) in [
        (&manifest, 200),
        (&manifest, 200),
        (&manifest, 429),
        (&referrers, 200),
        (&referrers, 429),
        (&"/v2/".to_owned(), 200),
    ] {
        let answer = azure.get(path, &token, INDEX).await;
        assert_eq!(answer.status(), status, "{path}");
        if status == 429 {
            assert!((1..=60).contains(&seconds(&answer)), "{answer:?}");
            assert_eq!(code(answer).await, "TOOMANYREQUESTS");
        }
    }
    // The exchange and the token were two of three calls.
    let again = azure.exchange(&[("grant_type", "access_token"), ("service", REGISTRY), ("access_token", "x")]).await;
    assert_eq!(again.status(), 401);
    let refused = azure.token(&[("grant_type", "refresh_token")]).await;
    assert_eq!(refused.status(), 429);
    assert!((1..=60).contains(&seconds(&refused)), "{refused:?}");
}

#[tokio::test]
async fn a_limit_is_over_when_its_time_is() {
    let per = Duration::from_millis(200);
    let azure = Azure::with(Options {
        rate_limits: RateLimits { reads: Some(1), per, ..RateLimits::NONE },
        ..Options::default()
    })
    .await;
    azure.push();
    let token = azure.access_token("repository:*:pull").await;
    let path = format!("/v2/{REPOSITORY}/manifests/latest");
    // Asked until it is refused, and then until it is not.
    while azure.get(&path, &token, INDEX).await.status() != 429 {}
    while azure.get(&path, &token, INDEX).await.status() != 200 {}
}

#[tokio::test]
async fn a_throttled_hop_counts_down_and_then_answers() {
    let azure = Azure::start().await;
    azure.push();
    let token = azure.access_token("repository:*:pull").await;
    let path = format!("/v2/{REPOSITORY}/manifests/latest");
    azure.emulator.inject(Hop::Data, Fault::Throttled(Duration::from_secs(2)));
    let mut seen = Vec::new();
    loop {
        let answer = azure.get(&path, &token, INDEX).await;
        if answer.status() == 200 {
            break;
        }
        assert_eq!(answer.status(), 429);
        seen.push(seconds(&answer));
    }
    assert!(seen.is_sorted_by(|earlier, later| earlier >= later), "{seen:?}");
    assert!(seen.iter().all(|left| (1..=2).contains(left)), "{seen:?}");
}

#[tokio::test]
async fn requests_are_counted_by_object() {
    let azure = Azure::start().await;
    let pushed = azure.push();
    let token = azure.access_token("repository:*:pull").await;
    let [manifest, blob] =
        [format!("/v2/{REPOSITORY}/manifests/latest"), format!("/v2/{REPOSITORY}/blobs/{}", pushed.blobs[0])];
    for (path, times) in [(&manifest, 3), (&blob, 1)] {
        for _ in 0..times {
            azure.get(path, &token, INDEX).await;
        }
    }
    let counted = azure.emulator.reads().into_iter().collect::<Vec<_>>();
    assert_eq!(counted, [(format!("GET {blob}"), 1), (format!("GET {manifest}"), 3)]);
    assert_eq!(
        azure.emulator.with_requests(|requests| requests.iter().filter(|seen| seen.hop == Hop::Data).count()),
        4
    );
    azure.emulator.clear_requests();
    assert!(azure.emulator.reads().is_empty());
}
