//! Several sources and registries through one port.

use acr_emulator::{Emulator, Hop, Image, Options};

use crate::wire;
use testkit::{Proxy, Setup};

/// Two registries: one has the cache rules of Docker Hub and ghcr.io, the other those of quay.io. A list of tags is asked for
/// each time, so that the registry that is asked can be seen.
async fn two_registries() -> (Emulator, Emulator, Proxy) {
    let one = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let other = Emulator::start(Options { login_server: "other.azurecr.io".to_owned(), ..testkit::options() });
    let other = other.await.expect("the emulator starts");
    for repository in ["hub/library/busybox", "hub/org/app", "ghcr/org/app"] {
        one.push(Image::small(repository, "latest"));
    }
    other.push(Image::small("quay/org/app", "latest"));
    let setup = Setup::new(&one);
    let ca = setup.file("both.pem", format!("{}{}", one.ca_pem(), other.ca_pem()));
    let upstream = |name: &str, azure: &Emulator| {
        format!("domain: {name}.azurecr.io:{}, addresses: [127.0.0.1]", azure.registry_addr().port())
    };
    let authority = other.authority().trim_end_matches('/').to_owned();
    let routes = format!(
        "listen: 127.0.0.1:0\nca_file: {}\nlog: trace\ncache: {{lists: 0s}}\nroutes:\n\
         \x20 - {{source: docker.io, prefix: hub, {one}}}\n\
         \x20 - {{source: ghcr.io, prefix: ghcr, hosts: [ghcr.mirror.internal], on_failure: closed, {one}}}\n\
         \x20 - {{source: quay.io, prefix: quay, cache: off, identity: {{kind: client_secret, authority: '{authority}'}}, {other}}}\n",
        ca.display(),
        one = upstream("example", &one),
        other = upstream("other", &other),
    );
    let file = setup.file("routes.yaml", routes);
    let proxy = setup.flag("--config", &file.to_string_lossy()).start();
    (one, other, proxy)
}

/// The repositories that were asked for, each once, in order.
fn repositories(azure: &Emulator) -> Vec<String> {
    let mut names: Vec<_> = azure
        .take_requests()
        .iter()
        .filter(|request| request.hop == Hop::Data)
        .filter_map(|request| Some(request.target.strip_prefix("/v2/")?.split_once("/tags/")?.0.to_owned()))
        .collect();
    names.dedup();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_goes_to_the_registry_and_the_prefix_of_its_source() {
    let (one, other, proxy) = two_registries().await;
    for (path, host, seen_by_one, seen_by_other) in [
        ("/v2/library/busybox/tags/list", "127.0.0.1", Some("hub/library/busybox"), None),
        ("/v2/busybox/tags/list?ns=docker.io", "127.0.0.1", Some("hub/library/busybox"), None),
        ("/v2/org/app/tags/list", "127.0.0.1", Some("hub/org/app"), None),
        ("/v2/org/app/tags/list?ns=ghcr.io", "127.0.0.1", Some("ghcr/org/app"), None),
        ("/v2/ghcr.io/org/app/tags/list", "127.0.0.1", Some("ghcr/org/app"), None),
        ("/v2/org/app/tags/list", "ghcr.mirror.internal:8080", Some("ghcr/org/app"), None),
        ("/v2/org/app/tags/list?ns=quay.io", "127.0.0.1", None, Some("quay/org/app")),
        ("/v2/quay.io/org/app/tags/list?ns=quay.io", "127.0.0.1", None, Some("quay/org/app")),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = wire::parse(&wire::send(proxy.address(), request.as_bytes()));
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        // The name in it is the one that was asked for.
        let asked = path.trim_start_matches("/v2/").split("/tags/").next().expect("a name");
        assert!(answer.body.contains(&format!("{{\"name\":\"{asked}\",")), "{path}: {answer:?}");
        assert_eq!(repositories(&one), Vec::from_iter(seen_by_one), "{path}");
        assert_eq!(repositories(&other), Vec::from_iter(seen_by_other), "{path}");
    }
    for path in
        ["/v2/org/app/tags/list?ns=gcr.io", "/v2/gcr.io/org/app/manifests/latest", "/v2/a/blobs/x:0?ns=10.0.0.1"]
    {
        let answer = wire::ask(proxy.address(), &format!("GET {path}"), "");
        assert_eq!((answer.status, answer.code().as_str()), (404, "NAME_UNKNOWN"), "{path}");
        assert!(answer.body.contains("no route for "), "{path}: {answer:?}");
    }
    // It was refused as `docker.io`, which has a route.
    let answer = wire::ask(proxy.address(), "GET /v2/a/tags/list?ns=docker.io%00", "");
    assert_eq!((answer.status, answer.code().as_str()), (404, "NAME_UNKNOWN"), "{answer:?}");
    let error: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    let message = "no route for docker.io\\u{0}: that is no registry's name";
    assert_eq!(error["errors"][0]["message"], message, "{answer:?}");
    assert!(repositories(&one).is_empty() && repositories(&other).is_empty());
    // Each registry has seen its own token only, from its own sign-in.
    for line in ["docker.io -> example.azurecr.io", "ghcr.io -> example.azurecr.io", "quay.io -> other.azurecr.io"] {
        proxy.wait_for_log(&format!("route: {line}"));
    }
    proxy.wait_for_log("cache: up to 64 MiB of memory");
    let log = proxy.log();
    for (source, end) in [("docker.io", "/hub"), ("ghcr.io", "/ghcr"), ("quay.io", "/quay, cache: off")] {
        let is_it = |line: &str| line.contains(&format!("route: {source} -> ")) && line.ends_with(end);
        assert!(log.lines().any(is_it), "{source}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_registry_does_not_affect_another() {
    let (one, other, proxy) = two_registries().await;
    assert_eq!(wire::ask(proxy.address(), "GET /v2/org/app/tags/list?ns=quay.io", "").status, 200);
    one.inject(Hop::Data, acr_emulator::Fault::Status(401));
    let refused = wire::ask(proxy.address(), "GET /v2/org/app/tags/list", "");
    assert_eq!((refused.status, refused.code().as_str()), (403, "DENIED"), "{refused:?}");
    assert!(refused.body.contains("\"detail\":\"org/app\""), "{refused:?}");
    assert_eq!(wire::ask(proxy.address(), "GET /v2/org/app/tags/list?ns=quay.io", "").status, 200);
    assert!(other.requests().iter().all(|request| request.status < 400));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_is_answered_as_the_routes_on_failure_says() {
    let (one, _other, proxy) = two_registries().await;
    let limited = acr_emulator::Fault::StatusWith {
        status: 429,
        headers: [("Retry-After", "7"), ("X-Ms-Correlation-Request-Id", "c0")]
            .map(|(a, b)| (a.into(), b.into()))
            .into(),
        body: r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"too many requests","detail":null}]}"#.to_owned(),
    };
    one.inject(Hop::Data, limited);
    let digest = format!("sha256:{}", "0".repeat(64));
    // The second is answered here: the registry is asked for no other manifest until its pause is over.
    for (path, status, id) in [
        ("/v2/org/app/manifests/latest".to_owned(), 503, Some("c0")),
        ("/v2/org/app/manifests/latest?ns=ghcr.io".to_owned(), 429, None),
        (format!("/v2/org/app/blobs/{digest}"), 429, Some("c0")),
    ] {
        let answer = wire::ask(proxy.address(), &format!("GET {path}"), "");
        assert_eq!((answer.status, answer.code().as_str()), (status, "TOOMANYREQUESTS"), "{path}: {answer:?}");
        let seconds = answer.header("retry-after").and_then(|seconds| seconds.parse().ok());
        assert!(seconds.is_some_and(|seconds: u32| (1..=7).contains(&seconds)), "{path}: {answer:?}");
        assert_eq!(answer.header("x-ms-correlation-request-id"), id, "{path}: {answer:?}");
    }
}
