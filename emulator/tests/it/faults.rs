//! Each fault as a client meets it.

use std::error::Error as _;
use std::time::{Duration, Instant};

use acr_emulator::{Fault, Hop, Options, Server};
use reqwest::Response;

use crate::azure::{Azure, REGISTRY, REPOSITORY, claims, field, header, json, secret_fields};

fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A request whose connection is new, so that no client repeats it on its own.
async fn ping(azure: &Azure) -> reqwest::Result<Response> {
    azure.fresh_client().get(azure.registry("/v2/")).send().await
}

async fn ping_entra(azure: &Azure) -> reqwest::Result<Response> {
    azure.fresh_client().get(azure.emulator.authority()).send().await
}

#[tokio::test]
async fn a_status_comes_with_the_body_of_its_hop() {
    let azure = Azure::start().await;
    for (status, code) in [(403, "DENIED"), (404, "MANIFEST_UNKNOWN"), (429, "TOOMANYREQUESTS"), (500, "UNKNOWN")] {
        azure.emulator.inject(Hop::Data, Fault::Status(status).times(1));
        let answer = ping(&azure).await.expect("an answer");
        assert_eq!(answer.status(), status);
        assert_eq!(crate::azure::code(answer).await, code);
    }
    azure.emulator.inject(Hop::Entra, Fault::Status(503));
    let body = json(azure.entra(&secret_fields()).await).await;
    assert!(field(&body, "error_description").starts_with("AADSTS90033"));
    azure.emulator.inject(
        Hop::Exchange,
        Fault::StatusWith {
            status: 429,
            headers: vec![("Retry-After".to_owned(), "7".to_owned())],
            body: "slow down".to_owned(),
        },
    );
    let answer = azure.exchange(&[]).await;
    assert_eq!(header(&answer, "retry-after"), "7");
    assert_eq!(answer.text().await.expect("a body"), "slow down");
}

#[tokio::test]
async fn faults_are_counted_and_chosen_by_path() {
    let azure = Azure::start().await;
    azure.emulator.inject(Hop::Data, Fault::Status(500).on_path("/manifests/").times(1));
    azure.emulator.inject(Hop::Data, Fault::Status(503).on_path("/manifests/").times(1));
    let manifest = azure.registry(&format!("/v2/{REPOSITORY}/manifests/latest"));
    assert_eq!(ping(&azure).await.expect("an answer").status(), 401);
    for status in [500, 503, 401] {
        let answer = azure.client.get(&manifest).send().await.expect("an answer");
        assert_eq!(answer.status(), status);
    }
    azure.emulator.inject(Hop::Data, Fault::Status(500));
    azure.emulator.clear_faults();
    assert_eq!(ping(&azure).await.expect("an answer").status(), 401);
}

#[tokio::test]
async fn connections_are_refused() {
    let azure = Azure::start().await;
    azure.emulator.inject(Hop::Entra, Fault::RefuseConnections);
    let error = ping_entra(&azure).await.expect_err("a reset");
    assert!(error.is_connect() && chain(&error).contains("reset"), "{}", chain(&error));
    assert!(azure.emulator.requests().is_empty());
    // The registry has one listener for three hops: the fault waits for the request.
    azure.emulator.inject(Hop::Exchange, Fault::RefuseConnections);
    let url = azure.registry("/oauth2/exchange");
    let error = azure.client.post(url).send().await.expect_err("a reset");
    assert!(chain(&error).contains("reset"), "{}", chain(&error));
    assert_eq!(ping(&azure).await.expect("an answer").status(), 401);
    // All of it goes by its own switch, which also ends the connections that are there.
    azure.emulator.refuse_connections(Server::Registry, true);
    assert!(ping(&azure).await.expect_err("a reset").is_connect());
    azure.emulator.clear_faults();
    assert_eq!(ping(&azure).await.expect("an answer").status(), 401);
}

#[tokio::test]
async fn bodies_break_in_the_middle() {
    let azure = Azure::start().await;
    let whole = ping(&azure).await.expect("an answer").content_length().expect("a length");
    for (fault, cause) in [(Fault::ResetMidBody, "reset"), (Fault::CutBody(9), "")] {
        azure.emulator.inject(Hop::Data, fault.clone().times(1));
        let mut answer = ping(&azure).await.expect("a head");
        assert_eq!(answer.content_length(), Some(whole));
        let mut read = Vec::new();
        let error = loop {
            match answer.chunk().await {
                Ok(Some(chunk)) => read.extend_from_slice(&chunk),
                Ok(None) => panic!("{fault:?}: the body is whole"),
                Err(error) => break error,
            }
        };
        let expected = if fault == Fault::ResetMidBody { whole / 2 } else { 9 };
        assert_eq!(read.len() as u64, expected, "{fault:?}");
        assert!(chain(&error).contains(cause), "{}", chain(&error));
    }
}

#[tokio::test]
async fn a_large_blob_is_cut_where_it_was_said() {
    let azure = Azure::start().await;
    let image = acr_emulator::Image::small(REPOSITORY, "big").with_layers(1, 8_000_000);
    let pushed = azure.emulator.push(image);
    let token = azure.access_token("repository:*:pull").await;
    let path = format!("/v2/{REPOSITORY}/blobs/{}", pushed.blobs[0]);
    let location = header(&azure.get(&path, &token, "*/*").await, "location");
    azure.emulator.inject(Hop::Storage, Fault::CutBody(5_000_000).times(1));
    let mut answer = azure.client.get(&location).send().await.expect("a head");
    let mut read = 0;
    while let Ok(Some(chunk)) = answer.chunk().await {
        read += chunk.len();
    }
    assert_eq!(read, 5_000_000);
    let rest = azure.client.get(&location).header("Range", "bytes=5000000-").send().await;
    assert_eq!(rest.expect("an answer").status(), 206);
}

#[tokio::test]
async fn no_answer_comes() {
    let azure = Azure::start().await;
    azure.emulator.inject(Hop::Data, Fault::Hang.times(1));
    let hanging = tokio::spawn(azure.fresh_client().get(azure.registry("/v2/")).send());
    azure.emulator.wait_for(|requests| requests.len() == 1).await;
    assert_eq!(azure.emulator.requests()[0].status, 0);
    assert!(!hanging.is_finished());
    hanging.abort();

    azure.emulator.inject(Hop::Data, Fault::DieBeforeResponse.times(1));
    let error = ping(&azure).await.expect_err("an end");
    assert!(!error.is_connect() && !error.is_timeout(), "{}", chain(&error));
    assert_eq!(ping(&azure).await.expect("an answer").status(), 401);
}

#[tokio::test]
async fn bodies_are_not_what_they_should_be() {
    let azure = Azure::start().await;
    azure.emulator.inject(Hop::Entra, Fault::GarbageJson.times(1));
    let answer = azure.entra(&secret_fields()).await;
    assert_eq!(answer.status(), 200);
    assert!(header(&answer, "content-type").starts_with("application/json"));
    let body = answer.bytes().await.expect("a body");
    assert!(serde_json::from_slice::<serde_json::Value>(&body).is_err());

    azure.emulator.inject(Hop::Entra, Fault::WrongContentType.times(1));
    let answer = azure.entra(&secret_fields()).await;
    assert_eq!(header(&answer, "content-type"), "text/html");
    assert!(json(answer).await["access_token"].is_string());

    azure.emulator.inject(Hop::Entra, Fault::HugeBody.times(1));
    let mut answer = azure.entra(&secret_fields()).await;
    let mut read = 0;
    while read < 4_000_000 {
        read += answer.chunk().await.expect("more").expect("more").len();
    }

    azure.emulator.inject(Hop::Data, Fault::SlowDrip.times(1));
    let start = Instant::now();
    let mut answer = ping(&azure).await.expect("a head");
    for _ in 0..2 {
        assert_eq!(answer.chunk().await.expect("a byte").map(|chunk| chunk.len()), Some(1));
    }
    assert!(start.elapsed() >= Duration::from_millis(500));

    azure.emulator.inject(Hop::Data, Fault::Challenge401.times(1));
    let token = azure.access_token("repository:*:pull").await;
    let path = format!("/v2/{REPOSITORY}/tags/list");
    let answer = azure.get(&path, &token, "*/*").await;
    assert!(header(&answer, "www-authenticate").ends_with(":pull\""));
}

#[tokio::test]
async fn tokens_lie_about_their_end() {
    let azure = Azure::start().await;
    let now = std::time::UNIX_EPOCH.elapsed().expect("a time").as_secs() as i64;
    for hop in [Hop::Entra, Hop::Exchange, Hop::Token] {
        for fault in [Fault::TokenWithoutExp, Fault::TokenExpired] {
            let entra = azure.entra_token().await;
            let refresh = azure.refresh_token().await;
            azure.emulator.inject(hop, fault.clone().times(1));
            let body = match hop {
                Hop::Entra => json(azure.entra(&secret_fields()).await).await,
                Hop::Exchange => {
                    let fields = [("grant_type", "access_token"), ("service", REGISTRY), ("access_token", &*entra)];
                    json(azure.exchange(&fields).await).await
                }
                _ => {
                    let fields = [("grant_type", "refresh_token"), ("service", REGISTRY), ("refresh_token", &*refresh)];
                    json(azure.token(&fields).await).await
                }
            };
            let name = if hop == Hop::Exchange { "refresh_token" } else { "access_token" };
            let end = claims(&field(&body, name))["exp"].as_i64();
            match fault {
                Fault::TokenWithoutExp => {
                    assert_eq!((end, body.get("expires_in")), (None, None), "{hop:?}");
                }
                _ => assert!(end.expect("an end") < now, "{hop:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_token_that_does_not_say_its_end_is_taken() {
    let azure = Azure::start().await;
    azure.push();
    for hop in [Hop::Entra, Hop::Exchange, Hop::Token] {
        azure.emulator.inject(hop, Fault::TokenWithoutExp.times(1));
        let token = azure.access_token("repository:*:pull").await;
        let answer = azure.get(&format!("/v2/{REPOSITORY}/tags/list"), &token, "*/*").await;
        assert_eq!(answer.status(), 200, "{hop:?}");
    }
}

#[tokio::test]
async fn answers_are_late() {
    let latency = Duration::from_millis(40);
    let azure = Azure::with(Options { latency, ..Options::default() }).await;
    let start = Instant::now();
    ping(&azure).await.expect("an answer");
    assert!(start.elapsed() >= latency);
}

#[tokio::test]
async fn connections_are_closed_and_dropping_ends_all() {
    let azure = Azure::start().await;
    let ask = || async { azure.client.get(azure.registry("/v2/")).send().await?.bytes().await };
    ask().await.expect("an answer");
    azure.emulator.close_connections(Server::Registry);
    // A client may still send on a connection that is being closed, and fail once.
    if ask().await.is_err() {
        ask().await.expect("an answer");
    }
    let seen = azure.emulator.requests();
    assert_ne!(seen[0].connection, seen[seen.len() - 1].connection);

    let (url, client) = (azure.registry("/v2/"), azure.fresh_client());
    drop(azure);
    // The listener goes when its task is next looked at.
    tokio::task::yield_now().await;
    while let Ok(answer) = client.get(&url).send().await {
        let _ = answer.bytes().await;
    }
}

#[tokio::test]
async fn the_right_answer_comes_in_other_frames() {
    let azure = Azure::start().await;
    azure.push();
    let token = azure.access_token("repository:*:pull").await;
    let path = format!("/v2/{REPOSITORY}/tags/list");
    let plain = azure.get(&path, &token, "*/*").await.bytes().await.expect("a body");
    for (fault, transfer, content, version) in [
        (Fault::Chunked, Some("chunked"), None, "HTTP/1.1"),
        (Fault::UntilClose, None, None, "HTTP/1.0"),
        (Fault::Gzip, None, Some("gzip"), "HTTP/1.1"),
    ] {
        azure.emulator.inject(Hop::Data, fault.clone().times(1));
        let answer = azure.get(&path, &token, "*/*").await;
        let head = answer.headers().clone();
        let found = |name: &str| head.get(name).and_then(|value| value.to_str().ok());
        assert_eq!((found("transfer-encoding"), found("content-encoding")), (transfer, content), "{fault:?}");
        assert_eq!(found("content-length").is_some(), content.is_some(), "{fault:?}");
        assert_eq!(format!("{:?}", answer.version()), version, "{fault:?}");
        let body = answer.bytes().await.expect("a body");
        assert_eq!(body == plain, content.is_none(), "{fault:?}");
    }
}

#[tokio::test]
async fn a_manifest_of_any_kind_is_had_by_its_tag_and_digest() {
    let azure = Azure::start().await;
    let digest = azure.emulator.put_manifest(REPOSITORY, "own", "application/vnd.example", &b"{}"[..]);
    let token = azure.access_token("repository:*:pull").await;
    for reference in ["own", &digest] {
        let answer =
            azure.get(&format!("/v2/{REPOSITORY}/manifests/{reference}"), &token, "application/vnd.example").await;
        assert_eq!(header(&answer, "docker-content-digest"), digest);
        assert_eq!(answer.text().await.expect("a body"), "{}");
    }
}
