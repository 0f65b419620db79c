//! What changes in a repository: tags move, manifests go, and a client that knows one asks whether it is still that.

use crate::azure::{Azure, INDEX, MANIFEST, REPOSITORY, code, header};

#[tokio::test]
async fn a_known_digest_is_304_if_it_is_the_whole_line() {
    let azure = Azure::start().await;
    let pushed = azure.push();
    let digest = &pushed.index_digest;
    let token = azure.access_token("repository:*:pull").await;
    let quoted = format!("\"{digest}\"");
    for (lines, status) in [
        (&[quoted.as_str()][..], 304),
        (&[digest.as_str()], 304),
        (&["\"x\"", &quoted], 304),
        (&[&format!("\"x\", {quoted}")], 200),
        (&[&format!("W/{quoted}")], 200),
        (&["*"], 200),
        (&["\"x\""], 200),
    ] {
        for reference in ["latest", digest] {
            let path = azure.registry(&format!("/v2/{REPOSITORY}/manifests/{reference}"));
            let request = azure.client.get(path).bearer_auth(&token).header("Accept", INDEX);
            let request = lines.iter().fold(request, |request, line| request.header("If-None-Match", *line));
            let answer = request.send().await.expect("an answer");
            assert_eq!(answer.status(), status, "{reference} {lines:?}");
            let has = ["etag", "docker-content-digest", "content-type"].map(|name| answer.headers().contains_key(name));
            assert_eq!(has, [status == 200; 3], "{reference} {lines:?}");
        }
    }
}

#[tokio::test]
async fn a_known_digest_is_304_before_anything_else_is_looked_at() {
    let azure = Azure::start().await;
    let pushed = azure.push();
    let token = azure.access_token("repository:*:pull").await;
    let ask = async |reference: &str, accept: &str| {
        let path = azure.registry(&format!("/v2/{REPOSITORY}/manifests/{reference}"));
        let request = azure.client.get(path).bearer_auth(&token).header("Accept", accept);
        request.header("If-None-Match", format!("\"{}\"", pushed.index_digest)).send().await.expect("an answer")
    };
    // A type that would be refused.
    assert_eq!(ask("latest", MANIFEST).await.status(), 304);
    // A manifest that is gone, though not by a tag that is gone with it.
    assert!(azure.emulator.delete_manifest(REPOSITORY, &pushed.index_digest));
    assert_eq!(ask(&pushed.index_digest, INDEX).await.status(), 304);
    assert_eq!(code(ask("latest", INDEX).await).await, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn tags_move_and_what_is_deleted_is_404() {
    let azure = Azure::start().await;
    let [first, second] = ["1", "2"].map(|tag| azure.emulator.push(acr_emulator::Image::small(REPOSITORY, tag)));
    let token = azure.access_token("repository:*:pull").await;
    let get =
        async |reference: &str| azure.get(&format!("/v2/{REPOSITORY}/manifests/{reference}"), &token, INDEX).await;
    for pushed in [&first, &second] {
        azure.emulator.tag(REPOSITORY, &pushed.index_digest, "latest");
        assert_eq!(header(&get("latest").await, "docker-content-digest"), pushed.index_digest);
    }
    assert!(azure.emulator.delete_tag(REPOSITORY, "latest"));
    assert!(!azure.emulator.delete_tag(REPOSITORY, "latest"));
    assert_eq!(get("latest").await.status(), 404);
    assert_eq!(get("2").await.status(), 200, "the manifest and its other tag stay");
    assert!(azure.emulator.delete_manifest(REPOSITORY, &second.index_digest));
    assert!(!azure.emulator.delete_manifest(REPOSITORY, &second.index_digest));
    for reference in ["2", &second.index_digest] {
        assert_eq!(code(get(reference).await).await, "MANIFEST_UNKNOWN", "{reference}");
    }
    assert_eq!(get("1").await.status(), 200);
}

#[tokio::test]
async fn a_right_that_is_revoked_is_in_no_token_and_no_earlier_one_suffices() {
    const OTHER: &str = "hub/library/alpine";
    let azure = Azure::start().await;
    azure.push();
    azure.emulator.push(acr_emulator::Image::small(OTHER, "latest"));
    let path = |repository: &str| format!("/v2/{repository}/manifests/latest");
    for scope in ["repository:*:pull".to_owned(), format!("repository:{REPOSITORY}:pull repository:{OTHER}:pull")] {
        let early = azure.access_token(&scope).await;
        azure.emulator.revoke_repository(REPOSITORY);
        for token in [&early, &azure.access_token(&scope).await] {
            let refused = azure.get(&path(REPOSITORY), token, INDEX).await;
            assert_eq!(refused.status(), 401);
            assert!(header(&refused, "www-authenticate").ends_with("error=\"insufficient_scope\""));
            assert_eq!(azure.get(&path(OTHER), token, INDEX).await.status(), 200);
        }
        azure.emulator.restore_repository(REPOSITORY);
        let token = azure.access_token(&scope).await;
        assert_eq!(azure.get(&path(REPOSITORY), &token, INDEX).await.status(), 200);
    }
}
