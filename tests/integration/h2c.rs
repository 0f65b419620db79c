use std::io::{Read as _, Write as _};
use std::process::Command;

use crate::harness::{self, Proxy, Setup};
use crate::wire;

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
async fn a_client_that_knows_speaks_http2_without_tls() {
    let azure = harness::azure().await;
    let proxy = Setup::new(&azure).start();
    assert_eq!(curl(&proxy, "/v2/", &[]), ("2 200".to_owned(), b"{}".to_vec()));
    let index = azure.manifest("hub/library/busybox", "latest").expect("pushed");
    let path = "/v2/library/busybox/manifests/latest?ns=docker.io";
    let accept = ["--header", "Accept: application/vnd.oci.image.index.v1+json"];
    assert_eq!(curl(&proxy, path, &accept), ("2 200".to_owned(), index.to_vec()));
    let (status, tags) = curl(&proxy, "/v2/library/busybox/tags/list", &[]);
    let tags: serde_json::Value = serde_json::from_slice(&tags).expect("JSON");
    assert_eq!((status.as_str(), &tags["name"]), ("2 200", &"library/busybox".into()));
    let (status, _) = curl(&proxy, path, &["--request", "DELETE"]);
    assert_eq!(status, "2 405");
    let (status, _) = curl(&proxy, path, &["--head"]);
    assert_eq!(status, "2 404", "an index, and HEAD does not accept one");
}

/// The shortest request there is, shorter than what tells HTTP/2 apart.
#[tokio::test(flavor = "multi_thread")]
async fn the_shortest_request_is_answered_at_once() {
    let azure = harness::azure().await;
    let proxy = Setup::new(&azure).start();
    let mut stream = wire::connect(proxy.address());
    stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer, and the end of the connection");
    assert_eq!(wire::parse(&answer).status, 200);
}
