//! Whose clock counts, and whose lifetime.

use std::time::Duration;

use acr_emulator::{Emulator, Hop, Image, Options, Recorded};

use crate::client::Client;
use testkit::{Setup, wait_for};

const PULL: &str = "/v2/library/busybox/manifests/latest";

async fn azure(options: Options) -> Emulator {
    let azure = Emulator::start(options).await.expect("the emulator starts");
    azure.push(Image::small("hub/library/busybox", "latest"));
    azure
}

/// The times that a hop has answered well.
fn answers(requests: &[Recorded], hop: Hop) -> usize {
    requests.iter().filter(|request| request.hop == hop && request.status == 200).count()
}

/// The emulator's clock is not this host's, as a host's that has drifted is not Azure's.
#[tokio::test(flavor = "multi_thread")]
async fn two_hours_of_clock_skew_either_way_do_no_harm() {
    // A secret's token comes with a lifetime, a machine's with a time of its own clock.
    let identities: [fn(Setup, &Emulator) -> Setup; 2] = [|setup, _| setup, |setup, azure| setup.managed(azure)];
    for (skew, identity) in [-7200, 7200].into_iter().flat_map(|skew| identities.map(|identity| (skew, identity))) {
        let azure = azure(Options {
            clock_skew: skew,
            refresh_lifetime: Duration::from_secs(8),
            access_lifetime: Duration::from_secs(8),
            // Used after its end, on this host's clock, it would be refused.
            entra_lifetime: Duration::from_secs(8),
            identity_listen: Some(([127, 0, 0, 1], 0).into()),
            ..testkit::options()
        })
        .await;
        let proxy = identity(Setup::new(&azure).cache("off"), &azure).start();
        let mut client = Client::new(proxy.address());
        for renewals in 1..=3 {
            wait_for(&azure, "a renewal", |requests| {
                answers(requests, Hop::Token) >= renewals && answers(requests, Hop::Exchange) >= renewals
            })
            .await;
            assert_eq!(client.get(PULL).expect("an answer").status, 200, "skew {skew}, renewal {renewals}");
        }
        // Renewed by their lifetime, and neither all the time nor after their end.
        let requests = azure.requests();
        assert!(answers(&requests, Hop::Token) <= 4, "skew {skew}: {}", answers(&requests, Hop::Token));
        assert!(requests.iter().all(|request| request.status != 401), "skew {skew}: {requests:?}");
        assert!(!proxy.log().contains(" WARN "), "skew {skew}: {}", proxy.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_token_is_renewed_by_its_own_lifetime_and_no_other() {
    let (short, long) = (Duration::from_secs(6), Duration::from_secs(3600));
    for (entra, refresh, access, renewed) in
        [(short, long, long, None), (long, short, long, Some(Hop::Exchange)), (long, long, short, Some(Hop::Token))]
    {
        let azure = azure(Options {
            entra_lifetime: entra,
            refresh_lifetime: refresh,
            access_lifetime: access,
            ..testkit::options()
        })
        .await;
        let proxy = Setup::new(&azure).cache("off").start();
        let mut client = Client::new(proxy.address());
        match renewed {
            Some(hop) => wait_for(&azure, "a renewal", |requests| answers(requests, hop) >= 4).await,
            // Nothing is to happen; the end of the short one passes while a client asks.
            None => {
                let begun = std::time::Instant::now();
                while begun.elapsed() < short + short {
                    assert_eq!(client.get(PULL).expect("an answer").status, 200);
                }
            }
        }
        assert_eq!(client.get(PULL).expect("an answer").status, 200);
        let requests = azure.requests();
        for hop in [Hop::Entra, Hop::Exchange, Hop::Token] {
            let count = answers(&requests, hop);
            let expected = if renewed == Some(hop) { count >= 4 } else { count == 1 };
            assert!(expected, "{count} of {hop:?}; renewed: {renewed:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_not_sent_after_its_end() {
    let azure = azure(Options { access_lifetime: Duration::from_secs(4), ..testkit::options() }).await;
    let proxy = Setup::new(&azure).cache("off").start();
    let mut client = Client::new(proxy.address());
    assert_eq!(client.get(PULL).expect("an answer").status, 200);
    azure.inject(Hop::Token, acr_emulator::Fault::Status(500));
    // To the end it is used, and then the answer is that there is none: never the registry's 401, which would read as a
    // missing role.
    let ended = loop {
        let answer = client.get(PULL).expect("an answer");
        if answer.status != 200 {
            break answer;
        }
    };
    assert_eq!((ended.status, ended.code.as_deref()), (503, Some("UNAVAILABLE")), "{ended:?}");
    let refused = azure.requests().iter().filter(|request| request.hop == Hop::Data && request.status == 401).count();
    assert_eq!(refused, 0);
}
