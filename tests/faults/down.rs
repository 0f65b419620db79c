//! A registry that is down as a whole, and one repository that fails alone, with answers that are kept.

use std::time::Duration;

use acr_emulator::{Emulator, Fault, Hop, Image, Server};
use testkit::{Proxy, Setup, wait_for};

use crate::client::Client;

const WARM: &str = "/v2/library/busybox/manifests/latest";
/// How often something is asked for while it is known to be down.
const TIMES: usize = 20;

/// The tag is fresh for a second, and for another one while it is asked for again.
fn start(azure: &Emulator) -> (Proxy, Client) {
    let proxy = Setup::new(azure).cache("{tags: 1s}").start();
    let mut client = Client::new(proxy.address());
    assert_eq!(client.get(WARM).expect("an answer").status, 200);
    std::thread::sleep(Duration::from_secs(2));
    (proxy, client)
}

fn lines(proxy: &Proxy, words: &str) -> usize {
    proxy.log().lines().filter(|line| line.contains(words)).count()
}

/// Requests at the registry that are no probes.
fn asked(azure: &Emulator) -> usize {
    azure.with_requests(|all| all.iter().filter(|one| one.hop == Hop::Data && one.target != "/v2/").count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_down_is_not_asked_until_a_probe_finds_it_back() {
    for (fault, status, then) in [(None, 502, 502), (Some(Fault::Status(500)), 500, 503), (Some(Fault::Hang), 504, 504)]
    {
        let azure = testkit::azure().await;
        let (proxy, mut client) = start(&azure);
        match &fault {
            None => azure.refuse_connections(Server::Registry, true),
            Some(fault) => azure.inject(Hop::Data, fault.clone()),
        }
        let mut cold = (0..).map(|number| format!("/v2/library/busybox/manifests/cold{number}"));
        let mut next = || cold.next().expect("without end");
        // Who comes first waits for as long as it takes, or until the probes know.
        let first = client.get(&next()).expect("an answer");
        assert_eq!(first.status, status, "{first:?}");
        proxy.wait_for_log("it is down, and probed until it answers");
        azure.clear_requests();
        for _ in 0..TIMES {
            let seen = client.get(&next()).expect("an answer");
            let told = (seen.status, seen.code.as_deref(), seen.retry_after);
            assert_eq!(told, (then, Some("UNAVAILABLE"), Some(1)), "{seen:?}\n{}", proxy.log());
            let seen = client.get(WARM).expect("an answer");
            assert_eq!(seen.status, 200, "{seen:?}");
        }
        assert_eq!(asked(&azure), 0, "{fault:?}");
        azure.refuse_connections(Server::Registry, false);
        azure.clear_faults();
        proxy.wait_for_log("it answers again, after ");
        assert_eq!(client.get(&next()).expect("an answer").status, 404);
        // Five seconds after the last stale answer a good one ends the matter.
        std::thread::sleep(Duration::from_secs(5));
        assert_eq!(client.get(WARM).expect("an answer").status, 200);
        proxy.wait_for_log("answers are fresh again: ");
        for once in ["it is down, and", "it answers again", "answers are stale from now on", "answers are fresh again"]
        {
            assert_eq!(lines(&proxy, once), 1, "{once}:\n{}", proxy.log());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_fails_alone_takes_no_other_with_it() {
    let azure = testkit::azure().await;
    azure.push(Image::small("hub/library/well", "latest"));
    let (proxy, mut client) = start(&azure);
    azure.inject(Hop::Data, Fault::Status(502).on_path("busybox"));
    let well = |number: usize| format!("/v2/library/well/manifests/{}", if number == 0 { "latest" } else { "other" });
    for number in 0..TIMES {
        assert_eq!(client.get(WARM).expect("an answer").status, 200, "stale");
        let seen = client.get(&well(number)).expect("an answer");
        assert_eq!(seen.status, if number == 0 { 200 } else { 404 }, "{seen:?}");
        let cold = format!("/v2/library/busybox/manifests/cold{number}");
        assert_eq!(client.get(&cold).expect("an answer").status, 502, "the registry's own");
    }
    assert_eq!(lines(&proxy, "it is down"), 0, "{}", proxy.log());
    assert_eq!(lines(&proxy, "answers are stale from now on, the first of them /v2/hub/library/busybox"), 1);
    assert_eq!(lines(&proxy, "answers are fresh again"), 0, "that others are well says nothing");
    azure.clear_faults();
    wait_for(&azure, "a probe", |all| all.iter().any(|one| one.target == "/v2/" && one.status == 401)).await;
    assert_eq!(client.get(WARM).expect("an answer").status, 200);
    proxy.wait_for_log("answers are fresh again: 20 were stale in ");
}
