//! Signing in: late, refused, revoked.

use std::time::Instant;

use acr_emulator::{Fault, Hop, Server};

use crate::admin::admin;
use crate::wire::{self, Answer};
use testkit::{Proxy, Setup, wait_for};

fn manifest(proxy: &Proxy) -> Answer {
    wire::ask(
        proxy.address(),
        "GET /v2/library/busybox/manifests/latest",
        "Accept: application/vnd.oci.image.index.v1+json\r\n",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn it_listens_at_once_and_recovers_when_azure_comes_late() {
    for server in [Server::Entra, Server::Registry] {
        let azure = testkit::azure().await;
        azure.refuse_connections(server, true);
        let proxy = Setup::new(&azure).settings("token_wait: 1s").start();
        assert_eq!(wire::ask(proxy.address(), "GET /v2/", "").status, 200);
        let answer = manifest(&proxy);
        assert_eq!((answer.status, answer.code().as_str()), (503, "UNAVAILABLE"), "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some("1"));
        let hop = match server {
            Server::Entra => "entra: client secret: no connection: check the network path, DNS and the CA: ",
            _ => "token exchange: ",
        };
        proxy.wait_for_log(hop);
        azure.clear_faults();
        wait_for(&azure, "a token", |requests| {
            requests.iter().any(|request| request.hop == Hop::Token && request.status == 200)
        })
        .await;
        assert_eq!(manifest(&proxy).status, 200);
        // One line for a state, not one for each try. (How a connection is refused differs from one to the next.)
        let log = proxy.log();
        let lines =
            log.lines().filter(|line| line.contains(" WARN ") && line.contains(hop) && !line.contains(" access]"));
        let said: Vec<_> = lines.filter_map(|line| line.split_once(" WARN ")).map(|(_, said)| said).collect();
        assert!(!said.is_empty() && said.windows(2).all(|pair| pair[0] != pair[1]), "{log}");
    }
}

/// Neither the host was told nor the variable that had named it; and of its 404, that the endpoint would be ready some time.
#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_at_another_host_than_entra_ids_did_not_say_where_nor_who_had_named_it() {
    type Break = fn(&acr_emulator::Emulator);
    let rows: [(Break, &str, &str, &str); 2] = [
        (
            |azure| azure.refuse_connections(Server::Entra, true),
            "no connection: check the network path, DNS and the CA: ",
            ": ",
            "; that host is of AZURE_AUTHORITY_HOST, identity.authority or identity.cloud",
        ),
        (
            |azure| {
                let (headers, body) = (Vec::new(), r#"{"errors":[]}"#.to_owned());
                azure.inject(Hop::Entra, Fault::StatusWith { status: 404, headers, body });
            },
            "404: ",
            " is not Entra ID's sign-in; what to do: correct AZURE_AUTHORITY_HOST or identity.authority; ",
            "without them it is https://login.microsoftonline.com",
        ),
    ];
    for (breaks, begins, then, ends) in rows {
        let azure = testkit::azure().await;
        breaks(&azure);
        let proxy = Setup::new(&azure).start();
        let authority = azure.authority();
        let host = authority.trim_start_matches("https://").trim_end_matches('/');
        let line = proxy.wait_for_log(&format!("entra: client secret: {begins}{host}{then}"));
        assert!(line.contains(ends), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_waits_for_the_first_token() {
    let azure = acr_emulator::Emulator::start(acr_emulator::Options {
        latency: std::time::Duration::from_millis(400),
        ..testkit::options()
    })
    .await
    .expect("started");
    azure.push(acr_emulator::Image::small("hub/library/busybox", "latest"));
    let proxy = Setup::new(&azure).start();
    assert_eq!(manifest(&proxy).status, 200);
}

/// What is answered here does not wait for a token, and a client that is told of its lack can go on.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_only_what_goes_to_the_registry_fails_and_the_connection_is_kept() {
    let azure = testkit::azure().await;
    azure.refuse_connections(Server::Entra, true);
    let blob = format!("/v2/library/busybox/blobs/sha256:{}", "ab".repeat(32));
    for blobs in ["redirect", "proxy"] {
        let proxy = Setup::new(&azure).settings("token_wait: 1s").upstream(&format!("  blobs: {blobs}\n")).start();
        let mut client = wire::Client::new(proxy.address());
        for (path, status) in [("/v2/", 200), (&*blob, 503), ("/v2/_catalog", 404), (&*blob, 503), ("/v2/", 200)] {
            assert_eq!(client.ask("GET", path, "HTTP/1.1", "").status(), status, "{blobs}: {path}");
        }
        assert!(azure.requests().iter().all(|request| request.hop != Hop::Data), "{blobs}: sent without a token");
    }
}

fn refused_without_a_word() -> Fault {
    Fault::StatusWith { status: 401, headers: Vec::new(), body: String::new() }
}

/// azure_identity panics where it adds this to the time of today.
pub(crate) fn never_ends() -> Fault {
    let body = r#"{"token_type":"Bearer","access_token":"x","expires_in":9223372036854775807}"#.to_owned();
    Fault::StatusWith { status: 200, headers: Vec::new(), body }
}

/// A virtual machine's services start one after the other, and an engine that is told 503 goes to Docker Hub.
#[tokio::test(flavor = "multi_thread")]
async fn at_boot_a_pull_waits_for_an_identity_endpoint_that_is_not_ready() {
    for fault in [Fault::Status(404), Fault::Status(410), Fault::Status(500), Fault::RefuseConnections] {
        let options = acr_emulator::Options { identity_listen: Some(([127, 0, 0, 1], 0).into()), ..testkit::options() };
        let azure = acr_emulator::Emulator::start(options).await.expect("started");
        azure.push(acr_emulator::Image::small("hub/library/busybox", "latest"));
        azure.inject(Hop::Imds, fault.clone().times(3));
        let proxy = Setup::new(&azure).managed(&azure).settings("token_wait: 20s").start();
        let answer = manifest(&proxy);
        assert_eq!(answer.status, 200, "{fault:?}: {answer:?}");
        let log = proxy.end();
        assert!(log.contains("WARN"), "the pull came before the token: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sign_in_is_reported_by_hop() {
    for (hop, fault, says) in [
        (
            Hop::Exchange,
            Fault::Status(401),
            "token exchange: 401 UNAUTHORIZED: the identity has no role on this registry",
        ),
        (
            Hop::Exchange,
            Fault::Status(403),
            "token exchange: 403 DENIED: the registry's firewall denies this host: allow its address there",
        ),
        // A wrong tenant, and a refresh token that is no good.
        (Hop::Exchange, refused_without_a_word(), "token exchange: 401: the identity has no role on this registry"),
        (Hop::Token, refused_without_a_word(), "access token: 401: the registry no longer accepts its refresh token"),
        (Hop::Exchange, Fault::Status(404), "token exchange: 404"),
        (Hop::Exchange, Fault::GarbageJson, "token exchange: 200 with a body that is not the JSON of a token"),
        (Hop::Exchange, Fault::HugeBody, "token exchange: the answer is larger than 65536 bytes"),
        (Hop::Exchange, Fault::ResetMidBody, "token exchange: the connection broke"),
        (Hop::Token, Fault::Status(429), "access token: 429"),
        (Hop::Token, Fault::TokenExpired, "access token: the registry gave a token that has ended already"),
        (Hop::Entra, Fault::Status(500), "entra: client secret: 500"),
        (Hop::Entra, never_ends(), "entra: client secret: 200: the answer is not a token"),
        (Hop::Entra, Fault::HugeBody, "entra: client secret: an answer of more than 65536 bytes"),
    ] {
        let azure = testkit::azure().await;
        azure.inject(hop, fault.clone());
        let proxy = Setup::new(&azure).settings("token_wait: 1s").start();
        let line = proxy.wait_for_log(says);
        assert!(line.contains("WARN"), "{hop:?} {fault:?}: {line}");
        let answer = manifest(&proxy);
        assert_eq!(answer.status, 503, "{hop:?} {fault:?}: {answer:?}");
        assert!(answer.body.contains(says), "{hop:?} {fault:?}: {answer:?}");
        assert!(!proxy.log().contains("panicked"), "{hop:?} {fault:?}: {}", proxy.log());
    }
}

/// The registry was sent `access_token=` without a value, and said that the identity has no role. A captive portal answers like this.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_sign_in_without_a_token_counted_as_signed_in() {
    const SAYS: &str = "the answer is not a token: is a proxy or captive portal between?";
    const REMEDY: &str = "; what to do: let this host reach Azure without a login page";
    for (hop, by, status, body) in [
        (Hop::Entra, "client secret", 200, "{}"),
        // It was said to have trouble.
        (Hop::Entra, "client secret", 302, "<html>sign in</html>"),
        (Hop::Entra, "client secret", 200, r#"{"token_type":"Bearer","expires_in":3600,"access_token":""}"#),
        (Hop::Entra, "client secret", 200, r#"{"token_type":"Bearer","expires_in":3600,"access_token":"a\r\nb"}"#),
        (Hop::Imds, "managed identity", 200, r#"{"expires_in":"3600","access_token":""}"#),
        (Hop::Imds, "managed identity", 200, r#"{"expires_in":"3600","access_token":"a b"}"#),
    ] {
        let identity_listen = Some(([127, 0, 0, 1], 0).into());
        let azure =
            acr_emulator::Emulator::start(acr_emulator::Options { identity_listen, ..testkit::options() }).await;
        let azure = azure.expect("started");
        azure.inject(hop, Fault::StatusWith { status, headers: Vec::new(), body: body.to_owned() });
        let setup = Setup::new(&azure).settings("token_wait: 1s");
        let proxy = if hop == Hop::Imds { setup.managed(&azure) } else { setup }.start();
        let line = proxy.wait_for_log(SAYS);
        assert!(line.contains(&format!("entra: {by}: {status}: {SAYS}")) && line.contains(REMEDY), "{body}: {line}");
        let answer = manifest(&proxy);
        assert!(answer.status == 503 && answer.body.contains(SAYS), "{body}: {answer:?}");
        let asked = azure.requests().iter().any(|request| request.hop == Hop::Exchange);
        assert!(!asked && !proxy.log().contains("signed in"), "{body}: {}", proxy.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registrys_token_that_no_header_may_carry_is_none() {
    for (hop, call, body) in [
        (Hop::Exchange, "token exchange", r#"{"refresh_token":"a\r\nb"}"#),
        (Hop::Token, "access token", r#"{"access_token":"a\r\nb"}"#),
    ] {
        let azure = testkit::azure().await;
        azure.inject(hop, Fault::StatusWith { status: 200, headers: Vec::new(), body: body.to_owned() });
        let proxy = Setup::new(&azure).settings("token_wait: 1s").start();
        let says = format!("{call}: 200 with no token in it: is this an Azure registry?");
        let answer = manifest(&proxy);
        assert!(answer.status == 503 && answer.body.contains(&says), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_named_and_no_other_identity_is_tried() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).secret("wrong").start();
    let line = proxy.wait_for_log("entra: ");
    assert!(line.contains("client secret: 401 invalid_client: the client secret is wrong: AADSTS7000215"), "{line}");
    assert!(!line.contains("managed identity") && !line.contains("Azure CLI"), "{line}");
    assert_eq!(manifest(&proxy).header("retry-after"), Some("30"));
}

/// Only `check` told the remedy; the log, the client and /readyz had the cause alone.
#[tokio::test(flavor = "multi_thread")]
async fn wherever_a_failed_sign_in_is_told_what_to_do_is_told_too() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).secret("wrong").flag("--admin-address", ":0").start();
    let remedy = "; what to do: set AZURE_CLIENT_SECRET to the secret's value, not its id";
    let line = proxy.wait_for_log("invalid_client");
    assert!(line.ends_with(remedy), "{line}");
    let answer = manifest(&proxy);
    assert!(answer.status == 503 && answer.body.contains(remedy), "{answer:?}");
    let ready = wire::ask(admin(&proxy), "GET /readyz", "").body;
    let ready: serde_json::Value = serde_json::from_str(&ready).expect("JSON");
    for told in [&ready["summary"], &ready["upstreams"][0]["message"]] {
        assert!(told.as_str().is_some_and(|told| told.ends_with(remedy)), "{ready:#}");
    }
    let line = proxy.wait_for_line(&["access]", "503"]);
    assert!(line.contains(remedy), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_identity_the_log_has_the_error_of_each_source() {
    let azure = testkit::azure().await;
    // An endpoint of its own, so that this machine's metadata service is not asked.
    let proxy = Setup::new(&azure)
        .nobody()
        .env("PATH", "/nonexistent")
        .env("IDENTITY_ENDPOINT", "http://127.0.0.1:1/msi/token")
        .env("IDENTITY_HEADER", "x")
        .start();
    let line = proxy.wait_for_log("entra: ");
    for source in ["managed identity: no connection", "; Azure CLI: ", "; Azure Developer CLI: "] {
        assert!(line.contains(source), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_replaced_without_an_error_to_the_client() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).start();
        assert_eq!(manifest(&proxy).status, 200);
        azure.revoke_tokens();
        let answer = manifest(&proxy);
        assert_eq!(answer.status, 200, "{answer:?}");
        let refused =
            azure.requests().iter().filter(|request| request.hop == Hop::Data && request.status == 401).count();
        assert_eq!(refused, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_401_is_answered_without_a_challenge() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).start();
        assert_eq!(manifest(&proxy).status, 200);
        azure.inject(Hop::Data, Fault::Challenge401);
        azure.clear_requests();
        let begun = Instant::now();
        for _ in 0..5 {
            let answer = manifest(&proxy);
            assert_eq!((answer.status, answer.code().as_str()), (403, "DENIED"), "{answer:?}");
            assert_eq!(answer.header("www-authenticate"), None);
            assert!(answer.body.contains("AcrPull"), "{answer:?}");
        }
        let calls = azure.requests().iter().filter(|request| request.hop == Hop::Token).count();
        let took = begun.elapsed();
        assert_eq!(calls, 2, "one renewal and one try for the repository alone, for all of them, after {took:?}");
    }
}

/// ACR's support asks for the id of a call, and the one that failed is the registry's token call.
#[tokio::test(flavor = "multi_thread")]
async fn the_registrys_id_of_a_failed_token_call_reaches_client_and_log() {
    for cache in testkit::ASKING {
        for (hop, status, revoke) in [(Hop::Exchange, 500, false), (Hop::Token, 403, false), (Hop::Token, 500, true)] {
            let azure = testkit::azure().await;
            let proxy = Setup::new(&azure).cache(cache).settings("token_wait: 1s");
            let proxy = if revoke {
                let proxy = proxy.start();
                assert_eq!(manifest(&proxy).status, 200);
                azure.inject(hop, Fault::Status(status));
                azure.revoke_tokens();
                proxy
            } else {
                azure.inject(hop, Fault::Status(status));
                proxy.start()
            };
            let answer = manifest(&proxy);
            assert_eq!(answer.status, 503, "{answer:?}");
            let id = answer.header("x-ms-correlation-request-id").expect("an id").to_owned();
            assert_eq!(id.len(), 36, "{id}");
            let line = proxy.wait_for_log(&format!("correlation={id}"));
            assert!(line.contains(" access] GET ") && line.contains(&format!(": {status} ")), "{line}");
        }
    }
}

/// A host that slept, or a session that was revoked: the Entra token that is kept has ended, and nothing here knows.
#[tokio::test(flavor = "multi_thread")]
async fn an_entra_token_that_the_exchange_refuses_is_not_used_again() {
    let azure = testkit::azure().await;
    // The sign-in works and the exchange does not, so the Entra token is kept for the next try.
    azure.inject(Hop::Exchange, Fault::Status(503));
    let proxy = Setup::new(&azure).start();
    wait_for(&azure, "an exchange", |requests| requests.iter().any(|request| request.hop == Hop::Exchange)).await;
    azure.revoke_entra_tokens();
    azure.clear_faults();
    wait_for(&azure, "a token", |requests| {
        requests.iter().any(|request| request.hop == Hop::Token && request.status == 200)
    })
    .await;
    assert_eq!(manifest(&proxy).status, 200);
    let requests = azure.requests();
    let count = |hop, status| requests.iter().filter(|seen| seen.hop == hop && seen.status == status).count();
    assert_eq!((count(Hop::Exchange, 401), count(Hop::Exchange, 200)), (1, 1), "one refusal, then a new sign-in");
    assert!(!proxy.log().contains("no role"), "a 401 to a token that was kept says nothing about roles");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_refuses_every_entra_token_is_asked_twice_only() {
    let azure = testkit::azure().await;
    azure.inject(Hop::Exchange, Fault::Status(503).times(1));
    azure.inject(Hop::Exchange, Fault::Status(401));
    let proxy = Setup::new(&azure).start();
    let line = proxy.wait_for_log("token exchange: 401 UNAUTHORIZED: the identity has no role");
    let refused = azure.requests().iter().filter(|seen| seen.hop == Hop::Exchange && seen.status == 401).count();
    assert_eq!(refused, 2, "with the token that was kept and with a new one: {line}");
    let answer = manifest(&proxy);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("30")), "{answer:?}");
}
