//! Blob storage: signatures, ranges, and what it refuses.

use std::time::Duration;

use acr_emulator::Options;

use crate::azure::{Azure, REPOSITORY, header};

async fn location(azure: &Azure) -> (String, Vec<u8>) {
    let pushed = azure.push();
    let token = azure.access_token("repository:*:pull").await;
    let digest = &pushed.blobs[0];
    let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
    let location = header(&azure.get(&path, &token, "*/*").await, "location");
    (location, azure.emulator.blob(digest).expect("the blob").to_vec())
}

#[tokio::test]
async fn an_address_has_the_form_of_the_recordings() {
    let azure = Azure::start().await;
    let (location, _) = location(&azure).await;
    assert!(location.starts_with(&format!("https://{}/", azure.emulator.storage_addr())));
    assert!(location.contains("//docker/registry/v2/blobs/sha256/"), "{location}");
    let names: Vec<&str> = location
        .split_once('?')
        .expect("a query")
        .1
        .split('&')
        .filter_map(|pair| Some(pair.split_once('=')?.0))
        .collect();
    assert_eq!(names, ["se", "sig", "sp", "spr", "sr", "sv", "regid"]);
    assert!(location.contains("%3A"), "{location}");
}

#[tokio::test]
async fn an_address_ends_as_long_after_the_date_as_the_options_say() {
    for lifetime in [None, Some(90)] {
        let defaults = Options::default();
        let redirect_lifetime = lifetime.map_or(defaults.redirect_lifetime, Duration::from_secs);
        let azure = Azure::with(Options { redirect_lifetime, ..defaults }).await;
        let pushed = azure.push();
        let token = azure.access_token("repository:*:pull").await;
        let answer = azure.get(&format!("/v2/{REPOSITORY}/blobs/{}", pushed.blobs[0]), &token, "*/*").await;
        let clock = |time: &str| {
            let mut parts = time.split(':').map(|part| part.parse::<i64>().expect("a number"));
            std::iter::repeat_with(|| parts.next()).map_while(|part| part).fold(0, |sum, part| sum * 60 + part)
        };
        let date = clock(header(&answer, "date").split(' ').nth(4).expect("a time"));
        let location = header(&answer, "location").replace("%3A", ":");
        let end = location.split_once("?se=").and_then(|(_, rest)| rest.split_once('T')).expect("an end").1;
        // At midnight the day changes in between.
        let seconds = (clock(end.split_once('Z').expect("UTC").0) - date).rem_euclid(86_400);
        // `Date` is written after the address, a moment later or, on a machine under load, some seconds.
        let expected = lifetime.unwrap_or(20 * 60) as i64;
        assert!((expected - 15..=expected).contains(&seconds), "{location}: {seconds}");
    }
}

#[tokio::test]
async fn a_signature_is_the_only_credential() {
    let azure = Azure::start().await;
    let (location, _) = location(&azure).await;
    let status = |url: String| {
        let request = azure.client.get(url);
        async { request.send().await.expect("an answer").status().as_u16() }
    };
    assert_eq!(status(location.clone()).await, 200);
    // Any other year is another signature.
    let year = location.split_once("?se=").expect("se").1[..4].to_owned();
    assert_eq!(status(location.replace(&format!("se={year}"), "se=2999")).await, 403);
    assert_eq!(status(location.replace("/data", "/datb")).await, 403);
    assert_eq!(status(location.replace("sp=r", "sp=rw")).await, 403);
    assert_eq!(status(location.split_once('?').expect("a query").0.to_owned()).await, 403);

    let forwarded = azure.client.get(&location).bearer_auth("anything").send().await;
    let forwarded = forwarded.expect("an answer");
    assert_eq!(forwarded.status(), 400);
    assert_eq!(header(&forwarded, "x-ms-error-code"), "InvalidAuthenticationInfo");
    assert!(forwarded.text().await.expect("XML").contains("<Code>InvalidAuthenticationInfo</Code>"));
    let put = azure.client.put(&location).send().await.expect("an answer");
    assert_eq!(put.status(), 405);
}

#[tokio::test]
async fn a_data_endpoints_address_is_a_long_query_behind_the_host() {
    let azure = Azure::with(Options { data_endpoints: true, ..Options::default() }).await;
    let (location, blob) = location(&azure).await;
    let query = location.strip_prefix(&format!("https://{}?", azure.emulator.storage_addr())).expect("no path");
    assert!(location.len() > 1024, "{location}");
    let names: Vec<&str> = query.split('&').filter_map(|pair| Some(pair.split_once('=')?.0)).collect();
    assert_eq!(names, ["t", "h", "c", "r", "d", "p", "s", "v"]);
    assert!(location.contains("&r=hub/library/busybox&d=sha256:"), "{location}");

    let get = async |url: String| azure.client.get(url).send().await.expect("an answer");
    let answer = get(location.clone()).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.bytes().await.expect("a body"), blob);
    // With the slash that clients put in.
    assert_eq!(get(location.replacen('?', "/?", 1)).await.status(), 200);
    for (part, other) in [("&r=hub/", "&r=bub/"), ("&v=1", "&v=2"), ("&s=", "&x="), ("?t=", "/v2/?t="), ("&p=", "&p=A")]
    {
        assert_eq!(get(location.replacen(part, other, 1)).await.status(), 403, "{part}");
    }
}

#[tokio::test]
async fn a_range_is_served_as_far_as_it_goes() {
    let azure = Azure::start().await;
    let (location, blob) = location(&azure).await;
    let size = blob.len();
    for (range, status, expected) in [
        ("bytes=0-".to_owned(), 206, &blob[..]),
        ("bytes=10-19".to_owned(), 206, &blob[10..20]),
        (format!("bytes={}-", size - 1), 206, &blob[size - 1..]),
        (format!("bytes=5-{}", size * 2), 206, &blob[5..]),
        (format!("bytes={size}-"), 416, &[]),
        ("bytes=-5".to_owned(), 200, &blob[..]),
    ] {
        let answer = azure.client.get(&location).header("Range", &range).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), status, "{range}");
        if status == 206 {
            assert!(header(&answer, "content-range").ends_with(&format!("/{size}")));
        }
        if status != 416 {
            assert_eq!(answer.bytes().await.expect("a body"), expected, "{range}");
        }
    }
    let head = azure.client.head(&location).send().await.expect("an answer");
    assert_eq!(header(&head, "content-length"), size.to_string());
}

#[tokio::test]
async fn storage_without_tls_serves_clients_that_lack_the_ca() {
    let azure = Azure::with(Options { storage_tls: false, ..Options::default() }).await;
    let (location, blob) = location(&azure).await;
    assert!(location.starts_with("http://127.0.0.1:"));
    let answer = azure.client.get(location).send().await.expect("an answer");
    assert_eq!(answer.bytes().await.expect("a body"), blob);
}
