//! Tokens stay with the host that they are for.

use acr_emulator::{Fault, Hop};

use crate::client::Client;
use testkit::Setup;

const PULL: &str = "/v2/library/busybox/manifests/latest";

fn answer(status: u16, header: &str, value: String) -> Fault {
    Fault::StatusWith { status, headers: vec![(header.to_owned(), value)], body: String::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_challenge_nor_a_redirect_leads_a_token_to_another_host() {
    let stranger = testkit::azure().await;
    let elsewhere = format!("https://{}/oauth2/token", stranger.registry_addr());
    let challenge =
        format!("Bearer realm=\"{elsewhere}\",service=\"example.azurecr.io\",scope=\"repository:hub/x:pull,push\"");
    for (hop, fault, status) in [
        (Hop::Data, answer(401, "WWW-Authenticate", challenge.clone()), 403),
        (Hop::Data, answer(401, "WWW-Authenticate", challenge.replace("https", "http")), 403),
        (Hop::Exchange, answer(401, "WWW-Authenticate", challenge.clone()), 503),
        (Hop::Token, answer(401, "WWW-Authenticate", challenge), 503),
        (Hop::Entra, answer(307, "Location", elsewhere.clone()), 503),
        (Hop::Exchange, answer(307, "Location", elsewhere.clone()), 503),
        (Hop::Token, answer(308, "Location", elsewhere.clone()), 503),
        // Nor is a client to follow: ACR has manifests itself.
        (Hop::Data, answer(307, "Location", elsewhere.clone()), 502),
    ] {
        let azure = testkit::azure().await;
        azure.inject(hop, fault.clone());
        let proxy = Setup::new(&azure).cache("off").start();
        let seen = Client::new(proxy.address()).get(PULL).expect("an answer");
        assert_eq!(seen.status, status, "{hop:?} {fault:?}: {seen:?}");
        let scopes: Vec<_> = azure.requests().into_iter().filter(|request| request.hop == Hop::Token).collect();
        assert!(scopes.iter().all(|request| request.body.contains("scope=repository%3A*%3Apull&")), "{scopes:?}");
    }
    assert!(stranger.requests().is_empty(), "{:?}", stranger.requests());
}
