//! HTTP/2 by prior knowledge.

use std::io::{Read as _, Write as _};
use std::process::Command;

use acr_emulator::{Emulator, Fault, Hop, Image};
use serde_json::{Value, json};

use crate::wire;
use testkit::{Proxy, Setup};

/// What curl gets over HTTP/2 without asking first: version and status, then the body.
fn curl(proxy: &Proxy, path: &str, arguments: &[&str]) -> (String, Vec<u8>) {
    let body = tempfile::NamedTempFile::new().expect("a file");
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--http2-prior-knowledge", "--noproxy", "*"])
        .args(["--write-out", "%{http_version} %{http_code}", "--output"])
        .arg(body.path())
        .args(arguments)
        .arg(proxy.url(path))
        .output()
        .expect("curl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8_lossy(&output.stdout).into_owned(), std::fs::read(body.path()).expect("a body"))
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_by_prior_knowledge_works_without_tls() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    assert_eq!(curl(&proxy, "/v2/", &[]), ("2 200".to_owned(), b"{}".to_vec()));
    let index = azure.manifest("hub/library/busybox", "latest").expect("pushed");
    let path = "/v2/library/busybox/manifests/latest?ns=docker.io";
    let accept = ["--header", "Accept: application/vnd.oci.image.index.v1+json"];
    assert_eq!(curl(&proxy, path, &accept), ("2 200".to_owned(), index.to_vec()));
    let (status, tags) = curl(&proxy, "/v2/library/busybox/tags/list", &[]);
    let tags: Value = serde_json::from_slice(&tags).expect("JSON");
    assert_eq!((status.as_str(), &tags["name"]), ("2 200", &"library/busybox".into()));
    let (status, _) = curl(&proxy, path, &["--request", "DELETE"]);
    assert_eq!(status, "2 405");
    let (status, _) = curl(&proxy, path, &["--head"]);
    assert_eq!(status, "2 404", "an index, and HEAD does not accept one");
}

/// An answer over HTTP/2: the headers in lower case, as they are there.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// Asks by this method; header lines as curl takes them.
fn ask(proxy: &Proxy, method: &str, path: &str, headers: &[&str]) -> Answer {
    let head = tempfile::NamedTempFile::new().expect("a file");
    let at = head.path().to_string_lossy().into_owned();
    let mut arguments = vec!["--dump-header", &at];
    match method {
        "HEAD" => arguments.push("--head"),
        method => arguments.extend(["--request", method]),
    }
    arguments.extend(headers.iter().flat_map(|header| ["--header", header]));
    let (status, body) = curl(proxy, path, &arguments);
    let status = status.strip_prefix("2 ").and_then(|status| status.parse().ok()).expect("HTTP/2");
    let head = std::fs::read_to_string(head.path()).expect("a head").replace('\r', "");
    // curl writes the head of a HEAD where the body would be.
    Answer { status, head, body: if method == "HEAD" { Vec::new() } else { body } }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_a_tag_list_can_be_followed_over_http2() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let pushed = azure.push(Image::small("hub/library/busybox", "1.35"));
        for tag in ["1.36", "edge"] {
            azure.tag("hub/library/busybox", &pushed.index_digest, tag);
        }
        let proxy = Setup::new(&azure).cache(cache).start();
        for frame in [None, Some(Fault::Chunked), Some(Fault::UntilClose), Some(Fault::Gzip)] {
            azure.clear_faults();
            if let Some(frame) = frame.clone() {
                azure.inject(Hop::Data, frame);
            }
            let mut next = Some("/v2/busybox/tags/list?n=2&ns=docker.io".to_owned());
            let mut listed = Vec::new();
            while let Some(path) = next {
                let unpacks = ["Accept-Encoding: identity"];
                let (answer, head) = (ask(&proxy, "GET", &path, &unpacks), ask(&proxy, "HEAD", &path, &unpacks));
                assert_eq!((answer.status, head.status), (200, 200), "{frame:?} {answer:?} {head:?}");
                assert_eq!(answer.header("content-length"), head.header("content-length"), "{frame:?}");
                assert_eq!(answer.header("link"), head.header("link"), "{frame:?}");
                assert_eq!(answer.header("transfer-encoding"), None, "{frame:?} {answer:?}");
                if let Some(length) = answer.header("content-length") {
                    assert_eq!(length, answer.body.len().to_string(), "{frame:?} {answer:?}");
                }
                let list = match answer.header("content-encoding") {
                    Some("gzip") => {
                        serde_json::from_reader(flate2::read::GzDecoder::new(&answer.body[..])).expect("packed JSON")
                    }
                    _ => answer.json(),
                };
                assert_eq!(list["name"], "busybox", "{frame:?}");
                listed
                    .extend(list["tags"].as_array().expect("tags").iter().filter_map(Value::as_str).map(str::to_owned));
                next = answer.header("link").map(|link| {
                    let target = link.strip_prefix('<').and_then(|link| link.split_once('>')).expect("a target").0;
                    assert!(target.starts_with("/v2/busybox/") && target.ends_with("&ns=docker.io"), "{target}");
                    target.to_owned()
                });
            }
            assert_eq!(listed, ["1.35", "1.36", "edge", "latest"], "{frame:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_in_the_clients_names_over_http2() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::routes(&azure, &[("docker.io", "hub"), ("ghcr.io", "ghcr")]).cache(cache).start();
        for (name, repository) in [("library/none", "hub/library/none"), ("ghcr.io/org/none", "ghcr/org/none")] {
            let body = json!({"errors": [{
                "code": "DENIED",
                "message": format!("no pull of {repository}:latest"),
                "detail": [{"Type": "repository", "Name": repository, "Action": "pull"}],
            }]});
            let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
            azure.inject(Hop::Data, Fault::StatusWith { status: 403, headers, body: body.to_string() });
            let path = format!("/v2/{name}/manifests/latest");
            let accept = ["Accept: application/vnd.oci.image.index.v1+json"];
            let (answer, head) = (ask(&proxy, "GET", &path, &accept), ask(&proxy, "HEAD", &path, &accept));
            assert_eq!((answer.status, head.status), (403, 403), "{answer:?}");
            // What is passed on in other names has begun before its length is known.
            let length = (cache != "off").then(|| answer.body.len().to_string());
            assert_eq!(answer.header("content-length"), length.as_deref(), "{answer:?}");
            assert_eq!(answer.header("content-length"), head.header("content-length"));
            let error = &answer.json()["errors"][0];
            assert_eq!(error["message"], format!("no pull of {name}:latest"));
            assert_eq!(error["detail"][0]["Name"], name);
            azure.clear_faults();
        }
        let refused = ask(&proxy, "GET", "/v2/org/app/tags/list?ns=quay.io", &[]);
        assert_eq!((refused.status, &refused.json()["errors"][0]["code"]), (404, &json!("NAME_UNKNOWN")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_etag_is_304_over_http2() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let accept = "Accept: application/vnd.oci.image.index.v1+json";
    let path = "/v2/library/busybox/manifests/latest";
    let etag = ask(&proxy, "HEAD", path, &[accept]).header("etag").expect("an etag").to_owned();
    for method in ["GET", "HEAD"] {
        let answer = ask(&proxy, method, path, &[accept, &format!("If-None-Match: {etag}")]);
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{answer:?}");
    }
    assert_eq!(ask(&proxy, "GET", path, &[accept, "If-None-Match: \"x\""]).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_comes_whole_in_part_or_as_a_redirect_over_http2() {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let pushed = azure.push(Image::small("hub/library/busybox", "latest"));
    let layer = &pushed.blobs[1];
    let whole = azure.blob(layer).expect("pushed");
    let path = format!("/v2/library/busybox/blobs/{layer}");
    let proxy = Setup::new(&azure).start();
    let answer = ask(&proxy, "GET", &path, &[]);
    assert!(answer.status == 307 && answer.header("location").is_some_and(|to| to.contains("sig=")), "{answer:?}");
    let setup = Setup::new(&azure);
    let proxy = setup.upstream(&format!("  blobs: proxy\n  blob_hosts: ['{}']\n", azure.storage_addr())).start();
    for (method, range, status, expected) in [
        ("GET", None, 200, &whole[..]),
        ("GET", Some("Range: bytes=100-199"), 206, &whole[100..200]),
        ("GET", Some("Range: bytes=20000-"), 206, &whole[20000..]),
        ("HEAD", None, 200, &[]),
    ] {
        let answer = ask(&proxy, method, &path, range.as_slice());
        assert!(
            answer.status == status && answer.body == expected,
            "{method} {range:?} {} {}",
            answer.status,
            answer.head
        );
        assert_eq!(answer.header("docker-content-digest"), Some(layer.as_str()), "{}", answer.head);
    }
}

/// The shortest request there is, shorter than what tells HTTP/2 apart.
#[tokio::test(flavor = "multi_thread")]
async fn the_shortest_request_is_answered_at_once() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let mut stream = wire::connect(proxy.address());
    stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer, and the end of the connection");
    assert_eq!(wire::parse(&answer).status, 200);
}
