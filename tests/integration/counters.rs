//! What the admin listener tells of the cache, and what it has the cache forget.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Fault, Hop, Image, Pushed};
use serde_json::{Value, json};
use testkit::Proxy;

use crate::admin::observed;
use crate::fixture::ACCEPT;
use crate::wire::{self, Answer};

/// Two registries' images, and a proxy that keeps what it may.
async fn start(cache: &str) -> (Emulator, Pushed, Proxy, SocketAddr) {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let pushed = azure.push(Image::small("hub/library/busybox", "latest"));
    azure.tag("hub/library/busybox", &pushed.index_digest, "1.36");
    for repository in ["hub/library/busybox-extra", "hub/library/busybox/manifests", "ghcr/library/busybox"] {
        azure.push(Image::small(repository, "latest"));
    }
    let (proxy, admin) = observed(&azure, cache);
    (azure, pushed, proxy, admin)
}

fn get(proxy: &Proxy, path: &str) -> Answer {
    wire::ask(proxy.address(), &format!("GET /v2/{path}"), ACCEPT)
}

fn counters(admin: SocketAddr) -> Value {
    let answer = wire::ask(admin, "GET /cache", "");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{answer:?}");
    serde_json::from_str(&answer.body).expect("JSON")
}

/// The names of a JSON value, each with those above it.
fn names(value: &Value) -> Vec<String> {
    let below = |(name, value): (&String, &Value)| match names(value) {
        below if below.is_empty() => vec![name.clone()],
        below => below.into_iter().map(|below| format!("{name}.{below}")).collect(),
    };
    value.as_object().map(|members| members.iter().flat_map(below).collect()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_counted_by_how_it_came_about() {
    let (azure, pushed, proxy, admin) = start("{memory: 8MiB}").await;
    let digest = &pushed.index_digest;
    let layer = &pushed.blobs[0];
    let empty = counters(admin);
    let mut asked = vec![];
    for (path, header, counted) in [
        ("library/busybox/manifests/latest".to_owned(), ACCEPT, "requests.misses"),
        ("library/busybox/manifests/latest".to_owned(), ACCEPT, "requests.hits.tags"),
        (format!("library/busybox/manifests/{digest}"), ACCEPT, "requests.hits.manifests"),
        ("library/busybox/manifests/latest".to_owned(), "Accept: */*\r\n", "requests.passed.accept"),
        ("library/busybox/manifests/nope".to_owned(), ACCEPT, "requests.misses"),
        ("library/busybox/manifests/nope".to_owned(), ACCEPT, "requests.hits.missing"),
        (format!("library/busybox/blobs/{layer}"), "", "requests.misses"),
        (format!("library/busybox/blobs/{layer}"), "", "requests.hits.redirects"),
        ("library/busybox/tags/list".to_owned(), "", "requests.misses"),
        ("library/busybox/tags/list".to_owned(), "", "requests.hits.lists"),
    ] {
        let before = counters(admin);
        wire::ask(proxy.address(), &format!("GET /v2/{path}"), header);
        asked.push(counted);
        let after = counters(admin);
        let pointer = |name: &str| format!("/{}", name.replace('.', "/"));
        for name in names(&after["requests"]) {
            let name = format!("requests.{name}");
            let count = |counters: &Value| counters.pointer(&pointer(&name)).and_then(Value::as_u64).expect("a number");
            assert_eq!(count(&after) - count(&before), u64::from(name == counted), "{path}: {name}");
        }
    }
    let last = counters(admin);
    let reads = azure.requests().into_iter().filter(|request| request.hop == Hop::Data).count();
    assert_eq!(last["registries"][0]["reads"], json!(reads));
    assert_eq!(last["reads_saved"], json!(asked.iter().filter(|counted| counted.contains("hits")).count()));
    // The tag, its digest, a 404, a redirect and a list.
    assert_eq!((&last["memory"]["entries"], &last["memory"]["max_bytes"]), (&json!(5), &json!(8 << 20)));
    assert!(last["memory"]["bytes"].as_u64().is_some_and(|bytes| bytes > 1000), "{last}");
    assert_eq!((&empty["reads_saved"], &empty["memory"]["entries"]), (&json!(0), &json!(0)));
    // Whoever reads them finds each name, whatever has happened, and in order.
    let sorted = names(&last);
    assert_eq!(sorted, names(&empty));
    assert!(sorted.is_sorted(), "{sorted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_cache_off_the_names_are_the_same_and_reads_are_counted() {
    let (_azure, _, proxy, admin) = start("off").await;
    let (_other, _, _kept, other) = start("{memory: 8MiB}").await;
    for _ in 0..3 {
        let answer = get(&proxy, "library/busybox/manifests/latest");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let off = counters(admin);
    assert_eq!(names(&off), names(&counters(other)));
    assert_eq!((&off["memory"]["max_bytes"], &off["reads_saved"]), (&json!(0), &json!(0)));
    assert_eq!(off["registries"][0]["reads"], json!(3));
}

/// Asks for a tag, and has this image forgotten while the registry answers: what the client got, and what the purge said.
fn fetched_amid_a_purge(azure: &Emulator, proxy: &Proxy, admin: SocketAddr, image: &str) -> (Answer, Value) {
    azure.inject(Hop::Data, Fault::PauseMidBody(Duration::from_secs(2)).times(1));
    let (fetched, purged) = std::thread::scope(|scope| {
        let fetching = scope.spawn(|| get(proxy, "library/busybox/manifests/latest"));
        let deadline = Instant::now() + Duration::from_secs(30);
        while counters(admin)["under_way"] != json!(1) {
            assert!(Instant::now() < deadline, "{}", proxy.log());
        }
        let purged = wire::ask(admin, &format!("POST /cache/purge?image={image}"), "");
        (fetching.join().expect("an answer"), purged)
    });
    (fetched, serde_json::from_str(&purged.body).expect("JSON"))
}

/// Those who wait get what the registry brings; nobody else does, and none of them is told that it is kept.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_forgotten_while_it_is_fetched_is_counted_and_not_stored() {
    let (azure, _, proxy, admin) = start("{memory: 8MiB}").await;
    let (fetched, said) = fetched_amid_a_purge(&azure, &proxy, admin, "busybox:latest");
    assert_eq!((&said["entries"], &said["under_way"]), (&json!(0), &json!(1)), "{said}");
    assert_eq!(
        (fetched.status, fetched.header("cache-status")),
        (200, Some("acr-cache-proxy; fwd=miss")),
        "{fetched:?}"
    );
    proxy.wait_for_log("0 entries of hub/library/busybox, and 1 requests under way");
    assert_eq!(counters(admin)["memory"]["entries"], json!(0));
}

/// What a tag's flight brought stayed for an hour under the digest that was to be forgotten: the flight was under another name.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_was_forgotten_by_its_digest_came_back_with_its_tag() {
    let (azure, pushed, proxy, admin) = start("{memory: 8MiB}").await;
    let (fetched, said) = fetched_amid_a_purge(&azure, &proxy, admin, &format!("busybox@{}", pushed.index_digest));
    assert_eq!((fetched.status, &said["entries"], &said["under_way"]), (200, &json!(0), &json!(1)), "{said}");
    assert_eq!(counters(admin)["memory"]["entries"], json!(0));
}

/// Nothing is asked of a registry that is known to be down, so every answer that stands in saves a read.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_answer_while_the_registry_is_down_is_a_read_that_was_saved() {
    let (azure, _, proxy, admin) = start("{tags: 0s}").await;
    get(&proxy, "library/busybox/manifests/latest");
    azure.inject(Hop::Data, Fault::Status(500));
    let deadline = Instant::now() + Duration::from_secs(30);
    while counters(admin)["registries"][0]["down"] != json!(true) {
        assert!(Instant::now() < deadline, "{}", proxy.log());
        get(&proxy, "library/busybox/tags/list");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let before = counters(admin);
    for _ in 0..5 {
        assert_eq!(get(&proxy, "library/busybox/manifests/latest").status, 200);
    }
    let after = counters(admin);
    let of = |pointer: &str| {
        let of = |counters: &Value| counters.pointer(pointer).and_then(Value::as_u64).expect("a number");
        of(&after) - of(&before)
    };
    assert_eq!([of("/requests/stale"), of("/reads_saved"), of("/registries/0/reads")], [5, 5, 0], "{before} {after}");
}

/// `/readyz` tells of tokens only; whether a registry answers is told here.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_down_or_limits_reads_is_told_of() {
    let (azure, _, proxy, admin) = start("{tags: 0s}").await;
    let told = |name: &str| counters(admin)["registries"][0][name].clone();
    get(&proxy, "library/busybox/manifests/latest");
    assert_eq!([told("down"), told("pauses"), told("stale")], [json!(false), json!(0), json!(0)]);
    azure.inject(Hop::Data, Fault::Throttled(Duration::from_secs(3600)));
    let stale = get(&proxy, "library/busybox/manifests/latest");
    assert_eq!(stale.status, 200, "{stale:?}");
    assert_eq!([told("pauses"), told("stale")], [json!(1), json!(1)]);
    azure.clear_faults();
    azure.inject(Hop::Data, Fault::Status(500));
    // A kind of request for which there is no pause. Failures and probes in a row show that it is down.
    let deadline = Instant::now() + Duration::from_secs(30);
    while told("down") != json!(true) {
        assert!(Instant::now() < deadline, "{}", proxy.log());
        get(&proxy, "library/busybox/tags/list");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(wire::ask(admin, "GET /readyz", "").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_forgotten_by_its_clients_name_and_no_other_is() {
    let (azure, pushed, proxy, admin) = start("{memory: 8MiB}").await;
    let digest = &pushed.index_digest;
    // Each leaves an entry of its own; of those in `ghcr`, the tag and its digest.
    let paths = [
        "library/busybox/manifests/latest".to_owned(),
        "library/busybox/manifests/1.36".to_owned(),
        format!("library/busybox/manifests/{digest}"),
        "library/busybox/manifests/nope".to_owned(),
        format!("library/busybox/blobs/{}", pushed.blobs[0]),
        "library/busybox/tags/list".to_owned(),
        "library/busybox-extra/manifests/latest".to_owned(),
        "library/busybox/manifests/manifests/latest".to_owned(),
        "ghcr.io/library/busybox/manifests/latest".to_owned(),
    ];
    for (image, repository, entries, forgotten) in [
        ("busybox", "hub/library/busybox", 6, &[0, 1, 2, 3, 4, 5][..]),
        ("docker.io/library/busybox", "hub/library/busybox", 6, &[0, 1, 2, 3, 4, 5]),
        ("busybox:latest", "hub/library/busybox", 2, &[0, 5]),
        ("busybox:nope", "hub/library/busybox", 2, &[3, 5]),
        // With the tags that serve it.
        (&format!("busybox@{digest}"), "hub/library/busybox", 3, &[0, 1, 2]),
        (&format!("library/busybox:1.36@{digest}"), "hub/library/busybox", 4, &[0, 1, 2, 5]),
        (
            "library/busybox@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "hub/library/busybox",
            0,
            &[],
        ),
        ("busybox/manifests", "hub/busybox/manifests", 0, &[]),
        // Its tag and its digest.
        ("ghcr.io/library/busybox", "ghcr/library/busybox", 2, &[8]),
    ] {
        for path in &paths {
            let missing = path.ends_with("nope");
            assert!([200, 307].contains(&get(&proxy, path).status) != missing, "{path}");
        }
        let answer = wire::ask(admin, &format!("POST /cache/purge?image={image}"), "");
        assert_eq!(answer.status, 200, "{image}: {answer:?}");
        let said: Value = serde_json::from_str(&answer.body).expect("JSON");
        let registry = format!("example.azurecr.io:{}", azure.registry_addr().port());
        let expected = json!({
            "entries": entries, "image": image, "registry": registry, "repository": repository, "under_way": 0,
        });
        assert_eq!(said, expected);
        azure.clear_requests();
        for path in &paths {
            get(&proxy, path);
        }
        let asked: Vec<_> = azure.requests().into_iter().map(|request| request.target).collect();
        let expected: Vec<_> = forgotten
            .iter()
            .map(|&at: &usize| paths[at].replace("ghcr.io/", "ghcr/"))
            .map(|path| if path.starts_with("ghcr/") { format!("/v2/{path}") } else { format!("/v2/hub/{path}") })
            // A tag that is asked for brings its digest.
            .filter(|path| !(path.ends_with(digest.as_str()) && forgotten.iter().any(|at| [0, 1].contains(at))))
            .collect();
        assert_eq!(asked, expected, "{image}");
    }
    proxy.wait_for_log("is forgotten by request: 6 entries of hub/library/busybox, and 0 requests under way");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_image_is_refused_and_a_web_page_has_nothing_forgotten() {
    let (_azure, _, proxy, admin) = start("{memory: 8MiB}").await;
    assert_eq!(get(&proxy, "library/busybox/manifests/latest").status, 200);
    for (line, headers, status, says) in [
        ("POST /cache/purge?image=Busybox", "", 400, "\"Busybox\" is not an image: a repository is lower case"),
        ("POST /cache/purge?image=https://docker.io/busybox", "", 400, "it has a scheme"),
        ("POST /cache/purge", "", 400, "no image is named: use POST /cache/purge?image="),
        ("POST /cache/purge", "Content-Length: 13\r\n", 400, "no image is named: use POST /cache/purge?image="),
        ("POST /cache/purge?all=1", "", 400, "there is no parameter \"all\""),
        ("POST /cache/purge?image=quay.io/a/b", "", 404, "no route for quay.io"),
        ("GET /cache/purge?image=busybox", "", 405, "POST"),
        ("DELETE /cache/purge?image=busybox", "", 405, "POST"),
        ("POST /cache?image=busybox", "", 405, "GET or HEAD"),
        ("POST /readyz", "", 405, "GET or HEAD"),
        // They were "GET or HEAD", although there is nothing to get.
        ("POST /nope", "", 404, "for POST, /cache/purge?image="),
        ("POST /cache/purge/", "", 404, "for POST, /cache/purge?image="),
        // It was an image of Docker Hub's, `library/docker.io`.
        (
            "POST /cache/purge?image=docker.io",
            "",
            400,
            "docker.io is a registry: name an image of it, such as docker.io/",
        ),
        ("POST /cache/purge?image=index.docker.io:1", "", 400, "index.docker.io is a registry: name an image of it"),
        ("GET /cached", "", 404, "/cache and, for POST, /cache/purge?image="),
        ("POST /cache/purge?image=busybox", "Origin: http://evil.example\r\n", 403, "not for pages in a browser"),
        ("POST /cache/purge?image=busybox", "Sec-Fetch-Site: cross-site\r\n", 403, "not for pages in a browser"),
        ("POST /cache/purge?image=busybox", "Accept-Language: en\r\n", 403, "not for pages in a browser"),
        ("POST /cache/purge?image=busybox", "Sec-Fetch-Site: same-origin\r\n", 403, "not for pages in a browser"),
        ("GET /cache", "Origin: null\r\n", 403, "not for pages in a browser"),
    ] {
        let answer = wire::ask(admin, line, headers);
        assert_eq!(answer.status, status, "{line}: {answer:?}");
        assert!(answer.body.contains(says) && answer.body.lines().count() == 1, "{line}: {answer:?}");
        let allow = if line.contains("/purge") { "POST" } else { "GET, HEAD" };
        assert_eq!(answer.header("allow"), (status == 405).then_some(allow), "{line}");
    }
    assert_eq!(counters(admin)["memory"]["entries"], json!(2), "the tag and its digest");
    // What follows a body is no request.
    let two = "POST /cache/purge HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n\
        POST /cache/purge?image=busybox HTTP/1.1\r\nHost: a\r\n\r\n";
    let answers = String::from_utf8_lossy(&wire::send(admin, two.as_bytes())).into_owned();
    assert!(answers.matches("HTTP/1.1 ").count() == 1 && answers.starts_with("HTTP/1.1 400"), "{answers}");
    assert_eq!(counters(admin)["memory"]["entries"], json!(2));
    assert_eq!(wire::ask(admin, "HEAD /cache", "").body, "");
}
