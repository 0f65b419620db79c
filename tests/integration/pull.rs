//! A whole pull, and what must not pass in either direction.

use acr_emulator::{Emulator, Fault, Hop, Recorded, Server};
use reqwest::redirect::Policy;

use crate::wire;
use testkit::{SECRET, Setup};

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";

fn client() -> reqwest::Client {
    // A second call finds the first one's provider, which is no error.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().redirect(Policy::none()).build().expect("a client")
}

fn data(azure: &Emulator) -> Vec<Recorded> {
    azure.requests().into_iter().filter(|request| request.hop == Hop::Data).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_pull_reaches_the_registry_prefixed_and_signed() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).start();
        let get = |path: String| client().get(proxy.url(&path)).header("Accept", ACCEPT).send();

        let ping = get("/v2/".to_owned()).await.expect("an answer");
        assert_eq!(ping.headers()["docker-distribution-api-version"], "registry/2.0");
        assert_eq!(ping.text().await.expect("a body"), "{}");
        assert!(azure.requests().iter().all(|request| request.hop != Hop::Data), "the ping stays here");

        let head = client().head(proxy.url("/v2/library/busybox/manifests/latest")).header("Accept", ACCEPT).send();
        let head = head.await.expect("an answer");
        assert_eq!(head.status(), 200);
        let digest = head.headers()["docker-content-digest"].to_str().expect("text").to_owned();
        let index = get(format!("/v2/library/busybox/manifests/{digest}")).await.expect("an answer");
        assert_eq!(index.headers()["content-length"], head.headers()["content-length"]);
        let bytes = index.bytes().await.expect("a body");
        assert_eq!(bytes, azure.manifest("hub/library/busybox", "latest").expect("pushed"), "byte for byte");
        let index: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        let manifest = index["manifests"][0]["digest"].as_str().expect("a digest");
        let manifest = get(format!("/v2/library/busybox/manifests/{manifest}")).await.expect("an answer");
        let manifest: serde_json::Value = manifest.json().await.expect("JSON");
        let layer = manifest["layers"][0]["digest"].as_str().expect("a digest").to_owned();

        for path in [
            format!("/v2/library/busybox/blobs/{layer}"),
            format!("/v2/library/busybox/blobs/{}?ns=docker.io", layer.replace(':', "%3A")),
        ] {
            let redirect = get(path).await.expect("an answer");
            assert_eq!(redirect.status(), 307);
            let location = redirect.headers()["location"].to_str().expect("text").to_owned();
            assert!(location.contains("sig=") && location.contains("//docker/registry"), "{location}");
            assert_eq!(redirect.headers()["docker-content-digest"], layer.as_str());
            // The signature covers the path as it is: storage accepts it, so it came through byte for byte.
            let ca = reqwest::Certificate::from_pem(azure.ca_pem().as_bytes()).expect("a CA");
            let storage = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().expect("a client");
            let blob = storage.get(&location).send().await.expect("an answer");
            assert_eq!(blob.bytes().await.expect("a body"), azure.blob(&layer).expect("pushed"));
        }

        let authority = format!("example.azurecr.io:{}", azure.registry_addr().port());
        let requests = data(&azure);
        assert_eq!(requests.len(), 5);
        for request in requests {
            assert!(request.target.starts_with("/v2/hub/library/busybox/"), "{}", request.target);
            assert!(!request.target.contains(['?', '%']), "{}", request.target);
            assert_eq!(request.header("host"), Some(authority.as_str()));
            assert!(request.header("authorization").is_some_and(|value| value.starts_with("Bearer ")));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_headers_that_the_registry_needs_are_passed_on() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).cache("off").start();
    let answer = wire::ask(
        proxy.address(),
        "GET http://other.example/v2/library/busybox/manifests/latest?ns=docker.io&sig=x",
        "Authorization: Basic aHVidXNlcjpodWJwYXNzd29yZA==\r\nCookie: session=clients-own\r\nProxy-Authorization: Basic eA==\r\n\
         X-Forwarded-For: 192.0.2.1\r\nTraceparent: 00-1-1-00\r\nX-Registry-Auth: clients-own\r\nConnection: Host, X-A\r\n",
    );
    // Naming Host in Connection, or two hosts, is an attack on hop-by-hop rules; it gets no further.
    assert_eq!(answer.status, 400, "{answer:?}");
    for nomination in ["Host", "x-forwarded-for", ":authority", "\"X-A\"", "keep-alive, a b"] {
        let request = format!(
            "GET /v2/library/busybox/manifests/latest HTTP/1.1\r\nHost: mirror\r\nAccept: */*\r\nConnection: {nomination}\r\n\r\n"
        );
        let answer = wire::parse(&wire::send(proxy.address(), request.as_bytes()));
        assert_eq!((answer.status, answer.code().as_str()), (400, "UNSUPPORTED"), "{nomination}: {answer:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{nomination}: {answer:?}");
    }
    assert!(data(&azure).is_empty());

    let answer = wire::ask(
        proxy.address(),
        "GET http://mirror/v2/library/busybox/manifests/latest?ns=docker.io&sig=x",
        "Authorization: Basic aHVidXNlcjpodWJwYXNzd29yZA==\r\nCookie: session=clients-own\r\nProxy-Authorization: Basic eA==\r\n\
         X-Forwarded-For: 192.0.2.1\r\nTraceparent: 00-1-1-00\r\nX-Registry-Auth: clients-own\r\nUpgrade: websocket\r\n\
         Accept: application/vnd.oci.image.index.v1+json\r\nAccept: application/json\r\nAccept-Encoding: zstd;q=1.0\r\n\
         Range: bytes=0-\r\nIf-None-Match: \"x\"\r\nUser-Agent: docker/29\r\n",
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    let requests = data(&azure);
    let mut names: Vec<_> = requests[0].headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["accept", "accept", "accept-encoding", "authorization", "host", "if-none-match", "range", "user-agent"]
    );
    assert_eq!(requests[0].target, "/v2/hub/library/busybox/manifests/latest");
    for request in azure.requests() {
        let all = format!("{:?}{}", request.headers, request.body);
        assert!(!all.contains("clients-own") && !all.contains("aHVidXNlcjpodWJwYXNzd29yZA"), "{all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_meant_for_the_proxy_alone_do_not_reach_the_client() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).start();
        for path in ["manifests/latest", "manifests/none", "tags/list", "manifests/latest?x=y"] {
            let answer = wire::ask(
                proxy.address(),
                &format!("GET /v2/library/busybox/{path}"),
                &format!("Accept: {ACCEPT}\r\n"),
            );
            for name in ["www-authenticate", "set-cookie", "strict-transport-security"] {
                assert_eq!(answer.header(name), None, "{path}: {}", answer.head);
            }
            assert!(answer.header("x-ms-correlation-request-id").is_some(), "{path}: {}", answer.head);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hop_by_hop_headers_of_the_registry_do_not_reach_the_client() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).start();
        let said = [("Keep-Alive", "timeout=3"), ("Upgrade", "h2"), ("Trailer", "x"), ("X-Kept", "yes")];
        let headers = said.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        azure.inject(Hop::Data, Fault::StatusWith { status: 404, headers, body: "{}".to_owned() });
        let answer = wire::ask(proxy.address(), "GET /v2/library/busybox/manifests/latest", "");
        assert_eq!((answer.status, answer.header("x-kept")), (404, Some("yes")), "{answer:?}");
        for name in ["keep-alive", "upgrade", "trailer"] {
            assert_eq!(answer.header(name), None, "{}", answer.head);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_the_log_at_trace() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).start();
        let answer = wire::ask(
            proxy.address(),
            "GET /v2/library/busybox/manifests/latest",
            "Authorization: Basic Y2xpZW50cw==\r\n",
        );
        assert_eq!(answer.status, 404, "an index needs its Accept: {answer:?}");
        let answer =
            wire::ask(proxy.address(), "GET /v2/library/busybox/manifests/latest", &format!("Accept: {ACCEPT}\r\n"));
        assert_eq!(answer.status, 200);
        let log = proxy.end();
        assert!(log.contains("/manifests/latest 200"), "{log}");
        let mut secrets = vec![SECRET.to_owned(), "Y2xpZW50cw".to_owned()];
        for request in azure.requests() {
            if request.server == Server::Registry {
                secrets.extend(
                    request.header("authorization").map(|value| value.trim_start_matches("Bearer ").to_owned()),
                );
                secrets.extend(request.body.split('&').filter_map(|pair| {
                    let (name, value) = pair.split_once('=')?;
                    name.ends_with("_token").then(|| value.to_owned())
                }));
            }
        }
        assert!(secrets.len() >= 5, "the test found its secrets: {}", secrets.len());
        for secret in secrets {
            assert!(!log.contains(&secret), "a secret is in the log: {secret}");
        }
    }
}

/// It passed on whatever the registry, or who is between, wrote into a header; the log had the first 64 characters of a correlation id.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_repeated_in_a_header_reaches_no_client_and_no_part_of_it_the_log() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).start();
        let ask = |path: &str| wire::ask(proxy.address(), &format!("GET {path}"), &format!("Accept: {ACCEPT}\r\n"));
        assert_eq!(ask("/v2/library/busybox/manifests/latest").status, 200);
        let token = data(&azure)[0].header("authorization").expect("a token").trim_start_matches("Bearer ").to_owned();
        let blob = format!("/v2/library/busybox/blobs/sha256:{}", "ab".repeat(32));
        for (path, status, name, value) in [
            ("/v2/library/busybox/manifests/1", 200, "X-Ms-Correlation-Request-Id", token.clone()),
            ("/v2/library/busybox/manifests/2", 404, "ETag", format!("\"{token}\"")),
            ("/v2/library/busybox/tags/list", 200, "Link", format!("</v2/x/tags/list?last={token}>; rel=\"next\"")),
            (&blob, 307, "Location", format!("https://x.blob.core.windows.net/?t=Bearer+{token}&sig=x")),
        ] {
            let fault = Fault::StatusWith { status, headers: vec![(name.to_owned(), value)], body: "{}".to_owned() };
            azure.inject(Hop::Data, fault);
            let answer = ask(path);
            azure.clear_faults();
            assert_eq!((answer.status, answer.code().as_str()), (502, "UNAVAILABLE"), "{path}: {answer:?}");
            assert!(answer.body.contains("a header of it repeats this proxy's token"), "{path}: {answer:?}");
            assert!(!format!("{answer:?}").contains(&token[..64]), "{path}: {answer:?}");
        }
        // Names of headers have no letter case.
        let headers = vec![(token.clone(), "x".to_owned())];
        azure.inject(Hop::Data, Fault::StatusWith { status: 200, headers, body: "{}".to_owned() });
        assert_eq!(ask("/v2/library/busybox/manifests/4").status, 502);
        azure.clear_faults();
        let headers = vec![("X-Ms-Correlation-Request-Id".to_owned(), token[..64].to_owned())];
        azure.inject(Hop::Data, Fault::StatusWith { status: 404, headers, body: String::new() });
        assert_eq!(ask("/v2/library/busybox/manifests/3").status, 404);
        let log = proxy.end();
        assert!(log.contains("/manifests/3 404") && !log.contains(&token[..16]), "{log}");
    }
}
