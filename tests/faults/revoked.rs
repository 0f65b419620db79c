//! A token that ends before its time while nobody gives a new one.

use acr_emulator::{Fault, Hop};

use crate::client::Client;
use testkit::{Setup, wait_for};

const PULL: &str = "/v2/library/busybox/manifests/latest";

/// The 401 is of an old token, and says nothing about roles.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_refused_during_an_outage_is_no_missing_role() {
    for (fault, says) in [
        (Fault::Status(500), "access token: 500"),
        (Fault::Hang, "the registry refused one, and a new one did not come in time"),
    ] {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache("off").start();
        let mut client = Client::new(proxy.address());
        assert_eq!(client.get(PULL).expect("an answer").status, 200);
        azure.inject(Hop::Token, fault);
        azure.revoke_tokens();
        for times in 1..=3 {
            let seen = client.get(PULL).expect("an answer");
            assert_eq!((seen.status, seen.code.as_deref()), (503, Some("UNAVAILABLE")), "{seen:?}");
            assert!(seen.retry_after.is_some(), "{seen:?}");
            if times == 1 {
                proxy.wait_for_log(says);
            }
        }
        azure.clear_faults();
        azure.clear_requests();
        wait_for(&azure, "a token call", |requests| requests.iter().any(|request| request.hop == Hop::Token)).await;
        let mut answers = std::iter::repeat_with(|| client.get(PULL).expect("an answer").status);
        assert!(answers.by_ref().take(10).any(|status| status == 200));
    }
}
