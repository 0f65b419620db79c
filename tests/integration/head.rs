//! HEAD beside GET, and what becomes of the connection, for every kind of answer.

use std::collections::BTreeSet;

use acr_emulator::{Fault, Hop};

use crate::fixture::{ABSENT, ACCEPT, CLIENT_FRAMINGS, Fixture, NAMES, REGISTRY_FRAMINGS, path_of};
use crate::wire::{Client, End};

/// Every kind of answer that there is, with its status to `GET` and `HEAD`.
fn kinds(fixture: &Fixture) -> Vec<(String, u16, u16)> {
    [
        ("/v2/", 200, 200),
        ("/v2/busybox/manifests/latest", 200, 200),
        (&format!("/v2/busybox/manifests/{}", fixture.index), 200, 200),
        (&format!("/v2/busybox/blobs/{}", fixture.layer), 307, 200),
        ("/v2/busybox/tags/list?n=2", 200, 200),
        (&format!("/v2/busybox/referrers/{}", fixture.index), 200, 200),
        ("/v2/busybox/manifests/none", 404, 404),
        (&format!("/v2/busybox/blobs/{ABSENT}"), 404, 404),
        ("/v2/none/tags/list", 404, 404),
        ("/v2/none/tags/list?ns=quay.io", 404, 404),
        ("/v2/Busybox/manifests/latest", 400, 400),
        ("/v2/busybox/manifests/sha256:0", 400, 400),
        ("/v2/_catalog", 404, 404),
        ("/", 404, 404),
    ]
    .map(|(path, get, head)| (path.to_owned(), get, head))
    .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_answered_like_get_without_a_body() {
    for cache in testkit::ASKING {
        let fixture = Fixture::start(cache).await;
        let mut client = Client::new(fixture.proxy.address());
        for (path, get, head) in kinds(&fixture) {
            let whole = client.ask("GET", &path, "HTTP/1.1", ACCEPT);
            let bare = client.ask("HEAD", &path, "HTTP/1.1", ACCEPT);
            assert_eq!((whole.status(), bare.status()), (get, head), "{path}: {whole:?} {bare:?}");
            // A redirect that is kept is one without the sentence that the registry sends for people.
            let is_bodiless = get == 307 && cache != "off";
            assert!(bare.body.is_empty() && whole.body.is_empty() == is_bodiless, "{path}");
            if get != head {
                // The registry has the length of a blob itself.
                let length = fixture.azure.blob(&fixture.layer).expect("pushed").len().to_string();
                assert_eq!(bare.header("content-length"), Some(length.as_str()), "{path}: {bare:?}");
                continue;
            }
            for name in ["content-type", "docker-content-digest", "etag", "link", "docker-distribution-api-version"] {
                assert_eq!(bare.header(name), whole.header(name), "{path}: {name}");
            }
            // A length may be left out, but not be another one.
            if let Some(length) = bare.header("content-length") {
                assert_eq!(length, whole.body.len().to_string(), "{path}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_has_the_content_length_of_get_in_every_framing() {
    for cache in testkit::ASKING {
        let fixture = Fixture::start(cache).await;
        // What has come packed once passes by itself for a minute: that is the last.
        for framing in REGISTRY_FRAMINGS {
            fixture.azure.clear_faults();
            if let Some(fault) = framing.clone() {
                fixture.azure.inject(Hop::Data, fault);
            }
            for (name, namespace, _) in NAMES {
                for rest in ["tags/list?n=2", "tags/list", "manifests/latest", "manifests/none"] {
                    let path = path_of(name, namespace, rest);
                    for (version, headers, _) in CLIENT_FRAMINGS {
                        let ask = |method: &str| {
                            let mut client = Client::new(fixture.proxy.address());
                            client.ask(method, &path, version, &format!("{ACCEPT}{headers}"))
                        };
                        let (whole, bare) = (ask("GET"), ask("HEAD"));
                        let what = format!("{path} {version} {headers:?} {framing:?}: {whole:?} {bare:?}");
                        assert_eq!(bare.status(), whole.status(), "{what}");
                        let length = whole.header("content-length").map(str::to_owned);
                        assert_eq!(bare.header("content-length").map(str::to_owned), length, "{what}");
                        // What a flight has read has its length. Of what is passed on, there is none where the registry says
                        // none, and what is rewritten is framed before its length is known.
                        let is_passed = cache == "off" || framing == Some(Fault::Gzip);
                        let has_length = matches!(framing, None | Some(Fault::Gzip));
                        let is_known = !is_passed || rest == "manifests/latest" && has_length;
                        assert_eq!(length.is_some(), is_known, "{what}");
                    }
                }
            }
        }
        fixture.azure.clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_kept_after_every_kind_of_answer() {
    for cache in testkit::ASKING {
        let fixture = Fixture::start(cache).await;
        let mut client = Client::new(fixture.proxy.address());
        for _ in 0..3 {
            for (path, get, head) in kinds(&fixture) {
                for (method, status) in [("GET", get), ("HEAD", head)] {
                    let answer = client.ask(method, &path, "HTTP/1.1", ACCEPT);
                    assert_eq!(answer.status(), status, "{method} {path}: {answer:?}");
                    assert_ne!(answer.header("connection"), Some("close"), "{method} {path}: {answer:?}");
                    assert_ne!(answer.end, End::Close, "{method} {path}: {answer:?}");
                }
            }
            assert_eq!(client.ask("DELETE", "/v2/busybox/manifests/latest", "HTTP/1.1", "").status(), 405);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_close_is_answered_and_does_not_reach_the_registry() {
    for cache in testkit::ASKING {
        let fixture = Fixture::start(cache).await;
        for (path, get, head) in kinds(&fixture) {
            for (method, status) in [("GET", get), ("HEAD", head)] {
                let mut client = Client::new(fixture.proxy.address());
                let answer = client.ask(method, &path, "HTTP/1.1", &format!("{ACCEPT}Connection: close\r\n"));
                assert_eq!(answer.status(), status, "{method} {path}: {answer:?}");
                assert_eq!(answer.header("connection"), Some("close"), "{method} {path}: {answer:?}");
                assert!(client.is_at_its_end(), "{method} {path}");
            }
        }
        let connections: Vec<_> = fixture.azure.requests().into_iter().filter(|seen| seen.hop == Hop::Data).collect();
        // Flights have connections of their own beside those of what is passed on.
        let kept: BTreeSet<_> = connections.iter().map(|seen| seen.connection).collect();
        assert!(kept.len() <= if cache == "off" { 1 } else { 2 }, "kept for all of them: {kept:?}");
        assert!(connections.iter().all(|seen| seen.header("connection") != Some("close")), "{connections:?}");
    }
}
