//! The data plane: access, negotiation, errors, pages.

use acr_emulator::{Image, Options};
use reqwest::Method;

use crate::azure::{Azure, INDEX, MANIFEST, REGISTRY, REPOSITORY, code, field, header, json};

#[tokio::test]
async fn every_answer_has_the_headers_of_the_recordings() {
    let azure = Azure::start().await;
    let pushed = azure.push();
    let token = azure.access_token("repository:*:pull").await;
    for (path, token, status) in [
        ("/v2/".to_owned(), "", 401),
        ("/v2/".to_owned(), &*token, 200),
        (format!("/v2/{REPOSITORY}/manifests/latest"), &token, 200),
        (format!("/v2/{REPOSITORY}/manifests/none"), &token, 404),
        (format!("/v2/{REPOSITORY}/blobs/{}", pushed.blobs[0]), &token, 307),
    ] {
        let answer = azure.get(&path, token, INDEX).await;
        assert_eq!(answer.status(), status, "{path}");
        let count = |name: &str| answer.headers().get_all(name).iter().count();
        assert_eq!(count("strict-transport-security"), 2);
        assert_eq!(count("access-control-expose-headers"), 4);
        assert_eq!(count("x-ms-correlation-request-id"), 1);
        assert_eq!(count("date"), 1);
        assert_eq!(header(&answer, "docker-distribution-api-version"), "registry/2.0");
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
        assert_eq!(header(&answer, "server"), "AzureContainerRegistry");
    }
}

#[tokio::test]
async fn a_challenge_names_the_scope_and_says_when_a_token_is_too_narrow() {
    let azure = Azure::start().await;
    let path = format!("/v2/{REPOSITORY}/manifests/latest");
    let realm = azure.registry("/oauth2/token");
    let expected = format!("Bearer realm=\"{realm}\",service=\"{REGISTRY}\",scope=\"repository:{REPOSITORY}:pull\"");

    let answer = azure.client.get(azure.registry(&path)).send().await.expect("an answer");
    assert_eq!(header(&answer, "www-authenticate"), expected);
    let body = answer.text().await.expect("a body");
    assert!(body.starts_with(r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required, visit https://aka.ms/acr/authorization for more information. CorrelationId: "#), "{body}");
    assert!(
        body.ends_with(
            "\"detail\":[{\"Type\":\"repository\",\"Name\":\"hub/library/busybox\",\"Action\":\"pull\"}]}]}\n"
        ),
        "{body}"
    );

    let narrow = azure.access_token("repository:hub/library/alpine:pull").await;
    let answer = azure.get(&path, &narrow, INDEX).await;
    assert_eq!(answer.status(), 401);
    assert_eq!(header(&answer, "www-authenticate"), format!("{expected},error=\"insufficient_scope\""));

    let answer = azure.client.get(azure.registry("/v2/")).send().await.expect("an answer");
    assert!(answer.text().await.expect("a body").ends_with("\"detail\":null}]}\n"));
}

#[tokio::test]
async fn only_a_current_access_token_of_this_registry_opens_it() {
    let azure = Azure::start().await;
    let other = Azure::start().await;
    let good = azure.access_token("repository:*:pull").await;
    for token in [
        azure.refresh_token().await,
        azure.entra_token().await,
        other.access_token("repository:*:pull").await,
        format!("{good}x"),
        good.replace('.', ""),
    ] {
        assert_eq!(azure.get("/v2/", &token, "*/*").await.status(), 401);
    }
    let twice = azure.client.get(azure.registry("/v2/")).bearer_auth(&good).bearer_auth(&good);
    assert_eq!(twice.send().await.expect("an answer").status(), 401);
    assert_eq!(azure.get("/v2/", &good, "*/*").await.status(), 200);

    azure.emulator.revoke_tokens();
    assert_eq!(azure.get("/v2/", &good, "*/*").await.status(), 401);
    let next = azure.access_token("repository:*:pull").await;
    assert_eq!(azure.get("/v2/", &next, "*/*").await.status(), 200);
}

#[tokio::test]
async fn a_manifest_is_served_to_those_who_accept_it() {
    let azure = Azure::start().await;
    let pushed = azure.push();
    let token = azure.access_token("repository:*:pull").await;
    let by_tag = format!("/v2/{REPOSITORY}/manifests/latest");
    let by_digest = format!("/v2/{REPOSITORY}/manifests/{}", pushed.index_digest);
    for path in [&by_tag, &by_digest, &by_digest.replace("sha256:", "sha256%3A")] {
        let answer = azure.get(path, &token, &format!("{MANIFEST}, {INDEX};q=0.5, */*")).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(header(&answer, "etag"), format!("\"{}\"", pushed.index_digest));
        let answer = azure.get(path, &token, &format!("{MANIFEST}, */*")).await;
        assert_eq!(answer.status(), 404, "{path}");
        assert_eq!(code(answer).await, "MANIFEST_UNKNOWN");
    }

    let head = azure.client.head(azure.registry(&by_tag)).bearer_auth(&token).header("Accept", INDEX);
    let head = head.send().await.expect("an answer");
    let bytes = azure.emulator.manifest(REPOSITORY, "latest").expect("the index");
    assert_eq!(header(&head, "content-length"), bytes.len().to_string());
    assert_eq!(header(&head, "docker-content-digest"), pushed.index_digest);
}

#[tokio::test]
async fn a_docker_list_by_tag_is_its_amd64_child_for_who_names_schema_2_alone() {
    const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    const SCHEMA_2: &str = "application/vnd.docker.distribution.manifest.v2+json";
    let azure = Azure::start().await;
    let pushed = azure.emulator.push(Image::small(REPOSITORY, "docker").with_docker_media_types());
    let token = azure.access_token("repository:*:pull").await;
    let child = &pushed.manifests[0].1;
    let list = &pushed.index_digest;
    for (reference, accept, media_type, digest) in [
        ("docker", &*format!("{SCHEMA_2}, {LIST}"), LIST, list),
        ("docker", "application/json, application/vnd.docker.distribution.manifest.v2+json", SCHEMA_2, child),
        (list, SCHEMA_2, LIST, list),
        (child, "*/*", SCHEMA_2, child),
    ] {
        let answer = azure.get(&format!("/v2/{REPOSITORY}/manifests/{reference}"), &token, accept).await;
        assert_eq!(answer.status(), 200, "{reference} {accept}");
        assert_eq!(header(&answer, "content-type"), media_type, "{reference} {accept}");
        assert_eq!(header(&answer, "docker-content-digest"), *digest, "{reference} {accept}");
        assert_eq!(header(&answer, "etag"), format!("\"{digest}\""), "{reference} {accept}");
        assert!(answer.headers().get("vary").is_none());
        let bytes = azure.emulator.manifest(REPOSITORY, digest).expect("pushed");
        assert_eq!(answer.bytes().await.expect("a body"), bytes, "{reference} {accept}");
    }
    let answer = azure.get(&format!("/v2/{REPOSITORY}/manifests/docker"), &token, "*/*").await;
    assert_eq!((answer.status().as_u16(), code(answer).await), (404, "MANIFEST_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn an_oci_type_that_is_not_accepted_is_told_in_the_recorded_words() {
    let azure = Azure::start().await;
    let pushed = azure.push();
    let token = azure.access_token("repository:*:pull").await;
    for (reference, accept, found, kind) in [
        ("latest", "*/*", "OCI index", "OCI indexes"),
        (&*pushed.index_digest, MANIFEST, "OCI index", "OCI indexes"),
        (&*pushed.manifests[0].1, "*/*", "OCI manifest", "OCI manifests"),
    ] {
        let answer = azure.get(&format!("/v2/{REPOSITORY}/manifests/{reference}"), &token, accept).await;
        assert_eq!(answer.status(), 404, "{reference}");
        let expected = format!(
            "{{\"errors\":[{{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"{found} found, but accept header does not support {kind}\"}}]}}\n"
        );
        assert_eq!(answer.text().await.expect("a body"), expected, "{reference}");
    }
}

#[tokio::test]
async fn a_malformed_digest_is_404_in_plain_text_before_any_sign_in() {
    let azure = Azure::start().await;
    azure.push();
    for path in ["blobs/sha256:12", "blobs/wrong", "manifests/sha256:12", "manifests/.a", "referrers/sha256:12"] {
        for method in [Method::GET, Method::HEAD] {
            let is_get = method == Method::GET;
            let request = azure.client.request(method, azure.registry(&format!("/v2/{REPOSITORY}/{path}")));
            let answer = request.send().await.expect("an answer");
            assert_eq!(answer.status(), 404, "{path}");
            assert!(answer.headers().get("www-authenticate").is_none(), "{path}");
            assert_eq!(header(&answer, "content-type"), "text/plain; charset=utf-8", "{path}");
            let body = if is_get { "404 page not found\n" } else { "" };
            assert_eq!(answer.text().await.expect("a body"), body, "{path}");
        }
    }
}

#[tokio::test]
async fn the_registry_itself_answers_head_of_a_blob() {
    let azure = Azure::start().await;
    let digest = azure.push().blobs.remove(0);
    let token = azure.access_token("repository:*:pull").await;
    let url = azure.registry(&format!("/v2/{REPOSITORY}/blobs/{digest}"));
    let head = azure.client.head(url).bearer_auth(&token).send().await.expect("an answer");
    assert_eq!(head.status(), 200);
    let length = azure.emulator.blob(&digest).expect("the blob").len();
    assert_eq!(header(&head, "content-length"), length.to_string());
    assert_eq!(header(&head, "content-type"), "application/octet-stream");
    assert_eq!(header(&head, "docker-content-digest"), digest);
    for name in ["location", "etag", "accept-ranges"] {
        assert!(head.headers().get(name).is_none(), "{name}");
    }
}

#[tokio::test]
async fn a_header_that_is_too_large_is_nginxs_page_and_the_end_of_the_connection() {
    const LONGEST_LINE: usize = 8192 - "x-1: \r\n".len();
    let azure = Azure::start().await;
    let token = azure.access_token("repository:*:pull").await;
    for (count, length, status) in [(1, LONGEST_LINE, 200), (1, LONGEST_LINE + 1, 400), (5, LONGEST_LINE, 400)] {
        let request = azure.client.get(azure.registry("/v2/")).bearer_auth(&token);
        let request = (0..count).fold(request, |request, n| request.header(format!("x-{n}"), "a".repeat(length)));
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{count} of {length}");
        if status == 400 {
            assert_eq!(header(&answer, "content-type"), "text/html");
            assert_eq!(header(&answer, "connection"), "close");
            assert_eq!(header(&answer, "server"), "AzureContainerRegistry");
            let page = answer.text().await.expect("a body");
            assert!(
                page.starts_with("<html>\r\n<head><title>400 Request Header Or Cookie Too Large</title>"),
                "{page}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_an_error_of_its_own_kind() {
    let azure = Azure::start().await;
    let pushed = azure.push();
    let elsewhere = azure.emulator.push(Image::small("hub/library/alpine", "3"));
    let token = azure.access_token("repository:*:pull").await;
    let digest = &elsewhere.index_digest;
    for (path, status, expected) in [
        (format!("/v2/{REPOSITORY}/manifests/none"), 404, "MANIFEST_UNKNOWN"),
        (format!("/v2/{REPOSITORY}/manifests/{digest}"), 404, "MANIFEST_UNKNOWN"),
        // A blob belongs to the repositories that it was pushed to.
        (format!("/v2/{REPOSITORY}/blobs/{}", elsewhere.blobs[0]), 404, "BLOB_UNKNOWN"),
        // The router takes it for a digest.
        (format!("/v2/{REPOSITORY}/blobs/md5:d41d8cd98f00b204e9800998ecf8427e"), 400, "DIGEST_INVALID"),
        ("/v2/hub/none/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
    ] {
        let answer = azure.get(&path, &token, INDEX).await;
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(code(answer).await, expected, "{path}");
    }
    for path in ["/v2/x", "/v2/tags/list", "/v1/", "/"] {
        assert_eq!(azure.get(path, &token, INDEX).await.status(), 404, "{path}");
    }
    for method in [Method::PUT, Method::POST, Method::PATCH, Method::DELETE] {
        let url = azure.registry(&format!("/v2/{REPOSITORY}/manifests/{}", pushed.index_digest));
        let answer = azure.client.request(method, url).bearer_auth(&token).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 405);
        assert_eq!(code(answer).await, "UNSUPPORTED");
    }
}

#[tokio::test]
async fn lists_come_in_pages_with_a_relative_link() {
    let azure = Azure::start().await;
    let pushed = azure.push();
    for tag in ["v1.0", "v2", "v3"] {
        azure.emulator.tag(REPOSITORY, &pushed.index_digest, tag);
    }
    let token = azure.access_token("repository:*:pull registry:catalog:*").await;
    let path = format!("/v2/{REPOSITORY}/tags/list");
    let first = azure.get(&format!("{path}?n=2"), &token, "*/*").await;
    let link = header(&first, "link");
    assert_eq!(link, format!("<{path}?last=v1.0&n=2&orderby=>; rel=\"next\""), "as Go escapes it");
    assert_eq!(json(first).await, serde_json::json!({"name": REPOSITORY, "tags": ["latest", "v1.0"]}));
    let next = link.split(['<', '>']).nth(1).expect("an address");
    let last = azure.get(next, &token, "*/*").await;
    assert!(last.headers().get("link").is_none());
    assert_eq!(json(last).await["tags"], serde_json::json!(["v2", "v3"]));

    let catalog = azure.get("/v2/_catalog", &token, "*/*").await;
    assert_eq!(json(catalog).await, serde_json::json!({"repositories": [REPOSITORY]}));
    let narrow = azure.access_token("repository:*:pull").await;
    let refused = azure.get("/v2/_catalog", &narrow, "*/*").await;
    assert!(header(&refused, "www-authenticate").contains("scope=\"registry:catalog:*\""));
}

#[tokio::test]
async fn referrers_are_filtered_by_artifact_type() {
    let azure = Azure::start().await;
    let subject = azure.push().index_digest;
    let signature = azure.emulator.attach(REPOSITORY, &subject, "application/x.signature", "s");
    azure.emulator.attach(REPOSITORY, &subject, "application/x.sbom", "b");
    let token = azure.access_token("repository:*:pull").await;
    let path = format!("/v2/{REPOSITORY}/referrers/{subject}");
    let all = azure.get(&path, &token, INDEX).await;
    assert_eq!(header(&all, "content-type"), INDEX);
    assert!(all.headers().get("oci-filters-applied").is_none());
    assert_eq!(json(all).await["manifests"].as_array().map(Vec::len), Some(2));
    let one = azure.get(&format!("{path}?artifactType=application%2Fx.signature"), &token, INDEX).await;
    assert_eq!(header(&one, "oci-filters-applied"), "artifactType");
    let one = json(one).await;
    assert_eq!(one["manifests"].as_array().map(Vec::len), Some(1));
    assert_eq!(field(&one["manifests"][0], "digest"), signature);
}

#[tokio::test]
async fn the_clock_may_be_wrong() {
    for skew in [-7_200, 7_200] {
        let azure = Azure::with(Options { clock_skew: skew, ..Options::default() }).await;
        let token = azure.access_token("repository:*:pull").await;
        assert_eq!(azure.get("/v2/", &token, "*/*").await.status(), 200);
        let issued = crate::azure::claims(&token)["iat"].as_i64().expect("a time");
        let now = std::time::UNIX_EPOCH.elapsed().expect("a time").as_secs() as i64;
        assert!((issued - now - skew).abs() < 60);
    }
}
