//! Each function is one row of the table, or what an upstream does instead.

use std::collections::BTreeSet;

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::content::{ABSENT, INDEX, MANIFEST, NAME, SBOM, TAGS};
use crate::upstream::{Answer, Upstream};

/// A range in the middle of the layer.
const PART: std::ops::RangeInclusive<usize> = 100..=299;

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(digest(&SHA256, bytes)))
}

/// The path and query of a `Link` to the next page.
fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link")?;
    let (target, relation) = link.strip_prefix('<')?.split_once('>')?;
    assert_eq!(relation.replace(['"', ' '], ""), ";rel=next", "{link}");
    assert!(target.starts_with(&format!("/v2/{NAME}/")), "a link for this client: {link}");
    Some(target.to_owned())
}

fn tags(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    assert_eq!((answer.status, &body["name"]), (200, &json!(NAME)), "{answer:?}");
    serde_json::from_value(body["tags"].clone()).expect("a list of tags")
}

fn all_tags(upstream: &Upstream) -> Vec<String> {
    let mut all: Vec<String> = TAGS.iter().map(|tag| (*tag).to_owned()).collect();
    all.push(upstream.content.referrers_tag.clone());
    all
}

pub(crate) fn the_api_is_there(upstream: &Upstream) {
    for path in ["/v2/", "/v2"] {
        let answer = upstream.ask("GET", path, &[]);
        assert_eq!((answer.status, answer.header("www-authenticate")), (200, None), "{answer:?}");
    }
}

pub(crate) fn the_api_version_is_said(upstream: &Upstream) {
    for path in ["/v2/".to_owned(), format!("/v2/{NAME}/tags/list"), format!("/v2/{NAME}/manifests/none")] {
        let answer = upstream.ask("GET", &path, &[]);
        assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"), "{answer:?}");
    }
}

pub(crate) fn a_manifest_is_pulled_by_tag(upstream: &Upstream) {
    for tag in TAGS {
        let answer = upstream.get(&format!("manifests/{tag}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body == upstream.manifest(tag), "byte for byte: {answer:?}");
    }
}

pub(crate) fn a_manifest_is_pulled_by_digest(upstream: &Upstream) {
    for digest in [&upstream.content.index, &upstream.content.manifest] {
        let answer = upstream.get(&format!("manifests/{digest}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body == upstream.manifest(digest), "byte for byte: {answer:?}");
        assert_eq!(digest_of(&answer.body), *digest);
    }
}

pub(crate) fn a_manifest_comes_as_the_type_that_was_asked_for(upstream: &Upstream) {
    for (digest, media_type) in [(&upstream.content.index, INDEX), (&upstream.content.manifest, MANIFEST)] {
        for accept in [media_type.to_owned(), format!("application/json;q=0.1, {MANIFEST}, {INDEX}")] {
            let path = format!("/v2/{NAME}/manifests/{digest}");
            let answer = upstream.ask("GET", &path, &[("Accept", &accept)]);
            assert_eq!((answer.status, answer.header("content-type")), (200, Some(media_type)), "{answer:?}");
            assert_eq!(answer.json()["mediaType"], media_type);
        }
    }
}

pub(crate) fn a_manifest_says_its_digest(upstream: &Upstream) {
    for reference in ["latest", &upstream.content.manifest] {
        let answer = upstream.get(&format!("manifests/{reference}"));
        assert_eq!(answer.header("docker-content-digest"), Some(digest_of(&answer.body).as_str()), "{answer:?}");
    }
}

pub(crate) fn a_manifest_that_is_not_there_is_404(upstream: &Upstream) {
    for reference in ["none", ABSENT] {
        let answer = upstream.get(&format!("manifests/{reference}"));
        assert_eq!(answer.status, 404, "{answer:?}");
    }
    let answer = upstream.ask("GET", "/v2/library/none/manifests/latest", &[("Accept", INDEX)]);
    assert_eq!(answer.status, 404, "{answer:?}");
}

pub(crate) fn a_name_has_its_grammar(upstream: &Upstream) {
    let status = |name: &str| upstream.ask("GET", &format!("/v2/{name}/manifests/latest"), &[]).status;
    for name in ["a", "0/1", "a.b/c__d/e_f/g---h", "tags/list", "manifests", "library/blobs"] {
        assert_eq!(status(name), 404, "well formed, and not there: {name}");
    }
    for name in ["A", "a//b", "-a", "a-", "a..b", "a___b", "a/.b", "a%2Fb", &"a".repeat(256)] {
        assert_eq!(status(name), 400, "{name}");
    }
}

pub(crate) fn a_reference_has_its_grammar(upstream: &Upstream) {
    let status = |reference: &str| upstream.get(&format!("manifests/{reference}")).status;
    for reference in ["_", "A.b-C_d", "0", &"x".repeat(128), ABSENT] {
        assert_eq!(status(reference), 404, "well formed, and not there: {reference}");
    }
    for reference in ["-a", ".a", "a+b", &"x".repeat(129), "sha256:0", &ABSENT.to_uppercase(), &format!("{ABSENT}0")] {
        assert_eq!(status(reference), 400, "{reference}");
    }
}

pub(crate) fn a_blob_is_pulled_by_digest(upstream: &Upstream) {
    let manifest = upstream.get(&format!("manifests/{}", upstream.content.manifest)).json();
    let layers = manifest["layers"].as_array().expect("layers").iter();
    for descriptor in layers.chain([&manifest["config"]]) {
        let digest = descriptor["digest"].as_str().expect("a digest");
        let answer = upstream.blob("GET", digest, &[]);
        assert_eq!((answer.status, json!(answer.body.len())), (200, descriptor["size"].clone()), "{digest}");
        assert_eq!(digest_of(&answer.body), digest);
    }
}

pub(crate) fn a_blob_says_its_digest(upstream: &Upstream) {
    let digest = &upstream.content.layer;
    let answer = upstream.get(&format!("blobs/{digest}"));
    assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()), "{answer:?}");
}

/// `docker-registry` says no more than the address in a redirect.
pub(crate) fn a_redirect_says_where_the_blob_is(upstream: &Upstream) {
    let digest = &upstream.content.layer;
    let answer = upstream.get(&format!("blobs/{digest}"));
    assert_eq!((answer.status, answer.header("docker-content-digest")), (307, None), "{answer:?}");
    let hex = digest.trim_start_matches("sha256:");
    let place = format!("/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
    assert!(answer.header("location").is_some_and(|location| location.ends_with(&place)), "{answer:?}");
}

pub(crate) fn a_blob_that_is_not_there_is_404(upstream: &Upstream) {
    let answer = upstream.get(&format!("blobs/{ABSENT}"));
    assert_eq!(answer.status, 404, "{answer:?}");
}

pub(crate) fn a_part_of_a_blob_is_pulled_by_range(upstream: &Upstream) {
    let digest = &upstream.content.layer;
    let whole = upstream.pushed_blob(digest);
    let (first, last, end) = (*PART.start(), *PART.end(), whole.len() - 1);
    for (range, first, last) in [
        (format!("bytes={first}-{last}"), first, last),
        (format!("bytes={first}-"), first, end),
        ("bytes=0-0".to_owned(), 0, 0),
    ] {
        let answer = upstream.blob("GET", digest, &[("Range", &range)]);
        let says = format!("bytes {first}-{last}/{}", whole.len());
        assert_eq!((answer.status, answer.header("content-range")), (206, Some(says.as_str())), "{range}: {answer:?}");
        assert!(answer.body == whole[first..=last], "{range}");
    }
}

pub(crate) fn a_range_behind_the_end_is_416(upstream: &Upstream) {
    let digest = &upstream.content.layer;
    let range = format!("bytes={}-", upstream.pushed_blob(digest).len());
    assert_eq!(upstream.blob("GET", digest, &[("Range", &range)]).status, 416);
}

pub(crate) fn the_head_of_a_manifest_is_that_of_get(upstream: &Upstream) {
    for reference in ["latest", &upstream.content.index, &upstream.content.manifest] {
        let path = format!("manifests/{reference}");
        let (head, get) = (upstream.head(&path), upstream.get(&path));
        assert_eq!((head.status, head.body.len()), (200, 0), "{head:?}");
        for name in ["content-type", "content-length", "docker-content-digest", "etag"] {
            assert!(head.header(name).is_some(), "{name}: {head:?}");
            assert_eq!(head.header(name), get.header(name), "{name}");
        }
        assert_eq!(head.header("content-length"), Some(get.body.len().to_string().as_str()), "{head:?}");
    }
}

pub(crate) fn the_head_of_a_blob_says_its_length(upstream: &Upstream) {
    let digest = &upstream.content.layer;
    let answer = upstream.blob("HEAD", digest, &[]);
    let length = upstream.pushed_blob(digest).len().to_string();
    assert_eq!((answer.status, answer.body.len()), (200, 0), "{answer:?}");
    assert_eq!(answer.header("content-length"), Some(length.as_str()), "{answer:?}");
}

pub(crate) fn the_head_of_what_is_not_there_is_404(upstream: &Upstream) {
    for path in ["manifests/none", &format!("manifests/{ABSENT}"), &format!("blobs/{ABSENT}")] {
        let answer = upstream.head(path);
        assert_eq!((answer.status, answer.body.len()), (404, 0), "{answer:?}");
    }
}

pub(crate) fn tags_are_listed_in_order(upstream: &Upstream) {
    assert_eq!(tags(&upstream.get("tags/list")), all_tags(upstream));
}

pub(crate) fn tags_come_n_at_a_time(upstream: &Upstream) {
    let answer = upstream.get("tags/list?n=2");
    assert_eq!(tags(&answer), TAGS[..2]);
    assert!(next(&answer).is_some(), "{answer:?}");
}

pub(crate) fn links_lead_through_all_tags(upstream: &Upstream) {
    for (n, suffix) in [(1, ""), (2, ""), (4, "&ns=docker.io")] {
        let mut seen = Vec::new();
        let mut page = Some(format!("/v2/{NAME}/tags/list?n={n}{suffix}"));
        while let Some(path) = page {
            let answer = upstream.ask("GET", &path, &[]);
            seen.extend(tags(&answer));
            assert!(seen.len() <= all_tags(upstream).len(), "the list goes on: {seen:?}");
            page = next(&answer);
        }
        assert_eq!(seen, all_tags(upstream), "n={n}");
    }
}

pub(crate) fn tags_begin_behind_last(upstream: &Upstream) {
    for (after, last) in TAGS.iter().enumerate() {
        assert_eq!(tags(&upstream.get(&format!("tags/list?last={last}"))), all_tags(upstream)[after + 1..]);
    }
    let page = tags(&upstream.get(&format!("tags/list?n=2&last={}", TAGS[0])));
    assert_eq!(page, TAGS[1..3]);
}

pub(crate) fn the_last_page_has_no_link(upstream: &Upstream) {
    for path in ["tags/list", "tags/list?n=1000", "tags/list?n=1000&last=1.36"] {
        let answer = upstream.get(path);
        assert_eq!((answer.status, answer.header("link")), (200, None), "{answer:?}");
    }
}

pub(crate) fn no_tags_are_an_empty_list(upstream: &Upstream) {
    let answer = upstream.get("tags/list?n=0");
    assert_eq!((tags(&answer).len(), answer.header("link")), (0, None), "{answer:?}");
}

/// As the distribution that Azure's registry descends from does.
pub(crate) fn no_tags_are_refused(upstream: &Upstream) {
    let answer = upstream.get("tags/list?n=0");
    assert_eq!((answer.status, answer.code().as_str()), (400, "PAGINATION_NUMBER_INVALID"), "{answer:?}");
}

/// `docker-registry` 2.8 lists its tags as its filesystem does, and looks neither at `n` nor at `last`.
pub(crate) fn tags_come_all_at_once(upstream: &Upstream) {
    for path in ["tags/list", "tags/list?n=2", "tags/list?last=edge", "tags/list?n=0"] {
        let answer = upstream.get(path);
        let mut listed = tags(&answer);
        listed.sort();
        assert_eq!(listed, all_tags(upstream), "{path}");
        assert_eq!(answer.header("link"), None, "{answer:?}");
    }
}

pub(crate) fn the_tags_of_an_unknown_repository_are_404(upstream: &Upstream) {
    let answer = upstream.ask("GET", "/v2/library/none/tags/list", &[]);
    assert_eq!(answer.status, 404, "{answer:?}");
}

pub(crate) fn referrers_are_an_index(upstream: &Upstream) {
    let answer = upstream.get(&format!("referrers/{}", upstream.content.index));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(INDEX)), "{answer:?}");
    let index = answer.json();
    assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(INDEX)));
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(upstream.content.referrers.len()), "{index}");
    assert_eq!(answer.header("oci-filters-applied"), None, "{answer:?}");
}

pub(crate) fn referrers_are_described(upstream: &Upstream) {
    let index = upstream.get(&format!("referrers/{}", upstream.content.index)).json();
    check_referrers(upstream, &index);
}

/// Whether a list of referrers is true.
fn check_referrers(upstream: &Upstream, index: &Value) {
    let mut seen = BTreeSet::new();
    for descriptor in index["manifests"].as_array().expect("a list") {
        let digest = descriptor["digest"].as_str().expect("a digest");
        let answer = upstream.get(&format!("manifests/{digest}"));
        assert_eq!((answer.status, answer.header("content-type")), (200, descriptor["mediaType"].as_str()));
        assert_eq!(json!(answer.body.len()), descriptor["size"]);
        let manifest = answer.json();
        assert_eq!(manifest["subject"]["digest"], upstream.content.index.as_str());
        assert_eq!(manifest["artifactType"], descriptor["artifactType"]);
        seen.insert((digest.to_owned(), descriptor["artifactType"].as_str().expect("a type").to_owned()));
    }
    let pushed = upstream.content.referrers.iter().map(|(digest, kind)| (digest.clone(), (*kind).to_owned()));
    assert_eq!(seen, pushed.collect());
}

pub(crate) fn referrers_are_filtered_and_it_is_said(upstream: &Upstream) {
    for (artifact_type, expected) in [(SBOM, 1), ("application/vnd.example.none", 0)] {
        let encoded: String = form_urlencoded::byte_serialize(artifact_type.as_bytes()).collect();
        let answer = upstream.get(&format!("referrers/{}?artifactType={encoded}", upstream.content.index));
        assert_eq!((answer.status, answer.header("oci-filters-applied")), (200, Some("artifactType")), "{answer:?}");
        let index = answer.json();
        let found = index["manifests"].as_array().expect("a list");
        assert_eq!(found.len(), expected, "{index}");
        assert!(found.iter().all(|descriptor| descriptor["artifactType"] == artifact_type), "{index}");
    }
}

pub(crate) fn no_referrers_are_an_empty_index(upstream: &Upstream) {
    for digest in [&upstream.content.manifest, ABSENT] {
        let answer = upstream.get(&format!("referrers/{digest}"));
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(INDEX)), "{answer:?}");
        assert_eq!(answer.json()["manifests"], json!([]), "{answer:?}");
    }
}

pub(crate) fn referrers_of_a_broken_digest_are_400(upstream: &Upstream) {
    for digest in ["latest", "sha256:0", &ABSENT[..70]] {
        let answer = upstream.get(&format!("referrers/{digest}"));
        assert_eq!((answer.status, answer.code().as_str()), (400, "DIGEST_INVALID"), "{answer:?}");
    }
}

/// `docker-registry` 2.8 does not know the endpoint; 404 is what sends a client to the referrers tag.
pub(crate) fn there_is_no_referrers_api(upstream: &Upstream) {
    for query in ["", "?artifactType=application/vnd.example.sbom%2Bjson"] {
        let answer = upstream.get(&format!("referrers/{}{query}", upstream.content.index));
        assert_eq!((answer.status, answer.header("oci-filters-applied")), (404, None), "{answer:?}");
    }
}

pub(crate) fn the_referrers_tag_is_pulled(upstream: &Upstream) {
    let answer = upstream.get(&format!("manifests/{}", upstream.content.referrers_tag));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(INDEX)), "{answer:?}");
    check_referrers(upstream, &answer.json());
}

pub(crate) fn errors_are_json(upstream: &Upstream) {
    for (method, path) in [
        ("GET", "library/busybox/manifests/none"),
        ("GET", "library/none/tags/list"),
        ("GET", "library/busybox/manifests/sha256:0"),
        ("GET", "Library/busybox/manifests/latest"),
        ("DELETE", "library/busybox/manifests/latest"),
        ("GET", "_catalog"),
    ] {
        let answer = upstream.ask(method, &format!("/v2/{path}"), &[]);
        assert!((400..500).contains(&answer.status), "{answer:?}");
        let kind = answer.header("content-type").expect("a type");
        assert!(kind.starts_with("application/json"), "{answer:?}");
        let body = answer.json();
        let errors = body["errors"].as_array().expect("a list");
        assert!(!errors.is_empty(), "{body}");
        for error in errors {
            let code = error["code"].as_str().expect("a code");
            assert!(code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'), "{body}");
            assert!(error["message"].is_string() && error.get("detail").is_some(), "{body}");
        }
    }
}

pub(crate) fn errors_speak_of_the_clients_repository(upstream: &Upstream) {
    for path in [
        format!("/v2/{NAME}/manifests/none"),
        format!("/v2/{NAME}/manifests/{ABSENT}"),
        format!("/v2/{NAME}/blobs/{ABSENT}"),
        "/v2/library/none/tags/list".to_owned(),
    ] {
        let answer = upstream.ask("GET", &path, &[]);
        let body = String::from_utf8_lossy(&answer.body);
        assert!(!body.contains("hub/"), "{path}: {body}");
    }
    let answer = upstream.ask("GET", "/v2/library/none/tags/list", &[]);
    assert_eq!(answer.json()["errors"][0]["detail"]["name"], "library/none", "{answer:?}");
}

/// Status and code of a `GET`.
fn check_error(upstream: &Upstream, path: &str, status: u16, code: &str) {
    let answer = upstream.ask("GET", path, &[("Accept", INDEX)]);
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path}: {answer:?}");
}

pub(crate) fn an_unknown_blob_is_named_so(upstream: &Upstream) {
    check_error(upstream, &format!("/v2/{NAME}/blobs/{ABSENT}"), 404, "BLOB_UNKNOWN");
}

pub(crate) fn a_broken_digest_is_named_so(upstream: &Upstream) {
    for place in ["manifests/sha256:0", "blobs/sha256:0", "referrers/sha256:0", "blobs/latest"] {
        check_error(upstream, &format!("/v2/{NAME}/{place}"), 400, "DIGEST_INVALID");
    }
}

pub(crate) fn an_unknown_manifest_is_named_so(upstream: &Upstream) {
    for reference in ["none", ABSENT] {
        check_error(upstream, &format!("/v2/{NAME}/manifests/{reference}"), 404, "MANIFEST_UNKNOWN");
    }
}

pub(crate) fn a_broken_name_is_named_so(upstream: &Upstream) {
    for place in ["A/manifests/latest", "a%2Fb/tags/list", &format!("a_-b/blobs/{ABSENT}")] {
        check_error(upstream, &format!("/v2/{place}"), 400, "NAME_INVALID");
    }
}

pub(crate) fn an_unknown_name_is_named_so(upstream: &Upstream) {
    check_error(upstream, "/v2/library/none/tags/list", 404, "NAME_UNKNOWN");
    // One that no route is for.
    check_error(upstream, "/v2/library/busybox/tags/list?ns=ghcr.io", 404, "NAME_UNKNOWN");
}

pub(crate) fn a_refused_token_is_denied_without_a_challenge(upstream: &Upstream) {
    upstream.refuse_tokens();
    let answer = upstream.get("manifests/latest");
    assert_eq!((answer.status, answer.code().as_str()), (403, "DENIED"), "{answer:?}");
    assert_eq!(answer.header("www-authenticate"), None, "{answer:?}");
}

pub(crate) fn pushing_is_unsupported(upstream: &Upstream) {
    for (method, path) in [
        ("POST", "blobs/uploads/".to_owned()),
        ("PUT", "manifests/latest".to_owned()),
        ("DELETE", format!("manifests/{}", upstream.content.index)),
        ("DELETE", format!("blobs/{}", upstream.content.layer)),
        ("PATCH", "blobs/uploads/1".to_owned()),
    ] {
        let answer = upstream.ask(method, &format!("/v2/{NAME}/{path}"), &[]);
        assert_eq!((answer.status, answer.code().as_str()), (405, "UNSUPPORTED"), "{method} {path}: {answer:?}");
        assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{answer:?}");
    }
    assert_eq!(upstream.get(&format!("manifests/{}", upstream.content.index)).status, 200, "it is still there");
}

/// For a manifest the status is 503, so that clients turn to their next endpoint and do not wait.
pub(crate) fn too_many_requests_are_named_so(upstream: &Upstream) {
    assert_eq!(upstream.get("manifests/latest").status, 200);
    upstream.fail(429);
    // Of what nobody has asked for yet, so that nothing of it is kept.
    for (path, status) in [("manifests/edge", 503), ("tags/list", 429)] {
        let answer = upstream.get(path);
        assert_eq!((answer.status, answer.code().as_str()), (status, "TOOMANYREQUESTS"), "{answer:?}");
    }
}

/// `docker-registry` has no limit that could be exceeded.
pub(crate) fn requests_are_not_limited(upstream: &Upstream) {
    for _ in 0..100 {
        assert_eq!(upstream.head("manifests/latest").status, 200);
    }
}
