//! A whole pull, as docker does it.

use std::io::Read as _;

use acr_emulator::{Hop, Image};
use flate2::read::GzDecoder;
use ring::digest::{SHA256, digest};

use crate::azure::{Azure, INDEX, MANIFEST, REPOSITORY, field, header, json};

fn digest_of(bytes: &[u8]) -> String {
    let digest = digest(&SHA256, bytes);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[tokio::test]
async fn from_the_challenge_to_the_last_layer() {
    let azure = Azure::start().await;
    let pushed = azure.push();

    let challenged = azure.client.get(azure.registry("/v2/")).send().await.expect("an answer");
    assert_eq!(challenged.status(), 401);
    let challenge = header(&challenged, "www-authenticate");
    assert_eq!(
        challenge,
        format!("Bearer realm=\"{}\",service=\"example.azurecr.io\"", azure.registry("/oauth2/token"))
    );

    let token = azure.access_token(&format!("repository:{REPOSITORY}:pull")).await;
    let path = format!("/v2/{REPOSITORY}/manifests/latest");
    let answer = azure.get(&path, &token, INDEX).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "docker-content-digest"), pushed.index_digest);
    let bytes = answer.bytes().await.expect("the index");
    assert_eq!(digest_of(&bytes), pushed.index_digest);
    let index: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2));

    let child = field(&index["manifests"][0], "digest");
    assert_eq!(("amd64".to_owned(), child.clone()), pushed.manifests[0]);
    let manifest = json(azure.get(&format!("/v2/{REPOSITORY}/manifests/{child}"), &token, MANIFEST).await).await;

    let mut diff_ids = Vec::new();
    let mut config = None;
    let layers = manifest["layers"].as_array().expect("layers");
    for descriptor in layers.iter().chain([&manifest["config"]]) {
        let digest = field(descriptor, "digest");
        let path = format!("/v2/{REPOSITORY}/blobs/{}", digest.replace(':', "%3A"));
        let redirect = azure.get(&path, &token, "*/*").await;
        assert_eq!(redirect.status(), 307);
        assert_eq!(header(&redirect, "content-type"), "text/html");
        assert_eq!(header(&redirect, "docker-content-digest"), digest);
        let location = header(&redirect, "location");
        let body = redirect.text().await.expect("a body");
        assert_eq!(body, format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", location.replace('&', "&amp;")));
        let blob = azure.client.get(&location).send().await.expect("storage answers");
        assert_eq!(blob.status(), 200);
        let blob = blob.bytes().await.expect("the blob");
        assert_eq!(digest_of(&blob), digest);
        assert_eq!(Some(blob.len() as u64), descriptor["size"].as_u64());
        if field(descriptor, "mediaType").ends_with("tar+gzip") {
            let mut tar = Vec::new();
            GzDecoder::new(blob.as_ref()).read_to_end(&mut tar).expect("gzip");
            assert_eq!(&tar[257..262], b"ustar");
            diff_ids.push(digest_of(&tar));
        } else {
            config = Some(serde_json::from_slice::<serde_json::Value>(&blob).expect("JSON"));
        }
    }
    assert_eq!(config.expect("a config")["rootfs"]["diff_ids"], serde_json::json!(diff_ids));

    let hops: Vec<Hop> = azure.emulator.requests().iter().map(|request| request.hop).collect();
    let count = |hop| hops.iter().filter(|at| **at == hop).count();
    assert_eq!([Hop::Entra, Hop::Exchange, Hop::Token, Hop::Data, Hop::Storage].map(count), [1, 1, 1, 6, 3]);
}

#[tokio::test]
async fn the_same_image_has_the_same_digests_in_every_run() {
    let image = Image::small("a", "1").with_layers(2, 200_000).with_docker_media_types();
    let (one, other) = (Azure::start().await, Azure::start().await);
    let pushed = one.emulator.push(image.clone());
    assert_eq!(pushed, other.emulator.push(image));
    assert_eq!(pushed.blobs.len(), 6);
    // Noise does not shrink, so that a layer costs on the wire what it says.
    let layer = one.emulator.blob(&pushed.blobs[0]).expect("the first layer");
    assert!((200_000..210_000).contains(&layer.len()), "{}", layer.len());
}

#[tokio::test]
async fn an_image_without_an_index_is_named_by_its_tag() {
    let azure = Azure::start().await;
    let pushed = azure.emulator.push(Image::small(REPOSITORY, "one").without_index());
    assert_eq!(pushed.index_digest, pushed.manifests[0].1);
    let token = azure.access_token("repository:*:pull").await;
    let answer = azure.get(&format!("/v2/{REPOSITORY}/manifests/one"), &token, MANIFEST).await;
    assert_eq!(header(&answer, "content-type"), MANIFEST);
}

#[tokio::test]
async fn a_request_is_recorded_with_its_connection() {
    let azure = Azure::start().await;
    let fresh = azure.fresh_client();
    for client in [&azure.client, &azure.client, &fresh] {
        let answer = client.get(azure.registry("/v2/?a=%41")).header("X-Probe", "1").send().await;
        // A body read to its end gives the connection back.
        let _ = answer.expect("an answer").bytes().await;
    }
    azure.emulator.wait_for(|requests| requests.len() == 3).await;
    let seen = azure.emulator.take_requests();
    assert_eq!(seen[0].connection, seen[1].connection);
    assert_ne!(seen[0].connection, seen[2].connection);
    assert_eq!((seen[0].target.as_str(), seen[0].status), ("/v2/?a=%41", 401));
    assert_eq!(seen[0].header("x-probe"), Some("1"));
    assert!(azure.emulator.requests().is_empty());
}
