//! Content behind a cache rule: not imported yet, or its source in trouble.

use acr_emulator::{Fault, Hop, Image};
use reqwest::Method;

use crate::azure::{Azure, INDEX, REPOSITORY, field, header, json};

#[tokio::test]
async fn what_is_not_imported_says_where_it_comes_from() {
    let azure = Azure::start().await;
    let [first, second] = ["1", "2"].map(|tag| azure.emulator.push(Image::small(REPOSITORY, tag)));
    let token = azure.access_token("repository:*:pull").await;
    let manifest = |reference: &str| (format!("/v2/{REPOSITORY}/manifests/{reference}"), 200);
    let blob = |digest: &str| (format!("/v2/{REPOSITORY}/blobs/{digest}"), 307);
    let of = |tag: &str, pushed: &acr_emulator::Pushed| {
        let child = &pushed.manifests[1].1;
        [
            vec![manifest(tag), manifest(&pushed.index_digest), manifest(child)],
            pushed.blobs.iter().map(|b| blob(b)).collect(),
        ]
        .concat()
    };
    for (marked, is_first_foreign, is_second_foreign) in [(Some("1"), true, false), (None, true, true)] {
        azure.emulator.mark_not_imported(REPOSITORY, marked);
        for imported in [false, true] {
            if imported {
                azure.emulator.import(REPOSITORY, marked);
            }
            for (targets, is_foreign) in [(of("1", &first), is_first_foreign), (of("2", &second), is_second_foreign)] {
                for (path, status) in targets {
                    let accept = format!("{INDEX}, {}", crate::azure::MANIFEST);
                    let answer = azure.get(&path, &token, &accept).await;
                    assert_eq!(answer.status(), status, "{path}");
                    let origin = answer.headers().get("x-azure-origin").map(|origin| origin.as_bytes());
                    let expected = (is_foreign && !imported).then_some(&b"upstream"[..]);
                    assert_eq!(origin, expected, "{path} {marked:?} {imported}");
                }
            }
        }
    }
    // Other answers do not say it.
    azure.emulator.mark_not_imported(REPOSITORY, None);
    for path in ["tags/list".to_owned(), "manifests/none".to_owned()] {
        let answer = azure.get(&format!("/v2/{REPOSITORY}/{path}"), &token, INDEX).await;
        assert!(answer.headers().get("x-azure-origin").is_none(), "{path}");
    }
}

#[tokio::test]
async fn a_rule_in_trouble_answers_in_its_own_words() {
    let azure = Azure::start().await;
    azure.push();
    let token = azure.access_token("repository:*:pull").await;
    let url = azure.registry(&format!("/v2/{REPOSITORY}/manifests/latest"));
    for (status, code, words) in [
        (401, "UNAUTHORIZED", "authentication required with source registry for cache rule 'hub'."),
        (
            403,
            "DENIED",
            "requested access to pull from source 'docker.io/library/busybox' for cache rule 'hub' has been denied.",
        ),
        (424, "UNKNOWN", "request to pull from source 'docker.io/library/busybox' for cache rule 'hub' has failed."),
        (429, "TOOMANYREQUESTS", "too many requests to source registry for cache rule 'hub'."),
    ] {
        azure.emulator.inject(Hop::Data, Fault::CacheRule(status).times(2));
        for method in [Method::HEAD, Method::GET] {
            let is_get = method == Method::GET;
            let request = azure.client.request(method, &url).bearer_auth(&token).header("Accept", INDEX);
            let answer = request.send().await.expect("an answer");
            assert_eq!(answer.status(), status);
            assert!(answer.headers().get("retry-after").is_none());
            if status == 401 {
                assert!(
                    header(&answer, "www-authenticate").ends_with(&format!(",scope=\"repository:{REPOSITORY}:pull\""))
                );
            }
            if is_get {
                let error = json(answer).await["errors"][0].clone();
                assert_eq!(field(&error, "code"), code);
                let message = field(&error, "message");
                assert!(message.starts_with(&format!("{words} CorrelationId: ")), "{message}");
            }
        }
    }
    assert_eq!(azure.get(&format!("/v2/{REPOSITORY}/manifests/latest"), &token, INDEX).await.status(), 200);
}
