//! Readiness while answers are kept, the status page and what it reads.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Fault, Hop, Image, Options, Server};
use serde_json::{Value, json};
use testkit::{PATIENCE, Setup};

use crate::admin::admin;
use crate::fixture::ACCEPT;
use crate::manager::Manager;
use crate::wire;

fn told(admin: SocketAddr, path: &str) -> (u16, Value) {
    let answer = wire::ask(admin, &format!("GET {path}"), "");
    (answer.status, serde_json::from_str(&answer.body).expect("JSON"))
}

/// Waits until what is told satisfies this.
async fn until(admin: SocketAddr, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, body) = told(admin, path);
        if is_so(&body) {
            return body;
        }
        assert!(Instant::now() < deadline, "{body:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_without_a_token_is_ready_while_it_has_kept_answers_and_says_so() {
    let lifetime = Duration::from_secs(5);
    let options = Options {
        access_lifetime: lifetime,
        refresh_lifetime: lifetime,
        entra_lifetime: lifetime,
        ..testkit::options()
    };
    for (cache, ready) in [("{memory: 8MiB}", true), ("off", false)] {
        let azure = Emulator::start(options.clone()).await.expect("the emulator starts");
        azure.push(Image::small("hub/library/busybox", "latest"));
        let proxy = Setup::new(&azure).cache(cache).flag("--admin-address", ":0").start();
        let admin = admin(&proxy);
        let ask = || wire::ask(proxy.address(), "GET /v2/library/busybox/manifests/latest", ACCEPT).status;
        assert_eq!(ask(), 200);
        let body = until(admin, "/readyz", |body| body["summary"] == "ready").await;
        assert_eq!(body["upstreams"][0]["serves"], "all");
        azure.refuse_connections(Server::Entra, true);
        azure.inject(Hop::Exchange, Fault::Status(500));
        azure.inject(Hop::Token, Fault::Status(500));
        let serves = if ready { "kept" } else { "nothing" };
        let body = until(admin, "/readyz", |body| body["upstreams"][0]["serves"] == serves).await;
        let (status, _) = told(admin, "/readyz");
        assert_eq!((status, &body["ready"]), (if ready { 200 } else { 503 }, &Value::Bool(ready)), "{body:#}");
        let begin = if ready {
            "ready: only what is kept is served, because there is no token for example.azurecr.io"
        } else {
            "not ready: no token for example.azurecr.io"
        };
        assert!(body["summary"].as_str().is_some_and(|summary| summary.starts_with(begin)), "{body:#}");
        assert_eq!(ask(), if ready { 200 } else { 503 });
    }
}

/// "ready" was all that `systemctl status` and /readyz said, while every pull of what was not kept failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_down_was_told_as_ready() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure).flag("--admin-address", ":0");
    let path = setup.path("manager");
    let manager = Manager::at(&path);
    let proxy = setup.env("NOTIFY_SOCKET", &path.to_string_lossy()).spawn();
    let ready = manager.receive();
    let address = ready.lines().find_map(|line| line.strip_prefix("X_LISTEN_ADDRESS=")).expect("an address");
    let (address, admin) = (address.parse().expect("an address"), admin(&proxy));
    let has = |end: &str| while !manager.receive().contains(end) {};
    has(": ready\n");
    azure.refuse_connections(Server::Registry, true);
    let deadline = Instant::now() + PATIENCE;
    let body = loop {
        wire::ask(address, "GET /v2/library/busybox/manifests/other", ACCEPT);
        let (status, body) = told(admin, "/readyz");
        assert_eq!((status, &body["ready"]), (200, &Value::Bool(true)), "{body:#}");
        if body["summary"] != "ready" {
            break body;
        }
        assert!(Instant::now() < deadline, "{}", proxy.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let begin = "ready: only what is kept is served, because the registry is down: example.azurecr.io:";
    assert!(body["summary"].as_str().is_some_and(|summary| summary.starts_with(begin)), "{body:#}");
    assert!(body["upstreams"][0]["down"].is_string() && body["upstreams"][0]["serves"] == "kept", "{body:#}");
    has(": signed in, but it is down, and only what is kept is served: ");
    azure.refuse_connections(Server::Registry, false);
    has(": ready\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_who_signs_in_what_failed_and_who_pulls_what_and_no_secret() {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    azure.push(Image::small("hub/library/busybox", "latest"));
    let proxy = Setup::new(&azure).cache("{memory: 8MiB}").flag("--admin-address", ":0").start();
    let admin = admin(&proxy);
    for _ in 0..3 {
        wire::ask(proxy.address(), "HEAD /v2/library/busybox/manifests/latest", ACCEPT);
    }
    azure.inject(Hop::Data, Fault::Status(500));
    wire::ask(proxy.address(), "GET /v2/library/busybox/manifests/<img src=x>", ACCEPT);
    wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list?secret=in-a-query", "");
    let body = until(admin, "/status", |body| !body["history"]["points"].as_array().expect("points").is_empty()).await;
    let registry = &body["registries"][0];
    assert_eq!(
        (&registry["identity"]["kind"], &registry["identity"]["id"]),
        (&Value::from("default chain"), &Value::from(testkit::CLIENT))
    );
    assert!(registry["token"]["access"]["left_seconds"].as_u64().is_some_and(|left| left > 60), "{body:#}");
    assert!(registry["last_success_seconds"].is_u64() && registry["last_failure"]["error"].is_string(), "{body:#}");
    assert_eq!(body["images"][0]["image"], "docker.io/library/busybox:latest");
    assert_eq!(body["images"][0]["pulls"], 3);
    assert!(body["asked"].is_null(), "{body:#}");
    for (image, asked) in [
        ("docker.io/library/busybox:latest", json!({"image": "docker.io/library/busybox:latest", "pulls": 3})),
        ("busybox", json!({"image": "busybox", "pulls": 3})),
        ("busybox:none", json!({"image": "busybox:none", "pulls": 0})),
    ] {
        let (_, body) = told(admin, &format!("/status?image={image}"));
        assert_eq!(body["asked"], asked, "{image}");
    }
    // All of them were 200, with `"asked": null`.
    for (query, status, says) in [
        ("image=ghcr.io/no/route", 404, "no route for ghcr.io"),
        ("image=Busybox", 400, "\"Busybox\" is not an image: a repository is lower case"),
        ("image=", 400, "\"\" is not an image: it is empty"),
        ("x=1", 400, "there is no parameter \"x\": use /status?image="),
        ("x=1&image=busybox", 400, "more than one parameter: use /status?image="),
        ("image=docker.io", 400, "docker.io is a registry"),
    ] {
        let answer = wire::ask(admin, &format!("GET /status?{query}"), "");
        assert_eq!(answer.status, status, "{query}: {answer:?}");
        assert!(answer.body.starts_with(says), "{query}: {answer:?}");
    }
    assert_eq!(body["clients"][0]["client"], "127.0.0.1");
    let failure = &body["failures"][0];
    assert_eq!(
        (&failure["path"], &failure["method"]),
        (&Value::from("/v2/library/busybox/tags/list"), &Value::from("GET"))
    );
    assert!(failure["correlation"].as_str().is_some_and(|id| id.len() == 36), "{body:#}");
    let text = body.to_string();
    assert!(!text.contains("in-a-query") && !text.contains(testkit::SECRET), "{text}");
}

/// The list had `hub/library/busybox:latest`, by which the purge forgot nothing of `hub/hub/library/busybox`, with status 200.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_listed_by_the_name_by_which_it_can_be_purged() {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let routes =
        [("docker.io", "hub"), ("docker.io/library/pinned", "pins/one"), ("ghcr.io", "''"), ("quay.io/org", "quay")];
    let images = [
        ("docker.io", "library/busybox", "hub/library/busybox"),
        ("docker.io", "library/pinned", "pins/one"),
        ("ghcr.io", "hub/app", "hub/app"),
        ("quay.io", "org/a/b", "quay/a/b"),
    ];
    images.iter().for_each(|(_, _, there)| drop(azure.push(Image::small(there, "latest"))));
    let proxy = Setup::routes(&azure, &routes).cache("{memory: 8MiB}").flag("--admin-address", ":0").start();
    let admin = admin(&proxy);
    for (source, name, _) in images {
        let path = format!("HEAD /v2/{name}/manifests/latest?ns={source}");
        assert_eq!(wire::ask(proxy.address(), &path, ACCEPT).status, 200, "{path}");
    }
    let listed = |body: &Value| {
        let images = body["images"].as_array().expect("images").iter();
        let mut listed: Vec<_> = images.map(|one| one["image"].as_str().expect("a name").to_owned()).collect();
        listed.sort();
        listed
    };
    let body = until(admin, "/status", |body| listed(body).len() == images.len()).await;
    let expected = images.map(|(source, name, _)| format!("{source}/{name}:latest"));
    assert_eq!(listed(&body), expected);
    for (image, (_, _, there)) in expected.iter().zip(images) {
        let (_, body) = told(admin, &format!("/status?image={image}"));
        assert_eq!(body["asked"], json!({"image": image, "pulls": 1}));
        let answer = wire::ask(admin, &format!("POST /cache/purge?image={image}"), "");
        let purged: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(purged["repository"], there, "{image}");
        assert!(purged["entries"].as_u64().is_some_and(|entries| entries > 0), "{image}: {purged}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_for_a_person_at_an_address_and_for_no_other_page() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).flag("--admin-address", ":0").start();
    let admin = admin(&proxy);
    let get = |path: &str, headers: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        wire::parse(&wire::send(admin, request.as_bytes()))
    };
    let person = "Host: 127.0.0.1:8081\r\nAccept-Language: en\r\n";
    for path in ["/", "/status"] {
        let answer = get(path, person);
        assert_eq!(answer.status, 200, "{answer:?}");
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        for (headers, status) in [
            ("Host: rebound.example:8081\r\nAccept-Language: en\r\n", 403),
            ("Host: rebound.example:8081\r\nSec-Fetch-Site: same-origin\r\n", 403),
            ("Host: 127.0.0.1:8081\r\nSec-Fetch-Site: none\r\n", 200),
            ("Host: 127.0.0.1:8081\r\nOrigin: http://evil.example\r\n", 403),
            ("Host: 127.0.0.1:8081\r\nSec-Fetch-Site: cross-site\r\n", 403),
            ("Host: mirror.internal:8081\r\n", 200),
        ] {
            assert_eq!(get(path, headers).status, status, "{path} {headers}");
        }
    }
    // What a browser says of itself in the other ways got 200.
    for path in ["/metrics", "/cache", "/readyz", "/healthz"] {
        for site in ["", "Sec-Fetch-Site: none\r\n", "Sec-Fetch-Site: same-origin\r\n"] {
            assert_eq!(get(path, &format!("{person}{site}")).status, 403, "{path} {site}");
        }
        assert_ne!(get(path, "Host: mirror.internal:8081\r\n").status, 403, "{path}: a probe by a name");
    }
}
