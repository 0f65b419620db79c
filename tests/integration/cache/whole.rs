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
            // Not the probe by which a registry that died is asked whether it is back.
            cached.azure.inject(Hop::Data, fault.on_path("/manifests/").times(1));
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
        // What has come packed once passes by itself for a minute: that is the last.
        for framing in REGISTRY_FRAMINGS {
            for (version, headers, keeps) in CLIENT_FRAMINGS {
                let what = format!("{rest} {version} {headers:?} {framing:?}");
                let framing_is_packed = framing == Some(Fault::Gzip);
                if let Some(fault) = framing.clone() {
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

/// The connections that requests for this came on, and those of all that came after the first of them.
fn connections(cached: &Cached, end: &str) -> (Vec<u64>, Vec<u64>) {
    let requests = cached.azure.requests();
    let requests: Vec<_> = requests.iter().filter(|request| request.hop == Hop::Data).collect();
    let first = requests.iter().position(|request| request.target.ends_with(end)).expect("it was asked for");
    let of_it = requests.iter().filter(|request| request.target.ends_with(end)).map(|request| request.connection);
    (of_it.collect(), requests[first + 1..].iter().map(|request| request.connection).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_of_an_answer_that_is_not_what_was_asked_for_is_not_used_again() {
    // One thread, so that a connection which was let go is there for the next request.
    let cached = Cached::with(testkit::options(), |setup| setup.flag("--threads", "1")).await;
    let lists = Fault::StatusWith { status: 200, headers: Vec::new(), body: "{\"tags\":[".to_owned() };
    let whole_ones = |fault: &Fault| matches!(fault, Fault::StatusWith { .. });
    let manifests = broken(&cached, &cached.pushed.index_digest).into_iter().filter(whole_ones);
    for (number, fault) in manifests.chain([lists]).enumerate() {
        let what = format!("{fault:?}");
        let rest = match &fault {
            Fault::StatusWith { headers, .. } if headers.is_empty() => "tags/list".to_owned(),
            _ => {
                format!("manifests/{}", cached.azure.push(Image::small(REPOSITORY, &number.to_string())).manifests[0].1)
            }
        };
        // A good answer leaves its connection, which the broken one then comes on.
        assert_eq!(cached.get(&path(&format!("manifests/none-{number}"))).status(), 404, "{what}");
        cached.azure.clear_requests();
        cached.azure.inject(Hop::Data, fault.times(1));
        assert_eq!(cached.get(&path(&rest)).status(), 200, "{what}");
        assert_eq!(cached.get(&path(&format!("manifests/other-{number}"))).status(), 404, "{what}");
        let (of_it, after) = connections(&cached, &rest);
        assert!(of_it.len() == 2 && !after.contains(&of_it[0]), "{what}: {of_it:?} {after:?}");
        assert_eq!(after, [of_it[1]; 2], "a good answer's is used again: {what}");
        cached.azure.clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_sends_behind_an_answer_is_not_taken_for_the_next_one() {
    let cached = Cached::with(testkit::options(), |setup| setup.flag("--threads", "1")).await;
    let made_up = "{\"name\":\"hub/library/busybox\",\"tags\":[\"made-up\"]}";
    let more = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{made_up}", made_up.len());
    for (rest, status) in [("manifests/latest", 200), ("manifests/none", 404), ("referrers/", 200)] {
        let rest = if rest == "referrers/" { format!("{rest}{}", cached.pushed.index_digest) } else { rest.to_owned() };
        cached.azure.clear_requests();
        cached.azure.inject(Hop::Data, Fault::Surplus(more.clone()).times(1));
        assert_eq!(cached.get(&path(&rest)).status(), status, "{rest}");
        // A query of its own, so that nothing kept answers.
        let list = cached.get(&path(&format!("tags/list?n=1{}", rest.len())));
        assert_eq!(list.status(), 200, "{rest}: {list:?}");
        assert!(!String::from_utf8_lossy(&list.body).contains("made-up"), "{rest}: {list:?}");
        let (of_it, after) = connections(&cached, &rest);
        assert!(of_it.len() == 1 && !after.contains(&of_it[0]), "{rest}: {of_it:?} {after:?}");
    }
}
