//! What comes through the cache is whole before the first byte of it goes to a client.

use acr_emulator::{Fault, Hop, Image};
use serde_json::Value;

use super::cached::{ACCEPT, Cached, OCI_INDEX, REPOSITORY, is_hit, path};
use crate::fixture::{CLIENT_FRAMINGS, REGISTRY_FRAMINGS, decompressed};
use crate::wire::{Client, End};

/// Answers to a request for this index that are not what they should be.
fn broken(cached: &Cached, digest: &str) -> Vec<Fault> {
    let with_body = |body: String| {
        let headers = [("Content-Type", OCI_INDEX), ("Docker-Content-Digest", digest)];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Fault::StatusWith { status: 200, headers, body }
    };
    let whole = cached.azure.manifest(REPOSITORY, digest).expect("pushed");
    let whole = String::from_utf8(whole.to_vec()).expect("JSON");
    vec![
        Fault::CutBody(100),
        Fault::ResetMidBody,
        Fault::DieBeforeResponse,
        with_body(whole.replace("amd64", "amd65")),
        with_body(whole[..whole.len() / 2].to_owned()),
        with_body(String::new()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_not_whole_is_fetched_again_once_and_no_client_sees_it() {
    let cached = Cached::start("{}").await;
    let faults = broken(&cached, &cached.pushed.index_digest).len();
    for (number, method) in (0..faults).flat_map(|number| [(number, "GET"), (number, "HEAD")]) {
        for by_digest in [false, true] {
            // An image of its own, of which nothing is kept that a 304 could confirm.
            let tag = format!("{number}-{method}-{by_digest}");
            let pushed = cached.azure.push(Image::small(REPOSITORY, &tag));
            let bytes = cached.azure.manifest(REPOSITORY, &tag).expect("pushed");
            let fault = broken(&cached, &pushed.index_digest).swap_remove(number);
            let what = format!("{method} {fault:?} by_digest={by_digest}");
            cached.azure.clear_requests();
            cached.azure.inject(Hop::Data, fault.times(1));
            let reference = if by_digest { &pushed.index_digest } else { &tag };
            let answer = cached.ask(method, &path(&format!("manifests/{reference}")), ACCEPT);
            assert_eq!(answer.status(), 200, "{what}: {answer:?}");
            assert_eq!(answer.header("content-length"), Some(bytes.len().to_string().as_str()), "{what}");
            assert!(method == "HEAD" || answer.body == bytes, "{what}");
            assert_eq!(cached.reads(), 2, "{what}: {:?}", cached.azure.reads());
            cached.azure.clear_faults();
        }
    }
}

/// The client waited for both, and the registry counts both.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_was_fetched_twice_unseen_was_tried_twice() {
    let cached = Cached::start("{}").await;
    for number in 0..broken(&cached, &cached.pushed.index_digest).len() {
        let tag = format!("tag-{number}");
        let pushed = cached.azure.push(Image::small(REPOSITORY, &tag));
        let fault = broken(&cached, &pushed.index_digest).swap_remove(number);
        cached.azure.inject(Hop::Data, fault.clone().times(1));
        assert_eq!(cached.get(&path(&format!("manifests/{tag}"))).status(), 200, "{fault:?}");
        let line = cached.proxy.wait_for_log(&format!("/manifests/{tag} "));
        assert!(line.contains(" tries=2 "), "{fault:?}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_never_whole_is_an_error_and_not_a_part_of_it() {
    for by_digest in [false, true] {
        let cached = Cached::start("{}").await;
        let reference = if by_digest { &cached.pushed.index_digest } else { "latest" };
        let path = path(&format!("manifests/{reference}"));
        for fault in broken(&cached, &cached.pushed.index_digest) {
            if fault == Fault::DieBeforeResponse {
                continue;
            }
            cached.azure.clear_requests();
            cached.azure.inject(Hop::Data, fault.clone());
            let mut client = Client::new(cached.proxy.address());
            let answer = client.ask("GET", &path, "HTTP/1.1", ACCEPT);
            assert_eq!((answer.status(), answer.end), (502, End::Length), "{fault:?}: {answer:?}");
            assert!(answer.header("docker-content-digest").is_none(), "{answer:?}");
            let error: Value = serde_json::from_slice(&answer.body).expect("JSON");
            assert_eq!(error["errors"][0]["code"], "UNAVAILABLE", "{fault:?}: {error}");
            assert_eq!(cached.reads(), 2, "{fault:?}: {:?}", cached.azure.reads());
            cached.azure.clear_faults();
        }
        let answer = cached.get(&path);
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert!(!is_hit(&answer), "nothing of it was kept: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_errors_have_their_length_however_the_registry_frames_them() {
    let cached = Cached::start("{tags: 0s, manifests: 0s, missing: 0s, lists: 0s, redirects: 0s}").await;
    let subject = &cached.pushed.index_digest;
    cached.azure.attach(REPOSITORY, subject, "application/x.signature", "s");
    for (rest, status) in [
        ("tags/list", 200),
        ("tags/list?n=1", 200),
        (&*format!("referrers/{subject}"), 200),
        ("manifests/none", 404),
        (&*format!("blobs/{}", subject), 404),
    ] {
        for (version, headers, keeps) in CLIENT_FRAMINGS {
            for framing in REGISTRY_FRAMINGS {
                let what = format!("{rest} {version} {headers:?} {framing:?}");
                let framing_is_packed = framing == Some(Fault::Gzip);
                if let Some(fault) = framing {
                    cached.azure.inject(Hop::Data, fault);
                }
                let mut client = Client::new(cached.proxy.address());
                // Who asks by another name gets another length.
                for name in ["library/busybox", "busybox"] {
                    let asked = format!("/v2/{name}/{rest}");
                    let answer = client.ask("GET", &asked, version, &format!("{ACCEPT}{headers}"));
                    assert_eq!(answer.status(), status, "{what}: {answer:?}");
                    // What comes packed although nobody asked for that is passed on as it is.
                    let is_packed = answer.header("content-encoding").is_some();
                    assert!(answer.end == End::Length || is_packed, "{what}: {answer:?}");
                    assert!(!is_packed || framing_is_packed, "{what}: {answer:?}");
                    let text = String::from_utf8(decompressed(&answer)).expect("text");
                    let json: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{what}: {text}"));
                    assert!(!text.contains("hub/"), "{what}: {text}");
                    assert_eq!(
                        text.trim_end().len(),
                        text.trim_end_matches('\n').len(),
                        "no padding: {what}: {text:?}"
                    );
                    if rest.starts_with("tags") {
                        assert_eq!(json["name"], name, "{what}");
                    }
                    // With a length, an older client can keep its connection as well.
                    if !keeps && answer.header("connection") != Some("keep-alive") {
                        assert!(client.is_at_its_end(), "{what}");
                        client = Client::new(cached.proxy.address());
                    }
                }
                cached.azure.clear_faults();
            }
        }
    }
}
