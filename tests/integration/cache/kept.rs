//! One kept answer in all the forms in which clients ask for it.

use acr_emulator::{Emulator, Image};
use serde_json::Value;

use super::cached::{
    ACCEPT, Cached, DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, REPOSITORY, cache_status, is_hit, path, ttl,
};
use crate::wire::{Client, End, Whole};
use testkit::Setup;

/// Longer than a test takes.
const LONG: &str = "{tags: 1h, missing: 10m, lists: 1h}";

/// What was sent as `Accept` with the requests for a path, in order.
fn accepted(azure: &Emulator, path: &str) -> Vec<Option<String>> {
    azure.with_requests(|requests| {
        let of_path = requests.iter().filter(|request| request.target.ends_with(path));
        of_path.map(|request| request.header("accept").map(str::to_owned)).collect()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_manifest_is_for_those_who_name_its_type_and_others_ask_the_registry_themselves() {
    let cached = Cached::start(LONG).await;
    let docker = cached.azure.push(Image::small(REPOSITORY, "docker").with_docker_media_types());
    let oci = &cached.pushed;
    let single = cached.azure.push(Image::small(REPOSITORY, "single").without_index());
    let six = [
        OCI_INDEX,
        OCI_MANIFEST,
        DOCKER_LIST,
        DOCKER_MANIFEST,
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.docker.distribution.manifest.v1+json",
    ];
    let all = six.join(", ");
    for (reference, native, digest) in [
        ("latest", OCI_INDEX, &oci.index_digest),
        ("docker", DOCKER_LIST, &docker.index_digest),
        ("single", OCI_MANIFEST, &single.index_digest),
        (&oci.index_digest, OCI_INDEX, &oci.index_digest),
        (&docker.index_digest, DOCKER_LIST, &docker.index_digest),
        (&oci.manifests[0].1, OCI_MANIFEST, &oci.manifests[0].1),
        (&docker.manifests[1].1, DOCKER_MANIFEST, &docker.manifests[1].1),
    ] {
        let path = path(&format!("manifests/{reference}"));
        let bytes = cached.azure.manifest(REPOSITORY, reference).expect("pushed");
        assert_eq!(cached.get(&path).status(), 200, "{reference}");
        let unwanted = cached.ask("GET", &path, &format!("Accept: {native};q=0\r\n"));
        assert!(!is_hit(&unwanted), "{reference}, of which the client says that it does not want it: {unwanted:?}");
        let (with_another, with_weight) = (format!("text/html, {native}"), format!("{native};q=0.1,*/*"));
        let capitals = native.to_ascii_uppercase();
        let others = [all.as_str(), &with_another, &with_weight, &capitals, "*/*", "application/json", ""];
        let accepts = six.iter().copied().chain(others);
        for accept in accepts {
            for method in ["GET", "HEAD"] {
                let what = format!("{method} {reference} {accept:?}");
                cached.azure.clear_requests();
                let line = if accept.is_empty() { String::new() } else { format!("Accept: {accept}\r\n") };
                let answer = cached.ask(method, &path, &line);
                let names_it = accept.split([',', ';']).any(|named| named.trim().eq_ignore_ascii_case(native));
                if names_it {
                    assert_eq!(cached.reads(), 0, "{what}: {:?}", cached.azure.reads());
                    assert!(is_hit(&answer), "{what}: {answer:?}");
                    let header = |name| answer.header(name).unwrap_or_else(|| panic!("{what}: no {name}"));
                    assert_eq!((answer.status(), header("content-type")), (200, native), "{what}");
                    assert_eq!(header("docker-content-digest"), digest.as_str(), "{what}");
                    assert_eq!(header("content-length"), bytes.len().to_string(), "{what}");
                    assert!(if method == "GET" { answer.body == bytes } else { answer.body.is_empty() }, "{what}");
                    continue;
                }
                // It is asked with the client's own types, and the answer is the registry's, whatever that is.
                let sent = accepted(&cached.azure, &path["/v2/library/busybox".len()..]);
                let expected = (!accept.is_empty()).then(|| accept.to_owned());
                assert_eq!(sent, [expected], "{what}");
                assert!(!is_hit(&answer), "{what}: {answer:?}");
                let child = &docker.manifests[0].1;
                let is_served = native.starts_with("application/vnd.docker");
                let got = (answer.status(), answer.header("docker-content-digest"));
                let expected = match (reference, accept) {
                    ("docker", DOCKER_MANIFEST) => (200, Some(child.as_str())),
                    ("docker", _) => (404, None),
                    _ if is_served => (200, Some(digest.as_str())),
                    _ => (404, None),
                };
                assert_eq!(got, expected, "{what}: {answer:?}");
            }
        }
        // None of these answers took the place of what is kept.
        cached.azure.clear_requests();
        assert!(cached.get(&path).body == bytes && cached.reads() == 0, "{reference}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_with_another_accept_first_leaves_nothing_for_those_who_follow() {
    let cached = Cached::start(LONG).await;
    let docker = cached.azure.push(Image::small(REPOSITORY, "docker").with_docker_media_types());
    let path = path("manifests/docker");
    for accept in ["*/*", DOCKER_MANIFEST, "application/json"] {
        cached.ask("GET", &path, &format!("Accept: {accept}\r\n"));
    }
    let list = cached.get(&path);
    assert_eq!(list.header("docker-content-digest"), Some(docker.index_digest.as_str()), "{list:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_a_get_at_the_registry_so_that_the_get_is_a_hit() {
    let cached = Cached::start(LONG).await;
    let path = path("manifests/latest");
    let first = cached.ask("HEAD", &path, ACCEPT);
    assert_eq!((first.status(), first.end), (200, End::Bodiless), "{first:?}");
    assert!(!is_hit(&first), "{first:?}");
    assert!(cache_status(&first).iter().any(|part| part.starts_with("fwd=")), "{first:?}");
    let get = cached.get(&path);
    assert!(is_hit(&get), "{get:?}");
    assert_eq!(
        cached.azure.reads().into_iter().collect::<Vec<_>>(),
        [(format!("GET /v2/{REPOSITORY}/manifests/latest"), 1)]
    );
    // The headers are those of the GET, but for how long it has been kept.
    let without_age = |answer: &Whole| {
        let lines = answer.head.head.lines().filter(|line| {
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            !["age", "cache-status", "date"].contains(&name.as_str())
        });
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let head = cached.ask("HEAD", &path, ACCEPT);
    assert_eq!(without_age(&head), without_age(&get));
    // Who asked for it in another connection is told nothing of that one.
    assert!(get.header("set-cookie").is_none() && get.header("x-ms-correlation-request-id").is_none(), "{get:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_knows_it_gets_304() {
    let cached = Cached::start(LONG).await;
    let digest = &cached.pushed.index_digest;
    let tag = path("manifests/latest");
    assert_eq!(cached.get(&tag).status(), 200);
    for path in [tag, path(&format!("manifests/{digest}"))] {
        for (known, status) in [
            (format!("\"{digest}\""), 304),
            (format!("\"x\", \"{digest}\""), 304),
            (format!("W/\"{digest}\""), 304),
            ("*".to_owned(), 304),
            ("\"x\"".to_owned(), 200),
            (String::new(), 200),
        ] {
            for method in ["GET", "HEAD"] {
                let mut client = Client::new(cached.proxy.address());
                let headers = format!("{ACCEPT}If-None-Match: {known}\r\n");
                let answer = client.ask(method, &path, "HTTP/1.1", &headers);
                assert_eq!(answer.status(), status, "{method} {path} {known}: {answer:?}");
                assert_eq!(answer.header("etag"), Some(format!("\"{digest}\"").as_str()), "{method} {path} {known}");
                assert!(is_hit(&answer), "{method} {path} {known}: {answer:?}");
                // A body that came all the same would be taken for the next answer.
                assert_eq!(client.ask("GET", &path, "HTTP/1.1", ACCEPT).status(), 200, "{method} {path} {known}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_what_is_kept_is_served_here() {
    let cached = Cached::start(LONG).await;
    let path = path("manifests/latest");
    let bytes = cached.azure.manifest(REPOSITORY, "latest").expect("pushed");
    assert_eq!(cached.get(&path).status(), 200);
    cached.azure.clear_requests();
    let size = bytes.len();
    let etag = format!("\"{}\"", cached.pushed.index_digest);
    let part = |first: usize, last: usize| (206, format!("bytes {first}-{last}/{size}"), bytes.slice(first..=last));
    let whole = || (200, String::new(), bytes.clone());
    for (headers, (status, range, body)) in [
        ("Range: bytes=0-".to_owned(), part(0, size - 1)),
        ("Range: bytes=0-0".to_owned(), part(0, 0)),
        ("Range: bytes=10-19".to_owned(), part(10, 19)),
        (format!("Range: bytes=5-{}", size * 2), part(5, size - 1)),
        ("Range: bytes=-7".to_owned(), part(size - 7, size - 1)),
        (format!("Range: bytes=-{}", size * 2), part(0, size - 1)),
        (format!("Range: bytes={size}-"), (416, format!("bytes */{size}"), bytes::Bytes::new())),
        // What is no range of bytes, and several of them, which a server may answer whole.
        ("Range: lines=1-2".to_owned(), whole()),
        ("Range: bytes=9-3".to_owned(), whole()),
        ("Range: bytes=0-1,3-4".to_owned(), whole()),
        // Only if it is still the same.
        (format!("Range: bytes=1-2\r\nIf-Range: {etag}"), part(1, 2)),
        ("Range: bytes=1-2\r\nIf-Range: \"x\"".to_owned(), whole()),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = cached.ask(method, &path, &format!("{ACCEPT}{headers}\r\n"));
            // `Range` is for GET alone (RFC 9110 section 14.2).
            let (status, range, body) = if method == "HEAD" {
                (200, String::new(), bytes::Bytes::new())
            } else {
                (status, range.clone(), body.clone())
            };
            assert_eq!(answer.status(), status, "{method} {headers}: {answer:?}");
            assert_eq!(answer.header("content-range").unwrap_or_default(), range, "{method} {headers}");
            if status != 416 {
                assert!(answer.body == body, "{method} {headers}: {answer:?}");
                assert!(is_hit(&answer), "{method} {headers}: {answer:?}");
            }
            assert!(method == "HEAD" || answer.end == End::Length, "{method} {headers}: {answer:?}");
        }
    }
    assert_eq!(cached.reads(), 0, "{:?}", cached.azure.reads());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_says_how_old_it_is_and_how_long_it_is_kept() {
    let cached = Cached::start("{tags: 1h, missing: 10m, lists: 1h, redirects: 10m}").await;
    let blob = format!("blobs/{}", cached.pushed.blobs[0]);
    for (rest, status, at_most) in [
        ("manifests/latest", 200, 3600),
        (&format!("manifests/{}", cached.pushed.manifests[0].1), 200, 3600),
        ("manifests/none", 404, 3600),
        ("tags/list", 200, 3600),
        (&format!("referrers/{}", cached.pushed.index_digest), 200, 3600),
        (&blob, 307, 600),
    ] {
        let path = path(rest);
        let first = cached.get(&path);
        assert_eq!(first.status(), status, "{rest}: {first:?}");
        assert!(cache_status(&first).iter().any(|part| part == "fwd=miss"), "{rest}: {first:?}");
        cached.proxy.wait_for_log("cache=miss");
        let second = cached.get(&path);
        assert_eq!(second.status(), status, "{rest}: {second:?}");
        assert!(is_hit(&second), "{rest}: {second:?}");
        assert!((1..=at_most).contains(&ttl(&second)), "{rest}: {second:?}");
        let age: i64 = second.header("age").and_then(|age| age.parse().ok()).expect("an age");
        assert!((0..600).contains(&age), "{rest}: {second:?}");
        assert!(age + ttl(&second) <= at_most, "{rest}: {second:?}");
    }
    cached.proxy.wait_for_log("cache=hit");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_kept_answer_is_in_the_names_of_each_client_that_gets_it() {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let pushed = azure.push(Image::small(REPOSITORY, "1"));
    for tag in ["2", "3"] {
        azure.tag(REPOSITORY, &pushed.index_digest, tag);
    }
    let proxy = Setup::routes(&azure, &[("docker.io", "hub"), ("ghcr.io", "ghcr")])
        .flag("--log", "info")
        .cache("{lists: 1h, missing: 10m}")
        .start();
    for (name, suffix) in [("library/busybox", "ns=docker.io"), ("busybox", "ns=docker.io"), ("docker.io/busybox", "")]
    {
        let ask = |rest: &str| {
            Client::new(proxy.address()).ask("GET", &format!("/v2/{name}/{rest}{suffix}"), "HTTP/1.1", ACCEPT)
        };
        let list = ask("tags/list?n=2&");
        let body: Value = serde_json::from_slice(&list.body).expect("JSON");
        assert_eq!((&body["name"], &body["tags"]), (&name.into(), &serde_json::json!(["1", "2"])), "{list:?}");
        assert_eq!(list.header("content-length"), Some(list.body.len().to_string().as_str()), "{list:?}");
        let link = list.header("link").expect("a second page");
        assert!(link.starts_with(&format!("</v2/{name}/tags/list?")), "{link}");
        assert_eq!(link.contains("ns=docker.io"), !suffix.is_empty(), "{link}");
        let absent = ask("manifests/none?");
        assert_eq!(absent.status(), 404);
        assert!(!String::from_utf8_lossy(&absent.body).contains("hub/"), "{absent:?}");
    }
    let reads = azure.reads();
    let lists: usize = reads.iter().filter(|(read, _)| read.contains("/tags/list?n=2")).map(|(_, count)| count).sum();
    let absent: usize = reads.iter().filter(|(read, _)| read.ends_with("/none")).map(|(_, count)| count).sum();
    assert_eq!((lists, absent), (1, 1), "{reads:?}");
}

/// `Cache-Status` once said `stored` of it each time, and the admin listener counted it as evicted.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_the_memory_is_neither_said_to_be_stored_nor_counted_as_evicted() {
    let cached = Cached::start("{memory: 1MiB}").await;
    let body = format!(r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"a":"{}"}}}}"#, "x".repeat(2 << 20));
    cached.azure.put_manifest(REPOSITORY, "large", OCI_INDEX, body);
    for _ in 0..2 {
        let answer = cached.get(&path("manifests/large"));
        assert_eq!((answer.status(), answer.body.len() > 2 << 20), (200, true));
        assert_eq!(cache_status(&answer), ["fwd=miss"]);
    }
    assert_eq!(cache_status(&cached.get(&path("manifests/latest")))[..2], ["fwd=miss", "stored"]);
    let said = crate::wire::ask(crate::admin::admin(&cached.proxy), "GET /cache", "");
    let said: Value = serde_json::from_str(&said.body).expect("JSON");
    let memory = &said["memory"];
    assert_eq!((memory["evicted_entries"].as_u64(), memory["evicted_bytes"].as_u64()), (Some(0), Some(0)), "{memory}");
}
