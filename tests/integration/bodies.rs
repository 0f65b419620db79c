//! Bodies pass whole, however client and registry frame them.

use acr_emulator::{Fault, Hop};
use serde_json::{Value, json};

use crate::fixture::{ACCEPT, CLIENT_FRAMINGS, Fixture, INDEX, NAMES, decompressed, path_of};
use crate::wire::{self, Client, End};

mod slow_reader;

/// The longest tag list that is rewritten.
const LARGE: usize = 4 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_percent_encoded_digest_is_accepted() {
    for cache in testkit::ASKING {
        let fixture = Fixture::start(cache).await;
        for (place, digest, status) in
            [("manifests", &fixture.index, 200), ("blobs", &fixture.layer, 307), ("referrers", &fixture.index, 200)]
        {
            for colon in ["%3A", "%3a"] {
                let path = format!("/v2/library/busybox/{place}/{}?ns=docker.io", digest.replace(':', colon));
                let answer = fixture.ask("GET", &path, ACCEPT);
                assert_eq!(answer.status(), status, "{path}: {answer:?}");
                assert_eq!(fixture.last().target, format!("/v2/hub/library/busybox/{place}/{digest}"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_4_mib_passes_whole_in_every_framing() {
    for cache in testkit::ASKING {
        let fixture = Fixture::start(cache).await;
        let text =
            json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": {"x": ""}}).to_string();
        let (before, after) = text.split_at(text.len() - 3);
        let large = format!("{before}{}{after}", "hub/library/busybox ".repeat(LARGE / 20 + 1));
        assert!(large.len() > LARGE);
        let digest = fixture.azure.put_manifest("hub/library/busybox", "large", INDEX, large.clone());
        for path in ["/v2/library/busybox/manifests/large".to_owned(), format!("/v2/busybox/manifests/{digest}")] {
            fixture.in_every_framing("GET", &path, |what, answer| {
                assert_eq!(answer.status(), 200, "{what}: {:?}", answer.head);
                assert!(
                    decompressed(answer) == large.as_bytes(),
                    "{what}: {:?}, {} bytes",
                    answer.head,
                    answer.body.len()
                );
            });
        }
        let head = fixture.ask("HEAD", "/v2/busybox/manifests/large", ACCEPT);
        assert_eq!(head.header("content-length"), Some(large.len().to_string().as_str()), "{head:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_length_passes_whole_and_its_end_is_visible() {
    let fixture = Fixture::start("off").await;
    let index = fixture.azure.manifest("hub/library/busybox", "latest").expect("pushed");
    for framing in [Fault::Chunked, Fault::UntilClose] {
        for (version, headers, _) in CLIENT_FRAMINGS {
            fixture.azure.inject(Hop::Data, framing.clone());
            let mut client = Client::new(fixture.proxy.address());
            let path = "/v2/library/busybox/manifests/latest";
            let answer = client.ask("GET", path, version, &format!("{ACCEPT}{headers}"));
            assert_eq!((answer.status(), answer.header("content-length")), (200, None), "{framing:?} {answer:?}");
            assert_eq!(
                answer.end,
                if version == "HTTP/1.0" { End::Close } else { End::Chunks },
                "{framing:?} {answer:?}"
            );
            assert!(answer.body == index, "{framing:?} {version}: byte for byte");
            fixture.azure.clear_faults();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_passes_byte_for_byte_in_every_framing() {
    for cache in testkit::ASKING {
        let fixture = Fixture::start(cache).await;
        for (name, namespace, repository) in NAMES {
            for tag in ["latest", "zz-own"] {
                let pushed = fixture.azure.manifest(repository, tag).expect("pushed");
                fixture.in_every_framing(
                    "GET",
                    &path_of(name, namespace, &format!("manifests/{tag}")),
                    |what, answer| {
                        assert_eq!(
                            (answer.status(), answer.header("content-type")),
                            (200, Some(INDEX)),
                            "{what} {answer:?}"
                        );
                        assert!(decompressed(answer) == pushed, "{what}: byte for byte");
                    },
                );
            }
        }
    }
}

/// An answer of the registry with a JSON body.
fn json_answer(status: u16, body: &str) -> Fault {
    let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
    Fault::StatusWith { status, headers, body: body.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_long_to_rewrite_or_not_json_passes_unchanged() {
    for cache in testkit::ASKING {
        const LONG_ERROR: usize = 64 << 10;
        let fixture = Fixture::start(cache).await;
        let tag = "x".repeat(100);
        let list = json!({"name": "hub/library/busybox", "tags": vec![tag; LARGE / 100]}).to_string();
        let message = "hub/library/busybox ".repeat(LONG_ERROR / 20 + 1);
        let error = json!({"errors": [{"code": "DENIED", "message": message}]}).to_string();
        assert!(list.len() > LARGE && error.len() > LONG_ERROR);
        for (status, path, body, keeps_length) in [
            (200, "/v2/busybox/tags/list", list.as_str(), true),
            (403, "/v2/busybox/manifests/latest", &error, true),
            (403, "/v2/busybox/manifests/latest", "hub/library/busybox: no JSON", false),
            (200, "/v2/busybox/tags/list", "{\"name\":\"hub/library/busybox\"", false),
        ] {
            // A flight takes it for a list that has broken off.
            if status == 200 && cache != "off" && serde_json::from_str::<Value>(body).is_err() {
                continue;
            }
            fixture.azure.inject(Hop::Data, json_answer(status, body));
            for (version, headers, _) in CLIENT_FRAMINGS {
                let mut client = Client::new(fixture.proxy.address());
                let answer = client.ask("GET", path, version, headers);
                // Whether a short one is to be rewritten is known at its end, so it has been announced without a length.
                let end = match version {
                    _ if keeps_length => End::Length,
                    "HTTP/1.0" => End::Close,
                    _ => End::Chunks,
                };
                let seen = (answer.status(), answer.end);
                assert!(seen == (status, end) && answer.body == body.as_bytes(), "{version}: {:?}", answer.head);
            }
            fixture.azure.clear_faults();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_body_that_breaks_off_is_not_passed_as_complete() {
    let fixture = Fixture::start("off").await;
    for (version, headers, _) in CLIENT_FRAMINGS {
        for fault in [Fault::CutBody(10), Fault::ResetMidBody] {
            for path in ["/v2/busybox/tags/list", "/v2/none/tags/list", "/v2/ghcr.io/org/app/tags/list"] {
                fixture.azure.inject(Hop::Data, fault.clone().times(1));
                let request = format!("GET {path} {version}\r\nHost: x\r\n{headers}\r\n");
                let answer = wire::parse(&wire::send(fixture.proxy.address(), request.as_bytes()));
                let what = format!("{version} {headers:?} {fault:?} {path}: {answer:?}");
                // What was held is not sent: a client of HTTP/1.0 would take it for the whole.
                assert!(answer.status == 502 || answer.body.is_empty(), "{what}");
            }
        }
    }
}
