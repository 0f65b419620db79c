//! What each answer of a registry is to those who wait for it.

use super::judge::NOT_IMPORTED;
use super::*;
use crate::cache::{Cache, Content, KeyRef, Kind};
use crate::config::Lifetimes;
use crate::proxy::target::Target;
use crate::proxy::{Destination, Kept};
use oci::name::Repository;
use oci::request::Request;
use oci::route::Blobs;

const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const OTHER: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
const EMPTY_512: &str = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";
const INDEX: (&str, &str) = ("content-type", "application/vnd.oci.image.index.v1+json");
const DATE: (&str, &str) = ("date", "Thu, 26 Nov 2026 06:00:00 GMT");
const SIGNED: (&str, &str) = ("location", "https://x.blob.core.windows.net/a?se=2026-11-26T06:20:00Z&sig=x");

const DENIED: &str = r#"{"errors":[{"code":"DENIED","message":"denied"}]}"#;

const UNKNOWN: &str = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}"#;

fn read(path: &str) -> Read {
    read_by(path, Blobs::Redirect, None)
}

/// Of a route that serves blobs in this way and keeps answers there.
fn read_by(path: &str, blobs: Blobs, kept: Option<Kept>) -> Read {
    let path = format!("/v2/a/{path}");
    let Ok(Request::Pull(pull)) = Request::parse(&Method::GET, &path, None) else { panic!("a pull: {path}") };
    let admitted = Admitted {
        target: Target::new(&pull, &Repository::new("hub", false, pull.name.as_str())),
        destination: Arc::new(Destination::example(7, blobs, kept)),
        client: None,
        attempts: Attempts::new(Instant::now()),
    };
    let part = match path.split('/').nth(3) {
        Some("manifests") => Part::Manifest,
        Some("blobs") => Part::Redirect,
        _ => Part::List,
    };
    Read::of(&admitted, part).0
}

/// What it comes to, in a word or two.
fn judged(
    read: &Read,
    (status, headers): (u16, &[(&'static str, &str)]),
    body: Body,
    known: Option<&Arc<Entry>>,
) -> String {
    let mut response = ResponseHeader::build(status, None).expect("a status");
    for (name, value) in headers {
        response.append_header(*name, (*value).to_owned()).expect("a header");
    }
    let asked = tokio::time::Instant::now();
    match read.judge(Answer { asked, response, body }, known) {
        Judged::Broken(how) => how.to_owned(),
        Judged::Is(Fetched::Kept { entry, also }) => {
            assert_eq!(entry.confirmed, asked, "it counts from when it was asked for");
            let also = also.map_or(String::new(), |(key, _)| format!(" and {}", key.path));
            let limit = entry.at_most.map_or("", |_| ", for a minute");
            let stands_in = if entry.stands_in { ", stands in" } else { "" };
            format!("{:?} {}{also}{limit}{stands_in}", entry.kind, entry.content.status.as_u16())
        }
        Judged::Is(Fetched::Answer { content, is_trouble }) => {
            let trouble = if is_trouble { ", trouble" } else { "" };
            format!("{} of {}{trouble}", content.status.as_u16(), content.body.len())
        }
        Judged::Is(Fetched::NotKept { .. }) => "not kept".to_owned(),
        Judged::Is(Fetched::Pass(reason)) => format!("pass: {}", reason.name()),
        Judged::Is(Fetched::Failed { trouble, .. }) => trouble.to_string(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_other_than_200_is_no_answer_whatever_digest_it_says() {
    let by_digest = format!("manifests/{EMPTY}");
    let blob = format!("blobs/{EMPTY}");
    for path in ["manifests/b", &by_digest, &blob, "tags/list"] {
        for status in [201, 203, 204, 206, 299] {
            let body = || Body::Whole(Bytes::from_static(b"part of something"));
            let found = judged(&read(path), (status, &[INDEX, ("docker-content-digest", EMPTY)]), body(), None);
            assert_eq!(found, "its status is a success other than 200", "{path} {status}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_answer_is_judged_by_what_was_asked_for() {
    let by_digest = format!("manifests/{EMPTY}");
    let signature = format!("manifests/{}.sig", EMPTY.replace(':', "-"));
    let by_512 = format!("manifests/{EMPTY_512}");
    let blob = format!("blobs/{EMPTY}");
    let digest = ("docker-content-digest", EMPTY);
    let other = ("docker-content-digest", OTHER);
    let new = ("x-azure-origin", "upstream");
    let known = ("x-azure-origin", "local");
    let packed = ("content-encoding", "gzip");
    let tag = format!("Tag 200 and /v2/hub/a/manifests/{EMPTY}");
    let for_a_minute = format!("{tag}, for a minute");
    let html = ("content-type", "text/html; charset=utf-8");
    let unlisted = ("content-type", "application/vnd.cncf.notary.v1+json");
    let signed = ("content-type", "application/vnd.docker.distribution.manifest.v1+prettyjws");
    let (json, text) = (("content-type", "Application/JSON; charset=utf-8"), ("content-type", "text/plain"));
    let version = ("docker-distribution-api-version", "registry/2.0");
    let unknown = ("docker-content-digest", "blake3:00");
    let (no_manifest, wrong) = ("it is no manifest", "it does not have its digest");
    let no_condition = "it is a 304 to a request without a condition";
    for (path, status, headers, body, expected) in [
        ("manifests/b", 200, &[INDEX, digest][..], "", &*tag),
        ("manifests/b", 200, &[INDEX, digest, new], "", &for_a_minute),
        ("manifests/b", 200, &[INDEX, digest, known], "", &tag),
        ("manifests/b", 200, &[INDEX, digest], "x", "it does not have its digest"),
        ("manifests/b", 200, &[INDEX], "{}", "not kept"),
        ("manifests/b", 200, &[INDEX], "", no_manifest),
        // Any JSON passed as a manifest. Of each kind there is, and of one that is not known, it still does.
        ("manifests/b", 200, &[json], "{}", no_manifest),
        ("manifests/b", 200, &[], "{\"state\":\"captive\"}", no_manifest),
        ("manifests/b", 200, &[text], "[1,2]", no_manifest),
        ("manifests/b", 200, &[json], "{\"schemaVersion\":1,\"fsLayers\":[]}", "not kept"),
        ("manifests/b", 200, &[json], "{\"schemaVersion\":2,\"config\":{}}", "not kept"),
        ("manifests/b", 200, &[], "{\"mediaType\":\"application/vnd.oci.artifact.manifest.v1+json\"}", "not kept"),
        ("manifests/b", 200, &[json, version], "{}", "not kept"),
        ("manifests/b", 200, &[json, unknown], "{}", "not kept"),
        ("manifests/b", 200, &[html], "<html>sign in</html>", no_manifest),
        ("manifests/b", 200, &[html, packed], "packed", no_manifest),
        ("manifests/b", 200, &[html, digest], "", "200 of 0"),
        ("manifests/b", 200, &[unlisted, digest], "", "200 of 0"),
        ("manifests/b", 200, &[unlisted, digest], "{}", wrong),
        ("manifests/b", 200, &[unlisted], "{}", "not kept"),
        ("manifests/b", 200, &[signed, other], "{}", "not kept"),
        ("manifests/b", 200, &[INDEX, digest, packed], "", "not kept"),
        ("manifests/b", 304, &[], "", no_condition),
        ("manifests/b", 404, &[], UNKNOWN, "Missing 404"),
        (&signature, 404, &[], UNKNOWN, "Missing 404, stands in"),
        ("manifests/b", 404, &[], "{}", "404 of 2, trouble"),
        ("manifests/b", 404, &[html], "<html>no such site</html>", "404 of 25, trouble"),
        ("tags/list", 404, &[], "404 page not found", "404 of 18, trouble"),
        ("manifests/b", 404, &[packed], "{}", "pass: answer"),
        ("manifests/b", 403, &[], "{}", "403 of 2, trouble"),
        ("manifests/b", 403, &[], DENIED, "403 of 49"),
        ("manifests/b", 302, &[SIGNED], "", "302 of 0, trouble"),
        ("manifests/b", 400, &[], "{}", "400 of 2, trouble"),
        ("manifests/b", 503, &[], "{}", "503 of 2, trouble"),
        ("manifests/b", 424, &[], "{}", "424 of 2, trouble"),
        ("manifests/b", 429, &[packed], "{}", "429 of 0, trouble"),
        (&by_digest, 200, &[INDEX], "", "Manifest 200"),
        (&by_digest, 200, &[html], "<html>sign in</html>", wrong),
        (&by_digest, 200, &[unlisted], "", "200 of 0"),
        (&by_digest, 200, &[unlisted], "{}", wrong),
        (&by_digest, 200, &[signed], "{}", "not kept"),
        (&by_digest, 200, &[INDEX, digest], "", "Manifest 200"),
        (&by_digest, 200, &[INDEX, other], "", "it says another digest"),
        (&by_digest, 200, &[INDEX], "x", "it does not have its digest"),
        (&by_512, 200, &[INDEX, digest], "", "Manifest 200"),
        (&by_512, 200, &[INDEX, other], "", "it says another digest"),
        ("tags/list", 200, &[], "{\"tags\":[]}", "List 200"),
        ("tags/list", 200, &[], "{\"tags\":[", "it is not JSON"),
        ("tags/list", 200, &[packed], "{}", "not kept"),
        ("tags/list", 304, &[], "", no_condition),
        (&blob, 307, &[DATE, SIGNED], "", "Redirect 307"),
        (&blob, 307, &[SIGNED], "", "307 of 0"),
        (&blob, 304, &[DATE, SIGNED], "", no_condition),
        (&blob, 200, &[], "", "200 of 0"),
        (&blob, 200, &[], "x", "it does not have its digest"),
        (&blob, 404, &[], UNKNOWN, "Missing 404"),
        (&blob, 404, &[], "", "404 of 0, trouble"),
    ] {
        let found = judged(&read(path), (status, headers), Body::Whole(Bytes::copy_from_slice(body.as_bytes())), None);
        assert_eq!(found, expected, "{path} {status} {headers:?}");
    }
    for (status, body, expected) in [
        (200, Body::TooLarge, "not kept"),
        (404, Body::TooLarge, "pass: answer"),
        (503, Body::TooLarge, "503 of 0, trouble"),
        (200, Body::NoRoom, "pass: full"),
        (503, Body::NoRoom, "503 of 0, trouble"),
        (503, Body::BrokeOff, "it breaks off"),
    ] {
        assert_eq!(judged(&read("manifests/b"), (status, &[]), body, None), expected, "{status}");
    }
    // What is kept is the same, by its digest, or older.
    let confirmed = tokio::time::Instant::now();
    let (manifest, digest_of_kept) = (ManifestType::parse(INDEX.1), Some(EMPTY.into()));
    let (headers, body) = (Vec::new(), Bytes::new());
    let content = Content { status: StatusCode::OK, headers, body, manifest, digest: digest_of_kept };
    let known = Arc::new(Entry::new(Kind::Tag, content, confirmed));
    for (said, expected) in [(digest, "pass: answer"), (other, "not kept")] {
        assert_eq!(judged(&read("manifests/b"), (200, &[INDEX, said]), Body::TooLarge, Some(&known)), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_a_condition_was_sent_for_is_confirmed() {
    let content = |manifest, digest: &str| {
        let body = Bytes::new();
        Arc::new(Content { status: StatusCode::OK, headers: Vec::new(), body, manifest, digest: Some(digest.into()) })
    };
    let confirmed = tokio::time::Instant::now();
    let known = |kind, manifest: Option<ManifestType>, at_most| {
        Arc::new(Entry {
            kind,
            content: content(manifest, EMPTY),
            confirmed,
            at_most,
            until: None,
            until_wall: None,
            stands_in: false,
        })
    };
    let index = ManifestType::parse(INDEX.1);
    let whole = || Body::Whole(Bytes::new());
    let read = read("manifests/b");
    for (known, headers, has_condition, expected) in [
        (known(Kind::Tag, index, None), &[][..], true, &*format!("Tag 200 and /v2/hub/a/manifests/{EMPTY}")),
        (known(Kind::Tag, index, None), &[("docker-content-digest", OTHER)], true, "it is a 304 for another digest"),
        (known(Kind::Missing, None, None), &[], false, "it is a 304 to a request without a condition"),
        (known(Kind::Tag, index, Some(NOT_IMPORTED)), &[], false, "it is a 304 to a request without a condition"),
    ] {
        let request = read.request(Some(&known)).expect("a request");
        assert_eq!(request.headers.contains_key(header::IF_NONE_MATCH), has_condition, "{expected}");
        assert_eq!(judged(&read, (304, headers), whole(), Some(&known)), expected);
    }
}

const LIFETIMES: Lifetimes = Lifetimes {
    tags: Duration::from_secs(30),
    manifests: Duration::from_secs(3600),
    missing: Duration::from_secs(5),
    redirects: Duration::from_secs(600),
    lists: Duration::from_secs(10),
    stale: Duration::from_secs(3600),
};

#[tokio::test(start_paused = true)]
async fn a_configuration_is_remembered_where_it_is_served_and_small_enough_to_keep() {
    let manifest =
        |size: u64| format!(r#"{{"schemaVersion":2,"config":{{"digest":"{OTHER}","size":{size}}},"layers":[]}}"#);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{OTHER}","size":2}}]}}"#);
    let most = configuration::MAX_CONFIGURATION as u64;
    for (blobs, media_type, body, expected) in [
        (Blobs::ProxyConfig, ManifestType::OciManifest, manifest(2), true),
        (Blobs::Proxy, ManifestType::DockerManifest, manifest(most), true),
        (Blobs::ProxyConfig, ManifestType::OciManifest, manifest(most + 1), false),
        (Blobs::Redirect, ManifestType::OciManifest, manifest(2), false),
        (Blobs::ProxyConfig, ManifestType::OciIndex, manifest(2), false),
        (Blobs::ProxyConfig, ManifestType::OciIndex, index, false),
        (Blobs::ProxyConfig, ManifestType::OciManifest, "{".to_owned(), false),
        (Blobs::ProxyConfig, ManifestType::Schema1, r#"{"fsLayers":[]}"#.to_owned(), false),
    ] {
        let cache = Arc::new(Cache::new(1 << 20));
        let kept = Kept { cache: Arc::clone(&cache), lifetimes: LIFETIMES, prefetch: Arc::default() };
        let read = read_by("manifests/latest", blobs, Some(kept));
        let what = format!("{blobs:?} {media_type:?} {body}");
        let content = Content {
            status: StatusCode::OK,
            headers: Vec::new(),
            body: body.into(),
            manifest: Some(media_type),
            digest: Some(EMPTY.into()),
        };
        read.remember(&content);
        let path = format!("/v2/hub/a/blobs/{OTHER}");
        let key = KeyRef { registry: 7, part: Part::Configuration, path: &path };
        assert_eq!(cache.peek(&key).is_some(), expected, "{what}");
        assert!(cache.hit(&key, &LIFETIMES, tokio::time::Instant::now()).is_none(), "it is no answer: {what}");
        let elsewhere = KeyRef { path: &path.replace("/a/", "/b/"), ..key };
        assert!(cache.peek(&elsewhere).is_none(), "{what}");
        // A manifest that is confirmed takes nothing away.
        read.remember(&content);
        assert_eq!(cache.peek(&key).is_some(), expected, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_redirect_in_place_of_a_configuration_is_for_a_moment() {
    let data = ("location", "https://example.westeurope.data.azurecr.io/?s=x");
    for (location, expected) in [(SIGNED, Some(Duration::from_secs(30))), (data, None)] {
        let mut read = read(&format!("blobs/{OTHER}"));
        read.part = Part::Configuration;
        let mut response = ResponseHeader::build(307, None).expect("a status");
        for (name, value) in [DATE, location] {
            response.append_header(name, value).expect("a header");
        }
        let asked = tokio::time::Instant::now();
        match read.redirect_for_now(Answer { asked, response, body: Body::Whole(Bytes::new()) }) {
            Judged::Is(Fetched::Kept { entry, .. }) => {
                assert_eq!((entry.kind, entry.lifetime(&LIFETIMES)), (Kind::Redirect, expected.unwrap_or_default()));
            }
            Judged::Is(Fetched::Answer { content, is_trouble }) => {
                assert_eq!((content.status, is_trouble, expected), (StatusCode::TEMPORARY_REDIRECT, true, None));
            }
            other => panic!("{location:?}: {:?}", matches!(other, Judged::Broken(_))),
        }
    }
}

/// What is too large to keep once went unchecked to all who waited for it.
#[tokio::test(start_paused = true)]
async fn a_configuration_that_is_too_large_to_keep_is_compared_with_its_digest_all_the_same() {
    let mut read = read(&format!("blobs/{OTHER}"));
    read.part = Part::Configuration;
    let request = read.request(None).expect("a request");
    let answer = Answer {
        asked: tokio::time::Instant::now(),
        response: ResponseHeader::build(200, None).expect("a status"),
        body: Body::Whole(vec![b'x'; configuration::MAX_CONFIGURATION + 1].into()),
    };
    let judged = read.configuration(answer, &request, None).await;
    assert!(matches!(judged, Judged::Broken("it does not have its digest")));
}

/// A future is copied whenever it is moved, and this one once took two fifths of a stored miss's instructions so.
#[test]
fn the_state_of_a_flight_is_small() {
    fn size<A, B, F>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }
    let size = size(<Read as Origin>::fetch);
    assert!(size < 8 << 10, "{size}");
}
