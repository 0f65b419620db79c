//! What the log reports of a failure that lasts.

use acr_emulator::{Fault, Hop};

use testkit::{Setup, wait_for};

/// Entra's and the registry's words hold a new identifier each time, and yet they say the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_lasts_is_logged_once() {
    for (hop, fault, says) in [
        (Hop::Entra, Fault::Status(500), "entra: client secret: 500 "),
        (Hop::Exchange, Fault::Status(500), "token exchange: 500 "),
        (Hop::Token, Fault::Status(401), "access token: 401 "),
    ] {
        let azure = testkit::azure().await;
        azure.inject(hop, fault);
        let proxy = Setup::new(&azure).cache("off").start();
        // The one before the last has its answer, and its line if it gets one, before the last is asked.
        wait_for(&azure, "a fifth try", |requests| requests.iter().filter(|request| request.hop == hop).count() >= 5)
            .await;
        let log = proxy.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(" WARN ")).collect();
        assert!(lines.len() == 1 && lines[0].contains(says), "{says}: {lines:#?}");
    }
}
